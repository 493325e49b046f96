"""What an intermediary takes off and puts on when it passes a message on (RFC 9110 section 7.6)."""

from __future__ import annotations

from pulsecache_sidecar.core.http.framing import tokens
from pulsecache_sidecar.core.http.message import Fields, combined, without

_HOP_BY_HOP = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade")
)
_END_TO_END = frozenset(
    (b"cache-control", b"authorization", b"cookie", b"set-cookie", b"vary", b"date", b"age", b"x-forwarded-for")
)
"""A Connection field does not make these disappear: caching and privacy are decided on them."""


def end_to_end(fields: Fields) -> Fields:
    """The fields without those of this connection only: the fixed ones and those that Connection names."""
    named = set(tokens(fields, b"connection")) - _END_TO_END
    drop = _HOP_BY_HOP | named
    return tuple(field for field in fields if field[0] not in drop)


def forwarded(fields: Fields, peer: str) -> Fields:
    """X-Forwarded-For with the peer's address appended, in one line at the end."""
    if not peer:
        return fields
    before = combined(fields, b"x-forwarded-for")
    value = peer.encode("latin-1") if not before else before + b", " + peer.encode("latin-1")
    return (*without(fields, b"x-forwarded-for"), (b"x-forwarded-for", value))
