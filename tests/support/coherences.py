"""Coherences on one hub in virtual time, and a hub between whose calls a test can step."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

from pulsecache_policy.model import Heartbeat, Staleness, Writers
from pulsecache_sidecar.adapters.local_hub import LocalHub
from pulsecache_sidecar.engine.coherence import Coherence, Validity
from pulsecache_sidecar.errors import HubError
from pulsecache_sidecar.ports import Hub
from virtual_time import VirtualClock

INTERVAL_S = 1.0
MAX_S = 5.0
SETTLE_S = 10.0
DATASET = "shop/products"


class Quiet:
    """An Observer that only counts calls to the hub by result."""

    def __init__(self) -> None:
        self.results: list[str] = []

    def request(self, policy: str, rule: str, outcome: str, bound_s: float | None) -> None: ...

    def origin(self, policy: str, duration_s: float) -> None: ...

    def hub_call(self, result: str) -> None:
        self.results.append(result)


class Wire:
    """A process's way to the hub. `away`: nothing arrives. `hold("beat")`: calls of that name wait before they take
    effect, `hold_answers("change")`: after it; their caller has given up by then. Both until `release`."""

    def __init__(self, hub: LocalHub) -> None:
        self._hub = hub
        self.away = False
        self.calls: list[str] = []
        self._held: dict[str, asyncio.Event] = {}
        self._held_answers: set[str] = set()
        self._late: set[asyncio.Task[Any]] = set()

    def hold(self, name: str) -> None:
        self._held[name] = asyncio.Event()

    def hold_answers(self, name: str) -> None:
        self._held_answers.add(name)

    def release(self, name: str) -> None:
        self._held_answers.discard(name)
        if name in self._held:
            self._held.pop(name).set()

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        call = getattr(self._hub, name)
        return lambda *arguments, **more: self._through(name, lambda: call(*arguments, **more))

    async def read(self, cursor: str, *, block_s: float) -> Any:
        while self.away or "read" in self._held:
            await asyncio.sleep(block_s)
            if self.away:
                raise HubError("away")
        return await self._hub.read(cursor, block_s=block_s)

    async def _through(self, name: str, call: Callable[[], Awaitable[Any]]) -> Any:
        if self.away:
            await asyncio.sleep(0.05)
            raise HubError("away")
        self.calls.append(name)
        if name in self._held:
            late = asyncio.get_running_loop().create_task(self._later(self._held[name], call))
            self._late.add(late)
            late.add_done_callback(self._late.discard)
            await asyncio.sleep(0.05)
            raise HubError("no answer in time")
        result = await call()
        if name in self._held_answers:
            await asyncio.sleep(0.05)
            raise HubError("no answer in time")
        return result

    async def _later(self, released: asyncio.Event, call: Callable[[], Awaitable[Any]]) -> None:
        await released.wait()
        await call()


class Sidecar:
    """A Coherence with its wire, and the few steps that tests are made of."""

    def __init__(self, hub: LocalHub | None, name: str, clock: VirtualClock, **more: Any) -> None:
        self.clock = clock
        self.name = name
        self.wire = Wire(hub or LocalHub(clock))
        self.observer = Quiet()
        settings: dict[str, Any] = {"publishes": True, "random": lambda: 0.5, "writers": Writers.ALL} | more
        self.coherence = Coherence(
            DATASET,
            Staleness(
                max_s=MAX_S,
                writers=settings.pop("writers"),
                heartbeat=Heartbeat(interval_s=INTERVAL_S, failure_threshold=3),
                settle_s=SETTLE_S,
            ),
            cast(Hub, self.wire) if hub is not None else None,
            publisher_id=name,
            clock=clock,
            observer=self.observer,
            **settings,
        )

    @property
    def now(self) -> float:
        return self.clock.now()

    @property
    def bound(self) -> float | None:
        return self.coherence.report(self.now).bound_s

    @property
    def state(self) -> str:
        return self.coherence.state(self.now).value

    def fetch(self) -> Validity:
        """An answer of the origin, fetched in no time."""
        return self.coherence.fetched(self.coherence.ticket(self.now))

    def usable(self, validity: Validity, *tags: str) -> bool:
        return self.coherence.usable(validity, tags)

    async def write(self, *tags: str, store: bytes | None = None) -> Validity | None:
        """A write that succeeds at once."""
        write = self.coherence.open_write(tags, self.now)
        write.sent(self.now)
        return await write.took_effect(store=None if store is None else (tags[0], store, tags, 60.0))

    async def lookup(self, key: str) -> tuple[bytes, tuple[str, ...], Validity] | None:
        return await self.coherence.lookup(key, self.coherence.ticket(self.now))


class Group:
    """A dataset with its sidecars; begun with a hub that nobody has used before unless `first=False`."""

    def __init__(self, **hub: Any) -> None:
        self.clock = VirtualClock()
        self.hub = LocalHub(self.clock, **({"covered": True, "max_objects": 100} | hub))
        self._sidecars: list[Sidecar] = []

    async def begin(self, name: str, **more: Any) -> Sidecar:
        sidecar = Sidecar(self.hub, name, self.clock, **more)
        self._sidecars.append(sidecar)
        await sidecar.coherence.start()
        return sidecar

    async def crash(self, sidecar: Sidecar) -> None:
        """As kill -9: nothing is announced, nobody leaves."""
        self._sidecars.remove(sidecar)
        tasks = [*sidecar.coherence._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def stop(self) -> None:
        for sidecar in self._sidecars:
            await sidecar.coherence.stop()


@asynccontextmanager
async def group(**hub: Any) -> Any:
    made = Group(**hub)
    try:
        yield made
    finally:
        await made.stop()


async def passes(seconds: float) -> None:
    """Virtual time: takes none."""
    await asyncio.sleep(seconds)
