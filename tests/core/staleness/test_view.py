from __future__ import annotations

import pytest

from pulsecache_sidecar.core.staleness.events import Changed, Doubted, Entry, Flushed, Snapshot, Watermark
from pulsecache_sidecar.core.staleness.validity import Validity
from pulsecache_sidecar.core.staleness.view import Gap, View


def snapshot(position: int = 100, epoch: str = "e", **more: object) -> Snapshot:
    values: dict[str, object] = {
        "flush": 0, "floor": 0, "sequence": 0, "cursor": f"{epoch}:0-0", "doubts": {}
    }  # fmt: skip
    return Snapshot(epoch=epoch, position=position, **(values | more))  # type: ignore[arg-type]


class Stream:
    """Feeds a view with a chain of entries."""

    def __init__(self, view: View, epoch: str = "e") -> None:
        self._view, self._epoch, self._last, self._sequence = view, epoch, f"{epoch}:0-0", 0

    def say(self, event: Changed | Doubted | Flushed | Watermark) -> None:
        self._sequence += 1
        cursor = f"{self._epoch}:{self._sequence}-0"
        entry = Entry(cursor, self._sequence, self._epoch, event, self._last)
        self._last = cursor
        self._view.apply(entry)

    def heartbeat(self, position: int, stamp: int, *, uncovered: bool = False) -> None:
        self.say(Watermark(position=position, lost=(), uncovered=uncovered, stamp=stamp, lead="p"))


def subscribed(position: int = 100, asked: float = 0.0, *, trusts_writers: bool = True) -> tuple[View, Stream]:
    view = View(trusts_writers=trusts_writers)
    view.subscribed(snapshot(position), asked=asked, above=view.position)
    return view, Stream(view)


def entry(view: View, at: float, position: int | None = None) -> Validity:
    valid = view.position if position is None else position
    return Validity(view.epoch, valid, valid, at, 0)


class TestPositions:
    def test_a_position_given_out_is_seen(self) -> None:
        view, _ = subscribed()
        view.replied("e", 110, asked=1.0, above=100)
        assert view.position == 110
        assert view.earliest(110) == 1.0

    def test_a_counter_that_was_only_read_says_when_its_successor_was_not_yet_given_out(self) -> None:
        view, _ = subscribed()
        view.replied("e", 110, asked=1.0, above=100, given_out=False)
        assert view.position == 110, "111 has been seen by nobody: a change may still get it"
        assert view.earliest(111) == 1.0
        assert view.earliest(110) == 0.0, "110 may have been given out long before"

    def test_replies_of_another_epoch_are_not_mixed_in(self) -> None:
        view, _ = subscribed()
        view.replied("another", 500, asked=1.0, above=0)
        assert view.position == 100

    def test_a_counter_that_goes_backwards_ends_the_epoch(self) -> None:
        view, _ = subscribed()
        with pytest.raises(Gap):
            view.replied("e", 90, asked=1.0, above=100)
        assert view.ended == ("e",)

    def test_a_counter_that_was_read_unchanged_is_no_step_backwards(self) -> None:
        view, _ = subscribed()
        view.replied("e", 100, asked=1.0, above=100, given_out=False)


class TestBound:
    def test_a_watermark_is_as_old_as_the_reply_below_it_whenever_it_arrives(self) -> None:
        view, stream = subscribed()
        view.replied("e", 110, asked=1.0, above=100)
        view.replied("e", 120, asked=2.0, above=110)
        stream.heartbeat(position=115, stamp=125)
        assert view.bound(entry(view, at=0.5), now=9.0) == 8.0
        assert view.heartbeat == 2.0

    def test_a_watermark_older_than_the_log_promises_nothing(self) -> None:
        view, stream = subscribed(position=100)
        stream.heartbeat(position=99, stamp=105)
        assert view.origin is None
        assert view.bound(entry(view, at=0.5), now=9.0) == 8.5

    def test_a_watermark_that_goes_back_takes_no_promise_back(self) -> None:
        view, stream = subscribed()
        view.replied("e", 110, asked=5.0, above=100)
        stream.heartbeat(position=110, stamp=111)
        stream.heartbeat(position=100, stamp=112)
        assert view.origin == 5.0

    @pytest.mark.parametrize("trusts_writers", [True, False])
    def test_where_it_may_not_be_used_the_bound_is_the_age(self, trusts_writers: bool) -> None:
        view, stream = subscribed(trusts_writers=trusts_writers)
        view.replied("e", 110, asked=5.0, above=100)
        stream.heartbeat(position=110, stamp=111, uncovered=trusts_writers)
        assert not view.covered
        assert view.bound(entry(view, at=1.0), now=9.0) == 8.0


class TestUsability:
    def test_a_change_a_flush_and_a_doubt_hit_what_does_not_contain_them(self) -> None:
        view, stream = subscribed()
        old = entry(view, at=0.0)
        stream.say(Changed(101, ("a",)))
        assert not view.usable(old, ("a",))
        assert view.usable(old, ("b",))
        stream.say(Flushed(102))
        assert not view.usable(old, ("b",))
        fresh = entry(view, at=1.0)
        assert view.usable(fresh, ("b",))
        stream.say(Doubted("p/1", 103, ("b",)))
        assert not view.usable(entry(view, at=2.0), ("b",)), "however fresh"
        stream.say(Changed(104, ("b",), resolves="p/1"))
        assert view.usable(entry(view, at=3.0), ("b",))

    def test_a_doubt_of_the_whole_dataset(self) -> None:
        view, stream = subscribed()
        stream.say(Doubted("p/1", 101, ("*",)))
        assert not view.usable(entry(view, at=1.0), ("b",))
        stream.say(Flushed(102, ended_doubts=("p/1",)))
        assert view.usable(entry(view, at=2.0), ("b",))

    def test_a_doubt_said_again_with_other_tags_is_ended_once(self) -> None:
        view, stream = subscribed()
        stream.say(Doubted("p/1", 101, ("a",)))
        stream.say(Doubted("p/1", 102, ("a", "b")))
        stream.say(Changed(103, (), resolves="p/1"))
        assert view.usable(entry(view, at=1.0), ("a", "b"))

    def test_nothing_of_before_the_first_subscription(self) -> None:
        view = View(trusts_writers=True)
        early = entry(view, at=0.0)
        assert view.usable(early, ("a",)), "as long as there is nobody to hear of changes from"
        view.subscribed(snapshot(), asked=1.0, above=view.position)
        assert not view.usable(early, ("a",))

    def test_an_own_change_counts_from_its_acknowledgement(self) -> None:
        view, _ = subscribed()
        old = entry(view, at=0.0)
        view.acknowledged("e", ("a",), 105, "e:1-0")
        assert not view.usable(old, ("a",))
        assert view.told == "e:1-0"


class TestSubscribing:
    def test_the_same_epoch_goes_on_where_it_stood(self) -> None:
        view, stream = subscribed()
        kept = entry(view, at=0.0)
        stream.say(Changed(101, ("a",)))
        assert view.subscribed(snapshot(200, sequence=9, cursor="e:9-0"), asked=5.0, above=view.position)
        assert view.cursor == "e:1-0"
        assert view.usable(kept, ("b",))
        assert view.earliest(200) == 5.0

    def test_after_a_gap_it_starts_anew_in_the_same_epoch(self) -> None:
        view, stream = subscribed()
        kept = entry(view, at=0.0)
        with pytest.raises(Gap):
            view.apply(Entry("e:3-0", 3, "e", Changed(103, ("a",)), "e:2-0"))
        view.lose_track()
        doubts = {"q/1": ("c",)}
        assert not view.subscribed(snapshot(200, cursor="e:9-0", doubts=doubts), asked=5.0, above=view.position)
        assert view.cursor == "e:9-0"
        assert not view.usable(kept, ("b",))
        assert view.usable(entry(view, at=5.0), ("b",))
        assert not view.usable(entry(view, at=5.0), ("c",))
        del stream

    def test_another_entry_of_the_same_number_is_a_gap(self) -> None:
        view, stream = subscribed()
        stream.say(Changed(101, ("a",)))
        with pytest.raises(Gap):
            view.apply(Entry("e:2-0", 2, "e", Changed(102, ("a",)), "e:1-7"))

    def test_a_new_epoch_forgets_positions_watermark_and_doubts(self) -> None:
        view, stream = subscribed()
        view.replied("e", 110, asked=1.0, above=100)
        stream.heartbeat(position=110, stamp=111)
        stream.say(Doubted("p/1", 112, ("a",)))
        kept = entry(view, at=0.0)
        view.subscribed(snapshot(7, epoch="f"), asked=5.0, above=view.position)
        assert (view.position, view.origin, view.heartbeat, view.doubts) == (7, None, None, {})
        assert view.ended == ("e",)
        assert not view.usable(kept, ("b",))
        assert view.usable(entry(view, at=5.0), ("a",))

    def test_an_entry_of_another_epoch_is_a_gap(self) -> None:
        view, _ = subscribed()
        with pytest.raises(Gap):
            view.apply(Entry("f:1-0", 1, "f", Changed(1, ("a",)), "f:0-0"))

    def test_only_the_latest_ended_epochs_are_remembered(self) -> None:
        view = View(trusts_writers=True)
        for number in range(20):
            view.subscribed(snapshot(epoch=f"e{number}"), asked=0.0, above=view.position)
        assert view.ended == tuple(f"e{number}" for number in range(11, 19))
