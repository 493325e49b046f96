"""A response of an origin whose head has arrived: its body as a stream with a deadline."""

from __future__ import annotations

import asyncio
from typing import Protocol

from pulsecache_sidecar.adapters import http_flow
from pulsecache_sidecar.core.http.message import ResponseHead
from pulsecache_sidecar.errors import OriginBadResponse, OriginTimeout
from pulsecache_sidecar.ports import Body


class Source(Protocol):
    """The connection, as far as a response needs it."""

    @property
    def name(self) -> str: ...

    def taken(self, body: http_flow.Chunks) -> None: ...

    def detach(self) -> None: ...

    def abort(self) -> None: ...

    def fail(self, error: Exception) -> None: ...


class StreamedResponse:
    """Implements ports.OriginResponse over a connection."""

    def __init__(self, connection: Source, head: ResponseHead, chunks: http_flow.Chunks, timeout_s: float):
        self._connection = connection
        self._head = head
        self._chunks = chunks
        self._timeout_s = timeout_s

    @property
    def head(self) -> ResponseHead:
        return self._head

    @property
    def body(self) -> Body:
        return self

    def abort(self) -> None:
        if not self._chunks.ended:
            self._chunks.fail(OriginBadResponse("the response was given up", request_sent=True))
            self._connection.abort()

    def detach(self) -> bytes:
        """Leaves the connection to a tunnel; returns what came after the head."""
        self._connection.detach()
        return self._chunks.take() or b""

    def __aiter__(self) -> StreamedResponse:
        return self

    async def __anext__(self) -> bytes:
        while True:
            data = self._chunks.take()
            if data is not None:
                self._connection.taken(self._chunks)
                return data
            if self._chunks.ended:
                raise StopAsyncIteration
            try:
                async with asyncio.timeout(self._timeout_s):
                    await self._chunks.wait()
            except TimeoutError:
                error = OriginTimeout(
                    f"{self._connection.name} sent nothing of its response's body for {self._timeout_s:g} s",
                    request_sent=True,
                )
                self._connection.fail(error)
                raise error from None
            except asyncio.CancelledError:
                self.abort()
                raise
