"""An origin and a coherence in memory that remember what write-behind does to them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

import writes
from pulsecache_policy.model import CachePolicy, Match, TargetRef, WriteRule, WriteStrategy
from pulsecache_policy.model import Journal as JournalSpec
from pulsecache_policy.model import Origin as OriginSpec
from pulsecache_policy.model import WriteBehind as WriteBehindSpec
from pulsecache_sidecar.core.http.message import Fields, RequestHead, ResponseHead, first
from pulsecache_sidecar.engine.delivery import Target
from pulsecache_sidecar.engine.upstream import Upstream
from pulsecache_sidecar.engine.write_behind import WriteBehind
from pulsecache_sidecar.ports import Body, Clock, PendingWrite
from virtual_time import VirtualClock

POLICY = "shop/products"


def rule(name: str = "update", max_entries: int = 100_000) -> WriteRule:
    return WriteRule(
        name=name,
        match=Match(methods=("PUT",), path="/products/{id}"),
        strategy=WriteStrategy.WRITE_BEHIND,
        write_behind=WriteBehindSpec(journal=JournalSpec(max_entries=max_entries)),
    )


@dataclass
class Response:
    head: ResponseHead
    chunks: Sequence[bytes] = ()
    aborted: bool = False
    read: bool = False
    _body: Body | None = None

    @property
    def body(self) -> Body:
        self._body = self._body or self._chunks()
        return self._body

    async def _chunks(self) -> AsyncIterator[bytes]:
        for chunk in self.chunks:
            yield chunk
        self.read = True

    def abort(self) -> None:
        self.aborted = True


@dataclass
class Arrival:
    target: str
    key: str
    body: bytes
    fields: Fields
    at: float


Answer = int | tuple[int, Fields] | Response | Exception
Script = Callable[[Arrival], Answer]


@dataclass
class ScriptedOrigin:
    """Answers by `script`. While `hold` is set, requests wait for it after they have arrived."""

    script: Script = lambda arrival: 200
    arrivals: list[Arrival] = field(default_factory=list)
    responses: list[Response] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0
    hold: asyncio.Event | None = None
    latency_s: float = 0.0

    async def send(self, request: RequestHead, body: Body | None, *, timeout_s: float) -> Response:
        content = b"".join([chunk async for chunk in body]) if body is not None else b""
        arrival = Arrival(
            request.target.decode(),
            (first(request.fields, b"idempotency-key") or b"").decode("latin-1"),
            content,
            request.fields,
            asyncio.get_running_loop().time(),
        )
        self.arrivals.append(arrival)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            if self.hold is not None:
                await self.hold.wait()
            await asyncio.sleep(self.latency_s)
        finally:
            self.in_flight -= 1
        answer = self.script(arrival)
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, int):
            answer = Response(ResponseHead(answer, ()))
        elif isinstance(answer, tuple):
            answer = Response(ResponseHead(*answer))
        self.responses.append(answer)
        return answer

    async def aclose(self) -> None:
        return None

    def bodies(self) -> list[bytes]:
        return [arrival.body for arrival in self.arrivals]


@dataclass
class RecordedWrite:
    tags: tuple[str, ...]
    events: list[str]
    fails: bool = False
    announcing: Callable[[], None] = lambda: None
    also: tuple[str, ...] = ()

    def refused(self) -> None:
        self.events.append("refused")

    async def took_effect(self, extra_tags: tuple[str, ...] = ()) -> None:
        self.announcing()
        if self.fails:
            raise RuntimeError("the announcement broke")
        self.events.append("took effect")
        self.also = extra_tags

    def unknown(self, now: float, extra_tags: tuple[str, ...] = ()) -> None:
        self.events.append("unknown")
        self.also = extra_tags


@dataclass
class RecordedCoherence:
    opened: list[RecordedWrite] = field(default_factory=list)
    fails: bool = False
    announcing: Callable[[], None] = lambda: None

    def open_write(self, tags: tuple[str, ...], now: float) -> RecordedWrite:
        write = RecordedWrite(tags, [], self.fails, self.announcing)
        self.opened.append(write)
        return write

    def events(self) -> list[str]:
        return [event for write in self.opened for event in write.events]


class Unobserved:
    def request(self, policy: str, rule: str, outcome: str, bound_s: float | None) -> None:
        return None

    def origin(self, policy: str, duration_s: float) -> None:
        return None

    def hub_call(self, result: str) -> None:
        return None


def a_policy(max_concurrency: int = 100) -> CachePolicy:
    return CachePolicy(
        name="products",
        namespace="shop",
        placement=TargetRef(name="products"),
        dataset="shop/products",
        origin=OriginSpec(timeout_s=5.0, max_concurrency=max_concurrency),
    )


@dataclass
class World:
    origin: ScriptedOrigin = field(default_factory=ScriptedOrigin)
    coherence: RecordedCoherence = field(default_factory=RecordedCoherence)
    known: bool = True
    """Whether the policy has a bind."""
    policy: CachePolicy | None = field(default_factory=lambda: a_policy())
    _upstreams: dict[str, Upstream] = field(default_factory=dict)

    def targets(self, policy: str) -> Target | None:
        if not self.known:
            return None
        upstream = self._upstreams.setdefault(policy, Upstream(self.origin, VirtualClock(), Unobserved()))
        upstream.origin = self.origin
        return Target.of(upstream, self.policy, self.coherence if self.policy is not None else None)


async def put(
    write_behind: WriteBehind,
    body: bytes,
    *,
    key: str = "/products/1",
    policy: str = POLICY,
    fields: Fields = ((b"host", b"shop"),),
    shows: str | None = None,
    by: WriteRule | None = None,
) -> PendingWrite:
    return await write_behind.accept(
        writes.request(target=key.encode(), fields=fields),
        body,
        policy=policy,
        rule=by or rule(),
        order_key=key,
        tags=("products", key),
        shows=shows,
    )


async def until_empty(write_behind: WriteBehind, *keys: str) -> None:
    for key in keys or ("/products/1",):
        await write_behind.settled(key)


__all__ = ["Clock", "World", "put", "rule", "until_empty"]
