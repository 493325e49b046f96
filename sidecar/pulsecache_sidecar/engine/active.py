"""What runs for a policy: the compiled policy with the coherence of its dataset and its memory, replaced as one value.

A request takes the value once and finishes on it. When a policy's dataset or its staleness settings change, coherence
and memory are made anew, because positions of the one mean nothing to the other; the old pair lives on for as long
as requests may still hold it. Any other change keeps both: keys carry the revision of their rule.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from pulsecache_policy.match import CompiledPolicy
from pulsecache_policy.model import CachePolicy
from pulsecache_sidecar.engine.coherence import Coherence
from pulsecache_sidecar.engine.memory import MemoryStore
from pulsecache_sidecar.engine.serving import PendingWrites, Serving

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Active:
    serving: Serving
    coherence: Coherence

    @property
    def policy(self) -> CachePolicy:
        return self.serving.policy.policy


class Actives:
    """The value in force for each policy key. `coherence_of` makes one that has not started."""

    def __init__(self, coherence_of: Callable[[CachePolicy], Coherence], write_behind: PendingWrites) -> None:
        self._coherence_of = coherence_of
        self._write_behind = write_behind
        self._active: dict[str, Active] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def get(self, key: str) -> Active | None:
        return self._active.get(key)

    def serving(self, key: str) -> Serving | None:
        active = self._active.get(key)
        return None if active is None else active.serving

    def all(self) -> Mapping[str, Active]:
        return self._active

    def replace(self, key: str, compiled: CompiledPolicy | None) -> None:
        """Takes a policy into force, or (None) out of it. Must run in the event loop."""
        old = self._active.get(key)
        if compiled is None:
            self._active.pop(key, None)
        elif old is not None and _same_ground(old.policy, compiled.policy):
            old.serving.memory.resize(compiled.policy.memory_max_bytes)
            self._active[key] = Active(dataclasses.replace(old.serving, policy=compiled), old.coherence)
            return
        else:
            coherence = self._coherence_of(compiled.policy)
            memory = MemoryStore(compiled.policy.memory_max_bytes)
            self._active[key] = Active(Serving(compiled, coherence, memory, self._write_behind), coherence)
            self._spawn(coherence.start())
        if old is not None:
            self._spawn(self._retire(old))

    async def started(self) -> None:
        """Returns when every coherence that was begun so far has tried to join its dataset."""
        await asyncio.gather(*self._tasks)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(active.coherence.stop() for active in self._active.values()))

    async def _retire(self, old: Active) -> None:
        try:
            await asyncio.sleep(old.policy.origin.timeout_s + old.policy.staleness.settle_s)
        finally:
            await old.coherence.stop()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            LOG.error("a dataset could not be started or stopped", exc_info=error)


def _same_ground(a: CachePolicy, b: CachePolicy) -> bool:
    return (a.uid, a.dataset, a.staleness, a.redis, a.placement) == (
        b.uid,
        b.dataset,
        b.staleness,
        b.redis,
        b.placement,
    )
