"""One bind's handler: each request from match to answer. Which strategy does what is in the strategies' modules.

policy and its parts, taken once -> none: pass through
read rule -> look-aside          (mode Bypass: pass through)
write rule -> its strategy       (mode Bypass: pass through, and announce what changed)
unsafe, no rule -> pass through, and invalidate its URL
all else -> pass through
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from pulsecache_policy.key import CacheKey, Unkeyable, cache_key, read_key
from pulsecache_policy.match import ReadMatch, WriteMatch
from pulsecache_policy.model import Mode
from pulsecache_sidecar.core.http import status_fields
from pulsecache_sidecar.core.http.credentials import unkeyed
from pulsecache_sidecar.core.http.framing import wanted_protocol
from pulsecache_sidecar.core.http.message import RequestHead, without
from pulsecache_sidecar.core.http.written import as_read
from pulsecache_sidecar.engine.handler import Reply, TunnelRefused
from pulsecache_sidecar.engine.look_aside import LookAside
from pulsecache_sidecar.engine.passthrough import PATIENCE_S, origin_failed, outbound, passed_on
from pulsecache_sidecar.engine.serving import Read, Serving
from pulsecache_sidecar.engine.upstream import Upstream
from pulsecache_sidecar.engine.write_request import Write
from pulsecache_sidecar.engine.writes import Writes
from pulsecache_sidecar.errors import OriginError
from pulsecache_sidecar.ports import Body, Clock, Observer, Tunnel, TunnelOrigin

SAFE = frozenset(("GET", "HEAD", "OPTIONS", "TRACE", "QUERY", "PROPFIND", "REPORT", "SEARCH"))
"""Registered methods that change nothing (RFC 9110 section 9.2.1); any other may."""


class Exchange:
    """`current` gives what is in force for the bind now, None where its policy is not there (yet, or any more).
    `policy` is the bind's policy key, for metrics. `tunnels`: whether what is not HTTP/1 may pass to the origin
    untouched (server-side), or is refused. `authority` (client-side): requests are for this host, whatever local
    address the client wrote into Host; so what consumers share, and what Location names, is the origin's own."""

    def __init__(
        self,
        origin: TunnelOrigin,
        current: Callable[[], Serving | None],
        *,
        clock: Clock,
        observer: Observer,
        policy: str,
        tunnels: bool = True,
        authority: str | None = None,
    ) -> None:
        self._origin = origin
        self._current = current
        self._observer = observer
        self._policy = policy
        self._tunnels = tunnels
        self._host = None if authority is None else (b"host", authority.encode())
        self.upstream = Upstream(origin, clock, observer)
        """For whoever else sends to this origin: the same limits count."""
        self._look_aside = LookAside(self.upstream)
        self._writes = Writes(self.upstream, self._look_aside)

    async def aclose(self, within_s: float) -> None:
        """After the listener: lets writes whose clients have left come to their end, and breaks off fetches."""
        await self._writes.aclose(within_s)
        await self._look_aside.aclose()

    # --- Handler ----------------------------------------------------------------------------------------------------

    def at_once(self, request: RequestHead) -> Reply | None:
        if request.method not in ("GET", "HEAD"):
            return None
        serving = self._current()
        if serving is None or serving.policy.policy.mode is Mode.BYPASS:
            return None
        match = serving.policy.match_read(request.method, request.path)
        if match is None:
            return None
        read = _read(serving, self._addressed(request), match)
        return self._look_aside.at_once(read) if isinstance(read, Read) else None

    async def handle(self, request: RequestHead, body: Body | None) -> Reply:
        request = self._addressed(request)
        serving = self._current()
        if serving is None:
            return await self._pass(request, body)
        serve = serving.policy.policy.mode is Mode.SERVE
        if body is None and (match := serving.policy.match_read(request.method, request.path)) is not None:
            read = _read(serving, request, match)
            if isinstance(read, Unkeyable):
                return await self._pass(request, body, serving, match.rule.name, read.reason)
            if not serve:
                return await self._pass(request, body, serving, match.rule.name, "mode")
            return await self._look_aside.answer(read)
        named = serving.policy.match_write(request.method, request.path)
        if named is not None:
            return await self._writes.by_rule(_write(serving, request, named), body, serve=serve)
        if request.method not in SAFE:
            return await self._writes.unnamed(Write(serving, request, None, None), body)
        return await self._pass(request, body)

    async def upgrade(self, request: RequestHead) -> Reply:
        sent = outbound(self._addressed(request))
        if request.method != "CONNECT":
            wanted = wanted_protocol(request) or b""
            sent = replace(sent, fields=(*sent.fields, (b"connection", b"upgrade"), (b"upgrade", wanted)))
        try:
            response, tunnel = await self._origin.upgrade(sent, timeout_s=PATIENCE_S)
        except OriginError as error:
            self._observer.request(self._policy, "", "error", None)
            return origin_failed(error)
        self._observer.request(self._policy, "", "pass", None)
        if tunnel is None:
            return passed_on(response)
        # The fields of this hop are the answer here: 101 says in Upgrade what is spoken from now on.
        return Reply(response.head, tunnel=tunnel)

    async def tunnel(self) -> Tunnel:
        if not self._tunnels:
            raise TunnelRefused("this address speaks HTTP/1.1 only: connect to the service itself for other protocols")
        self._observer.request(self._policy, "", "pass", None)
        return await self._origin.tunnel(timeout_s=PATIENCE_S)

    # ----------------------------------------------------------------------------------------------------------------

    def _addressed(self, request: RequestHead) -> RequestHead:
        if self._host is None:
            return request
        return replace(request, fields=(self._host, *without(request.fields, b"host")))

    async def _pass(
        self,
        request: RequestHead,
        body: Body | None,
        serving: Serving | None = None,
        rule: str = "",
        detail: str | None = None,
    ) -> Reply:
        """As if there were no cache; `detail` says why, where a rule covers the request."""
        try:
            response = await self._origin.send(outbound(request), body, timeout_s=PATIENCE_S)
        except OriginError as error:
            self._observer.request(self._policy, rule, "error", None)
            return origin_failed(error)
        self._observer.request(self._policy, rule, "pass" if serving is None else "bypass", None)
        return passed_on(response, () if detail is None else (status_fields.forwarded("bypass", detail=detail),))


def _read(serving: Serving, request: RequestHead, match: ReadMatch) -> Read | Unkeyable:
    key = cache_key(
        match,
        scheme_authority=request.authority,
        query=request.query,
        fields=request.fields,
        method=request.method,
    )
    if isinstance(key, Unkeyable):
        return key
    credential = unkeyed(request.fields, match.rule.key.principal)
    return Read(serving, request, match, key.digest, key.principal, credential)


def _write(serving: Serving, request: RequestHead, match: WriteMatch) -> Write:
    read = None
    if match.read is not None and isinstance(key := read_key(match.read, request.authority), CacheKey):
        credential = unkeyed(request.fields, None)
        read = Read(serving, as_read(request), match.read, key.digest, key.principal, credential)
    return Write(serving, request, match, read)
