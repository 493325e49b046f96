"""Accepting writes, what readers see of them, counts, dead letters, draining and starting anew."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from pulsecache_sidecar.adapters.memory_journal import MemoryJournal
from pulsecache_sidecar.core.http.message import first, values
from pulsecache_sidecar.engine.write_behind import PolicyCounts, WriteBehind
from pulsecache_sidecar.errors import JournalError, JournalFull, OriginUnreachable
from pulsecache_sidecar.ports import Journal, PendingWrite
from virtual_time import VirtualClock, virtual_time
from write_behind_world import POLICY, ScriptedOrigin, World, put, rule, until_empty


class SlowJournal(MemoryJournal):
    """A commit takes until `committed` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.committed = asyncio.Event()
        self.appending = asyncio.Event()

    async def append(self, write: PendingWrite) -> PendingWrite:
        self.appending.set()
        await self.committed.wait()
        return await super().append(write)


async def started(world: World, journal: Journal | None = None, held_max_bytes: int = 1 << 25) -> WriteBehind:
    write_behind = WriteBehind(
        journal or MemoryJournal(), world.targets, VirtualClock(), chance=lambda: 0.5, held_max_bytes=held_max_bytes
    )
    await write_behind.start()
    return write_behind


def down() -> ScriptedOrigin:
    return ScriptedOrigin(lambda arrival: OriginUnreachable("refused", request_sent=False))


@virtual_time
async def test_an_accepted_write_reaches_the_origin() -> None:
    world = World()
    write_behind = await started(world)
    written = await put(write_behind, b"v1")
    await until_empty(write_behind)
    (arrival,) = world.origin.arrivals
    assert (arrival.target, arrival.body, arrival.key) == ("/products/1", b"v1", written.idempotency_key)
    await write_behind.stop()


@virtual_time
async def test_nothing_is_accepted_before_the_journal_has_it() -> None:
    world, journal = World(), SlowJournal()
    write_behind = await started(world, journal)
    accepting = asyncio.create_task(put(write_behind, b"v1", shows="key"))
    await journal.appending.wait()
    assert not accepting.done()
    assert write_behind.pending("key") is None
    assert world.origin.arrivals == []
    journal.committed.set()
    await accepting
    await until_empty(write_behind)
    await write_behind.stop()


@virtual_time
async def test_a_key_of_our_own_is_a_quoted_uuid_and_each_write_has_another() -> None:
    world = World(origin=down())
    write_behind = await started(world)
    first_write, second = await put(write_behind, b"1"), await put(write_behind, b"2")
    for write in (first_write, second):
        field = first(write.request.fields, b"idempotency-key")
        assert field is not None
        assert field.startswith(b'"')
        assert str(uuid.UUID(field.decode().strip('"'))) == write.idempotency_key.strip('"')
    assert first_write.idempotency_key != second.idempotency_key
    await write_behind.stop()


@virtual_time
async def test_the_clients_own_idempotency_key_is_kept_as_it_is() -> None:
    world = World()
    write_behind = await started(world)
    fields = ((b"host", b"shop"), (b"idempotency-key", b"my own \xff"))
    written = await put(write_behind, b"v1", fields=fields)
    await until_empty(write_behind)
    assert written.idempotency_key == "my own \xff"
    assert list(values(world.origin.arrivals[0].fields, b"idempotency-key")) == [b"my own \xff"]
    await write_behind.stop()


@virtual_time
async def test_an_empty_idempotency_key_is_replaced() -> None:
    write_behind = await started(World())
    written = await put(write_behind, b"v1", fields=((b"idempotency-key", b""),))
    assert list(values(written.request.fields, b"idempotency-key")) == [written.idempotency_key.encode()]
    await write_behind.stop()


@virtual_time
async def test_a_request_is_framed_by_its_whole_body() -> None:
    write_behind = await started(World())
    chunked = ((b"host", b"shop"), (b"transfer-encoding", b"chunked"), (b"expect", b"100-continue"))
    written = await put(write_behind, b"12345", fields=chunked)
    assert first(written.request.fields, b"content-length") == b"5"
    assert first(written.request.fields, b"transfer-encoding") is None
    assert first(written.request.fields, b"expect") is None
    bare = await put(write_behind, b"")
    assert first(bare.request.fields, b"content-length") is None
    empty = await put(write_behind, b"", fields=((b"content-length", b"0"),))
    assert first(empty.request.fields, b"content-length") == b"0"
    await write_behind.stop()


# --- what readers see -------------------------------------------------------------------------------------------------


@virtual_time
async def test_readers_see_the_newest_pending_write_until_it_is_at_the_origin() -> None:
    world = World()
    world.origin.hold = asyncio.Event()
    write_behind = await started(world)
    await put(write_behind, b"v1", shows="key")
    await put(write_behind, b"v2", shows="key")
    seen = write_behind.pending("key")
    assert seen is not None
    assert seen.body == b"v2"
    assert write_behind.pending("other") is None
    assert write_behind.has_pending("/products/1")
    world.origin.hold.set()
    await until_empty(write_behind)
    assert write_behind.pending("key") is None
    assert not write_behind.has_pending("/products/1")
    await write_behind.stop()


@virtual_time
async def test_a_pending_value_is_shown_until_the_change_is_announced() -> None:
    """Otherwise a reader would for a moment see the old cached value again."""
    seen: list[bool] = []
    world = World()
    write_behind = await started(world)
    world.coherence.announcing = lambda: seen.append(write_behind.pending("key") is not None)
    await put(write_behind, b"v1", shows="key")
    await until_empty(write_behind)
    assert seen == [True]
    await write_behind.stop()


@virtual_time
async def test_a_refused_write_is_no_longer_shown_and_one_before_it_is_shown_again() -> None:
    world = World()
    world.origin.hold = asyncio.Event()
    world.origin.script = lambda arrival: 422 if arrival.body == b"bad" else OriginUnreachable("x", request_sent=False)
    write_behind = await started(world)
    await put(write_behind, b"good", key="/a", shows="key")
    await put(write_behind, b"bad", key="/b", shows="key")
    world.origin.hold.set()
    await until_empty(write_behind, "/b")
    seen = write_behind.pending("key")
    assert seen is not None
    assert seen.body == b"good"
    await write_behind.stop()


# --- limits -----------------------------------------------------------------------------------------------------------


@virtual_time
async def test_a_rules_own_limit_counts_pending_dying_and_dead() -> None:
    world = World(origin=down())
    write_behind = await started(world)
    limited = rule(max_entries=3)
    results = await asyncio.gather(*(put(write_behind, b"x", by=limited) for _ in range(5)), return_exceptions=True)
    assert [isinstance(result, JournalFull) for result in results] == [False, False, False, True, True]
    await put(write_behind, b"x", by=rule("another"))
    world.origin.script = lambda arrival: 400
    await until_empty(write_behind)
    with pytest.raises(JournalFull, match="3 pending writes and dead letters"):
        await put(write_behind, b"x", by=limited)
    assert await write_behind.drop(1)
    await put(write_behind, b"x", by=limited)
    await write_behind.stop()


@virtual_time
async def test_shown_writes_are_limited_by_memory_and_others_stay_on_disk() -> None:
    world = World(origin=down())
    write_behind = await started(world, held_max_bytes=20_000)
    for number in range(50):
        await put(write_behind, b"x" * 1000, key=f"/counter/{number}")
    results = [
        await asyncio.wait([asyncio.ensure_future(put(write_behind, b"y" * 1000, key=f"/p/{n}", shows=f"key {n}"))])
        for n in range(50)
    ]
    refused = [error for done, _ in results for task in done if (error := task.exception()) is not None]
    assert all(isinstance(error, JournalFull) and "memory" in str(error) for error in refused)
    shown = 50 - len(refused)
    assert 5 < shown < 20
    assert all(write_behind.pending(f"key {number}") is not None for number in range(shown))
    world.origin.script = lambda arrival: 200
    world.origin.arrivals.clear()
    assert await write_behind.drain(60.0) == 0
    assert {body[:1] for body in world.origin.bodies()} == {b"x", b"y"}
    assert len(world.origin.arrivals) == 50 + shown
    await write_behind.stop()


@virtual_time
async def test_many_at_once_cannot_get_past_the_limit_of_memory() -> None:
    journal = SlowJournal()
    write_behind = await started(World(origin=down()), journal, held_max_bytes=20_000)
    accepting = [asyncio.create_task(put(write_behind, b"y" * 1000, shows=f"{n}")) for n in range(50)]
    await asyncio.sleep(0)
    journal.committed.set()
    results = await asyncio.gather(*accepting, return_exceptions=True)
    assert sum(isinstance(result, JournalFull) for result in results) > 30
    await write_behind.stop()


@virtual_time
async def test_a_journal_that_cannot_append_leaves_nothing_behind() -> None:
    class Broken(MemoryJournal):
        async def append(self, write: PendingWrite) -> PendingWrite:
            raise JournalError("the disk is gone")

    world = World()
    write_behind = await started(world, Broken())
    with pytest.raises(JournalError, match="the disk is gone"):
        await put(write_behind, b"v1", shows="key")
    assert write_behind.pending("key") is None
    assert not write_behind.has_pending("/products/1")
    assert await write_behind.drain(1.0) == 0
    assert world.origin.arrivals == []
    await write_behind.stop()


# --- a client that goes away ------------------------------------------------------------------------------------------


@virtual_time
async def test_a_client_that_goes_away_during_the_commit_leaves_a_whole_write() -> None:
    world, journal = World(), SlowJournal()
    write_behind = await started(world, journal)
    accepting = asyncio.create_task(put(write_behind, b"v1", shows="key"))
    await journal.appending.wait()
    accepting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await accepting
    journal.committed.set()
    assert await write_behind.drain(5.0) == 0
    assert world.origin.bodies() == [b"v1"]
    assert write_behind.counts()[POLICY] == PolicyCounts()
    await write_behind.stop()


@virtual_time
async def test_a_client_that_goes_away_and_a_commit_that_fails_leave_nothing() -> None:
    class Failing(SlowJournal):
        async def append(self, write: PendingWrite) -> PendingWrite:
            self.appending.set()
            await self.committed.wait()
            raise JournalFull("no room")

    journal = Failing()
    write_behind = await started(World(), journal)
    accepting = asyncio.create_task(put(write_behind, b"v1", by=rule(max_entries=1)))
    await journal.appending.wait()
    accepting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await accepting
    journal.committed.set()
    assert await write_behind.drain(5.0) == 0
    await write_behind.stop()


@pytest.mark.parametrize("steps", range(12))
def test_cancelled_at_any_step_a_write_is_accepted_wholly_or_not_at_all(steps: int) -> None:
    @virtual_time
    async def scenario() -> None:
        world, journal = World(origin=down()), MemoryJournal()
        write_behind = await started(world, journal)
        accepting = asyncio.create_task(put(write_behind, b"v1", shows="key"))
        for _ in range(steps):
            await asyncio.sleep(0)
        accepting.cancel()
        await asyncio.wait([accepting])
        await asyncio.sleep(1)
        in_journal = len(await journal.load())
        assert write_behind.counts().get(POLICY, PolicyCounts()).pending == in_journal
        assert (write_behind.pending("key") is not None) == write_behind.has_pending("/products/1") == bool(in_journal)
        if not accepting.cancelled():
            assert in_journal == 1
        await write_behind.stop()

    scenario()


# --- counts -----------------------------------------------------------------------------------------------------------


@virtual_time
async def test_counts_say_how_many_how_old_and_why_they_wait() -> None:
    world = World(origin=down())
    write_behind = await started(world)
    await put(write_behind, b"1", key="/a")
    await asyncio.sleep(7.0)
    await put(write_behind, b"2", key="/b")
    await put(write_behind, b"3", key="/c", policy="shop/other")
    await asyncio.sleep(3.0)
    counts = write_behind.counts()
    assert counts[POLICY].pending == 2
    assert counts[POLICY].oldest_age_s == pytest.approx(10.0)
    assert counts[POLICY].waits_for == "unreachable"
    assert counts["shop/other"].oldest_age_s == pytest.approx(3.0)
    world.origin.script = lambda arrival: 409 if arrival.body == b"2" else 200
    await until_empty(write_behind, "/a", "/b", "/c")
    assert write_behind.counts() == {POLICY: PolicyCounts(dead_letters=1), "shop/other": PolicyCounts()}
    await write_behind.stop()


@virtual_time
async def test_the_oldest_age_follows_when_writes_leave_out_of_order() -> None:
    world = World(origin=ScriptedOrigin(lambda arrival: 500 if arrival.body == b"slow" else 200))
    write_behind = await started(world)
    await put(write_behind, b"quick", key="/a")
    await put(write_behind, b"slow", key="/b")
    await asyncio.sleep(4.0)
    await put(write_behind, b"quick", key="/c")
    await until_empty(write_behind, "/a", "/c")
    assert write_behind.counts()[POLICY].oldest_age_s == pytest.approx(4.0, abs=0.1)
    world.origin.script = lambda arrival: 200
    await until_empty(write_behind, "/b")
    assert write_behind.counts()[POLICY].oldest_age_s == 0.0
    await write_behind.stop()


# --- dead letters -----------------------------------------------------------------------------------------------------


@virtual_time
async def test_a_refused_write_is_a_dead_letter_and_frees_its_key() -> None:
    world = World(origin=ScriptedOrigin(lambda arrival: 422 if arrival.body == b"bad" else 200))
    write_behind = await started(world)
    await put(write_behind, b"bad")
    await put(write_behind, b"good")
    await until_empty(write_behind)
    assert world.origin.bodies() == [b"bad", b"good"]
    (letter,) = await write_behind.dead_letters()
    assert (letter.write.body, letter.write.attempts, letter.status) == (b"bad", 1, 422)
    assert letter.detail == "HTTP 422"
    await write_behind.stop()


@virtual_time
async def test_a_retried_dead_letter_is_sent_with_its_own_key_before_what_still_waits() -> None:
    world = World(origin=ScriptedOrigin(lambda arrival: 422 if arrival.body == b"1" else 200))
    write_behind = await started(world)
    refused = await put(write_behind, b"1")
    await until_empty(write_behind)
    world.origin.hold = asyncio.Event()
    await put(write_behind, b"2")
    await put(write_behind, b"3")
    await asyncio.sleep(1)
    world.origin.script = lambda arrival: 200
    assert await write_behind.retry(refused.id)
    world.origin.hold.set()
    await until_empty(write_behind)
    assert world.origin.bodies() == [b"1", b"2", b"1", b"3"]
    assert world.origin.arrivals[0].key == world.origin.arrivals[2].key
    assert list(await write_behind.dead_letters()) == []
    assert write_behind.counts()[POLICY] == PolicyCounts()
    await write_behind.stop()


@virtual_time
async def test_a_dropped_dead_letter_is_forgotten_and_only_once() -> None:
    world = World(origin=ScriptedOrigin(lambda arrival: 400))
    write_behind = await started(world)
    refused = await put(write_behind, b"1")
    await until_empty(write_behind)
    assert await write_behind.drop(refused.id)
    assert not await write_behind.drop(refused.id)
    assert not await write_behind.retry(refused.id)
    assert write_behind.counts()[POLICY].dead_letters == 0
    await write_behind.stop()


@virtual_time
async def test_two_people_who_retry_the_same_letter_send_it_once() -> None:
    world = World(origin=ScriptedOrigin(lambda arrival: 400))
    write_behind = await started(world)
    refused = await put(write_behind, b"1")
    await until_empty(write_behind)
    world.origin.script = lambda arrival: 200
    results = await asyncio.gather(write_behind.retry(refused.id), write_behind.retry(refused.id))
    await until_empty(write_behind)
    assert sorted(results) == [False, True]
    assert len(world.origin.arrivals) == 2
    await write_behind.stop()


@virtual_time
async def test_a_pending_write_is_no_dead_letter() -> None:
    write_behind = await started(World(origin=down()))
    written = await put(write_behind, b"1")
    assert not await write_behind.retry(written.id)
    assert not await write_behind.drop(written.id)
    assert [write.id for write in await write_behind.list_pending()] == [written.id]
    await write_behind.stop()


# --- a new process ----------------------------------------------------------------------------------------------------


@virtual_time
async def test_a_new_process_sends_what_the_one_before_left_in_order_and_with_the_same_keys() -> None:
    journal = MemoryJournal()
    before = await started(World(origin=down()), journal)
    left = [await put(before, b"%d" % number, key=f"/{number % 3}", shows=f"key {number % 3}") for number in range(30)]
    await before.stop()

    world = World()
    world.origin.latency_s = 0.01
    after = await started(world, journal)
    seen = after.pending("key 0")
    assert seen is not None
    assert seen.body == b"27"
    late = await put(after, b"late", key="/0")
    assert await after.drain(10.0) == 0
    for number in range(3):
        mine = [write for write in [*left, late] if write.order_key == f"/{number}"]
        got = [arrival for arrival in world.origin.arrivals if arrival.target == f"/{number}"]
        assert [(a.body, a.key) for a in got] == [(w.body, w.idempotency_key) for w in mine]
    await after.stop()


@virtual_time
async def test_a_new_process_knows_the_dead_letters_of_the_one_before() -> None:
    journal = MemoryJournal()
    before = await started(World(origin=ScriptedOrigin(lambda arrival: 400)), journal)
    await put(before, b"1")
    await until_empty(before)
    await before.stop()
    after = await started(World(), journal)
    assert after.counts()[POLICY] == PolicyCounts(dead_letters=1)
    assert await after.retry(1)
    await until_empty(after)
    await after.stop()


@virtual_time
async def test_nothing_is_accepted_before_the_start() -> None:
    world = World()
    write_behind = WriteBehind(MemoryJournal(), world.targets, VirtualClock())
    with pytest.raises(JournalFull, match="not started"):
        await put(write_behind, b"1")


@virtual_time
async def test_stopping_breaks_off_what_is_on_its_way_and_keeps_it() -> None:
    world, journal = World(), MemoryJournal()
    world.origin.hold = asyncio.Event()
    write_behind = await started(world, journal)
    await put(write_behind, b"1")
    await asyncio.sleep(1)
    await write_behind.stop()
    assert world.coherence.events() == ["unknown"]
    assert len(await journal.load()) == 1
    with pytest.raises(JournalFull, match="stopped"):
        await put(write_behind, b"2")


# --- draining ---------------------------------------------------------------------------------------------------------


@virtual_time
async def test_draining_ends_all_rests_and_accepts_nothing_more() -> None:
    world = World(origin=ScriptedOrigin(lambda arrival: (503, ((b"retry-after", b"250"),))))
    write_behind = await started(world)
    for number in range(20):
        await put(write_behind, b"x", key=f"/{number}")
    await asyncio.sleep(5.0)
    world.origin.script = lambda arrival: 200
    loop = asyncio.get_running_loop()
    asked = loop.time()
    draining = asyncio.create_task(write_behind.drain(25.0))
    await asyncio.sleep(0)
    with pytest.raises(JournalFull, match="shutting down"):
        await put(write_behind, b"late")
    assert await draining == 0
    assert loop.time() - asked < 1.0
    await write_behind.stop()


@virtual_time
async def test_draining_says_how_many_are_left_at_the_deadline() -> None:
    world = World(origin=down())
    write_behind = await started(world)
    for number in range(7):
        await put(write_behind, b"x", key=f"/{number % 2}")
    loop = asyncio.get_running_loop()
    asked = loop.time()
    assert await write_behind.drain(25.0) == 7
    assert loop.time() - asked == pytest.approx(25.0)
    await write_behind.stop()


@virtual_time
async def test_draining_keeps_trying_an_origin_that_comes_back_just_in_time() -> None:
    world = World(origin=down())
    write_behind = await started(world)
    await put(write_behind, b"x")
    await asyncio.sleep(600)
    draining = asyncio.create_task(write_behind.drain(25.0))
    await asyncio.sleep(22.0)
    world.origin.script = lambda arrival: 200
    assert await draining == 0
    await write_behind.stop()


@virtual_time
async def test_draining_waits_for_writes_that_are_being_accepted() -> None:
    world, journal = World(), SlowJournal()
    write_behind = await started(world, journal)
    accepting = asyncio.create_task(put(write_behind, b"v1"))
    await journal.appending.wait()
    draining = asyncio.create_task(write_behind.drain(25.0))
    await asyncio.sleep(1)
    assert not draining.done()
    journal.committed.set()
    assert await draining == 0
    await accepting
    assert world.origin.bodies() == [b"v1"]
    await write_behind.stop()


@virtual_time
async def test_waiting_for_a_key_ends_with_its_last_write_and_can_be_given_up() -> None:
    world = World()
    world.origin.hold = asyncio.Event()
    write_behind = await started(world)
    await write_behind.settled("/products/1")
    await put(write_behind, b"1")
    await put(write_behind, b"2")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(5):
            await write_behind.settled("/products/1")
    waiting = asyncio.create_task(write_behind.settled("/products/1"))
    await asyncio.sleep(0)
    world.origin.hold.set()
    await waiting
    assert world.origin.bodies() == [b"1", b"2"]
    await write_behind.stop()
