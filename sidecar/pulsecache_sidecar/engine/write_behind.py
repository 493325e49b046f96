"""Write-behind: a request is answered when it is durable, and reaches the origin afterwards (promises W1 to W3).

Accepting, what readers see of pending writes, counts, draining, and what a person does with dead letters. Sending is
left to the flusher, keeping to the journal, the answer to the client and what happens when nothing more fits to the
strategy that calls `accept`.
"""

from __future__ import annotations

import asyncio
import logging
import random
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from pulsecache_policy.model import WriteRule
from pulsecache_sidecar.core.http.message import Fields, RequestHead, first, without
from pulsecache_sidecar.engine.backlog import Backlog, Ticket, held_bytes
from pulsecache_sidecar.engine.delivery import Target
from pulsecache_sidecar.engine.flusher import STILL_RUNNING_S, Flusher, FlushOptions
from pulsecache_sidecar.errors import JournalFull
from pulsecache_sidecar.ports import Clock, DeadLetter, Journal, PendingWrite

logger = logging.getLogger(__name__)

_PAGE = 500


@dataclass(frozen=True, slots=True)
class PolicyCounts:
    pending: int = 0
    oldest_age_s: float = 0.0
    """Since the acceptance of the oldest pending write; 0 where there is none."""
    dead_letters: int = 0
    waits_for: str | None = None
    """Why nothing is sent for now; None while writes flow."""


class WriteBehind:
    """All write-behind of a process. `targets(policy)` tells where writes of a policy go now; None where no bind has
    it: they then wait. The journal stays its opener's, who closes it after `stop`."""

    def __init__(
        self,
        journal: Journal,
        targets: Callable[[str], Target | None],
        clock: Clock,
        *,
        options: FlushOptions | None = None,
        held_max_bytes: int = 32 * 1024 * 1024,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._journal = journal
        self._clock = clock
        self._backlog = Backlog(held_max_bytes=held_max_bytes)
        self._flusher = Flusher(
            journal,
            self._backlog,
            targets,
            clock,
            chance=chance,
            left=self._on_left,
            options=options,
        )
        self._appending: set[asyncio.Task[PendingWrite]] = set()
        self._appending_by_rule: Counter[tuple[str, str]] = Counter()
        self._appending_shown_bytes = 0
        self._dead: dict[int, tuple[str, str]] = {}
        self._dead_by_rule: Counter[tuple[str, str]] = Counter()
        self._waiting: dict[str, list[asyncio.Future[None]]] = {}
        self._empty = asyncio.Event()
        self._empty.set()
        self._refusal: str | None = "write-behind has not started"

    # --- life ----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Takes up what the predecessor left, in its order, and begins to accept. Raises JournalError."""
        unknown_until = self._clock.now() + STILL_RUNNING_S  # its last attempts may still be at work
        lanes, after = {}, 0
        while page := await self._journal.load(after, _PAGE):
            for write in page:
                lane = self._backlog.add(write, unknown_until=unknown_until)
                lanes[lane.order_key] = lane
            after = page[-1].id
        after = 0
        while letters := await self._journal.dead_letters(after, _PAGE):
            for letter in letters:
                self._count_dead(letter.write)
            after = letters[-1].write.id
        if lanes:
            logger.info("%d pending writes were left by the process before", len(self._backlog))
            self._empty.clear()
        self._refusal = None
        for lane in lanes.values():
            self._flusher.schedule(lane)

    async def drain(self, deadline_s: float) -> int:
        """Accepts nothing more and sends what is pending, for at most so long. Returns how many writes are left: they
        are in the journal, and lost only if that is lost with the pod."""
        self._refusal = "the sidecar is shutting down"
        self._flusher.hurry()
        try:
            async with asyncio.timeout(deadline_s):
                while self._appending:
                    await asyncio.wait(self._appending)
                await self._empty.wait()
        except TimeoutError:
            logger.warning("%d pending writes are left in the journal", len(self._backlog))
        return len(self._backlog)

    async def stop(self) -> None:
        """Breaks off sending. What is pending stays in the journal for the next start."""
        self._refusal = self._refusal or "write-behind has stopped"
        if self._appending:
            await asyncio.wait(self._appending)
        await self._flusher.stop()

    # --- writing -------------------------------------------------------------------------------------------------

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
    ) -> PendingWrite:
        """Returns once the request is on stable storage and readers can see it.

        Raises JournalFull where there is no room for it now, and JournalError where it could not be made durable; it
        will then not be sent. Cancelled (the client went away), it is accepted wholly or, before the journal was asked,
        not at all.
        """
        fields, key = _with_idempotency_key(request.fields)
        write = PendingWrite(
            id=0,
            policy=policy,
            rule=rule.name,
            order_key=order_key,
            idempotency_key=key,
            request=replace(request, fields=_framed(fields, len(body))),
            body=body,
            tags=tags,
            accepted_wall=self._clock.wall(),
            shows=shows,
        )
        shown_bytes = held_bytes(write) if shows is not None else 0
        self._check_room(write, rule, shown_bytes)
        task = asyncio.get_running_loop().create_task(self._append(write, shown_bytes))
        self._appending.add(task)
        self._appending_by_rule[policy, rule.name] += 1
        self._appending_shown_bytes += shown_bytes
        task.add_done_callback(self._appending.discard)
        # The task goes on when the caller is cancelled: a write that the journal has must also be in the backlog.
        return await asyncio.shield(task)

    def _check_room(self, write: PendingWrite, rule: WriteRule, shown_bytes: int) -> None:
        if self._refusal is not None:
            raise JournalFull(f"no write is accepted: {self._refusal}")
        limit = rule.write_behind.journal.max_entries if rule.write_behind is not None else None
        key = (write.policy, write.rule)
        count = self._backlog.count(*key) + self._appending_by_rule[key] + self._dead_by_rule[key]
        if limit is not None and count >= limit:
            raise JournalFull(f"rule {rule.name} of {write.policy} has {count} pending writes and dead letters")
        if shown_bytes and not self._backlog.can_show(self._appending_shown_bytes + shown_bytes):
            raise JournalFull("the pending writes that readers see fill the memory set aside for them")

    async def _append(self, write: PendingWrite, shown_bytes: int) -> PendingWrite:
        try:
            written = await self._journal.append(write)
        finally:
            self._appending_by_rule[write.policy, write.rule] -= 1
            self._appending_shown_bytes -= shown_bytes
        lane = self._backlog.add(written)
        self._empty.clear()
        self._flusher.schedule(lane)
        return written

    # --- reading -------------------------------------------------------------------------------------------------

    def pending(self, key: str) -> PendingWrite | None:
        """The newest pending write that shows on this cache key."""
        return self._backlog.newest_shown(key)

    def has_pending(self, order_key: str) -> bool:
        """Whether an acknowledged write of this order key has not reached the origin: what is sent there by another way
        would overtake it."""
        return self._backlog.has(order_key)

    async def settled(self, order_key: str) -> None:
        """Waits until `has_pending` is false. Give it a time-out: an origin may be away for long."""
        while self._backlog.has(order_key):
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.setdefault(order_key, []).append(waiter)
            try:
                await waiter
            finally:
                if waiters := self._waiting.get(order_key):
                    waiters[:] = [other for other in waiters if other is not waiter]
                    if not waiters:
                        del self._waiting[order_key]

    def counts(self) -> dict[str, PolicyCounts]:
        """By policy, of all that had a pending write or a dead letter since the start."""
        pending, dead = self._backlog.counts(), Counter[str]()
        for (policy, _), count in self._dead_by_rule.items():
            dead[policy] += count
        return {
            policy: PolicyCounts(
                pending.get(policy, 0), self._oldest_age_s(policy), dead[policy], self._flusher.waits_for(policy)
            )
            for policy in {**pending, **dead}
        }

    def _oldest_age_s(self, policy: str) -> float:
        oldest = self._backlog.oldest_wall(policy)
        return 0.0 if oldest is None else max(0.0, self._clock.wall() - oldest)

    async def list_pending(self, after: int = 0, limit: int = 100) -> Sequence[PendingWrite]:
        """From the journal, in order of acceptance. Raises JournalError."""
        return await self._journal.load(after, limit)

    # --- dead letters --------------------------------------------------------------------------------------------

    async def dead_letters(self, after: int = 0, limit: int = 100) -> Sequence[DeadLetter]:
        """Raises JournalError."""
        return await self._journal.dead_letters(after, limit)

    async def retry(self, write_id: int) -> bool:
        """Makes a dead letter pending again, before later writes of its order key that are still pending. False where
        there is none of this id. Raises JournalError."""
        return await asyncio.shield(asyncio.ensure_future(self._retry(write_id)))

    async def _retry(self, write_id: int) -> bool:
        letters = await self._journal.dead_letters(write_id - 1, 1)  # first: if reading fails, nothing has happened
        if not letters or letters[0].write.id != write_id or not await self._journal.retry(write_id):
            return False
        self._uncount_dead(write_id)
        self._empty.clear()
        self._flusher.schedule(self._backlog.add(letters[0].write))
        return True

    async def drop(self, write_id: int) -> bool:
        """Forgets a dead letter for good; False where there is none of this id. Raises JournalError."""
        return await asyncio.shield(asyncio.ensure_future(self._drop(write_id)))

    async def _drop(self, write_id: int) -> bool:
        found = await self._journal.drop(write_id)
        if found:
            self._uncount_dead(write_id)
        return found

    def _count_dead(self, write: PendingWrite) -> None:
        self._dead[write.id] = (write.policy, write.rule)
        self._dead_by_rule[write.policy, write.rule] += 1

    def _uncount_dead(self, write_id: int) -> None:
        key = self._dead.pop(write_id, None)
        if key is not None:
            self._dead_by_rule[key] -= 1

    # --- told by the flusher ---------------------------------------------------------------------------------------

    def _on_left(self, ticket: Ticket, letter: DeadLetter | None) -> None:
        if letter is not None:
            self._count_dead(letter.write)
        if not len(self._backlog):
            self._empty.set()
        order_key = ticket.lane.order_key
        if not self._backlog.has(order_key):
            for waiter in self._waiting.get(order_key, ()):
                if not waiter.done():
                    waiter.set_result(None)


def _with_idempotency_key(fields: Fields) -> tuple[Fields, str]:
    """The client's own Idempotency-Key or a new one, the same for all attempts. A new one is a string in quotes, as
    draft-ietf-httpapi-idempotency-key-header-07 wants it."""
    own = first(fields, b"idempotency-key")
    if own:
        return fields, own.decode("latin-1")
    key = f'"{uuid.uuid4()}"'
    return (*without(fields, b"idempotency-key"), (b"idempotency-key", key.encode("ascii"))), key


def _framed(fields: Fields, length: int) -> Fields:
    """The body is known as a whole now: its length is said, and nobody is asked whether it may be sent."""
    had_length = first(fields, b"content-length") is not None
    fields = without(fields, b"content-length", b"transfer-encoding", b"expect", b"trailer")
    return (*fields, (b"content-length", b"%d" % length)) if length or had_length else fields
