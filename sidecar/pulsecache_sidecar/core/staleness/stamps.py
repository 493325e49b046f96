"""Bounded memory of what changed when: tag -> the latest number it was stamped with, and a floor.

Used twice: with positions (changes of the whole dataset, as they are consumed) and with the process's own order of
completed writes. Forgetting raises the floor, so it can only make more unusable, never less.
"""

from __future__ import annotations

from collections.abc import Iterable

from pulsecache_sidecar.core.staleness.events import WHOLE_DATASET


class Stamps:
    """Two generations of at most `limit` tags each; when the young one is full, the old one is forgotten."""

    def __init__(self, limit: int = 16_384) -> None:
        self._limit = limit
        self._young: dict[str, int] = {}
        self._old: dict[str, int] = {}
        self._latest = 0
        self.floor = 0
        """What includes less than this is not usable, whatever its tags."""

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def stamp(self, tags: Iterable[str], number: int) -> None:
        """Stamps may arrive in any order and repeatedly: the highest stays."""
        self._latest = max(self._latest, number)
        for tag in tags:
            if tag == WHOLE_DATASET:
                self.raise_floor(number)
            elif self._young.get(tag, 0) < number:
                self._young[tag] = number
                if len(self._young) > self._limit:
                    self._forget()

    def raise_floor(self, number: int) -> None:
        self.floor = max(self.floor, number)
        self._latest = max(self._latest, number)

    def admits(self, includes: int, tags: Iterable[str]) -> bool:
        """Whether something that contains every change up to `includes` was hit by none of what is known."""
        if includes >= self._latest:
            return True
        if includes < self.floor:
            return False
        young, old = self._young, self._old
        for tag in tags:  # noqa: SIM110 - on the path of every hit: a generator costs more than the look-ups
            if young.get(tag, 0) > includes or old.get(tag, 0) > includes:
                return False
        return True

    def clear(self, floor: int = 0) -> None:
        self._young, self._old, self.floor, self._latest = {}, {}, floor, floor

    def _forget(self) -> None:
        self.raise_floor(max(self._old.values(), default=0))
        self._young, self._old = {}, self._young
