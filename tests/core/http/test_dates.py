"""HTTP-date in its three forms, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pulsecache_sidecar.core.http.dates import format_date, parse_date

NOW = 1_700_000_000.0
CLASSIC = 784111777.0


@pytest.mark.parametrize(
    "text", ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"]
)
def test_the_three_forms(text: str) -> None:
    assert parse_date(text.encode(), NOW) == CLASSIC


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "-1",
        "Sun, 6 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 08:49:37 UTC",
        "Sun, 06 Nov 1994 08:49:37 +0000",
        "Sun, 06 Nov 1994 08:49:37",
        "sun, 06 nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 24:49:37 GMT",
        "Sun, 06 Nov 1994 08:60:37 GMT",
        "Sun, 31 Feb 1994 08:49:37 GMT",
        " Sun, 06 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 0000 08:49:37 GMT",
        "1994-11-06T08:49:37Z",
    ],
)
def test_what_is_no_date(text: str) -> None:
    assert parse_date(text.encode(), NOW) is None


def test_two_digit_years_are_near() -> None:
    assert parse_date(b"Sunday, 06-Nov-70 08:49:37 GMT", NOW) == parse_date(b"Thu, 06 Nov 2070 08:49:37 GMT", NOW)
    assert parse_date(b"Sunday, 06-Nov-94 08:49:37 GMT", NOW) == CLASSIC


def test_a_leap_second_is_the_next_second() -> None:
    assert parse_date(b"Sat, 31 Dec 2016 23:59:60 GMT", NOW) == parse_date(b"Sun, 01 Jan 2017 00:00:00 GMT", NOW)


@given(st.integers(0, 4_000_000_000))
def test_what_is_written_is_read(second: int) -> None:
    assert parse_date(format_date(second), NOW) == second
