"""Keeps a Redis that does not answer from costing anything: after a failure nothing is asked on a request's behalf
until background work has found it well again."""

from __future__ import annotations

from pulsecache_sidecar.ports import Clock


class Breaker:
    """Closed or open, for one server.

    A failure opens it. Calls that a request waits for (`admits(probe=False)`) pass only while it is closed: no request
    pays for finding out. Background calls (`probe=True`) have a pace of their own and pass always; the first of them
    that succeeds closes it. Where it fails again within `calm_s` (Redis answers some calls in time, others not), it
    stays open for `hold_s` at least, doubled each time up to `max_hold_s`.
    """

    def __init__(self, clock: Clock, *, hold_s: float = 0.5, max_hold_s: float = 5.0, calm_s: float = 2.0) -> None:
        self._clock = clock
        self._first_hold_s, self._max_hold_s, self._calm_s = hold_s, max_hold_s, calm_s
        self._hold_s = 0.0
        self._open_until: float | None = None
        self._closed_at = float("-inf")

    @property
    def closed(self) -> bool:
        return self._open_until is None

    def admits(self, *, probe: bool) -> bool:
        return probe or self._open_until is None

    def succeeded(self) -> None:
        if self._open_until is not None and (now := self._clock.now()) >= self._open_until:
            self._open_until, self._closed_at = None, now

    def failed(self) -> None:
        if self._open_until is not None:
            return
        now = self._clock.now()
        if now - self._closed_at > self._calm_s:
            self._hold_s = 0.0
        else:
            self._hold_s = min(max(2 * self._hold_s, self._first_hold_s), self._max_hold_s)
        self._open_until = now + self._hold_s
