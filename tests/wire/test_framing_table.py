"""Byte-exact requests that have fooled servers: each is refused and the connection closed, or the origin sees exactly
the requests that were meant. The origin here parses with code of its own, and strictly by the framing it is told."""

from __future__ import annotations

import re

import pytest

from wire import RawClient, ScriptedOrigin, listening, origin_of, without_policy

H = b"Host: a\r\n"
GET = b"GET / HTTP/1.1\r\n" + H
POST = b"POST / HTTP/1.1\r\n" + H
NEXT = b"GET /next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
INNER = b"GET /smuggled HTTP/1.1\r\nHost: evil\r\n\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"

REFUSED: dict[str, tuple[bytes, int]] = {
    "content-length and transfer-encoding": (
        POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "transfer-encoding and content-length": (
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
        400,
    ),
    "content-length twice, the same": (POST + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\nx", 400),
    "content-length twice, different": (POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx", 400),
    "content-length as a list": (POST + b"Content-Length: 1, 1\r\n\r\nx", 400),
    "content-length with a sign": (POST + b"Content-Length: +1\r\n\r\nx", 400),
    "negative content-length": (POST + b"Content-Length: -1\r\n\r\n", 400),
    "content-length with an underscore": (POST + b"Content-Length: 1_0\r\n\r\n0123456789", 400),
    "hexadecimal content-length": (POST + b"Content-Length: 0x1\r\n\r\nx", 400),
    "empty content-length": (POST + b"Content-Length:\r\n\r\n", 400),
    "huge content-length": (POST + b"Content-Length: 99999999999999999999\r\n\r\n", 400),
    "content-length with a space inside": (POST + b"Content-Length: 1 0\r\n\r\n0123456789", 400),
    "content-length with a vertical tab": (POST + b"Content-Length: \x0b1\r\n\r\nx", 400),
    "coding other than chunked": (POST + b"Transfer-Encoding: gzip\r\n\r\n", 400),
    "chunked not last": (POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", 400),
    "gzip before chunked": (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400),
    "chunked twice": (POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "chunked and identity": (POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", 400),
    "chunked with a control byte": (POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400),
    "chunked in quotes": (POST + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n', 400),
    "almost chunked": (POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400),
    "empty transfer-encoding": (POST + b"Transfer-Encoding:\r\n\r\n0\r\n\r\n", 400),
    "chunked in http/1.0": (b"POST / HTTP/1.0\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "space before the colon": (POST + b"Content-Length : 1\r\n\r\nx", 400),
    "tab before the colon": (POST + b"Content-Length\t: 1\r\n\r\nx", 400),
    "folded line": (GET + b"X: a\r\n b\r\n\r\n", 400),
    "folded first line": (b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400),
    "line without a colon": (GET + b"garbage\r\n\r\n", 400),
    "field without a name": (GET + b": x\r\n\r\n", 400),
    "bare LF after the request line": (b"GET / HTTP/1.1\nHost: a\n\n", 400),
    "bare LF in the fields": (GET + b"X: a\nY: b\r\n\r\n", 400),
    "bare LF at the end": (GET + b"X: a\r\n\n", 400),
    "bare CR in a value": (GET + b"X: a\rb\r\n\r\n", 400),
    "bare CR hides a field": (GET + b"X: a\rContent-Length: 5\r\n\r\n", 400),
    "NUL in a value": (GET + b"X: a\0b\r\n\r\n", 400),
    "control byte in a value": (GET + b"X: a\x01b\r\n\r\n", 400),
    "DEL in a value": (GET + b"X: a\x7fb\r\n\r\n", 400),
    "NUL in a name": (GET + b"X\0Y: a\r\n\r\n", 400),
    "non-ASCII in a name": (GET + b"X\xc3: a\r\n\r\n", 400),
    "two spaces in the request line": (b"GET  / HTTP/1.1\r\n" + H + b"\r\n", 400),
    "tab in the request line": (b"GET\t/\tHTTP/1.1\r\n" + H + b"\r\n", 400),
    "space in the target": (b"GET /a b HTTP/1.1\r\n" + H + b"\r\n", 400),
    "no version": (b"GET /\r\n\r\n", 400),
    "lower-case version": (b"GET / http/1.1\r\n" + H + b"\r\n", 400),
    "http/2 in a request line": (b"GET / HTTP/2.0\r\n" + H + b"\r\n", 505),
    "http/1.10": (b"GET / HTTP/1.10\r\n" + H + b"\r\n", 400),
    "fragment": (b"GET /a#b HTTP/1.1\r\n" + H + b"\r\n", 400),
    "raw non-ASCII target": (b"GET /\xc3\xa9 HTTP/1.1\r\n" + H + b"\r\n", 400),
    "absolute-form of another host": (b"GET http://b/ HTTP/1.1\r\n" + H + b"\r\n", 400),
    "relative target": (b"GET a HTTP/1.1\r\n" + H + b"\r\n", 400),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "two hosts": (GET + b"Host: b\r\n\r\n", 400),
    "two equal hosts": (GET + b"Host: a\r\n\r\n", 400),
    "a list of hosts": (b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400),
    "a path in host": (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
    "user in host": (b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400),
    "connection names host": (GET + b"Connection: Host\r\n\r\n", 400),
    "connection names content-length": (POST + b"Connection: Content-Length\r\nContent-Length: 1\r\n\r\nx", 400),
    "connection names transfer-encoding": (
        POST + b"Connection: keep-alive, Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "unknown expectation": (POST + b"Expect: a-miracle\r\nContent-Length: 1\r\n\r\nx", 417),
    "upgrade with a body": (
        POST + b"Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n\r\nx",
        400,
    ),
    "target too long": (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n" + H + b"\r\n", 414),
    "target without end": (b"GET /" + b"a" * 70_000, 414),
    "head too long": (GET + b"X: " + b"a" * 70_000 + b"\r\n\r\n", 431),
    "head without end": (GET + b"X: " + b"a" * 70_000, 431),
    "too many fields": (GET + b"X: 1\r\n" * 200 + b"\r\n", 431),
    "endless empty lines": (b"\r\n\r\n\r\n\r\n" + GET + b"\r\n", 400),
}

BROKEN_BODY: dict[str, bytes] = {
    "chunk ends in LF": b"1\nx\r\n0\r\n\r\n",
    "data ends in LF": b"1\r\nx\n0\r\n\r\n",
    "chunk longer than said": b"1\r\nxyz\r\n0\r\n\r\n",
    "chunk shorter than said": b"5\r\nx\r\n0\r\n\r\n\r\n\r\n",
    "size with a sign": b"+1\r\nx\r\n0\r\n\r\n",
    "size with 0x": b"0x1\r\nx\r\n0\r\n\r\n",
    "size with an underscore": b"1_0\r\nx\r\n0\r\n\r\n",
    "size with a space before": b" 1\r\nx\r\n0\r\n\r\n",
    "size with a space after": b"1 \r\nx\r\n0\r\n\r\n",
    "no size": b"\r\nx\r\n0\r\n\r\n",
    "size that overflows": b"fffffffffffffffff\r\nx\r\n0\r\n\r\n",
    "CR in an extension": b"1;a\rb\r\nx\r\n0\r\n\r\n",
    "LF in an extension": b"1;a\nb\r\nx\r\n0\r\n\r\n",
    "endless extension": b"1;" + b"a" * 5000 + b"\r\nx\r\n0\r\n\r\n",
    "trailer that is none": b"1\r\nx\r\n0\r\nGET /smuggled HTTP/1.1\r\n\r\n",
    "folded trailer": b"1\r\nx\r\n0\r\n a: b\r\n\r\n",
    "endless trailers": b"1\r\nx\r\n0\r\n" + b"a: b\r\n" * 3000 + b"\r\n",
}

TAKEN: dict[str, tuple[bytes, list[tuple[str, bytes]]]] = {
    "plain": (GET + b"\r\n", [("GET / HTTP/1.1", b"")]),
    "one empty line first": (b"\r\n" + GET + b"\r\n", [("GET / HTTP/1.1", b"")]),
    "http/1.0": (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", [("GET / HTTP/1.1", b"")]),
    "absolute-form of the same host": (b"GET http://a/x HTTP/1.1\r\n" + H + b"\r\n", [("GET /x HTTP/1.1", b"")]),
    "value without spaces": (b"GET / HTTP/1.1\r\nHost:a\r\n\r\n", [("GET / HTTP/1.1", b"")]),
    "value in white space": (b"GET / HTTP/1.1\r\nHost: \t a \t\r\n\r\n", [("GET / HTTP/1.1", b"")]),
    "non-ASCII value": (GET + b"X: \xc3\xa9\r\n\r\n", [("GET / HTTP/1.1", b"")]),
    "get with a body": (GET + b"Content-Length: 3\r\n\r\nabc", [("GET / HTTP/1.1", b"abc")]),
    "empty chunked body": (CHUNKED + b"0\r\n\r\n", [("POST / HTTP/1.1", b"")]),
    "chunk extensions": (CHUNKED + b'3;a="b;c" ; d\r\nabc\r\n0;e\r\n\r\n', [("POST / HTTP/1.1", b"abc")]),
    "upper-case sizes": (CHUNKED + b"A\r\n0123456789\r\n0\r\n\r\n", [("POST / HTTP/1.1", b"0123456789")]),
    "leading zeros": (CHUNKED + b"0003\r\nabc\r\n000\r\n\r\n", [("POST / HTTP/1.1", b"abc")]),
    "trailers": (CHUNKED + b"3\r\nabc\r\n0\r\nContent-Length: 5\r\nHost: b\r\n\r\n", [("POST / HTTP/1.1", b"abc")]),
    "a request in a body": (
        POST + b"Content-Length: %d\r\n\r\n%b" % (len(INNER), INNER),
        [("POST / HTTP/1.1", INNER)],
    ),
    "odd method": (b"get / HTTP/1.1\r\n" + H + b"\r\n", [("get / HTTP/1.1", b"")]),
    "options *": (b"OPTIONS * HTTP/1.1\r\n" + H + b"\r\n", [("OPTIONS * HTTP/1.1", b"")]),
}


def answers(received: bytes) -> list[int]:
    """The status of each answer."""
    return [int(status) for status in re.findall(rb"HTTP/1\.1 ([0-9]{3}) ", received)]


async def talk(data: bytes, *, byte_by_byte: bool = False) -> tuple[bytes, ScriptedOrigin]:
    """All that a client that sends `data` gets back, and the origin with what reached it."""
    async with ScriptedOrigin().running() as origin:
        http_origin = origin_of(origin)
        async with listening(without_policy(http_origin)) as front:
            client = await front.client()
            await send(client, data, byte_by_byte)
            answer = await client.rest()
        await http_origin.aclose()
    return answer, origin


async def send(client: RawClient, data: bytes, byte_by_byte: bool) -> None:
    for start in range(0, len(data), 1 if byte_by_byte else len(data)):
        if client.writer.is_closing():
            return
        client.write(data[start : start + 1] if byte_by_byte else data)
        try:
            await client.writer.drain()
        except ConnectionError:
            return


@pytest.mark.parametrize("name", REFUSED)
async def test_what_can_be_read_in_two_ways_is_refused(name: str) -> None:
    data, status = REFUSED[name]
    answer, origin = await talk(data + NEXT)
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer[:200]
    assert len(answers(answer)) == 1, "something after the refusal was answered"
    assert b"connection: close" in answer
    assert origin.requests == []


@pytest.mark.parametrize("name", [name for name, (data, _) in REFUSED.items() if len(data) < 300])
async def test_the_same_byte_by_byte(name: str) -> None:
    data, status = REFUSED[name]
    answer, origin = await talk(data, byte_by_byte=True)
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer[:200]
    assert origin.requests == []


@pytest.mark.parametrize("name", BROKEN_BODY)
async def test_a_broken_body_ends_the_connection_and_nothing_after_it_is_a_request(name: str) -> None:
    answer, origin = await talk(CHUNKED + BROKEN_BODY[name] + NEXT)
    assert answer.startswith(b"HTTP/1.1 400 "), answer[:200]
    assert len(answers(answer)) == 1
    assert origin.requests == [], "the origin took a request whose body was never whole"


@pytest.mark.parametrize("name", TAKEN)
@pytest.mark.parametrize("byte_by_byte", [False, True])
async def test_what_is_clear_reaches_the_origin_as_it_was_meant(name: str, byte_by_byte: bool) -> None:
    data, expected = TAKEN[name]
    answer, origin = await talk(data + NEXT, byte_by_byte=byte_by_byte)
    assert answers(answer) == [200, 200], answer[:300]
    seen = [(request.line, request.body) for request in origin.requests]
    assert seen == [*expected, ("GET /next HTTP/1.1", b"")]
    for request in origin.requests:
        assert len([name for name, _ in request.fields if name.lower() == "host"]) == 1
        framings = [name for name, _ in request.fields if name.lower() in ("content-length", "transfer-encoding")]
        assert len(framings) <= 1
