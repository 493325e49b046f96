"""The process's own clock."""

from __future__ import annotations

import time

# macOS has no CLOCK_BOOTTIME; its CLOCK_MONOTONIC runs on through sleep already.
_OWN = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class SystemClock:
    """CLOCK_BOOTTIME: monotonic, and running on while the machine sleeps, so that no age is ever too small."""

    def now(self) -> float:
        return time.clock_gettime(_OWN)

    def wall(self) -> float:
        return time.time()
