"""What becomes of a write-behind request after one attempt: done, refused for good, or tried again.

An attempt also has an effect on the origin's data, which is another question: a 503 is tried again and may still have
changed something, a 429 is tried again and has not. Waiting, sending and remembering are left to the engine.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from enum import StrEnum

from pulsecache_sidecar.core.http.message import ResponseHead, first
from pulsecache_sidecar.errors import OriginBadResponse, OriginError

RETRY_AFTER_MAX_S = 300.0
"""A longer Retry-After is cut to this: an hour named by mistake must not hold acknowledged writes for an hour."""


class Effect(StrEnum):
    TOOK = "took"
    NONE = "none"
    UNKNOWN = "unknown"
    """It may have changed something, or may do so within the policy's `settle`."""


class Scope(StrEnum):
    """Who should be left alone for a while."""

    WRITE = "write"
    """This write and those behind it; others may well succeed."""
    ORIGIN = "origin"
    """The origin as a whole is away or overloaded: trying the next write would only make it worse."""


@dataclass(frozen=True, slots=True)
class Done:
    effect: Effect = Effect.TOOK


@dataclass(frozen=True, slots=True)
class Refused:
    """The origin will not take this write, however often it is sent: a dead letter."""

    status: int
    reason: str
    effect: Effect = Effect.NONE


@dataclass(frozen=True, slots=True)
class Retry:
    reason: str
    scope: Scope
    effect: Effect
    at_least_s: float = 0.0
    """From Retry-After; added to the back-off."""


Verdict = Done | Refused | Retry


def after_response(head: ResponseHead, wall: float, *, may_be_running: bool = False) -> Verdict:
    """The verdict on a final response; `wall` is the time it came, in seconds since 1970 (for dates in Retry-After).

    `may_be_running`: an earlier attempt has an unknown outcome and is recent. An origin that honours Idempotency-Key
    answers 409 while it still works on that one (draft-ietf-httpapi-idempotency-key-header-07, section 2.6).
    """
    status = head.status
    reason = f"status-{status}"
    if status in (307, 308):
        # "Repeat the request over there" (RFC 9110 sections 15.4.8 and 15.4.9): nothing was done here. Taken as done,
        # an acknowledged write would vanish without a trace.
        return Refused(status, reason)
    if status == 202:
        return Done(Effect.UNKNOWN)
    if status < 400:
        return Done()
    if status in (425, 429):
        scope = Scope.ORIGIN if status == 429 else Scope.WRITE
        return Retry(reason, scope, Effect.NONE, retry_after_s(head, wall))
    if status == 408:
        return Retry(reason, Scope.WRITE, Effect.UNKNOWN, retry_after_s(head, wall))
    if status == 409 and may_be_running:
        return Retry(reason, Scope.WRITE, Effect.NONE, retry_after_s(head, wall))
    if status < 500:
        return Refused(status, reason)
    scope = Scope.ORIGIN if status in (502, 503, 504) else Scope.WRITE
    return Retry(reason, scope, Effect.UNKNOWN, retry_after_s(head, wall))


def after_error(error: OriginError) -> Retry:
    """The verdict where no response came. A broken one may be this write's own doing: others go on."""
    own = isinstance(error, OriginBadResponse) and error.request_sent
    return Retry(
        error.reason,
        Scope.WRITE if own else Scope.ORIGIN,
        Effect.UNKNOWN if error.request_sent else Effect.NONE,
    )


def retry_after_s(head: ResponseHead, wall: float) -> float:
    """Retry-After as seconds from `wall`, between 0 and RETRY_AFTER_MAX_S (RFC 9110 section 10.2.3).

    Where it is absent or makes no sense: 0.
    """
    value = (first(head.fields, b"retry-after") or b"").decode("latin-1").strip()
    if value.isascii() and value.isdigit():
        return RETRY_AFTER_MAX_S if len(value) > 9 else min(float(value), RETRY_AFTER_MAX_S)
    try:
        date = parsedate_to_datetime(value)
        if date.tzinfo is None:
            date = date.replace(tzinfo=UTC)
        wait = date.timestamp() - wall
    except (ValueError, TypeError, OverflowError):
        return 0.0
    return min(max(wait, 0.0), RETRY_AFTER_MAX_S)
