"""Follows a dataset's stream: subscribes, reads, applies; subscribes again whenever anything is in doubt.

Owns the View and every call to the hub that depends on its epoch. Leaves to others: what this process writes
(`publisher`) and what is done with the answer (`coherence`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from pulsecache_sidecar.core.staleness.view import Gap, View
from pulsecache_sidecar.errors import HubError
from pulsecache_sidecar.ports import Clock, Entry, ForeignEpoch, Hub, HubSkipped, Observer

LOG = logging.getLogger(__name__)
T = TypeVar("T")

MAX_BACKOFF_S = 2.0


class Subscriber:
    """`random`: in [0, 1), for jitter. `joined` is awaited after each subscription, before anything is read;
    `consumed` is told of each entry."""

    def __init__(
        self,
        dataset: str,
        view: View,
        hub: Hub,
        clock: Clock,
        observer: Observer,
        *,
        block_s: float,
        random: Callable[[], float],
        joined: Callable[[], Awaitable[None]],
        consumed: Callable[[Entry], None],
    ) -> None:
        self.view = view
        self.hub = hub
        self._dataset = dataset
        self._clock = clock
        self._observer = observer
        self._block_s = block_s
        self._random = random
        self._joined = joined
        self._consumed = consumed
        self.live = False
        """Subscribed, and nothing known to be wrong with it."""
        self.subscribed = asyncio.Event()
        """Set once the first subscription (and joining) is done."""
        self._patience: asyncio.Timeout | None = None
        self._away = False

    async def run(self) -> None:
        failures = 0
        while True:
            try:
                await self._subscribe()
                while True:
                    entries = await self._read()
                    for entry in entries:
                        self.view.apply(entry)
                        self._consumed(entry)
                    if entries:
                        failures = 0
            except Gap as gap:
                LOG.warning("dataset %s: the cache starts anew: %s", self._dataset, gap)
                self.view.lose_track()
            except ForeignEpoch:
                LOG.warning("dataset %s: its epoch is over, the cache starts anew", self._dataset)
            except HubError as error:
                if not self._away:
                    LOG.warning("dataset %s: no word from the hub, the bound grows from here: %s", self._dataset, error)
                self._away = True
            self.live = False
            # The first attempt follows at once: most troubles are over with a new connection.
            delay_s = min(MAX_BACKOFF_S, 0.05 * 2**failures) if failures else 0.0
            failures = min(failures + 1, 10)
            await asyncio.sleep(delay_s * (0.5 + self._random()))

    def renew(self) -> None:
        """Something is wrong with the subscription: a new one is made, now."""
        self.live = False
        if self._patience is not None and not self._patience.expired():
            self._patience.reschedule(asyncio.get_running_loop().time())

    async def ask(
        self,
        operation: Callable[[str], Awaitable[T]],
        position: Callable[[T], int] | None = None,
        *,
        given_out: bool = True,
    ) -> tuple[T, str]:
        """One call to the hub in the current epoch; returns its answer and that epoch.

        `position`: takes the position out of an answer, to keep it with the instant of asking; `given_out` as in
        View.replied. Raises HubError (also where nothing is subscribed), ForeignEpoch, UnknownPublisher.
        """
        epoch, asked, above = self.view.epoch, self._clock.now(), self.view.position
        if epoch is None:
            raise HubError("not subscribed yet")
        result = await self._counted(operation(epoch))
        if position is not None:
            try:
                self.view.replied(epoch, position(result), asked, above, given_out=given_out)
            except Gap as gap:
                self.view.lose_track()
                self.renew()
                raise HubError(str(gap)) from gap
        return result, epoch

    async def sample(self) -> None:
        await self.ask(self.hub.sample, int)

    async def _subscribe(self) -> None:
        asked, above = self._clock.now(), self.view.position
        snapshot = await self._counted(self.hub.subscribe(self.view.told or None, self.view.ended))
        resumed = self.view.subscribed(snapshot, asked, above)
        await self._joined()
        self.live = True
        self.subscribed.set()
        if self._away or not resumed:
            LOG.info("dataset %s: subscribed at epoch %s", self._dataset, snapshot.epoch)
        self._away = False

    async def _read(self) -> list[Entry]:
        try:
            async with asyncio.timeout(None) as self._patience:
                if not self.live:
                    raise HubError("the subscription is to be renewed")
                return list(await self.hub.read(self.view.cursor, block_s=self._block_s))
        except TimeoutError as error:
            raise HubError("the subscription is to be renewed") from error
        finally:
            self._patience = None

    async def _counted(self, call: Awaitable[T]) -> T:
        try:
            result = await call
        except HubSkipped:
            self._observer.hub_call("short-circuit")
            raise
        except ForeignEpoch:
            self._observer.hub_call("ok")
            self.renew()
            raise
        except HubError:
            self._observer.hub_call("error")
            raise
        self._observer.hub_call("ok")
        return result
