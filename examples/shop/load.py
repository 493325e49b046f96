"""Load on the shop, or on any HTTP service: see shop/load.py, of which this is the command."""

from __future__ import annotations

import sys

from shop.load import main

if __name__ == "__main__":
    sys.exit(main())
