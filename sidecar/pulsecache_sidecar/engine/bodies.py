"""Bodies held in memory up to a limit, and streams put together again where the limit was too small."""

from __future__ import annotations

from pulsecache_sidecar.ports import Body

MAX_OBJECT_BYTES = 1024 * 1024
"""Larger bodies stream through and are neither stored nor buffered."""


class Prefixed:
    """What was already read of a stream, and then the rest of it."""

    def __init__(self, pieces: list[bytes], rest: Body) -> None:
        self._pieces = pieces
        self._rest = rest

    def __aiter__(self) -> Prefixed:
        return self

    async def __anext__(self) -> bytes:
        if self._pieces:
            return self._pieces.pop(0)
        return await anext(self._rest)

    def abort(self) -> None:
        """Gives the rest up, where its source can be told."""
        self._pieces.clear()
        abort = getattr(self._rest, "abort", None)
        if abort is not None:
            abort()


class OneBody:
    """Bytes as a body that is read once."""

    def __init__(self, body: bytes) -> None:
        self._body: bytes | None = body

    def __aiter__(self) -> OneBody:
        return self

    async def __anext__(self) -> bytes:
        if not self._body:
            raise StopAsyncIteration
        body, self._body = self._body, None
        return body


async def collect(body: Body, declared: int | None, limit: int = MAX_OBJECT_BYTES) -> bytes | Prefixed:
    """The whole body, or, where it is larger than `limit`, all of it as a stream. Raises what the body raises."""
    if declared is not None and declared > limit:
        return Prefixed([], body)
    pieces: list[bytes] = []
    size = 0
    async for piece in body:
        pieces.append(piece)
        size += len(piece)
        if size > limit:
            return Prefixed(pieces, body)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
