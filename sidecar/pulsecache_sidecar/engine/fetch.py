"""One fetch of a read rule: the shared store first, then the origin, with what may be stored of it stored.

    look up in the shared store -> usable, fresh, within the bound: that is it
    take a turn at the origin -> ticket -> send (with the validators of what we have, if they can tell)
    304: what we have is true again    storable: collect, store, share    else: hand the response over as it comes

A ticket is taken right before the sending: a change that is announced from then on makes the answer unusable, so that
it is never stored (DESIGN section 4, "An entry"). The result is a value; how it is told is `look_aside`'s.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from pulsecache_policy.model import WhenExceeded
from pulsecache_sidecar.core.http import codec
from pulsecache_sidecar.core.http.conditional import freshened, unconditional, validators
from pulsecache_sidecar.core.http.dates import format_date
from pulsecache_sidecar.core.http.framing import declared_length
from pulsecache_sidecar.core.http.freshness import Freshness, told_age
from pulsecache_sidecar.core.http.message import Fields, Representation, ResponseHead, first, without
from pulsecache_sidecar.core.http.status_fields import told_staleness
from pulsecache_sidecar.core.http.storable import NotStored, Storable, Times, storable
from pulsecache_sidecar.core.http.vary import matches
from pulsecache_sidecar.core.staleness.validity import Ticket, Validity
from pulsecache_sidecar.engine.bodies import collect
from pulsecache_sidecar.engine.limits import Overloaded
from pulsecache_sidecar.engine.memory import Entry
from pulsecache_sidecar.engine.passthrough import inbound, outbound
from pulsecache_sidecar.engine.serving import Read
from pulsecache_sidecar.engine.upstream import Upstream
from pulsecache_sidecar.errors import OriginError
from pulsecache_sidecar.ports import Body, OriginResponse

REVALIDATION_S = 60.0
"""How much longer than its lifetime a response with an ETag is worth keeping in the shared store."""


@dataclass(frozen=True, slots=True)
class Landed:
    """A whole response in memory."""

    entry: Entry
    how: str
    """`hit` (from the shared store), `miss` or `revalidated`."""
    stored: bool
    why: str | None = None
    """Why it was not stored."""


@dataclass(frozen=True, slots=True)
class HandOver:
    """A response that cannot be shared: whoever led the fetch gets it as it comes."""

    head: ResponseHead
    body: Body
    reason: NotStored
    abort: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Stale:
    """The origin failed, and an older answer may stand in for it."""

    entry: Entry
    error: str


@dataclass(frozen=True, slots=True)
class Failed:
    error: OriginError | Overloaded


Result = Landed | HandOver | Stale | Failed


class Fetcher:
    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._clock = upstream.clock

    async def fetch(
        self,
        read: Read,
        base: Entry | None,
        *,
        look_up: bool,
        as_it_came: bool = False,
        ticketed: Callable[[Ticket], None] | None = None,
    ) -> Result:
        """`base` is what is held already and cannot be used as it is; `ticketed` is told when the request is sent.
        `as_it_came`: most likely nothing can be stored, so the client's own conditions stay on the request."""
        if look_up:
            found = await self._look_up(read)
            if found is not None and self.acceptable(read, found):
                read.serving.memory.put(found)
                return Landed(found, "hit", stored=True)
            if found is not None and admissible(read, found):
                base = found
        try:
            return await self._from_origin(read, base, as_it_came and base is None, ticketed)
        except Overloaded as overloaded:
            return Failed(overloaded)
        except OriginError as error:
            return self._instead(read, base, str(error)) or Failed(error)

    def acceptable(self, read: Read, entry: Entry) -> bool:
        """Usable, fresh, and within the bound."""
        now = self._clock.now()
        if not admissible(read, entry) or not read.coherence.usable(entry.validity, entry.tags):
            return False
        if entry.ttl_s(now) <= 0:
            return False
        bound_s = read.coherence.bound(entry.validity, now) + entry.packed.lag_s
        return bound_s <= read.serving.max_s and matches(entry.packed.variant, read.request.fields)

    async def _look_up(self, read: Read) -> Entry | None:
        ticket = read.coherence.ticket(self._clock.now())
        found = await read.coherence.lookup(read.key, ticket)
        if found is None:
            return None
        payload, tags, validity = found
        packed = codec.decode(payload)
        if packed is None or not matches(packed.variant, read.request.fields):
            return None
        return Entry(read.key, packed, tags, validity, sent_at=validity.at)

    async def _from_origin(
        self, read: Read, base: Entry | None, as_it_came: bool, ticketed: Callable[[Ticket], None] | None
    ) -> Result:
        turn = await self._upstream.turn(read.serving.policy.policy)
        now, sent_wall = self._clock.now(), self._clock.wall()
        conditions = self._conditions(read, base, sent_wall)
        ticket = read.coherence.ticket(now)
        if ticketed is not None:
            ticketed(ticket)
        sent = outbound(read.request)
        fields = sent.fields if as_it_came else unconditional(sent.fields)
        response = await turn.send(replace(sent, fields=(*fields, *conditions)))
        try:
            times = Times(sent_wall, self._clock.wall(), self._clock.now() - now)
            head = dated(inbound(response.head), times.received_wall)
            if head.status == 304 and conditions and base is not None:
                return await self._revalidated(read, base, response, head, ticket, times)
            if head.status >= 500 and base is not None:
                stale = self._instead(read, base, f"the origin answered {head.status}")
                if stale is not None:
                    response.abort()
                    return stale
            return await self._fetched(read, base, response, head, ticket, times)
        except BaseException:
            response.abort()
            raise

    def _conditions(self, read: Read, base: Entry | None, now_wall: float) -> Fields:
        if base is None:
            return ()
        changed = not read.coherence.usable(base.validity, base.tags)
        return validators(base.head, changed=changed, now_wall=now_wall) or ()

    async def _revalidated(
        self, read: Read, base: Entry, response: OriginResponse, told: ResponseHead, ticket: Ticket, times: Times
    ) -> Result:
        await collect(response.body, 0)
        head = freshened(base.head, told)
        decision = self._decide(read, head, times)
        validity = read.coherence.fetched(ticket)
        if isinstance(decision, NotStored):
            self._forget(read, base)
            once = Storable(Freshness(0.0, 0.0, explicit=False), base.packed.variant, base.packed.anyone, private=True)
            entry = new_entry(read, head, base.body, once, validity, ticket.at, lag_s=lag(told.fields))
            return Landed(entry, "revalidated", stored=False, why=decision.value)
        entry = new_entry(read, head, base.body, decision, validity, ticket.at, lag_s=lag(told.fields))
        return Landed(entry, "revalidated", *self._store(read, entry, decision))

    async def _fetched(
        self,
        read: Read,
        base: Entry | None,
        response: OriginResponse,
        head: ResponseHead,
        ticket: Ticket,
        times: Times,
    ) -> Result:
        decision = self._decide(read, head, times)
        if isinstance(decision, NotStored):
            if base is not None and head.status < 500:
                self._forget(read, base)  # a newer answer there is, and it is not for storing
            return HandOver(head, response.body, decision, response.abort)
        body = await collect(response.body, declared_length(head.fields))
        if not isinstance(body, bytes):
            return HandOver(head, body, NotStored.TOO_LARGE, response.abort)
        entry = new_entry(read, head, body, decision, read.coherence.fetched(ticket), ticket.at, lag_s=lag(head.fields))
        return Landed(entry, "miss", *self._store(read, entry, decision))

    def _decide(self, read: Read, head: ResponseHead, times: Times) -> Storable | NotStored:
        rule = read.match.rule
        request = replace(read.request, fields=unconditional(read.request.fields))
        return storable(request, head, ttl=rule.ttl, principal=rule.key.principal, times=times)

    def _store(self, read: Read, entry: Entry, decision: Storable) -> tuple[bool, str | None]:
        """Whether it was stored, or why not. In the same step as it was found usable."""
        if not read.coherence.usable(entry.validity, entry.tags):
            return False, NotStored.OVERLAP.value
        held = read.serving.memory.get(read.key, read.request.fields)
        if held is not None and held.sent_at > entry.sent_at and read.coherence.usable(held.validity, held.tags):
            return False, NotStored.OLDER.value
        if not read.serving.memory.put(entry):
            return False, NotStored.TOO_LARGE.value
        if not (entry.principal or decision.private):
            ttl_s = shared_ttl_s(entry, self._clock.now())
            if ttl_s > 0:
                read.coherence.share(entry.key, codec.encode(entry.packed), entry.tags, entry.validity, ttl_s)
        return True, None

    def _forget(self, read: Read, base: Entry) -> None:
        read.serving.memory.remove(base.key, base.packed.variant)

    def _instead(self, read: Read, base: Entry | None, error: str) -> Stale | None:
        """What may stand in for an error: within the time that its own stale-if-error allows, and within the bound that
        the policy promises (R2). Not what has been invalidated: that needs validation before it is used at all (RFC
        9111 section 4.4), and who has written must not be shown what was before."""
        if base is None or not read.coherence.usable(base.validity, base.tags):
            return None
        now = self._clock.now()
        window_s = base.packed.freshness.stale_if_error_s
        if window_s <= 0 or -base.ttl_s(now) > window_s:
            return None
        staleness = read.serving.policy.policy.staleness
        if staleness.when_exceeded is not WhenExceeded.SERVE_STALE and bound_of(read, base, now) > staleness.max_s:
            return None
        return Stale(base, error)


def admissible(read: Read, entry: Entry) -> bool:
    """Whether the entry may be shown to who asks (R3)."""
    return read.credential is None or entry.packed.anyone


def bound_of(read: Read, entry: Entry, now: float) -> float:
    """The bound of an entry served at this very instant, usable or not."""
    coherence = read.coherence
    if coherence.usable(entry.validity, entry.tags):
        return coherence.bound(entry.validity, now) + entry.packed.lag_s
    return coherence.age_bound(entry.validity, now) + entry.packed.lag_s


def new_entry(
    read: Read, head: ResponseHead, body: bytes, decision: Storable, validity: Validity, sent_at: float, *, lag_s: float
) -> Entry:
    # Age and Pulse-Staleness are counted on from here and told anew; the length is that of the body that is held.
    kept = replace(head, fields=without(head.fields, b"age", b"pulse-staleness", b"content-length"))
    packed = codec.Packed(Representation(kept, body), decision.freshness, decision.variant, decision.anyone, lag_s)
    return Entry(read.key, packed, read.tags, validity, sent_at, read.principal)


def lag(fields: Fields) -> float:
    """How far the origin's own answer lags behind by its own word: its Pulse-Staleness, else its Age: "it adds up"."""
    told = told_staleness(fields)
    return float(told_age(fields)) if told is None else told


def shared_ttl_s(entry: Entry, now: float) -> float:
    """For how long the shared store should keep it: its lifetime, and a while longer what can be revalidated."""
    left_s = entry.ttl_s(now)
    if left_s <= 0:
        return 0.0
    return left_s + (REVALIDATION_S if first(entry.head.fields, b"etag") is not None else 0.0)


def dated(head: ResponseHead, received_wall: float) -> ResponseHead:
    """A response without Date gets one when it is received (RFC 9110 section 6.6.1)."""
    if first(head.fields, b"date") is not None:
        return head
    return replace(head, fields=(*head.fields, (b"date", format_date(received_wall))))
