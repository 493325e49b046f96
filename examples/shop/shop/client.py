"""A small HTTP/1.1 client of the standard library alone, which reads what the cache says of its answers.

A connection that the server closed while it was idle is not a failure: the request is sent once more on a new one, as
every client does for requests that may be repeated (RFC 9110 section 9.2.2).
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType

_MAX_HEAD = 64 * 1024


class RequestFailed(Exception):
    """No whole answer came: refused, reset, cut short, or too late."""


class _Unsent(Exception):
    """A connection that was kept open turned out to be closed before anything of an answer came."""


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    headers: Mapping[str, str]
    """Names in lower case; several fields of a name are joined by commas."""
    body: bytes

    @property
    def bound_s(self) -> float | None:
        """What Pulse-Staleness says; None where it is not there or `unknown`."""
        item = self.headers.get("pulse-staleness", "").partition(";")[0].strip()
        try:
            return float(item)
        except ValueError:
            return None

    @property
    def state(self) -> str | None:
        """confirmed, unconfirmed, exceeded or uncovered; None without Pulse-Staleness."""
        found = re.search(r";\s*state=([a-z]+)", self.headers.get("pulse-staleness", ""))
        return found[1] if found else None

    @property
    def cache(self) -> str | None:
        """`hit`, `fwd=miss` and so on, of the nearest cache (the last member of Cache-Status); None without one."""
        members = self.headers.get("cache-status", "").split(",")
        found = re.search(r";\s*(hit|fwd=[a-z-]+)", members[-1])
        return found[1] if found else None


class Client:
    """One connection at a time to one server. `requests_per_connection`: then a new one, so that a Service's load
    balancer, which chooses per connection, comes to choose again."""

    def __init__(self, host: str, port: int, *, timeout_s: float = 10.0, requests_per_connection: int = 100) -> None:
        self._host = host
        self._port = port
        self._timeout_s = timeout_s
        self._allowed = requests_per_connection
        self._used = 0
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def request(
        self, method: str, path: str, *, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> Response:
        """Raises RequestFailed."""
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self._host}:{self._port}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        if body or method not in ("GET", "HEAD"):
            lines.append(f"Content-Length: {len(body)}")
        message = "\r\n".join([*lines, "", ""]).encode() + body
        repeatable = method in ("GET", "HEAD", "PUT", "DELETE") or "Idempotency-Key" in (headers or {})
        try:
            async with asyncio.timeout(self._timeout_s):
                try:
                    return await self._exchange(method, message)
                except _Unsent:
                    if not repeatable:
                        raise RequestFailed("the server closed the connection") from None
                    await self.aclose()
                    return await self._exchange(method, message)
        except BaseException as error:
            await self.aclose()
            match error:
                case TimeoutError():
                    raise RequestFailed(f"no answer within {self._timeout_s:g} s") from None
                case _Unsent():
                    raise RequestFailed("the server closed the connection") from None
                case OSError() | EOFError() | ValueError() | asyncio.LimitOverrunError():
                    raise RequestFailed(str(error) or type(error).__name__) from error
            raise

    async def aclose(self) -> None:
        if self._streams is not None:
            _, writer = self._streams
            self._streams = None
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _exchange(self, method: str, message: bytes) -> Response:
        if self._streams is not None and self._used >= self._allowed:
            await self.aclose()
        reused = self._streams is not None
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port, limit=_MAX_HEAD)
            self._used = 0
        reader, writer = self._streams
        self._used += 1
        try:
            writer.write(message)
            await writer.drain()
            head = await reader.readuntil(b"\r\n\r\n")
            while head.startswith(b"HTTP/1.1 1"):
                head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            if reused and not error.partial:
                raise _Unsent from None
            raise
        except ConnectionError:
            if reused:
                raise _Unsent from None
            raise
        status, headers = _head(head)
        body, delimited = await _body(reader, method, status, headers)
        if not delimited or "close" in headers.get("connection", "").lower():
            await self.aclose()
        return Response(status, headers, body)


def _head(head: bytes) -> tuple[int, dict[str, str]]:
    first, *lines = head.decode("latin-1").split("\r\n")
    version, _, rest = first.partition(" ")
    if not version.startswith("HTTP/1."):
        raise ValueError(f"not an answer of HTTP/1: {first[:80]!r}")
    headers: dict[str, str] = {}
    for line in filter(None, lines):
        name, _, value = line.partition(":")
        name, value = name.lower(), value.strip()
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return int(rest[:3]), headers


async def _body(
    reader: asyncio.StreamReader, method: str, status: int, headers: Mapping[str, str]
) -> tuple[bytes, bool]:
    """The content, and whether its end could be told without the end of the connection (RFC 9112 section 6.3)."""
    if method == "HEAD" or status in (204, 304):
        return b"", True
    if "chunked" in headers.get("transfer-encoding", "").lower():
        parts: list[bytes] = []
        while True:
            size = int((await reader.readuntil(b"\r\n")).split(b";")[0], 16)
            if size == 0:
                while await reader.readuntil(b"\r\n") != b"\r\n":
                    pass
                return b"".join(parts), True
            parts.append((await reader.readexactly(size + 2))[:-2])
    if "content-length" in headers:
        return await reader.readexactly(int(headers["content-length"])), True
    return await reader.read(-1), False
