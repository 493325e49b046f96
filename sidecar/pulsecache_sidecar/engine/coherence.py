"""How stale what this process serves of one dataset may be, and how its writes are told to the others.

The face of the staleness protocol for the data path: tickets and validities for what is fetched, usability and bound
on every hit, open writes, the shared store. What follows the stream is `subscriber`, what tells of writes `publisher`;
the rules are `core.staleness`. Nothing here ever raises because of the hub: with the hub away everything is answered
from what is known, and bounds grow.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random as chance
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pulsecache_policy.model import Staleness, Writers
from pulsecache_sidecar.core.staleness.events import Entry, Watermark
from pulsecache_sidecar.core.staleness.pace import Pace
from pulsecache_sidecar.core.staleness.state import State, StateMachine
from pulsecache_sidecar.core.staleness.validity import UNKNOWN_AGE, Ticket, Validity, of_fetch
from pulsecache_sidecar.core.staleness.view import View
from pulsecache_sidecar.core.staleness.writes import Write, Writes
from pulsecache_sidecar.engine.fencer import Fencer
from pulsecache_sidecar.engine.publisher import Produced, Publisher
from pulsecache_sidecar.engine.subscriber import Subscriber
from pulsecache_sidecar.errors import HubError
from pulsecache_sidecar.ports import Clock, ForeignEpoch, Hub, Observer, StoredObject, UnknownPublisher

__all__ = ["Coherence", "OpenWrite", "StalenessReport", "State", "Ticket", "Validity"]

LOG = logging.getLogger(__name__)
T = TypeVar("T")

SHARE_QUEUE = 256
"""Objects waiting to be put into the shared store; what comes on top is not shared."""

_HUB_TROUBLE = (HubError, ForeignEpoch, UnknownPublisher)


@dataclass(frozen=True, slots=True)
class StalenessReport:
    """For `/-/staleness` and metrics."""

    dataset: str
    state: State
    since_s: float
    """Seconds for which the state has lasted."""
    bound_s: float | None
    """Seconds since the age origin of the watermark; None where there is none that may be used."""
    heartbeat_age_s: float | None
    lost: tuple[str, ...]
    """Publishers that hold the watermark back."""
    epoch: str | None
    limit_s: float
    open_writes: int
    doubts: int


class Coherence:
    """One per dataset and process. `start` and `stop` belong together; the rest is safe before, between and after.

    `hub`: None where there is none: own writes are seen, every bound is the age. `publisher_id`: new for each start of
    the process. `publishes`: writes come through here, so the watermark waits for this process. `predecessor`: the
    publisher id of the process that ran before on the same data. `unattended`: no controller fences lost publishers;
    do it by time. `hub_timeout_s`: how long a request waits for the hub; the hub's own calls must end by then, too.
    The hub belongs to the caller.
    """

    def __init__(
        self,
        dataset: str,
        staleness: Staleness,
        hub: Hub | None,
        *,
        publisher_id: str,
        publishes: bool,
        clock: Clock,
        observer: Observer,
        predecessor: str | None = None,
        unattended: bool = False,
        random: Callable[[], float] = chance.random,
        hub_timeout_s: float = 0.05,
        start_timeout_s: float = 1.0,
        stop_timeout_s: float = 1.0,
    ) -> None:
        interval_s = staleness.heartbeat.interval_s
        self.dataset = dataset
        self._limits = staleness
        self._hub = hub
        self._clock = clock
        self._hub_timeout_s, self._start_timeout_s, self._stop_timeout_s = (
            hub_timeout_s,
            start_timeout_s,
            stop_timeout_s,
        )
        self._view = View(trusts_writers=staleness.writers is Writers.ALL and hub is not None)
        self._writes = Writes(publisher_id, settle_s=staleness.settle_s, interval_s=interval_s)
        self._states = StateMachine(
            max_s=staleness.max_s,
            interval_s=interval_s,
            failure_threshold=staleness.heartbeat.failure_threshold,
            started=clock.now(),
        )
        self._pace = Pace(interval_s, random())
        self._tasks: set[asyncio.Task[Any]] = set()
        self._loops: list[asyncio.Task[Any]] = []
        self._shares: asyncio.Queue[tuple[str, StoredObject, str, float]] = asyncio.Queue(SHARE_QUEUE)
        self._subscriber: Subscriber | None = None
        if hub is not None:
            self._subscriber = Subscriber(
                dataset,
                self._view,
                hub,
                clock,
                observer,
                block_s=interval_s,
                random=random,
                joined=self._joined,
                consumed=self._consumed,
            )
            self._publisher = Publisher(publisher_id, self._writes, self._subscriber, clock, member=publishes)
            self._fencer = Fencer(
                self._subscriber,
                clock,
                own_id=publisher_id,
                predecessor=predecessor,
                unattended=unattended,
                settle_s=staleness.settle_s,
                silence_s=staleness.heartbeat.failure_threshold * interval_s,
            )

    # --- reads -------------------------------------------------------------------------------------------------------

    def ticket(self, now: float) -> Ticket:
        """Take it right before a request to the origin is sent, or a look-up is begun."""
        return Ticket(self._view.epoch, self._view.position, now, self._writes.order, self._writes.shared_order)

    def fetched(self, ticket: Ticket) -> Validity:
        """For what the request of the ticket brought, a 304 too."""
        return of_fetch(ticket)

    def usable(self, validity: Validity, tags: tuple[str, ...]) -> bool:
        """Whether an entry may be stored now, or served from the cache now."""
        return self._view.usable(validity, tags) and self._writes.admits(validity.order, tags)

    def bound(self, validity: Validity, now: float) -> float:
        """Seconds: at most so old is an entry that was found usable at this very instant."""
        return self._view.bound(validity, now)

    def age_bound(self, validity: Validity, now: float) -> float:
        """Seconds: at most so old is anything that is served although it is not usable; infinite where unknown."""
        return max(0.0, now - validity.at)

    def state(self, now: float) -> State:
        view = self._view
        transition = self._states.evaluate(now, covered=view.covered, origin=view.origin, heartbeat=view.heartbeat)
        if transition is not None:
            LOG.log(
                logging.INFO if transition.after is State.CONFIRMED else logging.WARNING,
                "dataset %s: %s, was %s: %s",
                self.dataset,
                transition.after.value,
                transition.before.value,
                transition.reason,
            )
        return self._states.state

    def report(self, now: float) -> StalenessReport:
        view = self._view
        state = self.state(now)
        origin = view.trusted_origin
        return StalenessReport(
            dataset=self.dataset,
            state=state,
            since_s=now - self._states.since,
            bound_s=None if origin is None else now - origin,
            heartbeat_age_s=None if view.heartbeat is None else now - view.heartbeat,
            lost=view.lost,
            epoch=view.epoch,
            limit_s=self._limits.max_s,
            open_writes=len(self._writes),
            doubts=len(view.doubts),
        )

    # --- the shared store --------------------------------------------------------------------------------------------

    async def lookup(self, key: str, ticket: Ticket) -> tuple[bytes, tuple[str, ...], Validity] | None:
        """The object of the shared store, with its tags; None on a miss or any trouble."""
        subscriber = self._subscriber
        if subscriber is None or not subscriber.live or ticket.epoch is None or ticket.epoch != self._view.epoch:
            return None
        try:
            (found, position), epoch = await subscriber.ask(
                lambda epoch: subscriber.hub.get(key, epoch), lambda answer: answer[1], given_out=False
            )
        except _HUB_TROUBLE:
            return None
        if found is None or epoch != self._view.epoch:
            return None
        at = self._view.earliest(found.valid)
        if at is None:
            if self._view.trusted_origin is None:
                return None  # nothing could be said of its age
            at = UNKNOWN_AGE
        return found.payload, found.tags, Validity(epoch, found.valid, position, at, ticket.shared_order)

    def share(self, key: str, payload: bytes, tags: tuple[str, ...], validity: Validity, ttl_s: float) -> None:
        """Puts an object into the shared store, in the background, if there is one and it has room."""
        if self._subscriber is None or not self._subscriber.live or validity.epoch is None:
            return
        stored = StoredObject(payload, tags, valid=validity.valid, includes=validity.includes)
        with contextlib.suppress(asyncio.QueueFull):
            self._shares.put_nowait((key, stored, validity.epoch, ttl_s))

    # --- writes ------------------------------------------------------------------------------------------------------

    def open_write(self, tags: tuple[str, ...], now: float) -> OpenWrite:
        """Before the first byte of the write is sent to the origin; exactly one of the OpenWrite's ends must follow."""
        return OpenWrite(self, self._writes.open(tags, self._view.epoch, self._view.position, now))

    async def announce(self, write: Write, produced: Produced | None) -> Validity | None:
        """For OpenWrite: waits for the hub as long as a request may; afterwards the announcement goes on by itself,
        also where the request that waits for it is cancelled."""
        subscriber = self._subscriber
        if subscriber is None:
            self._writes.announced(write)  # nobody to tell; the own order is noted
            return None
        if not subscriber.live:
            return None
        task = self._spawn(self._publisher.announce(write, produced))
        done, _ = await asyncio.wait({task}, timeout=self._hub_timeout_s)
        return task.result() if done else None

    def refused(self, write: Write) -> None:
        self._writes.refused(write)

    def completed(self, write: Write, extra_tags: tuple[str, ...]) -> None:
        self._writes.done(write, extra_tags)

    def unknown(self, write: Write, now: float, extra_tags: tuple[str, ...]) -> None:
        self._writes.unknown(write, now, extra_tags)
        if self._subscriber is not None and self._subscriber.live:
            self._spawn(self._quietly(self._publisher.catch_up()))

    # --- life --------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begins to follow the stream, and waits a little for the first subscription: a publisher should have joined
        before its first write."""
        self._loops.append(self._spawn(self._for_ever(self._housekeeping)))
        if self._subscriber is None:
            return
        self._loops += [self._spawn(self._for_ever(loop)) for loop in (self._subscriber.run, self._sharing)]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._start_timeout_s):
                await self._subscriber.subscribed.wait()

    async def stop(self) -> None:
        """Announces what is left, for `stop_timeout_s` at most, and leaves if nothing is open."""
        await _cancel(self._loops)  # no beat may follow the leaving
        if self._subscriber is not None and self._subscriber.live:
            with contextlib.suppress(TimeoutError, *_HUB_TROUBLE):
                async with asyncio.timeout(self._stop_timeout_s):
                    await asyncio.gather(*self._tasks, return_exceptions=True)
                    await self._publisher.catch_up()
                    await self._publisher.leave()
        await _cancel(list(self._tasks))

    # ---------------------------------------------------------------------------------------------------------------

    async def _joined(self) -> None:
        self._publisher.adopt_doubts()
        await self._publisher.join()
        if self._publisher.member:
            await self._publisher.beat()
            self._pace.beaten(self._clock.now())

    def _consumed(self, entry: Entry) -> None:
        self._publisher.consumed(entry)
        if isinstance(entry.event, Watermark):
            now = self._clock.now()
            self._pace.heard(now, own=entry.event.lead == self._publisher.id)
            self.state(now)

    async def _housekeeping(self) -> None:
        """The pulse of this process: see core.staleness.pace."""
        while True:
            await self._sleep_until(self._pace.sample_at(self._clock.now()))
            self.state(self._clock.now())
            self._writes.settle(self._clock.now())
            subscriber = self._subscriber
            if subscriber is None:
                for write in self._writes.to_announce():
                    self._writes.announced(write)
                continue
            if not subscriber.live:
                continue
            await self._quietly(subscriber.sample())
            await self._quietly(self._publisher.catch_up())
            if self._publisher.member and subscriber.live:
                while (at := self._pace.beat_at(self._clock.now())) > self._clock.now():
                    await self._sleep_until(at)
                self._pace.beaten(self._clock.now())
                await self._quietly(self._publisher.beat())
            await self._quietly(self._fencer.step())

    async def _sharing(self) -> None:
        while True:
            key, stored, epoch, ttl_s = await self._shares.get()
            subscriber = self._subscriber
            if subscriber is not None and subscriber.live and epoch == self._view.epoch:
                put = subscriber.hub.put
                await self._quietly(subscriber.ask(lambda epoch: put(key, epoch, stored, ttl_s)))  # noqa: B023 - awaited here

    async def _sleep_until(self, at: float) -> None:
        await asyncio.sleep(max(0.0, at - self._clock.now()))

    async def _for_ever(self, loop: Callable[[], Awaitable[None]]) -> None:
        """A fault of ours must not leave a sidecar that serves and hears nothing: the loop and the cache begin anew."""
        while True:
            try:
                await loop()
            except Exception:
                LOG.exception("dataset %s: a background loop failed; it begins again", self.dataset)
                self._view.lose_track()  # an entry may have been taken by half
                if self._subscriber is not None:
                    self._subscriber.renew()
                await asyncio.sleep(self._limits.heartbeat.interval_s)

    async def _quietly(self, call: Awaitable[object]) -> None:
        """What fails here is tried again at the next pulse; the subscriber tells of a hub that is away."""
        try:
            await call
        except _HUB_TROUBLE as error:
            LOG.debug("dataset %s: %r", self.dataset, error)

    def _spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            LOG.error("dataset %s: a background task failed", self.dataset, exc_info=error)


async def _cancel(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Until they have ended: a library may lose a cancellation (asyncio.wait_for of Python 3.11 does, now and then)."""
    pending = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=1.0)


class OpenWrite:
    """A write on its way to the origin. Exactly one of `refused`, `took_effect` and `unknown` ends it."""

    def __init__(self, coherence: Coherence, write: Write) -> None:
        self._coherence = coherence
        self._write = write

    def sent(self, now: float) -> None:
        """The last byte of the request has been written: it takes effect within `settle` from here, or never."""
        self._write.last_byte = now

    def refused(self) -> None:
        """A 4xx other than 408: nothing changed."""
        self._coherence.refused(self._write)

    async def took_effect(
        self,
        extra_tags: tuple[str, ...] = (),
        store: tuple[str, bytes, tuple[str, ...], float] | None = None,
    ) -> Validity | None:
        """Announces the change, and stores (key, payload, tags, time to live in seconds) if no other write overlapped.

        Returns the validity of what was stored; None where it must not be stored, here neither. Waits for the hub for
        its time-out at most; the announcement is made later then.
        """
        self._coherence.completed(self._write, extra_tags)
        return await self._coherence.announce(self._write, None if store is None else Produced(*store))

    def unknown(self, now: float, extra_tags: tuple[str, ...] = ()) -> None:
        """5xx, 408, 202, reset, time-out, cancelled: it may still take effect. Stays open, in doubt, until settled."""
        self._coherence.unknown(self._write, now, extra_tags)
