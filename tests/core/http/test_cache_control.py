"""Cache-Control: what is malformed never makes an answer live longer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pulsecache_sidecar.core.http.cache_control import MAX_DELTA_S, delta_seconds, directives


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ([], {}),
        ([b""], {}),
        ([b"max-age=60"], {"max-age": "60"}),
        ([b"Max-Age=60, PUBLIC"], {"max-age": "60", "public": None}),
        ([b"no-cache", b"max-age=1"], {"no-cache": None, "max-age": "1"}),
        ([b'max-age="60"'], {"max-age": "60"}),
        ([b'private="a, b", no-store'], {"private": "a, b", "no-store": None}),
        ([b'a="\\"x\\"", no-store'], {"a": '"x"', "no-store": None}),
        ([b" , ,max-age=1 ,, "], {"max-age": "1"}),
        ([b"max-age=1, max-age=100"], {"max-age": "1"}),
        ([b"max-age= 60"], {"max-age": "60"}),
        ([b"max-age =60"], {}),
        ([b"max-age=60 seconds, no-store"], {"max-age": "60 seconds", "no-store": None}),
        ([b"@, no-store"], {"no-store": None}),
        ([b'x="unfinished, no-store'], {"no-store": None}),
        ([b"nothing-to-see-here"], {"nothing-to-see-here": None}),
    ],
)
def test_directives(lines: list[bytes], found: dict[str, str | None]) -> None:
    assert directives(tuple((b"cache-control", line) for line in lines)) == found


@pytest.mark.parametrize(
    ("argument", "seconds"),
    [
        ("60", 60),
        ("0", 0),
        ("0060", 60),
        ("99999999999999999999", MAX_DELTA_S),
        ("2147483649", MAX_DELTA_S),
        (None, 0),
        ("", 0),
        ("-1", 0),
        ("+60", 0),
        ("1_0", 0),
        ("60.5", 0),
        ("60 seconds", 0),
        ("\u0666", 0),
    ],
)
def test_seconds(argument: str | None, seconds: int) -> None:
    assert delta_seconds(argument) == seconds


@given(st.binary(max_size=200))
def test_anything_at_all_can_be_read(value: bytes) -> None:
    for argument in directives(((b"cache-control", value),)).values():
        assert 0 <= delta_seconds(argument) <= MAX_DELTA_S


@given(st.text('ab,=" \\', max_size=30))
def test_no_store_after_anything_balanced_is_seen(value: str) -> None:
    if value.count('"') == 0:
        assert "no-store" in directives(((b"cache-control", f"{value},no-store".encode()),))
