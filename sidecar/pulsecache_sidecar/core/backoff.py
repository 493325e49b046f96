"""How long to wait before the next attempt: exponential back-off with full jitter.

The random number is an argument, so a decision can be repeated; who draws it and who waits is left to the engine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

_LAST_DOUBLING = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Waits between 0 and `base_s` doubled with each failure, at most `cap_s`.

    Full jitter (the wait is uniform from zero on) spreads those who failed at the same instant better than a fixed
    wait with a little noise: they would meet again each time.
    """

    base_s: float
    cap_s: float

    def __post_init__(self) -> None:
        if not (0 < self.base_s <= self.cap_s and math.isfinite(self.cap_s)):
            raise ValueError(f"a back-off needs 0 < base <= cap, not base {self.base_s} s and cap {self.cap_s} s")

    def ceiling_s(self, failures: int) -> float:
        """The longest wait after so many failures in a row (1 or more)."""
        return min(self.cap_s, self.base_s * 2.0 ** min(max(failures, 1) - 1, _LAST_DOUBLING))

    def wait_s(self, failures: int, chance: float) -> float:
        """The wait after so many failures in a row; `chance` is uniform in [0, 1)."""
        return chance * self.ceiling_s(failures)
