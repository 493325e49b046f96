"""Real sockets on loopback for wire tests: a scripted origin, raw clients, and a running listener before the origin."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from pulsecache_sidecar.adapters.clock import SystemClock
from pulsecache_sidecar.adapters.http_origin import HttpOrigin, OriginLimits
from pulsecache_sidecar.adapters.http_server import HttpServer
from pulsecache_sidecar.adapters.server_connection import ServerLimits
from pulsecache_sidecar.engine.exchange import Exchange
from pulsecache_sidecar.engine.handler import Handler
from pulsecache_sidecar.ports import TunnelOrigin

WITHIN_S = 5.0

Script = Callable[["Received", asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Received:
    """One request as the origin read it: deliberately with a parser of its own, a plain one."""

    line: str
    fields: list[tuple[str, str]]
    body: bytes
    connection: int
    raw: bytes = b""

    def __getitem__(self, name: str) -> str | None:
        found = [value for key, value in self.fields if key.lower() == name.lower()]
        return ", ".join(found) if found else None

    @property
    def method(self) -> str:
        return self.line.split(" ")[0]

    @property
    def target(self) -> str:
        return self.line.split(" ")[1]


@dataclass
class ScriptedOrigin:
    """Answers each request by a script (default: 200 with the request line as body) and remembers what it got."""

    script: Script | None = None
    requests: list[Received] = field(default_factory=list)
    connections: int = 0
    port: int = 0
    tunnels: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = field(default_factory=list)
    raw: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]] | None = None
    """Instead of HTTP: what to do with a connection."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = self.connections
        try:
            if self.raw is not None:
                await self.raw(reader, writer)
                return
            while (request := await read_request(reader, number)) is not None:
                self.requests.append(request)
                if self.script is not None:
                    await self.script(request, writer)
                else:
                    body = request.line.encode()
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
                    await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[ScriptedOrigin]:
        tasks: set[asyncio.Task[None]] = set()

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.create_task(self.serve(reader, writer))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in list(tasks):
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def read_request(reader: asyncio.StreamReader, connection: int) -> Received | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    lines = head.decode("latin-1").split("\r\n")[:-2]
    fields = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines[1:])]
    request = Received(lines[0], fields, b"", connection, head)
    if request["transfer-encoding"] == "chunked":
        while size := int((await reader.readuntil(b"\r\n")).strip(), 16):
            request.body += await reader.readexactly(size)
            await reader.readexactly(2)
        await reader.readexactly(2)
    elif length := request["content-length"]:
        request.body = await reader.readexactly(int(length))
    return request


@dataclass
class Answer:
    status: int
    fields: list[tuple[str, str]]
    body: bytes
    line: str

    def __getitem__(self, name: str) -> str | None:
        found = [value for key, value in self.fields if key.lower() == name.lower()]
        return ", ".join(found) if found else None


class RawClient:
    """A connection on which a test writes bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def write(self, data: bytes) -> None:
        self.writer.write(data)

    async def get(self, target: str = "/", *fields: str, method: str = "GET", body: bytes | None = None) -> Answer:
        lines = [f"{method} {target} HTTP/1.1", "Host: shop.test", *fields]
        if body is not None:
            lines.append(f"Content-Length: {len(body)}")
        self.write("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + (body or b""))
        return await self.answer(method)

    async def head(self) -> tuple[str, list[tuple[str, str]]]:
        raw = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), WITHIN_S)
        lines = raw.decode("latin-1").split("\r\n")[:-2]
        return lines[0], [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines[1:])]

    async def answer(self, method: str = "GET") -> Answer:
        line, fields = await self.head()
        answer = Answer(int(line.split(" ")[1]), fields, b"", line)
        async with asyncio.timeout(WITHIN_S):
            if method == "HEAD" or answer.status in (204, 304) or answer.status < 200:
                return answer
            if answer["transfer-encoding"] == "chunked":
                while size := int((await self.reader.readuntil(b"\r\n")).strip(), 16):
                    answer.body += await self.reader.readexactly(size)
                    assert await self.reader.readexactly(2) == b"\r\n"
                assert await self.reader.readexactly(2) == b"\r\n"
            elif (length := answer["content-length"]) is not None:
                answer.body = await self.reader.readexactly(int(length))
            else:
                answer.body = await self.reader.read()
        return answer

    async def rest(self) -> bytes:
        """Everything up to the end of the connection."""
        return await asyncio.wait_for(self.reader.read(), WITHIN_S)

    async def closed(self) -> bool:
        try:
            return await self.rest() == b""
        except ConnectionError:
            return True

    def reset(self) -> None:
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        self.writer.transport.abort()

    async def aclose(self) -> None:
        self.writer.close()
        with suppress(ConnectionError):
            await self.writer.wait_closed()


@dataclass
class Listening:
    server: HttpServer
    handler: Handler
    port: int
    clients: list[RawClient] = field(default_factory=list)

    async def client(self) -> RawClient:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=2**22)
        client = RawClient(reader, writer)
        self.clients.append(client)
        return client


@asynccontextmanager
async def listening(handler: Handler, limits: ServerLimits | None = None) -> AsyncIterator[Listening]:
    server = HttpServer(handler, limits=limits)
    sock = socket.create_server(("127.0.0.1", 0))
    await server.listen(sock)
    running = Listening(server, handler, sock.getsockname()[1])
    try:
        yield running
    finally:
        for client in running.clients:
            await client.aclose()
        await server.aclose(grace_s=1.0)


def origin_of(scripted: ScriptedOrigin, limits: OriginLimits | None = None) -> HttpOrigin:
    return HttpOrigin("127.0.0.1", scripted.port, limits=limits)


class Ignored:
    """An Observer that nobody asks."""

    def request(self, policy: str, rule: str, outcome: str, bound_s: float | None) -> None:
        return None

    def origin(self, policy: str, duration_s: float) -> None:
        return None

    def hub_call(self, result: str) -> None:
        return None


def without_policy(origin: TunnelOrigin, *, tunnels: bool = True) -> Exchange:
    return Exchange(
        origin, lambda: None, clock=SystemClock(), observer=Ignored(), policy="shop/products", tunnels=tunnels
    )


async def until(condition: Callable[[], bool], what: str, within_s: float = WITHIN_S) -> None:
    """The one place where tests wait for something that has no event of its own."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {what}"
        await asyncio.sleep(0.005)


def plain(body: bytes, *fields: str, status: str = "200 OK") -> bytes:
    """A response with Content-Length."""
    lines = [f"HTTP/1.1 {status}", *fields, f"Content-Length: {len(body)}"]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body
