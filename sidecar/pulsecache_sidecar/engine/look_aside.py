"""Look-aside: what a read rule covers is answered from memory, else fetched and kept.

    pending write shown here -> that       dataset exceeded and `Fail` -> 503
    usable, fresh, within the bound -> hit, at once, without waiting for anything
    beyond the bound -> as `whenExceeded` says       stale, invalidated or not there -> fetch, one for all who wait

Fetching is `fetch`'s, waiting `singleflight`'s. Each answer says how it came about and how stale it may be.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from pulsecache_policy.model import WhenExceeded
from pulsecache_sidecar.core.http.conditional import for_the_origin
from pulsecache_sidecar.core.http.vary import matches
from pulsecache_sidecar.core.staleness.state import State
from pulsecache_sidecar.core.staleness.validity import Ticket
from pulsecache_sidecar.engine.fetch import Failed, Fetcher, HandOver, Landed, Result, Stale, admissible
from pulsecache_sidecar.engine.handler import Reply
from pulsecache_sidecar.engine.limits import Overloaded
from pulsecache_sidecar.engine.memory import Entry
from pulsecache_sidecar.engine.passthrough import outbound
from pulsecache_sidecar.engine.serving import Read
from pulsecache_sidecar.engine.singleflight import Flights
from pulsecache_sidecar.engine.telling import Teller
from pulsecache_sidecar.engine.upstream import Upstream
from pulsecache_sidecar.errors import OriginError

_ROUNDS = 3
"""How often a reader waits for others' fetches before it fetches for itself."""


class Verdict(Enum):
    """What an entry is good for, for this reader, now."""

    HIT = auto()
    EXCEEDED = auto()
    """Usable and fresh, but it may be older than the policy allows."""
    STALE = auto()
    """Its lifetime is over, or something that it carries has changed: the origin has to be asked."""
    FORBIDDEN = auto()
    """It was meant for somebody else."""


@dataclass(frozen=True, slots=True)
class Judged:
    verdict: Verdict
    bound_s: float = 0.0


class LookAside:
    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._clock = upstream.clock
        self._teller = Teller(upstream.clock, upstream.observer)
        self._fetcher = Fetcher(upstream)
        self._flights = Flights()

    async def aclose(self) -> None:
        await self._flights.aclose()

    # --- what needs no waiting --------------------------------------------------------------------------------------

    def at_once(self, read: Read) -> Reply | None:
        """The answer where it is known already."""
        now = self._clock.now()
        when_exceeded = read.serving.policy.policy.staleness.when_exceeded
        if when_exceeded is WhenExceeded.FAIL and read.coherence.state(now) is State.EXCEEDED:
            return self._teller.turned_off(read)
        if read.serving.write_behind is not None:
            write = read.serving.write_behind.pending(read.key)
            pending = None if write is None else self._teller.pending(read, write)
            if pending is not None:
                return pending
        entry = read.serving.memory.get(read.key, read.request.fields)
        if entry is None or for_the_origin(read.request.fields) is not None:
            return None
        judged = self._judge(read, entry, now)
        if judged.verdict is Verdict.HIT:
            return self._teller.hit(read, entry, judged.bound_s, now)
        if judged.verdict is Verdict.EXCEEDED and when_exceeded is WhenExceeded.SERVE_STALE:
            return self._teller.stale(read, entry, judged.bound_s, "staleness-exceeded", now)
        return None

    def _judge(self, read: Read, entry: Entry, now: float) -> Judged:
        if not admissible(read, entry):
            return Judged(Verdict.FORBIDDEN)
        if not read.coherence.usable(entry.validity, entry.tags) or entry.ttl_s(now) <= 0:
            return Judged(Verdict.STALE)
        bound_s = read.coherence.bound(entry.validity, now) + entry.packed.lag_s
        return Judged(Verdict.HIT if bound_s <= read.serving.max_s else Verdict.EXCEEDED, bound_s)

    # --- what has to wait -------------------------------------------------------------------------------------------

    async def answer(self, read: Read) -> Reply:
        reply = self.at_once(read)
        if reply is not None:
            return reply
        why = for_the_origin(read.request.fields)
        if why is not None:
            return await self.bypass(read, why.decode())
        if read.request.method != "GET":
            return await self.bypass(read, None, why="miss")
        entry = read.serving.memory.get(read.key, read.request.fields)
        if entry is not None:
            verdict = self._judge(read, entry, self._clock.now()).verdict
            when_exceeded = read.serving.policy.policy.staleness.when_exceeded
            if verdict is Verdict.EXCEEDED and when_exceeded is WhenExceeded.BYPASS:
                return await self.bypass(read, "staleness-exceeded")
            if verdict is Verdict.FORBIDDEN:
                entry = None
        if read.credential is not None and entry is None:
            return await self._alone(read, None, "bypass", read.credential.decode())
        return await self._together(read, entry)

    async def bypass(self, read: Read, detail: str | None, *, why: str = "bypass") -> Reply:
        """To the origin as it came, and back; the cache is left alone."""
        try:
            turn = await self._upstream.turn(read.serving.policy.policy)
            response = await turn.send(outbound(read.request))
        except (OriginError, Overloaded) as error:
            return self._teller.failed(read, Failed(error), why)
        return self._teller.passed(read, response, why, detail)

    async def refresh(self, read: Read) -> None:
        """Fetches anew what a write has changed, for the readers to come."""
        await self._flights.start(
            read.key, lambda ticketed: self._fetcher.fetch(read, None, look_up=False, ticketed=ticketed)
        ).lead_and_drop()

    async def _together(self, read: Read, entry: Entry | None) -> Reply:
        why = "stale" if entry is not None else "vary-miss" if read.serving.memory.has(read.key) else "miss"
        for _ in range(_ROUNDS):
            # Credentials that the key does not hold are in the request that is sent: its answer is for one alone.
            if read.credential is not None or self._flights.is_unshareable(read.key, self._clock.now()):
                break
            flight = self._flights.of(read.key)
            if flight is None or not self._is_current(read, flight.ticket):
                flight = self._flights.start(
                    read.key,
                    lambda ticketed: self._fetcher.fetch(read, entry, look_up=not read.principal, ticketed=ticketed),
                )
                return self._told(read, await flight.lead(), why)
            reply = self._joined(read, await flight.ride(), why)
            if reply is not None:
                return reply
        return await self._alone(read, entry, why, None)

    async def _alone(self, read: Read, entry: Entry | None, why: str, detail: str | None) -> Reply:
        own = _own_key(read)
        look_up = not read.principal and not self._flights.is_unshareable(own, self._clock.now())
        flight = self._flights.start(None, lambda _: self._fetcher.fetch(read, entry, look_up=look_up, as_it_came=True))
        return self._told(read, await flight.lead(), why, detail)

    def _is_current(self, read: Read, ticket: Ticket | None) -> bool:
        """Whether nothing was announced since a flight has asked: who knows of a write must not be handed the answer
        from before it."""
        return ticket is None or read.coherence.usable(read.coherence.fetched(ticket), read.tags)

    def _told(self, read: Read, result: Result, why: str, detail: str | None = None) -> Reply:
        """For whoever led the fetch."""
        match result:
            case Landed():
                self._flights.mark_shareable(_own_key(read))
                return self._teller.landed(read, result, why)
            case HandOver():
                self._flights.mark_unshareable(_own_key(read), self._clock.now())
                return self._teller.handed_over(read, result, why, detail)
            case Stale():
                return self._teller.instead(read, result, why)
            case Failed():
                return self._teller.failed(read, result, why)

    def _joined(self, read: Read, result: Result, why: str) -> Reply | None:
        """For who waited for another's fetch; None where what it brought is not for him."""
        match result:
            case Landed(entry=entry):
                suits = matches(entry.packed.variant, read.request.fields)
                return self._teller.landed(read, result, why, collapsed=True) if suits else None
            case HandOver():
                return None
            case Stale(entry=entry):
                suits = matches(entry.packed.variant, read.request.fields)
                suits = suits and read.coherence.usable(entry.validity, entry.tags)
                return self._teller.instead(read, result, why) if suits else None
            case Failed():
                return self._teller.failed(read, result, why)


def _own_key(read: Read) -> str:
    """What is learned from a request with credentials of its own says nothing about others."""
    return read.key if read.credential is None else f"{read.key} {read.credential.decode()}"
