"""The HTTP/1.1 listener: accepts, watches over its connections, and stops gracefully. What happens on one connection is
in `server_connection`; what is answered is the handler's matter."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Sequence

from pulsecache_sidecar.adapters.server_connection import ServerConnection, ServerLimits
from pulsecache_sidecar.engine.handler import Handler


class HttpServer:
    """One handler behind any number of listening sockets."""

    def __init__(
        self, handler: Handler, *, limits: ServerLimits | None = None, wall: Callable[[], float] = time.time
    ) -> None:
        self._handler = handler
        self._limits = limits or ServerLimits()
        self._wall = wall
        self._servers: list[asyncio.Server] = []
        self._connections: set[ServerConnection] = set()
        self._empty = asyncio.Event()
        self._empty.set()

    async def listen(self, sock: socket.socket) -> None:
        """Accepts on a socket that is bound (it need not listen yet)."""
        server = await asyncio.get_running_loop().create_server(self._accepted, sock=sock, backlog=1024)
        self._servers.append(server)

    @property
    def sockets(self) -> Sequence[socket.socket]:
        return [sock for server in self._servers for sock in server.sockets]

    @property
    def connections(self) -> int:
        return len(self._connections)

    async def aclose(self, grace_s: float) -> None:
        """Stops accepting, closes what is idle, lets requests in flight finish within `grace_s`, and ends the rest."""
        for server in self._servers:
            server.close()
        for connection in list(self._connections):
            connection.finish()
        try:
            async with asyncio.timeout(grace_s):
                await self._empty.wait()
        except TimeoutError:
            for connection in list(self._connections):
                connection.abort()
            await self._empty.wait()

    def _accepted(self) -> ServerConnection:
        return ServerConnection(self._handler, self._limits, self._wall, self._opened, self._ended)

    def _opened(self, connection: ServerConnection) -> None:
        self._connections.add(connection)
        self._empty.clear()

    def _ended(self, connection: ServerConnection) -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._empty.set()
