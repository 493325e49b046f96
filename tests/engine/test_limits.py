"""Slots at the origin: first come, first served, never leaked, never handed out twice."""

from __future__ import annotations

import asyncio
import random

import pytest

from pulsecache_sidecar.engine.limits import Overloaded, Slots
from virtual_time import virtual_time


@virtual_time
async def test_those_who_wait_come_in_order() -> None:
    slots, order = Slots(1), []

    async def one(number: int) -> None:
        await slots.acquire(10)
        order.append(number)
        await asyncio.sleep(0.1)
        slots.release()

    await asyncio.gather(*(one(number) for number in range(5)))
    assert order == list(range(5))
    assert (slots.taken, slots.waiting) == (0, 0)


@virtual_time
async def test_nobody_waits_for_ever() -> None:
    slots = Slots(1)
    await slots.acquire(1)
    with pytest.raises(Overloaded):
        await slots.acquire(1)
    slots.release()
    await slots.acquire(1)


@virtual_time
async def test_a_higher_limit_counts_from_the_next_release() -> None:
    slots = Slots(1)
    await slots.acquire(1)
    waiting = [asyncio.create_task(slots.acquire(10)) for _ in range(2)]
    await asyncio.sleep(0)
    slots.limit = 3
    slots.release()
    await asyncio.gather(*waiting)
    assert slots.taken == 2


@virtual_time
async def test_cancelled_at_any_moment_nothing_is_lost() -> None:
    chance = random.Random(7)
    slots, most, at_once = Slots(3), 0, 0

    async def one() -> None:
        nonlocal most, at_once
        await slots.acquire(1 + chance.random())
        at_once += 1
        most = max(most, at_once)
        try:
            await asyncio.sleep(chance.random())
        finally:
            at_once -= 1
            slots.release()

    tasks = [asyncio.create_task(one()) for _ in range(300)]
    for _ in range(200):
        await asyncio.sleep(chance.random() / 20)
        chance.choice(tasks).cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (slots.taken, slots.waiting) == (0, 0)
    assert most <= 3
