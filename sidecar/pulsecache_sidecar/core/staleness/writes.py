"""The process's own writes, from before their first byte is sent until their change is announced.

Three questions are answered here. *Coverage*: up to which position are all own changes announced? *Doubts*: which
writes take too long to hold the whole dataset back? *Own order*: does an entry contain every write that this process
has acknowledged, whether or not the hub could be told?
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from pulsecache_sidecar.core.staleness.events import WHOLE_DATASET
from pulsecache_sidecar.core.staleness.stamps import Stamps

CLOCK_TOLERANCE = 1.02
"""Waits that end a promise are stretched by this: two clocks may differ by 2 %."""

MAX_DOUBTS = 256
"""Open doubts of one publisher; further writes hold the watermark back, as if there were no doubts."""


class Phase(Enum):
    OPEN = "open"
    """It may take effect at any moment."""
    UNKNOWN = "unknown"
    """Nobody will tell whether it took effect: it may, until it is settled."""
    DONE = "done"
    """It took effect, or may have, and will not any more: it waits to be announced."""


@dataclass(slots=True, eq=False)
class Write:
    id: str
    tags: tuple[str, ...]
    epoch: str | None
    sent: int
    """Position seen before its first byte was sent."""
    at: float
    """Own clock at that moment."""
    phase: Phase = Phase.OPEN
    last_byte: float | None = None
    settles_at: float = 0.0
    order: int = 0
    """Its number among the own writes that completed."""
    doubted_in: str | None = None
    """The epoch that acknowledged its doubt."""
    doubt_tried: bool = False
    """A doubt was sent; whether it arrived may be unknown. The announcement ends it."""
    doubting: bool = False
    announcing: bool = False
    """A call to the hub about it is on its way."""


class Writes:
    def __init__(self, publisher: str, *, settle_s: float, interval_s: float, stamps_limit: int = 16_384) -> None:
        self._publisher = publisher
        self._settle_s = settle_s * CLOCK_TOLERANCE
        self._interval_s = interval_s
        self._number = 0
        self._open: dict[str, Write] = {}
        self.order = 0
        """How many own writes have completed."""
        self._stamps = Stamps(stamps_limit)
        self._blocked: dict[str, int] = {}

    def __len__(self) -> int:
        """How many are open: not announced."""
        return len(self._open)

    def __contains__(self, write: Write) -> bool:
        return write.id in self._open

    # --- the life of a write ---------------------------------------------------------------------------------------

    def open(self, tags: Iterable[str], epoch: str | None, position: int, now: float) -> Write:
        self._number += 1
        write = Write(f"{self._publisher}/{self._number}", _unique(tags), epoch, position, now)
        self._open[write.id] = write
        return write

    def done(self, write: Write, extra_tags: Iterable[str] = ()) -> None:
        """It took effect. From here on nothing begun before is usable for its tags."""
        if write.phase is Phase.OPEN:
            write.tags = _unique((*write.tags, *extra_tags))
            self._complete(write)

    def unknown(self, write: Write, now: float, extra_tags: Iterable[str] = ()) -> None:
        """It may take effect until `settle` after its last byte: until then nothing of its tags is usable here."""
        if write.phase is not Phase.OPEN:
            return
        tags = _unique((*write.tags, *extra_tags))
        if tags != write.tags:
            write.doubted_in = None  # what the hub doubts so far is too little
        write.tags, write.phase = tags, Phase.UNKNOWN
        write.settles_at = (now if write.last_byte is None else write.last_byte) + self._settle_s
        for tag in tags:
            self._blocked[tag] = self._blocked.get(tag, 0) + 1

    def refused(self, write: Write) -> None:
        """It changed nothing. Only a doubt about it must still be ended."""
        if write.phase is not Phase.OPEN:
            return
        if write.doubt_tried:
            self._complete(write)
        else:
            self._open.pop(write.id, None)

    def settle(self, now: float) -> None:
        """What has been unknown for long enough will not take effect any more: it can be announced."""
        for write in self._open.values():
            if write.phase is Phase.UNKNOWN and now > write.settles_at:
                self._unblock(write)
                self._complete(write)

    def announced(self, write: Write) -> None:
        self._open.pop(write.id, None)

    def adopt(self, write_id: str, tags: tuple[str, ...], epoch: str | None, position: int, now: float) -> None:
        """A doubt of this process is open in the hub, but its write is over: the doubt arrived after its end."""
        if write_id.startswith(f"{self._publisher}/") and write_id not in self._open:
            write = Write(write_id, tags, epoch, position, now, doubt_tried=True)
            self._open[write_id] = write
            self._complete(write)

    # --- what is to be told ----------------------------------------------------------------------------------------

    def coverage(self, epoch: str, position: int) -> int:
        """All own changes that took effect before this position was given out are announced in `epoch`.

        `position`: the current one, seen before this snapshot is taken. A write sent in another epoch holds it at 0.
        """
        held = [write.sent if write.epoch == epoch else 0 for write in self._open.values() if write.doubted_in != epoch]
        return min(position, *held) if held else position

    def to_announce(self) -> list[Write]:
        return [write for write in self._open.values() if write.phase is Phase.DONE and not write.announcing]

    def to_doubt(self, epoch: str, now: float) -> list[Write]:
        """Writes whose outcome is unknown, or that have been open for longer than an interval."""
        room = MAX_DOUBTS - sum(1 for write in self._open.values() if write.doubted_in == epoch)
        due = [
            write
            for write in self._open.values()
            if write.doubted_in != epoch
            and not write.doubting
            and (write.phase is Phase.UNKNOWN or (write.phase is Phase.OPEN and now - write.at > self._interval_s))
        ]
        return due[: max(0, room)]

    def overlapped(self, write: Write) -> bool:
        """Whether another own write of one of its tags is not yet announced: their order at the origin is unknown."""
        tags = set(write.tags)
        return any(
            other is not write
            and (WHOLE_DATASET in tags or WHOLE_DATASET in other.tags or not tags.isdisjoint(other.tags))
            for other in self._open.values()
        )

    # --- own order -------------------------------------------------------------------------------------------------

    @property
    def shared_order(self) -> int:
        """Up to this number all own completed writes are acknowledged by the hub."""
        waiting = [write.order for write in self._open.values() if write.phase is Phase.DONE]
        return min(waiting) - 1 if waiting else self.order

    def admits(self, order: int, tags: tuple[str, ...]) -> bool:
        """Whether something that contains the own writes up to `order` contains all of these tags."""
        if not self._stamps.admits(order, tags):
            return False
        blocked = self._blocked
        return not blocked or not (WHOLE_DATASET in blocked or any(tag in blocked for tag in tags))

    # ---------------------------------------------------------------------------------------------------------------

    def _complete(self, write: Write) -> None:
        self.order += 1
        write.order, write.phase = self.order, Phase.DONE
        self._stamps.stamp(write.tags, self.order)

    def _unblock(self, write: Write) -> None:
        for tag in write.tags:
            left = self._blocked[tag] - 1
            if left:
                self._blocked[tag] = left
            else:
                del self._blocked[tag]


def _unique(tags: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(tags))
