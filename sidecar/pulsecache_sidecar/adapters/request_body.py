"""A request's body as it arrives on a connection: an async iterator with back-pressure, read at most once."""

from __future__ import annotations

from typing import Protocol

from pulsecache_sidecar.adapters import http_flow
from pulsecache_sidecar.core.http.chunked import ChunkedDecoder
from pulsecache_sidecar.core.http.framing import RequestFraming


class Source(Protocol):
    """The connection, as far as a body needs it."""

    def body_wanted(self) -> None: ...

    def body_taken(self) -> None: ...

    def continue_(self) -> None: ...


class RequestBody:
    """`expects_continue` is answered when the body is first asked for, and not at all where it never is: then the final
    answer spares the client the sending (RFC 9110 section 10.1.1)."""

    def __init__(self, source: Source, framing: RequestFraming, nothing_arrived: bool) -> None:
        self._source = source
        self._left = framing.length
        self._decoder = ChunkedDecoder() if framing.length is None else None
        self._chunks = http_flow.Chunks()
        self._continue = framing.expects_continue and nothing_arrived
        self.waiting = False
        """The handler waits for bytes."""

    @property
    def complete(self) -> bool:
        """The last byte has arrived (it may not have been read)."""
        return self._chunks.ended

    @property
    def full(self) -> bool:
        return self._chunks.size > http_flow.HIGH_WATER

    def feed(self, data: bytes) -> bytes:
        """Takes what belongs to the body and returns the rest. Raises BadChunk."""
        self._continue = False
        if self._decoder is not None:
            for piece in self._decoder.feed(data):
                self._chunks.put(piece)
            if self._decoder.done:
                self._chunks.end()
            return self._decoder.rest
        assert self._left is not None
        piece, rest = data[: self._left], data[self._left :]
        self._left -= len(piece)
        self._chunks.put(piece)
        if self._left == 0:
            self._chunks.end()
        return rest

    def fail(self, error: Exception) -> None:
        self._chunks.fail(error)

    def __aiter__(self) -> RequestBody:
        return self

    async def __anext__(self) -> bytes:
        if self._continue:
            self._continue = False
            self._source.continue_()
        while True:
            data = self._chunks.take()
            if data is not None:
                if not self._chunks.ended:
                    self._source.body_taken()
                return data
            if self._chunks.ended:
                raise StopAsyncIteration
            self.waiting = True
            self._source.body_wanted()
            try:
                await self._chunks.wait()
            finally:
                self.waiting = False
