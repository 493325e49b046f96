"""Whether a response may be stored, and why not (RFC 9111 section 3)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from pulsecache_policy.model import Principal, Ttl
from pulsecache_sidecar.core.http.cache_control import directives
from pulsecache_sidecar.core.http.credentials import for_anyone, unkeyed
from pulsecache_sidecar.core.http.freshness import Freshness, freshness
from pulsecache_sidecar.core.http.message import Fields, RequestHead, ResponseHead, first
from pulsecache_sidecar.core.http.vary import Variant, variant, varies_on

_NEVER = frozenset((206, 304))
"""Partial content is not combined, and a 304 that nobody asked for describes nothing that we have."""


class NotStored(StrEnum):
    """The reason, as it is told in Cache-Status."""

    METHOD = "method"
    STATUS = "status"
    NO_STORE = "no-store"
    PRIVATE = "private"
    AUTHORIZATION = "authorization"
    COOKIE = "cookie"
    SET_COOKIE = "set-cookie"
    VARY = "vary"
    RANGE = "range"
    NO_LIFETIME = "no-lifetime"
    """Neither fresh for any time nor something to validate it by."""
    TOO_LARGE = "too-large"
    OVERLAP = "overlap"
    """Something that it carries was changed while it was on its way."""
    OLDER = "older"
    """A later request was answered sooner, and that answer is held already."""
    BYPASS = "bypass"
    """The policy wants the cache left alone."""


@dataclass(frozen=True, slots=True)
class Storable:
    freshness: Freshness
    variant: Variant
    anyone: bool
    """The origin said that anybody may have it."""
    private: bool
    """It may depend on who asked, by Vary: it stays in memory."""


@dataclass(frozen=True, slots=True)
class Times:
    """When a request was sent and its answer received: wall clock for the dates in it, own clock for the delay."""

    sent_wall: float
    received_wall: float
    delay_s: float


def storable(
    request: RequestHead, head: ResponseHead, *, ttl: Ttl, principal: Principal | None, times: Times
) -> Storable | NotStored:
    """`principal` is what the key of the entry holds of who asks. Both heads have end-to-end fields only."""
    refusal = _refusal(request, head, principal)
    if refusal is not None:
        return refusal
    names = varies_on(head.fields)
    if names is None:
        return NotStored.VARY
    fresh = freshness(
        head,
        ttl,
        shared=principal is None,
        sent_wall=times.sent_wall,
        received_wall=times.received_wall,
        delay_s=times.delay_s,
    )
    if fresh.lifetime_s <= 0 and not has_validator(head.fields):
        return NotStored.NO_LIFETIME
    if not fresh.explicit and head.status != 200:
        return NotStored.STATUS
    return Storable(
        freshness=fresh,
        variant=variant(names, request.fields),
        anyone=for_anyone(directives(head.fields)),
        private=b"cookie" in names or b"authorization" in names,
    )


def _refusal(request: RequestHead, head: ResponseHead, principal: Principal | None) -> NotStored | None:
    if request.method != "GET":
        return NotStored.METHOD
    if first(request.fields, b"range") is not None or first(head.fields, b"content-range") is not None:
        return NotStored.RANGE
    if head.status < 200 or head.status in _NEVER:
        return NotStored.STATUS
    control = directives(head.fields)
    if "no-store" in control or "no-store" in directives(request.fields):
        return NotStored.NO_STORE
    if "private" in control and principal is None:
        return NotStored.PRIVATE
    credential = unkeyed(request.fields, principal)
    if credential is not None and not for_anyone(control):
        return NotStored.AUTHORIZATION if credential == b"authorization" else NotStored.COOKIE
    if first(head.fields, b"set-cookie") is not None:
        return NotStored.SET_COOKIE  # also in a principal's own entry: a session must not be set back by a replay
    return None


def has_validator(fields: Fields) -> bool:
    return first(fields, b"etag") is not None or first(fields, b"last-modified") is not None
