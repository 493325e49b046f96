"""Coherence on a real Redis: what happens to the bound, the state and the requests when Redis is in trouble."""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from coherences import Quiet
from eventually import eventually
from pulsecache_policy.hub_scripts import hub_key, stream_key
from pulsecache_policy.model import Heartbeat, Staleness, Writers
from pulsecache_sidecar.adapters.clock import SystemClock
from pulsecache_sidecar.adapters.redis_connections import RedisConnections
from pulsecache_sidecar.adapters.redis_hub import RedisHub
from pulsecache_sidecar.engine.coherence import Coherence, Validity
from redis_server import RedisServer

INTERVAL_S, MAX_S, SETTLE_S = 0.2, 1.0, 0.5
UNHURRIED_S = 2.0
"""Deadline of hub calls where it is not what is tested: other programs share the machine."""


class Process:
    """What one sidecar process has: connections of its own, and a coherence."""

    def __init__(self, url: str, dataset: str, name: str, *, timeout_s: float = UNHURRIED_S, **more: Any) -> None:
        self.clock = SystemClock()
        self.observer = Quiet()
        self.connections = RedisConnections(url, self.clock, timeout_s=timeout_s)
        self.coherence = Coherence(
            dataset,
            Staleness(max_s=MAX_S, writers=Writers.ALL, heartbeat=Heartbeat(interval_s=INTERVAL_S), settle_s=SETTLE_S),
            RedisHub(self.connections, dataset),
            publisher_id=f"{name}.{secrets.token_hex(4)}",
            clock=self.clock,
            observer=self.observer,
            hub_timeout_s=timeout_s,
            **({"publishes": True, "unattended": True} | more),
        )

    async def stop(self) -> None:
        await self.coherence.stop()
        await self.connections.aclose()

    @property
    def state(self) -> str:
        return self.coherence.state(self.clock.now()).value

    @property
    def epoch(self) -> str | None:
        return self.coherence.report(self.clock.now()).epoch

    def fetch(self) -> Validity:
        return self.coherence.fetched(self.coherence.ticket(self.clock.now()))

    async def write(self, tag: str, store: bytes | None = None) -> Validity | None:
        write = self.coherence.open_write((tag,), self.clock.now())
        write.sent(self.clock.now())
        return await write.took_effect(store=None if store is None else (tag, store, (tag,), 60.0))

    async def lookup(self, key: str) -> bytes | None:
        found = await self.coherence.lookup(key, self.coherence.ticket(self.clock.now()))
        return found[0] if found else None

    async def until(self, state: str) -> None:
        await eventually(lambda: self.state == state, f"state {state}, is {self.state}", within_s=20.0)

    async def until_unusable(self, validity: Validity, tag: str) -> None:
        await eventually(lambda: not self.coherence.usable(validity, (tag,)), f"a change of {tag} is heard")


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer() as running:
        yield running


class Processes:
    def __init__(self) -> None:
        self.dataset = f"test/{secrets.token_hex(6)}"
        self._all: list[Process] = []

    async def begin(self, server: RedisServer, name: str, **more: Any) -> Process:
        process = Process(server.url, self.dataset, name, **more)
        self._all.append(process)
        await process.coherence.start()
        return process

    async def settle(self) -> None:
        """As a controller that knows that nobody published before."""
        first = self._all[0]
        hub = RedisHub(first.connections, self.dataset)
        assert first.epoch is not None
        await hub.fence("old-epoch", first.epoch, beats=None, flush=False)
        await eventually(lambda: self._all[-1].coherence.report(0.0).lost == (), "the first epoch is settled")

    async def stop(self) -> None:
        await asyncio.gather(*(process.stop() for process in self._all))


@pytest.fixture
async def processes() -> AsyncIterator[Processes]:
    made = Processes()
    yield made
    await made.stop()


async def test_a_change_in_one_process_is_heard_in_the_others(server: RedisServer, processes: Processes) -> None:
    p, q = await processes.begin(server, "p"), await processes.begin(server, "q")
    for process in (p, q):
        await process.until("confirmed")
    kept = q.fetch()
    stored = await p.write("/a", b"new")
    assert stored is not None
    await q.until_unusable(kept, "/a")
    assert await q.lookup("/a") == b"new"


async def test_paused_redis_unconfirmed_exceeded_and_confirmed_again(server: RedisServer, processes: Processes) -> None:
    p = await processes.begin(server, "p", timeout_s=0.05, unattended=False)
    await p.until("confirmed")
    await processes.settle()
    kept = p.fetch()
    server.pause()
    await p.until("unconfirmed")
    await p.until("exceeded")
    assert p.coherence.usable(kept, ("/a",)), "nothing is known against it; its bound says the rest"
    await eventually(lambda: p.coherence.bound(kept, p.clock.now()) > 2 * MAX_S, "the bound grows")
    server.resume()
    await p.until("confirmed")
    assert p.coherence.usable(kept, ("/a",)), "nothing was missed: the cache is warm"


async def test_a_paused_redis_costs_a_request_one_deadline_and_then_nothing(
    server: RedisServer, processes: Processes
) -> None:
    p = await processes.begin(server, "p", timeout_s=0.05)
    await p.until("confirmed")
    server.pause()
    spent: list[float] = []
    for _ in range(200):
        before = p.clock.now()
        await p.lookup("/a")
        spent.append(p.clock.now() - before)
    slow = [duration for duration in spent if duration > 0.02]
    assert len(slow) <= 2, "the connection that was open, and at most one that was not"
    assert max(spent) < 0.25
    assert p.observer.results.count("short-circuit") > 100, "Redis was not even asked"
    server.resume()


async def test_a_redis_that_was_killed_and_comes_back_empty_is_a_new_epoch(
    server: RedisServer, processes: Processes
) -> None:
    p, q = await processes.begin(server, "p"), await processes.begin(server, "q")
    await p.until("confirmed")
    epoch, kept = p.epoch, q.fetch()
    server.kill()
    await q.until("exceeded")
    assert q.coherence.usable(kept, ("/a",))
    server.start()
    await eventually(lambda: p.epoch == q.epoch != epoch, "both are in a new epoch", within_s=20.0)
    assert not q.coherence.usable(kept, ("/a",))
    for process in (p, q):
        await process.until("confirmed")


async def test_flushall_is_a_new_epoch(server: RedisServer, processes: Processes) -> None:
    p, q = await processes.begin(server, "p"), await processes.begin(server, "q")
    await p.until("confirmed")
    epoch, kept = p.epoch, q.fetch()
    server.run("FLUSHALL")
    await eventually(lambda: p.epoch == q.epoch != epoch, "both are in a new epoch")
    assert not q.coherence.usable(kept, ("/a",))
    assert await p.write("/a") is None
    for process in (p, q):
        await process.until("confirmed")


@pytest.mark.parametrize("key", [hub_key, stream_key], ids=["hash", "stream"])
async def test_evicted_keys_cost_the_cache_and_no_promise(server: RedisServer, processes: Processes, key: Any) -> None:
    p, q = await processes.begin(server, "p"), await processes.begin(server, "q")
    await p.until("confirmed")
    server.run("DEL", key(processes.dataset))
    kept = q.fetch()
    await p.write("/a")
    await q.until_unusable(kept, "/a")
    for process in (p, q):
        await process.until("confirmed")


async def test_a_redis_that_lost_its_end_is_a_new_epoch(processes: Processes) -> None:
    with RedisServer(persistent=True) as server:
        p, q = await processes.begin(server, "p"), await processes.begin(server, "q")
        await p.until("confirmed")
        server.remember()
        kept, epoch = q.fetch(), q.epoch
        await p.write("/a")
        await q.until_unusable(kept, "/a")
        server.kill()
        server.restore()
        server.start()
        await eventually(lambda: p.epoch == q.epoch != epoch, "both are in a new epoch", within_s=20.0)
        await q.until("confirmed")
        await processes.stop()


async def test_a_redis_that_lost_nothing_costs_nothing(processes: Processes) -> None:
    with RedisServer(persistent=True) as server:
        p, q = [await processes.begin(server, name, unattended=False) for name in ("p", "q")]
        await processes.settle()
        await q.until("confirmed")
        kept, epoch = q.fetch(), q.epoch
        server.kill()
        await q.until("exceeded")
        server.start()
        for process in (p, q):
            await process.until("confirmed")
        assert q.epoch == epoch
        assert q.coherence.usable(kept, ("/a",))
        await processes.stop()


async def test_own_writes_are_seen_while_redis_is_away_and_told_when_it_is_back(processes: Processes) -> None:
    with RedisServer(persistent=True) as server:
        p, q = await processes.begin(server, "p"), await processes.begin(server, "q")
        await p.until("confirmed")
        own, other = p.fetch(), q.fetch()
        server.kill()
        assert await p.write("/a", b"new") is None
        assert not p.coherence.usable(own, ("/a",))
        assert p.coherence.usable(p.fetch(), ("/a",))
        assert q.coherence.usable(other, ("/a",))
        server.start()
        await q.until_unusable(other, "/a")
        await eventually(lambda: p.coherence.report(p.clock.now()).open_writes == 0, "all is announced")
        await processes.stop()


async def test_connections_that_are_cut_cost_nothing(server: RedisServer, processes: Processes) -> None:
    p, q = [await processes.begin(server, name, unattended=False) for name in ("p", "q")]
    await p.until("confirmed")
    await processes.settle()
    kept, epoch = q.fetch(), q.epoch
    for _ in range(3):
        server.run("CLIENT", "KILL", "TYPE", "normal")
        await asyncio.gather(p.lookup("/a"), q.lookup("/a"))
    await p.write("/b")
    fresh = q.fetch()
    await p.write("/a")
    await q.until_unusable(kept, "/a")
    await q.until_unusable(fresh, "/a")
    assert q.epoch == epoch
    assert q.coherence.usable(kept, ("/c",))


async def test_scripts_that_redis_has_forgotten_are_sent_again(server: RedisServer, processes: Processes) -> None:
    p = await processes.begin(server, "p")
    await p.until("confirmed")
    server.run("SCRIPT", "FLUSH")
    assert await p.write("/a", b"new") is not None
    assert await p.lookup("/a") == b"new"


async def test_redis_is_not_there_at_the_start_and_comes_later(server: RedisServer, processes: Processes) -> None:
    server.kill()
    loop = asyncio.get_running_loop()
    before = loop.time()
    p = await processes.begin(server, "p")
    assert loop.time() - before < 5.0
    kept = p.fetch()
    assert p.coherence.usable(kept, ("/a",))
    assert await p.write("/b") is None
    await p.until("exceeded")
    server.start()
    await p.until("confirmed")
    assert not p.coherence.usable(kept, ("/a",))
    await eventually(lambda: p.coherence.report(p.clock.now()).open_writes == 0, "the write of before is announced")


async def test_a_black_hole_at_the_start_delays_no_longer_than_asked(processes: Processes) -> None:
    with socket.socket() as deaf:  # accepts by the kernel, and says nothing
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        dataset = processes.dataset
        p = Process(f"redis://127.0.0.1:{deaf.getsockname()[1]}", dataset, "p", timeout_s=0.05, start_timeout_s=0.3)
        before = p.clock.now()
        await p.coherence.start()
        assert p.clock.now() - before < 2.0
        assert await p.lookup("/a") is None
        before = p.clock.now()
        await p.stop()
        assert p.clock.now() - before < 2.0


async def test_a_password_is_used_and_a_wrong_one_is_only_a_hub_that_is_away(processes: Processes) -> None:
    with RedisServer(password="s3cret") as server:
        p = await processes.begin(server, "p")
        await p.until("confirmed")
        wrong = Process(f"redis://:wrong@127.0.0.1:{server.port}/0", processes.dataset, "w", start_timeout_s=0.3)
        await wrong.coherence.start()
        assert wrong.epoch is None
        assert await wrong.lookup("/a") is None
        await wrong.stop()
        await processes.stop()


async def test_a_full_redis_still_hears_changes_and_beats_but_stores_nothing(processes: Processes) -> None:
    with RedisServer(options={"maxmemory": "3mb", "maxmemory-policy": "noeviction"}) as server:
        p, q = await processes.begin(server, "p"), await processes.begin(server, "q")
        await p.until("confirmed")
        kept = q.fetch()
        for number in range(400):
            p.coherence.share(f"/{number}", b"x" * 20_000, (f"/{number}",), p.fetch(), 60.0)
            await asyncio.sleep(0)
        await eventually(lambda: "error" in p.observer.results, "Redis refuses an object")
        assert await p.write("/a", b"x" * 20_000) is None
        await q.until_unusable(kept, "/a")
        await eventually(lambda: p.coherence.report(p.clock.now()).open_writes == 0, "all is announced")
        await q.until("confirmed")
        await processes.stop()


async def test_two_datasets_share_the_connections_and_nothing_else(server: RedisServer) -> None:
    clock = SystemClock()
    connections = RedisConnections(server.url, clock, timeout_s=UNHURRIED_S)
    made = [
        Coherence(
            dataset,
            Staleness(writers=Writers.ALL),
            RedisHub(connections, dataset),
            publisher_id="p",
            publishes=True,
            clock=clock,
            observer=Quiet(),
        )
        for dataset in ("a/one", "a/two")
    ]
    for coherence in made:
        await coherence.start()
    kept = [coherence.fetched(coherence.ticket(clock.now())) for coherence in made]
    await made[0].open_write(("/a",), clock.now()).took_effect()
    assert not made[0].usable(kept[0], ("/a",))
    assert made[1].usable(kept[1], ("/a",))
    for coherence in made:
        await coherence.stop()
    await connections.aclose()
    clients = server.run("CLIENT", "LIST")
    assert len(clients.splitlines()) == 1, "only the one that asks"
