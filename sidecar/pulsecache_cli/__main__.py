"""`pulsecache`: the command for people; as `kubectl-pulsecache` on PATH also `kubectl pulsecache`.

Arguments in, exit code out: 0 done, 1 found errors or failed, 2 wrong arguments. What the commands do is in the
modules beside this one.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path

from pulsecache_cli import check, sidecar, status
from pulsecache_cli.errors import CommandFailed
from pulsecache_cli.kubectl import ADMIN_PORT, Kubectl
from pulsecache_cli.output import plain
from pulsecache_cli.sidecar import Sidecar

EXAMPLES = """\
examples:
  pulsecache check policies/*.yaml                   the API server's verdict, without one
  pulsecache status -A                               all policies of the cluster
  pulsecache staleness --pod shop/products-7d9f-x2   what one sidecar knows
  pulsecache purge shop/products /products/42        fetch it anew, everywhere

exit code: 0 done, 1 errors found or failed, 2 wrong arguments
"""


def main(arguments: Sequence[str] | None = None) -> int:
    try:
        code = _run(_parser().parse_args(arguments))
        sys.stdout.flush()
    except CommandFailed as failed:
        print(f"pulsecache: {plain(str(failed))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # whoever read our output has seen enough; nothing may be flushed to it at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return code


def _run(given: argparse.Namespace) -> int:
    as_json = getattr(given, "output", "human") == "json"
    match given.command:
        case "check":
            return check.run(given.files, namespace=given.namespace, as_json=as_json)
        case "status":
            return status.run(
                Kubectl(given.context),
                name=given.name,
                namespace=given.namespace,
                all_namespaces=given.all_namespaces,
                as_json=as_json,
            )
        case _:
            with ExitStack() as stack:
                return _ask(given, _sidecar(given, stack), as_json=as_json)


def _ask(given: argparse.Namespace, asked: Sidecar, *, as_json: bool) -> int:
    match given.command:
        case "staleness":
            return sidecar.staleness(asked, as_json=as_json)
        case "journal":
            return sidecar.journal(asked, as_json=as_json)
        case "dead-letters":
            return sidecar.dead_letters(asked, as_json=as_json)
        case "retry":
            return sidecar.retry(asked, given.id)
        case "drop":
            return sidecar.drop(asked, given.id)
        case "purge":
            return sidecar.purge(asked, given.dataset, None if given.all else given.tag)
        case command:
            raise AssertionError(f"the command {command} is not wired")


def _sidecar(given: argparse.Namespace, stack: ExitStack) -> Sidecar:
    if given.pod is None:
        return Sidecar(given.admin)
    namespace, _, name = given.pod.partition("/")
    return Sidecar(stack.enter_context(Kubectl(given.context).forwarded(namespace, name)))


def _parser() -> argparse.ArgumentParser:
    program = "kubectl pulsecache" if Path(sys.argv[0]).name.startswith("kubectl-") else "pulsecache"
    parser = argparse.ArgumentParser(
        prog=program,
        description="Check cache policies, see what they do, and look after a sidecar's cache and journal.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {version('pulsecache')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    output = argparse.ArgumentParser(add_help=False)
    output.add_argument("-o", "--output", choices=("human", "json"), default="human", help="default: human")
    cluster = argparse.ArgumentParser(add_help=False)
    cluster.add_argument("--context", help="the kubectl context; default: the current one")
    where = argparse.ArgumentParser(add_help=False, parents=[cluster])
    place = where.add_mutually_exclusive_group()
    place.add_argument(
        "--admin",
        metavar="URL",
        default=f"http://127.0.0.1:{ADMIN_PORT}",
        help="the sidecar's admin listener; default: %(default)s",
    )
    place.add_argument("--pod", metavar="NAMESPACE/NAME", type=_pod, help="the sidecar of this pod, through kubectl")

    one = commands.add_parser(
        "check",
        parents=[output],
        help="validate manifests, as the API server would",
        description="Validates every CachePolicy in the files and prints FILE:LINE: PATH: REASON for each error. "
        "Documents of other kinds are skipped. Needs no cluster.",
    )
    one.add_argument("files", nargs="+", metavar="FILE", help="YAML or JSON, several documents in one file; - is stdin")
    one.add_argument("-n", "--namespace", default="default", help="of documents that name none; default: %(default)s")

    one = commands.add_parser(
        "status", parents=[output, cluster], help="show the policies of the cluster, or all about one"
    )
    one.add_argument("name", nargs="?", metavar="NAME", help="show this policy with its conditions")
    scope = one.add_mutually_exclusive_group()
    scope.add_argument("-n", "--namespace", help="default: that of the context")
    scope.add_argument("-A", "--all-namespaces", action="store_true")

    commands.add_parser("staleness", parents=[output, where], help="show what a sidecar knows of its datasets")
    commands.add_parser("journal", parents=[output, where], help="show a sidecar's writes on their way to the origin")
    commands.add_parser("dead-letters", parents=[output, where], help="show the writes that the origin refused")
    for name, told in (
        ("retry", "send dead letters to the origin once more"),
        ("drop", "give dead letters up: these writes never reach the origin"),
    ):
        one = commands.add_parser(name, parents=[where], help=told)
        one.add_argument("id", nargs="+", type=_letter, metavar="ID", help="as `dead-letters` shows it")
    one = commands.add_parser(
        "purge",
        parents=[where],
        help="announce a change to all sidecars of a dataset: what it names is fetched anew",
    )
    one.add_argument("dataset", type=_pod, metavar="NAMESPACE/NAME", help="the dataset")
    what = one.add_mutually_exclusive_group(required=True)
    what.add_argument("tag", nargs="?", metavar="TAG", help="a tag such as product:42, or a path such as /products/42")
    what.add_argument("--all", action="store_true", help="everything in the dataset")
    return parser


def _pod(text: str) -> str:
    namespace, slash, name = text.partition("/")
    if not (namespace and slash and name) or "/" in name:
        raise argparse.ArgumentTypeError(f'"{text}" is not NAMESPACE/NAME')
    return text


def _letter(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f'"{text}" is no id of a dead letter')
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
