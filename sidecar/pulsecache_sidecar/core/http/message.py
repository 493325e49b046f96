"""HTTP messages as values: what the adapters parse and what the core decides on.

Field names are lower-case bytes without white space, values are stripped bytes; both are already validated by
the adapter that made the message. Order and repetition are kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

Fields = tuple[tuple[bytes, bytes], ...]


def values(fields: Fields, name: bytes) -> Iterator[bytes]:
    """The values of every field line of this name, in order (RFC 9110 section 5.3)."""
    return (value for key, value in fields if key == name)


def first(fields: Fields, name: bytes) -> bytes | None:
    return next(values(fields, name), None)


def combined(fields: Fields, name: bytes) -> bytes | None:
    """All values of a list-based field joined by ", " (RFC 9110 section 5.2), or None where there is none."""
    found = list(values(fields, name))
    return b", ".join(found) if found else None


def without(fields: Fields, *names: bytes) -> Fields:
    return tuple((key, value) for key, value in fields if key not in names)


@dataclass(frozen=True, slots=True)
class RequestHead:
    method: str
    target: bytes
    """Origin-form: path and query, as received (percent-encoding untouched)."""
    fields: Fields
    version: tuple[int, int] = (1, 1)
    peer: str = ""
    """Address of the client, for X-Forwarded-For."""

    @property
    def path(self) -> str:
        return self.target.split(b"?", 1)[0].decode("latin-1")

    @property
    def query(self) -> str:
        return self.target.split(b"?", 1)[1].decode("latin-1") if b"?" in self.target else ""

    @property
    def authority(self) -> str:
        return (first(self.fields, b"host") or b"").decode("latin-1").lower()


@dataclass(frozen=True, slots=True)
class ResponseHead:
    status: int
    fields: Fields
    reason: bytes = b""


@dataclass(frozen=True, slots=True)
class Representation:
    """A whole response that is held in memory: what the cache stores."""

    head: ResponseHead
    body: bytes
