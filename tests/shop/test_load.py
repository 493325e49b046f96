"""The load generator counts what happened, neither more nor less."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest

from shop import load
from shop.client import Client, RequestFailed, Response
from shop.load import Plan, Report, run
from shop_world import Serve as Serve  # makes `import shop` work

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Listen = Callable[[Script], Awaitable[int]]

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture
async def listen() -> AsyncIterator[Listen]:
    """A server that does with each connection what it is told, and its port."""
    async with AsyncExitStack() as stack:

        async def start(script: Script) -> int:
            async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                try:
                    await script(reader, writer)
                except (asyncio.IncompleteReadError, ConnectionError):
                    pass  # the client has left
                finally:
                    writer.close()

            server = await asyncio.start_server(serve, "127.0.0.1", 0)
            stack.push_async_callback(server.wait_closed)
            stack.callback(server.close)
            port: int = server.sockets[0].getsockname()[1]
            return port

        yield start


def answering(*answers: bytes) -> Script:
    """Each request on a connection gets the next answer; then the connection is closed."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await writer.drain()

    return script


async def forever(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        await writer.drain()


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (OK, b"ok"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nok\r\n3\r\n!!!\r\n0\r\nT: v\r\n\r\n",
            b"ok!!!",
        ),
        (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", b"until the end"),
        (b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK, b"ok"),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 10\r\n\r\n", b""),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
    ],
)
async def test_every_way_to_end_a_message_is_understood(listen: Listen, answer: bytes, body: bytes) -> None:
    async with Client("127.0.0.1", await listen(answering(answer))) as client:
        assert (await client.request("GET", "/")).body == body


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
        b"\x16\x03\x01 no http at all\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
    ],
)
async def test_an_answer_that_is_not_whole_has_failed(listen: Listen, answer: bytes) -> None:
    async with Client("127.0.0.1", await listen(answering(answer))) as client:
        with pytest.raises(RequestFailed):
            await client.request("GET", "/")


async def test_a_server_that_says_nothing_fails_in_time(listen: Listen) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with Client("127.0.0.1", await listen(silent), timeout_s=0.1) as client:
        with pytest.raises(RequestFailed, match=r"no answer within 0\.1 s"):
            await client.request("GET", "/")


async def test_a_connection_that_was_closed_while_idle_is_not_a_failure(listen: Listen) -> None:
    async with Client("127.0.0.1", await listen(answering(OK))) as client:
        for _ in range(3):
            assert (await client.request("GET", "/")).status == 200


async def test_what_may_not_be_repeated_is_not(listen: Listen) -> None:
    async with Client("127.0.0.1", await listen(answering(OK))) as client:
        assert (await client.request("POST", "/")).status == 200
        with pytest.raises(RequestFailed):
            await client.request("POST", "/")
        assert (await client.request("POST", "/", headers={"Idempotency-Key": "a"})).status == 200


async def test_a_new_connection_is_made_after_so_many_requests(listen: Listen) -> None:
    connections = 0

    async def counting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await forever(reader, writer)

    async with Client("127.0.0.1", await listen(counting), requests_per_connection=2) as client:
        for _ in range(6):
            await client.request("GET", "/")
    assert connections == 3


@pytest.mark.parametrize(
    ("headers", "seen"),
    [
        ({}, (None, None, None)),
        (
            {"pulse-staleness": "0.4;state=confirmed", "cache-status": "pulsecache; hit; ttl=12"},
            (0.4, "confirmed", "hit"),
        ),
        (
            {"pulse-staleness": "unknown;state=uncovered", "cache-status": "pulsecache; fwd=miss; stored"},
            (None, "uncovered", "fwd=miss"),
        ),
        ({"cache-status": "origin; hit, pulsecache; fwd=bypass; detail=x"}, (None, None, "fwd=bypass")),
    ],
)
def test_what_the_cache_says_is_read(
    headers: dict[str, str], seen: tuple[float | None, str | None, str | None]
) -> None:
    response = Response(200, headers, b"")
    assert (response.bound_s, response.state, response.cache) == seen


async def test_a_load_ends_after_its_number_of_requests(listen: Listen) -> None:
    url = f"http://127.0.0.1:{await listen(forever)}/{{1-5}}"
    report = await run(Plan(urls=[url], concurrency=4, requests=50))
    assert (report.requests, report.failed, report.statuses) == (50, 0, {200: 50})


async def test_a_load_ends_when_it_is_told_to(listen: Listen) -> None:
    stop = asyncio.Event()
    url = f"http://127.0.0.1:{await listen(forever)}/"
    report = await asyncio.wait_for(run(Plan(urls=[url]), stop, seen=lambda response, latency: stop.set()), 5)
    assert report.requests >= 1


async def test_a_rate_is_kept(listen: Listen) -> None:
    url = f"http://127.0.0.1:{await listen(forever)}/"
    report = await run(Plan(urls=[url], rate=50, duration_s=0.5))
    assert 15 <= report.requests <= 25


async def test_refused_and_broken_answers_count_as_failed(listen: Listen) -> None:
    broken = f"http://127.0.0.1:{await listen(answering(b'HTTP/1.1 503 Away' + bytes([13, 10]) * 2))}/"
    report = await run(Plan(urls=[broken], concurrency=1, requests=4))
    assert (report.requests, report.failed, report.statuses) == (4, 4, {503: 4})
    report = await run(Plan(urls=["http://127.0.0.1:1/"], concurrency=2, requests=3))
    assert (report.requests, report.failed, report.statuses) == (3, 3, {})
    assert "refused" in " ".join(report.errors) or "111" in " ".join(report.errors)


def test_percentiles_are_of_the_nearest_rank() -> None:
    report = Report(duration_s=1.0, latencies_s=[i / 1000 for i in range(1, 101)])
    assert [report.percentile_s(p) for p in (50, 90, 99, 100)] == [0.05, 0.09, 0.099, 0.1]
    assert Report().percentile_s(50) is None
    assert "nothing was answered" in str(Report())


async def test_the_report_tells_what_the_cache_said(listen: Listen) -> None:
    fields = b"Pulse-Staleness: 1.5;state=unconfirmed\r\nCache-Status: pulsecache; hit\r\n"
    answer = OK.replace(b"\r\n\r\n", b"\r\n" + fields + b"\r\n")
    url = f"http://127.0.0.1:{await listen(answering(*[answer] * 10))}/"
    report = await run(Plan(urls=[url], concurrency=1, requests=10))
    document = json.loads(json.dumps(report.document()))
    assert (document["caches"], document["states"]) == ({"hit": 10}, {"unconfirmed": 10})
    assert document["largest_bound_s"] == 1.5


@pytest.mark.parametrize("url", ["https://a/", "products", "http:///path"])
def test_a_target_that_is_none_is_refused_before_the_start(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert load.main([url]) == 2
    assert url in capsys.readouterr().err
