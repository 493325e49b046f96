from __future__ import annotations

from pulsecache_sidecar.core.staleness.state import State, StateMachine


def machine() -> StateMachine:
    return StateMachine(max_s=5.0, interval_s=1.0, failure_threshold=3, started=100.0)


def judge(states: StateMachine, now: float, *, origin: float | None, heartbeat: float | None) -> State:
    states.evaluate(now, covered=True, origin=origin, heartbeat=heartbeat)
    return states.state


def test_fresh_heartbeats_and_a_young_watermark_confirm() -> None:
    assert judge(machine(), 103.0, origin=102.0, heartbeat=102.5) is State.CONFIRMED


def test_without_a_heartbeat_for_the_threshold_it_is_unconfirmed() -> None:
    states = machine()
    assert judge(states, 106.0, origin=102.5, heartbeat=102.5) is State.CONFIRMED
    assert judge(states, 106.1, origin=102.5, heartbeat=102.5) is State.UNCONFIRMED


def test_a_watermark_older_than_max_is_exceeded_however_fresh_the_heartbeat() -> None:
    assert judge(machine(), 110.1, origin=105.0, heartbeat=110.0) is State.EXCEEDED


def test_before_any_watermark_the_process_has_max_to_hear_of_one() -> None:
    states = machine()
    assert judge(states, 104.0, origin=None, heartbeat=None) is State.UNCONFIRMED
    assert judge(states, 104.0, origin=None, heartbeat=103.9) is State.UNCONFIRMED
    assert judge(states, 105.1, origin=None, heartbeat=105.0) is State.EXCEEDED


def test_uncovered_before_everything_else() -> None:
    states = machine()
    states.evaluate(200.0, covered=False, origin=None, heartbeat=None)
    assert states.state is State.UNCOVERED


def test_a_transition_is_told_once_with_its_reason() -> None:
    states = machine()
    transition = states.evaluate(101.0, covered=True, origin=100.5, heartbeat=100.9)
    assert transition is not None
    assert (transition.before, transition.after, transition.at) == (State.UNCONFIRMED, State.CONFIRMED, 101.0)
    assert transition.reason
    assert states.evaluate(101.5, covered=True, origin=100.5, heartbeat=100.9) is None
    assert states.since == 101.0


def test_values_are_those_of_the_response_field() -> None:
    assert [state.value for state in State] == ["confirmed", "unconfirmed", "exceeded", "uncovered"]
