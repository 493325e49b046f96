"""What the data path may rely on, step by step, in virtual time on the hub in memory.

Each test is a schedule that a rule of the staleness protocol was made for.
"""

from __future__ import annotations

import asyncio

import pytest

from coherences import INTERVAL_S, MAX_S, SETTLE_S, Sidecar, group, passes
from pulsecache_policy.model import Writers
from pulsecache_sidecar.core.staleness.view import View
from virtual_time import VirtualClock, virtual_time

A_MOMENT_S = 0.01


@virtual_time
async def test_in_peace_everything_is_confirmed_and_the_bound_stays_near_one_interval() -> None:
    async with group() as dataset:
        sidecars = [await dataset.begin(f"p{i}", random=lambda i=i: i / 5, publishes=i < 4) for i in range(5)]
        await passes(5 * INTERVAL_S)
        worst = 0.0
        for _ in range(500):
            await passes(0.037)
            for sidecar in sidecars:
                assert sidecar.state == "confirmed"
                assert sidecar.bound is not None
                worst = max(worst, sidecar.bound)
        assert worst < 1.5 * INTERVAL_S


class TestReads:
    @virtual_time
    async def test_what_was_fetched_is_usable_until_a_change_of_one_of_its_tags(self) -> None:
        async with group() as dataset:
            p, q = await dataset.begin("p"), await dataset.begin("q")
            kept = q.fetch()
            assert q.usable(kept, "/a", "all")
            await p.write("/b")
            await passes(A_MOMENT_S)
            assert q.usable(kept, "/a", "all")
            await p.write("all")
            await passes(A_MOMENT_S)
            assert not q.usable(kept, "/a", "all")
            assert q.usable(kept, "/a")

    @virtual_time
    async def test_a_fill_that_a_change_overtakes_is_not_stored_in_memory(self) -> None:
        async with group() as dataset:
            p, q = await dataset.begin("p"), await dataset.begin("q")
            ticket = q.coherence.ticket(q.now)
            await p.write("/a")
            await passes(A_MOMENT_S)
            assert not q.usable(q.coherence.fetched(ticket), "/a")
            assert q.usable(q.fetch(), "/a")

    @virtual_time
    async def test_a_fill_that_a_change_overtakes_is_not_stored_for_all(self) -> None:
        async with group() as dataset:
            p, q, r = await dataset.begin("p"), await dataset.begin("q"), await dataset.begin("r")
            q.wire.hold("read")  # q has not heard of the change yet
            raced = q.fetch()
            await p.write("/a")
            q.coherence.share("/a", b"old", ("/a",), raced, 60.0)
            await passes(A_MOMENT_S)
            assert await r.lookup("/a") is None

    @virtual_time
    async def test_the_bound_of_what_was_just_fetched_is_its_age(self) -> None:
        async with group() as dataset:
            p = await dataset.begin("p")
            await passes(3.3)
            kept = p.fetch()
            assert p.coherence.bound(kept, p.now) == 0.0
            await passes(0.1)
            assert p.coherence.bound(kept, p.now) == pytest.approx(0.1)

    @virtual_time
    async def test_the_bound_of_what_is_usable_for_long_is_the_age_of_the_watermark(self) -> None:
        async with group() as dataset:
            p = await dataset.begin("p")
            kept = p.fetch()
            await passes(30.0)
            assert p.coherence.bound(kept, p.now) == p.bound
            assert p.bound < 1.5
            assert p.coherence.age_bound(kept, p.now) == pytest.approx(30.0)

    @virtual_time
    async def test_a_not_modified_makes_it_as_young_as_the_question(self) -> None:
        async with group() as dataset:
            p = await dataset.begin("p", writers=Writers.UNKNOWN)
            old = p.fetch()
            await passes(4.0)
            assert p.coherence.bound(old, p.now) == pytest.approx(4.0)
            assert p.coherence.bound(p.fetch(), p.now) == 0.0


class TestTheSharedStore:
    @virtual_time
    async def test_one_fills_it_for_all(self) -> None:
        async with group() as dataset:
            p, q = await dataset.begin("p"), await dataset.begin("q")
            await passes(2.0)
            kept = p.fetch()
            p.coherence.share("/a", b"body", ("/a", "all"), kept, 60.0)
            await passes(0.5)
            payload, tags, validity = await q.lookup("/a")
            assert (payload, tags) == (b"body", ("/a", "all"))
            assert q.usable(validity, *tags)

    @virtual_time
    async def test_its_age_is_never_taken_for_less_than_it_is(self) -> None:
        async with group() as dataset:
            p, q = await dataset.begin("p"), await dataset.begin("q")
            await passes(20.0)
            kept = p.fetch()
            p.coherence.share("/a", b"body", ("/a",), kept, 60.0)
            await passes(7.0)
            _, _, validity = await q.lookup("/a")
            assert kept.at - 1.5 < validity.at <= kept.at

    @virtual_time
    async def test_where_nothing_can_be_said_of_its_age_it_is_a_miss(self) -> None:
        async with group() as dataset:
            p = await dataset.begin("p")
            p.coherence.share("/a", b"body", ("/a",), p.fetch(), 60.0)
            await passes(7.0)
            q = await dataset.begin("q", writers=Writers.UNKNOWN)
            assert await q.lookup("/a") is None

    @virtual_time
    async def test_older_than_the_process_it_is_as_old_as_the_watermark(self) -> None:
        async with group() as dataset:
            p = await dataset.begin("p")
            p.coherence.share("/a", b"body", ("/a",), p.fetch(), 60.0)
            await passes(7.0)
            q = await dataset.begin("q")
            await passes(3.0)
            _, tags, validity = await q.lookup("/a")
            assert q.usable(validity, *tags)
            assert q.coherence.bound(validity, q.now) == q.bound
            assert q.coherence.age_bound(validity, q.now) == float("inf")

    @virtual_time
    async def test_a_look_up_begun_before_subscribing_anew_is_not_usable(self) -> None:
        async with group() as dataset:
            p, q = await dataset.begin("p"), await dataset.begin("q")
            p.coherence.share("/a", b"body", ("/a",), p.fetch(), 60.0)
            await passes(2.0)
            _, tags, validity = await q.lookup("/a")
            dataset.hub.forget()
            await passes(3.0)
            assert not q.usable(validity, *tags)

    @virtual_time
    async def test_no_hub_no_look_up(self) -> None:
        alone = Sidecar(None, "p", VirtualClock())
        await alone.coherence.start()
        assert await alone.lookup("/a") is None
        alone.coherence.share("/a", b"body", ("/a",), alone.fetch(), 60.0)
        await alone.coherence.stop()


class TestWriteThrough:
    @virtual_time
    async def test_it_stores_for_all_what_the_write_produced(self) -> None:
        async with group() as dataset:
            p, q = await dataset.begin("p"), await dataset.begin("q")
            await passes(2.0)
            kept = await p.write("/a", store=b"new")
            assert kept is not None
            assert p.usable(kept, "/a")
            await passes(A_MOMENT_S)
            payload, tags, validity = await q.lookup("/a")
            assert payload == b"new"
            assert q.usable(validity, *tags)

    @virtual_time
    async def test_it_is_as_old_as_its_sending_not_as_its_answer(self) -> None:
        async with group() as dataset:
            p = await dataset.begin("p", writers=Writers.UNKNOWN)
            sent_at = p.now
            write = p.coherence.open_write(("/a",), sent_at)
            await passes(0.8)
            kept = await write.took_effect(store=("/a", b"new", ("/a",), 60.0))
            assert kept is not None
            assert p.coherence.bound(kept, p.now) == pytest.approx(0.8)

    @virtual_time
    async def test_writes_of_two_processes_that_overlap_store_nothing(self) -> None:
        async with group() as dataset:
            p, q = await dataset.begin("p"), await dataset.begin("q")
            write = p.coherence.open_write(("/a",), p.now)
            await q.write("/a", store=b"by q")
            assert await write.took_effect(store=("/a", b"by p", ("/a",), 60.0)) is None
            assert await p.lookup("/a") is None

    @virtual_time
    async def test_writes_of_one_process_that_overlap_store_nothing(self) -> None:
        async with group() as dataset:
            p = await dataset.begin("p")
            one = p.coherence.open_write(("/a",), p.now)
            two = p.coherence.open_write(("/a",), p.now)
            assert await one.took_effect(store=("/a", b"one", ("/a",), 60.0)) is None
            assert await two.took_effect(store=("/a", b"two", ("/a",), 60.0)) is None
            assert await p.lookup("/a") is None

    @virtual_time
    async def test_a_store_does_not_hide_the_change_of_a_further_tag(self) -> None:
        async with group() as dataset:
            p, q = await dataset.begin("p"), await dataset.begin("q")
            listed = q.fetch()
            await p.write("/a", "list", store=b"new")
            await passes(A_MOMENT_S)
            assert not q.usable(listed, "/list", "list")

    @virtual_time
    async def test_with_the_hub_away_nothing_is_stored_and_the_announcement_waits(self) -> None:
        async with group() as dataset:
            p, q = await dataset.begin("p"), await dataset.begin("q")
            kept = q.fetch()
            p.wire.away = True
            before = p.now
            assert await p.write("/a", store=b"new") is None
            assert p.now - before <= 0.051, "a request waits for the hub no longer than that"
            await passes(5.0)
            assert q.usable(kept, "/a")
            p.wire.away = False
            await passes(5.0)
            assert not q.usable(kept, "/a")

    @virtual_time
    async def test_an_announcement_whose_answer_is_lost_is_made_again(self) -> None:
        async with group() as dataset:
            p = await dataset.begin("p")
            p.wire.hold_answers("change_and_store")
            assert await p.write("/a", store=b"new") is None
            p.wire.release("change_and_store")
            await passes(2.0)
            assert p.coherence.report(p.now).open_writes == 0
            assert await p.lookup("/a") is None, "the second announcement hits what the first has stored"

    @virtual_time
    async def test_a_request_that_is_cancelled_while_it_waits_is_announced_all_the_same(self) -> None:
        async with group() as dataset:
            p, q = await dataset.begin("p"), await dataset.begin("q")
            kept = q.fetch()
            p.wire.hold("change")
            request = asyncio.create_task(p.write("/a"))
            await passes(A_MOMENT_S)
            request.cancel()
            await asyncio.gather(request, return_exceptions=True)
            p.wire.release("change")
            await passes(A_MOMENT_S)
            assert not q.usable(kept, "/a")


class TestOwnWrites:
    @virtual_time
    @pytest.mark.parametrize("hub", ["none", "away"])
    async def test_without_a_hub_a_process_still_sees_its_own_writes(self, hub: str) -> None:
        async with group() as dataset:
            if hub == "none":
                p = Sidecar(None, "p", dataset.clock)
                await p.coherence.start()
            else:
                p = await dataset.begin("p")
                p.wire.away = True
            kept, begun = p.fetch(), p.coherence.ticket(p.now)
            await p.write("/a")
            assert not p.usable(kept, "/a"), "stored before the write"
            assert not p.usable(p.coherence.fetched(begun), "/a"), "a fetch begun before the write was done"
            assert p.usable(kept, "/b")
            assert p.usable(p.fetch(), "/a"), "a fetch begun after it"
            await p.coherence.stop()

    @virtual_time
    async def test_the_shared_store_does_not_know_a_write_before_it_is_announced(self) -> None:
        async with group() as dataset:
            p, q = await dataset.begin("p"), await dataset.begin("q")
            q.coherence.share("/a", b"old", ("/a",), q.fetch(), 60.0)
            await passes(2.0)
            p.wire.hold("change")
            await p.write("/a")
            found = await p.lookup("/a")
            assert found is not None, "nobody has told the store"
            assert not p.usable(found[2], "/a")
            p.wire.release("change")
            await passes(2.0)
            assert not p.usable(found[2], "/a")

    @virtual_time
    async def test_a_write_that_was_refused_changes_nothing(self) -> None:
        async with group() as dataset:
            p, q = await dataset.begin("p"), await dataset.begin("q")
            kept, own = q.fetch(), p.fetch()
            p.coherence.open_write(("/a",), p.now).refused()
            await passes(2.0)
            assert q.usable(kept, "/a")
            assert p.usable(own, "/a")
            assert p.coherence.report(p.now).open_writes == 0


class TestOpenWrites:
    @virtual_time
    async def test_an_open_write_holds_the_watermark_of_everybody(self) -> None:
        async with group() as dataset:
            p, q = await dataset.begin("p"), await dataset.begin("q")
            await passes(3.0)
            p.wire.hold("doubt")  # nothing takes its place
            write = p.coherence.open_write(("/a",), p.now)
            await passes(4.0)
            assert q.bound > 4.0
            await write.took_effect()
            await passes(2.0)
            assert q.bound < 1.5

    @virtual_time
    async def test_open_for_longer_than_an_interval_it_holds_back_only_its_own_tags(self) -> None:
        async with group() as dataset:
            p, q = await dataset.begin("p"), await dataset.begin("q")
            await passes(3.0)
            kept = q.fetch()
            write = p.coherence.open_write(("/a",), p.now)
            worst = 0.0
            for _ in range(80):
                await passes(0.1)
                worst = max(worst, q.bound)
            assert worst < 3.5 * INTERVAL_S
            assert not q.usable(kept, "/a")
            assert not q.usable(q.fetch(), "/a")
            assert q.usable(kept, "/b")
            assert await write.took_effect(store=("/a", b"new", ("/a",), 60.0)) is None, "its own doubt has stamped"
            await passes(A_MOMENT_S)
            assert q.usable(q.fetch(), "/a")

    @virtual_time
    async def test_an_unknown_outcome_is_in_doubt_until_it_has_settled_and_is_announced_again(self) -> None:
        async with group() as dataset:
            p, q = await dataset.begin("p"), await dataset.begin("q")
            write = p.coherence.open_write(("/a",), p.now)
            write.sent(p.now)
            write.unknown(p.now)
            await passes(A_MOMENT_S)
            for sidecar in (p, q):
                assert not sidecar.usable(sidecar.fetch(), "/a")
                assert sidecar.usable(sidecar.fetch(), "/b")
            await passes(SETTLE_S)
            during = q.fetch()
            assert not q.usable(during, "/a")
            await passes(2.0)
            assert not q.usable(during, "/a"), "it may have changed after this was fetched"
            for sidecar in (p, q):
                assert sidecar.usable(sidecar.fetch(), "/a")

    @virtual_time
    async def test_settling_counts_from_the_last_byte_of_a_slow_upload(self) -> None:
        async with group() as dataset:
            p, q = await dataset.begin("p"), await dataset.begin("q")
            write = p.coherence.open_write(("/a",), p.now)
            await passes(SETTLE_S)
            write.sent(p.now)
            await passes(1.0)
            write.unknown(p.now)
            await passes(SETTLE_S - 1.5)
            assert not q.usable(q.fetch(), "/a")
            await passes(3.0)
            assert q.usable(q.fetch(), "/a")

    @virtual_time
    async def test_an_upload_that_broke_off_settles_from_its_end(self) -> None:
        async with group() as dataset:
            p = await dataset.begin("p")
            write = p.coherence.open_write(("/a",), p.now)
            await passes(SETTLE_S)
            write.unknown(p.now)
            await passes(SETTLE_S - 1.0)
            assert not p.usable(p.fetch(), "/a")

    @virtual_time
    async def test_what_an_unknown_outcome_cannot_name_puts_everything_in_doubt(self) -> None:
        async with group() as dataset:
            p, q = await dataset.begin("p"), await dataset.begin("q")
            write = p.coherence.open_write(("/a",), p.now)
            write.unknown(p.now, ("*",))
            await passes(A_MOMENT_S)
            assert not p.usable(p.fetch(), "/b")
            assert not q.usable(q.fetch(), "/b")

    @virtual_time
    async def test_a_doubt_of_fewer_tags_holds_the_watermark_until_all_are_named(self) -> None:
        async with group() as dataset:
            p, q = await dataset.begin("p"), await dataset.begin("q")
            write = p.coherence.open_write(("/a",), p.now)
            await passes(2.5)
            assert q.usable(q.fetch(), "/new")
            write.unknown(p.now, ("/new",))
            await passes(A_MOMENT_S)
            assert not q.usable(q.fetch(), "/new")

    @virtual_time
    async def test_a_refused_write_that_was_in_doubt_ends_its_doubt(self) -> None:
        async with group() as dataset:
            p, q = await dataset.begin("p"), await dataset.begin("q")
            write = p.coherence.open_write(("/a",), p.now)
            await passes(2.5)
            assert not q.usable(q.fetch(), "/a")
            write.refused()
            await passes(2.5)
            assert q.usable(q.fetch(), "/a")

    @virtual_time
    async def test_who_subscribes_while_a_doubt_is_open_knows_of_it(self) -> None:
        async with group() as dataset:
            p = await dataset.begin("p")
            write = p.coherence.open_write(("/a",), p.now)
            await passes(2.5)
            late = await dataset.begin("late")
            assert not late.usable(late.fetch(), "/a")
            await write.took_effect()
            await passes(A_MOMENT_S)
            assert late.usable(late.fetch(), "/a")

    @virtual_time
    async def test_a_doubt_that_arrives_after_its_write_is_over_is_ended_once_more(self) -> None:
        async with group() as dataset:
            p, q = await dataset.begin("p"), await dataset.begin("q")
            p.wire.hold("doubt")
            write = p.coherence.open_write(("/a",), p.now)
            await passes(1.5)
            await write.took_effect()
            p.wire.release("doubt")
            await passes(2.5)
            assert q.usable(q.fetch(), "/a")
            assert p.coherence.report(p.now).doubts == 0

    @virtual_time
    async def test_a_flood_of_unknown_outcomes_holds_the_watermark_rather_than_filling_the_hub(self) -> None:
        async with group() as dataset:
            p, q = await dataset.begin("p"), await dataset.begin("q")
            await passes(3.0)
            for number in range(300):
                p.coherence.open_write((f"/{number}",), p.now).unknown(p.now)
            await passes(3.0)
            assert q.coherence.report(q.now).doubts == 256
            assert q.bound > 2.5


class TestHeartbeats:
    @virtual_time
    async def test_a_beat_that_arrives_late_says_what_was_true_when_it_was_sent(self) -> None:
        async with group() as dataset:
            p, q = await dataset.begin("p"), await dataset.begin("q")
            await passes(3.0)
            p.wire.hold("beat")
            await passes(1.5)  # a beat without any open write is on its way
            p.wire.hold("change")
            await p.write("/a")
            done_at = q.now
            p.wire.release("beat")  # and arrives after the write took effect
            await passes(0.5)
            assert q.bound >= q.now - done_at
            await passes(1.5)
            assert q.bound >= q.now - done_at

    @virtual_time
    async def test_a_publisher_that_stops_beating_makes_the_bound_grow_by_itself(self) -> None:
        async with group() as dataset:
            p, q = await dataset.begin("p"), await dataset.begin("q")
            await passes(3.0)
            q.wire.away = True
            await passes(2.5)
            assert p.state == "confirmed"
            assert 2.5 <= p.bound < 4.0
            await passes(3.0)
            assert p.state == "exceeded"
            assert p.coherence.report(p.now).lost == ("q",)
            q.wire.away = False
            await passes(4.0)
            assert p.state == "confirmed"
            assert p.coherence.report(p.now).lost == ()

    @virtual_time
    async def test_another_leads_when_the_lead_is_gone(self) -> None:
        async with group() as dataset:
            p, q = await dataset.begin("p"), await dataset.begin("q")
            await passes(3.0)
            await p.coherence.stop()
            await passes(1.0)
            for _ in range(50):
                await passes(0.1)
                assert q.state == "confirmed"
            assert q.bound < 1.5

    @virtual_time
    async def test_a_publisher_that_was_fenced_alive_joins_again(self) -> None:
        async with group() as dataset:
            _, q = await dataset.begin("p"), await dataset.begin("q")
            await passes(2.0)
            epoch = (await dataset.hub.publishers()).epoch
            await dataset.hub.fence("p", epoch, beats=None, flush=True)
            await passes(2.5)
            assert "p" in (await dataset.hub.publishers()).publishers
            assert q.state == "confirmed"


class TestStates:
    @virtual_time
    async def test_without_heartbeats_it_is_unconfirmed_after_the_threshold_then_exceeded_after_max(self) -> None:
        async with group() as dataset:
            p = await dataset.begin("p")
            await passes(3.0)
            assert p.state == "confirmed"
            p.wire.away = True
            cut_at = p.now
            seen: dict[str, float] = {}
            while len(seen) < 3:
                seen.setdefault(p.state, p.now - cut_at)
                await passes(0.05)
            assert list(seen) == ["confirmed", "unconfirmed", "exceeded"]
            assert seen["unconfirmed"] <= (3 + 1) * INTERVAL_S
            assert seen["exceeded"] <= MAX_S + INTERVAL_S

    @virtual_time
    async def test_a_late_bunch_of_old_heartbeats_confirms_nothing(self) -> None:
        async with group() as dataset:
            p, q = await dataset.begin("p"), await dataset.begin("q", publishes=False)
            await passes(3.0)
            q.wire.hold("read")
            await passes(20.0)
            assert q.state == "exceeded"
            p.wire.away = True  # no new heartbeat from here
            await passes(8.0)
            q.wire.release("read")  # twenty old ones
            await passes(2.0)
            assert q.state == "exceeded"
            p.wire.away = False
            await passes(4.0)
            assert q.state == "confirmed"

    @virtual_time
    async def test_before_the_first_word_of_the_hub_nothing_is_confirmed_and_the_bound_is_the_age(self) -> None:
        async with group() as dataset:
            p = Sidecar(dataset.hub, "p", dataset.clock)
            p.wire.away = True
            before = p.now
            await p.coherence.start()
            assert p.now - before <= 1.0, "it does not wait for ever"
            kept = p.fetch()
            assert p.usable(kept, "/a")
            await passes(2.0)
            assert p.state == "unconfirmed"
            assert p.bound is None
            assert p.coherence.bound(kept, p.now) == pytest.approx(2.0)
            await passes(4.0)
            assert p.state == "exceeded"
            p.wire.away = False
            await passes(5.0)
            assert p.state == "confirmed"
            assert not p.usable(kept, "/a"), "changes of that time were not heard"
            await p.coherence.stop()

    @virtual_time
    async def test_each_transition_is_logged_once_also_when_nobody_asks(self, caplog: pytest.LogCaptureFixture) -> None:
        async with group() as dataset:
            with caplog.at_level("INFO", logger="pulsecache_sidecar.engine.coherence"):
                p = await dataset.begin("p")
                await passes(3.0)
                p.wire.away = True
                await passes(20.0)
                p.wire.away = False
                await passes(5.0)
        told = [record.getMessage().split(": ")[1] for record in caplog.records if record.name.endswith("coherence")]
        assert told == [
            "confirmed, was unconfirmed",
            "unconfirmed, was confirmed",
            "exceeded, was unconfirmed",
            "confirmed, was exceeded",
        ]


class TestWhereTheWatermarkMayNotBeUsed:
    @virtual_time
    @pytest.mark.parametrize("why", ["writers unknown", "replicas without a sidecar", "no hub"])
    async def test_the_state_is_uncovered_and_the_bound_is_the_age(self, why: str) -> None:
        async with group(covered=why != "replicas without a sidecar") as dataset:
            if why == "no hub":
                p = Sidecar(None, "p", dataset.clock)
                await p.coherence.start()
            else:
                p = await dataset.begin("p", writers=Writers.UNKNOWN if why == "writers unknown" else Writers.ALL)
            await passes(2.0)
            kept = p.fetch()
            await passes(10.0)
            assert p.state == "uncovered"
            assert p.bound is None
            assert p.coherence.bound(kept, p.now) == pytest.approx(10.0)
            await p.coherence.stop()

    @virtual_time
    async def test_when_the_last_replica_without_sidecar_is_gone_what_it_may_have_changed_is_not_usable(self) -> None:
        async with group(covered=False) as dataset:
            p = await dataset.begin("p")
            await passes(2.0)
            kept = p.fetch()
            epoch = (await dataset.hub.publishers()).epoch
            await dataset.hub.cover(epoch, covered=True)
            await passes(2.0)
            assert p.state == "confirmed"
            assert not p.usable(kept, "/a")


class TestLosses:
    @virtual_time
    async def test_a_gap_in_the_stream_makes_everything_begun_before_unusable(self) -> None:
        async with group(keep=4) as dataset:
            p, q = await dataset.begin("p"), await dataset.begin("q")
            kept = q.fetch()
            q.wire.hold("read")
            await p.write("/a")
            for number in range(5):
                await p.write(f"/{number}")
            q.wire.release("read")
            await passes(2.0)
            assert not q.usable(kept, "/a")
            assert not q.usable(kept, "/untouched"), "nobody can tell it from what was touched"
            assert q.usable(q.fetch(), "/a")

    @virtual_time
    async def test_a_new_connection_without_a_gap_keeps_the_cache(self) -> None:
        async with group() as dataset:
            p, q = await dataset.begin("p"), await dataset.begin("q")
            kept = q.fetch()
            q.wire.away = True
            await p.write("/a")
            await passes(4.0)
            q.wire.away = False
            await passes(4.0)
            assert q.usable(kept, "/b")
            assert not q.usable(kept, "/a"), "the change of meanwhile was read"

    @virtual_time
    async def test_a_hub_that_forgot_everything_starts_a_new_epoch_for_everybody(self) -> None:
        async with group(first=False) as dataset:
            p, q = await dataset.begin("p"), await dataset.begin("q")
            epoch = q.coherence.report(q.now).epoch
            kept, begun = q.fetch(), q.coherence.ticket(q.now)
            dataset.hub.forget()
            await passes(3.0)
            assert p.coherence.report(p.now).epoch == q.coherence.report(q.now).epoch != epoch
            assert not q.usable(kept, "/a")
            assert not q.usable(q.coherence.fetched(begun), "/a")
            assert q.usable(q.fetch(), "/a")
            assert set((await dataset.hub.publishers()).publishers) == {"p", "q", "old-epoch"}

    @virtual_time
    async def test_the_publishers_of_the_old_epoch_hold_the_watermark_until_they_are_settled(self) -> None:
        async with group(first=False) as dataset:
            p = await dataset.begin("p")
            await passes(4.0)
            assert p.bound >= 4.0
            await passes(2.0)
            assert p.state == "exceeded"
            epoch = (await dataset.hub.publishers()).epoch
            await dataset.hub.fence("old-epoch", epoch, beats=None, flush=False)
            await passes(2.0)
            assert p.state == "confirmed"
            assert p.bound < 1.5

    @virtual_time
    async def test_a_write_of_the_old_epoch_holds_the_watermark_of_the_new_one(self) -> None:
        async with group() as dataset:
            p, q = await dataset.begin("p"), await dataset.begin("q")
            await passes(2.0)
            write = p.coherence.open_write(("/a",), p.now)
            dataset.hub.forget()
            p.wire.hold("doubt")
            await passes(3.0)
            epoch = (await dataset.hub.publishers()).epoch
            await dataset.hub.fence("old-epoch", epoch, beats=None, flush=False)
            await passes(3.0)
            assert (await dataset.hub.publishers()).publishers["p"].coverage == 0
            assert q.state == "exceeded"
            await write.took_effect()
            await passes(2.0)
            assert q.bound < 1.5

    @virtual_time
    async def test_a_doubt_of_the_old_epoch_counts_only_when_the_new_one_knows_it(self) -> None:
        async with group() as dataset:
            p, q = await dataset.begin("p"), await dataset.begin("q")
            p.coherence.open_write(("/a",), p.now).unknown(p.now)
            await passes(2.0)
            dataset.hub.forget()
            await passes(3.0)
            assert q.coherence.report(q.now).doubts == 1
            assert not q.usable(q.fetch(), "/a")

    @virtual_time
    async def test_coverage_waits_for_a_write_whose_doubt_only_the_old_epoch_knew(self) -> None:
        async with group() as dataset:
            p = await dataset.begin("p")
            p.coherence.open_write(("/a",), p.now).unknown(p.now)
            await passes(2.0)
            assert p.coherence.report(p.now).doubts == 1
            p.wire.hold("doubt")
            dataset.hub.forget()
            await passes(3.0)
            assert (await dataset.hub.publishers()).publishers["p"].coverage == 0

    @virtual_time
    async def test_positions_that_only_a_lost_end_had_given_out_are_not_given_out_again(self) -> None:
        async with group() as dataset:
            p, q = await dataset.begin("p"), await dataset.begin("q")
            await passes(5.0)
            kept, epoch = q.fetch(), q.coherence.report(q.now).epoch
            p.wire.away = q.wire.away = True
            dataset.hub._state.n -= 8  # a failover: the replica had all entries, and fewer positions
            dataset.hub.server = "another"
            await passes(2.0)
            p.wire.away = q.wire.away = False
            await passes(4.0)
            await p.write("/a")
            await passes(A_MOMENT_S)
            assert not q.usable(kept, "/a")
            assert q.usable(kept, "/b")
            assert q.coherence.report(q.now).epoch == epoch

    @virtual_time
    async def test_a_lost_end_of_the_stream_is_found_by_whoever_was_told_of_it(self) -> None:
        async with group() as dataset:
            p, q = await dataset.begin("p"), await dataset.begin("q")
            await passes(2.0)
            kept = q.fetch()
            epoch = p.coherence.report(p.now).epoch
            q.wire.hold("read")
            await p.write("/a")
            # A failover: the replica had not got the last entry. Another takes its number.
            state = dataset.hub._state
            lost = state.stream.pop()
            state.sequence, state.last = lost.sequence - 1, lost.previous
            await dataset.hub.change("q", epoch, ["/z"])
            p.wire.away = q.wire.away = True
            await passes(3.0)
            p.wire.away = q.wire.away = False
            q.wire.release("read")
            await passes(4.0)
            assert p.coherence.report(p.now).epoch == q.coherence.report(q.now).epoch != epoch
            assert not q.usable(kept, "/a")

    @virtual_time
    async def test_a_counter_that_goes_backwards_is_noticed(self) -> None:
        async with group() as dataset:
            p = await dataset.begin("p")
            await passes(2.0)
            kept = p.fetch()
            dataset.hub._state.n -= 10
            await passes(2.0)
            assert not p.usable(kept, "/a")
            assert p.usable(p.fetch(), "/a")

    @virtual_time
    async def test_a_fault_of_ours_costs_the_cache_and_nothing_else(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with group() as dataset:
            p, q = await dataset.begin("p"), await dataset.begin("q")
            await passes(2.0)
            kept = q.fetch()
            with monkeypatch.context() as patch:
                patch.setattr(View, "_stamped", lambda self, tags, stamp: 1 / 0)
                await p.write("/a")
                await passes(A_MOMENT_S)
            assert "a background loop failed" in caplog.text
            await passes(3.0)
            assert not q.usable(kept, "/a")
            assert q.usable(q.fetch(), "/a")
            assert q.state == "confirmed"

    @virtual_time
    async def test_a_hub_that_is_away_costs_a_look_up_nothing_once_that_is_known(self) -> None:
        async with group() as dataset:
            p = await dataset.begin("p")
            p.wire.away = True
            await passes(3.0)
            before = p.now
            assert await p.lookup("/a") is None
            assert p.now == before


class TestDying:
    @virtual_time
    async def test_a_clean_stop_announces_what_is_left_and_leaves(self) -> None:
        async with group() as dataset:
            p, q = await dataset.begin("p"), await dataset.begin("q")
            kept = q.fetch()
            p.wire.hold("change")
            await p.write("/a")
            p.wire.release("change")
            await p.coherence.stop()
            await passes(A_MOMENT_S)
            assert not q.usable(kept, "/a")
            assert set((await dataset.hub.publishers()).publishers) == {"q"}

    @virtual_time
    async def test_with_a_write_open_it_does_not_leave(self) -> None:
        async with group() as dataset:
            p = await dataset.begin("p")
            p.coherence.open_write(("/a",), p.now)
            await p.coherence.stop()
            assert "p" in (await dataset.hub.publishers()).publishers

    @virtual_time
    async def test_no_beat_follows_the_leaving(self) -> None:
        async with group() as dataset:
            p = await dataset.begin("p")
            for _ in range(7):
                await passes(0.17)
            await p.coherence.stop()
            calls = len(p.wire.calls)
            await passes(5.0)
            assert len(p.wire.calls) == calls
            assert p.wire.calls[-1] == "leave"

    @virtual_time
    async def test_a_crashed_publisher_holds_the_watermark_and_its_successor_fences_it_once_settled(self) -> None:
        async with group() as dataset:
            p, q = await dataset.begin("p.1"), await dataset.begin("q")
            await passes(2.0)
            kept = q.fetch()
            await dataset.crash(p)
            await dataset.begin("p.2", predecessor="p.1")
            await passes(SETTLE_S)
            assert "p.1" in (await dataset.hub.publishers()).publishers
            assert q.bound > SETTLE_S
            await passes(2.0)
            assert "p.1" not in (await dataset.hub.publishers()).publishers
            assert q.bound < 1.5
            assert not q.usable(kept, "/a"), "it may have died with a change unannounced"

    @virtual_time
    async def test_unattended_a_silent_publisher_and_an_old_epoch_are_fenced_by_time(self) -> None:
        async with group(first=False) as dataset:
            p, q = await dataset.begin("p"), await dataset.begin("q", unattended=True)
            await passes(SETTLE_S - 1.0)
            assert "old-epoch" in (await dataset.hub.publishers()).publishers
            await passes(5.0)
            assert set((await dataset.hub.publishers()).publishers) == {"p", "q"}
            assert q.state == "confirmed"
            await dataset.crash(p)
            await passes(3.0 + SETTLE_S - 1.0)
            assert "p" in (await dataset.hub.publishers()).publishers
            await passes(4.0)
            assert set((await dataset.hub.publishers()).publishers) == {"q"}
            await passes(INTERVAL_S)
            assert q.state == "confirmed"

    @virtual_time
    async def test_while_the_hub_is_away_nobody_can_beat_and_nobody_is_called_dead(self) -> None:
        async with group() as dataset:
            p, q = await dataset.begin("p"), await dataset.begin("q", unattended=True)
            await passes(3.0)
            kept = q.fetch()
            p.wire.away = q.wire.away = True
            await passes(10 * SETTLE_S)
            q.wire.away = False
            await passes(3.0)
            p.wire.away = False
            await passes(3.0)
            assert set((await dataset.hub.publishers()).publishers) == {"p", "q"}
            assert q.usable(kept, "/a")

    @virtual_time
    async def test_attended_nobody_is_fenced_by_time(self) -> None:
        async with group() as dataset:
            p, _ = await dataset.begin("p"), await dataset.begin("q")
            await dataset.crash(p)
            await passes(10 * SETTLE_S)
            assert "p" in (await dataset.hub.publishers()).publishers
