"""Publishes this process's writes: joins, beats, announces changes, puts slow writes in doubt, leaves.

Decides nothing about staleness itself: coverage, doubts and what is due are `core.staleness.writes`. A hub that is away
costs an announcement nothing but time: it stays queued, and holds the coverage, until it is acknowledged.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from pulsecache_sidecar.core.staleness.validity import Validity
from pulsecache_sidecar.core.staleness.writes import Phase, Write, Writes
from pulsecache_sidecar.engine.subscriber import Subscriber
from pulsecache_sidecar.errors import HubError
from pulsecache_sidecar.ports import Clock, Doubted, Entry, ForeignEpoch, StoredObject, UnknownPublisher

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Produced:
    """What a write-through would store."""

    key: str
    payload: bytes
    tags: tuple[str, ...]
    ttl_s: float


class Publisher:
    """`publisher_id`: unique for each start of the process. `member`: whether it has the write role at all; without it
    changes are still announced (purges), but nobody waits for its beats."""

    def __init__(
        self, publisher_id: str, writes: Writes, subscriber: Subscriber, clock: Clock, *, member: bool
    ) -> None:
        self.id = publisher_id
        self.writes = writes
        self._subscriber = subscriber
        self._view = subscriber.view
        self._hub = subscriber.hub
        self._clock = clock
        self.member = member

    async def join(self) -> None:
        """With the coverage of this moment; again at each subscription, and when a beat finds us unknown."""
        if self.member:
            await self._subscriber.ask(lambda epoch: self._hub.join(self.id, epoch, self._coverage(epoch)), int)

    async def beat(self) -> None:
        """Asks for a position first: coverage can be no younger than the position that was seen before it is fixed."""
        await self._subscriber.sample()
        try:
            await self._subscriber.ask(lambda epoch: self._hub.beat(self.id, epoch, self._coverage(epoch)), int)
        except UnknownPublisher:
            LOG.warning("publisher %s was fenced; it joins again", self.id)
            await self.join()

    async def announce(self, write: Write, produced: Produced | None = None) -> Validity | None:
        """Announces a completed write, and stores what it produced unless writes overlapped; the validity of what was
        stored. None where nothing was, and where the hub is away: `catch_up` tries again."""
        write.announcing = True
        resolves = write.id if write.doubt_tried else None
        try:
            if produced is not None and write.epoch == self._view.epoch and not self.writes.overlapped(write):
                stored = StoredObject(produced.payload, produced.tags, valid=write.sent, includes=write.sent)
                (stamp, cursor, done), epoch = await self._subscriber.ask(
                    lambda epoch: self._hub.change_and_store(
                        self.id,
                        epoch,
                        write.tags,
                        produced.key,
                        stored,
                        produced.ttl_s,
                        sent=write.sent,
                        resolves=resolves,
                    )
                )
                done = done and epoch == write.epoch
            else:
                done = False
                (stamp, cursor), epoch = await self._subscriber.ask(
                    lambda epoch: self._hub.change(self.id, epoch, write.tags, resolves=resolves)
                )
        except (HubError, ForeignEpoch) as error:
            LOG.debug("the change of write %s waits to be announced: %r", write.id, error)
            return None
        finally:
            write.announcing = False
        self.writes.announced(write)
        self._view.acknowledged(epoch, write.tags, stamp, cursor)
        return Validity(epoch, write.sent, stamp, write.at, write.order) if done else None

    async def catch_up(self) -> None:
        """Announces what could not be announced, what has settled, and puts in doubt what takes long."""
        self.writes.settle(self._clock.now())
        for write in self.writes.to_announce():
            await self.announce(write)
            if write in self.writes:
                return  # the hub is away: one time-out is enough
        epoch = self._view.epoch
        if epoch is None or not self.member:
            return
        for write in self.writes.to_doubt(epoch, self._clock.now()):
            await self._doubt(write)

    async def leave(self) -> None:
        """Only with nothing open: what is open holds the watermark until it is announced or we are fenced."""
        if self.member and not len(self.writes):
            await self._subscriber.ask(lambda epoch: self._hub.leave(self.id, epoch))

    def consumed(self, entry: Entry) -> None:
        """A doubt of ours that arrived after its write was over must be ended once more."""
        if isinstance(entry.event, Doubted):
            self._adopt(entry.event.write, entry.event.tags)

    def adopt_doubts(self) -> None:
        for write, tags in list(self._view.doubts.items()):
            self._adopt(write, tags)

    def _adopt(self, write: str, tags: tuple[str, ...]) -> None:
        self.writes.adopt(write, tags, self._view.epoch, self._view.position, self._clock.now())

    def _coverage(self, epoch: str) -> int:
        return self.writes.coverage(epoch, self._view.position)

    async def _doubt(self, write: Write) -> None:
        write.doubt_tried = write.doubting = True
        tags = write.tags
        try:
            (stamp, cursor), epoch = await self._subscriber.ask(
                lambda epoch: self._hub.doubt(self.id, epoch, write.id, tags)
            )
        except UnknownPublisher:
            await self.join()
            return
        finally:
            write.doubting = False
        if write.tags == tags and write.phase is not Phase.DONE:
            write.doubted_in = epoch
        self._view.acknowledged(epoch, tags, stamp, cursor)
