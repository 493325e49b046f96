"""`pulsecache-operator controller | injector`: reads the settings and starts the one that was asked for."""

from __future__ import annotations

import asyncio
import os
import sys

from pulsecache_operator import logs
from pulsecache_operator.controller.api import ApiError
from pulsecache_operator.settings import Command, InvalidSettings, Settings, parse


def main() -> None:
    try:
        command, settings = parse(sys.argv[1:], os.environ)
    except InvalidSettings as error:
        for reason in error.errors:
            print(f"pulsecache-operator: {reason}", file=sys.stderr)
        sys.exit(2)
    logs.configure(settings.log_format)
    try:
        asyncio.run(_run(command, settings))
    except (ApiError, OSError) as error:
        # No cluster, or an address that cannot be had: no traceback tells more.
        print(f"pulsecache-operator: {error}", file=sys.stderr)
        sys.exit(1)


async def _run(command: Command, settings: Settings) -> None:
    # Each imports much that the other does without.
    match command:
        case Command.CONTROLLER:
            from pulsecache_operator.controller.app import run

            await run(settings)
        case Command.INJECTOR:
            from pulsecache_operator.injector.app import run_injector

            await run_injector(settings)


if __name__ == "__main__":
    main()
