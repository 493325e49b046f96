"""One fetch for all who want the same thing at the same time, running by itself: no client can cancel or slow it.

Who flies, who waits, and which keys had better not wait. What is fetched, and what may be done with it, is `fetch`'s.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import Any

from pulsecache_sidecar.core.staleness.validity import Ticket
from pulsecache_sidecar.engine.fetch import HandOver, Result

log = logging.getLogger(__name__)

UNSHAREABLE_S = 10.0
"""How long a key whose answer could not be shared is fetched by each for himself ("hit for miss")."""
_UNSHAREABLE_KEYS = 10_000


class Flight:
    """A fetch in the air. A response that is handed over is its leader's alone; if the leader has left, it is given
    up."""

    def __init__(self) -> None:
        self.ticket: Ticket | None = None
        """That of the request, once it is sent."""
        self._abandoned = False
        self._task: asyncio.Task[Result]

    def take_off(self, work: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
        self._task = asyncio.get_running_loop().create_task(work)
        self._task.add_done_callback(self._landed)
        return self._task

    def ticketed(self, ticket: Ticket) -> None:
        self.ticket = ticket

    async def ride(self) -> Result:
        """For those who joined. Cancelling the wait leaves the flight in the air."""
        return await asyncio.shield(self._task)

    async def lead(self) -> Result:
        """For the one who started it."""
        try:
            return await asyncio.shield(self._task)
        except asyncio.CancelledError:
            self._abandoned = True
            if self._task.done():
                self._landed(self._task)
            raise

    async def lead_and_drop(self) -> None:
        """For who only wants it stored."""
        result = await self.lead()
        if isinstance(result, HandOver):
            result.abort()

    def _landed(self, task: asyncio.Task[Result]) -> None:
        if task.cancelled():
            return
        if (error := task.exception()) is not None:
            log.error("a fetch broke", exc_info=error)
        elif self._abandoned and isinstance(handed := task.result(), HandOver):
            handed.abort()


class Flights:
    def __init__(self) -> None:
        self._by_key: dict[str, Flight] = {}
        self._tasks: set[asyncio.Task[Result]] = set()
        self._unshareable: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._tasks)

    def of(self, key: str) -> Flight | None:
        return self._by_key.get(key)

    def start(self, key: str | None, work: Callable[[Callable[[Ticket], None]], Coroutine[Any, Any, Result]]) -> Flight:
        """`key` None: nobody may join. Another flight of this key that is still in the air is joined no more. `work`
        is given where to tell its ticket."""
        flight = Flight()
        task = flight.take_off(work(flight.ticketed))
        self._tasks.add(task)
        if key is not None:
            self._by_key[key] = flight
        task.add_done_callback(lambda done: self._landed(key, flight, done))
        return flight

    # --- keys that are not worth waiting for ----------------------------------------------------------------------

    def mark_unshareable(self, key: str, now: float) -> None:
        self._unshareable[key] = now + UNSHAREABLE_S
        self._unshareable.move_to_end(key)
        while len(self._unshareable) > _UNSHAREABLE_KEYS:
            self._unshareable.popitem(last=False)

    def is_unshareable(self, key: str, now: float) -> bool:
        until = self._unshareable.get(key)
        if until is None:
            return False
        if now < until:
            return True
        del self._unshareable[key]
        return False

    def mark_shareable(self, key: str) -> None:
        self._unshareable.pop(key, None)

    async def aclose(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _landed(self, key: str | None, flight: Flight, task: asyncio.Task[Result]) -> None:
        self._tasks.discard(task)
        if key is not None and self._by_key.get(key) is flight:
            del self._by_key[key]
