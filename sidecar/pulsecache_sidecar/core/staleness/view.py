"""What one process knows of a dataset: fed with replies and stream entries, asked on every hit.

Leaves to others: fetching the entries (engine.subscriber), the process's own open writes (`writes`), and naming the
state (`state`).
"""

from __future__ import annotations

from collections.abc import Iterable

from pulsecache_sidecar.core.staleness.events import (
    WHOLE_DATASET,
    Changed,
    Doubted,
    Entry,
    Flushed,
    Snapshot,
    Watermark,
)
from pulsecache_sidecar.core.staleness.positions import PositionLog
from pulsecache_sidecar.core.staleness.stamps import Stamps
from pulsecache_sidecar.core.staleness.validity import Validity

ENDED_EPOCHS = 8


class Gap(Exception):
    """Something of the stream was missed, or the hub lost its end: subscribe again."""


class View:
    """`trusts_writers`: every write to the data goes through a publisher (the policy says `writers: All`)."""

    def __init__(self, *, trusts_writers: bool, stamps_limit: int = 16_384) -> None:
        self._trusts_writers = trusts_writers
        self.epoch: str | None = None
        self.position = 0
        """The highest position seen in any reply or entry of this epoch."""
        self.cursor = ""
        """The last entry consumed; empty where the next subscription starts anew."""
        self.told = ""
        """The last entry this process was told of: consumed, or acknowledged to it as its own."""
        self._told_at = 0
        self.ended: tuple[str, ...] = ()
        """The latest epochs that were seen to end: a hub that is back in one of them has lost what came after."""
        self.watermark = 0
        self.origin: float | None = None
        """Own-clock instant: whatever took effect earlier is consumed. The age of the watermark counts from here."""
        self.heartbeat: float | None = None
        """Own-clock instant not later than when the newest heartbeat consumed was appended."""
        self.uncovered = False
        self.lost: tuple[str, ...] = ()
        self.lead = ""
        self._log = PositionLog()
        self._stamps = Stamps(stamps_limit)
        self._doubts: dict[str, tuple[str, ...]] = {}
        self._doubted: dict[str, int] = {}

    # --- what comes in ---------------------------------------------------------------------------------------------

    def subscribed(self, snapshot: Snapshot, asked: float, above: int) -> bool:
        """Takes the reply of `subscribe`; True where reading goes on at `cursor` without a break.

        Otherwise everything begun before the reply is unusable: changes up to the snapshot were not consumed here.
        `above` and Gap as in `replied`.
        """
        if snapshot.epoch == self.epoch and snapshot.position <= above:
            raise self._gone_back(snapshot.position, above)
        resumed = snapshot.epoch == self.epoch and self.cursor != ""
        if snapshot.epoch != self.epoch:
            self._end_epoch()
            self.epoch, self.position = snapshot.epoch, 0
            self._log.clear()
            self.watermark, self.origin, self.heartbeat = 0, None, None
            self.lost, self.lead, self.told, self._told_at = (), "", "", 0
            # `uncovered` stays until a heartbeat says otherwise.
        if not resumed:
            self.cursor = snapshot.cursor
            self._stamps.clear(floor=snapshot.position)
            self._doubts, self._doubted = {}, {}
            for write, tags in snapshot.doubts.items():
                self._doubt(write, tags)
            self._tell(snapshot.cursor, snapshot.position)
        self.position = max(self.position, snapshot.position)
        self._log.add(snapshot.position, asked)
        return resumed

    def lose_track(self) -> None:
        """After a Gap: the next subscription starts anew."""
        self.cursor = ""

    def replied(self, epoch: str, position: int, asked: float, above: int, *, given_out: bool = True) -> None:
        """A reply carried `position`; it was asked for when `above` was the highest position seen.

        `given_out`: newly, for this call. Else the counter was only read: then its successor is the first position that
        was certainly given out later than `asked`, and it may not be counted as seen. Raises Gap where the counter
        went backwards: the hub lost what it had said.
        """
        if epoch != self.epoch:
            return
        youngest = position if given_out else position + 1
        if youngest <= above:
            raise self._gone_back(position, above)
        self.position = max(self.position, position)
        self._log.add(youngest, asked)

    def acknowledged(self, epoch: str, tags: Iterable[str], stamp: int, cursor: str) -> None:
        """An own change was stamped; its entry need not be waited for."""
        if epoch == self.epoch:
            self.position = max(self.position, stamp)
            self._stamps.stamp(tags, stamp)
            self._tell(cursor, stamp)

    def apply(self, entry: Entry) -> None:
        """Consumes the next entry of the stream. Raises Gap where it is not the next."""
        if entry.epoch != self.epoch:
            raise Gap(f"epoch {entry.epoch} has begun")
        if entry.previous != self.cursor:
            raise Gap(f"entry {entry.cursor} follows {entry.previous}, not {self.cursor}")
        self.cursor = entry.cursor
        self._tell(entry.cursor, entry.event.stamp)
        match entry.event:
            case Changed(stamp, tags, resolves):
                self._stamped(tags, stamp)
                if resolves is not None:
                    self._resolve(resolves)
            case Doubted(write, stamp, tags):
                self._stamped(tags, stamp)
                self._resolve(write)
                self._doubt(write, tags)
            case Flushed(stamp, ended):
                self._stamped((WHOLE_DATASET,), stamp)
                for write in ended:
                    self._resolve(write)
            case Watermark() as heartbeat:
                self._heard(heartbeat)

    # --- what is asked ---------------------------------------------------------------------------------------------

    def usable(self, validity: Validity, tags: tuple[str, ...]) -> bool:
        """Whether an entry may be served from the cache: no change, flush or doubt that is consumed hits it."""
        if validity.epoch != self.epoch or not self._stamps.admits(validity.includes, tags):
            return False
        doubted = self._doubted
        return not doubted or not (WHOLE_DATASET in doubted or any(tag in doubted for tag in tags))

    def bound(self, validity: Validity, now: float) -> float:
        """Seconds: how old the information in a *usable* entry may be at most."""
        since, origin = validity.at, self.origin
        if origin is not None and origin > since and self._trusts_writers and not self.uncovered:
            since = origin
        return now - since if now > since else 0.0

    @property
    def trusted_origin(self) -> float | None:
        """`origin` where the watermark may be used."""
        return self.origin if self._trusts_writers and not self.uncovered else None

    @property
    def covered(self) -> bool:
        return self._trusts_writers and not self.uncovered

    def earliest(self, position: int) -> float | None:
        return self._log.earliest(position)

    @property
    def doubts(self) -> dict[str, tuple[str, ...]]:
        return self._doubts

    # ---------------------------------------------------------------------------------------------------------------

    def _end_epoch(self) -> None:
        if self.epoch is not None and self.epoch not in self.ended:
            self.ended = (*self.ended, self.epoch)[-ENDED_EPOCHS:]

    def _gone_back(self, position: int, above: int) -> Gap:
        """Positions of this epoch are given out twice: what includes them means nothing any more, for nobody."""
        self._end_epoch()
        return Gap(f"the counter was at {position} after {above}: the hub lost its end")

    def _heard(self, heartbeat: Watermark) -> None:
        self.position = max(self.position, heartbeat.stamp, heartbeat.position)
        self.uncovered, self.lost, self.lead = heartbeat.uncovered, heartbeat.lost, heartbeat.lead
        self.watermark = max(self.watermark, heartbeat.position)
        # A rejoining publisher may lower the minimum; what an earlier heartbeat promised stays true.
        self.origin = _latest(self.origin, self._log.earliest(heartbeat.position))
        self.heartbeat = _latest(self.heartbeat, self._log.earliest(heartbeat.stamp))

    def _stamped(self, tags: Iterable[str], stamp: int) -> None:
        self.position = max(self.position, stamp)
        self._stamps.stamp(tags, stamp)

    def _doubt(self, write: str, tags: tuple[str, ...]) -> None:
        self._doubts[write] = tags
        for tag in tags:
            self._doubted[tag] = self._doubted.get(tag, 0) + 1

    def _resolve(self, write: str) -> None:
        for tag in self._doubts.pop(write, ()):
            left = self._doubted[tag] - 1
            if left:
                self._doubted[tag] = left
            else:
                del self._doubted[tag]

    def _tell(self, cursor: str, stamp: int) -> None:
        if stamp >= self._told_at:  # stamps rise along the stream
            self.told, self._told_at = cursor, stamp


def _latest(one: float | None, other: float | None) -> float | None:
    return one if other is None or (one is not None and one >= other) else other
