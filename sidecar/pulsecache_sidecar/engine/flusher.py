"""Sends pending writes to their origins: in order per order key, different keys at the same time.

A lane (one order key) is ready, in flight, or resting after a failure of its own. A channel (one policy) has a gate: an
origin that is away or overloaded closes it, and when it opens again one write goes as a probe before the others follow.
So a write that the origin cannot digest holds up nobody else, and an origin that is down is not stormed by every key.
What is pending is `backlog`'s, one attempt is `delivery`'s, what its outcome means
is `core.retry`'s.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import assert_never

from pulsecache_sidecar.core.backoff import Backoff
from pulsecache_sidecar.core.retry import Done, Effect, Refused, Retry, Scope, Verdict
from pulsecache_sidecar.engine.backlog import Backlog, Lane, Ticket
from pulsecache_sidecar.engine.delivery import Target, attempt
from pulsecache_sidecar.errors import JournalError
from pulsecache_sidecar.ports import Clock, DeadLetter, Journal, PendingWrite

logger = logging.getLogger(__name__)

STILL_RUNNING_S = 60.0
"""For so long after an attempt of unknown outcome a 409 may mean "I am still at it"."""
_AWAY = 3
"""Failures in a row after which it is worth a line in the log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlushOptions:
    concurrency: int = 16
    """Writes of one policy that are on their way at the same time."""
    lane: Backoff = field(default_factory=lambda: Backoff(base_s=0.2, cap_s=60.0))
    """Rest of an order key whose write fails though the origin answers others."""
    gate: Backoff = field(default_factory=lambda: Backoff(base_s=0.2, cap_s=10.0))
    """Rest of a whole origin: also how late its return may be noticed."""
    hurry_cap_s: float = 1.0
    """No wait is longer than this while draining: what is not sent then may be lost with the pod."""


@dataclass(slots=True, eq=False)
class _Channel:
    policy: str
    ready: deque[Lane] = field(default_factory=deque)
    in_flight: int = 0
    failures: int = 0
    waits_for: str | None = None
    gate: asyncio.TimerHandle | None = None
    """The timer that opens it again; None while it is open."""


class Flusher:
    """Runs in the event loop that calls it. `left(ticket, letter)` is called when a write is no longer pending; the
    letter is None where it is done."""

    def __init__(
        self,
        journal: Journal,
        backlog: Backlog,
        targets: Callable[[str], Target | None],
        clock: Clock,
        *,
        chance: Callable[[], float],
        left: Callable[[Ticket, DeadLetter | None], None],
        options: FlushOptions | None = None,
    ) -> None:
        self._journal = journal
        self._backlog = backlog
        self._targets = targets
        self._clock = clock
        self._chance = chance
        self._left = left
        self._options = options or FlushOptions()
        self._channels: dict[str, _Channel] = {}
        self._resting: dict[Lane, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._hurried = False
        self._stopped = False

    def schedule(self, lane: Lane) -> None:
        """Tells of a lane that has writes; what is known already is no harm."""
        if not (lane.scheduled or self._stopped):
            lane.scheduled = True
            self._ready(lane)

    def waits_for(self, policy: str) -> str | None:
        """Why nothing of this policy is sent for now, besides probes."""
        channel = self._channels.get(policy)
        return channel.waits_for if channel else None

    def hurry(self) -> None:
        """Ends all rests, and shortens those to come."""
        self._hurried = True
        for channel in self._channels.values():
            if channel.gate is not None:
                channel.gate.cancel()
                channel.gate = None
        for lane, timer in list(self._resting.items()):
            timer.cancel()
            del self._resting[lane]
            self._ready(lane)
        for channel in self._channels.values():
            self._pump(channel)

    async def stop(self) -> None:
        """Breaks off what is on its way (it stays pending) and sends nothing more."""
        self._stopped = True
        for timer in (*self._resting.values(), *(c.gate for c in self._channels.values() if c.gate is not None)):
            timer.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- whose turn it is ----------------------------------------------------------------------------------------

    def _ready(self, lane: Lane) -> None:
        policy = lane.tickets[0].policy
        channel = self._channels.get(policy)
        if channel is None:
            channel = self._channels[policy] = _Channel(policy)
        channel.ready.append(lane)
        self._pump(channel)

    def _pump(self, channel: _Channel) -> None:
        while channel.ready and channel.gate is None and not self._stopped:
            if channel.in_flight >= (1 if channel.failures else self._options.concurrency):
                return
            target = self._targets(channel.policy)
            if target is None:
                self._close_gate(channel, "no bind of this process has this policy", 0.0)
                return
            lane = channel.ready.popleft()
            if lane.tickets[0].policy != channel.policy:  # a retried dead letter of another policy came before
                self._ready(lane)
                continue
            channel.in_flight += 1
            task = asyncio.get_running_loop().create_task(self._flush(channel, lane, target))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _close_gate(self, channel: _Channel, reason: str, at_least_s: float) -> None:
        if channel.gate is not None or self._stopped:
            return  # those that were on their way together fail together: that counts once
        channel.failures += 1
        if channel.failures == _AWAY:
            logger.warning("pending writes of %s wait for their origin: %s", channel.policy, reason)
        channel.waits_for = reason
        wait_s = self._wait_s(self._options.gate, channel.failures, at_least_s)
        channel.gate = asyncio.get_running_loop().call_later(wait_s, self._open_gate, channel)

    def _open_gate(self, channel: _Channel) -> None:
        channel.gate = None
        self._pump(channel)

    def _rest(self, lane: Lane, at_least_s: float) -> None:
        lane.failures += 1
        wait_s = self._wait_s(self._options.lane, lane.failures, at_least_s)
        self._resting[lane] = asyncio.get_running_loop().call_later(wait_s, self._rested, lane)

    def _rested(self, lane: Lane) -> None:
        del self._resting[lane]
        self._ready(lane)

    def _wait_s(self, backoff: Backoff, failures: int, at_least_s: float) -> float:
        wait_s = at_least_s + backoff.wait_s(failures, self._chance())
        return min(wait_s, self._options.hurry_cap_s) if self._hurried else wait_s

    # --- one attempt ---------------------------------------------------------------------------------------------

    async def _flush(self, channel: _Channel, lane: Lane, target: Target) -> None:
        ticket = lane.tickets[0]
        verdict: Verdict
        try:
            verdict = await self._deliver(ticket, target)
        except asyncio.CancelledError:
            raise
        except Exception as defect:
            # A defect, ours or an adapter's: whatever it is, an acknowledged write is not lost to it.
            logger.exception("write %d of %s could not be flushed", ticket.id, ticket.policy)
            verdict = Retry(type(defect).__name__, Scope.WRITE, Effect.UNKNOWN)
        finally:
            channel.in_flight -= 1
        self._reschedule(channel, lane, verdict)

    def _reschedule(self, channel: _Channel, lane: Lane, verdict: Verdict) -> None:
        if isinstance(verdict, Retry) and verdict.scope is Scope.ORIGIN:
            self._close_gate(channel, verdict.reason, verdict.at_least_s)
        elif channel.failures:
            if channel.failures >= _AWAY:
                logger.info("the origin of %s takes writes again", channel.policy)
            channel.failures = 0
            channel.waits_for = None
        if isinstance(verdict, Retry) and verdict.scope is Scope.WRITE and not self._stopped:
            self._rest(lane, verdict.at_least_s)
        else:
            if not isinstance(verdict, Retry):
                lane.failures = 0
            lane.scheduled = False
            if lane.tickets:
                self.schedule(lane)
        self._pump(channel)

    async def _deliver(self, ticket: Ticket, target: Target) -> Verdict:
        """Sends a write once and records what became of it."""
        write = ticket.write or await self._fetch(ticket)
        if write is None:
            return Retry("journal", Scope.WRITE, Effect.NONE)
        verdict, detail = await attempt(write, target, self._clock, unknown_until=ticket.unknown_until)
        match verdict:
            case Done():
                await self._record(lambda: self._journal.done(ticket.id))
                self._leave(ticket, None)
            case Refused():
                letter = DeadLetter(
                    replace(write, attempts=ticket.attempts + 1), verdict.status, detail, self._clock.wall()
                )
                logger.warning(
                    "write %d of %s (%s %s) was refused with %d and is a dead letter now",
                    *(write.id, write.policy, write.request.method, write.request.path, verdict.status),
                )
                await self._record(lambda: self._journal.bury(letter))
                self._leave(ticket, letter)
            case Retry():
                ticket.attempts += 1
                if verdict.effect is Effect.UNKNOWN:
                    ticket.unknown_until = self._clock.now() + STILL_RUNNING_S
                try:
                    await self._journal.attempted(ticket.id, ticket.attempts)
                except JournalError as error:
                    logger.warning("the attempts of write %d are not recorded: %s", ticket.id, error)
            case _:
                assert_never(verdict)
        return verdict

    async def _fetch(self, ticket: Ticket) -> PendingWrite | None:
        """The write from the journal; None where the journal cannot give it now."""
        try:
            found = await self._journal.load(ticket.id - 1, 1)
        except JournalError as error:
            logger.warning("write %d of %s cannot be read: %s", ticket.id, ticket.policy, error)
            return None
        if not found or found[0].id != ticket.id:
            logger.error("write %d of %s is not in the journal", ticket.id, ticket.policy)
            return None
        return found[0]

    async def _record(self, step: Callable[[], Awaitable[None]]) -> None:
        """Makes the end of a write durable before the next of its lane is sent: else a restart could send it again
        after that one. A full disk is waited for. A broken journal is not: what it has is sent again after the restart,
        in order and with the same keys, which is better than not sending what only this process still has."""
        failures = 0
        while True:
            try:
                return await step()
            except JournalError as error:
                if self._journal.failure is not None:
                    return None
                failures += 1
                if failures == 1:
                    logger.warning("what became of a write cannot be recorded yet: %s", error)
                await asyncio.sleep(self._wait_s(self._options.lane, failures, 0.0))

    def _leave(self, ticket: Ticket, letter: DeadLetter | None) -> None:
        self._backlog.remove(ticket)
        self._left(ticket, letter)
