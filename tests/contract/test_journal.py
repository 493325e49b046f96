"""What every journal promises, on disk and in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import writes
from pulsecache_sidecar.adapters import journal_record
from pulsecache_sidecar.adapters.memory_journal import MemoryJournal
from pulsecache_sidecar.adapters.sqlite_journal import SqliteJournal
from pulsecache_sidecar.core.http.message import RequestHead
from pulsecache_sidecar.errors import JournalFull
from pulsecache_sidecar.ports import DeadLetter, Journal, PendingWrite

Open = Callable[[int], Awaitable[Journal]]


@pytest.fixture(params=["memory", "sqlite"])
async def open_journal(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Open]:
    opened: list[Journal] = []

    async def make(max_entries: int) -> Journal:
        journal: Journal = (
            MemoryJournal(max_entries=max_entries)
            if request.param == "memory"
            else await SqliteJournal.open(tmp_path, max_entries=max_entries)
        )
        opened.append(journal)
        return journal

    yield make
    for journal in opened:
        await journal.aclose()


@pytest.fixture
async def journal(open_journal: Open) -> Journal:
    return await open_journal(1000)


async def test_an_appended_write_has_an_id_and_is_loaded_as_it_was(journal: Journal) -> None:
    written = await journal.append(writes.pending(b"\x00\xff body", shows="key", tags=("a", "/b")))
    assert written.id > 0
    assert list(await journal.load()) == [written]


async def test_ids_grow_in_the_order_of_appending_also_for_many_at_once(journal: Journal) -> None:
    written = await asyncio.gather(*(journal.append(writes.pending(b"%d" % n)) for n in range(300)))
    ids = [write.id for write in written]
    assert ids == sorted(set(ids))
    assert [write.body for write in await journal.load()] == [b"%d" % n for n in range(300)]


async def test_what_is_done_is_gone_and_its_id_never_comes_back(journal: Journal) -> None:
    first = await journal.append(writes.pending())
    await journal.done(first.id)
    assert list(await journal.load()) == []
    assert (await journal.append(writes.pending())).id > first.id


async def test_done_can_be_said_twice_and_of_what_never_was(journal: Journal) -> None:
    written = await journal.append(writes.pending())
    for write_id in (written.id, written.id, 12345):
        await journal.done(write_id)
    assert list(await journal.load()) == []


async def test_attempts_are_remembered(journal: Journal) -> None:
    written = await journal.append(writes.pending())
    await journal.attempted(written.id, 3)
    assert [write.attempts for write in await journal.load()] == [3]


async def test_pages_follow_one_another_without_gap(journal: Journal) -> None:
    written = [await journal.append(writes.pending(b"%d" % n)) for n in range(7)]
    pages, after = [], 0
    while page := await journal.load(after, 3):
        pages.append([write.id for write in page])
        after = page[-1].id
    ids = [write.id for write in written]
    assert pages == [ids[:3], ids[3:6], ids[6:]]


async def test_a_page_of_large_bodies_is_shorter_than_its_limit_and_never_empty(journal: Journal) -> None:
    for _ in range(3):
        await journal.append(writes.pending(b"x" * 3_000_000))
    assert len(await journal.load(0, 100)) == 2
    assert len(await journal.load(2, 100)) == 1


def letter(write: PendingWrite) -> DeadLetter:
    return DeadLetter(write, 422, "Unprocessable: \x00 \u20ac \udcff", 1_700_000_009.5)


async def test_a_dead_letter_is_no_longer_pending_and_keeps_everything(journal: Journal) -> None:
    written = await journal.append(writes.pending(b"refused"))
    await journal.bury(letter(written))
    assert list(await journal.load()) == []
    (found,) = await journal.dead_letters()
    assert (found.write, found.status, found.died_wall) == (written, 422, 1_700_000_009.5)
    assert found.detail.startswith("Unprocessable: ")


async def test_a_dead_letter_that_is_retried_is_pending_again_at_its_old_place(journal: Journal) -> None:
    first, second = [await journal.append(writes.pending(body)) for body in (b"1", b"2")]
    await journal.bury(letter(first))
    assert await journal.retry(first.id)
    assert [write.id for write in await journal.load()] == [first.id, second.id]
    assert list(await journal.dead_letters()) == []


async def test_a_dead_letter_that_is_dropped_is_gone(journal: Journal) -> None:
    written = await journal.append(writes.pending())
    await journal.bury(letter(written))
    assert await journal.drop(written.id)
    assert list(await journal.load()) == list(await journal.dead_letters()) == []


@pytest.mark.parametrize("write_id", [0, -1, 7, 2**63, 10**40])
async def test_only_dead_letters_are_retried_and_dropped(journal: Journal, write_id: int) -> None:
    written = await journal.append(writes.pending())
    for candidate in (write_id, written.id):
        assert not await journal.retry(candidate)
        assert not await journal.drop(candidate)
    assert list(await journal.load()) == [written]


async def test_a_full_journal_takes_no_more_until_something_leaves_it(open_journal: Open) -> None:
    journal = await open_journal(3)
    written = [await journal.append(writes.pending()) for _ in range(3)]
    with pytest.raises(JournalFull):
        await journal.append(writes.pending())
    await journal.bury(letter(written[0]))
    with pytest.raises(JournalFull):  # dead letters take room: an origin that refuses everything must be noticed
        await journal.append(writes.pending())
    await journal.drop(written[0].id)
    await journal.append(writes.pending())


async def test_of_many_at_once_exactly_those_that_fit_are_taken(open_journal: Open) -> None:
    journal = await open_journal(10)
    results = await asyncio.gather(*(journal.append(writes.pending()) for _ in range(50)), return_exceptions=True)
    assert sum(isinstance(result, JournalFull) for result in results) == 40
    assert len(await journal.load()) == 10


async def test_a_journal_that_works_has_no_failure(journal: Journal) -> None:
    assert journal.failure is None


ANY_TEXT = st.text(st.characters(), max_size=20)
ANY_BYTES = st.binary(max_size=40)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    write=st.builds(
        PendingWrite,
        id=st.just(0),
        policy=ANY_TEXT,
        rule=ANY_TEXT,
        order_key=ANY_TEXT,
        idempotency_key=ANY_TEXT,
        request=st.builds(
            RequestHead,
            method=ANY_TEXT,
            target=ANY_BYTES,
            fields=st.lists(st.tuples(ANY_BYTES, ANY_BYTES), max_size=4).map(tuple),
            version=st.tuples(st.integers(0, 9), st.integers(0, 9)),
            peer=ANY_TEXT,
        ),
        body=st.binary(max_size=3000),
        tags=st.lists(ANY_TEXT, max_size=3).map(tuple),
        accepted_wall=st.floats(0, 1e11),
        shows=st.none() | ANY_TEXT,
    )
)
def test_any_request_comes_back_as_it_was(write: PendingWrite) -> None:
    record, checksum = journal_record.encode(write)
    assert record.isascii()
    assert journal_record.decode(0, record, write.body, checksum, 0) == write


@settings(max_examples=100, deadline=None)
@given(position=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_flipped_bit_in_a_record_is_noticed(position: int, bit: int) -> None:
    write = writes.pending(b"some body", shows="key")
    record, checksum = journal_record.encode(write)
    stored = bytearray(record.encode() + write.body)
    stored[position % len(stored)] ^= 1 << bit
    text, body = bytes(stored[: len(record)]).decode("latin-1"), bytes(stored[len(record) :])
    with pytest.raises(journal_record.DamagedRecord):
        journal_record.decode(0, text, body, checksum, 0)
