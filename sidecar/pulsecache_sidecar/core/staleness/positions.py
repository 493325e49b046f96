"""From positions to ages, on the process's own clock.

Positions order events between machines, but say nothing of time. Age is measured here: a position that came in a
reply was given out after the process had asked for it, so the instant of asking is a lower bound, on the own clock,
for when that position *and every higher one* was given out. No clock of another machine takes part.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right

RESOLUTION = 1 / 32


class PositionLog:
    """Bounded memory of (position, own-clock instant of asking); both strictly rise along the log.

    Forgetting an element only makes answers older, never younger, so any element may be dropped. When full, the log is
    thinned to one element in RESOLUTION of its age, but for the latest quarter: it reaches far back, more coarsely the
    farther, and keeps its first element.
    """

    def __init__(self, limit: int = 512) -> None:
        if limit < 4:
            raise ValueError("a log of positions needs at least 4 elements")
        self._limit = limit
        self._positions: list[int] = []
        self._asked: list[float] = []

    def __len__(self) -> int:
        return len(self._positions)

    def add(self, position: int, asked: float) -> None:
        """`position` (or anything above it) was given out after `asked`. Replies may come in any order."""
        at = bisect_left(self._positions, position)
        if at and self._asked[at - 1] >= asked:
            return  # a lower position is known to be as young: this one says nothing new
        end = at
        while end < len(self._asked) and self._asked[end] <= asked:
            end += 1  # higher positions asked for earlier: a reply that was overtaken
        self._positions[at:end] = [position]
        self._asked[at:end] = [asked]
        if len(self._positions) > self._limit:
            self._thin()

    def earliest(self, position: int) -> float | None:
        """An own-clock instant not later than when `position` was given out; None where it is older than the log."""
        at = bisect_right(self._positions, position)
        return self._asked[at - 1] if at else None

    def clear(self) -> None:
        self._positions.clear()
        self._asked.clear()

    def _thin(self) -> None:
        asked = self._asked
        newest, latest = asked[-1], len(asked) - self._limit // 4
        kept = list(range(len(asked) - 1, latest - 1, -1))
        for at in range(latest - 1, 0, -1):
            if asked[kept[-1]] - asked[at] >= RESOLUTION * (newest - asked[kept[-1]]):
                kept.append(at)
        kept.append(0)
        kept.reverse()
        if len(kept) > 3 * self._limit // 4:
            del kept[1 : self._limit // 2 : 2]
        self._positions = [self._positions[at] for at in kept]
        self._asked = [asked[at] for at in kept]
