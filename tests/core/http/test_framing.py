"""Where messages end: what is clear is taken, what could be read in two ways is refused."""

from __future__ import annotations

import pytest

from pulsecache_sidecar.core.http import framing
from pulsecache_sidecar.core.http.framing import BadFraming
from pulsecache_sidecar.core.http.message import Fields, RequestHead
from pulsecache_sidecar.errors import ClientProtocolError


def request(*fields: tuple[bytes, bytes], method: str = "POST", version: tuple[int, int] = (1, 1)) -> RequestHead:
    return RequestHead(method, b"/", fields, version)


CL, TE, CONNECTION = b"content-length", b"transfer-encoding", b"connection"


@pytest.mark.parametrize(
    ("head", "length", "keep_alive"),
    [
        (request(), 0, True),
        (request((CL, b"0")), 0, True),
        (request((CL, b"12")), 12, True),
        (request((CL, b"007")), 7, True),
        (request((TE, b"chunked")), None, True),
        (request((TE, b"Chunked")), None, True),
        (request((CONNECTION, b"close")), 0, False),
        (request((CONNECTION, b"foo , CLOSE")), 0, False),
        (request(version=(1, 0)), 0, False),
        (request((CONNECTION, b"Keep-Alive"), version=(1, 0)), 0, True),
        (request((CONNECTION, b"keep-alive, close"), version=(1, 0)), 0, False),
    ],
)
def test_a_clear_request(head: RequestHead, length: int | None, keep_alive: bool) -> None:
    found = framing.request_framing(head)
    assert (found.length, found.keep_alive) == (length, keep_alive)


@pytest.mark.parametrize(
    "head",
    [
        request((CL, b"1_0")),
        request((CL, b"+5")),
        request((CL, b"-5")),
        request((CL, b" 5")),
        request((CL, b"")),
        request((CL, b"0x10")),
        request((CL, b"5, 5")),
        request((CL, b"5"), (CL, b"5")),
        request((CL, b"9223372036854775808")),
        request((CL, b"\xd9\xa5")),
        request((CL, b"5"), (TE, b"chunked")),
        request((TE, b"chunked"), version=(1, 0)),
        request((TE, b"chunked"), (TE, b"chunked")),
        request((TE, b"chunked, chunked")),
        request((TE, b"gzip, chunked")),
        request((TE, b"identity")),
        request((TE, b"xchunked")),
        request((TE, b"chunked;q=1")),
        request((TE, b"")),
        request((CONNECTION, b"Host")),
        request((CONNECTION, b"close, Content-Length")),
        request((CONNECTION, b"transfer-encoding")),
    ],
)
def test_an_unclear_request_is_refused(head: RequestHead) -> None:
    with pytest.raises(ClientProtocolError) as caught:
        framing.request_framing(head)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("line", "parsed"),
    [
        (b"GET / HTTP/1.1", ("GET", b"/", (1, 1))),
        (b"get /a?b HTTP/1.0", ("get", b"/a?b", (1, 0))),
        (b"M-SEARCH * HTTP/1.1", ("M-SEARCH", b"*", (1, 1))),
    ],
)
def test_request_lines(line: bytes, parsed: tuple[str, bytes, tuple[int, int]]) -> None:
    assert framing.parse_request_line(line) == parsed


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"GET  / HTTP/1.1", 400),
        (b"GET / HTTP/1.1 ", 400),
        (b" GET / HTTP/1.1", 400),
        (b"GET\t/ HTTP/1.1", 400),
        (b"GET /", 400),
        (b"GET / http/1.1", 400),
        (b"GET / HTTP/1.10", 400),
        (b"GET / HTTP/11", 400),
        (b"G\x00T / HTTP/1.1", 400),
        (b"GET /\x80 HTTP/1.1", 400),
        (b"GET / HTTP/1.2", 505),
        (b"GET / HTTP/2.0", 505),
        (b"GET / HTTP/2", 505),
        (b"", 400),
    ],
)
def test_broken_request_lines(line: bytes, status: int) -> None:
    with pytest.raises(ClientProtocolError) as caught:
        framing.parse_request_line(line)
    assert caught.value.status == status


@pytest.mark.parametrize(
    ("method", "target", "host", "found"),
    [
        ("GET", b"/a?b", b"h", b"/a?b"),
        ("GET", b"//a", b"h", b"//a"),
        ("OPTIONS", b"*", b"h", b"*"),
        ("CONNECT", b"db:5432", b"db:5432", b"db:5432"),
        ("GET", b"http://h/a", b"h", b"/a"),
        ("GET", b"HTTP://H:80/a?b", b"h:80", b"/a?b"),
        ("GET", b"http://h", b"h", b"/"),
        ("GET", b"http://h?q", b"h", b"/?q"),
    ],
)
def test_targets(method: str, target: bytes, host: bytes, found: bytes) -> None:
    assert framing.origin_form(method, target, host) == found


@pytest.mark.parametrize(
    ("method", "target", "host"),
    [
        ("GET", b"*", b"h"),
        ("GET", b"a", b"h"),
        ("GET", b"/#f", b"h"),
        ("GET", b"http://other/a", b"h"),
        ("GET", b"http://h:81/a", b"h"),
        ("GET", b"http:///a", b""),
        ("GET", b"http://h/", None),
        ("GET", b"ftp://h/", b"h"),
        ("GET", b"http://u@h/", b"h"),
    ],
)
def test_refused_targets(method: str, target: bytes, host: bytes | None) -> None:
    with pytest.raises(ClientProtocolError):
        framing.origin_form(method, target, host)


@pytest.mark.parametrize("host", [b"a", b"a.b:80", b"[::1]", b"[fe80::1%25eth0]:80", b"", b"10.0.0.1:", b"a_b"])
def test_hosts(host: bytes) -> None:
    assert framing.check_host((1, 1), ((b"host", host),)) == host


@pytest.mark.parametrize(
    "fields",
    [
        (),
        ((b"host", b"a"), (b"host", b"a")),
        ((b"host", b"a, b"),),
        ((b"host", b"a b"),),
        ((b"host", b"a/b"),),
        ((b"host", b"u@a"),),
        ((b"host", b"a:b"),),
        ((b"host", b"[::1"),),
    ],
)
def test_refused_hosts(fields: Fields) -> None:
    with pytest.raises(ClientProtocolError):
        framing.check_host((1, 1), fields)


def test_http_1_0_needs_no_host() -> None:
    assert framing.check_host((1, 0), ()) is None


def test_only_one_expectation_is_understood() -> None:
    assert framing.request_framing(request((b"expect", b"100-Continue"))).expects_continue
    assert not framing.request_framing(request((b"expect", b"100-continue"), version=(1, 0))).expects_continue
    with pytest.raises(ClientProtocolError) as caught:
        framing.request_framing(request((b"expect", b"the unexpected")))
    assert caught.value.status == 417


@pytest.mark.parametrize(
    ("head", "upgrade"),
    [
        (request((CONNECTION, b"upgrade"), (b"upgrade", b"websocket"), method="GET"), True),
        (request((CONNECTION, b"upgrade"), (b"upgrade", b"h2c"), method="GET"), False),
        (request((CONNECTION, b"upgrade"), (b"upgrade", b"h2c, websocket"), method="GET"), True),
        (request((b"upgrade", b"websocket"), method="GET"), False),
        (request((CONNECTION, b"upgrade"), (b"upgrade", b"websocket"), method="GET", version=(1, 0)), False),
        (request(method="CONNECT"), True),
    ],
)
def test_who_wants_another_protocol(head: RequestHead, upgrade: bool) -> None:
    assert framing.request_framing(head).upgrade is upgrade


@pytest.mark.parametrize(
    ("method", "status", "version", "fields", "length", "chunked", "keep_alive"),
    [
        ("GET", 200, (1, 1), ((CL, b"3"),), 3, False, True),
        ("GET", 200, (1, 1), ((TE, b"chunked"),), None, True, True),
        ("GET", 200, (1, 1), (), None, False, False),
        ("GET", 200, (1, 0), ((CL, b"3"),), 3, False, False),
        ("GET", 200, (1, 0), ((CL, b"3"), (CONNECTION, b"keep-alive")), 3, False, True),
        ("GET", 200, (1, 1), ((CL, b"3"), (CONNECTION, b"close")), 3, False, False),
        ("HEAD", 200, (1, 1), ((CL, b"3"),), 0, False, True),
        ("HEAD", 200, (1, 1), ((TE, b"chunked"),), 0, False, True),
        ("GET", 204, (1, 1), (), 0, False, True),
        ("GET", 304, (1, 1), ((CL, b"3"),), 0, False, True),
        ("GET", 103, (1, 1), (), 0, False, True),
    ],
)
def test_clear_responses(
    method: str,
    status: int,
    version: tuple[int, int],
    fields: Fields,
    length: int | None,
    chunked: bool,
    keep_alive: bool,
) -> None:
    found = framing.response_framing(method, status, version, fields)
    assert (found.length, found.chunked, found.keep_alive) == (length, chunked, keep_alive)


@pytest.mark.parametrize(
    ("version", "fields"),
    [
        ((1, 1), ((CL, b"3"), (TE, b"chunked"))),
        ((1, 0), ((TE, b"chunked"),)),
        ((1, 1), ((TE, b"gzip, chunked"),)),
        ((1, 1), ((CL, b"3"), (CL, b"3"))),
        ((1, 1), ((CL, b"3x"),)),
    ],
)
def test_unclear_responses_are_refused(version: tuple[int, int], fields: Fields) -> None:
    with pytest.raises(BadFraming):
        framing.response_framing("GET", 200, version, fields)


def test_status_lines() -> None:
    assert framing.parse_status_line(b"HTTP/1.1 200 OK") == ((1, 1), 200, b"OK")
    assert framing.parse_status_line(b"HTTP/1.0 999 ") == ((1, 0), 999, b"")
    assert framing.parse_status_line(b"HTTP/1.1 200") == ((1, 1), 200, b"")
    for line in (
        b"HTTP/2 200",
        b"HTTP/1.1 20",
        b"HTTP/1.1 099 X",
        b"HTTP/1.1  200 OK",
        b"ICY 200 OK",
        b"HTTP/1.1 200 \x01",
    ):
        with pytest.raises(BadFraming):
            framing.parse_status_line(line)


def test_declared_length() -> None:
    assert framing.declared_length(((CL, b"3"),)) == 3
    assert framing.declared_length(((CL, b"x"),)) is None
    assert framing.declared_length(()) is None
