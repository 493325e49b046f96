"""Replies on their way to a client: framed for its version of HTTP, with Date and Connection and back-pressure."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from email.utils import formatdate

from pulsecache_sidecar.adapters import http_flow, http_head
from pulsecache_sidecar.core.http import chunked
from pulsecache_sidecar.core.http.framing import declared_length
from pulsecache_sidecar.core.http.message import Fields, RequestHead, first, without
from pulsecache_sidecar.engine.handler import Reply
from pulsecache_sidecar.errors import OriginError


class CutShort(ConnectionError):
    """The rest of a body did not come. The client must see a reset, not an end, or it takes the part for the whole."""


class _WrongLength(Exception):
    """A body that is not as long as its head said."""


class ReplyWriter:
    def __init__(self, transport: asyncio.Transport, gate: http_flow.Gate, wall: Callable[[], float]) -> None:
        self._transport = transport
        self._gate = gate
        self._wall = wall

    async def write(self, request: RequestHead, reply: Reply, *, keep_alive: bool) -> bool:
        """Returns whether the connection may live on. Raises ConnectionError when the client is gone, or CutShort."""
        if isinstance(reply.body, bytes):
            self.write_whole(request, reply, keep_alive=keep_alive)
            await self._gate.passed()
            return keep_alive
        status, fields = reply.head.status, reply.head.fields
        if request.method == "HEAD" or status in (204, 304):
            await _give_up(reply.body)
            fields = without(fields, b"content-length") if status == 204 else fields
            self._write_head(request, reply, fields, keep_alive)
            return keep_alive
        length = declared_length(fields)
        is_chunked = length is None and request.version >= (1, 1)
        if is_chunked:
            fields = (*fields, (b"transfer-encoding", b"chunked"))
        elif length is None:
            keep_alive = False  # HTTP/1.0: the body ends with the connection
        self._write_head(request, reply, fields, keep_alive)
        try:
            await self._write_stream(reply, length, is_chunked)
        except (OriginError, _WrongLength) as error:
            raise CutShort(str(error)) from error
        except BaseException:
            await _give_up(reply.body)
            raise
        return keep_alive

    def write_whole(self, request: RequestHead, reply: Reply, *, keep_alive: bool) -> None:
        """A reply whose body is bytes, in one write."""
        assert isinstance(reply.body, bytes)
        status, fields, body = reply.head.status, reply.head.fields, reply.body
        if status == 304:
            body = b""
        elif status == 204:
            fields, body = without(fields, b"content-length"), b""
        elif body or request.method != "HEAD":
            fields = (*without(fields, b"content-length"), (b"content-length", b"%d" % len(body)))
        self._write_head(request, reply, fields, keep_alive, b"" if request.method == "HEAD" else body)

    def write_switch(self, reply: Reply) -> None:
        """The head after which the connection speaks another protocol: the fields of this hop belong to it."""
        self._transport.write(http_head.write_response(reply.head.status, reply.head.reason, reply.head.fields))

    async def _write_stream(self, reply: Reply, length: int | None, is_chunked: bool) -> None:
        assert not isinstance(reply.body, bytes)
        left = length
        async for piece in reply.body:
            if not piece:
                continue
            if left is not None:
                left -= len(piece)
                if left < 0:
                    raise _WrongLength("the body is longer than its Content-Length")
            self._transport.write(chunked.encode(piece) if is_chunked else piece)
            await self._gate.passed()
        if left:
            raise _WrongLength("the body is shorter than its Content-Length")
        if is_chunked:
            self._transport.write(chunked.LAST_CHUNK)

    def _write_head(
        self, request: RequestHead, reply: Reply, fields: Fields, keep_alive: bool, body: bytes = b""
    ) -> None:
        if first(fields, b"date") is None:
            fields = (*fields, (b"date", formatdate(self._wall(), usegmt=True).encode()))
        if not keep_alive:
            fields = (*fields, (b"connection", b"close"))
        elif request.version < (1, 1):
            fields = (*fields, (b"connection", b"keep-alive"))
        self._transport.write(http_head.write_response(reply.head.status, reply.head.reason, fields) + body)


async def _give_up(body: object) -> None:
    """Tells a stream that nobody will read it to its end."""
    abort = getattr(body, "abort", None) or getattr(body, "aclose", None)
    if abort is not None:
        result = abort()
        if result is not None:
            await result
