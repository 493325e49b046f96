"""What every hub does, in memory and in Redis alike."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest

from eventually import eventually
from pulsecache_sidecar.ports import (
    Changed,
    Doubted,
    Entry,
    Flushed,
    ForeignEpoch,
    StoredObject,
    UnknownPublisher,
    Watermark,
)

Hub = Any


def thing(*tags: str, at: int, payload: bytes = b"body") -> StoredObject:
    return StoredObject(payload, tags, valid=at, includes=at)


async def entries(hub: Hub, cursor: str) -> Sequence[Entry]:
    return list(await hub.read(cursor, block_s=0.001))


async def watermarks(hub: Hub, cursor: str) -> list[Watermark]:
    return [entry.event for entry in await entries(hub, cursor) if isinstance(entry.event, Watermark)]


async def ready(hub: Hub, *publishers: str) -> tuple[str, str]:
    """A dataset whose publishers have joined and whose old epoch is settled; its epoch, and a cursor at its end."""
    epoch = (await hub.subscribe(None)).epoch
    await hub.fence("old-epoch", epoch, beats=None, flush=False)
    for publisher in publishers:
        await hub.join(publisher, epoch, await hub.sample(epoch))
    return epoch, (await hub.subscribe(None)).cursor


class TestSubscribing:
    async def test_the_first_starts_an_epoch_that_waits_for_the_publishers_of_the_one_before(self, hub: Hub) -> None:
        first = await hub.subscribe(None)
        members = await hub.publishers()
        assert members.epoch == first.epoch
        assert members.publishers["old-epoch"].coverage == first.position

    async def test_the_next_finds_the_same_epoch_at_a_later_position(self, hub: Hub) -> None:
        first, second = await hub.subscribe(None), await hub.subscribe(None)
        assert second.epoch == first.epoch
        assert second.position > first.position

    async def test_on_another_server_the_counter_leaps_farther_than_a_failover_can_lose(
        self, hub: Hub, another_server: Callable[[Hub], None]
    ) -> None:
        first, second = await hub.subscribe(None), await hub.subscribe(None)
        another_server(hub)
        third, fourth = await hub.subscribe(None), await hub.subscribe(None)
        steps = [b.position - a.position for a, b in pairwise((first, second, third, fourth))]
        assert steps == [1, 2**32, 1]

    async def test_all_open_doubts_are_told(self, hub: Hub) -> None:
        epoch, _ = await ready(hub, "p", "q")
        await hub.doubt("p", epoch, "p/1", ["a", "b"])
        await hub.doubt("q", epoch, "q/7", ["*"])
        assert (await hub.subscribe(None)).doubts == {"p/1": ("a", "b"), "q/7": ("*",)}

    async def test_whoever_was_told_of_an_entry_that_is_still_there_keeps_the_epoch(self, hub: Hub) -> None:
        epoch, _ = await ready(hub)
        _, cursor = await hub.change("p", epoch, ["a"])
        assert (await hub.subscribe(cursor)).epoch == epoch

    async def test_an_entry_beyond_the_end_means_that_the_end_was_lost(self, hub: Hub) -> None:
        epoch, _ = await ready(hub)
        await hub.change("p", epoch, ["a"])
        snapshot = await hub.subscribe(f"{epoch}:9-1")
        assert snapshot.epoch != epoch
        assert "old-epoch" in (await hub.publishers()).publishers

    async def test_another_entry_in_its_place_means_that_the_end_was_lost_and_written_anew(self, hub: Hub) -> None:
        epoch, _ = await ready(hub)
        await hub.change("p", epoch, ["a"])
        await hub.change("p", epoch, ["a"])
        assert (await hub.subscribe(f"{epoch}:1-1")).epoch != epoch

    async def test_an_entry_that_was_merely_trimmed_keeps_the_epoch(self, make_hub: Callable[..., Hub]) -> None:
        hub = make_hub(keep=2)
        epoch, _ = await ready(hub)
        _, cursor = await hub.change("p", epoch, ["a"])
        for _ in range(3):
            await hub.change("p", epoch, ["a"])
        assert (await hub.subscribe(cursor)).epoch == epoch

    async def test_an_entry_of_an_epoch_that_is_over_starts_no_further_epoch(self, hub: Hub) -> None:
        epoch, _ = await ready(hub)
        assert (await hub.subscribe("an-older-epoch:17-4")).epoch == epoch

    async def test_a_hub_that_is_back_in_an_epoch_that_was_seen_to_end_starts_a_new_one(self, hub: Hub) -> None:
        epoch, _ = await ready(hub)
        assert (await hub.subscribe(None, ["another", epoch])).epoch != epoch

    async def test_a_lost_end_makes_every_object_and_publisher_of_before_count_no_more(self, hub: Hub) -> None:
        epoch, _ = await ready(hub, "p")
        await hub.put("k", epoch, thing("a", at=await hub.sample(epoch)), 60)
        after = (await hub.subscribe(f"{epoch}:9-1")).epoch
        assert (await hub.get("k", after))[0] is None
        assert set((await hub.publishers()).publishers) == {"old-epoch"}


class TestTheStream:
    async def test_entries_are_dense_and_each_names_the_one_before(self, hub: Hub) -> None:
        epoch, cursor = await ready(hub, "p")
        await hub.change("p", epoch, ["a"])
        await hub.beat("p", epoch, 0)
        await hub.doubt("p", epoch, "p/1", ["a"])
        await hub.fence("p", epoch, beats=None, flush=True)
        found = await entries(hub, cursor)
        assert [type(entry.event) for entry in found] == [Changed, Watermark, Doubted, Flushed]
        assert [entry.previous for entry in found] == [cursor, *(entry.cursor for entry in found[:-1])]
        assert [entry.sequence for entry in found] == [1, 2, 3, 4]
        assert {entry.epoch for entry in found} == {epoch}

    async def test_stamps_rise_along_it(self, hub: Hub) -> None:
        epoch, cursor = await ready(hub, "p")
        await hub.change("p", epoch, ["a"])
        await hub.beat("p", epoch, 0)
        await hub.doubt("p", epoch, "p/1", ["a"])
        await hub.change("p", epoch, ["a"], resolves="p/1")
        stamps = [entry.event.stamp for entry in await entries(hub, cursor)]
        assert stamps == sorted(set(stamps))

    async def test_a_read_returns_what_follows_a_cursor(self, hub: Hub) -> None:
        epoch, _ = await ready(hub)
        _, first = await hub.change("p", epoch, ["a"])
        stamp, second = await hub.change("p", epoch, ["b", "c"])
        (found,) = await entries(hub, first)
        assert (found.cursor, found.event) == (second, Changed(stamp, ("b", "c"), None))

    async def test_a_read_waits_for_the_next_entry(self, hub: Hub) -> None:
        epoch, cursor = await ready(hub)
        reading = asyncio.create_task(hub.read(cursor, block_s=5.0))
        stamp, _ = await hub.change("p", epoch, ["a"])
        (found,) = await reading
        assert found.event == Changed(stamp, ("a",), None)

    async def test_a_read_ends_empty_when_nothing_comes(self, hub: Hub) -> None:
        _, cursor = await ready(hub)
        assert not await hub.read(cursor, block_s=0.02)

    async def test_tags_are_any_text(self, hub: Hub) -> None:
        epoch, cursor = await ready(hub)
        tags = ("/käse?q=\"1\"&b='2'", "a b\\c", "☃", "\u0000", "s:x")
        await hub.change("p", epoch, tags)
        (found,) = await entries(hub, cursor)
        assert isinstance(found.event, Changed)
        assert found.event.tags == tags


class TestObjects:
    async def test_what_was_put_is_found_with_its_tags_and_age(self, hub: Hub) -> None:
        epoch, _ = await ready(hub)
        at = await hub.sample(epoch)
        assert await hub.put("k", epoch, thing("a", "b", at=at, payload=b"\x00\xff"), 60)
        found, position = await hub.get("k", epoch)
        assert (found.payload, found.tags, found.valid) == (b"\x00\xff", ("a", "b"), at)
        assert found.includes == position, "every change of its tags up to the counter is contained: none hit it"

    async def test_a_look_up_gives_out_no_position(self, hub: Hub) -> None:
        epoch, _ = await ready(hub)
        _, first = await hub.get("k", epoch)
        _, second = await hub.get("k", epoch)
        assert first == second

    async def test_a_miss(self, hub: Hub) -> None:
        epoch, _ = await ready(hub)
        assert (await hub.get("k", epoch))[0] is None

    @pytest.mark.parametrize("tag", ["a", "b", "*"])
    async def test_a_change_of_any_of_its_tags_makes_it_unusable(self, hub: Hub, tag: str) -> None:
        epoch, _ = await ready(hub)
        await hub.put("k", epoch, thing("a", "b", at=await hub.sample(epoch)), 60)
        await hub.change("p", epoch, [tag])
        assert (await hub.get("k", epoch))[0] is None

    async def test_a_change_of_another_tag_does_not(self, hub: Hub) -> None:
        epoch, _ = await ready(hub)
        await hub.put("k", epoch, thing("a", at=await hub.sample(epoch)), 60)
        await hub.change("p", epoch, ["z"])
        assert (await hub.get("k", epoch))[0] is not None

    async def test_a_fill_that_a_change_has_overtaken_is_not_stored(self, hub: Hub) -> None:
        epoch, _ = await ready(hub)
        at = await hub.sample(epoch)
        await hub.change("p", epoch, ["a"])
        assert not await hub.put("k", epoch, thing("a", at=at), 60)
        assert (await hub.get("k", epoch))[0] is None

    async def test_an_older_one_does_not_take_the_place_of_a_younger(self, hub: Hub) -> None:
        epoch, _ = await ready(hub)
        older, younger = await hub.sample(epoch), await hub.sample(epoch)
        await hub.put("k", epoch, thing("a", at=younger, payload=b"young"), 60)
        assert await hub.put("k", epoch, thing("a", at=older, payload=b"old"), 60)
        assert (await hub.get("k", epoch))[0].payload == b"young"

    async def test_a_younger_one_that_is_unusable_makes_room(self, hub: Hub) -> None:
        epoch, _ = await ready(hub)
        await hub.put("k", epoch, thing("a", at=await hub.sample(epoch), payload=b"dead"), 60)
        await hub.change("p", epoch, ["a"])
        assert await hub.put("k", epoch, thing("a", at=await hub.sample(epoch), payload=b"new"), 60)
        assert (await hub.get("k", epoch))[0].payload == b"new"

    async def test_it_ends_with_its_time_to_live(self, hub: Hub) -> None:
        epoch, _ = await ready(hub)
        await hub.put("k", epoch, thing("a", at=await hub.sample(epoch)), 0.001)

        async def gone() -> bool:
            return (await hub.get("k", epoch))[0] is None

        await eventually(gone, "the object is gone")


class TestWriteThrough:
    async def store(self, hub: Hub, epoch: str, sent: int, **more: Any) -> tuple[int, str, bool]:
        done: tuple[int, str, bool] = await hub.change_and_store(
            "p", epoch, ["a"], "k", thing("a", "b", at=sent, payload=b"new"), 60, sent=sent, **more
        )
        return done

    async def test_the_object_contains_its_own_change_and_is_as_old_as_its_sending(self, hub: Hub) -> None:
        epoch, cursor = await ready(hub, "p")
        sent = await hub.sample(epoch)
        stamp, _, done = await self.store(hub, epoch, sent)
        assert done
        found, position = await hub.get("k", epoch)
        assert (found.payload, found.valid, position) == (b"new", sent, stamp)
        assert (await entries(hub, cursor))[0].event == Changed(stamp, ("a",), None)

    @pytest.mark.parametrize("tag", ["a", "b", "*"])
    async def test_writes_that_overlap_store_nothing_and_are_announced(self, hub: Hub, tag: str) -> None:
        epoch, cursor = await ready(hub, "p", "q")
        sent = await hub.sample(epoch)
        await hub.change("q", epoch, [tag])
        stamp, _, done = await self.store(hub, epoch, sent)
        assert not done
        assert (await hub.get("k", epoch))[0] is None
        assert (await entries(hub, cursor))[-1].event.stamp == stamp

    @pytest.mark.parametrize("tag", ["a", "b", "*"])
    async def test_nothing_is_stored_that_another_write_has_put_in_doubt(self, hub: Hub, tag: str) -> None:
        epoch, _ = await ready(hub, "p", "q")
        await hub.doubt("q", epoch, "q/1", [tag])
        _, _, done = await self.store(hub, epoch, await hub.sample(epoch))
        assert not done

    async def test_a_write_that_was_itself_in_doubt_has_stamped_its_tags_and_stores_nothing(self, hub: Hub) -> None:
        epoch, _ = await ready(hub, "p")
        sent = await hub.sample(epoch)
        await hub.doubt("p", epoch, "p/1", ["a"])
        _, _, done = await self.store(hub, epoch, sent, resolves="p/1")
        assert not done
        assert (await hub.subscribe(None)).doubts == {}

    async def test_the_own_doubt_alone_does_not_forbid_storing(self, hub: Hub) -> None:
        epoch, _ = await ready(hub, "p")
        await hub.doubt("p", epoch, "p/1", ["a"])
        _, _, done = await self.store(hub, epoch, await hub.sample(epoch), resolves="p/1")
        assert done


class TestDoubts:
    @pytest.mark.parametrize("tag", ["a", "*"])
    async def test_nothing_of_a_tag_in_doubt_is_stored_or_found(self, hub: Hub, tag: str) -> None:
        epoch, _ = await ready(hub, "p")
        await hub.put("k", epoch, thing("a", at=await hub.sample(epoch)), 60)
        await hub.doubt("p", epoch, "p/1", [tag])
        assert (await hub.get("k", epoch))[0] is None
        assert not await hub.put("k", epoch, thing("a", at=await hub.sample(epoch)), 60)

    async def test_the_change_that_resolves_it_ends_it(self, hub: Hub) -> None:
        epoch, cursor = await ready(hub, "p")
        await hub.doubt("p", epoch, "p/1", ["a"])
        stamp, _ = await hub.change("p", epoch, ["a"], resolves="p/1")
        assert await hub.put("k", epoch, thing("a", at=await hub.sample(epoch)), 60)
        assert (await entries(hub, cursor))[-1].event == Changed(stamp, ("a",), "p/1")

    async def test_several_of_one_tag_must_all_end(self, hub: Hub) -> None:
        epoch, _ = await ready(hub, "p", "q")
        await hub.doubt("p", epoch, "p/1", ["a"])
        await hub.doubt("q", epoch, "q/1", ["a"])
        await hub.change("p", epoch, ["a"], resolves="p/1")
        assert not await hub.put("k", epoch, thing("a", at=await hub.sample(epoch)), 60)
        await hub.change("q", epoch, ["a"], resolves="q/1")
        assert await hub.put("k", epoch, thing("a", at=await hub.sample(epoch)), 60)

    async def test_said_twice_it_is_ended_once(self, hub: Hub) -> None:
        epoch, _ = await ready(hub, "p")
        for _ in range(2):
            await hub.doubt("p", epoch, "p/1", ["a"])
        await hub.change("p", epoch, ["a"], resolves="p/1")
        assert await hub.put("k", epoch, thing("a", at=await hub.sample(epoch)), 60)

    async def test_said_again_with_other_tags_those_count(self, hub: Hub) -> None:
        epoch, _ = await ready(hub, "p")
        await hub.doubt("p", epoch, "p/1", ["a"])
        await hub.doubt("p", epoch, "p/1", ["a", "b"])
        assert (await hub.subscribe(None)).doubts == {"p/1": ("a", "b")}
        await hub.change("p", epoch, ["a", "b"], resolves="p/1")
        assert (await hub.subscribe(None)).doubts == {}

    async def test_only_a_member_may_doubt(self, hub: Hub) -> None:
        epoch, _ = await ready(hub)
        with pytest.raises(UnknownPublisher):
            await hub.doubt("p", epoch, "p/1", ["a"])


class TestHeartbeats:
    async def test_the_watermark_is_the_lowest_coverage(self, hub: Hub) -> None:
        epoch, cursor = await ready(hub, "p", "q")
        low, high = await hub.sample(epoch), await hub.sample(epoch)
        await hub.beat("p", epoch, high)
        await hub.beat("q", epoch, low)
        position = await hub.beat("p", epoch, high)
        found = (await watermarks(hub, cursor))[-1]
        assert (found.position, found.stamp, found.lead) == (low, position, "p")
        assert (found.lost, found.uncovered) == ((), False)

    async def test_coverage_never_goes_back_whatever_arrives_late(self, hub: Hub) -> None:
        epoch, _ = await ready(hub, "p")
        low, high = await hub.sample(epoch), await hub.sample(epoch)
        await hub.beat("p", epoch, high)
        await hub.beat("p", epoch, low)
        await hub.join("p", epoch, low)
        assert (await hub.publishers()).publishers["p"].coverage == high

    async def test_there_is_one_an_interval_however_many_publishers_beat(self, hub: Hub) -> None:
        publishers = [f"p{i}" for i in range(5)]
        epoch, cursor = await ready(hub, *publishers)
        for _ in range(4):
            for publisher in publishers:
                await hub.beat(publisher, epoch, 0)
        assert [found.lead for found in await watermarks(hub, cursor)] == ["p0"] * 4

    async def test_one_that_joins_does_not_lead_while_another_does(self, hub: Hub) -> None:
        epoch, cursor = await ready(hub, "p")
        await hub.beat("p", epoch, 0)
        await hub.join("q", epoch, 0)
        await hub.beat("q", epoch, 0)
        assert len(await watermarks(hub, cursor)) == 1

    async def test_when_the_lead_is_silent_the_first_who_beats_twice_without_a_heartbeat_leads(self, hub: Hub) -> None:
        epoch, cursor = await ready(hub, "p", "q", "r")
        for publisher in ("p", "q", "r", "q", "r", "q", "r"):
            await hub.beat(publisher, epoch, 0)
        assert [found.lead for found in await watermarks(hub, cursor)] == ["p", "q", "q"]

    async def test_a_publisher_that_misses_as_many_heartbeats_as_the_threshold_is_lost(
        self, make_hub: Callable[..., Hub]
    ) -> None:
        hub = make_hub(failure_threshold=2)
        epoch, cursor = await ready(hub, "p", "q")
        await hub.beat("p", epoch, 0)
        await hub.beat("q", epoch, 0)
        for _ in range(3):
            await hub.beat("p", epoch, 0)
        assert [found.lost for found in await watermarks(hub, cursor)] == [(), (), (), ("q",)]
        await hub.beat("q", epoch, 0)
        await hub.beat("p", epoch, 0)
        assert (await watermarks(hub, cursor))[-1].lost == ()

    async def test_the_old_epoch_counts_as_lost_and_holds_the_watermark(self, hub: Hub) -> None:
        first = await hub.subscribe(None)
        await hub.join("p", first.epoch, await hub.sample(first.epoch))
        await hub.beat("p", first.epoch, await hub.sample(first.epoch))
        (found,) = await watermarks(hub, first.cursor)
        assert (found.position, found.lost) == (first.position, ("old-epoch",))

    async def test_a_beat_of_somebody_unknown_is_refused(self, hub: Hub) -> None:
        epoch, _ = await ready(hub)
        with pytest.raises(UnknownPublisher):
            await hub.beat("p", epoch, 0)


class TestEnding:
    async def test_who_leaves_holds_nothing_back_any_more(self, hub: Hub) -> None:
        epoch, cursor = await ready(hub, "p", "q")
        high = await hub.sample(epoch)
        await hub.leave("q", epoch)
        await hub.beat("p", epoch, high)
        assert (await watermarks(hub, cursor))[-1].position == high
        assert set((await hub.publishers()).publishers) == {"p"}

    async def test_when_the_lead_leaves_the_next_beat_leads(self, hub: Hub) -> None:
        epoch, cursor = await ready(hub, "p", "q")
        await hub.beat("p", epoch, 0)
        await hub.leave("p", epoch)
        await hub.beat("q", epoch, 0)
        assert [found.lead for found in await watermarks(hub, cursor)] == ["p", "q"]

    async def test_nobody_leaves_with_an_open_doubt(self, hub: Hub) -> None:
        epoch, _ = await ready(hub, "p")
        await hub.doubt("p", epoch, "p/1", ["a"])
        await hub.leave("p", epoch)
        assert "p" in (await hub.publishers()).publishers

    async def test_a_fenced_publisher_may_have_left_a_change_unannounced_so_everything_is_flushed(
        self, hub: Hub
    ) -> None:
        epoch, cursor = await ready(hub, "p")
        await hub.doubt("p", epoch, "p/1", ["z"])
        await hub.put("k", epoch, thing("a", at=await hub.sample(epoch)), 60)
        assert await hub.fence("p", epoch, beats=None, flush=True)
        assert (await hub.get("k", epoch))[0] is None
        event = (await entries(hub, cursor))[-1].event
        assert isinstance(event, Flushed)
        assert event.ended_doubts == ("p/1",)
        assert (await hub.subscribe(None)).flush == event.stamp
        with pytest.raises(UnknownPublisher):
            await hub.beat("p", epoch, 0)

    async def test_without_a_flush_only_what_was_in_doubt_is_changed(self, hub: Hub) -> None:
        epoch, cursor = await ready(hub, "p")
        await hub.put("k", epoch, thing("a", at=await hub.sample(epoch)), 60)
        await hub.doubt("p", epoch, "p/1", ["z"])
        assert await hub.fence("p", epoch, beats=None, flush=False)
        assert (await hub.get("k", epoch))[0] is not None
        assert (await hub.subscribe(None)).doubts == {}
        event = (await entries(hub, cursor))[-1].event
        assert isinstance(event, Changed)
        assert (event.tags, event.resolves) == (("z",), "p/1")

    async def test_who_has_beaten_meanwhile_is_not_fenced(self, hub: Hub) -> None:
        epoch, _ = await ready(hub, "p")
        seen = (await hub.publishers()).publishers["p"].beats
        await hub.beat("p", epoch, 0)
        assert not await hub.fence("p", epoch, beats=seen, flush=True)
        assert await hub.fence("p", epoch, beats=seen + 1, flush=True)

    async def test_who_is_gone_is_not_fenced_again(self, hub: Hub) -> None:
        epoch, _ = await ready(hub, "p")
        assert await hub.fence("p", epoch, beats=None, flush=True)
        assert not await hub.fence("p", epoch, beats=None, flush=True)

    async def test_replicas_without_a_sidecar_are_in_every_heartbeat_until_they_are_gone(self, hub: Hub) -> None:
        epoch, cursor = await ready(hub, "p")
        high = await hub.sample(epoch)
        assert await hub.cover(epoch, covered=False)
        assert not await hub.cover(epoch, covered=False)
        await hub.beat("p", epoch, high)
        (found,) = await watermarks(hub, cursor)
        assert (found.uncovered, found.position) == (True, high)
        assert await hub.cover(epoch, covered=True)
        await hub.beat("p", epoch, high)
        assert not (await watermarks(hub, cursor))[-1].uncovered

    async def test_what_they_wrote_was_never_announced_so_their_end_is_a_flush(self, hub: Hub) -> None:
        epoch, _ = await ready(hub, "p")
        await hub.cover(epoch, covered=False)
        await hub.put("k", epoch, thing("a", at=await hub.sample(epoch)), 60)
        await hub.cover(epoch, covered=True)
        assert (await hub.get("k", epoch))[0] is None


class TestBoundedMemory:
    async def test_the_stream_keeps_so_many_entries(self, make_hub: Callable[..., Hub]) -> None:
        hub = make_hub(keep=5)
        epoch, cursor = await ready(hub, "p")
        for number in range(20):
            await hub.change("p", epoch, [f"t{number}"])
        assert [entry.sequence for entry in await entries(hub, cursor)] == [16, 17, 18, 19, 20]

    async def test_what_is_older_than_a_forgotten_stamp_is_not_found(self, make_hub: Callable[..., Hub]) -> None:
        hub = make_hub(keep=3)
        epoch, _ = await ready(hub)
        await hub.put("before", epoch, thing("z", at=await hub.sample(epoch)), 60)
        await hub.change("p", epoch, ["a"])
        at = await hub.sample(epoch)
        await hub.put("after", epoch, thing("z", at=at), 60)
        for _ in range(3):
            await hub.change("p", epoch, ["b"])
        assert (await hub.get("before", epoch))[0] is None, "its tag might be the one that was forgotten"
        assert (await hub.get("after", epoch))[0] is not None
        assert (await hub.subscribe(None)).floor < at

    async def test_a_stamp_renewed_since_is_not_forgotten_and_raises_no_floor(
        self, make_hub: Callable[..., Hub]
    ) -> None:
        hub = make_hub(keep=3)
        epoch, _ = await ready(hub)
        for _ in range(10):
            await hub.change("p", epoch, ["a"])
        assert (await hub.subscribe(None)).floor == 0

    async def test_heartbeats_push_stamps_out_too(self, make_hub: Callable[..., Hub]) -> None:
        hub = make_hub(keep=3)
        epoch, _ = await ready(hub, "p")
        stamp, _ = await hub.change("p", epoch, ["a"])
        for _ in range(3):
            await hub.beat("p", epoch, 0)
        assert (await hub.subscribe(None)).floor == stamp


CALLS: dict[str, Callable[[Hub, str], Awaitable[Any]]] = {
    "sample": lambda hub, epoch: hub.sample(epoch),
    "join": lambda hub, epoch: hub.join("p", epoch, 0),
    "beat": lambda hub, epoch: hub.beat("p", epoch, 0),
    "leave": lambda hub, epoch: hub.leave("p", epoch),
    "change": lambda hub, epoch: hub.change("p", epoch, ["a"]),
    "change_and_store": lambda hub, epoch: hub.change_and_store("p", epoch, ["a"], "k", thing("a", at=0), 60, sent=0),
    "doubt": lambda hub, epoch: hub.doubt("p", epoch, "p/1", ["a"]),
    "fence": lambda hub, epoch: hub.fence("p", epoch, beats=None, flush=True),
    "cover": lambda hub, epoch: hub.cover(epoch, covered=False),
    "get": lambda hub, epoch: hub.get("k", epoch),
    "put": lambda hub, epoch: hub.put("k", epoch, thing("a", at=0), 60),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_a_call_of_another_epoch_is_refused_and_changes_nothing(
    hub: Hub, call: Callable[[Hub, str], Awaitable[Any]]
) -> None:
    epoch, cursor = await ready(hub, "p")
    before = await hub.publishers()
    with pytest.raises(ForeignEpoch):
        await call(hub, "another")
    assert await hub.publishers() == before
    assert await entries(hub, cursor) == []
    assert (await hub.subscribe(None)).epoch == epoch


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_before_the_first_subscription_there_is_no_epoch_to_call_in(
    hub: Hub, call: Callable[[Hub, str], Awaitable[Any]]
) -> None:
    with pytest.raises(ForeignEpoch):
        await call(hub, "")
