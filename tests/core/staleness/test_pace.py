from __future__ import annotations

import pytest

from pulsecache_sidecar.core.staleness.pace import Pace


def test_the_first_beat_is_at_once_and_the_lead_goes_on_by_itself() -> None:
    pace = Pace(1.0, 0.5)
    assert pace.beat_at(10.0) == 10.0
    pace.beaten(10.0)
    pace.heard(10.1, own=True)
    assert pace.beat_at(10.7) == 11.0


@pytest.mark.parametrize("offset", [0.0, 0.5, 0.99])
def test_the_others_beat_shortly_before_the_next_heartbeat_after_everybody_has_asked(offset: float) -> None:
    pace = Pace(1.0, offset)
    pace.beaten(9.9)
    pace.heard(10.0, own=False)
    assert 10.7 < pace.beat_at(10.7) < 11.0
    assert pace.sample_at(10.2) == pytest.approx(10.7)


def test_nobody_beats_twice_between_two_heartbeats_of_a_living_lead() -> None:
    pace = Pace(1.0, 0.5)
    pace.heard(10.0, own=False)
    pace.beaten(10.4)  # out of step: after the heartbeat
    assert pace.beat_at(10.7) > 11.0
    pace.heard(11.0, own=False)
    assert 11.7 < pace.beat_at(11.1) < 12.0


def test_when_the_lead_is_silent_it_beats_a_second_time_within_two_intervals() -> None:
    pace = Pace(1.0, 0.5)
    pace.heard(10.0, own=False)
    pace.beaten(pace.beat_at(10.5))
    assert pace.beat_at(11.5) <= 12.0 + 1e-9


def test_who_never_beats_asks_once_an_interval_in_step_also_when_nothing_is_heard_any_more() -> None:
    pace = Pace(1.0, 0.5)
    assert pace.sample_at(9.0) == 10.0
    pace.heard(10.0, own=False)
    at, asked = 10.0, []
    for _ in range(4):
        at = pace.sample_at(at)
        asked.append(at)
    assert asked == pytest.approx([10.7, 11.7, 12.7, 13.7])
