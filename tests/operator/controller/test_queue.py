"""The work queue: one turn at a time per key, no wish lost, trouble tried again later."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pulsecache_operator.controller.queue import BACKOFF_LIMIT_S, PACE_S, WorkQueue
from virtual_time import virtual_time


class Work:
    """What was worked on, and when; a key may be made to wait, to fail, or to want another turn."""

    def __init__(self) -> None:
        self.turns: list[tuple[str, float]] = []
        self.gates: dict[str, asyncio.Event] = {}
        self.fails: dict[str, int] = {}
        self.again: dict[str, float | None] = {}
        self.failures: list[tuple[str, str]] = []
        self.busy: set[str] = set()

    async def __call__(self, key: str) -> float | None:
        assert key not in self.busy, "two turns of one key at the same time"
        self.busy.add(key)
        try:
            self.turns.append((key, asyncio.get_running_loop().time()))
            if gate := self.gates.get(key):
                await gate.wait()
            if self.fails.get(key, 0) > 0:
                self.fails[key] -= 1
                raise RuntimeError("trouble")
            return self.again.pop(key, None)
        finally:
            self.busy.discard(key)

    def failed(self, key: str, error: Exception) -> None:
        self.failures.append((key, str(error)))

    def times(self, key: str) -> list[float]:
        return [time for found, time in self.turns if found == key]


@asynccontextmanager
async def working(workers: int = 4) -> AsyncIterator[tuple[WorkQueue[str], Work]]:
    work = Work()
    queue = WorkQueue(work, failed=work.failed)
    task = asyncio.create_task(queue.run(workers))
    try:
        yield queue, work
    finally:
        for gate in work.gates.values():
            gate.set()
        queue.end()
        await task


@virtual_time
async def test_a_key_that_is_added_often_has_one_turn() -> None:
    async with working() as (queue, work):
        for _ in range(100):
            queue.add("a")
        await asyncio.sleep(10)
        assert work.turns == [("a", 0.0)]
        assert len(queue) == 0


@virtual_time
async def test_turns_of_a_key_keep_their_distance() -> None:
    async with working() as (queue, work):
        for _ in range(20):
            queue.add("a")
            await asyncio.sleep(PACE_S / 4)
        await asyncio.sleep(10)
        times = work.times("a")
        assert times[0] == 0.0
        assert all(later - earlier >= PACE_S - 1e-9 for earlier, later in itertools.pairwise(times))
        assert 5 <= len(times) <= 7


@virtual_time
async def test_a_wish_during_a_turn_is_a_turn_afterwards() -> None:
    async with working() as (queue, work):
        work.gates["a"] = asyncio.Event()
        queue.add("a")
        await asyncio.sleep(1)
        queue.add("a")
        await asyncio.sleep(1)
        assert len(work.turns) == 1
        work.gates.pop("a").set()
        await asyncio.sleep(1)
        assert len(work.turns) == 2


@virtual_time
async def test_a_slow_key_does_not_hold_the_others_up() -> None:
    async with working(workers=2) as (queue, work):
        work.gates["slow"] = asyncio.Event()
        queue.add("slow")
        for key in "abc":
            queue.add(key)
        await asyncio.sleep(1)
        assert {key for key, _ in work.turns} == {"slow", "a", "b", "c"}
        assert len(queue) == 1


@virtual_time
async def test_the_earliest_of_several_wishes_counts() -> None:
    async with working() as (queue, work):
        queue.add("a", after_s=100)
        queue.add("a", after_s=10)
        queue.add("a", after_s=50)
        await asyncio.sleep(200)
        assert work.times("a") == [10.0]


@virtual_time
async def test_what_a_turn_asks_for_comes() -> None:
    async with working() as (queue, work):
        work.again["a"] = 30.0
        queue.add("a")
        await asyncio.sleep(100)
        assert work.times("a") == [0.0, 30.0]


@virtual_time
async def test_trouble_is_told_and_tried_again_with_growing_distance() -> None:
    async with working() as (queue, work):
        work.fails["a"] = 12
        queue.add("a")
        await asyncio.sleep(3000)
        times = work.times("a")
        assert len(times) == 13
        assert work.failures == [("a", "trouble")] * 12
        gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
        assert 0.8 <= gaps[0] <= 1.2
        assert 1.6 <= gaps[1] <= 2.4
        assert all(0.8 * BACKOFF_LIMIT_S <= gap <= 1.2 * BACKOFF_LIMIT_S for gap in gaps[6:])
        queue.add("a")
        work.fails["a"] = 1
        await asyncio.sleep(5)
        assert len(work.times("a")) == 15, "after a success the distance is small again"


@virtual_time
async def test_news_interrupts_the_waiting_after_trouble() -> None:
    async with working() as (queue, work):
        work.fails["a"] = 6
        queue.add("a")
        await asyncio.sleep(20)
        before = len(work.turns)
        queue.add("a")
        await asyncio.sleep(PACE_S)
        assert len(work.turns) == before + 1


@virtual_time
async def test_a_forgotten_key_has_no_turn() -> None:
    async with working() as (queue, work):
        queue.add("a", after_s=5)
        queue.forget("a")
        await asyncio.sleep(10)
        assert work.turns == []


@virtual_time
async def test_the_end_lets_turns_that_have_begun_finish_and_begins_none() -> None:
    work = Work()
    queue = WorkQueue(work, failed=work.failed)
    task = asyncio.create_task(queue.run(workers=2))
    gate = work.gates["a"] = asyncio.Event()
    queue.add("a")
    await asyncio.sleep(1)
    queue.add("b", after_s=5)
    queue.end()
    await asyncio.sleep(10)
    assert not task.done()
    gate.set()
    await task
    assert [key for key, _ in work.turns] == ["a"]
