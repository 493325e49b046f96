"""How long a response lives, and how old it is when it comes."""

from __future__ import annotations

import pytest

from pulsecache_policy.model import Ttl, TtlSource
from pulsecache_sidecar.core.http.dates import format_date
from pulsecache_sidecar.core.http.freshness import freshness, told_age
from pulsecache_sidecar.core.http.message import ResponseHead

NOW = 1_700_000_000.0
ORIGIN = Ttl()
FIRST = Ttl(source=TtlSource.ORIGIN_FIRST, duration_s=60.0)
POLICY = Ttl(source=TtlSource.POLICY, duration_s=60.0)


def of(
    fields: dict[str, str], ttl: Ttl = ORIGIN, *, shared: bool = True, status: int = 200, delay_s: float = 0.0
) -> tuple[float, float]:
    head = ResponseHead(status, tuple((name.encode(), value.encode()) for name, value in fields.items()))
    found = freshness(head, ttl, shared=shared, sent_wall=NOW - delay_s, received_wall=NOW, delay_s=delay_s)
    return found.lifetime_s, found.initial_age_s


def at(offset_s: float) -> str:
    return format_date(NOW + offset_s).decode()


@pytest.mark.parametrize(
    ("fields", "lifetime_s"),
    [
        ({}, 0),
        ({"cache-control": "max-age=60"}, 60),
        ({"cache-control": "max-age=60, s-maxage=5"}, 5),
        ({"cache-control": "max-age=60, s-maxage=x"}, 0),
        ({"cache-control": "max-age=x", "expires": at(100)}, 0),
        ({"cache-control": "max-age=60, no-cache"}, 0),
        ({"cache-control": 'max-age=60, no-cache="set-cookie"'}, 0),
        ({"expires": at(100)}, 100),
        ({"expires": at(100), "date": at(-20)}, 120),
        ({"expires": at(100), "date": at(200)}, 0),
        ({"expires": at(100), "date": "yesterday"}, 100),
        ({"expires": "0"}, 0),
        ({"expires": "-1"}, 0),
        ({"expires": ""}, 0),
        ({"expires": "Thu, 32 Jan 2099 00:00:00 GMT"}, 0),
    ],
)
def test_lifetimes(fields: dict[str, str], lifetime_s: float) -> None:
    assert of(fields)[0] == lifetime_s


def test_s_maxage_is_for_shared_entries() -> None:
    assert of({"cache-control": "max-age=60, s-maxage=5"}, shared=False)[0] == 60


@pytest.mark.parametrize(
    ("ttl", "status", "fields", "lifetime_s"),
    [
        (FIRST, 200, {}, 60),
        (FIRST, 200, {"cache-control": "max-age=5"}, 5),
        (FIRST, 200, {"cache-control": "max-age=0"}, 0),
        (FIRST, 200, {"expires": "0"}, 0),
        (FIRST, 200, {"cache-control": "no-cache"}, 0),
        (FIRST, 404, {}, 0),
        (FIRST, 404, {"cache-control": "max-age=5"}, 5),
        (FIRST, 500, {}, 0),
        (FIRST, 301, {}, 60),
        (POLICY, 200, {"cache-control": "max-age=5"}, 60),
        (POLICY, 200, {"cache-control": "max-age=600"}, 60),
        (POLICY, 200, {"cache-control": "no-cache"}, 0),
        (POLICY, 500, {"cache-control": "max-age=5"}, 5),
    ],
)
def test_the_policys_duration(ttl: Ttl, status: int, fields: dict[str, str], lifetime_s: float) -> None:
    assert of(fields, ttl, status=status)[0] == lifetime_s


@pytest.mark.parametrize(
    ("fields", "delay_s", "initial_age_s"),
    [
        ({}, 0, 0),
        ({"date": at(0)}, 0, 0),
        ({"date": at(-10)}, 0, 10),
        ({"date": at(-10)}, 4, 6),
        ({"date": at(10)}, 0, 0),
        ({"age": "7"}, 4, 7),
        ({"age": "7", "date": at(-20)}, 4, 16),
        ({"age": "x"}, 0, 0),
    ],
)
def test_the_age_at_sending(fields: dict[str, str], delay_s: float, initial_age_s: float) -> None:
    assert of(fields, delay_s=delay_s)[1] == initial_age_s


@pytest.mark.parametrize(
    ("value", "age"),
    [("0", 0), ("60", 60), ("60, 0", 60), ("-1", 0), ("1.5", 0), ("60a", 0), ("9" * 30, 2**31), ("4294967296", 2**31)],
)
def test_the_age_field(value: str, age: int) -> None:
    assert told_age(((b"age", value.encode()),)) == age


@pytest.mark.parametrize(
    ("control", "shared", "seconds"),
    [
        ("max-age=1, stale-if-error=30", True, 30),
        ("max-age=1", True, 0),
        ("max-age=1, stale-if-error=30, must-revalidate", True, 0),
        ("max-age=1, stale-if-error=30, proxy-revalidate", True, 0),
        ("max-age=1, stale-if-error=30, proxy-revalidate", False, 30),
        ("s-maxage=1, stale-if-error=30", True, 0),
        ("no-cache, stale-if-error=30", True, 0),
    ],
)
def test_stale_if_error(control: str, shared: bool, seconds: float) -> None:
    head = ResponseHead(200, ((b"cache-control", control.encode()),))
    found = freshness(head, ORIGIN, shared=shared, sent_wall=NOW, received_wall=NOW, delay_s=0.0)
    assert found.stale_if_error_s == seconds
