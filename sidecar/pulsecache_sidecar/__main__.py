"""`pulsecache-sidecar`: flags in, a running sidecar, an exit status out."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from pulsecache_sidecar import __version__, logs
from pulsecache_sidecar.config import ConfigError, load, parser


def main(arguments: Sequence[str] | None = None) -> int:
    top = parser()
    options = top.parse_args(arguments)
    if options.version:
        print(f"pulsecache-sidecar {__version__}")
        return 0
    if options.command is None:
        top.print_help()
        return 2
    # Imported late: --help and a wrong flag should not wait for the whole program.
    from pathlib import Path

    from pulsecache_policy.bundle import BundleError
    from pulsecache_sidecar.adapters.policy_files import manifests
    from pulsecache_sidecar.app import run

    namespace = os.environ.get("PULSECACHE_POD_NAMESPACE", "default")
    try:
        keys = [key for file in options.policy for key in manifests(Path(file), namespace)]
        config = load(options, os.environ, keys)
    except BundleError as error:
        print(f"pulsecache-sidecar: {error}", file=sys.stderr)
        return 2
    except ConfigError as error:
        for reason in error.errors:
            print(f"pulsecache-sidecar: {reason}", file=sys.stderr)
        return 2
    logs.configure(config.log_format)
    return run(config)


if __name__ == "__main__":
    sys.exit(main())
