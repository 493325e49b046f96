"""What is remembered of a request to the origin, and of what it brought."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Ticket:
    """Taken right before a request to the origin is sent, or a look-up in the shared store is begun."""

    epoch: str | None
    """None: no hub has been heard of yet."""
    position: int
    """The highest position seen by then."""
    at: float
    """Own clock, seconds."""
    order: int
    """How many own writes had completed by then."""
    shared_order: int
    """How many of them, from the first on, had been acknowledged by the hub by then: what the shared store knows."""


@dataclass(frozen=True, slots=True)
class Validity:
    """Carried by each stored entry. True of the origin at some instant at or after `at`."""

    epoch: str | None
    valid: int
    """Position when the request was sent: the entry's age counts from there."""
    includes: int
    """Every change of its tags up to this position is known to be contained."""
    at: float
    """Own-clock instant of that sending, or not later than it; -inf where it is not known."""
    order: int
    """Every own write of its tags up to this number is known to be contained."""


UNKNOWN_AGE = float("-inf")


def of_fetch(ticket: Ticket) -> Validity:
    """For what was fetched (a 200 or a 304 alike): it contains all that took effect before the request was sent."""
    return Validity(ticket.epoch, ticket.position, ticket.position, ticket.at, ticket.order)
