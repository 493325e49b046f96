"""Fences dead publishers where no controller does: our own predecessor, and by time, where that was asked for.

By time means: a publisher whose beats stood still on this process's own clock for as long as a live one's could not,
and for `settle` more. It may still be alive behind a partition, forwarding writes; that is why it must be asked for,
and why no bound is claimed then to hold against partitions.
"""

from __future__ import annotations

import logging

from pulsecache_sidecar.core.staleness.events import OLD_EPOCH, UNCOVERED
from pulsecache_sidecar.core.staleness.writes import CLOCK_TOLERANCE
from pulsecache_sidecar.engine.subscriber import Subscriber
from pulsecache_sidecar.ports import Clock

LOG = logging.getLogger(__name__)


class Fencer:
    """`predecessor`: publisher id of the process that ran before this one on the same data; certainly dead.
    `unattended`: fence the others by time, too."""

    def __init__(
        self,
        subscriber: Subscriber,
        clock: Clock,
        *,
        own_id: str,
        predecessor: str | None,
        unattended: bool,
        settle_s: float,
        silence_s: float,
    ) -> None:
        self._subscriber = subscriber
        self._clock = clock
        self._own_id = own_id
        self._predecessor = predecessor
        self._unattended = unattended
        self._settle_s = settle_s * CLOCK_TOLERANCE
        self._silence_s = silence_s * CLOCK_TOLERANCE
        self._started = clock.now()
        self._epoch = ""
        self._still: dict[str, tuple[int, float]] = {}
        """Publisher -> (beats, since when unchanged)."""
        self._looked = float("-inf")

    async def step(self) -> None:
        """Once an interval. Raises HubError, ForeignEpoch."""
        now = self._clock.now()
        # What the predecessor had sent takes effect by then, or never.
        if self._predecessor is not None and now - self._started > self._settle_s:
            await self._fence(self._predecessor, None)
            self._predecessor = None
        if self._unattended:
            await self._watch(now)

    async def _watch(self, now: float) -> None:
        seen, epoch = await self._subscriber.ask(lambda _: self._subscriber.hub.publishers())
        if seen.epoch != epoch:
            return
        if epoch != self._epoch or now - self._looked > self._silence_s:
            # While the hub was away nobody could beat.
            self._epoch, self._still = epoch, {}
        self._looked = now
        still: dict[str, tuple[int, float]] = {}
        for publisher, member in seen.publishers.items():
            if publisher in (self._own_id, UNCOVERED):
                continue
            beats, since = self._still.get(publisher, (-1, now))
            still[publisher] = (beats, since) if beats == member.beats else (member.beats, now)
        self._still = still
        for publisher, (beats, since) in still.items():
            wait_s = self._settle_s + (0.0 if publisher == OLD_EPOCH else self._silence_s)
            if now - since > wait_s:
                await self._fence(publisher, beats)

    async def _fence(self, publisher: str, beats: int | None) -> None:
        removed, _ = await self._subscriber.ask(
            lambda epoch: self._subscriber.hub.fence(publisher, epoch, beats=beats, flush=True)
        )
        if removed:
            LOG.warning("publisher %s is gone: it no longer holds the watermark, and the cache starts anew", publisher)
