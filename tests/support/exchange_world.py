"""Sidecars with everything real but the network: exchanges, coherence and a hub in memory before a scripted app, in
virtual time. The app is in memory, counts what reaches it, and can be slow, failing or gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from policies import policy as policy_of
from pulsecache_policy.match import CompiledPolicy
from pulsecache_policy.model import CachePolicy
from pulsecache_sidecar.adapters.local_hub import LocalHub
from pulsecache_sidecar.core.http.message import Fields, RequestHead, ResponseHead
from pulsecache_sidecar.engine.coherence import Coherence
from pulsecache_sidecar.engine.exchange import Exchange
from pulsecache_sidecar.engine.handler import Reply
from pulsecache_sidecar.engine.memory import MemoryStore
from pulsecache_sidecar.engine.serving import PendingWrites, Serving
from pulsecache_sidecar.errors import HubError, OriginBadResponse
from pulsecache_sidecar.ports import Body, Hub, OriginResponse, Tunnel
from virtual_time import VirtualClock


@dataclass
class Arrived:
    """A request as the app saw it."""

    method: str
    target: str
    fields: Fields
    body: bytes
    at: float

    def __getitem__(self, name: str) -> str | None:
        found = [value.decode() for key, value in self.fields if key == name.encode()]
        return ", ".join(found) if found else None


@dataclass
class Response:
    """An app's response; `pieces` are sent one by one, an exception among them breaks it off."""

    status: int = 200
    fields: Mapping[str, str] = field(default_factory=dict)
    body: bytes | list[bytes | Exception] = b""
    aborted: bool = False
    ended: bool = False

    @property
    def pieces(self) -> list[bytes | Exception]:
        return self.body if isinstance(self.body, list) else [self.body]


class Sent:
    """ports.OriginResponse over a Response."""

    def __init__(self, response: Response) -> None:
        self._response = response
        self._pieces = iter(response.pieces)
        fields = tuple((name.lower().encode(), value.encode()) for name, value in response.fields.items())
        self._head = ResponseHead(response.status, fields)

    @property
    def head(self) -> ResponseHead:
        return self._head

    @property
    def body(self) -> Body:
        return self

    def __aiter__(self) -> Sent:
        return self

    async def __anext__(self) -> bytes:
        if self._response.aborted:
            raise OriginBadResponse("given up", request_sent=True)
        await asyncio.sleep(0)
        piece = next(self._pieces, None)
        if piece is None:
            self._response.ended = True
            raise StopAsyncIteration
        if isinstance(piece, Exception):
            raise piece
        return piece

    def abort(self) -> None:
        if not self._response.ended:
            self._response.aborted = True


Script = Callable[[Arrived], Response | Exception | Awaitable[Response | Exception]]


class App:
    """ports.TunnelOrigin. Answers by `script`; what it was asked is in `arrived`."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.arrived: list[Arrived] = []
        self.responses: list[Response] = []
        self.at_once = 0
        self.most_at_once = 0
        self.open: asyncio.Event | None = None
        """While it is there and not set, requests wait for it after they have arrived."""

    async def send(self, request: RequestHead, body: Body | None, *, timeout_s: float) -> OriginResponse:
        whole = b"".join([piece async for piece in body]) if body is not None else b""
        arrived = Arrived(
            request.method, request.target.decode(), request.fields, whole, asyncio.get_running_loop().time()
        )
        self.arrived.append(arrived)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            if self.open is not None:
                await self.open.wait()
            answer = self.script(arrived)
            if not isinstance(answer, Response | Exception):
                answer = await answer
        finally:
            self.at_once -= 1
        if isinstance(answer, Exception):
            raise answer
        self.responses.append(answer)
        return Sent(answer)

    async def upgrade(self, request: RequestHead, *, timeout_s: float) -> tuple[OriginResponse, Tunnel | None]:
        return await self.send(request, None, timeout_s=timeout_s), None

    async def tunnel(self, *, timeout_s: float) -> Tunnel:
        raise OriginBadResponse("no tunnels here", request_sent=False)

    async def aclose(self) -> None:
        return None

    def calls(self, method: str = "GET") -> list[str]:
        return [arrived.target for arrived in self.arrived if arrived.method == method]


@dataclass
class Got:
    status: int
    fields: dict[str, str]
    body: bytes
    outcome: str
    bound_s: float | None

    def __getitem__(self, name: str) -> str | None:
        return self.fields.get(name.lower())

    @property
    def staleness_s(self) -> float:
        """The number in Pulse-Staleness; infinite for `unknown`."""
        value = self.fields["pulse-staleness"].split(";")[0]
        return float("inf") if value == "unknown" else float(value)

    @property
    def state(self) -> str:
        return self.fields["pulse-staleness"].split("state=")[1].split(";")[0]


class Counts:
    """ports.Observer."""

    def __init__(self) -> None:
        self.outcomes: list[tuple[str, str, float | None]] = []
        """(rule, outcome, bound) of each request, in order."""

    def request(self, policy: str, rule: str, outcome: str, bound_s: float | None) -> None:
        self.outcomes.append((rule, outcome, bound_s))

    def origin(self, policy: str, duration_s: float) -> None:
        return None

    def hub_call(self, result: str) -> None:
        return None


class Sidecar:
    """One process: its own memory and coherence, a hub that it may share with others, and one app."""

    def __init__(
        self,
        name: str,
        app: App,
        hub: Hub | None,
        policy: CachePolicy,
        *,
        write_behind: PendingWrites | None = None,
    ) -> None:
        self.clock = VirtualClock()
        self.counts = Counts()
        self.app = app
        self.coherence = Coherence(
            policy.dataset,
            policy.staleness,
            hub,
            publisher_id=name,
            publishes=True,
            clock=self.clock,
            observer=self.counts,
            random=lambda: 0.5,
        )
        self.memory = MemoryStore(policy.memory_max_bytes)
        self.serving: Serving | None = Serving(
            CompiledPolicy.compile(policy), self.coherence, self.memory, write_behind
        )
        self.exchange = Exchange(app, lambda: self.serving, clock=self.clock, observer=self.counts, policy=policy.key)

    def edit(self, **changes: Any) -> None:
        """Another version of the policy, as after an edit: `CachePolicy` fields."""
        assert self.serving is not None
        compiled = CompiledPolicy.compile(replace(self.serving.policy.policy, **changes))
        self.serving = replace(self.serving, policy=compiled)

    async def ask(self, method: str, target: str, body: bytes | None = None, /, **fields: str) -> Got:
        """Field names with "_" for "-"."""
        reply = await self.reply(method, target, body, **fields)
        whole = reply.body if isinstance(reply.body, bytes) else b"".join([piece async for piece in reply.body])
        found: dict[str, str] = {}
        for name, value in reply.head.fields:
            key = name.decode()
            found[key] = f"{found[key]}, {value.decode('latin-1')}" if key in found else value.decode("latin-1")
        _, outcome, bound_s = self.counts.outcomes[-1]
        return Got(reply.head.status, found, whole, outcome, bound_s)

    async def reply(self, method: str, target: str, body: bytes | None = None, /, **fields: str) -> Reply:
        found: list[tuple[bytes, bytes]] = [(b"host", b"shop")]
        found += [(name.replace("_", "-").encode(), value.encode()) for name, value in fields.items()]
        if body is not None:
            found.append((b"content-length", b"%d" % len(body)))
        request = RequestHead(method, target.encode(), tuple(found), (1, 1), "10.0.0.9")
        reply = self.exchange.at_once(request) if body is None else None
        if reply is None:
            reply = await self.exchange.handle(request, None if body is None else _once(body))
        return reply

    async def get(self, target: str, /, **fields: str) -> Got:
        return await self.ask("GET", target, None, **fields)

    async def put(self, target: str, body: bytes, /, **fields: str) -> Got:
        return await self.ask("PUT", target, body, **fields)

    @property
    def outcomes(self) -> list[str]:
        return [outcome for _, outcome, _ in self.counts.outcomes]


async def _once(body: bytes) -> AsyncIterator[bytes]:
    yield body


POLICY: dict[str, Any] = {
    "staleness": {"max": "5s", "writers": "All", "heartbeat": {"interval": "1s"}, "settle": "30s"},
    "reads": [
        {
            "name": "product",
            "match": {"path": "/products/{id}"},
            "ttl": {"source": "OriginFirst", "duration": "60s"},
            "tags": ["product:{id}", "products"],
        }
    ],
    "writes": [
        {
            "name": "update",
            "match": {"methods": ["PUT", "PATCH", "DELETE"], "path": "/products/{id}"},
            "strategy": "WriteThrough",
            "writeThrough": {"read": "product", "from": "ResponseBody"},
            "invalidates": ["products"],
        }
    ],
}


class Wire:
    """A hub that can be cut off: a black hole, each call of which fails after the time-out."""

    def __init__(self, hub: LocalHub) -> None:
        self._hub = hub
        self.cut = False

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def call(*arguments: Any, **more: Any) -> Any:
            if self.cut:
                await asyncio.sleep(0.05)
                raise HubError("cut")
            return await getattr(self._hub, name)(*arguments, **more)

        return call


@asynccontextmanager
async def sidecars(
    script: Script,
    count: int = 1,
    *,
    hub: Callable[[VirtualClock], Hub | None] | None = None,
    write_behind: PendingWrites | None = None,
    **spec: Any,
) -> AsyncIterator[list[Sidecar]]:
    """`count` processes on one hub before one app, started and joined; `spec` overrides parts of POLICY."""
    clock = VirtualClock()
    shared = hub(clock) if hub is not None else LocalHub(clock, covered=True, max_objects=1000)
    app = App(script)
    policy = policy_of(**{**POLICY, **spec})
    found = [Sidecar(f"pod-{n}", app, shared, policy, write_behind=write_behind) for n in range(count)]
    for sidecar in found:
        await sidecar.coherence.start()
    try:
        yield found
    finally:
        for sidecar in found:
            await sidecar.exchange.aclose(5.0)
            assert sidecar.exchange._look_aside._upstream.slots.taken == 0, "a slot at the origin was leaked"
            await sidecar.coherence.stop()
