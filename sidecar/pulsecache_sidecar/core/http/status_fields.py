"""The two fields that say how a response came about: Pulse-Staleness and Cache-Status (RFC 9211), as structured fields
(RFC 9651)."""

from __future__ import annotations

import math
import re

from pulsecache_sidecar.core.http.cache_control import MAX_DELTA_S
from pulsecache_sidecar.core.http.message import Fields, first

NAME = "pulsecache"
UNKNOWN = math.inf

_STALENESS = re.compile(rb"([0-9]{1,12}(?:\.[0-9]{1,3})?)(?:[ ]*;.*)?")


def pulse_staleness(bound_s: float, state: str, *, pending: bool = False) -> tuple[bytes, bytes]:
    """Seconds rounded up to the millisecond: never less than is true; the token `unknown` where there is no bound."""
    suffix = ";pending" if pending else ""
    return b"pulse-staleness", f"{format_seconds(bound_s)};state={state}{suffix}".encode()


def format_seconds(value_s: float) -> str:
    if not value_s < 999_999_999:  # also NaN: what is not known is not told
        return "unknown"
    # Less than the clock can tell apart is taken off, so that 1.1 s is not 1.101.
    thousandths = max(0, math.ceil(value_s * 1000 - 1e-6))
    whole, part = divmod(thousandths, 1000)
    return f"{whole}.{part:03d}".rstrip("0").rstrip(".") if part else str(whole)


def told_staleness(fields: Fields) -> float | None:
    """What an origin says of its own answer: seconds, UNKNOWN, or None where it says nothing."""
    value = first(fields, b"pulse-staleness")
    if value is None:
        return None
    found = _STALENESS.fullmatch(value)
    return float(found[1]) if found else UNKNOWN


def hit(ttl_s: float, *, detail: str | None = None) -> tuple[bytes, bytes]:
    """`ttl_s` is negative for what is served stale."""
    return _cache_status(f"hit; ttl={math.floor(max(ttl_s, -MAX_DELTA_S))}", detail)


def forwarded(
    why: str, *, status: int | None = None, stored: bool = False, collapsed: bool = False, detail: str | None = None
) -> tuple[bytes, bytes]:
    """`why` is `bypass`, `method`, `miss`, `vary-miss` or `stale`."""
    parts = [f"fwd={why}"]
    if status is not None:
        parts.append(f"fwd-status={status}")
    if stored:
        parts.append("stored")
    if collapsed:
        parts.append("collapsed")
    return _cache_status("; ".join(parts), detail)


def answered(detail: str) -> tuple[bytes, bytes]:
    """An answer of the cache's own making."""
    return _cache_status("", detail)


def _cache_status(what: str, detail: str | None) -> tuple[bytes, bytes]:
    parts = [NAME, *([what] if what else []), *([f"detail={detail}"] if detail else [])]
    return b"cache-status", "; ".join(parts).encode()
