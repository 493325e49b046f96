"""Rules of the staleness protocol left out on purpose: a check that does not notice checks nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from pulsecache_sidecar.adapters import local_hub
from pulsecache_sidecar.adapters.local_hub import LocalHub
from pulsecache_sidecar.core.staleness.events import Watermark
from pulsecache_sidecar.core.staleness.positions import PositionLog
from pulsecache_sidecar.core.staleness.stamps import Stamps
from pulsecache_sidecar.core.staleness.view import View
from pulsecache_sidecar.core.staleness.writes import Write, Writes
from pulsecache_sidecar.engine.coherence import Coherence
from pulsecache_sidecar.engine.publisher import Publisher

Mutation = Callable[[pytest.MonkeyPatch], None]


def coverage_does_not_wait_for_open_writes(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Writes, "coverage", lambda self, epoch, position: position)


def coverage_is_the_position_at_arrival(patch: pytest.MonkeyPatch) -> None:
    beat = LocalHub.beat

    async def late(self: LocalHub, publisher: str, epoch: str, coverage: int) -> int:
        return await beat(self, publisher, epoch, (await self.publishers()).position)

    patch.setattr(LocalHub, "beat", late)


def a_write_of_another_epoch_does_not_hold_coverage(patch: pytest.MonkeyPatch) -> None:
    def coverage(self: Writes, epoch: str, position: int) -> int:
        own = [write.sent for write in self._open.values() if write.epoch == epoch and write.doubted_in != epoch]
        return min([position, *own])

    patch.setattr(Writes, "coverage", coverage)


def a_doubt_counts_in_every_epoch(patch: pytest.MonkeyPatch) -> None:
    def coverage(self: Writes, epoch: str, position: int) -> int:
        own = [w.sent if w.epoch == epoch else 0 for w in self._open.values() if w.doubted_in is None]
        return min([position, *own])

    patch.setattr(Writes, "coverage", coverage)


def a_doubt_is_only_a_change(patch: pytest.MonkeyPatch) -> None:
    async def doubt(self: LocalHub, publisher: str, epoch: str, write: str, tags: Iterable[str]) -> Any:
        return await self.change(publisher, epoch, tuple(tags))

    patch.setattr(LocalHub, "doubt", doubt)


def subscribing_tells_no_doubts(patch: pytest.MonkeyPatch) -> None:
    subscribe = LocalHub.subscribe

    async def silent(self: LocalHub, last_acknowledged: str | None, ended: Sequence[str] = ()) -> Any:
        return replace(await subscribe(self, last_acknowledged, ended), doubts={})

    patch.setattr(LocalHub, "subscribe", silent)


def a_fill_is_not_checked(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Stamps, "stamp", lambda self, tags, number: None)


def a_new_subscription_keeps_what_was_begun_before(patch: pytest.MonkeyPatch) -> None:
    clear = Stamps.clear
    patch.setattr(Stamps, "clear", lambda self, floor=0: clear(self))


def forgotten_stamps_raise_no_floor(patch: pytest.MonkeyPatch) -> None:
    def trim(self: LocalHub, state: Any) -> None:
        old = state.stream.pop(0).event
        for tag in () if isinstance(old, Watermark) else getattr(old, "tags", ()):
            if state.stamps.get(tag) == old.stamp:
                del state.stamps[tag]

    patch.setattr(LocalHub, "_trim", trim)


def a_gap_in_the_stream_is_not_noticed(patch: pytest.MonkeyPatch) -> None:
    apply = View.apply
    patch.setattr(View, "apply", lambda self, entry: apply(self, replace(entry, previous=self.cursor)))


def the_shared_store_is_not_checked(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(LocalHub, "_usable", lambda self, state, tags, includes, own=(): True)


def a_look_up_counts_its_position_as_given_out(patch: pytest.MonkeyPatch) -> None:
    replied = View.replied

    def counting(self: View, epoch: str, position: int, asked: float, above: int, *, given_out: bool = True) -> None:
        replied(self, epoch, position, asked, above, given_out=given_out)
        if epoch == self.epoch and not given_out:
            self.position = max(self.position, position + 1)

    patch.setattr(View, "replied", counting)


def age_counts_from_a_later_reply(patch: pytest.MonkeyPatch) -> None:
    def earliest(self: PositionLog, position: int) -> float | None:
        later = [at for known, at in zip(self._positions, self._asked, strict=True) if known > position]
        return min(later) if later else (self._asked[-1] if self._asked else None)

    patch.setattr(PositionLog, "earliest", earliest)


def the_watermark_is_as_young_as_its_arrival(patch: pytest.MonkeyPatch) -> None:
    heard = View._heard

    def young(self: View, heartbeat: Watermark) -> None:
        heard(self, replace(heartbeat, position=self.position))

    patch.setattr(View, "_heard", young)


def an_unknown_outcome_settles_at_once(patch: pytest.MonkeyPatch) -> None:
    unknown = Writes.unknown

    def settled(self: Writes, write: Write, now: float, extra_tags: Iterable[str] = ()) -> None:
        unknown(self, write, now, extra_tags)
        write.settles_at = now - 1

    patch.setattr(Writes, "unknown", settled)


def settling_counts_from_the_first_byte(patch: pytest.MonkeyPatch) -> None:
    unknown = Writes.unknown

    def early(self: Writes, write: Write, now: float, extra_tags: Iterable[str] = ()) -> None:
        write.last_byte = write.at
        unknown(self, write, now, extra_tags)

    patch.setattr(Writes, "unknown", early)


def fencing_does_not_flush(patch: pytest.MonkeyPatch) -> None:
    fence = LocalHub.fence

    async def quiet(self: LocalHub, publisher: str, epoch: str, *, beats: int | None, flush: bool) -> bool:
        return await fence(self, publisher, epoch, beats=beats, flush=False)

    patch.setattr(LocalHub, "fence", quiet)


def a_new_epoch_does_not_wait_for_the_old_publishers(patch: pytest.MonkeyPatch) -> None:
    begin = LocalHub._begin
    patch.setattr(LocalHub, "_begin", lambda self, *, old_epoch: begin(self, old_epoch=False))


def an_entry_outlives_its_epoch(patch: pytest.MonkeyPatch) -> None:
    usable = View.usable
    patch.setattr(View, "usable", lambda self, validity, tags: usable(self, replace(validity, epoch=self.epoch), tags))


def a_write_through_that_overlapped_is_stored(patch: pytest.MonkeyPatch) -> None:
    async def store(
        self: LocalHub, publisher: str, epoch: str, tags: Any, key: str, stored: Any, ttl_s: float, **more: Any
    ) -> tuple[int, str, bool]:
        stamp, cursor = await self.change(publisher, epoch, tags, resolves=more.get("resolves"))
        self._keep_object(key, epoch, replace(stored, includes=stamp), ttl_s)
        return stamp, cursor, True

    patch.setattr(LocalHub, "change_and_store", store)
    patch.setattr(Writes, "overlapped", lambda self, write: False)


def a_write_through_is_as_young_as_its_stamp(patch: pytest.MonkeyPatch) -> None:
    announce = Publisher.announce

    async def young(self: Publisher, write: Write, produced: Any = None) -> Any:
        validity = await announce(self, write, produced)
        return validity and replace(validity, valid=validity.includes, at=self._clock.now())

    patch.setattr(Publisher, "announce", young)


def own_writes_are_not_remembered(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Writes, "admits", lambda self, order, tags: True)


def a_look_up_is_taken_to_know_unannounced_writes(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Writes, "shared_order", property(lambda self: self.order))


def a_change_is_forgotten_when_the_hub_does_not_answer(patch: pytest.MonkeyPatch) -> None:
    announce = Publisher.announce

    async def once(self: Publisher, write: Write, produced: Any = None) -> Any:
        try:
            return await announce(self, write, produced)
        finally:
            self.writes.announced(write)

    patch.setattr(Publisher, "announce", once)


def a_cancelled_request_takes_its_announcement_along(patch: pytest.MonkeyPatch) -> None:
    async def announce(self: Coherence, write: Write, produced: Any) -> Any:
        try:
            return await self._publisher.announce(write, produced)
        except BaseException:
            self._writes.announced(write)
            raise

    patch.setattr(Coherence, "announce", announce)


def a_lost_end_is_not_looked_for(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(LocalHub, "_lost", lambda self, state, cursor: False)


def the_counter_does_not_leap(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(local_hub, "LEAP", 1)
    subscribed = View.subscribed
    patch.setattr(View, "subscribed", lambda self, snapshot, asked, above: subscribed(self, snapshot, asked, -1))
    replied = View.replied

    def trusting(self: View, epoch: str, position: int, asked: float, above: int, *, given_out: bool = True) -> None:
        replied(self, epoch, position, asked, -1, given_out=given_out)

    patch.setattr(View, "replied", trusting)


def an_epoch_that_ended_may_come_back(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(View, "_end_epoch", lambda self: None)


MUTATIONS: tuple[Mutation, ...] = (
    coverage_does_not_wait_for_open_writes,
    coverage_is_the_position_at_arrival,
    a_write_of_another_epoch_does_not_hold_coverage,
    a_doubt_counts_in_every_epoch,
    a_doubt_is_only_a_change,
    subscribing_tells_no_doubts,
    a_fill_is_not_checked,
    a_new_subscription_keeps_what_was_begun_before,
    forgotten_stamps_raise_no_floor,
    a_gap_in_the_stream_is_not_noticed,
    the_shared_store_is_not_checked,
    a_look_up_counts_its_position_as_given_out,
    age_counts_from_a_later_reply,
    the_watermark_is_as_young_as_its_arrival,
    an_unknown_outcome_settles_at_once,
    settling_counts_from_the_first_byte,
    fencing_does_not_flush,
    a_new_epoch_does_not_wait_for_the_old_publishers,
    an_entry_outlives_its_epoch,
    a_write_through_that_overlapped_is_stored,
    a_write_through_is_as_young_as_its_stamp,
    own_writes_are_not_remembered,
    a_look_up_is_taken_to_know_unannounced_writes,
    a_change_is_forgotten_when_the_hub_does_not_answer,
    a_cancelled_request_takes_its_announcement_along,
    a_lost_end_is_not_looked_for,
    the_counter_does_not_leap,
    an_epoch_that_ended_may_come_back,
)
