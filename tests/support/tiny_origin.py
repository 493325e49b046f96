"""A real HTTP origin for tests, as small as can be: it notes each request the moment it has come, then answers by a
script. It can also apply a request and reset the connection instead of answering."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

RESET = -1
"""Instead of a status: the request was taken, the answer is a reset connection."""


@dataclass(frozen=True, slots=True)
class Received:
    method: str
    target: str
    idempotency_key: str
    body: bytes


@dataclass
class TinyOrigin:
    port: int
    answer: Callable[[Received], int] = lambda received: 200
    received: list[Received] = field(default_factory=list)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                line, *lines = head.split("\r\n")
                fields = {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in lines)}
                body = await reader.readexactly(int(fields.get("content-length", "0")))
                method, target, _ = line.split(" ")
                received = Received(method, target, fields.get("idempotency-key", ""), body)
                self.received.append(received)
                status = self.answer(received)
                if status == RESET:
                    sock = writer.get_extra_info("socket")
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    writer.transport.abort()
                    return
                writer.write(f"HTTP/1.1 {status} Scripted\r\ncontent-length: 0\r\n\r\n".encode())
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has gone, which is what these tests are about
        finally:
            writer.close()


@asynccontextmanager
async def tiny_origin() -> AsyncIterator[TinyOrigin]:
    origin = TinyOrigin(0)
    server = await asyncio.start_server(origin._serve, "127.0.0.1", 0)
    origin.port = server.sockets[0].getsockname()[1]
    async with server:
        yield origin
