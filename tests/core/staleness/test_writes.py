from __future__ import annotations

from pulsecache_sidecar.core.staleness.writes import CLOCK_TOLERANCE, MAX_DOUBTS, Phase, Writes

SETTLE_S = 10.0


def writes() -> Writes:
    return Writes("p", settle_s=SETTLE_S, interval_s=1.0)


class TestCoverage:
    def test_with_nothing_open_it_is_the_current_position(self) -> None:
        assert writes().coverage("e", 50) == 50

    def test_it_waits_where_the_oldest_open_write_was_sent(self) -> None:
        own = writes()
        own.open(["a"], "e", 30, now=0.0)
        own.open(["b"], "e", 40, now=0.0)
        assert own.coverage("e", 50) == 30

    def test_done_is_not_enough_announced_is(self) -> None:
        own = writes()
        write = own.open(["a"], "e", 30, now=0.0)
        own.done(write)
        assert own.coverage("e", 50) == 30
        own.announced(write)
        assert own.coverage("e", 50) == 50

    def test_a_refused_write_never_was(self) -> None:
        own = writes()
        own.refused(own.open(["a"], "e", 30, now=0.0))
        assert own.coverage("e", 50) == 50

    def test_a_write_sent_in_another_epoch_or_before_the_first_covers_nothing(self) -> None:
        for sent_in in ("d", None):
            own = writes()
            own.open(["a"], sent_in, 30, now=0.0)
            assert own.coverage("e", 50) == 0

    def test_a_doubt_frees_it_only_in_the_epoch_that_acknowledged_it(self) -> None:
        own = writes()
        write = own.open(["a"], "e", 30, now=0.0)
        write.doubted_in = "e"
        assert own.coverage("e", 50) == 50
        assert own.coverage("f", 50) == 0


class TestDoubts:
    def test_open_for_longer_than_an_interval_or_of_unknown_outcome(self) -> None:
        own = writes()
        slow = own.open(["a"], "e", 30, now=0.0)
        unknown = own.open(["b"], "e", 31, now=2.0)
        done = own.open(["c"], "e", 31, now=0.0)
        own.done(done)
        assert own.to_doubt("e", now=1.0) == []
        own.unknown(unknown, now=2.0)
        assert own.to_doubt("e", now=2.5) == [slow, unknown]
        slow.doubted_in = unknown.doubted_in = "e"
        assert own.to_doubt("e", now=9.0) == []
        assert own.to_doubt("f", now=9.0) == [slow, unknown]

    def test_named_anew_when_the_outcome_names_more(self) -> None:
        own = writes()
        write = own.open(["a"], "e", 30, now=0.0)
        write.doubted_in = "e"
        own.unknown(write, now=2.0, extra_tags=["b"])
        assert own.to_doubt("e", now=2.0) == [write]
        assert own.coverage("e", 50) == 30

    def test_no_more_than_the_hub_should_hold(self) -> None:
        own = writes()
        for _ in range(MAX_DOUBTS + 50):
            own.unknown(own.open(["a"], "e", 30, now=0.0), now=0.0)
        assert len(own.to_doubt("e", now=0.0)) == MAX_DOUBTS

    def test_a_refused_write_whose_doubt_was_sent_is_announced_to_end_it(self) -> None:
        own = writes()
        write = own.open(["a"], "e", 30, now=0.0)
        write.doubt_tried = True
        own.refused(write)
        assert own.to_announce() == [write]

    def test_a_doubt_of_an_ended_write_of_ours_is_adopted_and_others_are_not(self) -> None:
        own = writes()
        still_open = own.open(["a"], "e", 30, now=0.0)
        own.adopt(still_open.id, ("a",), "e", 40, now=1.0)
        own.adopt("q/1", ("a",), "e", 40, now=1.0)
        assert own.to_announce() == []
        own.adopt("p/77", ("a",), "e", 40, now=1.0)
        assert [write.id for write in own.to_announce()] == ["p/77"]


class TestSettling:
    def test_it_counts_from_the_last_byte_with_a_tolerance_for_the_clock(self) -> None:
        own = writes()
        write = own.open(["a"], "e", 30, now=0.0)
        write.last_byte = 5.0
        own.unknown(write, now=7.0)
        own.settle(now=5.0 + SETTLE_S)
        assert write.phase is Phase.UNKNOWN
        own.settle(now=5.0 + SETTLE_S * CLOCK_TOLERANCE + 0.001)
        assert own.to_announce() == [write]

    def test_without_a_last_byte_it_counts_from_giving_up(self) -> None:
        own = writes()
        write = own.open(["a"], "e", 30, now=0.0)
        own.unknown(write, now=7.0)
        own.settle(now=7.0 + SETTLE_S)
        assert own.to_announce() == []


class TestOwnOrder:
    def test_what_was_begun_before_a_write_was_done_does_not_contain_it(self) -> None:
        own = writes()
        before = own.order
        write = own.open(["a"], "e", 30, now=0.0)
        assert own.admits(before, ("a",))
        own.done(write, ["b"])
        assert not own.admits(before, ("a",))
        assert not own.admits(before, ("b",))
        assert own.admits(before, ("z",))
        assert own.admits(own.order, ("a", "b"))

    def test_while_its_outcome_is_unknown_nothing_is_admitted_afterwards_what_was_begun_since(self) -> None:
        own = writes()
        write = own.open(["a"], "e", 30, now=0.0)
        own.unknown(write, now=0.0)
        during = own.order
        assert not own.admits(during, ("a",))
        own.settle(now=100.0)
        assert not own.admits(during, ("a",))
        assert own.admits(own.order, ("a",))

    def test_an_unknown_outcome_of_everything(self) -> None:
        own = writes()
        own.unknown(own.open(["a"], "e", 30, now=0.0), now=0.0, extra_tags=["*"])
        assert not own.admits(own.order, ("z",))

    def test_the_shared_store_knows_what_is_announced_without_a_hole(self) -> None:
        own = writes()
        one, two = own.open(["a"], "e", 30, now=0.0), own.open(["b"], "e", 30, now=0.0)
        own.done(one)
        own.done(two)
        own.announced(two)
        assert own.shared_order == 0
        own.announced(one)
        assert own.shared_order == own.order == 2

    def test_writes_overlap_when_they_share_a_tag_or_one_is_of_everything(self) -> None:
        own = writes()
        one = own.open(["a", "b"], "e", 30, now=0.0)
        assert not own.overlapped(one)
        own.open(["c"], "e", 30, now=0.0)
        assert not own.overlapped(one)
        two = own.open(["b"], "e", 30, now=0.0)
        assert own.overlapped(one)
        own.announced(two)
        assert not own.overlapped(one)
        own.open(["*"], "e", 30, now=0.0)
        assert own.overlapped(one)

    def test_an_end_after_the_end_changes_nothing(self) -> None:
        own = writes()
        write = own.open(["a"], "e", 30, now=0.0)
        own.unknown(write, now=0.0)
        own.done(write)
        own.refused(write)
        assert write.phase is Phase.UNKNOWN
        assert len(own) == 1
