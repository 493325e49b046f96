"""Vary: which of several stored variants answers a request (RFC 9111 section 4.1)."""

from __future__ import annotations

from collections.abc import Iterable

from pulsecache_sidecar.core.http.framing import tokens
from pulsecache_sidecar.core.http.message import Fields, values

Variant = tuple[tuple[bytes, bytes | None], ...]
"""Field name -> the request's value in normal form, None where it had none; sorted by name."""


def varies_on(fields: Fields) -> tuple[bytes, ...] | None:
    """The names in Vary, sorted; None for "*": no other request ever matches."""
    names = set(tokens(fields, b"vary"))
    return None if b"*" in names else tuple(sorted(names))


def variant(names: Iterable[bytes], request: Fields) -> Variant:
    return tuple((name, normal(request, name)) for name in names)


def matches(stored: Variant, request: Fields) -> bool:
    return all(normal(request, name) == value for name, value in stored)


def normal(fields: Fields, name: bytes) -> bytes | None:
    """All values of a field in one, white space around commas gone: two spellings of one list are one value."""
    lines = list(values(fields, name))
    if not lines:
        return None
    return b",".join(member.strip(b" \t") for line in lines for member in line.split(b","))
