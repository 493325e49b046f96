"""No matter what a client sends, whole or byte by byte: the same requests are understood, the same answers given, and
nothing but a refusal goes wrong. The connection is the real one; the transport under it only remembers."""

from __future__ import annotations

import asyncio
import random
import re
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pulsecache_sidecar.adapters.server_connection import ServerConnection, ServerLimits, State
from pulsecache_sidecar.core.http.message import RequestHead, ResponseHead
from pulsecache_sidecar.engine.handler import Reply, TunnelRefused
from pulsecache_sidecar.errors import ClientProtocolError
from pulsecache_sidecar.ports import Body, Tunnel

SEEDS = [
    b"GET /a HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n",
    b"POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    b"POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n1\r\nd\r\n0\r\nT: u\r\n\r\n",
    b"PUT /d HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nhi",
    b"HEAD http://a/e?f=g HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx",
]
BYTES = [
    b"\r",
    b"\n",
    b"\r\n",
    b" ",
    b"\t",
    b":",
    b"0",
    b"1",
    b"\0",
    b"\x80",
    b",",
    b";",
    b"chunked",
    b"Content-Length: 3\r\n",
]


class Transport:
    """asyncio.Transport, as far as a connection uses it."""

    def __init__(self) -> None:
        self.written = b""
        self.closed = False
        self.ended = False

    def get_extra_info(self, name: str) -> Any:
        return ("10.0.0.9", 1234) if name == "peername" else None

    def write(self, data: bytes) -> None:
        assert not self.ended, "written after the end"
        self.written += data

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.ended = True

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def is_reading(self) -> bool:
        return True

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class Echo:
    """A Handler that remembers what it understood."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, bytes, bytes]] = []

    def at_once(self, request: RequestHead) -> Reply | None:
        if request.method != "GET":
            return None
        self.seen.append((request.method, request.target, b""))
        return Reply(ResponseHead(200, ()), b"ok")

    async def handle(self, request: RequestHead, body: Body | None) -> Reply:
        whole = b"".join([piece async for piece in body]) if body is not None else b""
        self.seen.append((request.method, request.target, whole))
        return Reply(ResponseHead(200, ()), b"ok")

    async def upgrade(self, request: RequestHead) -> Reply:
        return Reply(ResponseHead(501, ()), close=True)

    async def tunnel(self) -> Tunnel:
        raise TunnelRefused("no")


async def understood(pieces: list[bytes]) -> tuple[list[tuple[str, bytes, bytes]], list[bytes]]:
    transport, handler = Transport(), Echo()
    connection = ServerConnection(handler, ServerLimits(), lambda: 0.0, lambda _: None, lambda _: None)
    connection.connection_made(transport)  # type: ignore[arg-type]  # what it uses of a transport
    for piece in pieces:
        if transport.closed:
            break
        connection.data_received(piece)
        for _ in range(4):
            await asyncio.sleep(0)
    statuses = re.findall(rb"HTTP/1\.1 ([0-9]{3}) [^\r]*\r\n", transport.written)
    refused = connection._state is State.LINGER
    connection.connection_lost(None)
    await asyncio.sleep(0)
    assert refused or not any(status.startswith(b"4") for status in statuses), "refused, and gone on"
    return handler.seen, [status for status in statuses if status != b"100"]


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    data = b"".join(draw(st.lists(st.sampled_from(SEEDS), min_size=1, max_size=3)))
    chance = random.Random(draw(st.integers(0, 2**32)))
    for _ in range(draw(st.integers(0, 4))):
        position = chance.randrange(len(data) + 1)
        match chance.randrange(4):
            case 0:
                data = data[:position] + chance.choice(BYTES) + data[position:]
            case 1:
                data = data[:position] + data[position + chance.randrange(1, 4) :]
            case 2:
                data = data[:position] + bytes([chance.randrange(256)]) + data[position + 1 :]
            case _:
                end = min(len(data), position + chance.randrange(1, 40))
                data = data[:end] + data[position:end] + data[end:]
        data = data or b"\r\n"
    return data


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(streams(), st.integers(1, 7))
@example(b"PUT /d HTTP/1\n\r\nPUT /d HTTP/1.0\r\n\r\n", 1)  # was 505 at once, 400 byte by byte
def test_however_it_arrives_the_same_is_understood(data: bytes, size: int) -> None:
    async def run() -> None:
        whole = await understood([data])
        for step in (1, size):
            pieces = [data[start : start + step] for start in range(0, len(data), step)]
            assert await understood(pieces) == whole

    asyncio.run(run())


def test_a_client_that_goes_away_in_its_body_is_told_to_who_reads_it() -> None:
    async def run() -> None:
        raised = []

        class Reads(Echo):
            async def handle(self, request: RequestHead, body: Body | None) -> Reply:
                assert body is not None
                try:
                    return await super().handle(request, body)
                except (ClientProtocolError, asyncio.CancelledError) as error:
                    raised.append(type(error))
                    raise

        transport = Transport()
        connection = ServerConnection(Reads(), ServerLimits(), lambda: 0.0, lambda _: None, lambda _: None)
        connection.connection_made(transport)  # type: ignore[arg-type]  # what it uses of a transport
        connection.data_received(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc")
        await asyncio.sleep(0)
        transport.closed = True
        connection.connection_lost(None)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert raised

    asyncio.run(run())
