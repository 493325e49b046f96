"""Whole requests over real sockets, through a listener and a pool of origin connections, with no policy in force."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from pulsecache_sidecar.adapters.http_origin import HttpOrigin
from pulsecache_sidecar.adapters.server_connection import ServerLimits
from wire import Listening, Received, Script, ScriptedOrigin, listening, origin_of, plain, without_policy


@asynccontextmanager
async def through(
    script: Script | None = None, limits: ServerLimits | None = None, *, tunnels: bool = True
) -> AsyncIterator[tuple[Listening, ScriptedOrigin]]:
    async with ScriptedOrigin(script).running() as origin:
        http_origin = origin_of(origin)
        async with listening(without_policy(http_origin, tunnels=tunnels), limits) as front:
            try:
                yield front, origin
            finally:
                await http_origin.aclose()


def answering(*pieces: bytes) -> Script:
    async def script(request: Received, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()

    return script


async def test_a_request_and_its_answer_pass() -> None:
    async with through() as (front, origin):
        answer = await (await front.client()).get("/a?b=%20c", "X-One: 1", "Traceparent: 00-abc-def-01")
    assert answer.status == 200
    assert answer.body == b"GET /a?b=%20c HTTP/1.1"
    assert answer["date"]
    (request,) = origin.requests
    assert request["x-one"] == "1"
    assert request["traceparent"] == "00-abc-def-01"
    assert request["host"] == "shop.test"
    assert request["x-forwarded-for"] == "127.0.0.1"


async def test_x_forwarded_for_is_appended_to() -> None:
    async with through() as (front, origin):
        await (await front.client()).get("/", "X-Forwarded-For: 10.0.0.1", "X-Forwarded-For: 10.0.0.2")
    assert origin.requests[0]["x-forwarded-for"] == "10.0.0.1, 10.0.0.2, 127.0.0.1"


async def test_connections_are_kept_on_both_sides() -> None:
    async with through() as (front, origin):
        client = await front.client()
        for number in range(5):
            assert (await client.get(f"/{number}")).status == 200
    assert [request.connection for request in origin.requests] == [1] * 5


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with through() as (front, _):
        client = await front.client()
        client.write(b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number for number in range(50)))
        bodies = [(await client.answer()).body for _ in range(50)]
    assert bodies == [b"GET /%d HTTP/1.1" % number for number in range(50)]


@pytest.mark.parametrize("size", [0, 1, 10, 65_536, 3_000_000])
async def test_bodies_pass_with_content_length(size: int) -> None:
    async def echo(request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(plain(request.body))
        await writer.drain()

    async with through(echo) as (front, origin):
        body = bytes(range(256)) * (size // 256 + 1)
        answer = await (await front.client()).get("/", method="POST", body=body[:size])
    assert answer.body == body[:size]
    assert origin.requests[0]["content-length"] == str(size)


async def test_chunked_bodies_pass_both_ways() -> None:
    async def echo(request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for byte in request.body:
            writer.write(b"1;ext=1\r\n%c\r\n" % byte)
        writer.write(b"0\r\nX-Trailer: 1\r\n\r\n")
        await writer.drain()

    async with through(echo) as (front, origin):
        client = await front.client()
        for _ in range(2):
            client.write(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
            for piece in (b"5;a=b\r\nhello\r", b"\n6\r\n wor", b"ld\r\n0\r\nA: b\r\n\r\n"):
                client.write(piece)
                await client.writer.drain()
            answer = await client.answer()
            assert answer.body == b"hello world"
            assert answer["transfer-encoding"] == "chunked"
    assert [request.body for request in origin.requests] == [b"hello world"] * 2
    assert [request.connection for request in origin.requests] == [1, 1]


async def test_a_response_that_ends_with_the_connection_reaches_the_client_whole() -> None:
    async def script(request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nall of it")
        await writer.drain()
        writer.close()

    async with through(script) as (front, origin):
        client = await front.client()
        assert (await client.get("/")).body == b"all of it"
        assert (await client.get("/")).body == b"all of it"
    assert [request.connection for request in origin.requests] == [1, 2]


async def test_an_http_1_0_client_gets_an_end_that_it_understands() -> None:
    async with through(answering(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")) as (
        front,
        origin,
    ):
        client = await front.client()
        client.write(b"GET / HTTP/1.0\r\n\r\n")
        head, _, body = (await client.rest()).partition(b"\r\n\r\n")
    assert body == b"abc"
    assert b"transfer-encoding" not in head.lower()
    assert origin.requests[0]["host"] == f"127.0.0.1:{origin.port}"


async def test_an_http_1_0_client_may_keep_its_connection() -> None:
    async with through() as (front, _):
        client = await front.client()
        for _ in range(2):
            client.write(b"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n")
            answer = await client.answer()
            assert answer["connection"] == "keep-alive"


async def test_head_has_the_length_but_no_body() -> None:
    async with through(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n")) as (front, origin):
        client = await front.client()
        for _ in range(2):
            answer = await client.get("/", method="HEAD")
            assert (answer["content-length"], answer.body) == ("12", b"")
    assert [request.connection for request in origin.requests] == [1, 1]


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
async def test_answers_without_a_body_do_not_shift_the_next(status: str) -> None:
    async with through(answering(f'HTTP/1.1 {status}\r\nETag: "a"\r\n\r\n'.encode())) as (front, origin):
        client = await front.client()
        for _ in range(3):
            answer = await client.get("/")
            assert answer.line == f"HTTP/1.1 {status}"
    assert len(origin.requests) == 3


async def test_100_continue_is_said_when_the_origin_is_ready_for_the_body() -> None:
    async with through() as (front, origin):
        client = await front.client()
        client.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
        assert (await client.answer()).line == "HTTP/1.1 100 Continue"
        client.write(b"abc")
        assert (await client.answer()).status == 200
    assert origin.requests[0].body == b"abc"


async def test_interim_responses_of_the_origin_do_not_count_as_the_answer() -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    async with through(answering(early, early, plain(b"final"))) as (front, _):
        assert (await (await front.client()).get("/")).body == b"final"


async def test_hop_by_hop_fields_stay_on_their_hop() -> None:
    response = plain(b"", "Connection: X-Mine", "X-Mine: 1", "Keep-Alive: timeout=5", "X-Yours: 1")
    async with through(answering(response)) as (front, origin):
        answer = await (await front.client()).get("/", "Connection: X-Hop", "X-Hop: 1", "TE: trailers", "X-End: 1")
    assert (answer["x-mine"], answer["keep-alive"], answer["x-yours"]) == (None, None, "1")
    assert (origin.requests[0]["x-hop"], origin.requests[0]["te"], origin.requests[0]["x-end"]) == (None, None, "1")


async def test_an_unknown_method_and_an_odd_status_pass() -> None:
    async with through(answering(plain(b"ok", status="799 Whatever it is"))) as (front, origin):
        answer = await (await front.client()).get("/", method="FROBNICATE")
    assert answer.line == "HTTP/1.1 799 Whatever it is"
    assert origin.requests[0].method == "FROBNICATE"


# --- trouble at the origin -----------------------------------------------------------------------------------------


async def test_an_origin_that_is_not_there_is_502_with_a_reason() -> None:
    origin = HttpOrigin("127.0.0.1", 1)
    async with listening(without_policy(origin)) as front:
        answer = await (await front.client()).get("/")
    assert answer.status == 502
    assert answer["content-type"] == "application/problem+json"
    assert b"127.0.0.1:1" in answer.body


async def test_a_reset_in_the_middle_of_a_body_reaches_the_client_as_a_cut() -> None:
    async def script(request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        await writer.drain()
        writer.close()

    async with through(script) as (front, _):
        client = await front.client()
        client.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        line, _fields = await client.head()
        assert line == "HTTP/1.1 200 OK"
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await asyncio.wait_for(client.reader.readuntil(b"0\r\n\r\n"), 5)


async def test_a_short_body_is_never_an_orderly_end() -> None:
    async def script(request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
        await writer.drain()
        writer.close()

    async with through(script) as (front, _):
        client = await front.client()
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await client.get("/")


async def test_extra_bytes_after_a_body_never_become_the_next_answer() -> None:
    evil = plain(b"first") + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
    async with through(answering(evil)) as (front, origin):
        client = await front.client()
        assert [(await client.get(f"/{number}")).body for number in range(3)] == [b"first"] * 3
    assert [request.connection for request in origin.requests] == [1, 2, 3]


@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: +3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 3\n\nabc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 3\r\n\r\nabc",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    ],
)
async def test_an_unsound_response_is_502_and_its_connection_is_not_used_again(response: bytes) -> None:
    async with through(answering(response)) as (front, origin):
        client = await front.client()
        assert (await client.get("/")).status == 502
        assert (await client.get("/")).status == 502
    assert [request.connection for request in origin.requests] == [1, 2]


async def test_a_reused_connection_that_died_is_replaced_for_a_get() -> None:
    async def script(request: Received, writer: asyncio.StreamWriter) -> None:
        if request.connection == 1 and request.target == "/second":
            writer.close()
            return
        writer.write(plain(b"ok"))
        await writer.drain()

    async with through(script) as (front, origin):
        client = await front.client()
        assert (await client.get("/first")).status == 200
        assert (await client.get("/second")).status == 200
    assert [request.connection for request in origin.requests] == [1, 1, 2]


async def test_a_post_is_never_sent_twice() -> None:
    async def script(request: Received, writer: asyncio.StreamWriter) -> None:
        if request.method == "POST":
            writer.close()
            return
        writer.write(plain(b"ok"))
        await writer.drain()

    async with through(script) as (front, origin):
        client = await front.client()
        assert (await client.get("/first")).status == 200
        assert (await client.get("/second", method="POST", body=b"x")).status == 502
    assert [request.method for request in origin.requests] == ["GET", "POST"]


async def test_a_get_that_dies_on_a_new_connection_is_not_repeated() -> None:
    async def script(request: Received, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with through(script) as (front, origin):
        assert (await (await front.client()).get("/")).status == 502
    assert len(origin.requests) == 1


async def test_an_answer_before_the_whole_request_reaches_the_client() -> None:
    refusal = plain(b"too much", "Connection: close", status="413 Content Too Large")

    async def raw(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(refusal)
        await writer.drain()
        await reader.read()

    async with ScriptedOrigin(raw=raw).running() as origin:
        http_origin = origin_of(origin)
        async with listening(without_policy(http_origin)) as front:
            client = await front.client()
            client.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nabc")
            answer = await client.answer()
            assert (answer.status, answer["connection"]) == (413, "close")
            assert await client.closed()
        await http_origin.aclose()


# --- trouble with the client ---------------------------------------------------------------------------------------


async def test_a_client_that_leaves_ends_the_exchange_at_the_origin() -> None:
    gone = asyncio.Event()
    asked = asyncio.Event()

    async def raw(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        with suppress(ConnectionError):
            await reader.read()
        gone.set()

    async with ScriptedOrigin(raw=raw).running() as origin:
        http_origin = origin_of(origin)
        async with listening(without_policy(http_origin)) as front:
            client = await front.client()
            client.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            await asyncio.wait_for(asked.wait(), 5)
            client.reset()
            await asyncio.wait_for(gone.wait(), 5)
        await http_origin.aclose()


async def test_a_half_closed_client_still_gets_its_answer() -> None:
    async with through() as (front, _):
        client = await front.client()
        client.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        client.writer.write_eof()
        assert (await client.rest()).endswith(b"GET / HTTP/1.1")


async def test_a_slow_reader_holds_the_origin_back() -> None:
    held_back = asyncio.Event()

    async def script(request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
        for _ in range(1000):
            writer.write(b"x" * 100_000)
            try:
                await asyncio.wait_for(writer.drain(), 0.5)
            except TimeoutError:
                held_back.set()
                return

    async with through(script) as (front, _):
        client = await front.client()
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a ReadTransport, says nobody
        client.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await asyncio.wait_for(held_back.wait(), 20)
        client.reset()


async def test_a_head_that_never_ends_is_408() -> None:
    async with through(limits=ServerLimits(head_s=0.1)) as (front, _):
        client = await front.client()
        client.write(b"GET / HTTP/1.1\r\nHost:")
        assert (await client.answer()).status == 408
        assert await client.closed()


async def test_an_idle_connection_is_closed_without_a_word() -> None:
    async with through(limits=ServerLimits(idle_s=0.1)) as (front, _):
        client = await front.client()
        assert (await client.get("/")).status == 200
        assert await client.closed()


async def test_a_body_that_stops_coming_is_408() -> None:
    async with through(limits=ServerLimits(body_s=0.1)) as (front, _):
        client = await front.client()
        client.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc")
        assert (await client.answer()).status == 408
        assert await client.closed()


async def test_stopping_finishes_what_is_under_way_and_closes_what_is_idle() -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def script(request: Received, writer: asyncio.StreamWriter) -> None:
        if request.target == "/slow":
            asked.set()
            await go_on.wait()
        writer.write(plain(b"done"))
        await writer.drain()

    async with through(script) as (front, _):
        idle, busy = await front.client(), await front.client()
        assert (await idle.get("/")).status == 200
        busy.write(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
        await asyncio.wait_for(asked.wait(), 5)
        stopping = asyncio.create_task(front.server.aclose(grace_s=5))
        assert await idle.closed()
        go_on.set()
        answer = await busy.answer()
        assert (answer.body, answer["connection"]) == (b"done", "close")
        await busy.aclose()
        await asyncio.wait_for(stopping, 5)


# --- other protocols -----------------------------------------------------------------------------------------------


async def echo_back(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.write_eof()


@pytest.mark.parametrize("first", [b"\x16\x03\x01\x02\x00", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x00\x00\x00\x08"])
async def test_bytes_that_are_not_http_1_pass_untouched(first: bytes) -> None:
    async with ScriptedOrigin(raw=echo_back).running() as origin:
        http_origin = origin_of(origin)
        async with listening(without_policy(http_origin)) as front:
            client = await front.client()
            client.write(first[:1])
            await client.writer.drain()
            client.write(first[1:] + b"and more")
            client.writer.write_eof()
            assert await client.rest() == first + b"and more"
        await http_origin.aclose()


async def test_a_megabyte_passes_a_tunnel_both_ways() -> None:
    async with ScriptedOrigin(raw=echo_back).running() as origin:
        http_origin = origin_of(origin)
        async with listening(without_policy(http_origin)) as front:
            client = await front.client()
            sent = b"\x16" + bytes(range(256)) * 40_000
            client.write(sent)
            client.writer.write_eof()
            assert await client.rest() == sent
        await http_origin.aclose()


async def test_where_there_is_no_way_to_the_origin_other_protocols_are_refused_clearly() -> None:
    async with through(tunnels=False) as (front, _):
        client = await front.client()
        client.write(b"\x16\x03\x01\x02\x00")
        answer = await client.answer()
        assert answer.status == 400
        assert b"HTTP/1.1 only" in answer.body


@pytest.mark.parametrize(
    ("request_head", "agreed"),
    [
        (
            b"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX: k\r\n\r\n",
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        ),
        (b"CONNECT db:5432 HTTP/1.1\r\nHost: db:5432\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n"),
    ],
)
async def test_an_agreed_upgrade_becomes_a_tunnel(request_head: bytes, agreed: bytes) -> None:
    heads = []

    async def raw(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(agreed + b"hello from the origin;")
        await echo_back(reader, writer)

    async with ScriptedOrigin(raw=raw).running() as origin:
        http_origin = origin_of(origin)
        async with listening(without_policy(http_origin)) as front:
            client = await front.client()
            client.write(request_head + b"early;")
            line, fields = await client.head()
            client.write(b"late")
            client.writer.write_eof()
            assert await client.rest() == b"hello from the origin;early;late"
        await http_origin.aclose()
    assert line.encode() == agreed.split(b"\r\n")[0]
    if b"websocket" in request_head:
        assert ("upgrade", "websocket") in [(name.lower(), value) for name, value in fields]
        assert b"upgrade: websocket\r\n" in heads[0]


async def test_a_refused_upgrade_is_an_answer_like_any_other() -> None:
    async with through(answering(plain(b"no", status="403 Forbidden"))) as (front, origin):
        client = await front.client()
        upgrade = ("Connection: Upgrade", "Upgrade: websocket")
        assert (await client.get("/", *upgrade)).status == 403
        assert (await client.get("/next")).status == 403
    assert [request.target for request in origin.requests] == ["/", "/next"]


async def test_an_offer_of_h2c_is_answered_in_http_1() -> None:
    async with through() as (front, origin):
        offer = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__")
        assert (await (await front.client()).get("/", *offer)).status == 200
    assert origin.requests[0]["upgrade"] is None
    assert origin.requests[0]["http2-settings"] is None
