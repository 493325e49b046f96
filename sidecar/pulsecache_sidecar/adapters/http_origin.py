"""The origin behind one bind: a pool of keep-alive connections over `origin_connection`. Implements ports.TunnelOrigin.

A request is tried a second time only where nothing can have happened: it is idempotent, has no body, and its reused
connection died before the first byte of a response (RFC 9110 section 9.2.2, RFC 9112 section 9.3.1).
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

from pulsecache_sidecar.adapters import http_head
from pulsecache_sidecar.adapters.origin_connection import OriginConnection
from pulsecache_sidecar.adapters.origin_response import StreamedResponse
from pulsecache_sidecar.adapters.tunnel import OriginTunnel
from pulsecache_sidecar.core.http.framing import declared_length
from pulsecache_sidecar.core.http.message import Fields, RequestHead, first, without
from pulsecache_sidecar.errors import OriginBadResponse, OriginTimeout, OriginUnreachable
from pulsecache_sidecar.ports import Body, OriginResponse, Tunnel

IDEMPOTENT = frozenset(("GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", "QUERY"))
_BODY_EXPECTED = frozenset(("POST", "PUT", "PATCH"))


@dataclass(frozen=True, slots=True, kw_only=True)
class OriginLimits:
    connect_s: float = 5.0
    max_idle: int = 128
    """Connections kept for later."""
    idle_s: float = 55.0
    idle_unsafe_s: float = 1.0
    """A request that must not be sent twice takes only a connection used this recently: one that has been idle for
    longer may be closed by the origin at the same moment."""


class HttpOrigin:
    """`host` and `port` of the origin. `authority` replaces the Host field where the sidecar is the client's local
    address (client-side); server-side it is None and Host stays what the client sent."""

    def __init__(
        self, host: str, port: int, *, authority: str | None = None, limits: OriginLimits | None = None
    ) -> None:
        self._host = host
        self._port = port
        self._authority = authority.encode() if authority else None
        self._own_authority = (f"[{host}]:{port}" if ":" in host else f"{host}:{port}").encode()
        self._limits = limits or OriginLimits()
        self._idle: deque[OriginConnection] = deque()
        self._open: set[OriginConnection] = set()
        self._tunnels: set[OriginTunnel] = set()
        self._nothing_open = asyncio.Event()
        self._closed = False

    @property
    def name(self) -> str:
        return self._own_authority.decode()

    async def send(self, request: RequestHead, body: Body | None, *, timeout_s: float) -> OriginResponse:
        fresh = False
        while True:
            connection = await self._connection(request.method, timeout_s, fresh=fresh)
            reused = connection.used
            try:
                return await self._exchange(connection, request, body, timeout_s)
            except OriginBadResponse:
                repeatable = body is None and request.method in IDEMPOTENT
                if not (reused and repeatable) or connection.response_began:
                    raise
                fresh = True

    async def upgrade(self, request: RequestHead, *, timeout_s: float) -> tuple[OriginResponse, Tunnel | None]:
        connection = await self._connection(request.method, timeout_s, fresh=True)
        response = await self._exchange(connection, request, None, timeout_s, upgrade=True)
        status = response.head.status
        if status == 101 or (request.method == "CONNECT" and 200 <= status < 300):
            return response, self._tunnel(connection, response.detach())
        return response, None

    async def tunnel(self, *, timeout_s: float) -> Tunnel:
        connection = await self._connection("CONNECT", timeout_s, fresh=True)
        connection.transport.pause_reading()
        return self._tunnel(connection, b"")

    async def aclose(self) -> None:
        """Ends all that is open, also tunnels and exchanges under way."""
        self._closed = True
        for connection in list(self._open):
            if connection.usable:
                connection.close()
            else:
                connection.abort()
        for tunnel in list(self._tunnels):
            tunnel.abort()
        while self._open or self._tunnels:
            self._nothing_open.clear()
            await self._nothing_open.wait()

    def _tunnel(self, connection: OriginConnection, early: bytes) -> OriginTunnel:
        tunnel = OriginTunnel(connection.transport, early, self._tunnel_ended)
        self._open.discard(connection)
        self._tunnels.add(tunnel)
        return tunnel

    def _tunnel_ended(self, tunnel: OriginTunnel) -> None:
        self._tunnels.discard(tunnel)
        self._nothing_open.set()

    # --- one exchange -------------------------------------------------------------------------------------------

    async def _exchange(
        self,
        connection: OriginConnection,
        request: RequestHead,
        body: Body | None,
        timeout_s: float,
        *,
        upgrade: bool = False,
    ) -> StreamedResponse:
        length = declared_length(request.fields)
        head = http_head.write_request(request.method, request.target, self._fields(request, body, length))
        return await connection.send(request.method, head, body, length, timeout_s, upgrade=upgrade)

    def _fields(self, request: RequestHead, body: Body | None, length: int | None) -> Fields:
        fields = request.fields
        if self._authority is not None or first(fields, b"host") is None:
            host = self._authority or self._own_authority
            fields = ((b"host", host), *without(fields, b"host"))
        if body is None:
            fields = without(fields, b"content-length")
            if request.method in _BODY_EXPECTED:
                fields = (*fields, (b"content-length", b"0"))
        elif length is None:
            fields = (*without(fields, b"content-length"), (b"transfer-encoding", b"chunked"))
        return fields

    # --- the pool -----------------------------------------------------------------------------------------------

    async def _connection(self, method: str, timeout_s: float, *, fresh: bool) -> OriginConnection:
        if self._closed:
            raise OriginUnreachable(f"the connections to {self.name} are closed", request_sent=False)
        loop = asyncio.get_running_loop()
        if not fresh:
            idle_s = self._limits.idle_s if method in IDEMPOTENT else self._limits.idle_unsafe_s
            while self._idle:
                connection = self._idle.pop()  # the one used last: the others may be let go
                if not connection.usable:
                    continue
                if loop.time() - connection.idle_since <= idle_s:
                    return connection
                connection.close()
        deadline_s = min(timeout_s, self._limits.connect_s)
        try:
            async with asyncio.timeout(deadline_s):
                _, connection = await loop.create_connection(
                    lambda: OriginConnection(self.name, self._released), self._host, self._port
                )
        except TimeoutError:
            raise OriginTimeout(f"no connection to {self.name} within {deadline_s:g} s", request_sent=False) from None
        except OSError as error:
            raise OriginUnreachable(f"cannot connect to {self.name}: {error}", request_sent=False) from error
        self._open.add(connection)
        return connection

    def _released(self, connection: OriginConnection) -> None:
        """Called when a connection is free again, or gone."""
        if not connection.usable:
            self._open.discard(connection)
            self._nothing_open.set()
            if connection in self._idle:
                self._idle.remove(connection)
            return
        connection.idle_since = asyncio.get_running_loop().time()
        self._idle.append(connection)
        if self._closed or len(self._idle) > self._limits.max_idle:
            self._idle.popleft().close()
