"""A real one-node Kubernetes for machines that have none: `python3 cluster/cluster.py --help`."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - this is run by whatever python3 the machine has
    raise SystemExit("error: Python 3.11 or newer is needed to run this")

from onenode.commands import main

if __name__ == "__main__":
    raise SystemExit(main())
