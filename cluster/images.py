"""Build the images of Pulsecache and its example, and load them into a cluster: `python3 cluster/images.py --help`."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - this is run by whatever python3 the machine has
    raise SystemExit("error: Python 3.11 or newer is needed to run this")

from onenode.image_commands import main

if __name__ == "__main__":
    raise SystemExit(main())
