"""What a response to an unsafe request says about the origin's data."""

from __future__ import annotations

from pulsecache_sidecar.core.retry import Effect


def effect(status: int) -> Effect:
    """4xx refuses (but 408 says that the origin gave up waiting, and who knows what it did before); 202 and 5xx leave
    open what happens, or happened."""
    if status in (202, 408) or status >= 500:
        return Effect.UNKNOWN
    return Effect.NONE if 400 <= status < 500 else Effect.TOOK
