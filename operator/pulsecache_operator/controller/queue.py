"""The work queue: keys in, one call of `work(key)` at a time per key, trouble tried again later.

A key that is added many times before its turn is worked on once; one that is added while it is worked on has its turn
again afterwards. What a key means, and what is done about it, is the caller's matter.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)

PACE_S = 0.5
"""Least time between the beginnings of two turns of a key: a roll-out of a thousand pods is a thousand events."""
BACKOFF_S = 1.0
BACKOFF_LIMIT_S = 60.0


class WorkQueue(Generic[Key]):
    """`work(key)` returns after how many seconds the key wants another turn, or None."""

    def __init__(
        self,
        work: Callable[[Key], Awaitable[float | None]],
        *,
        failed: Callable[[Key, Exception], None],
        pace_s: float = PACE_S,
    ) -> None:
        self._work = work
        self._failed = failed
        self._pace_s = pace_s
        self._loop = asyncio.get_running_loop()
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._due: asyncio.Queue[Key | None] = asyncio.Queue()
        self._ended = False
        self._queued: set[Key] = set()
        self._working: set[Key] = set()
        self._missed: set[Key] = set()
        self._began: dict[Key, float] = {}
        self._failures: dict[Key, int] = {}

    def add(self, key: Key, *, after_s: float = 0.0) -> None:
        """Asks for a turn. Of several wishes the earliest counts."""
        due = max(self._loop.time() + after_s, self._began.get(key, -math.inf) + self._pace_s)
        if timer := self._timers.get(key):
            if timer.when() <= due:
                return
            timer.cancel()
        self._timers[key] = self._loop.call_at(due, self._ripe, key)

    def forget(self, key: Key) -> None:
        """Its object is gone for good: nothing of the key is remembered."""
        if timer := self._timers.pop(key, None):
            timer.cancel()
        self._failures.pop(key, None)
        self._began.pop(key, None)

    def __len__(self) -> int:
        """How many keys wait for a worker or are worked on."""
        return len(self._queued) + len(self._working)

    async def run(self, workers: int = 4) -> None:
        """Works until `end`; when it is cancelled the turns that have begun are too."""
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(workers):
                    group.create_task(self._worker())
        finally:
            for timer in self._timers.values():
                timer.cancel()
            self._timers.clear()

    def end(self) -> None:
        """Begins no more turns; `run` returns when those that have begun are over."""
        self._ended = True
        self._due.put_nowait(None)

    def _ripe(self, key: Key) -> None:
        del self._timers[key]
        if key in self._working:
            self._missed.add(key)
        elif key not in self._queued:
            self._queued.add(key)
            self._due.put_nowait(key)

    async def _worker(self) -> None:
        while True:
            key = await self._due.get()
            if self._ended or key is None:
                self._due.put_nowait(None)  # for the next worker
                return
            self._queued.discard(key)
            self._working.add(key)
            try:
                await self._turn(key)
            finally:
                self._working.discard(key)
            if key in self._missed:
                self._missed.discard(key)
                self.add(key)

    async def _turn(self, key: Key) -> None:
        self._began[key] = self._loop.time()
        try:
            again_s = await self._work(key)
        except Exception as error:  # noqa: BLE001 - whatever it is, this key is tried again and the others go on
            failures = self._failures[key] = self._failures.get(key, 0) + 1
            self._failed(key, error)
            backoff_s = min(BACKOFF_LIMIT_S, BACKOFF_S * 2 ** min(failures - 1, 16))
            self.add(key, after_s=backoff_s * random.uniform(0.8, 1.2))  # noqa: S311 - it spreads load, and is no secret
        else:
            self._failures.pop(key, None)
            if again_s is not None:
                self.add(key, after_s=again_s)
