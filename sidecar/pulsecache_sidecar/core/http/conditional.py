"""Conditional requests, those of clients and our own (RFC 9110 section 13, RFC 9111 section 4.3)."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from pulsecache_sidecar.core.http.dates import parse_date
from pulsecache_sidecar.core.http.message import Fields, ResponseHead, combined, first, without

CONDITIONS = (b"if-none-match", b"if-modified-since", b"if-match", b"if-unmodified-since", b"if-range")

_ETAG = re.compile(rb'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')
_IN_304 = frozenset(
    (b"cache-control", b"content-location", b"date", b"etag", b"expires", b"last-modified", b"vary", b"set-cookie")
)
_KEPT_ON_304 = frozenset((b"content-length", b"content-encoding", b"content-range", b"set-cookie"))
"""These describe the body that is stored, or were meant for one client."""


def etag(fields: Fields) -> bytes | None:
    value = first(fields, b"etag")
    return value if value is not None and _ETAG.fullmatch(value) else None


def is_strong(tag: bytes) -> bool:
    return not tag.startswith(b"W/")


def for_the_origin(fields: Fields) -> bytes | None:
    """What only the origin can answer: Range and the conditions on the current state (RFC 9111 section 4.3.2)."""
    names = {name for name, _ in fields}
    for name in (b"range", b"if-match", b"if-unmodified-since", b"if-range"):
        if name in names:
            return name
    return None


def not_modified(request: Fields, stored: ResponseHead, wall: Callable[[], float]) -> bool:
    """Whether a client that sends these conditions has this 200 already (RFC 9111 section 4.3.2)."""
    if stored.status != 200:
        return False
    wanted = combined(request, b"if-none-match")
    if wanted is not None:
        own = etag(stored.fields)
        if wanted.strip(b" \t") == b"*":
            return True
        return own is not None and _opaque(own) in {_opaque(tag) for tag in _ETAG.findall(wanted)}
    since = first(request, b"if-modified-since")
    if since is None:
        return False
    now_wall = wall()
    known = parse_date(since, now_wall)
    changed = first(stored.fields, b"last-modified") or first(stored.fields, b"date")
    changed_at = parse_date(changed, now_wall) if changed is not None else None
    return known is not None and changed_at is not None and changed_at <= known


def not_modified_head(stored: ResponseHead) -> ResponseHead:
    """304 with the fields that a 200 would have had and a client can use (RFC 9110 section 15.4.5)."""
    return ResponseHead(304, tuple(field for field in stored.fields if field[0] in _IN_304))


def validators(stored: ResponseHead, *, changed: bool, now_wall: float) -> Fields | None:
    """The conditions of a request that asks whether what is stored still holds; None where nothing can tell, and it has
    to be fetched anew.

    `changed`: something was announced since. Then only a strong ETag tells: a weak one may stay when less than
    everything changed, and a date when two changes fell into one second.
    """
    if stored.status != 200:
        return None
    tag = etag(stored.fields)
    if tag is not None:
        return None if changed and not is_strong(tag) else ((b"if-none-match", tag),)
    modified = first(stored.fields, b"last-modified")
    return (
        None if changed or modified is None or not _is_exact(stored, now_wall) else ((b"if-modified-since", modified),)
    )


def _is_exact(stored: ResponseHead, now_wall: float) -> bool:
    """Last-Modified at least a second before Date: no later change can bear the same one (RFC 9110 section 8.8.2.2)."""
    modified = parse_date(first(stored.fields, b"last-modified") or b"", now_wall)
    date = parse_date(first(stored.fields, b"date") or b"", now_wall)
    return modified is not None and date is not None and modified <= date - 1


def unconditional(fields: Fields) -> Fields:
    """A client's conditions taken off: the whole answer is wanted, for the cache."""
    return without(fields, *CONDITIONS)


def freshened(stored: ResponseHead, told: ResponseHead) -> ResponseHead:
    """The stored head with the fields of a 304 (RFC 9111 section 3.2), which replace all of the same name."""
    new = tuple(field for field in told.fields if field[0] not in _KEPT_ON_304)
    names = {name for name, _ in new}
    # Age and Date of the old answer say nothing about the new one, even where the 304 has none.
    kept = tuple(field for field in stored.fields if field[0] not in names and field[0] not in (b"age", b"date"))
    return replace(stored, fields=(*kept, *new))


def _opaque(tag: bytes) -> bytes:
    """For the weak comparison (RFC 9110 section 8.8.3.2)."""
    return tag.removeprefix(b"W/")
