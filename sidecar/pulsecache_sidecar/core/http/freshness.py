"""How long a response is fresh, and how old it is (RFC 9111 section 4.2)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pulsecache_policy.model import Ttl, TtlSource
from pulsecache_sidecar.core.http.cache_control import MAX_DELTA_S, Directives, delta_seconds, directives
from pulsecache_sidecar.core.http.dates import parse_date
from pulsecache_sidecar.core.http.message import Fields, ResponseHead, first, values

_DIGITS = re.compile(rb"[0-9]+")
_DURATION_STATUSES = frozenset((200, 203, 204, 300, 301, 308))
"""What the policy's `duration` is for. Errors live only as long as they say themselves."""


@dataclass(frozen=True, slots=True)
class Freshness:
    lifetime_s: float
    """0 where each use has to be validated."""
    initial_age_s: float
    """Age at the moment when the request was sent."""
    explicit: bool
    """The lifetime was told, by the response or by the policy."""
    stale_if_error_s: float = 0.0
    """How long after its lifetime it may stand in for an error (RFC 5861 section 4)."""

    def age_s(self, since_sent_s: float) -> float:
        return self.initial_age_s + since_sent_s


def freshness(
    head: ResponseHead, ttl: Ttl, *, shared: bool, sent_wall: float, received_wall: float, delay_s: float
) -> Freshness:
    """`delay_s` is the time from sending the request to receiving the head, on the own clock; the wall times serve only
    to understand Date and Expires. `shared`: the entry is not one principal's own."""
    control = directives(head.fields)
    explicit = explicit_lifetime(head, control, shared=shared, received_wall=received_wall)
    lifetime: float | None = explicit
    if (
        ttl.duration_s is not None
        and head.status in _DURATION_STATUSES
        and (ttl.source is TtlSource.POLICY or (ttl.source is TtlSource.ORIGIN_FIRST and explicit is None))
    ):
        lifetime = ttl.duration_s
    validated_each_time = "no-cache" in control  # with field names, too: the fields would have to be taken out
    strict = validated_each_time or "must-revalidate" in control
    strict = strict or (shared and ("proxy-revalidate" in control or "s-maxage" in control))
    return Freshness(
        lifetime_s=0.0 if lifetime is None or validated_each_time else lifetime,
        initial_age_s=initial_age(head.fields, received_wall, delay_s),
        explicit=lifetime is not None,
        stale_if_error_s=0.0 if strict else float(delta_seconds(control.get("stale-if-error"))),
    )


def explicit_lifetime(head: ResponseHead, control: Directives, *, shared: bool, received_wall: float) -> float | None:
    """s-maxage, max-age, Expires, in this order (RFC 9111 section 4.2.1); None where there is none of them."""
    if shared and "s-maxage" in control:
        return float(delta_seconds(control["s-maxage"]))
    if "max-age" in control:
        return float(delta_seconds(control["max-age"]))
    expires = list(values(head.fields, b"expires"))
    if not expires:
        return None
    at = parse_date(expires[0], received_wall)
    if at is None or len(set(expires)) > 1:
        return 0.0  # RFC 9111 section 5.3: an invalid date, such as "0", is in the past
    date = first(head.fields, b"date")
    origin_wall = parse_date(date, received_wall) if date is not None else None
    return max(0.0, min(at - (received_wall if origin_wall is None else origin_wall), float(MAX_DELTA_S)))


def initial_age(fields: Fields, received_wall: float, delay_s: float) -> float:
    """The age at the time of sending: corrected_initial_age of RFC 9111 section 4.2.3, less the delay that then counts
    again as time since."""
    date = first(fields, b"date")
    origin_wall = parse_date(date, received_wall) if date is not None else None
    apparent = 0.0 if origin_wall is None else max(0.0, received_wall - origin_wall)
    return max(0.0, float(told_age(fields)), apparent - delay_s)


def told_age(fields: Fields) -> int:
    """The Age field: the first member, as far as it is a number (RFC 9111 section 5.1)."""
    value = first(fields, b"age")
    if value is None:
        return 0
    member = value.split(b",", 1)[0].strip(b" \t")
    if not _DIGITS.fullmatch(member):
        return 0
    return MAX_DELTA_S if len(member) > 10 else min(int(member), MAX_DELTA_S)
