from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pulsecache_sidecar.core.staleness.positions import PositionLog


def test_a_position_is_as_old_as_the_asking_of_the_latest_reply_not_above_it() -> None:
    log = PositionLog()
    log.add(10, asked=1.0)
    log.add(20, asked=2.0)
    assert log.earliest(10) == 1.0
    assert log.earliest(19) == 1.0
    assert log.earliest(20) == 2.0
    assert log.earliest(10**9) == 2.0


def test_what_is_older_than_the_log_has_no_age() -> None:
    log = PositionLog()
    assert log.earliest(5) is None
    log.add(10, asked=1.0)
    assert log.earliest(9) is None


def test_a_reply_that_was_overtaken_says_nothing_wrong() -> None:
    log = PositionLog()
    log.add(20, asked=1.0)  # asked first, answered with the higher position
    log.add(15, asked=2.0)
    assert log.earliest(20) == 2.0, "15 was given out after 2.0, so 20 was, too"
    assert log.earliest(14) is None


def test_after_an_epoch_nothing_is_known() -> None:
    log = PositionLog()
    log.add(20, asked=1.0)
    log.clear()
    assert log.earliest(20) is None


REPLIES = st.lists(st.tuples(st.integers(0, 200), st.floats(0, 100)), max_size=60)


@given(REPLIES, st.integers(0, 200))
def test_it_is_exactly_the_youngest_asking_of_a_reply_not_above(
    replies: list[tuple[int, float]], position: int
) -> None:
    log = PositionLog(limit=1000)
    for given_out, asked in replies:
        log.add(given_out, asked)
    assert log.earliest(position) == max((at for known, at in replies if known <= position), default=None)


@given(REPLIES, st.integers(0, 200))
def test_bounded_it_is_never_younger_and_reaches_as_far_back(replies: list[tuple[int, float]], position: int) -> None:
    log, whole = PositionLog(limit=8), PositionLog(limit=1000)
    for given_out, asked in sorted(replies, key=lambda reply: reply[1]):
        log.add(given_out, asked)
        whole.add(given_out, asked)
    assert len(log) <= 8
    found, exact = log.earliest(position), whole.earliest(position)
    assert (found is None) == (exact is None)
    assert found is None or (exact is not None and found <= exact)


def test_ten_hours_of_replies_fit_and_the_latest_are_exact() -> None:
    log = PositionLog()
    for second in range(36_000):
        log.add(second * 3, asked=float(second))
    assert len(log) <= 512
    assert all(log.earliest(second * 3) == second for second in range(35_800, 36_000))
    for ago in (300, 3600, 18_000):
        found = log.earliest((36_000 - ago) * 3)
        assert found is not None
        assert found >= 36_000 - ago * 1.1, "within a tenth of its age"
