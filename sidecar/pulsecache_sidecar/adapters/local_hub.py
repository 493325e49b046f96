"""The hub of one dataset in the memory of this process: what the Lua scripts do, method by method.

For sidecars without Redis, where it orders the changes of one process, and for tests. It knows nothing of the writes
of other processes: unless this one is the only way to the data (`covered`), its heartbeats say that the watermark may
not be used.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from pulsecache_sidecar.core.staleness.events import OLD_EPOCH, UNCOVERED, WHOLE_DATASET
from pulsecache_sidecar.ports import (
    Changed,
    Clock,
    Doubted,
    Entry,
    Flushed,
    ForeignEpoch,
    Member,
    Membership,
    Snapshot,
    StoredObject,
    UnknownPublisher,
    Watermark,
)

LEAP = 2**32
"""As in subscribe.lua."""


@dataclass(slots=True)
class _Publisher:
    coverage: int
    mark: int
    beats: int = 0


@dataclass(slots=True)
class _State:
    """All that Redis would hold in the dataset's hash and stream; one epoch."""

    epoch: str
    server: str | None = None
    n: int = 0
    flush: int = 0
    floor: int = 0
    sequence: int = 0
    last: str = ""
    mark: int = 0
    lead: str = ""
    stamps: dict[str, int] = field(default_factory=dict)
    publishers: dict[str, _Publisher] = field(default_factory=dict)
    doubts: dict[str, dict[str, tuple[str, ...]]] = field(default_factory=dict)
    """Publisher -> write -> tags."""
    stream: list[Entry] = field(default_factory=list)


class LocalHub:
    """`covered`: no other process takes writes to the data. `first`: nobody can have published to it before this
    process, so a first epoch has no predecessors; a Redis can never say that. `clock` limits the life of objects;
    at most `max_objects` are kept."""

    def __init__(
        self,
        clock: Clock,
        *,
        covered: bool = False,
        first: bool = True,
        failure_threshold: int = 3,
        keep: int = 16_384,
        max_objects: int = 0,
        new_id: Callable[[], str] = lambda: secrets.token_hex(8),
    ) -> None:
        self._clock = clock
        self._covered, self._first = covered, first
        self._threshold, self._keep, self._max_objects = failure_threshold, keep, max_objects
        self._new_id = new_id
        self.server = "here"
        """Whose memory this is: a test that takes some of it away says so by another name."""
        self._state: _State | None = None
        self._objects: OrderedDict[str, tuple[str, float, StoredObject]] = OrderedDict()
        self._appended = asyncio.Event()

    # --- reading ---------------------------------------------------------------------------------------------------

    async def subscribe(self, last_acknowledged: str | None, ended: Sequence[str] = ()) -> Snapshot:
        state = self._state
        if state is None or state.epoch in ended or self._lost(state, last_acknowledged):
            first = state is None and self._first
            state = self._begin(old_epoch=not first)
        state.n += 1 if state.server == self.server else LEAP
        state.server = self.server
        doubts = {write: tags for of in state.doubts.values() for write, tags in of.items()}
        return Snapshot(state.epoch, state.n, state.flush, state.floor, state.sequence, state.last, doubts)

    async def read(self, cursor: str, *, block_s: float) -> Sequence[Entry]:
        after = _sequence(cursor)
        appended = self._appended
        found = self._after(after)
        if not found and block_s > 0:
            try:
                async with asyncio.timeout(block_s):
                    while not found:
                        await appended.wait()
                        appended, found = self._appended, self._after(after)
            except TimeoutError:
                return ()
        return found

    async def sample(self, epoch: str) -> int:
        return self._position(self._of(epoch))

    async def get(self, key: str, epoch: str) -> tuple[StoredObject | None, int]:
        state = self._of(epoch)
        found = self._alive(key, epoch)
        if found is None or not self._usable(state, found.tags, found.includes):
            return None, state.n
        return StoredObject(found.payload, found.tags, valid=found.valid, includes=state.n), state.n

    async def publishers(self) -> Membership:
        state = self._state
        if state is None:
            return Membership("", 0)
        members = {name: Member(p.coverage, p.beats) for name, p in state.publishers.items()}
        return Membership(state.epoch, state.n, members)

    # --- publishing ------------------------------------------------------------------------------------------------

    async def join(self, publisher: str, epoch: str, coverage: int) -> int:
        state = self._of(epoch)
        position = self._position(state)
        known = state.publishers.get(publisher)
        if known is None:
            state.publishers[publisher] = _Publisher(min(coverage, position), state.mark - 1)
        else:
            known.coverage = max(known.coverage, min(coverage, position))
        return position

    async def beat(self, publisher: str, epoch: str, coverage: int) -> int:
        state = self._of(epoch)
        own = self._member(state, publisher)
        position = self._position(state)
        own.coverage = max(own.coverage, coverage)
        own.beats += 1
        beaten_before, own.mark = own.mark == state.mark, state.mark
        if state.lead in ("", publisher) or beaten_before:
            state.mark += 1
            state.lead, own.mark = publisher, state.mark
            counted = {name: p for name, p in state.publishers.items() if name != UNCOVERED}
            self._append(
                state,
                Watermark(
                    position=min(position, *(p.coverage for p in counted.values())),
                    lost=tuple(
                        n for n, p in counted.items() if n == OLD_EPOCH or state.mark - p.mark > self._threshold
                    ),
                    uncovered=UNCOVERED in state.publishers,
                    stamp=position,
                    lead=publisher,
                ),
            )
        return position

    async def leave(self, publisher: str, epoch: str) -> None:
        state = self._of(epoch)
        if not state.doubts.get(publisher):
            self._remove(state, publisher)

    async def change(
        self, publisher: str, epoch: str, tags: Sequence[str], *, resolves: str | None = None
    ) -> tuple[int, str]:
        state = self._of(epoch)
        stamp = self._stamp(state, tags)
        self._end_doubt(state, publisher, resolves or "")
        return stamp, self._append(state, Changed(stamp, tuple(tags), resolves))

    async def change_and_store(
        self,
        publisher: str,
        epoch: str,
        tags: Sequence[str],
        key: str,
        stored: StoredObject,
        ttl_s: float,
        *,
        sent: int,
        resolves: str | None = None,
    ) -> tuple[int, str, bool]:
        state = self._of(epoch)
        own = state.doubts.get(publisher, {}).get(resolves or "", ())
        store = self._usable(state, stored.tags, sent, own)
        stamp = self._stamp(state, tags)
        self._end_doubt(state, publisher, resolves or "")
        if store:
            self._keep_object(key, epoch, StoredObject(stored.payload, stored.tags, valid=sent, includes=stamp), ttl_s)
        return stamp, self._append(state, Changed(stamp, tuple(tags), resolves)), store

    async def put(self, key: str, epoch: str, stored: StoredObject, ttl_s: float) -> bool:
        state = self._of(epoch)
        if not self._usable(state, stored.tags, stored.includes):
            return False
        there = self._alive(key, epoch)
        if there is None or there.valid < stored.valid or not self._usable(state, there.tags, there.includes):
            self._keep_object(key, epoch, stored, ttl_s)
        return True

    async def doubt(self, publisher: str, epoch: str, write: str, tags: Sequence[str]) -> tuple[int, str]:
        state = self._of(epoch)
        self._member(state, publisher)
        stamp = self._stamp(state, tags)
        state.doubts.setdefault(publisher, {})[write] = tuple(tags)
        return stamp, self._append(state, Doubted(write, stamp, tuple(tags)))

    async def fence(self, publisher: str, epoch: str, *, beats: int | None, flush: bool) -> bool:
        state = self._of(epoch)
        member = state.publishers.get(publisher)
        if member is None or beats not in (None, member.beats):
            return False
        ended = dict(sorted(state.doubts.pop(publisher, {}).items()))
        self._remove(state, publisher)
        if flush:
            self._flush(state, tuple(ended))
        else:
            for write, tags in ended.items():
                self._append(state, Changed(self._stamp(state, tags), tags, write))
        return True

    async def cover(self, epoch: str, *, covered: bool) -> bool:
        """As cover.lua: whether every replica that serves the dataset has a sidecar."""
        state = self._of(epoch)
        if (UNCOVERED in state.publishers) != covered:
            return False
        if covered:
            self._remove(state, UNCOVERED)
            self._flush(state, ())
        else:
            state.publishers[UNCOVERED] = _Publisher(0, state.mark)
        return True

    def forget(self) -> None:
        """Loses everything, as a Redis that is restarted empty."""
        self._state = None
        self._objects.clear()

    async def aclose(self) -> None:
        """Nothing of its own is open."""

    # ---------------------------------------------------------------------------------------------------------------

    def _begin(self, *, old_epoch: bool) -> _State:
        epoch = self._new_id()
        state = self._state = _State(epoch, last=f"{epoch}:0-0")
        if old_epoch:
            state.publishers[OLD_EPOCH] = _Publisher(LEAP, 0)
        if not self._covered:
            state.publishers[UNCOVERED] = _Publisher(0, 0)
        return state

    def _lost(self, state: _State, cursor: str | None) -> bool:
        if not cursor or cursor.partition(":")[0] != state.epoch:
            return False
        sequence = _sequence(cursor)
        if sequence == 0:
            return False
        if sequence > state.sequence:
            return True
        first = state.stream[0].sequence if state.stream else 0
        return bool(first) and first <= sequence and state.stream[sequence - first].cursor != cursor

    def _of(self, epoch: str) -> _State:
        if self._state is None or self._state.epoch != epoch:
            raise ForeignEpoch
        return self._state

    def _member(self, state: _State, publisher: str) -> _Publisher:
        member = state.publishers.get(publisher)
        if member is None:
            raise UnknownPublisher
        return member

    def _position(self, state: _State) -> int:
        state.n += 1
        return state.n

    def _stamp(self, state: _State, tags: Iterable[str]) -> int:
        stamp = self._position(state)
        for tag in tags:
            if tag == WHOLE_DATASET:
                state.flush = stamp
            else:
                state.stamps[tag] = stamp
        return stamp

    def _flush(self, state: _State, ended: tuple[str, ...]) -> None:
        state.flush = self._position(state)
        self._append(state, Flushed(state.flush, ended))

    def _append(self, state: _State, event: Changed | Doubted | Flushed | Watermark) -> str:
        while len(state.stream) >= self._keep:
            self._trim(state)
        state.sequence += 1
        cursor = f"{state.epoch}:{state.sequence}-{self._new_id()}"
        state.stream.append(Entry(cursor, state.sequence, state.epoch, event, state.last))
        state.last = cursor
        appended, self._appended = self._appended, asyncio.Event()
        appended.set()
        return cursor

    def _trim(self, state: _State) -> None:
        """Stamps live as long as their entry (common.lua, make_room)."""
        old = state.stream.pop(0).event
        if isinstance(old, Changed | Doubted):
            for tag in old.tags:
                if state.stamps.get(tag) == old.stamp:
                    del state.stamps[tag]
                    state.floor = max(state.floor, old.stamp)

    def _remove(self, state: _State, publisher: str) -> None:
        state.publishers.pop(publisher, None)
        if state.lead == publisher:
            state.lead = ""

    def _end_doubt(self, state: _State, publisher: str, write: str) -> None:
        state.doubts.get(publisher, {}).pop(write, None)

    def _usable(self, state: _State, tags: Iterable[str], includes: int, own: Iterable[str] = ()) -> bool:
        if max(state.flush, state.floor) > includes or any(state.stamps.get(tag, 0) > includes for tag in tags):
            return False
        counts: dict[str, int] = {}
        for doubts in state.doubts.values():
            for doubted in doubts.values():
                for tag in doubted:
                    counts[tag] = counts.get(tag, 0) + 1
        for tag in own:
            counts[tag] -= 1
        return not any(counts.get(tag, 0) > 0 for tag in (WHOLE_DATASET, *tags))

    def _after(self, sequence: int) -> Sequence[Entry]:
        stream = self._state.stream if self._state else []
        if not stream:
            return ()
        return tuple(stream[max(0, sequence + 1 - stream[0].sequence) :])

    def _alive(self, key: str, epoch: str) -> StoredObject | None:
        of, until, stored = self._objects.get(key, ("", 0.0, None))
        return stored if of == epoch and until > self._clock.now() else None

    def _keep_object(self, key: str, epoch: str, stored: StoredObject, ttl_s: float) -> None:
        if not self._max_objects:
            return
        self._objects[key] = (epoch, self._clock.now() + ttl_s, stored)
        self._objects.move_to_end(key)
        while len(self._objects) > self._max_objects:
            self._objects.popitem(last=False)


def _sequence(cursor: str) -> int:
    return int(cursor.rpartition(":")[2].partition("-")[0] or 0)
