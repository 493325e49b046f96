"""Heads of HTTP/1 messages between bytes and values: httptools reads the field lines, strictly; this module draws the
limits around it and writes heads anew. Bodies are the connections' matter, framing is decided in `core.http.framing`.
"""

from __future__ import annotations

from dataclasses import dataclass

import httptools

from pulsecache_sidecar.core.http import framing
from pulsecache_sidecar.core.http.framing import BadFraming
from pulsecache_sidecar.core.http.message import Fields, RequestHead, ResponseHead
from pulsecache_sidecar.errors import ClientProtocolError

END = b"\r\n\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadLimits:
    target_bytes: int = 8 * 1024
    head_bytes: int = 64 * 1024
    fields: int = 100


ORIGIN_HEAD = HeadLimits(head_bytes=128 * 1024, fields=256)


class _Fields:
    __slots__ = ("found",)

    def __init__(self) -> None:
        self.found: list[tuple[bytes, bytes]] = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self.found.append((name.lower(), value.strip(b" \t")))


def has_bare_lf(data: bytes) -> bool:
    return data.count(b"\n") != data.count(b"\r\n")


def parse_request(head: bytes, peer: str, limits: HeadLimits) -> tuple[RequestHead, framing.RequestFraming]:
    """`head` is all bytes up to and with the empty line. Raises ClientProtocolError."""
    if has_bare_lf(head):
        raise ClientProtocolError(400, "a line of the head does not end in CRLF")
    end = head.find(b"\r\n")
    line = head[:end]
    if len(line) > limits.target_bytes and b" " in line and len(line.split(b" ", 2)[1]) > limits.target_bytes:
        raise ClientProtocolError(414, f"the request target is longer than {limits.target_bytes} bytes")
    method, target, version = framing.parse_request_line(line)
    fields = _Fields()
    # The request line was read above and another one stands in for it: the parser knows only registered methods, and
    # takes more than one space.
    parser = httptools.HttpRequestParser(fields)
    try:
        parser.feed_data(b"POST / HTTP/1.1" + head[end:])
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError as error:
        raise ClientProtocolError(400, _said(error)) from error
    if len(fields.found) > limits.fields:
        raise ClientProtocolError(431, f"more than {limits.fields} fields")
    found = tuple(fields.found)
    host = framing.check_host(version, found)
    request = RequestHead(method, framing.origin_form(method, target, host), found, version, peer)
    return request, framing.request_framing(request)


def parse_response(head: bytes, limits: HeadLimits = ORIGIN_HEAD) -> tuple[tuple[int, int], ResponseHead]:
    """Raises BadFraming."""
    end = head.find(b"\r\n")
    version, status, reason = framing.parse_status_line(head[:end])
    fields = _Fields()
    parser = httptools.HttpResponseParser(fields)
    try:
        parser.feed_data(b"HTTP/1.1 200 OK" + head[end:])
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError as error:
        raise BadFraming(_said(error)) from error
    if len(fields.found) > limits.fields:
        raise BadFraming(f"more than {limits.fields} fields")
    return version, ResponseHead(status, tuple(fields.found), reason)


def write_request(method: str, target: bytes, fields: Fields) -> bytes:
    return b"%b %b HTTP/1.1\r\n%b\r\n" % (method.encode(), target, write_fields(fields))


def write_response(status: int, reason: bytes, fields: Fields) -> bytes:
    return b"HTTP/1.1 %d %b\r\n%b\r\n" % (status, reason or REASONS.get(status, b""), write_fields(fields))


def write_fields(fields: Fields) -> bytes:
    return b"".join([b"%b: %b\r\n" % field for field in fields])


def _said(error: Exception) -> str:
    return str(error) or "the head is not HTTP/1.1"


REASONS = {
    200: b"OK",
    201: b"Created",
    202: b"Accepted",
    204: b"No Content",
    304: b"Not Modified",
    400: b"Bad Request",
    405: b"Method Not Allowed",
    408: b"Request Timeout",
    413: b"Content Too Large",
    414: b"URI Too Long",
    417: b"Expectation Failed",
    431: b"Request Header Fields Too Large",
    500: b"Internal Server Error",
    501: b"Not Implemented",
    502: b"Bad Gateway",
    503: b"Service Unavailable",
    504: b"Gateway Timeout",
    505: b"HTTP Version Not Supported",
}
