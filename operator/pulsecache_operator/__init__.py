"""The operator: puts cache sidecars into pods (injector) and keeps policies, workloads and status (controller)."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("pulsecache")
except PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "0+unknown"
