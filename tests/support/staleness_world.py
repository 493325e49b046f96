"""A small world in virtual time for the staleness protocol: an origin, sidecars, a hub, and troubles.

The parts under test are the real ones: Coherence and all below it, on the hub in memory. The network between them, the
origin and the controller are played here, by a seeded random generator: calls are late, lost, or arrive after their
caller gave up; writes take effect at any moment up to `settle`; processes crash and come back; the hub loses everything
or its end.

Two promises are checked at every read:
- R2: a served version was the origin's current one at some instant in [now - bound, now];
- a process never serves less than what it has itself acknowledged.
"""

from __future__ import annotations

import asyncio
import copy
import random
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from pulsecache_policy.model import Heartbeat, Staleness, Writers
from pulsecache_sidecar.adapters.local_hub import LocalHub
from pulsecache_sidecar.engine.coherence import Coherence, Validity
from pulsecache_sidecar.errors import HubError
from pulsecache_sidecar.ports import Hub
from virtual_time import VirtualClock, VirtualLoop

KEYS = ("/a", "/b")
TAG = "all"
SETTLE_S = 6.0
INTERVAL_S = 1.0
TIMEOUT_S = 0.05
EPSILON_S = 1e-9


class Violation(AssertionError):
    """A promise was broken."""


class Observed:
    """An Observer that forgets."""

    def request(self, policy: str, rule: str, outcome: str, bound_s: float | None) -> None: ...

    def origin(self, policy: str, duration_s: float) -> None: ...

    def hub_call(self, result: str) -> None: ...


@dataclass
class Origin:
    """Versions of each key, and since when each was current."""

    clock: VirtualClock
    versions: dict[str, list[tuple[float, int]]] = field(default_factory=lambda: {key: [(0.0, 0)] for key in KEYS})

    def read(self, key: str) -> int:
        return self.versions[key][-1][1]

    def write(self, key: str) -> int:
        version = self.read(key) + 1
        self.versions[key].append((self.clock.now(), version))
        return version

    def current_within(self, key: str, version: int, since: float) -> bool:
        """Whether this version was the current one at some instant from `since` to now."""
        history = self.versions[key]
        if version == history[-1][1]:
            return True
        ended = next(at for at, later in history if later > version)
        return ended >= since - EPSILON_S


class Link:
    """A process's way to the hub. `trouble`: how often a call is lost or comes too late; `cut`: a black hole."""

    def __init__(self, hub: LocalHub, chance: random.Random, trouble: float, lag_s: float) -> None:
        self._hub, self._chance, self._trouble, self._lag_s = hub, chance, trouble, lag_s
        self.cut = False
        self._life, self._connected = 0, False
        self._late: set[asyncio.Task[Any]] = set()

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        call = getattr(self._hub, name)
        return lambda *arguments, **more: self._through(lambda: call(*arguments, **more))

    def break_off(self) -> None:
        """A failover: every connection ends, what is on its way is lost, and a new one begins with a subscription."""
        self._life += 1
        self._connected = False

    async def subscribe(self, last_acknowledged: str | None, ended: Sequence[str] = ()) -> Any:
        self._connected = True
        return await self._through(lambda: self._hub.subscribe(last_acknowledged, ended))

    async def read(self, cursor: str, *, block_s: float) -> Any:
        life = self._life
        if self.cut:
            await asyncio.sleep(block_s + TIMEOUT_S)
            raise HubError("cut")
        found = await self._hub.read(cursor, block_s=block_s)
        await asyncio.sleep(self._chance.random() * self._lag_s)
        if self.cut or self._life != life or self._chance.random() < self._trouble / 4:
            raise HubError("connection lost")
        return found

    async def _through(self, call: Callable[[], Awaitable[Any]]) -> Any:
        if not self._connected:
            raise HubError("subscribe first")
        life = self._life

        async def alive() -> Any:
            if self._life != life:
                raise HubError("connection lost")
            return await operation()

        operation, call = call, alive
        chance = self._chance
        fate = chance.random() if not self.cut else 0.0
        if fate < self._trouble or self.cut:
            if not self.cut and fate < self._trouble / 2:  # it arrives, but too late for its caller
                self._spawn(self._after(chance.random() * 4 * INTERVAL_S, call))
            await asyncio.sleep(TIMEOUT_S)
            raise HubError("no answer in time")
        await asyncio.sleep(chance.random() * TIMEOUT_S * 0.4)
        result = await call()
        await asyncio.sleep(chance.random() * TIMEOUT_S * 0.4)
        if self._life != life:
            raise HubError("connection lost")
        return result

    async def _after(self, delay_s: float, call: Callable[[], Awaitable[Any]]) -> None:
        await asyncio.sleep(delay_s)
        try:
            await call()
        except Exception as refusal:  # noqa: BLE001 - nobody waits for the answer of a call that came too late
            del refusal

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._late.add(task)
        task.add_done_callback(self._late.discard)


@dataclass
class Cached:
    version: int
    tags: tuple[str, ...]
    validity: Validity


class Sidecar:
    """Reads and writes as the data path does: memory, shared store, origin; write-through."""

    def __init__(self, world: World, name: str, *, publishes: bool) -> None:
        self.world, self.name = world, name
        self.publishes = publishes
        self.link = Link(world.hub, world.chance, world.rate["trouble"], world.rate["lag"])
        self.coherence = Coherence(
            "test/things",
            Staleness(max_s=5.0, writers=Writers.ALL, heartbeat=Heartbeat(interval_s=INTERVAL_S), settle_s=SETTLE_S),
            cast(Hub, self.link),
            publisher_id=name,
            publishes=publishes,
            clock=world.clock,
            observer=Observed(),
            random=world.chance.random,
            hub_timeout_s=TIMEOUT_S,
        )
        self.cache: dict[str, Cached] = {}
        self.acknowledged = dict.fromkeys(KEYS, 0)
        self.dead = False
        self.work: set[asyncio.Task[Any]] = set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self.work.add(task)
        task.add_done_callback(self._ended)

    def crash(self) -> None:
        self.dead = True
        for task in (*self.work, *self.coherence._tasks):
            task.cancel()

    async def read(self, key: str) -> None:
        chance, clock, coherence = self.world.chance, self.world.clock, self.coherence
        if self.serve(key):
            return
        if chance.random() < self.world.rate["lookup"]:
            ticket = coherence.ticket(clock.now())
            found = await coherence.lookup(key, ticket)
            if found is not None:
                payload, tags, validity = found
                await asyncio.sleep(chance.random() * self.world.rate["slow"])
                self.keep(key, Cached(int(payload), tags, validity))
                if self.serve(key):
                    return
        ticket = coherence.ticket(clock.now())
        await asyncio.sleep(chance.random() * self.world.rate["slow"])
        version = self.world.origin.read(key)
        await asyncio.sleep(chance.random() * self.world.rate["slow"])
        fresh = Cached(version, (key, TAG), coherence.fetched(ticket))
        self.check(key, fresh, coherence.age_bound(fresh.validity, clock.now()), acknowledged=0)
        if self.keep(key, fresh):
            coherence.share(key, str(version).encode(), fresh.tags, fresh.validity, 60.0)
        self.serve(key)

    def keep(self, key: str, new: Cached) -> bool:
        old = self.cache.get(key)
        if not self.coherence.usable(new.validity, new.tags):
            return False
        if old is None or not self.coherence.usable(old.validity, old.tags) or old.validity.at <= new.validity.at:
            self.cache[key] = new
            return True
        return False

    def serve(self, key: str) -> bool:
        cached = self.cache.get(key)
        if cached is None:
            return False
        now = self.world.clock.now()
        self.check(key, cached, self.coherence.age_bound(cached.validity, now), acknowledged=0)
        if not self.coherence.usable(cached.validity, cached.tags):
            return False
        self.world.served += 1
        self.check(key, cached, self.coherence.bound(cached.validity, now), acknowledged=self.acknowledged[key])
        return True

    def check(self, key: str, cached: Cached, bound_s: float, *, acknowledged: int) -> None:
        now = self.world.clock.now()
        if not self.world.origin.current_within(key, cached.version, now - bound_s):
            raise Violation(
                f"{self.name} served {key}={cached.version} at {now:.3f} with a bound of {bound_s:.3f} s: "
                f"{cached.validity}, origin {self.world.origin.versions[key][-3:]}"
            )
        if cached.version < acknowledged:
            raise Violation(f"{self.name} served {key}={cached.version} after acknowledging {acknowledged}")

    async def write(self, key: str) -> None:
        world, chance, clock = self.world, self.world.chance, self.world.clock
        slow = world.rate["slow_write"]
        tags = (key, TAG) if chance.random() < 0.3 else (key,)
        fate = chance.random()
        write = self.coherence.open_write(tags, clock.now())
        await asyncio.sleep(chance.random() * slow / 2)  # a slow upload
        write.sent(clock.now())
        if fate < 0.1:
            await asyncio.sleep(chance.random() * slow)
            write.refused()
            return
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        world.spawn(world.take_effect(key, chance.random() * min(slow, SETTLE_S), done))
        if fate < 0.1 + world.rate["unknown"]:
            await asyncio.sleep(chance.random() * slow)  # gives up, before or after it took effect
            write.unknown(clock.now())
            return
        version = await asyncio.shield(done)
        await asyncio.sleep(chance.random() * 0.1)
        store = (key, str(version).encode(), (key, TAG), 60.0) if chance.random() < 0.7 else None
        if chance.random() < 0.1:
            asyncio.get_running_loop().call_later(0.01, self._cancel_a_request)
        validity = await write.took_effect(store=store)
        self.acknowledged[key] = max(self.acknowledged[key], version)
        if store is not None and validity is not None:
            self.keep(key, Cached(version, (key, TAG), validity))
        self.serve(key)

    def _cancel_a_request(self) -> None:
        if self.work and not self.dead:
            self.world.chance.choice(sorted(self.work, key=id)[:1]).cancel()

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self.work.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.world.failed(error)


class World:
    def __init__(self, seed: int) -> None:
        chance = self.chance = random.Random(seed)
        # Each run has its own mixture of troubles.
        self.rate = {
            name: chance.choice(values)
            for name, values in {
                "trouble": (0.0, 0.05, 0.3),
                "lag": (0.0, 0.0, 0.5, 3.0),
                "slow": (0.01, 0.3, 3.0),
                "slow_write": (0.05, 1.0, 6.0, 12.0),
                "unknown": (0.0, 0.1, 0.5),
                "lookup": (0.0, 0.5, 0.9),
                "crash": (0.0, 0.0, 0.02),
                "cut": (0.0, 0.02, 0.05),
                "forget": (0.0, 0.0, 0.01),
                "failover": (0.0, 0.0, 0.02),
                "write": (0.02, 0.1, 0.3),
                "keys": (1, 2),
            }.items()
        }
        self.clock = VirtualClock()
        self.origin = Origin(self.clock)
        self.hub = LocalHub(
            self.clock,
            covered=True,
            first=False,
            max_objects=100,
            keep=chance.choice((8, 200)),
            new_id=lambda: f"{chance.getrandbits(48):x}",
        )
        self.sidecars: list[Sidecar] = []
        self.died: dict[str, float] = {}
        self.served = 0
        self._replica: Any = None
        self._error: BaseException | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._number = 0

    async def run(self, duration_s: float) -> int:
        """Plays for so many virtual seconds; the number of answers served from caches. Raises Violation."""
        for publishes in (True, True, False):
            await self.begin(publishes=publishes)
        end = self.clock.now() + duration_s
        while self.clock.now() < end and self._error is None:
            await asyncio.sleep(self.chance.expovariate(12.0))
            await self.step()
        for sidecar in self.sidecars:
            sidecar.crash()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(
            *(task for sidecar in self.sidecars for task in (*sidecar.work, *sidecar.coherence._tasks)),
            *self._tasks,
            return_exceptions=True,
        )
        if self._error is not None:
            raise self._error
        return self.served

    async def begin(self, *, publishes: bool) -> None:
        self._number += 1
        sidecar = Sidecar(self, f"s{self._number}", publishes=publishes)
        await sidecar.coherence.start()
        self.sidecars.append(sidecar)

    async def step(self) -> None:
        chance, rate = self.chance, self.rate
        living = [sidecar for sidecar in self.sidecars if not sidecar.dead]
        sidecar = chance.choice(living)
        key = chance.choice(KEYS[: int(rate["keys"])])
        if chance.random() < rate["crash"] / 4:
            sidecar.crash()
            self.died[sidecar.name] = self.clock.now()
            await self.begin(publishes=sidecar.publishes)
        elif chance.random() < rate["cut"]:
            sidecar.link.cut = not sidecar.link.cut
        elif chance.random() < rate["forget"] / 4:
            self.hub.forget()
        elif chance.random() < rate["failover"]:
            if self._replica is None or self._replica[0] is None:
                self._replica = copy.deepcopy((self.hub._state, self.hub._objects))
            elif set((await self.hub.publishers()).publishers) <= set(self._replica[0].publishers):
                # What happened since is lost, except that somebody has joined: for that, one waits for the replica.
                (self.hub._state, self.hub._objects), self._replica = self._replica, None
                self.hub.server += "'"
                for each in self.sidecars:
                    each.link.break_off()
            else:
                self._replica = None
        elif sidecar.publishes and chance.random() < rate["write"]:
            # R2 takes for granted that whoever forwards has joined, this epoch or one that is not yet settled.
            members = (await self.hub.publishers()).publishers
            if sidecar.name in members or "old-epoch" in members:
                sidecar.spawn(sidecar.write(key))
        else:
            sidecar.spawn(sidecar.read(key))
        await self.control()

    async def control(self) -> None:
        """The controller: it knows who exists, and who is dead since when."""
        members = await self.hub.publishers()
        if not members.epoch:
            return
        settled = {name for name, at in self.died.items() if self.clock.now() - at > SETTLE_S}
        for name in settled & set(members.publishers):
            await self.hub.fence(name, members.epoch, beats=None, flush=True)
        if "old-epoch" in members.publishers:
            gone = {sidecar.name for sidecar in self.sidecars if sidecar.publishes} - set(members.publishers)
            if gone <= settled:
                await self.hub.fence("old-epoch", members.epoch, beats=None, flush=bool(gone))

    async def take_effect(self, key: str, delay_s: float, done: asyncio.Future[int]) -> None:
        await asyncio.sleep(delay_s)
        version = self.origin.write(key)
        if not done.done():
            done.set_result(version)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def failed(self, error: BaseException) -> None:
        self._error = self._error or error


def play(seed: int, duration_s: float) -> int:
    """One schedule, the same for the same seed; the number of answers served from caches. Raises Violation."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(World(seed).run(duration_s))
