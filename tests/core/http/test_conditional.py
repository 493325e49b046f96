"""Conditions of clients, and our own."""

from __future__ import annotations

import pytest

from pulsecache_sidecar.core.http.conditional import (
    for_the_origin,
    freshened,
    not_modified,
    not_modified_head,
    unconditional,
    validators,
)
from pulsecache_sidecar.core.http.message import Fields, ResponseHead, first

EARLY, LATE = b"Sun, 06 Nov 1994 08:49:37 GMT", b"Sun, 06 Nov 1994 08:49:38 GMT"


def stored(*fields: tuple[bytes, bytes], status: int = 200) -> ResponseHead:
    return ResponseHead(status, fields)


def wall() -> float:
    return 1_700_000_000.0


@pytest.mark.parametrize(
    ("request_fields", "head", "expected"),
    [
        (((b"if-none-match", b'"a"'),), stored((b"etag", b'"a"')), True),
        (((b"if-none-match", b'W/"a"'),), stored((b"etag", b'"a"')), True),
        (((b"if-none-match", b'"a"'),), stored((b"etag", b'W/"a"')), True),
        (((b"if-none-match", b'"x", "a"'),), stored((b"etag", b'"a"')), True),
        (((b"if-none-match", b'"x"'), (b"if-none-match", b'"a"')), stored((b"etag", b'"a"')), True),
        (((b"if-none-match", b'"x,y", "a"'),), stored((b"etag", b'"x,y"')), True),
        (((b"if-none-match", b'"b"'),), stored((b"etag", b'"a"')), False),
        (((b"if-none-match", b"a"),), stored((b"etag", b'"a"')), False),
        (((b"if-none-match", b'"a"'),), stored((b"etag", b"a")), False),
        (((b"if-none-match", b'"a"'),), stored(), False),
        (((b"if-none-match", b"*"),), stored(), True),
        (((b"if-none-match", b'"a"'),), stored((b"etag", b'"a"'), status=404), False),
        (((b"if-modified-since", EARLY),), stored((b"last-modified", EARLY)), True),
        (((b"if-modified-since", LATE),), stored((b"last-modified", EARLY)), True),
        (((b"if-modified-since", EARLY),), stored((b"last-modified", LATE)), False),
        (((b"if-modified-since", LATE),), stored((b"date", EARLY)), True),
        (((b"if-modified-since", b"soon"),), stored((b"last-modified", EARLY)), False),
        (((b"if-modified-since", EARLY),), stored((b"last-modified", b"soon")), False),
        (((b"if-modified-since", EARLY),), stored(), False),
        (
            ((b"if-none-match", b'"b"'), (b"if-modified-since", LATE)),
            stored((b"etag", b'"a"'), (b"date", EARLY)),
            False,
        ),
        ((), stored((b"etag", b'"a"')), False),
    ],
)
def test_what_a_client_has_already(request_fields: Fields, head: ResponseHead, expected: bool) -> None:
    assert not_modified(request_fields, head, wall) is expected


def test_a_304_carries_what_a_200_would_have_said() -> None:
    head = not_modified_head(
        stored((b"etag", b'"a"'), (b"content-type", b"x"), (b"cache-control", b"max-age=1"), (b"x-other", b"1"))
    )
    assert head == ResponseHead(304, ((b"etag", b'"a"'), (b"cache-control", b"max-age=1")))


@pytest.mark.parametrize(
    ("head", "changed", "expected"),
    [
        (stored((b"etag", b'"a"')), False, ((b"if-none-match", b'"a"'),)),
        (stored((b"etag", b'"a"')), True, ((b"if-none-match", b'"a"'),)),
        (stored((b"etag", b'W/"a"')), False, ((b"if-none-match", b'W/"a"'),)),
        (stored((b"etag", b'W/"a"')), True, None),
        (stored((b"etag", b"a")), False, None),
        (stored((b"last-modified", EARLY), (b"date", LATE)), False, ((b"if-modified-since", EARLY),)),
        (stored((b"last-modified", EARLY), (b"date", LATE)), True, None),
        (stored((b"last-modified", EARLY), (b"date", EARLY)), False, None),
        (stored((b"last-modified", EARLY)), False, None),
        (stored((b"etag", b'"a"'), status=404), False, None),
        (stored(), False, None),
    ],
)
def test_what_can_tell_whether_it_still_holds(head: ResponseHead, changed: bool, expected: Fields | None) -> None:
    assert validators(head, changed=changed, now_wall=wall()) == expected


def test_a_304_replaces_the_fields_it_has_and_leaves_the_body_alone() -> None:
    old = stored(
        (b"etag", b'"a"'), (b"x", b"1"), (b"x", b"2"), (b"age", b"9"), (b"date", EARLY), (b"content-encoding", b"br")
    )
    told = stored((b"x", b"3"), (b"content-length", b"0"), (b"content-encoding", b"gzip"), (b"set-cookie", b"a=b"))
    assert dict(freshened(old, told).fields) == {b"etag": b'"a"', b"x": b"3", b"content-encoding": b"br"}
    assert freshened(old, told).status == 200


def test_conditions_on_the_current_state_are_the_origins() -> None:
    for name in (b"range", b"if-match", b"if-unmodified-since", b"if-range"):
        assert for_the_origin(((name, b"x"),)) == name
    assert for_the_origin(((b"if-none-match", b"x"),)) is None


def test_conditions_come_off() -> None:
    fields = ((b"if-none-match", b"x"), (b"if-range", b"x"), (b"accept", b"y"))
    assert first(unconditional(fields), b"accept") == b"y"
    assert len(unconditional(fields)) == 1
