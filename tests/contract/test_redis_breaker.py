from __future__ import annotations

from pulsecache_sidecar.adapters.redis_breaker import Breaker


class Clock:
    def __init__(self) -> None:
        self.time = 100.0

    def now(self) -> float:
        return self.time

    def wall(self) -> float:
        return self.time


def test_after_a_failure_requests_do_not_ask_and_background_work_does() -> None:
    breaker = Breaker(Clock())
    assert breaker.admits(probe=False)
    breaker.failed()
    assert not breaker.admits(probe=False)
    assert breaker.admits(probe=True)


def test_time_alone_never_makes_a_request_find_out() -> None:
    clock = Clock()
    breaker = Breaker(clock)
    breaker.failed()
    clock.time += 3600.0
    assert not breaker.admits(probe=False)


def test_the_first_success_of_background_work_closes_it() -> None:
    breaker = Breaker(Clock())
    breaker.failed()
    breaker.succeeded()
    assert breaker.closed
    assert breaker.admits(probe=False)


def test_a_redis_that_answers_only_sometimes_is_left_alone_for_longer_each_time() -> None:
    clock = Clock()
    breaker = Breaker(clock, hold_s=0.5, max_hold_s=5.0, calm_s=2.0)
    held = []
    for _ in range(7):
        breaker.failed()
        failed_at = clock.time
        while not breaker.closed:
            clock.time += 0.125
            breaker.succeeded()
        held.append(clock.time - failed_at)
    assert held == [0.125, 0.5, 1.0, 2.0, 4.0, 5.0, 5.0]
    clock.time += 10.0
    breaker.failed()
    breaker.succeeded()
    assert breaker.closed, "a calm while makes it trust again"
