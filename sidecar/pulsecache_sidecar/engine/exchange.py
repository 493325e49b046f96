"""One bind's handler: each request from match to answer. Which strategy does what is in the strategies' modules."""

from __future__ import annotations

from dataclasses import replace

from pulsecache_sidecar.core.http.framing import wanted_protocol
from pulsecache_sidecar.core.http.message import RequestHead
from pulsecache_sidecar.engine.handler import Reply, TunnelRefused
from pulsecache_sidecar.engine.passthrough import PATIENCE_S, origin_failed, outbound, passed_on
from pulsecache_sidecar.errors import OriginError
from pulsecache_sidecar.ports import Body, Tunnel, TunnelOrigin


class Exchange:
    """`tunnels`: whether what is not HTTP/1 may pass to the origin untouched (server-side), or is refused."""

    def __init__(self, origin: TunnelOrigin, *, tunnels: bool = True) -> None:
        self._origin = origin
        self._tunnels = tunnels

    def at_once(self, request: RequestHead) -> Reply | None:
        return None

    async def handle(self, request: RequestHead, body: Body | None) -> Reply:
        try:
            return passed_on(await self._origin.send(outbound(request), body, timeout_s=PATIENCE_S))
        except OriginError as error:
            return origin_failed(error)

    async def upgrade(self, request: RequestHead) -> Reply:
        sent = outbound(request)
        if request.method != "CONNECT":
            wanted = wanted_protocol(request) or b""
            sent = replace(sent, fields=(*sent.fields, (b"connection", b"upgrade"), (b"upgrade", wanted)))
        try:
            response, tunnel = await self._origin.upgrade(sent, timeout_s=PATIENCE_S)
        except OriginError as error:
            return origin_failed(error)
        if tunnel is None:
            return passed_on(response)
        # The fields of this hop are the answer here: 101 says in Upgrade what is spoken from now on.
        return Reply(response.head, tunnel=tunnel)

    async def tunnel(self) -> Tunnel:
        if not self._tunnels:
            raise TunnelRefused("this address speaks HTTP/1.1 only: connect to the service itself for other protocols")
        return await self._origin.tunnel(timeout_s=PATIENCE_S)
