"""The command line of the images."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from onenode import images, loading, wheels
from onenode.console import run_command, say
from onenode.settings import cache_folder


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="images.py", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    build = commands.add_parser("build", help="build images and print their archives")
    build.add_argument("names", nargs="+", metavar="NAME", help=", ".join(images.IMAGES))
    build.add_argument("--out", type=Path, help="also put NAME.tar here")
    build.set_defaults(run=_build)

    load = commands.add_parser("load", help="build images and load them into a cluster")
    load.add_argument("names", nargs="+", metavar="NAME", help=", ".join(images.IMAGES))
    load.add_argument("--context", help="a kubectl context of kind, k3d or minikube; without it the one-node cluster")
    load.set_defaults(run=_load)

    lock = commands.add_parser("lock", help="write requirements/*.lock")
    lock.add_argument("--upgrade", action="store_true", help="take the newest versions that are allowed")
    lock.set_defaults(run=lambda options: wheels.write_locks(cache_folder(), upgrade=options.upgrade))

    options = parser.parse_args(arguments)
    return run_command(lambda: options.run(options))


def _build(options: argparse.Namespace) -> None:
    archives = images.build(options.names, cache_folder())
    if options.out:
        archives = images.copy_to(archives, options.out)
    for name, archive in archives.items():
        print(f"{images.reference(name)} {archive}")


def _load(options: argparse.Namespace) -> None:
    target = loading.target(options.context)
    for name, archive in images.build(options.names, cache_folder()).items():
        target.load(images.reference(name), archive)
        say(f"{images.reference(name)} is in {target}")
