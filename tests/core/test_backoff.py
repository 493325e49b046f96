"""Waits between attempts."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pulsecache_sidecar.core.backoff import Backoff

BACKOFF = Backoff(base_s=0.1, cap_s=60.0)


@pytest.mark.parametrize(
    ("failures", "ceiling_s"), [(1, 0.1), (2, 0.2), (3, 0.4), (10, 51.2), (11, 60.0), (10**9, 60.0)]
)
def test_the_longest_wait_doubles_up_to_the_cap(failures: int, ceiling_s: float) -> None:
    assert BACKOFF.ceiling_s(failures) == pytest.approx(ceiling_s)


@pytest.mark.parametrize("failures", [0, -3])
def test_without_a_failure_it_is_the_base(failures: int) -> None:
    assert BACKOFF.ceiling_s(failures) == 0.1


@given(failures=st.integers(1, 10**12), chance=st.floats(0, 1, exclude_max=True))
def test_the_wait_is_anything_from_zero_to_the_longest(failures: int, chance: float) -> None:
    assert 0 <= BACKOFF.wait_s(failures, chance) <= BACKOFF.ceiling_s(failures) <= 60.0
    assert BACKOFF.wait_s(failures, 0.5) == BACKOFF.ceiling_s(failures) / 2


@pytest.mark.parametrize(("base_s", "cap_s"), [(0, 1), (-1, 1), (2, 1), (1, math.inf), (math.nan, 1)])
def test_a_backoff_that_makes_no_sense_is_refused(base_s: float, cap_s: float) -> None:
    with pytest.raises(ValueError, match="back-off"):
        Backoff(base_s=base_s, cap_s=cap_s)
