"""The command line. Results go to standard output, everything for people to standard error."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from onenode import apiserver, images, network
from onenode.build import ALL, API, Binaries
from onenode.console import run_command, say
from onenode.lifecycle import Cluster, require_root
from onenode.loading import OneNode
from onenode.settings import cache_folder, settings


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    return run_command(lambda: options.run(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="cluster.py", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    build = commands.add_parser("build", help="build the binaries into the cache folder (no root)")
    build.add_argument("--api", action="store_true", help="only what an API server without a node needs")
    build.set_defaults(run=_build)

    for name, run, text in (
        ("up", _up, "start the cluster, or wait until the running one is ready (root)"),
        ("down", _down, "end and remove the cluster (root)"),
        ("status", _status, "what runs; exit status 1 when the cluster is not up"),
    ):
        command = commands.add_parser(name, help=text)
        _cluster_options(command)
        command.set_defaults(run=run)

    for name, run, text in (
        ("kubeconfig", _kubeconfig, "print the path of the kubeconfig"),
        ("env", _env, 'print lines for a shell: eval "$(cluster.py env)" makes kubectl and helm use the cluster'),
    ):
        command = commands.add_parser(name, help=text)
        _cluster_options(command)
        command.set_defaults(run=run)

    execute = commands.add_parser("exec", help="run a command in the node's network: it reaches pods and services")
    _cluster_options(execute)
    execute.add_argument("argv", nargs="+", metavar="COMMAND", help="after --")
    execute.set_defaults(run=_exec)

    load = commands.add_parser("load-image", help="load a docker-archive into the cluster")
    _cluster_options(load)
    load.add_argument("reference", metavar="NAME:TAG")
    load.add_argument("archive", metavar="FILE", type=Path)
    load.set_defaults(run=_load_image)

    built = commands.add_parser("images", help="build images of this repository and load them into the cluster")
    _cluster_options(built)
    built.add_argument("names", nargs="+", metavar="NAME", help=", ".join(images.IMAGES))
    built.set_defaults(run=_images)

    alone = commands.add_parser("apiserver", help="etcd and kube-apiserver alone, on loopback (no root)")
    alone.add_argument("action", choices=["up", "down"])
    alone.add_argument("--dir", type=Path, help="its folder; several may run, each in its own")
    alone.set_defaults(run=_apiserver)
    return parser


def _cluster_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--name", help="the cluster's name [PULSECACHE_CLUSTER_NAME, pulsecache]")
    command.add_argument(
        "--dir", type=Path, help="its folder [PULSECACHE_CLUSTER_DIR, ~/.cache/pulsecache/cluster/run]"
    )
    command.add_argument(
        "--subnet", help="the wire between machine and node [PULSECACHE_CLUSTER_SUBNET, 10.199.0.0/30]"
    )


def _cluster(options: argparse.Namespace) -> Cluster:
    return Cluster(settings(options.name, options.dir, options.subnet))


def _up(options: argparse.Namespace) -> None:
    cluster = _cluster(options)
    cluster.up()
    say(f"the cluster is up; export KUBECONFIG={cluster.settings.kubeconfig}")


def _down(options: argparse.Namespace) -> None:
    _cluster(options).down()
    say("no cluster runs")


def _status(options: argparse.Namespace) -> int:
    cluster = _cluster(options)
    services = cluster.services()
    for service in services:
        print(
            f"{service.name:<24} {f'pid {service.pid}' if service.pid else 'not running':<12} starts {service.starts}"
        )
    ready = cluster.ready()
    print("Ready" if ready else "not ready" if services else "no cluster runs")
    return 0 if ready else 1


def _kubeconfig(options: argparse.Namespace) -> None:
    print(_cluster(options).settings.kubeconfig)


def _env(options: argparse.Namespace) -> None:
    for key, value in _cluster(options).environment().items():
        print(f"export {key}={shlex.quote(value)}")


def _exec(options: argparse.Namespace) -> None:
    cluster = _cluster(options)
    require_root()
    command = network.inside(cluster.settings, cluster.running().pid, options.argv)
    os.execvpe(command[0], command, {**os.environ, **cluster.environment()})  # noqa: S606 - it is the person's own command


def _load_image(options: argparse.Namespace) -> None:
    target = OneNode(_cluster(options).settings)
    target.load(options.reference, options.archive)
    say(f"{options.reference} is in {target}")


def _images(options: argparse.Namespace) -> None:
    target = OneNode(_cluster(options).settings)
    for name, archive in images.build(options.names, cache_folder()).items():
        target.load(images.reference(name), archive)
        say(f"{images.reference(name)} is in {target}")


def _build(options: argparse.Namespace) -> None:
    binaries = Binaries(cache_folder())
    wanted = API if options.api else ALL
    binaries.ensure(wanted)
    say(f"{len(wanted)} binaries are in {cache_folder() / 'cluster' / 'bin'}")


def _apiserver(options: argparse.Namespace) -> None:
    directory = (options.dir or cache_folder() / "cluster" / "apiserver").absolute()
    if options.action == "down":
        apiserver.down(directory)
        say("no API server runs")
    else:
        server = apiserver.up(directory, cache_folder())
        say(f"the API server listens on {server.url}; the line below makes kubectl use it")
        print(f"export KUBECONFIG={server.kubeconfig}")
