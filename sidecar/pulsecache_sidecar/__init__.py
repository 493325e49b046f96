"""The sidecar: a caching reverse proxy that knows how stale its answers may be."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("pulsecache")
except PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "0+unknown"
