"""What is pending, in memory: order per key, what each cache key shows, counts, and how much of it is held.

The journal has everything; here are a small ticket for each write, and the writes themselves as far as the limit of
bytes allows. A write that shows on a cache key is always held, because readers cannot wait for the disk: so the limit
refuses further ones. Sending is the flusher's, acceptance is `write_behind`'s.
"""

from __future__ import annotations

import heapq
from bisect import insort
from collections import Counter
from dataclasses import dataclass, field

from pulsecache_sidecar.ports import PendingWrite

_WRITE_BYTES = 600
_FIELD_BYTES = 150
"""What Python's objects take besides their contents, roughly."""


def held_bytes(write: PendingWrite) -> int:
    request = write.request
    fields = sum(len(name) + len(value) + _FIELD_BYTES for name, value in request.fields)
    return _WRITE_BYTES + len(request.target) + fields + len(write.body)


@dataclass(slots=True, eq=False)
class Ticket:
    """A pending write. `write` is None where only the journal has it."""

    id: int
    policy: str
    rule: str
    lane: Lane
    shows: str | None
    accepted_wall: float
    attempts: int
    size_bytes: int
    write: PendingWrite | None
    unknown_until: float = 0.0
    """Own time until which an earlier attempt may still be at work at the origin."""
    gone: bool = False


@dataclass(slots=True, eq=False)
class Lane:
    """The pending writes of one order key, oldest first. One at a time is on its way."""

    order_key: str
    tickets: list[Ticket] = field(default_factory=list)
    scheduled: bool = False
    """The flusher knows of it: it is ready, in flight or resting."""
    failures: int = 0
    """Attempts in a row that failed for reasons of this lane's own."""


class Backlog:
    """Not safe for threads; every step is done when it returns, so no await ever sees it half changed."""

    def __init__(self, *, held_max_bytes: int) -> None:
        self._held_max_bytes = held_max_bytes
        self._held_bytes = 0
        self._shown_bytes = 0
        self._lanes: dict[str, Lane] = {}
        self._shown: dict[str, list[Ticket]] = {}
        self._by_rule: Counter[tuple[str, str]] = Counter()
        self._by_age: dict[str, list[tuple[int, Ticket]]] = {}
        self._names: dict[str, str] = {}

    def __len__(self) -> int:
        return self._by_rule.total()

    def can_show(self, more_bytes: int) -> bool:
        """Whether writes of `more_bytes` that show on cache keys can be held, too."""
        return self._shown_bytes + more_bytes <= self._held_max_bytes

    def add(self, write: PendingWrite, *, unknown_until: float = 0.0) -> Lane:
        """Takes a write that the journal has. Returns its lane."""
        size = held_bytes(write)
        held = write.shows is not None or self._held_bytes + size <= self._held_max_bytes
        lane = self._lanes.get(write.order_key)
        if lane is None:
            lane = self._lanes[write.order_key] = Lane(write.order_key)
        ticket = Ticket(
            id=write.id,
            policy=self._names.setdefault(write.policy, write.policy),
            rule=self._names.setdefault(write.rule, write.rule),
            lane=lane,
            shows=write.shows,
            accepted_wall=write.accepted_wall,
            attempts=write.attempts,
            size_bytes=size,
            write=write if held else None,
            unknown_until=unknown_until,
        )
        # By id: a retried dead letter comes back to its old place. The one that is on its way stays on its way.
        insort(lane.tickets, ticket, key=_id)
        if ticket.shows is not None:
            insort(self._shown.setdefault(ticket.shows, []), ticket, key=_id)
            self._shown_bytes += size
        self._held_bytes += size if held else 0
        self._by_rule[ticket.policy, ticket.rule] += 1
        heapq.heappush(self._by_age.setdefault(ticket.policy, []), (ticket.id, ticket))
        return lane

    def remove(self, ticket: Ticket) -> None:
        lane = ticket.lane
        lane.tickets.remove(ticket)
        if not lane.tickets:
            del self._lanes[lane.order_key]
        if ticket.shows is not None:
            shown = self._shown[ticket.shows]
            shown.remove(ticket)
            if not shown:
                del self._shown[ticket.shows]
            self._shown_bytes -= ticket.size_bytes
        self._held_bytes -= ticket.size_bytes if ticket.write is not None else 0
        self._by_rule[ticket.policy, ticket.rule] -= 1
        ticket.gone, ticket.write = True, None
        self._forget_gone(ticket.policy)

    def newest_shown(self, key: str) -> PendingWrite | None:
        shown = self._shown.get(key)
        return shown[-1].write if shown else None

    def has(self, order_key: str) -> bool:
        return order_key in self._lanes

    def count(self, policy: str, rule: str) -> int:
        return self._by_rule[policy, rule]

    def counts(self) -> dict[str, int]:
        """Pending writes by policy, also of those that have none any more."""
        found: Counter[str] = Counter()
        for (policy, _), count in self._by_rule.items():
            found[policy] += count
        return dict(found)

    def oldest_wall(self, policy: str) -> float | None:
        """When the oldest pending write of the policy was accepted."""
        oldest = self._by_age.get(policy)
        return oldest[0][1].accepted_wall if oldest else None

    def _forget_gone(self, policy: str) -> None:
        """Keeps the front of the heap alive. What went out of order stays inside it until it comes to the front."""
        heap = self._by_age[policy]
        while heap and heap[0][1].gone:
            heapq.heappop(heap)


def _id(ticket: Ticket) -> int:
    return ticket.id
