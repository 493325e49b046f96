"""A stored response as bytes, for the shared store. Own-clock instants do not cross machines: an age does, as it was
when the request was sent; how long ago that is, is told by the entry's validity on the machine that reads it.

    payload = header | { length (4) | bytes } ...
    header  = magic (3) | version (1) | status (2) | lifetime, initial age, stale-if-error, lag (8 each, seconds)
              | flags (1) | count of fields (2) | count of varying fields (2)
    parts   = reason, (name, value) of each field, (name, "-" or "+" value) of each varying field, body
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from pulsecache_sidecar.core.http.freshness import Freshness
from pulsecache_sidecar.core.http.message import Representation, ResponseHead
from pulsecache_sidecar.core.http.vary import Variant

MAGIC = b"PCO"
VERSION = 1
_HEADER = struct.Struct("!3sBHddddBHH")
_LENGTH = struct.Struct("!I")
_ANYONE, _EXPLICIT = 1, 2


@dataclass(frozen=True, slots=True)
class Packed:
    """What an entry is, without what ties it to a place and a time."""

    representation: Representation
    freshness: Freshness
    variant: Variant
    anyone: bool
    lag_s: float
    """How far the origin's own answer lagged behind, as far as it said so."""


def encode(packed: Packed) -> bytes:
    head, fresh = packed.representation.head, packed.freshness
    flags = (_ANYONE if packed.anyone else 0) | (_EXPLICIT if fresh.explicit else 0)
    out = [
        _HEADER.pack(
            MAGIC,
            VERSION,
            head.status,
            fresh.lifetime_s,
            fresh.initial_age_s,
            fresh.stale_if_error_s,
            packed.lag_s,
            flags,
            len(head.fields),
            len(packed.variant),
        )
    ]
    parts: list[bytes] = [head.reason]
    for name, value in head.fields:
        parts += (name, value)
    for name, wanted in packed.variant:
        parts += (name, b"-" if wanted is None else b"+" + wanted)
    parts.append(packed.representation.body)
    for part in parts:
        out += (_LENGTH.pack(len(part)), part)
    return b"".join(out)


def decode(payload: bytes) -> Packed | None:
    """None for anything that `encode` of this version did not write: the same as a miss."""
    try:
        magic, version, status, lifetime, age, error, lag, flags, fields, variant = _HEADER.unpack_from(payload)
        if magic != MAGIC or version != VERSION:
            return None
        parts = list(_parts(payload))
    except (struct.error, ValueError):
        return None
    if len(parts) != 2 + 2 * (fields + variant) or not all(map(_is_duration, (lifetime, age, error, lag))):
        return None
    pairs = list(zip(parts[1:-1:2], parts[2:-1:2], strict=True))
    if not all(wanted[:1] in (b"+", b"-") for _, wanted in pairs[fields:]):
        return None
    return Packed(
        Representation(ResponseHead(status, tuple(pairs[:fields]), parts[0]), parts[-1]),
        Freshness(lifetime, age, bool(flags & _EXPLICIT), error),
        tuple((name, None if wanted == b"-" else wanted[1:]) for name, wanted in pairs[fields:]),
        bool(flags & _ANYONE),
        lag,
    )


def _parts(payload: bytes) -> Iterator[bytes]:
    position = _HEADER.size
    while position < len(payload):
        (length,) = _LENGTH.unpack_from(payload, position)
        position += _LENGTH.size
        if position + length > len(payload):
            raise ValueError("cut short")
        yield payload[position : position + length]
        position += length


def _is_duration(value: float) -> bool:
    return value >= 0 and not math.isnan(value)
