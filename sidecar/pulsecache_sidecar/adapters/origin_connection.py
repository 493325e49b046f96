"""One connection to an origin, as an asyncio protocol: one request at a time, its response in pieces.

Which connection a request takes, and whether it is tried again, is decided in `http_origin`. After any doubt about
framing a connection is closed, never reused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from pulsecache_sidecar.adapters import http_flow, http_head
from pulsecache_sidecar.adapters.origin_response import StreamedResponse
from pulsecache_sidecar.core.http import chunked
from pulsecache_sidecar.core.http.framing import BadFraming, response_framing
from pulsecache_sidecar.core.http.message import ResponseHead
from pulsecache_sidecar.errors import OriginBadResponse, OriginTimeout
from pulsecache_sidecar.ports import Body

MAX_INTERIM = 32
"""1xx responses before the final one."""


@dataclass(slots=True)
class _Exchange:
    """One request under way."""

    method: str
    upgrade: bool
    head: asyncio.Future[ResponseHead]
    body: http_flow.Chunks
    sent_at: float | None = None
    """Loop time at which the last byte of the request had been taken by the kernel."""
    writing: asyncio.Task[None] | None = None


class OriginConnection(asyncio.Protocol):
    def __init__(self, name: str, released: Callable[[OriginConnection], None]) -> None:
        self.name = name
        self.idle_since = 0.0
        self.used = False
        """A request has gone over it before."""
        self.response_began = False
        """A byte of the current response has arrived."""
        self._released = released
        self._exchange: _Exchange | None = None
        self._buffer = b""
        self._interim = 0
        self._left: int | None = 0
        self._decoder: chunked.ChunkedDecoder | None = None
        self._in_body = False
        self._keep_alive = False
        self._gate = http_flow.Gate()
        self._closed = False
        self.transport: asyncio.Transport

    # --- asyncio ------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = http_flow.transport_of(transport)
        # The gate closes with the first byte the kernel does not take: a request counts as sent only when it has.
        self.transport.set_write_buffer_limits(high=0)

    def data_received(self, data: bytes) -> None:
        exchange = self._exchange
        if exchange is None:
            self.close()  # nobody asked: whatever it is, it is not the answer to the next request
            return
        self.response_began = True
        try:
            self._feed(exchange, data)
        except (BadFraming, chunked.BadChunk) as error:
            what = f"the response of {self.name} is not sound HTTP/1.1: {error}"
            self.fail(OriginBadResponse(what, request_sent=True))

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._closed = True
        exchange = self._exchange
        if exchange is not None and self._in_body and self._left is None and self._decoder is None and error is None:
            self._complete(exchange)  # a body that ends with its connection (RFC 9112 section 6.3, last rule)
        else:
            how = "reset" if error is not None else "closed"
            what = "in the middle of its response" if self.response_began else "without a response"
            self._broken(OriginBadResponse(f"{self.name} {how} the connection {what}", request_sent=True))
        self._gate.fail(ConnectionResetError(f"{self.name} closed the connection"))
        self._released(self)

    def pause_writing(self) -> None:
        self._gate.close()

    def resume_writing(self) -> None:
        self._gate.open()

    # --- the request --------------------------------------------------------------------------------------------

    @property
    def usable(self) -> bool:
        return not self._closed and not self.transport.is_closing() and self._exchange is None

    async def send(
        self, method: str, head: bytes, body: Body | None, length: int | None, timeout_s: float, *, upgrade: bool
    ) -> StreamedResponse:
        """Sends a request and waits for the head of its response, up to `timeout_s` after its last byte was taken.

        `length` None: the body goes chunked. Raises OriginError, or what `body` raised; cancelling gives up.
        """
        loop = asyncio.get_running_loop()
        exchange = _Exchange(method, upgrade, loop.create_future(), http_flow.Chunks())
        self._exchange = exchange
        self._interim = 0
        self.used = True
        self.response_began = False
        self.transport.write(head)
        if body is None:
            exchange.sent_at = loop.time()
        else:
            exchange.writing = asyncio.create_task(self._write(exchange, body, length, timeout_s))
        try:
            while True:
                now = loop.time()
                left_s = timeout_s if exchange.sent_at is None else exchange.sent_at + timeout_s - now
                try:
                    async with asyncio.timeout(left_s):
                        await asyncio.shield(exchange.head)
                    break
                except TimeoutError:
                    if exchange.sent_at is None or loop.time() < exchange.sent_at + timeout_s:
                        continue  # the body is still on its way, and has deadlines of its own
                    raise OriginTimeout(
                        f"{self.name} did not answer within {timeout_s:g} s", request_sent=True
                    ) from None
        except asyncio.CancelledError:
            self.abort()
            raise
        except OriginTimeout as error:
            self.fail(error)
            raise
        return StreamedResponse(self, exchange.head.result(), exchange.body, timeout_s)

    async def _write(self, exchange: _Exchange, body: Body, length: int | None, timeout_s: float) -> None:
        """Runs beside the response: an origin may answer before it has read all."""
        left = length
        try:
            async for piece in body:
                if not piece:
                    continue
                if left is not None:
                    left -= len(piece)
                    if left < 0:
                        raise ValueError("the request's body is longer than its Content-Length")
                self.transport.write(piece if length is not None else chunked.encode(piece))
                await self._taken_by_kernel(timeout_s)
            if left:
                raise ValueError("the request's body is shorter than its Content-Length")
            if length is None:
                self.transport.write(chunked.LAST_CHUNK)
                await self._taken_by_kernel(timeout_s)
            exchange.sent_at = asyncio.get_running_loop().time()
        except ConnectionError:
            pass  # connection_lost has told those who wait, or is about to
        except Exception as error:  # noqa: BLE001 - whatever the body's source raised belongs to whoever waits
            if self._exchange is exchange:
                self.fail(error)
        finally:
            exchange.writing = None

    async def _taken_by_kernel(self, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                await self._gate.passed()
        except TimeoutError:
            raise OriginTimeout(
                f"{self.name} took nothing of the request's body for {timeout_s:g} s", request_sent=True
            ) from None

    # --- the response -------------------------------------------------------------------------------------------

    def _feed(self, exchange: _Exchange, data: bytes) -> None:
        if self._in_body:
            self._body(exchange, data)
            return
        self._buffer += data
        while (end := self._buffer.find(http_head.END)) >= 0:
            head, self._buffer = self._buffer[: end + 4], self._buffer[end + 4 :]
            if self._head(exchange, head):
                rest, self._buffer = self._buffer, b""
                self._body(exchange, rest)
                return
        if len(self._buffer) > http_head.ORIGIN_HEAD.head_bytes:
            raise BadFraming("the head is too long")

    def _head(self, exchange: _Exchange, raw: bytes) -> bool:
        """Whether it is the final one."""
        version, head = http_head.parse_response(raw)
        switched = exchange.upgrade and (
            head.status == 101 or (exchange.method == "CONNECT" and 200 <= head.status < 300)
        )
        if head.status < 200 and not switched:
            self._interim += 1
            if head.status == 101 or self._interim > MAX_INTERIM:
                raise BadFraming(f"status {head.status} that nobody asked for")
            return False
        framing = response_framing(exchange.method, head.status, version, head.fields)
        self._in_body = True
        self._left = None if switched else framing.length
        self._decoder = chunked.ChunkedDecoder() if framing.chunked and not switched else None
        self._keep_alive = framing.keep_alive and not switched
        if switched:
            # Bytes of the other protocol wait in the body's queue until the tunnel takes them.
            http_flow.set_reading(self.transport, False)
        if not exchange.head.done():
            exchange.head.set_result(head)
        return True

    def _body(self, exchange: _Exchange, data: bytes) -> None:
        extra = b""
        ended = False
        if self._decoder is not None:
            for piece in self._decoder.feed(data):
                exchange.body.put(piece)
            ended, extra = self._decoder.done, self._decoder.rest
        elif self._left is None:
            if data:
                exchange.body.put(data)
        else:
            piece, extra = data[: self._left], data[self._left :]
            if piece:
                exchange.body.put(piece)
            self._left -= len(piece)
            ended = self._left == 0
        if ended:
            if extra:
                self._keep_alive = False
            self._complete(exchange)
        elif exchange.body.size > http_flow.HIGH_WATER:
            http_flow.set_reading(self.transport, False)

    def _complete(self, exchange: _Exchange) -> None:
        self._exchange = None
        self._in_body = False
        self._decoder = None
        exchange.body.end()
        if exchange.writing is not None:
            exchange.writing.cancel()
        if self._closed:
            return
        if self._keep_alive and exchange.sent_at is not None:
            http_flow.set_reading(self.transport, True)
            self._released(self)
        else:
            self.close()

    def taken(self, body: http_flow.Chunks) -> None:
        """The reader of this body has made room."""
        if not self._closed and self._exchange is not None and self._exchange.body is body:
            http_flow.set_reading(self.transport, True)

    def detach(self) -> None:
        """Leaves the connection to a tunnel."""
        self._exchange = None

    # --- ends ---------------------------------------------------------------------------------------------------

    def close(self) -> None:
        if not self._closed:
            self.transport.close()

    def abort(self) -> None:
        """Gives up whatever is under way; the origin sees a reset, not an orderly end."""
        self.fail(OriginBadResponse(f"the exchange with {self.name} was given up", request_sent=True))

    def fail(self, error: Exception) -> None:
        self._broken(error)
        if not self._closed:
            http_flow.abort(self.transport)

    def _broken(self, error: Exception) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is None:
            return
        if exchange.writing is not None:
            exchange.writing.cancel()
        if not exchange.head.done():
            exchange.head.set_exception(error)
            exchange.head.exception()  # whoever waits is told; where nobody does any more, that is no fault
        exchange.body.fail(error)
