"""The command line. Results go to standard output, everything for people to standard error."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from onenode import apiserver
from onenode.build import ALL, API, Binaries
from onenode.console import ClusterError, say
from onenode.settings import cache_folder


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options) or 0)
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="cluster.py", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    build = commands.add_parser("build", help="build the binaries into the cache folder (no root)")
    build.add_argument("--api", action="store_true", help="only what an API server without a node needs")
    build.set_defaults(run=_build)

    alone = commands.add_parser("apiserver", help="etcd and kube-apiserver alone, on loopback (no root)")
    alone.add_argument("action", choices=["up", "down"])
    alone.add_argument("--dir", type=Path, help="its folder; several may run, each in its own")
    alone.set_defaults(run=_apiserver)
    return parser


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
