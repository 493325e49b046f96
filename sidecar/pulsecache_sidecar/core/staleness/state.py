"""The state of a dataset in this process: what people, apps and `whenExceeded` are told."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class State(Enum):
    CONFIRMED = "confirmed"
    """Heartbeats arrive, and the watermark is younger than `max`."""
    UNCONFIRMED = "unconfirmed"
    """No fresh heartbeat for `failureThreshold` intervals."""
    EXCEEDED = "exceeded"
    """The watermark is older than `max`."""
    UNCOVERED = "uncovered"
    """The watermark may not be used: somebody may write without announcing. The bound is the age."""


@dataclass(frozen=True, slots=True)
class Transition:
    before: State
    after: State
    at: float
    """Own clock, seconds."""
    reason: str


class StateMachine:
    """Looks at ages, never at arrivals: entries that come late, in a bunch after a pause, confirm nothing until one
    of them is young itself. So the way back to `Confirmed` leads through everything that was missed."""

    def __init__(self, *, max_s: float, interval_s: float, failure_threshold: int, started: float) -> None:
        self._max_s = max_s
        # Half an interval for the own sampling: an age is counted from the asking of an earlier reply.
        self._patience_s = (failure_threshold + 0.5) * interval_s
        self._started = started
        self.state = State.UNCONFIRMED
        self.since = started

    def evaluate(
        self, now: float, *, covered: bool, origin: float | None, heartbeat: float | None
    ) -> Transition | None:
        """`origin`, `heartbeat`: own-clock instants of core.staleness.view; None where none was heard of."""
        state = self._judge(now, covered, origin, heartbeat)
        if state is self.state:
            return None
        reason = self._reason(state, now, origin, heartbeat)
        transition = Transition(self.state, state, now, reason)
        self.state, self.since = state, now
        return transition

    def _judge(self, now: float, covered: bool, origin: float | None, heartbeat: float | None) -> State:
        if not covered:
            return State.UNCOVERED
        # Without any watermark the clock runs from the start of the process.
        if now - (self._started if origin is None else origin) > self._max_s:
            return State.EXCEEDED
        if heartbeat is None or now - heartbeat > self._patience_s or origin is None:
            return State.UNCONFIRMED
        return State.CONFIRMED

    def _reason(self, state: State, now: float, origin: float | None, heartbeat: float | None) -> str:
        match state:
            case State.UNCOVERED:
                return "writes may happen that nobody announces"
            case State.EXCEEDED if origin is None:
                return f"no watermark for more than {self._max_s:g} s"
            case State.EXCEEDED:
                return f"the watermark is more than {self._max_s:g} s old"
            case State.UNCONFIRMED if origin is None:
                return "no watermark whose age is known"
            case State.UNCONFIRMED:
                return f"no heartbeat within {self._patience_s:g} s"
            case State.CONFIRMED:
                return f"consumed up to a heartbeat {now - (heartbeat or now):.1f} s old"
