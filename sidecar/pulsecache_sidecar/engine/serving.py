"""What a request finds when it comes in: one consistent set of policy and the parts that serve it, taken once."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from typing import Any, Protocol

from pulsecache_policy.match import CompiledPolicy, ReadMatch
from pulsecache_policy.model import WriteRule
from pulsecache_sidecar.core.http.message import RequestHead
from pulsecache_sidecar.core.staleness.state import State
from pulsecache_sidecar.core.staleness.validity import Ticket, Validity
from pulsecache_sidecar.engine.memory import MemoryStore
from pulsecache_sidecar.ports import PendingWrite


class OpenWrite(Protocol):
    """engine.coherence.OpenWrite, as far as requests need it."""

    def sent(self, now: float) -> None: ...

    def refused(self) -> None: ...

    async def took_effect(
        self,
        extra_tags: tuple[str, ...] = (),
        store: tuple[str, bytes, tuple[str, ...], float] | None = None,
    ) -> Validity | None: ...

    def unknown(self, now: float, extra_tags: tuple[str, ...] = ()) -> None: ...


class Coherence(Protocol):
    """engine.coherence.Coherence, as far as requests need it."""

    def ticket(self, now: float) -> Ticket: ...

    def fetched(self, ticket: Ticket) -> Validity: ...

    def usable(self, validity: Validity, tags: tuple[str, ...]) -> bool: ...

    def bound(self, validity: Validity, now: float) -> float: ...

    def age_bound(self, validity: Validity, now: float) -> float: ...

    def state(self, now: float) -> State: ...

    async def lookup(self, key: str, ticket: Ticket) -> tuple[bytes, tuple[str, ...], Validity] | None: ...

    def share(self, key: str, payload: bytes, tags: tuple[str, ...], validity: Validity, ttl_s: float) -> None: ...

    def open_write(self, tags: tuple[str, ...], now: float) -> OpenWrite: ...


class PendingWrites(Protocol):
    """engine.write_behind.WriteBehind, as far as requests need it."""

    async def accept(
        self,
        request: RequestHead,
        body: bytes,
        *,
        policy: str,
        rule: WriteRule,
        order_key: str,
        tags: tuple[str, ...],
        shows: str | None,
    ) -> PendingWrite: ...

    def pending(self, key: str) -> PendingWrite | None: ...

    def has_pending(self, order_key: str) -> bool: ...

    async def settled(self, order_key: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Serving:
    policy: CompiledPolicy
    coherence: Coherence
    memory: MemoryStore
    write_behind: PendingWrites | None = None

    @property
    def max_s(self) -> float:
        return self.policy.policy.staleness.max_s


@dataclass(frozen=True, slots=True)
class Read:
    """A request that a read rule covers and that can be keyed."""

    serving: Serving
    request: RequestHead
    match: ReadMatch
    key: str
    principal: bool
    """The key holds the principal."""
    credential: bytes | None
    """Credentials that the key does not hold: b"authorization" or b"cookie"."""

    def anonymous(self) -> Read:
        """The same as asked by nobody in particular: what it brings may be kept for all."""
        fields = tuple(field for field in self.request.fields if field[0] == b"host")
        return replace(self, request=replace(self.request, fields=fields), credential=None)

    @property
    def coherence(self) -> Coherence:
        return self.serving.coherence

    @property
    def policy_key(self) -> str:
        return self.serving.policy.policy.key

    @property
    def tags(self) -> tuple[str, ...]:
        return self.match.tags


class Background:
    """Work that goes on although nobody waits for it any more, until it is done or the engine ends."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def finish(self, within_s: float) -> None:
        if self._tasks:
            _, left = await asyncio.wait(self._tasks, timeout=within_s)
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
