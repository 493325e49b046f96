"""The seam between a listener and what answers its requests: a request's head and body in, a reply out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Protocol

from pulsecache_sidecar.core.http.message import Fields, RequestHead, ResponseHead
from pulsecache_sidecar.ports import Body, Tunnel


@dataclass(slots=True)
class Reply:
    """A response on its way to the client. `head.fields` are end-to-end fields; the listener frames it and adds Date.

    A `body` of bytes is the whole body; a stream's Content-Length, if any, is in the head.
    """

    head: ResponseHead
    body: bytes | Body = b""
    close: bool = False
    """The connection is not to be used again."""
    tunnel: Tunnel | None = None
    """After this head the connection speaks another protocol, with the origin."""


class Handler(Protocol):
    def at_once(self, request: RequestHead) -> Reply | None:
        """The reply to a request without body, where no waiting is needed to know it; None: ask `handle`."""
        ...

    async def handle(self, request: RequestHead, body: Body | None) -> Reply:
        """`body` is None where the request has none. Cancelled when the client goes away. Never raises for what
        the origin or a store does; ClientProtocolError (of `body`) passes through."""
        ...

    async def upgrade(self, request: RequestHead) -> Reply:
        """A request for another protocol, or CONNECT."""
        ...

    async def tunnel(self) -> Tunnel:
        """A connection whose first bytes are not HTTP/1: a way to the origin for them. Raises OriginError, or
        TunnelRefused where there is none."""
        ...


class TunnelRefused(Exception):
    """This listener takes HTTP/1 only."""


def problem(status: int, kind: str, title: str, detail: str, extra: Fields = ()) -> Reply:
    """An answer of the sidecar's own, as application/problem+json (RFC 9457)."""
    body = json.dumps(
        {"type": f"https://pulsecache.dev/problems/{kind}", "title": title, "status": status, "detail": detail}
    ).encode()
    fields = ((b"content-type", b"application/problem+json"), (b"cache-control", b"no-store"), *extra)
    return Reply(ResponseHead(status, fields), body + b"\n")
