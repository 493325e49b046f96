"""When to ask for a position and when to beat: everybody's pulse falls in with the heartbeat of the lead.

The bound is as tight as the youngest position that all publishers cover, and as the consumer's own reply just below
it. If everybody beats at a time of his own, both may be an interval old. So the others aim at the lead's next
heartbeat: every process asks for a position well before it (that is where ages are counted from), every publisher
asks again and beats shortly before it, each at its own offset so that a thousand do not come at once.
Nothing depends on it but tightness: who beats early, late or twice only makes the bound larger.
"""

from __future__ import annotations

from math import floor

SAMPLE_LEAD = 0.3
"""Of an interval: how long before the heartbeat a position is asked for."""


class Pace:
    """`offset` in [0, 1): where in the publishers' window this process beats."""

    def __init__(self, interval_s: float, offset: float) -> None:
        self._interval_s = interval_s
        self._margin_s = interval_s * (0.05 + 0.15 * offset)
        self._heard: float | None = None
        self._own = False
        self._beaten: float | None = None

    def heard(self, now: float, *, own: bool) -> None:
        """A heartbeat arrived; `own`: this process is the lead."""
        self._heard, self._own = now, own

    def beaten(self, now: float) -> None:
        self._beaten = now

    def sample_at(self, now: float) -> float:
        """The next instant to ask for a position: on the grid of the heartbeats, a little before each."""
        interval_s = self._interval_s
        base = self._heard if self._heard is not None else self._beaten
        if base is None:
            return now + interval_s
        phase = base - SAMPLE_LEAD * interval_s
        steps = floor((now + 0.2 * interval_s - phase) / interval_s) + 1
        return phase + steps * interval_s

    def beat_at(self, now: float) -> float:
        """The next instant to beat. Ask again when it has come: a heartbeat heard meanwhile puts it off.

        Never twice between two heartbeats of a living lead: the hub would take that for the lead's death.
        """
        if self._beaten is None:
            return now
        if self._own:
            return self._beaten + self._interval_s
        if self._heard is not None and self._heard > self._beaten:
            return self._heard + self._interval_s - self._margin_s
        return self._beaten + self._interval_s + self._margin_s
