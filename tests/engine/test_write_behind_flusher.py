"""Sending: order, concurrency, what is tried again and when, who is spared, and what readers are told."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pulsecache_sidecar.adapters.memory_journal import MemoryJournal
from pulsecache_sidecar.core.backoff import Backoff
from pulsecache_sidecar.core.http.message import ResponseHead
from pulsecache_sidecar.engine.flusher import FlushOptions
from pulsecache_sidecar.engine.write_behind import WriteBehind
from pulsecache_sidecar.errors import JournalError, OriginBadResponse, OriginError, OriginTimeout, OriginUnreachable
from pulsecache_sidecar.ports import Body, DeadLetter, Journal, PendingWrite
from virtual_time import VirtualClock, virtual_time
from write_behind_world import (
    POLICY,
    Answer,
    Arrival,
    RecordedCoherence,
    Response,
    ScriptedOrigin,
    World,
    a_policy,
    put,
    until_empty,
)

OPTIONS = FlushOptions(lane=Backoff(base_s=1.0, cap_s=64.0), gate=Backoff(base_s=1.0, cap_s=8.0))
UNREACHABLE = OriginUnreachable("refused", request_sent=False)


async def started(world: World, journal: Journal | None = None, chance: float = 1.0) -> WriteBehind:
    """With a chance of 1 each wait is the longest possible."""
    write_behind = WriteBehind(
        journal or MemoryJournal(), world.targets, VirtualClock(), chance=lambda: chance, options=OPTIONS
    )
    await write_behind.start()
    return write_behind


def times(world: World) -> list[float]:
    return [round(arrival.at, 3) for arrival in world.origin.arrivals]


def failing(count: int, answer: Answer) -> ScriptedOrigin:
    """Fails the first attempts."""
    seen = iter(range(count))
    return ScriptedOrigin(lambda arrival: 200 if next(seen, None) is None else answer)


# --- order and concurrency ----------------


@virtual_time
async def test_writes_of_one_key_are_sent_one_after_the_other() -> None:
    world = World(origin=ScriptedOrigin(latency_s=0.1))
    write_behind = await started(world)
    for number in range(10):
        await put(write_behind, b"%d" % number)
    await until_empty(write_behind)
    assert world.origin.bodies() == [b"%d" % number for number in range(10)]
    assert world.origin.most_in_flight == 1
    await write_behind.stop()


@virtual_time
async def test_writes_of_different_keys_go_at_the_same_time_but_not_all_at_once() -> None:
    world = World(origin=ScriptedOrigin(latency_s=0.1))
    write_behind = await started(world)
    for number in range(100):
        await put(write_behind, b"x", key=f"/{number}")
    assert await write_behind.drain(60.0) == 0
    assert world.origin.most_in_flight == 16
    assert world.origin.arrivals[-1].at == pytest.approx(0.6)
    await write_behind.stop()


@virtual_time
async def test_a_key_with_a_long_queue_does_not_keep_the_others_from_their_turn() -> None:
    world = World(origin=ScriptedOrigin(latency_s=0.1))
    write_behind = await started(world)
    for number in range(200):
        await put(write_behind, b"x", key=f"/{number % 20}")
    for number in range(20, 40):
        await put(write_behind, b"x", key=f"/{number}")
    assert await write_behind.drain(60.0) == 0
    first_seen = [arrival.target for arrival in world.origin.arrivals[:40]]
    assert set(first_seen) == {f"/{number}" for number in range(40)}
    await write_behind.stop()


@virtual_time
async def test_the_next_of_a_key_waits_until_the_end_of_the_one_before_is_durable() -> None:
    class SlowDone(MemoryJournal):
        async def done(self, write_id: int) -> None:
            await asyncio.sleep(3.0)
            await super().done(write_id)

    world = World()
    write_behind = await started(world, SlowDone())
    await put(write_behind, b"1")
    await put(write_behind, b"2")
    await until_empty(write_behind)
    assert times(world) == [0.0, 3.0]
    await write_behind.stop()


# --- a write that fails by itself ----------------


@pytest.mark.parametrize("answer", [500, 408, 425, OriginBadResponse("reset", request_sent=True)])
def test_it_is_tried_again_with_the_same_key_ever_more_rarely(answer: Answer) -> None:
    @virtual_time
    async def scenario() -> None:
        world = World(origin=failing(9, answer))
        journal = MemoryJournal()
        write_behind = await started(world, journal)
        written = await put(write_behind, b"v1")
        await asyncio.sleep(100)
        assert [write.attempts for write in await journal.load()] == [7]
        await until_empty(write_behind)
        assert times(world) == [0.0, 1.0, 3.0, 7.0, 15.0, 31.0, 63.0, 127.0, 191.0, 255.0]
        assert {(a.key, a.body) for a in world.origin.arrivals} == {(written.idempotency_key, b"v1")}
        await write_behind.stop()

    scenario()


@virtual_time
async def test_it_holds_up_its_own_key_alone() -> None:
    world = World(origin=ScriptedOrigin(lambda arrival: 500 if arrival.target == "/bad" else 200))
    write_behind = await started(world)
    await put(write_behind, b"1", key="/bad")
    await put(write_behind, b"2", key="/bad")
    for number in range(50):
        await put(write_behind, b"x", key=f"/{number}")
    await until_empty(write_behind, *(f"/{number}" for number in range(50)))
    assert asyncio.get_running_loop().time() == 0.0
    assert write_behind.has_pending("/bad")
    assert b"2" not in world.origin.bodies()
    assert write_behind.counts()[POLICY].waits_for is None
    await write_behind.stop()


@virtual_time
async def test_failures_are_forgotten_with_the_next_success() -> None:
    world = World(origin=failing(3, 500))
    write_behind = await started(world)
    await put(write_behind, b"1")
    await until_empty(write_behind)
    world.origin.script = failing(1, 500).script
    world.origin.arrivals.clear()
    await put(write_behind, b"2")
    await until_empty(write_behind)
    assert times(world) == [7.0, 8.0]
    await write_behind.stop()


@virtual_time
async def test_jitter_spreads_the_attempts() -> None:
    world = World(origin=failing(2, 500))
    write_behind = await started(world, chance=0.25)
    await put(write_behind, b"1")
    await until_empty(write_behind)
    assert times(world) == [0.0, 0.25, 0.75]
    await write_behind.stop()


@virtual_time
async def test_a_defect_in_an_adapter_loses_no_write(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    world = World(origin=failing(2, ZeroDivisionError("a defect")))
    write_behind = await started(world)
    await put(write_behind, b"1")
    await until_empty(write_behind)
    assert len(world.origin.arrivals) == 3
    assert world.coherence.events() == ["unknown", "unknown", "took effect"]
    await write_behind.stop()


# --- an origin that is away or overloaded ----------------


@pytest.mark.parametrize(
    "answer",
    [UNREACHABLE, OriginTimeout("no answer", request_sent=True), OriginError("?", request_sent=True), 503, 429],
)
def test_it_sees_probes_and_not_every_key(answer: Answer) -> None:
    @virtual_time
    async def scenario() -> None:
        world = World(origin=ScriptedOrigin(lambda arrival: answer))
        write_behind = await started(world)
        for number in range(1000):
            await put(write_behind, b"x", key=f"/{number}")
        await asyncio.sleep(600)
        assert len(world.origin.arrivals) < 16 + 4 + 600 / 8
        assert write_behind.counts()[POLICY].waits_for is not None
        world.origin.script = lambda arrival: 200
        asked = asyncio.get_running_loop().time()
        await until_empty(write_behind, *(f"/{number}" for number in range(1000)))
        assert asyncio.get_running_loop().time() - asked <= 8.0
        assert write_behind.counts()[POLICY].waits_for is None
        await write_behind.stop()

    scenario()


@virtual_time
async def test_one_key_after_the_other_is_the_probe() -> None:
    """A write that makes the origin time out is not for ever the one that decides whether it is there."""
    world = World(origin=ScriptedOrigin(lambda a: OriginTimeout("", request_sent=True) if a.target == "/bad" else 200))
    write_behind = await started(world)
    await put(write_behind, b"x", key="/bad")
    await put(write_behind, b"x", key="/good")
    await until_empty(write_behind, "/good")
    await asyncio.sleep(100)
    await put(write_behind, b"x", key="/later")
    asked = asyncio.get_running_loop().time()
    await until_empty(write_behind, "/later")
    assert asyncio.get_running_loop().time() - asked <= 16.0
    await write_behind.stop()


@virtual_time
async def test_retry_after_is_kept_to() -> None:
    world = World(origin=failing(1, (429, ((b"retry-after", b"30"),))))
    write_behind = await started(world)
    await put(write_behind, b"x", key="/a")
    await until_empty(write_behind, "/a")
    assert times(world) == [0.0, 31.0]
    await write_behind.stop()


@virtual_time
async def test_retry_after_of_one_key_leaves_the_others_alone() -> None:
    world = World(origin=failing(1, (500, ((b"retry-after", b"Tue, 14 Nov 2023 22:13:40 GMT"),))))
    write_behind = await started(world)
    await put(write_behind, b"x", key="/a")
    await asyncio.sleep(1)
    await put(write_behind, b"x", key="/b")
    await until_empty(write_behind, "/a", "/b")
    assert [(a.target, a.at) for a in world.origin.arrivals] == [("/a", 0.0), ("/b", 1.0), ("/a", 21.0)]
    await write_behind.stop()


@virtual_time
async def test_one_origin_away_does_not_hold_up_another() -> None:
    away, there = World(origin=ScriptedOrigin(lambda arrival: UNREACHABLE)), World()
    write_behind = WriteBehind(
        MemoryJournal(),
        lambda policy: (away if policy == "shop/away" else there).targets(policy),
        VirtualClock(),
        options=OPTIONS,
    )
    await write_behind.start()
    await put(write_behind, b"x", key="/a", policy="shop/away")
    await put(write_behind, b"x", key="/b", policy="shop/there")
    await until_empty(write_behind, "/b")
    counts = write_behind.counts()
    assert (counts["shop/away"].waits_for, counts["shop/there"].waits_for) == ("unreachable", None)
    await write_behind.stop()


@virtual_time
async def test_writes_of_a_policy_without_a_bind_wait_and_say_so() -> None:
    world = World(known=False)
    write_behind = await started(world)
    await put(write_behind, b"x")
    await asyncio.sleep(3600)
    assert world.origin.arrivals == []
    waits_for = write_behind.counts()[POLICY].waits_for
    assert waits_for is not None
    assert "bind" in waits_for
    world.known = True
    await until_empty(write_behind)
    await write_behind.stop()


@pytest.mark.parametrize("trouble", [500, 503])
@virtual_time
async def test_a_retried_dead_letter_of_another_policy_goes_to_its_own_origin(trouble: int) -> None:
    refusing, other = World(origin=ScriptedOrigin(lambda arrival: 400)), World()
    other.origin.script = lambda arrival: trouble
    write_behind = WriteBehind(
        MemoryJournal(),
        lambda policy: (refusing if policy == "shop/a" else other).targets(policy),
        VirtualClock(),
        options=OPTIONS,
    )
    await write_behind.start()
    refused = await put(write_behind, b"a", policy="shop/a")
    await until_empty(write_behind)
    await put(write_behind, b"b", policy="shop/b")
    await asyncio.sleep(0.5)
    refusing.origin.script = lambda arrival: 200
    assert await write_behind.retry(refused.id)
    other.origin.script = lambda arrival: 200
    await until_empty(write_behind)
    assert refusing.origin.bodies() == [b"a", b"a"]
    assert set(other.origin.bodies()) == {b"b"}
    await write_behind.stop()


# --- what readers are told ----------------


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (200, "took effect"),
        (302, "took effect"),
        (202, "unknown"),
        (404, "refused"),
        (308, "refused"),
        (429, "refused"),
        (500, "unknown"),
        (503, "unknown"),
        (408, "unknown"),
        (UNREACHABLE, "refused"),
        (OriginTimeout("lost", request_sent=True), "unknown"),
        (OriginBadResponse("reset", request_sent=True), "unknown"),
    ],
)
def test_each_attempt_is_an_open_write_with_its_own_outcome(answer: Answer, told: str) -> None:
    @virtual_time
    async def scenario() -> None:
        world = World(origin=ScriptedOrigin(lambda arrival: answer))
        write_behind = await started(world)
        await put(write_behind, b"x")
        await asyncio.sleep(0.5)
        assert world.coherence.events() == [told]
        assert world.coherence.opened[0].tags == ("products", "/products/1")
        await write_behind.stop()

    scenario()


@virtual_time
async def test_an_announcement_that_breaks_does_not_send_the_write_again(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    world = World(coherence=RecordedCoherence(fails=True))
    write_behind = await started(world)
    await put(write_behind, b"x")
    await until_empty(write_behind)
    assert len(world.origin.arrivals) == 1
    assert world.coherence.events() == ["unknown"]
    await write_behind.stop()


@virtual_time
async def test_what_the_response_names_has_changed_too() -> None:
    fields = (
        (b"location", b"/products/7%41?x=1"),
        (b"content-location", b"http://shop/other"),
        (b"location", b"http://elsewhere/x"),
        (b"location", b"/a//b"),
    )
    world = World(origin=ScriptedOrigin(lambda a: (201, fields)))
    write_behind = await started(world)
    await put(write_behind, b"x")
    await until_empty(write_behind)
    assert set(world.coherence.opened[0].also) == {"/products/7A", "/other", "*"}
    await write_behind.stop()


@virtual_time
async def test_after_its_policy_was_deleted_an_acknowledged_write_is_sent_all_the_same() -> None:
    world = World(origin=ScriptedOrigin(lambda a: UNREACHABLE))
    write_behind = await started(world)
    await put(write_behind, b"x")
    await asyncio.sleep(1)
    world.policy = None
    opened = len(world.coherence.opened)
    answers: list[Answer] = [500, OriginTimeout("lost", request_sent=True), 404]
    world.origin.script = lambda a: answers.pop(0)
    await until_empty(write_behind)
    assert len(await write_behind.dead_letters()) == 1
    await put(write_behind, b"y")
    world.origin.script = lambda a: 200
    await until_empty(write_behind)
    assert len(world.coherence.opened) == opened
    await write_behind.stop()


@virtual_time
async def test_the_origins_limit_of_requests_at_a_time_holds_for_pending_writes_too() -> None:
    world = World(origin=ScriptedOrigin(latency_s=0.1), policy=a_policy(max_concurrency=3))
    write_behind = await started(world)
    for number in range(30):
        await put(write_behind, b"x", key=f"/{number}")
    assert await write_behind.drain(60.0) == 0
    assert world.origin.most_in_flight == 3
    await write_behind.stop()


@virtual_time
async def test_a_write_that_gets_no_turn_waits_and_opens_nothing() -> None:
    world = World(policy=a_policy(max_concurrency=1))
    world.origin.hold = asyncio.Event()
    write_behind = await started(world)
    await put(write_behind, b"x", key="/a")
    await put(write_behind, b"x", key="/b")
    await asyncio.sleep(6.0)
    assert len(world.coherence.opened) == 1
    assert write_behind.counts()[POLICY].waits_for == "overloaded"
    world.origin.hold.set()
    await until_empty(write_behind, "/a", "/b")
    await write_behind.stop()


# --- responses ----------------


def answer(status: int, *chunks: bytes, kind: bytes = b"application/problem+json") -> Response:
    return Response(ResponseHead(status, ((b"content-type", kind),)), chunks)


@virtual_time
async def test_a_dead_letter_says_what_the_origin_said() -> None:
    world = World(origin=ScriptedOrigin(lambda a: answer(422, b'{"title":\n "no ', b'such product"}')))
    write_behind = await started(world)
    await put(write_behind, b"x")
    await until_empty(write_behind)
    (letter,) = await write_behind.dead_letters()
    assert letter.detail == 'HTTP 422: {"title": "no such product"}'
    assert world.origin.responses[0].read
    assert not world.origin.responses[0].aborted
    await write_behind.stop()


@pytest.mark.parametrize(
    ("response", "detail"),
    [
        (answer(400, b"\x89PNG" * 10, kind=b"image/png"), "HTTP 400"),
        (answer(400, b"\xff\xfe", kind=b"text/plain"), "HTTP 400: \ufffd\ufffd"),
        (answer(400, *[b"long " * 1000] * 100, kind=b"text/html"), "HTTP 400: " + ("long " * 100)[:500]),
        (answer(400), "HTTP 400"),
    ],
)
def test_details_are_short_and_readable(response: Response, detail: str) -> None:
    @virtual_time
    async def scenario() -> None:
        world = World(origin=ScriptedOrigin(lambda a: response))
        write_behind = await started(world)
        await put(write_behind, b"x")
        await until_empty(write_behind)
        (letter,) = await write_behind.dead_letters()
        assert letter.detail == detail
        assert response.read != response.aborted
        await write_behind.stop()

    scenario()


@virtual_time
async def test_a_refusal_after_an_attempt_without_answer_says_that_it_may_have_worked() -> None:
    answers: list[Answer] = [OriginTimeout("lost", request_sent=True), 404]
    world = World(origin=ScriptedOrigin(lambda a: answers.pop(0)))
    write_behind = await started(world)
    await put(write_behind, b"x")
    await until_empty(write_behind)
    (letter,) = await write_behind.dead_letters()
    assert letter.detail == "HTTP 404 (an earlier attempt had no answer and may have taken effect)"
    await write_behind.stop()


@virtual_time
async def test_a_conflict_with_our_own_earlier_attempt_is_waited_out() -> None:
    answers: list[Answer] = [OriginTimeout("lost", request_sent=True), 409, 409, 200]
    world = World(origin=ScriptedOrigin(lambda a: answers.pop(0)))
    write_behind = await started(world)
    await put(write_behind, b"x")
    await until_empty(write_behind)
    assert list(await write_behind.dead_letters()) == []
    await write_behind.stop()


@virtual_time
async def test_a_conflict_that_stays_is_a_dead_letter_in_the_end() -> None:
    answers: list[Answer] = [OriginTimeout("lost", request_sent=True)]
    world = World(origin=ScriptedOrigin(lambda a: answers.pop(0) if answers else 409))
    write_behind = await started(world)
    await put(write_behind, b"x")
    await until_empty(write_behind)
    (letter,) = await write_behind.dead_letters()
    assert letter.status == 409
    assert 60 <= world.origin.arrivals[-1].at <= 130
    await write_behind.stop()


@pytest.mark.parametrize("trouble", ["never ends", "breaks"])
def test_a_body_that_does_not_come_changes_nothing(trouble: str) -> None:
    class Endless(Response):
        async def _chunks(self) -> AsyncIterator[bytes]:
            yield b"half"
            if trouble == "breaks":
                raise OriginBadResponse("short body", request_sent=True)
            await asyncio.get_running_loop().create_future()

        @property
        def body(self) -> Body:
            return self._chunks()

    response = Endless(ResponseHead(200, ()))
    world = World(origin=ScriptedOrigin(lambda a: response))

    @virtual_time
    async def scenario() -> None:
        write_behind = await started(world)
        await put(write_behind, b"x")
        await until_empty(write_behind)
        assert response.aborted
        assert world.coherence.events() == ["took effect"]
        assert len(world.origin.arrivals) == 1
        await write_behind.stop()

    scenario()


# --- trouble with the journal ----------------


class FullForAWhile(MemoryJournal):
    """The first endings of writes find no room."""

    refusals = 3

    async def done(self, write_id: int) -> None:
        if self.refusals:
            self.refusals -= 1
            raise JournalError("there is no room")
        await super().done(write_id)

    async def bury(self, letter: DeadLetter) -> None:
        if self.refusals:
            self.refusals -= 1
            raise JournalError("there is no room")
        await super().bury(letter)


@pytest.mark.parametrize("status", [200, 400])
def test_an_end_that_cannot_be_recorded_yet_holds_the_key_and_is_not_sent_again(status: int) -> None:
    @virtual_time
    async def scenario() -> None:
        world, journal = World(origin=ScriptedOrigin(lambda a: status)), FullForAWhile()
        write_behind = await started(world, journal)
        await put(write_behind, b"1")
        await put(write_behind, b"2")
        await until_empty(write_behind)
        assert world.origin.bodies() == [b"1", b"2"]
        assert times(world) == [0.0, 7.0]
        assert list(await journal.load()) == []
        await write_behind.stop()

    scenario()


@virtual_time
async def test_with_a_broken_journal_what_was_accepted_still_reaches_the_origin() -> None:
    class Breaking(MemoryJournal):
        async def done(self, write_id: int) -> None:
            raise JournalError("the disk is gone")

    world, journal = World(), Breaking()
    world.origin.hold = asyncio.Event()
    write_behind = await started(world, journal)
    for number in range(5):
        await put(write_behind, b"%d" % number)
    journal.failure = "the disk is gone"
    world.origin.hold.set()
    assert await write_behind.drain(1.0) == 0
    assert world.origin.bodies() == [b"%d" % number for number in range(5)]
    await write_behind.stop()


@virtual_time
async def test_a_write_that_cannot_be_read_back_yet_waits_for_the_journal() -> None:
    class Unreadable(MemoryJournal):
        broken = False

        async def load(self, after: int = 0, limit: int | None = None) -> Sequence[PendingWrite]:
            if self.broken:
                raise JournalError("cannot read")
            return await super().load(after, limit)

    world, journal = World(), Unreadable()
    write_behind = WriteBehind(
        journal, world.targets, VirtualClock(), options=OPTIONS, held_max_bytes=0, chance=lambda: 1.0
    )
    await write_behind.start()
    journal.broken = True
    await put(write_behind, b"1")
    await asyncio.sleep(100)
    assert world.origin.arrivals == []
    journal.broken = False
    await until_empty(write_behind)
    assert world.origin.bodies() == [b"1"]
    await write_behind.stop()


# --- any schedule ----------------


ANSWERS: list[Answer] = [
    200,
    201,
    202,
    303,
    400,
    409,
    429,
    500,
    503,
    (503, ((b"retry-after", b"3"),)),
    OriginUnreachable("x", request_sent=False),
    OriginTimeout("x", request_sent=True),
    OriginBadResponse("x", request_sent=True),
]


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32), writes=st.integers(1, 40), keys=st.integers(1, 6), crashes=st.integers(0, 4))
def test_under_any_schedule_every_write_arrives_in_order_with_its_own_key(
    seed: int, writes: int, keys: int, crashes: int
) -> None:
    @virtual_time
    async def scenario() -> None:
        chance = random.Random(seed)
        world, journal = World(), MemoryJournal()

        def script(arrival: Arrival) -> Answer:
            world.origin.latency_s = chance.choice([0.0, 0.01, 3.0])
            return 200 if chance.random() < 0.4 else chance.choice(ANSWERS)

        world.origin.script = script

        def begin() -> WriteBehind:
            return WriteBehind(
                journal,
                world.targets,
                VirtualClock(),
                chance=chance.random,
                options=OPTIONS,
                held_max_bytes=chance.choice([0, 3000, 1 << 20]),
            )

        write_behind = begin()
        await write_behind.start()
        accepted: list[PendingWrite] = []
        crash_after = sorted(chance.choices(range(writes), k=crashes))
        for number in range(writes):
            accepted.append(await put(write_behind, b"%d" % number, key=f"/{chance.randrange(keys)}"))
            await asyncio.sleep(chance.choice([0.0, 0.005, 1.0, 20.0]))
            for _ in range(crash_after.count(number)):
                await write_behind.stop()
                write_behind = begin()
                await write_behind.start()
        await asyncio.sleep(3 * 86400)
        world.origin.script = lambda arrival: 200
        assert await write_behind.drain(60.0) == 0
        check(accepted, world.origin.arrivals, [letter.write.id for letter in await write_behind.dead_letters(0, 1000)])
        assert all(len(write.events) == 1 for write in world.coherence.opened), "exactly one end for each attempt"
        await write_behind.stop()

    scenario()


def check(accepted: Sequence[PendingWrite], arrivals: Sequence[Arrival], dead: Sequence[int]) -> None:
    """Every write arrived; of each key in order; a later one only after the one before was sent for the last time."""
    by_key = {write.idempotency_key: write for write in accepted}
    assert len(by_key) == len(accepted)
    for order_key in {write.order_key for write in accepted}:
        sent = [by_key[arrival.key] for arrival in arrivals if arrival.target == order_key]
        wanted = [write for write in accepted if write.order_key == order_key]
        ids = [write.id for write in sent]
        assert ids == sorted(ids), "a write was sent again after a later one of its key"
        assert set(ids) == {write.id for write in wanted}
    assert all(arrival.body == by_key[arrival.key].body for arrival in arrivals)
    assert set(dead) <= {write.id for write in accepted}
