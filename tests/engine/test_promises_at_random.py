"""Three sidecars, one app, everything late, lost or overlapping by chance: whatever is answered keeps the promises.

- R2: a version that is served was the app's current one at some instant within the bound that is told with it. What was
  fetched for the very request may be as old as the request itself.
- Who has acknowledged a write never answers a later read with less than it.

Each run is made of a seed that is told when it fails.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any, cast

import pytest

from exchange_world import POLICY as BASE
from exchange_world import App, Arrived, Response, Sidecar, Wire
from policies import policy as policy_of
from pulsecache_sidecar.adapters.local_hub import LocalHub
from pulsecache_sidecar.errors import OriginBadResponse, OriginUnreachable
from pulsecache_sidecar.ports import Hub
from virtual_time import VirtualClock, virtual_time

SETTLE_S = 6.0
PATHS = ("/products/1", "/products/2")
OWN_REQUEST = ("miss", "revalidated", "bypass")


class Versions:
    """The app: a version per path, and since when each was current."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.clock = VirtualClock()
        self.history: dict[str, list[tuple[float, int]]] = {path: [(-1e9, 0)] for path in PATHS}
        self.trouble = 0.0
        self.later: set[asyncio.Task[None]] = set()

    def current(self, path: str) -> int:
        return self.history[path][-1][1]

    def apply(self, path: str) -> int:
        version = self.current(path) + 1
        self.history[path].append((self.clock.now(), version))
        return version

    def was_current(self, path: str, version: int, since: float) -> bool:
        later = [at for at, number in self.history[path] if number > version]
        return not later or later[0] >= since - 1e-6

    async def __call__(self, arrived: Arrived) -> Response | Exception:
        chance = self.chance
        await self.wait()
        if arrived.method == "GET":
            if chance.random() < self.trouble / 3:
                return OriginUnreachable("away", request_sent=False)
            version = self.current(arrived.target)
            await self.wait()
            fields = {"etag": f'"{version}"', "cache-control": "max-age=8, stale-if-error=60"}
            if arrived["if-none-match"] == f'"{version}"':
                return Response(304, fields)
            return Response(200, fields, [b"%d" % version])
        if chance.random() < self.trouble:
            if chance.random() < 0.5:  # applied now or later, or never: nobody is told
                self.in_a_while(arrived.target, chance.random() * SETTLE_S * 0.9)
            lost = OriginBadResponse("reset", request_sent=True)
            return lost if chance.random() < 0.3 else Response(chance.choice([500, 202]))
        if chance.random() < 0.1:
            return Response(409)
        version = self.apply(arrived.target)
        await self.wait()
        return Response(200, {"etag": f'"{version}"', "cache-control": "max-age=8"}, b"%d" % version)

    async def wait(self) -> None:
        await asyncio.sleep(self.chance.choice([0, 0.001, 0.05, 0.5]) * self.chance.random())

    def in_a_while(self, path: str, delay_s: float) -> None:
        async def run() -> None:
            await asyncio.sleep(delay_s)
            self.apply(path)

        task = asyncio.get_running_loop().create_task(run())
        self.later.add(task)
        task.add_done_callback(self.later.discard)


def spec(chance: random.Random) -> dict[str, Any]:
    source = chance.choice(["ResponseBody", "Refetch", None])
    write: dict[str, Any] = {"name": "w", "match": {"methods": ["PUT"], "path": "/products/{id}"}}
    if source is None:
        write |= {"strategy": "Invalidate"}
    else:
        write |= {"strategy": "WriteThrough", "writeThrough": {"read": "product", "from": source}}
    return {
        **BASE,
        "writes": chance.choice([[write], []]),
        "staleness": {
            "max": "5s",
            "writers": chance.choice(["All", "All", "Unknown"]),
            "heartbeat": {"interval": "1s"},
            "settle": f"{SETTLE_S:g}s",
            "whenExceeded": chance.choice(["Revalidate", "Bypass", "ServeStale"]),
        },
    }


async def run(seed: int) -> int:
    chance = random.Random(seed)
    clock = VirtualClock()
    versions = Versions(chance)
    policy = policy_of(**spec(chance))
    when_exceeded = policy.staleness.when_exceeded
    hub = LocalHub(clock, covered=True, max_objects=100)
    wires = [Wire(hub) for _ in range(3)]
    app = App(versions)
    pods = [Sidecar(f"pod-{n}", app, cast(Hub, wire), policy) for n, wire in enumerate(wires)]
    acknowledged = [dict.fromkeys(PATHS, 0) for _ in pods]
    served = 0
    for pod in pods:
        await pod.coherence.start()

    async def read(number: int, path: str) -> None:
        nonlocal served
        began, known = clock.now(), acknowledged[number][path]
        got = await pods[number].get(path)
        if got.status != 200:
            return
        now, version = clock.now(), int(got.body)
        since = now - got.staleness_s
        if got.outcome in OWN_REQUEST:
            since = min(since, began)
        what = f"seed {seed}: pod {number} {got.outcome} {path}={version} at {now:.3f}, {got.fields}"
        assert versions.was_current(path, version, since), f"{what}: {versions.history[path][-4:]}"
        assert version >= known, f"{what}: {known} was acknowledged before"
        if got.outcome in ("hit", "stale") and when_exceeded != "ServeStale":
            assert got.staleness_s <= policy.staleness.max_s, what
        served += got.outcome == "hit"

    async def write(number: int, path: str) -> None:
        before = versions.current(path)
        got = await pods[number].put(path, b"x")
        if got.status == 200:
            version = int(got.body)
            assert version > before
            acknowledged[number][path] = max(acknowledged[number][path], version)

    async def client() -> None:
        for _ in range(60):
            await asyncio.sleep(chance.random() * chance.choice([0.05, 0.5, 2.0]))
            number, path = chance.randrange(len(pods)), chance.choice(PATHS)
            work = asyncio.create_task((write if chance.random() < 0.15 else read)(number, path))
            if chance.random() < 0.03:
                await asyncio.sleep(chance.random() * 0.2)
                work.cancel()
                await asyncio.gather(work, return_exceptions=True)
            else:
                await work

    async def nemesis() -> None:
        while True:
            await asyncio.sleep(chance.random() * 10)
            versions.trouble = chance.choice([0, 0, 0.3])
            for wire in wires:
                wire.cut = chance.random() < 0.25

    trouble = asyncio.create_task(nemesis())
    try:
        await asyncio.gather(*(client() for _ in range(6)))
    finally:
        trouble.cancel()
        for pod in pods:
            await pod.exchange.aclose(60.0)
            await pod.coherence.stop()
        for task in versions.later:
            task.cancel()
    for pod in pods:
        assert pod.exchange._look_aside._upstream.slots.taken == 0
        assert len(pod.exchange._look_aside._flights) == 0
    return served


@pytest.mark.parametrize("start", range(0, 32, 8))
def test_the_promises_hold(start: int) -> None:
    async def runs() -> None:
        served = 0
        for seed in range(start, start + 8):
            served += await run(seed)
        assert served > 200, "hardly anything was a hit: nothing was shown"

    virtual_time(runs)()
