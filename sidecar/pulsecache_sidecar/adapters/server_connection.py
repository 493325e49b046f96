"""One connection of a client, as an asyncio protocol: requests in, replies out, strictly one after the other.

Pipelined requests wait in the buffer until the one before them is answered, so answers come in order. A request that
could be read in two ways is refused and the connection closed (`core.http.framing`); bytes that are not HTTP/1 at
all are left to the handler's tunnel.

    HEAD -> (BODY) -> answer written -> HEAD ...      any doubt or error -> LINGER -> closed
    HEAD -> tunnel: the connection belongs to somebody else
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

from pulsecache_sidecar.adapters import http_flow, http_head
from pulsecache_sidecar.adapters.request_body import RequestBody
from pulsecache_sidecar.adapters.server_reply import CutShort, ReplyWriter
from pulsecache_sidecar.core.http import chunked
from pulsecache_sidecar.core.http.framing import RequestFraming
from pulsecache_sidecar.core.http.message import RequestHead
from pulsecache_sidecar.engine.handler import Handler, Reply, TunnelRefused, problem
from pulsecache_sidecar.errors import ClientProtocolError, OriginError
from pulsecache_sidecar.ports import Tunnel

log = logging.getLogger(__name__)

H2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_LINGER_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLimits:
    head: http_head.HeadLimits = field(default_factory=http_head.HeadLimits)
    head_s: float = 10.0
    """For a whole head, from its first byte (of the first head: from the connection)."""
    idle_s: float = 75.0
    body_s: float = 30.0
    """Without a byte of a body that is waited for."""
    write_s: float = 60.0
    """Without the client taking a byte of a response."""
    linger_s: float = 2.0
    """How long bytes are still taken after the last answer, so that the client can read it before a reset."""


class State(Enum):
    HEAD = auto()
    ANSWERING = auto()
    """A request is under way; its body may still be arriving."""
    LINGER = auto()
    TUNNEL = auto()


class ServerConnection(asyncio.Protocol):
    def __init__(
        self,
        handler: Handler,
        limits: ServerLimits,
        wall: Callable[[], float],
        opened: Callable[[ServerConnection], None],
        ended: Callable[[ServerConnection], None],
    ) -> None:
        self._handler = handler
        self._limits = limits
        self._wall = wall
        self._opened = opened
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._state = State.HEAD
        self._buffer = b""
        self._peer = ""
        self._first = True
        """No request has been read yet: it may be another protocol."""
        self._head_began = False
        self._body: RequestBody | None = None
        self._task: asyncio.Task[None] | None = None
        self._gate = http_flow.Gate()
        self._finishing = False
        self._client_done = False
        """The client has sent its last byte (half-close)."""
        self._lingered = 0
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.transport: asyncio.Transport
        self._writer: ReplyWriter

    # --- asyncio ------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = http_flow.transport_of(transport)
        self._writer = ReplyWriter(self.transport, self._gate, self._wall)
        peer = self.transport.get_extra_info("peername")
        # A socket for both families shows IPv4 clients as ::ffff:a.b.c.d.
        self._peer = peer[0].removeprefix("::ffff:") if isinstance(peer, tuple) else ""
        self._opened(self)
        self._expect(self._limits.head_s)

    def data_received(self, data: bytes) -> None:
        if self._state is State.LINGER:
            self._lingered += len(data)
            if self._lingered > _LINGER_BYTES:
                self.abort()
            return
        self._buffer = self._buffer + data if self._buffer else data
        self._advance()

    def eof_received(self) -> bool:
        self._client_done = True
        if self._state is State.ANSWERING and (self._body is None or self._body.complete):
            return True  # it may still read: answer, then close
        if self._body is not None:
            self._body.fail(ClientProtocolError(400, "the client ended its request in the middle of its body"))
            return True
        return False

    def connection_lost(self, error: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._body is not None:
            self._body.fail(ClientProtocolError(400, "the client went away in the middle of its request"))
        self._gate.fail(ConnectionResetError("the client went away"))
        if self._task is not None:
            self._task.cancel()
        self._ended(self)

    def pause_writing(self) -> None:
        self._gate.close()
        self._expect(self._limits.write_s)

    def resume_writing(self) -> None:
        self._gate.open()
        if self._state is State.ANSWERING:
            self._expect(None)
        elif self._state is State.HEAD:
            http_flow.set_reading(self.transport, True)
            self._expect(self._limits.idle_s)
            self._advance()

    # --- deadlines: one timer a connection, moved lazily ------------------------------------------------------------

    def _expect(self, within_s: float | None) -> None:
        """Something must happen within this time, or the connection ends; None: nothing need happen."""
        if within_s is None:
            self._deadline = 0.0
            return
        self._deadline = self._loop.time() + within_s
        if self._timer is None:
            self._timer = self._loop.call_later(within_s, self._timed)
        elif self._timer.when() > self._deadline:
            self._timer.cancel()
            self._timer = self._loop.call_later(within_s, self._timed)

    def _timed(self) -> None:
        self._timer = None
        if not self._deadline:
            return
        left_s = self._deadline - self._loop.time()
        if left_s > 0.001:
            self._timer = self._loop.call_later(left_s, self._timed)
        elif not self._gate.is_open or self._state is State.LINGER:
            self.abort()  # a reader that reads nothing
        elif self._state is State.HEAD:
            if self._buffer:
                self._refuse(ClientProtocolError(408, "the request's head did not arrive in time"))
            else:
                self.transport.close()
        elif self._body is not None and self._body.waiting:
            self._body.fail(ClientProtocolError(408, "the request's body did not arrive in time"))

    # --- requests in ------------------------------------------------------------------------------------------------

    def _advance(self) -> None:
        """Does with the buffer what can be done now."""
        while self._state is State.HEAD and self._buffer and self._gate.is_open and not self.transport.is_closing():
            if self._first and self._is_foreign():
                return
            if not self._head():
                return
        if self._state is State.ANSWERING:
            if self._body is not None and not self._body.complete:
                self._feed_body()
            elif len(self._buffer) > self._limits.head.head_bytes:
                http_flow.set_reading(self.transport, False)

    def _is_foreign(self) -> bool:
        """Whether the connection speaks another protocol, or it is too early to say. HTTP/1 begins with a token."""
        data = self._buffer
        preface = H2_PREFACE.startswith(data[: len(H2_PREFACE)])
        if preface and len(data) < len(H2_PREFACE):
            return True
        if not preface and (0x20 <= data[0] < 0x7F or data[0] in b"\r\n\t"):
            return False
        self._state = State.TUNNEL
        self._expect(None)
        http_flow.set_reading(self.transport, False)
        self._start(self._tunnel())
        return True

    def _head(self) -> bool:
        """Takes one request off the buffer; False where its head is not whole yet, or refused."""
        data = self._buffer
        start = 2 if data.startswith(b"\r\n") else 0  # RFC 9112 section 2.2: one empty line before it is ignored
        limits = self._limits.head
        end = data.find(http_head.END, start)
        if end < 0 or end + 4 - start > limits.head_bytes:
            return self._incomplete(data, start)
        raw, self._buffer = data[start : end + 4], data[end + 4 :]
        self._first = False
        try:
            request, framing = http_head.parse_request(raw, self._peer, limits)
        except ClientProtocolError as error:
            self._refuse(error)
            return False
        self._state = State.ANSWERING
        self._expect(None)
        if framing.upgrade:
            self._start(self._upgrade(request, framing))
        elif framing.length == 0:
            reply = self._handler.at_once(request)
            if reply is not None:
                keep_alive = framing.keep_alive and not reply.close and not self._finishing
                self._writer.write_whole(request, reply, keep_alive=keep_alive)
                self._next(keep_alive)
                return True
            self._start(self._answer(request, framing, None))
        else:
            self._body = RequestBody(self, framing, self._buffer == b"")
            self._start(self._answer(request, framing, self._body))
        return True

    def _incomplete(self, data: bytes, start: int) -> bool:
        limits = self._limits.head
        line_end = data.find(b"\n", start)
        line_bytes = (len(data) if line_end < 0 else line_end) - start
        if line_bytes > limits.target_bytes + 64:
            self._refuse(ClientProtocolError(414, f"the request target is longer than {limits.target_bytes} bytes"))
        elif len(data) - start > limits.head_bytes:
            self._refuse(ClientProtocolError(431, f"the head is longer than {limits.head_bytes} bytes"))
        elif http_head.has_bare_lf(data):
            self._refuse(ClientProtocolError(400, "a line of the head does not end in CRLF"))
        elif not self._head_began:
            self._head_began = True
            if not self._first:  # the deadline of the first head counts from the connection
                self._expect(self._limits.head_s)
        return False

    def _feed_body(self) -> None:
        assert self._body is not None
        data, self._buffer = self._buffer, b""
        if not data:
            return
        try:
            self._buffer = self._body.feed(data)
        except chunked.BadChunk as error:
            self._body.fail(ClientProtocolError(400, f"the body is not chunked as it says: {error}"))
            return
        if self._body.complete:
            self._expect(None)
        elif self._body.waiting:
            self._expect(self._limits.body_s)
        if self._body.full:
            http_flow.set_reading(self.transport, False)

    def body_wanted(self) -> None:
        """The handler waits for more of the body."""
        http_flow.set_reading(self.transport, True)
        self._expect(self._limits.body_s)

    def body_taken(self) -> None:
        http_flow.set_reading(self.transport, True)

    def continue_(self) -> None:
        if not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    # --- answers out ------------------------------------------------------------------------------------------------

    def _start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self._task = self._loop.create_task(coroutine)
        self._task.add_done_callback(self._broke)

    def _broke(self, task: asyncio.Task[None]) -> None:
        """A fault of our own: the connection cannot be trusted any more."""
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a connection broke", exc_info=error)
            self.abort()

    async def _answer(self, request: RequestHead, framing: RequestFraming, body: RequestBody | None) -> None:
        try:
            reply = await self._handler.handle(request, body)
        except ClientProtocolError as error:
            self._task = None
            self._refuse(error)
            return
        except Exception:
            log.exception("a request could not be answered: %s", request.method)
            reply = problem(500, "internal", "Internal error", "the sidecar failed to answer; its log says why")
            reply.close = True
        await self._reply(request, reply, framing, body)

    async def _upgrade(self, request: RequestHead, framing: RequestFraming) -> None:
        if framing.length != 0:
            self._task = None
            self._refuse(ClientProtocolError(400, "a request for another protocol with a body"))
            return
        reply = await self._handler.upgrade(request)
        if reply.tunnel is None:
            await self._reply(request, reply, framing, None)
        else:
            self._writer.write_switch(reply)
            self._splice(reply.tunnel)

    async def _reply(
        self, request: RequestHead, reply: Reply, framing: RequestFraming, body: RequestBody | None
    ) -> None:
        # A body that nobody wanted may still be on its way: what follows on the connection cannot be trusted.
        keep_alive = framing.keep_alive and not reply.close and not self._finishing
        keep_alive = keep_alive and (body is None or body.complete)
        try:
            keep_alive = await self._writer.write(request, reply, keep_alive=keep_alive)
        except CutShort as cut:
            log.info("a response was cut short: %s", cut)
            self.abort()
            return
        except ConnectionError:
            return
        self._task = None
        self._next(keep_alive)
        self._advance()

    async def _tunnel(self) -> None:
        try:
            tunnel = await self._handler.tunnel()
        except TunnelRefused as refused:
            self._task = None
            self._refuse(ClientProtocolError(400, str(refused)))
            return
        except OriginError as error:
            log.info("a connection that is not HTTP/1 has no way to the origin: %s", error)
            self.abort()
            return
        self._splice(tunnel)

    def _splice(self, tunnel: Tunnel) -> None:
        """The connection belongs to the tunnel from here on."""
        received, self._buffer = self._buffer, b""
        self._state = State.TUNNEL
        self._task = None
        self._expect(None)
        self._ended(self)
        tunnel.splice(self.transport, received)

    def _next(self, keep_alive: bool) -> None:
        """After an answer."""
        self._body = None
        if self.transport.is_closing():
            return
        if not keep_alive or (self._client_done and not self._buffer):
            self._linger()
            return
        self._state = State.HEAD
        self._head_began = False
        if self._gate.is_open:
            http_flow.set_reading(self.transport, True)
            self._expect(self._limits.idle_s)
        else:
            http_flow.set_reading(self.transport, False)
            self._expect(self._limits.write_s)

    def _refuse(self, error: ClientProtocolError) -> None:
        """Tells the client what it did wrong, and ends the connection."""
        if self.transport.is_closing():
            return
        reply = problem(error.status, "client-protocol", "Bad request", error.detail)
        self._writer.write_whole(RequestHead("GET", b"/", ()), reply, keep_alive=False)
        self._linger()

    def _linger(self) -> None:
        """Closes so that the client can still read the answer: bytes that arrive at a closed socket would be answered
        with a reset, which makes the client throw the answer away (RFC 9112 section 9.6)."""
        self._state = State.LINGER
        self._body = None
        self._buffer = b""
        if self._client_done or not self.transport.can_write_eof():
            self.transport.close()
            return
        self.transport.write_eof()
        http_flow.set_reading(self.transport, True)
        self._expect(self._limits.linger_s)

    # --- ends -------------------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """Answers what is under way, then closes."""
        self._finishing = True
        if self._state is State.HEAD:
            self.transport.close()

    def abort(self) -> None:
        http_flow.abort(self.transport)
