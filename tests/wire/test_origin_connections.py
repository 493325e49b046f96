"""The pool of connections to an origin, and what becomes of a request when the origin is slow, dead or odd."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from pulsecache_sidecar.adapters.http_origin import HttpOrigin, OriginLimits
from pulsecache_sidecar.core.http.message import RequestHead
from pulsecache_sidecar.errors import OriginBadResponse, OriginTimeout, OriginUnreachable
from pulsecache_sidecar.ports import Body, OriginResponse
from wire import Received, Script, ScriptedOrigin, origin_of, plain, until


def request(method: str = "GET", target: bytes = b"/", *fields: tuple[bytes, bytes]) -> RequestHead:
    return RequestHead(method, target, ((b"host", b"shop.test"), *fields))


@asynccontextmanager
async def origin(
    script: Script | None = None, limits: OriginLimits | None = None
) -> AsyncIterator[tuple[HttpOrigin, ScriptedOrigin]]:
    async with ScriptedOrigin(script).running() as scripted:
        http_origin = origin_of(scripted, limits)
        try:
            yield http_origin, scripted
        finally:
            await http_origin.aclose()


async def whole(response: OriginResponse) -> bytes:
    return b"".join([piece async for piece in response.body])


async def body_of(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


async def test_bodies_go_with_the_framing_they_came_with() -> None:
    async with origin() as (http_origin, scripted):
        for fields, body in (
            ((), None),
            (((b"content-length", b"6"),), body_of(b"abc", b"", b"def")),
            ((), body_of(b"abc", b"def")),
        ):
            await whole(await http_origin.send(request("POST", b"/", *fields), body, timeout_s=5))
    assert [(r["content-length"], r["transfer-encoding"], r.body) for r in scripted.requests] == [
        ("0", None, b""),
        ("6", None, b"abcdef"),
        (None, "chunked", b"abcdef"),
    ]


@pytest.mark.parametrize("pieces", [(b"ab",), (b"abcd",)])
async def test_a_body_of_another_length_than_said_is_never_sent_as_whole(pieces: tuple[bytes, ...]) -> None:
    async with origin() as (http_origin, scripted):
        sent = request("POST", b"/", (b"content-length", b"3"))
        with pytest.raises(ValueError, match="Content-Length"):
            await http_origin.send(sent, body_of(*pieces), timeout_s=5)
        await until(lambda: not http_origin._open, "the connection is gone")
    assert scripted.requests == []


async def test_what_the_body_raises_comes_through() -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"abc"
        raise KeyError("from the client")

    async with origin() as (http_origin, scripted):
        with pytest.raises(KeyError, match="from the client"):
            await http_origin.send(request("POST"), broken(), timeout_s=5)
    assert scripted.requests == []


async def test_an_origin_that_does_not_answer_is_a_timeout_and_its_connection_is_reset() -> None:
    reset = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        try:
            await reader.read()
        except ConnectionResetError:
            reset.set()

    async with ScriptedOrigin(raw=silent).running() as scripted:
        http_origin = origin_of(scripted)
        with pytest.raises(OriginTimeout) as caught:
            await http_origin.send(request(), None, timeout_s=0.1)
        assert caught.value.request_sent
        await asyncio.wait_for(reset.wait(), 5)
        await http_origin.aclose()


async def test_a_body_that_stops_is_a_timeout() -> None:
    async def stops(received: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
        await writer.drain()

    async with origin(stops) as (http_origin, _):
        response = await http_origin.send(request(), None, timeout_s=0.1)
        with pytest.raises(OriginTimeout):
            await whole(response)


async def test_nobody_there_is_unreachable_and_nothing_was_sent() -> None:
    http_origin = HttpOrigin("127.0.0.1", 1)
    with pytest.raises(OriginUnreachable) as caught:
        await http_origin.send(request("POST"), body_of(b"x"), timeout_s=5)
    assert not caught.value.request_sent
    await http_origin.aclose()


async def test_an_origin_that_takes_nothing_is_a_timeout() -> None:
    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reader._transport.pause_reading()  # type: ignore[attr-defined]  # a stream has no other way to stop reading
        await asyncio.sleep(30)

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 65536

    async with ScriptedOrigin(raw=deaf).running() as scripted:
        http_origin = origin_of(scripted)
        with pytest.raises(OriginTimeout, match="took nothing"):
            await http_origin.send(request("POST"), endless(), timeout_s=0.3)
        await http_origin.aclose()


async def test_a_slow_upload_is_no_timeout() -> None:
    async with origin() as (http_origin, _):
        response = await http_origin.send(request("POST"), _trickle(), timeout_s=0.2)
        assert await whole(response) == b"POST / HTTP/1.1"


async def _trickle() -> Body:
    for _ in range(4):
        await asyncio.sleep(0.1)
        yield b"x"


async def test_given_up_a_response_closes_its_connection_and_only_that() -> None:
    async def large(received: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(plain(b"x" * 5_000_000))
        await writer.drain()

    async with origin(large) as (http_origin, scripted):
        one, two = [await http_origin.send(request(), None, timeout_s=5) for _ in range(2)]
        one.abort()
        assert len(await whole(two)) == 5_000_000
        with pytest.raises(OriginBadResponse):
            await whole(one)
        await whole(await http_origin.send(request(), None, timeout_s=5))
    assert [received.connection for received in scripted.requests] == [1, 2, 2]


async def test_cancelled_while_it_waits_the_connection_is_not_used_again() -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def held(received: Received, writer: asyncio.StreamWriter) -> None:
        asked.set()
        if received.target == "/held":
            await go_on.wait()
        writer.write(plain(received.target.encode()))

    async with origin(held) as (http_origin, _):
        waiting = asyncio.create_task(http_origin.send(request("GET", b"/held"), None, timeout_s=5))
        await asyncio.wait_for(asked.wait(), 5)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        go_on.set()
        assert await whole(await http_origin.send(request("GET", b"/next"), None, timeout_s=5)) == b"/next"


async def test_what_must_not_be_sent_twice_takes_only_a_connection_used_just_now() -> None:
    async with origin(limits=OriginLimits(idle_unsafe_s=-1.0)) as (http_origin, scripted):
        for method in ("GET", "GET", "POST", "GET"):
            await whole(await http_origin.send(request(method), None, timeout_s=5))
    assert [received.connection for received in scripted.requests] == [1, 1, 2, 2]


async def test_idle_connections_are_kept_up_to_a_limit() -> None:
    go_on = asyncio.Event()

    async def together(received: Received, writer: asyncio.StreamWriter) -> None:
        await go_on.wait()
        writer.write(plain(b"x"))

    async with origin(together, OriginLimits(max_idle=2)) as (http_origin, scripted):
        sending = [asyncio.create_task(http_origin.send(request(), None, timeout_s=5)) for _ in range(5)]
        await until(lambda: len(scripted.requests) == 5, "all have arrived")
        go_on.set()
        for response in await asyncio.gather(*sending):
            await whole(response)
        await until(lambda: len(http_origin._open) == 2, "the others are closed")


async def test_bytes_that_nobody_asked_for_close_an_idle_connection() -> None:
    unasked = asyncio.Event()

    async def chatty(received: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(plain(b"x"))
        await writer.drain()
        if received.connection == 1:
            await unasked.wait()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")

    async with origin(chatty) as (http_origin, _):
        assert await whole(await http_origin.send(request(), None, timeout_s=5)) == b"x"
        unasked.set()
        await until(lambda: not http_origin._open, "the connection is closed")
        assert await whole(await http_origin.send(request(), None, timeout_s=5)) == b"x"


async def test_the_clients_host_or_the_origins_own() -> None:
    async with ScriptedOrigin().running() as scripted:
        for authority, expected in ((None, "shop.test"), ("products.shop.svc", "products.shop.svc")):
            http_origin = HttpOrigin("127.0.0.1", scripted.port, authority=authority)
            await whole(await http_origin.send(request(), None, timeout_s=5))
            assert scripted.requests[-1]["host"] == expected
            await http_origin.aclose()


HEADS: dict[str, Callable[[], bytes]] = {
    "a head that never ends": lambda: b"HTTP/1.1 200 OK\r\n" + b"X: " + b"a" * 200_000,
    "too many fields": lambda: b"HTTP/1.1 200 OK\r\n" + b"X: 1\r\n" * 300 + b"\r\n",
    "a flood of interim responses": lambda: b"HTTP/1.1 103 Early Hints\r\n\r\n" * 100,
    "a broken chunk": lambda: b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
}


@pytest.mark.parametrize("name", HEADS)
async def test_responses_beyond_all_bounds_are_refused(name: str) -> None:
    async def script(received: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(HEADS[name]())
        await writer.drain()

    async with origin(script) as (http_origin, _):
        with pytest.raises(OriginBadResponse):
            await whole(await http_origin.send(request(), None, timeout_s=5))


async def test_after_closing_nothing_is_sent() -> None:
    async with origin() as (http_origin, _):
        await http_origin.aclose()
        with pytest.raises(OriginUnreachable):
            await http_origin.send(request(), None, timeout_s=5)
