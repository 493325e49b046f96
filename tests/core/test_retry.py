"""What becomes of a write after one attempt."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pulsecache_sidecar.core.http.message import ResponseHead
from pulsecache_sidecar.core.retry import (
    RETRY_AFTER_MAX_S,
    Done,
    Effect,
    Refused,
    Retry,
    Scope,
    after_error,
    after_response,
    retry_after_s,
)
from pulsecache_sidecar.errors import OriginBadResponse, OriginError, OriginTimeout, OriginUnreachable

NOW = 1_700_000_000.0  # Tue, 14 Nov 2023 22:13:20 GMT


def head(status: int, retry_after: bytes | None = None) -> ResponseHead:
    return ResponseHead(status, () if retry_after is None else ((b"retry-after", retry_after),))


@pytest.mark.parametrize("status", [200, 201, 204, 226, 299, 301, 302, 303, 304])
def test_2xx_and_3xx_are_done(status: int) -> None:
    assert after_response(head(status), NOW) == Done(Effect.TOOK)


def test_202_is_done_but_its_effect_may_still_come() -> None:
    assert after_response(head(202), NOW) == Done(Effect.UNKNOWN)


@pytest.mark.parametrize("status", [307, 308])
def test_a_redirect_that_says_do_it_elsewhere_did_nothing_here(status: int) -> None:
    assert after_response(head(status), NOW) == Refused(status, f"status-{status}")


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 409, 410, 412, 413, 415, 418, 422, 451, 499])
def test_4xx_is_a_dead_letter(status: int) -> None:
    assert after_response(head(status), NOW) == Refused(status, f"status-{status}", Effect.NONE)


def test_429_is_retried_and_spares_the_origin() -> None:
    assert after_response(head(429, b"7"), NOW) == Retry("status-429", Scope.ORIGIN, Effect.NONE, 7.0)


def test_425_was_not_processed_and_408_may_have_been() -> None:
    assert after_response(head(425), NOW) == Retry("status-425", Scope.WRITE, Effect.NONE)
    assert after_response(head(408), NOW) == Retry("status-408", Scope.WRITE, Effect.UNKNOWN)


@pytest.mark.parametrize("status", [502, 503, 504])
def test_an_origin_that_is_away_is_spared(status: int) -> None:
    assert after_response(head(status), NOW) == Retry(f"status-{status}", Scope.ORIGIN, Effect.UNKNOWN)


@pytest.mark.parametrize("status", [500, 501, 505, 507, 520, 599])
def test_any_other_5xx_is_the_trouble_of_this_write_alone(status: int) -> None:
    assert after_response(head(status), NOW) == Retry(f"status-{status}", Scope.WRITE, Effect.UNKNOWN)


def test_409_while_an_earlier_attempt_may_still_run_is_retried() -> None:
    verdict = after_response(head(409), NOW, may_be_running=True)
    assert verdict == Retry("status-409", Scope.WRITE, Effect.NONE)


def test_an_origin_that_was_not_reached_has_done_nothing() -> None:
    verdict = after_error(OriginUnreachable("refused", request_sent=False))
    assert verdict == Retry("unreachable", Scope.ORIGIN, Effect.NONE)


@pytest.mark.parametrize("kind", [OriginTimeout, OriginUnreachable, OriginError])
def test_a_request_that_was_sent_without_answer_may_have_had_its_effect(kind: type[OriginError]) -> None:
    assert after_error(kind("lost", request_sent=True)) == Retry(kind.reason, Scope.ORIGIN, Effect.UNKNOWN)


def test_a_broken_answer_to_one_write_does_not_hold_up_the_others() -> None:
    assert after_error(OriginBadResponse("reset", request_sent=True)).scope is Scope.WRITE
    assert after_error(OriginBadResponse("reset", request_sent=False)).scope is Scope.ORIGIN


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"0", 0.0),
        (b"12", 12.0),
        (b" 12 ", 12.0),
        (b"Tue, 14 Nov 2023 22:13:50 GMT", 30.0),
        (b"Tuesday, 14-Nov-23 22:13:50 GMT", 30.0),
        (b"Tue Nov 14 22:13:50 2023", 30.0),
        (b"Tue, 14 Nov 2023 22:13:00 GMT", 0.0),
        (b"86400", RETRY_AFTER_MAX_S),
        (b"9" * 5000, RETRY_AFTER_MAX_S),
        (b"Fri, 31 Dec 9999 23:59:59 GMT", RETRY_AFTER_MAX_S),
        (b"-5", 0.0),
        (b"1.5", 0.0),
        (b"soon", 0.0),
        (b"", 0.0),
        ("\u0663".encode(), 0.0),
        (b"Tue, 99 Nov 2023 22:13:50 GMT", 0.0),
    ],
)
def test_retry_after(value: bytes, seconds: float) -> None:
    assert retry_after_s(head(503, value), NOW) == pytest.approx(seconds)


def test_no_retry_after() -> None:
    assert retry_after_s(head(503), NOW) == 0.0


@given(status=st.integers(200, 999), value=st.binary(max_size=40), running=st.booleans())
def test_every_response_has_a_verdict_with_a_bounded_wait(status: int, value: bytes, running: bool) -> None:
    verdict = after_response(head(status, value), NOW, may_be_running=running)
    assert not isinstance(verdict, Retry) or 0 <= verdict.at_least_s <= RETRY_AFTER_MAX_S
    if status >= 500:
        assert isinstance(verdict, Retry)
