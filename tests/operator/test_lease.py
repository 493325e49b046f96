"""The writer's Lease: one holder at a time, by everybody's own clock, whatever the wall clocks say."""

from __future__ import annotations

import asyncio
from copy import deepcopy
from datetime import UTC, datetime
from typing import Any

import pytest

from pulsecache_operator.controller.api import ApiError, Conflict, Kind, NotFound
from pulsecache_operator.lease import Lease


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Leases:
    """One Lease in memory with the API server's optimistic locking."""

    def __init__(self) -> None:
        self.stored: dict[str, Any] | None = None
        self.version = 0
        self.down = False
        self.writes = 0

    def _store(self, document: dict[str, Any]) -> dict[str, Any]:
        self.version += 1
        self.writes += 1
        self.stored = deepcopy(document)
        self.stored["metadata"]["resourceVersion"] = str(self.version)
        return deepcopy(self.stored)

    def _check(self) -> None:
        if self.down:
            raise ApiError(0, "the API server does not answer")

    async def get(self, kind: Kind, name: str, namespace: str | None = None) -> dict[str, Any]:
        self._check()
        if self.stored is None:
            raise NotFound(404, "no such lease")
        return deepcopy(self.stored)

    async def create(self, kind: Kind, document: dict[str, Any]) -> dict[str, Any]:
        self._check()
        if self.stored is not None:
            raise Conflict(409, "exists")
        return self._store(document)

    async def replace(self, kind: Kind, document: dict[str, Any]) -> dict[str, Any]:
        self._check()
        assert self.stored is not None
        if document["metadata"]["resourceVersion"] != self.stored["metadata"]["resourceVersion"]:
            raise Conflict(409, "changed")
        return self._store(document)

    @property
    def spec(self) -> dict[str, Any]:
        assert self.stored is not None
        spec: dict[str, Any] = self.stored["spec"]
        return spec


@pytest.fixture
def leases() -> Leases:
    return Leases()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def candidate(leases: Leases, clock: Clock, identity: str, wall: float = 0.0) -> Lease:
    return Lease(
        leases,  # type: ignore[arg-type]  # the three methods that a lease needs
        namespace="pulsecache",
        name="controller",
        identity=identity,
        clock=clock,
        wall=lambda: datetime.fromtimestamp(1e9 + wall + clock.now, UTC),
    )


async def test_the_first_one_takes_it_and_the_second_waits(leases: Leases, clock: Clock) -> None:
    a, b = candidate(leases, clock, "a"), candidate(leases, clock, "b")
    await a.attempt()
    await b.attempt()
    assert a.held()
    assert not b.held()
    assert leases.spec["holderIdentity"] == "a"
    assert leases.spec["leaseDurationSeconds"] == 15
    assert a.changed.is_set()
    assert not b.changed.is_set()


async def test_a_holder_that_renews_is_never_disturbed(leases: Leases, clock: Clock) -> None:
    a, b = candidate(leases, clock, "a"), candidate(leases, clock, "b")
    for _ in range(50):
        await a.attempt()
        await b.attempt()
        assert (a.held(), b.held()) == (True, False)
        clock.now += 2
    assert leases.spec["leaseTransitions"] == 0


async def test_a_silent_holder_is_followed_after_the_whole_duration(leases: Leases, clock: Clock) -> None:
    a, b = candidate(leases, clock, "a"), candidate(leases, clock, "b")
    await a.attempt()
    await b.attempt()
    clock.now += 14.9
    await b.attempt()
    assert not b.held()
    clock.now += 0.1
    await b.attempt()
    assert b.held()
    assert leases.spec["leaseTransitions"] == 1


async def test_a_late_observer_counts_from_its_own_first_sight(leases: Leases, clock: Clock) -> None:
    a = candidate(leases, clock, "a")
    await a.attempt()
    clock.now += 3600
    b = candidate(leases, clock, "b")
    await b.attempt()
    assert not b.held(), "the record may be older than b, but b has not seen it stand still"
    clock.now += 15
    await b.attempt()
    assert b.held()


async def test_wall_clocks_do_not_matter(leases: Leases, clock: Clock) -> None:
    a, b = candidate(leases, clock, "a", wall=-86400), candidate(leases, clock, "b", wall=86400)
    for _ in range(10):
        await a.attempt()
        await b.attempt()
        assert (a.held(), b.held()) == (True, False)
        clock.now += 2


async def test_a_holder_that_cannot_renew_stops_before_anybody_follows(leases: Leases, clock: Clock) -> None:
    a, b = candidate(leases, clock, "a"), candidate(leases, clock, "b")
    await a.attempt()
    await b.attempt()
    leases.down = True
    a.changed.clear()
    clock.now += 9.9
    await a.attempt()
    assert a.held()
    clock.now += 0.1
    assert not a.held(), "held() looks at the clock itself, it does not wait for an attempt"
    await a.attempt()
    assert a.changed.is_set()
    leases.down = False
    await b.attempt()
    assert not b.held(), "5 s lie between the end of the one and the begin of the other"


async def test_a_lapse_in_which_nobody_followed_is_told(leases: Leases, clock: Clock) -> None:
    a = candidate(leases, clock, "a")
    await a.attempt()
    a.changed.clear()
    clock.now += 12
    await a.attempt()
    assert a.held()
    assert a.term == 2
    assert a.changed.is_set(), "what was to be written meanwhile was not"


async def test_renewal_counts_from_the_asking(leases: Leases, clock: Clock) -> None:
    a = candidate(leases, clock, "a")
    get = leases.get

    async def slow(*arguments: Any, **named: Any) -> dict[str, Any]:
        clock.now += 4
        return await get(*arguments, **named)

    await a.attempt()
    leases.get = slow  # type: ignore[method-assign]
    await a.attempt()
    clock.now += 5.9
    assert a.held()
    clock.now += 0.1
    assert not a.held()


async def test_of_two_at_the_same_instant_one_gets_it(leases: Leases, clock: Clock) -> None:
    candidates = [candidate(leases, clock, name) for name in "abcde"]
    await asyncio.gather(*(c.attempt() for c in candidates))
    assert sum(c.held() for c in candidates) == 1
    clock.now += 60
    await asyncio.gather(*(c.attempt() for c in candidates))
    clock.now += 15.1
    await asyncio.gather(*(c.attempt() for c in candidates))
    assert sum(c.held() for c in candidates) == 1


async def test_a_lease_given_back_is_free_at_once(leases: Leases, clock: Clock) -> None:
    a, b = candidate(leases, clock, "a"), candidate(leases, clock, "b")
    await a.attempt()
    await b.attempt()
    await a.release()
    assert not a.held()
    await b.attempt()
    assert b.held()


async def test_giving_back_never_takes_it_from_somebody_else(leases: Leases, clock: Clock) -> None:
    a, b = candidate(leases, clock, "a"), candidate(leases, clock, "b")
    await a.attempt()
    await b.attempt()
    clock.now += 15
    await b.attempt()
    await a.release()
    assert leases.spec["holderIdentity"] == "b"


async def test_a_deleted_lease_is_made_anew(leases: Leases, clock: Clock) -> None:
    a = candidate(leases, clock, "a")
    await a.attempt()
    leases.stored = None
    await a.attempt()
    assert a.held()
    assert leases.spec["holderIdentity"] == "a"


async def test_cancelling_gives_the_lease_back(leases: Leases, clock: Clock) -> None:
    a = candidate(leases, clock, "a")
    task = asyncio.create_task(a.run())
    await a.changed.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert leases.spec["holderIdentity"] == ""
