"""How a message is framed: where its body ends, and whether the connection lives on (RFC 9112 sections 6 and 9).

What could be read in two ways is refused, never guessed: two readers that disagree about where a message ends are how
requests are smuggled. The grammar of field lines is the adapter's parser's matter; the coding itself is in `chunked`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from pulsecache_sidecar.core.http.message import Fields, RequestHead, combined, first, values
from pulsecache_sidecar.errors import ClientProtocolError

MAX_LENGTH = 2**63 - 1

_DIGITS = re.compile(rb"[0-9]{1,19}")  # int() would also take b"1_0", b"+1" and b" 1 "
_REQUEST_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([\x21-\x7e]+) HTTP/1\.([01])")
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: ([\t\x20-\x7e\x80-\xff]*))?")
_HOST = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]*|\[[0-9A-Fa-f:.]+(?:%25[A-Za-z0-9._~-]+)?\])(?::[0-9]{0,5})?")


class BadFraming(ValueError):
    """A response that does not say clearly where it ends."""


@dataclass(frozen=True, slots=True)
class RequestFraming:
    length: int | None
    """Bytes of the body; None: chunked."""
    keep_alive: bool
    expects_continue: bool
    upgrade: bool
    """The client asks for another protocol, or for a tunnel (CONNECT)."""


@dataclass(frozen=True, slots=True)
class ResponseFraming:
    length: int | None
    """Bytes of the body; None: not known in advance."""
    chunked: bool
    keep_alive: bool
    """False also where the body ends with the connection."""


def parse_length(value: bytes) -> int | None:
    """Content-Length = 1*DIGIT (RFC 9110 section 8.6), nothing else; None where it is not."""
    if not _DIGITS.fullmatch(value):
        return None
    length = int(value)
    return length if length <= MAX_LENGTH else None


def tokens(fields: Fields, name: bytes) -> list[bytes]:
    """The members of a list of tokens, lower-case (RFC 9110 section 5.6.1): empty members do not count."""
    value = combined(fields, name)
    return [token for member in value.split(b",") if (token := member.strip(b" \t").lower())] if value else []


def parse_request_line(line: bytes) -> tuple[str, bytes, tuple[int, int]]:
    """method SP request-target SP HTTP-version (RFC 9112 section 3), with exactly one space between."""
    match = _REQUEST_LINE.fullmatch(line)
    if not match:
        if re.search(rb" HTTP/[0-9](?:\.[0-9])?$", line) and not re.search(rb" HTTP/1\.[01]$", line):
            raise ClientProtocolError(505, "only HTTP/1.0 and HTTP/1.1 are spoken here")
        raise ClientProtocolError(400, "the request line is not `method target HTTP/1.1`")
    method, target, minor = match.groups()
    return method.decode(), target, (1, int(minor))


def parse_status_line(line: bytes) -> tuple[tuple[int, int], int, bytes]:
    """HTTP-version SP status-code SP [reason] (RFC 9112 section 4)."""
    match = _STATUS_LINE.fullmatch(line)
    if not match:
        raise BadFraming("the status line is not `HTTP/1.1 status reason`")
    minor, status, reason = match.groups()
    return (1, int(minor)), int(status), reason or b""


def origin_form(method: str, target: bytes, host: bytes | None) -> bytes:
    """The target as path and query (RFC 9112 section 3.2). Absolute-form is taken only where its authority is the
    Host field's: elsewhere one of both would lie about what is asked for. CONNECT keeps its authority-form, OPTIONS
    its asterisk."""
    if b"#" in target:
        raise ClientProtocolError(400, "a request target has no fragment")
    if method == "CONNECT":
        return target
    if target.startswith(b"/"):
        return target
    if target == b"*" and method == "OPTIONS":
        return target
    scheme, separator, rest = target.partition(b"://")
    if separator and scheme.lower() in (b"http", b"https"):
        cut = min((i for i in (rest.find(b"/"), rest.find(b"?")) if i >= 0), default=len(rest))
        authority, path = rest[:cut], rest[cut:]
        if not authority or host is None or authority.lower() != host.lower():
            raise ClientProtocolError(400, "the target names another authority than the Host field")
        return path if path.startswith(b"/") else b"/" + path
    raise ClientProtocolError(400, "the request target is neither a path nor an absolute URL")


def check_host(version: tuple[int, int], fields: Fields) -> bytes | None:
    """Exactly one valid Host in HTTP/1.1, at most one in HTTP/1.0 (RFC 9112 section 3.2)."""
    hosts = list(values(fields, b"host"))
    if len(hosts) > 1:
        raise ClientProtocolError(400, "more than one Host field")
    if not hosts:
        if version >= (1, 1):
            raise ClientProtocolError(400, "HTTP/1.1 without a Host field")
        return None
    if not _HOST.fullmatch(hosts[0]):
        raise ClientProtocolError(400, "the Host field is not `host[:port]`")
    return hosts[0]


def request_framing(head: RequestHead) -> RequestFraming:
    """Where the body of a request ends (RFC 9112 section 6.3). Raises ClientProtocolError."""
    connection = tokens(head.fields, b"connection")
    for name in (b"host", b"content-length", b"transfer-encoding"):
        if name in connection:
            raise ClientProtocolError(400, f"the Connection field names {name.decode()}, which frames the message")
    lengths = list(values(head.fields, b"content-length"))
    codings = list(values(head.fields, b"transfer-encoding"))
    if codings:
        if lengths:
            raise ClientProtocolError(400, "both Content-Length and Transfer-Encoding")
        if head.version < (1, 1):
            raise ClientProtocolError(400, "Transfer-Encoding in HTTP/1.0")
        if len(codings) > 1 or codings[0].lower() != b"chunked":
            raise ClientProtocolError(400, "the only transfer coding understood here is `chunked`, once")
        length = None
    elif lengths:
        parsed = parse_length(lengths[0])
        if len(lengths) > 1 or parsed is None:
            raise ClientProtocolError(400, "the Content-Length is not one number")
        length = parsed
    else:
        length = 0
    keep_alive = b"close" not in connection and (head.version >= (1, 1) or b"keep-alive" in connection)
    return RequestFraming(
        length=length,
        keep_alive=keep_alive,
        expects_continue=_expects_continue(head),
        upgrade=head.method == "CONNECT"
        or (head.version >= (1, 1) and b"upgrade" in connection and wanted_protocol(head) is not None),
    )


def _expects_continue(head: RequestHead) -> bool:
    expectations = tokens(head.fields, b"expect")
    if not expectations or head.version < (1, 1):
        return False  # RFC 9110 section 10.1.1: ignored in HTTP/1.0
    if expectations != [b"100-continue"]:
        raise ClientProtocolError(417, "the only expectation understood here is 100-continue")
    return True


def wanted_protocol(head: RequestHead) -> bytes | None:
    """The Upgrade field, unless it only offers h2c: that offer may be ignored (RFC 9110 section 7.8), and is, because
    an HTTP/1.1 answer is one that the cache understands."""
    wanted = [token for token in tokens(head.fields, b"upgrade") if token != b"h2c"]
    return b", ".join(wanted) if wanted else None


def response_framing(method: str, status: int, version: tuple[int, int], fields: Fields) -> ResponseFraming:
    """Where the body of a response ends (RFC 9112 section 6.3). Raises BadFraming."""
    connection = tokens(fields, b"connection")
    keep_alive = b"close" not in connection and (version >= (1, 1) or b"keep-alive" in connection)
    lengths = list(values(fields, b"content-length"))
    codings = tokens(fields, b"transfer-encoding")
    if codings and (lengths or version < (1, 1)):
        raise BadFraming("Transfer-Encoding beside Content-Length or in HTTP/1.0")
    length = None
    if lengths:
        length = parse_length(lengths[0])
        if len(lengths) > 1 or length is None:
            raise BadFraming("the Content-Length is not one number")
    if method == "HEAD" or status in (204, 304) or status < 200:
        return ResponseFraming(length=0, chunked=False, keep_alive=keep_alive)
    if codings:
        if codings != [b"chunked"]:
            raise BadFraming("a transfer coding other than `chunked`")
        return ResponseFraming(length=None, chunked=True, keep_alive=keep_alive)
    if length is not None:
        return ResponseFraming(length=length, chunked=False, keep_alive=keep_alive)
    return ResponseFraming(length=None, chunked=False, keep_alive=False)


def declared_length(fields: Fields) -> int | None:
    value = first(fields, b"content-length")
    return parse_length(value) if value is not None else None
