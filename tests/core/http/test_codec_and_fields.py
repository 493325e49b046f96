"""Small things that cross a boundary: stored bytes, field values, variants, locations, hops."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pulsecache_sidecar.core.http import codec, status_fields
from pulsecache_sidecar.core.http.freshness import Freshness
from pulsecache_sidecar.core.http.hops import end_to_end, forwarded
from pulsecache_sidecar.core.http.locations import changed_targets, same_origin
from pulsecache_sidecar.core.http.message import Representation, RequestHead, ResponseHead
from pulsecache_sidecar.core.http.vary import matches, variant, varies_on
from pulsecache_sidecar.core.http.written import in_request, in_response

pairs = st.lists(st.tuples(st.binary(max_size=20), st.binary(max_size=20)), max_size=5).map(tuple)
seconds = st.floats(0, 1e9)
packed = st.builds(
    codec.Packed,
    st.builds(
        Representation,
        st.builds(ResponseHead, st.integers(100, 999), pairs, st.binary(max_size=9)),
        st.binary(max_size=99),
    ),
    st.builds(Freshness, seconds, seconds, st.booleans(), seconds),
    st.lists(st.tuples(st.binary(max_size=9), st.none() | st.binary(max_size=9)), max_size=3).map(tuple),
    st.booleans(),
    seconds | st.just(math.inf),
)


@given(packed)
def test_what_is_encoded_is_decoded(value: codec.Packed) -> None:
    assert codec.decode(codec.encode(value)) == value


@given(packed, st.data())
def test_a_payload_cut_short_is_nothing(value: codec.Packed, data: st.DataObject) -> None:
    payload = codec.encode(value)
    assert codec.decode(payload[: data.draw(st.integers(0, len(payload) - 1))]) is None


@given(st.binary(max_size=300))
def test_anything_can_be_offered_to_the_decoder(payload: bytes) -> None:
    codec.decode(payload)
    codec.decode(codec.MAGIC + bytes([codec.VERSION]) + payload)


def test_another_version_is_a_miss() -> None:
    value = codec.Packed(Representation(ResponseHead(200, ()), b"x"), Freshness(1, 0, True), (), False, 0.0)
    payload = bytearray(codec.encode(value))
    assert codec.decode(bytes(payload)) == value
    payload[3] += 1
    assert codec.decode(bytes(payload)) is None


@pytest.mark.parametrize(
    ("bound_s", "text"),
    [
        (0.0, "0"),
        (0.412, "0.412"),
        (0.4121, "0.413"),
        (1.0, "1"),
        (1.5, "1.5"),
        (0.0001, "0.001"),
        (3600.0004, "3600.001"),
        (math.inf, "unknown"),
        (math.nan, "unknown"),
        (-1.0, "0"),
    ],
)
def test_seconds_are_rounded_up(bound_s: float, text: str) -> None:
    assert status_fields.format_seconds(bound_s) == text


@given(st.floats(0, 1e6))
def test_what_is_told_is_never_less_than_what_is_true(bound_s: float) -> None:
    assert float(status_fields.format_seconds(bound_s)) >= bound_s - 1e-8


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (b"0.5;state=confirmed", 0.5),
        (b"2", 2.0),
        (b"unknown;state=exceeded", math.inf),
        (b"-1", math.inf),
        (b"1e3", math.inf),
        (b"", math.inf),
    ],
)
def test_what_an_origin_says_of_its_own_staleness(value: bytes, told: float) -> None:
    assert status_fields.told_staleness(((b"pulse-staleness", value),)) == told
    assert status_fields.told_staleness(()) is None


def test_the_two_fields() -> None:
    assert status_fields.pulse_staleness(0.4, "confirmed") == (b"pulse-staleness", b"0.4;state=confirmed")
    assert status_fields.pulse_staleness(0, "exceeded", pending=True)[1] == b"0;state=exceeded;pending"
    assert status_fields.hit(12.9)[1] == b"pulsecache; hit; ttl=12"
    assert status_fields.hit(-0.5, detail="x")[1] == b"pulsecache; hit; ttl=-1; detail=x"
    told = status_fields.forwarded("stale", status=304, stored=True, collapsed=True, detail="d")
    assert told[1] == b"pulsecache; fwd=stale; fwd-status=304; stored; collapsed; detail=d"
    assert status_fields.answered("a")[1] == b"pulsecache; detail=a"


def test_variants() -> None:
    assert varies_on(((b"vary", b"B, a"), (b"vary", b"A"))) == (b"a", b"b")
    assert varies_on(((b"vary", b"a, *"),)) is None
    assert varies_on(()) == ()
    stored = variant((b"accept", b"x"), ((b"accept", b"a,  b"),))
    assert stored == ((b"accept", b"a,b"), (b"x", None))
    assert matches(stored, ((b"accept", b"a"), (b"accept", b"b")))
    assert not matches(stored, ((b"accept", b"b, a"),))
    assert not matches(stored, ((b"accept", b"a,b"), (b"x", b"")))


SHOP = RequestHead("POST", b"/a/b?c", ((b"host", b"Shop:80"),))


@pytest.mark.parametrize(
    ("reference", "found"),
    [
        (b"/x?y", "/x?y"),
        (b"x", "/a/x"),
        (b"../x", "/x"),
        (b"?q", "/a/b?q"),
        (b"", "/a/b?c"),
        (b"http://shop:80/x", "/x"),
        (b"https://SHOP:80", "/"),
        (b"http://shop/x", None),
        (b"//other/x", None),
        (b"mailto:a@b", None),
        (b"http://[x/", None),
    ],
)
def test_locations(reference: bytes, found: str | None) -> None:
    assert same_origin(SHOP, reference) == found


def test_both_locations_count() -> None:
    fields = ((b"location", b"/x"), (b"content-location", b"/y"), (b"location", b"http://other/"))
    assert list(changed_targets(SHOP, fields)) == ["/x", "/y"]


def test_hops() -> None:
    fields = (
        (b"connection", b"X-Mine, cookie, close"),
        (b"x-mine", b"1"),
        (b"cookie", b"a"),
        (b"te", b"x"),
        (b"a", b"b"),
    )
    assert end_to_end(fields) == ((b"cookie", b"a"), (b"a", b"b"))
    assert forwarded((), "") == ()
    assert forwarded((), "::1") == ((b"x-forwarded-for", b"::1"),)
    assert forwarded(((b"x-forwarded-for", b"1"), (b"x-forwarded-for", b"2")), "3") == (
        (b"x-forwarded-for", b"1, 2, 3"),
    )


def put(target: bytes = b"/p", method: str = "PUT") -> RequestHead:
    return RequestHead(method, target, ((b"host", b"s"), (b"content-type", b"a/b"), (b"x", b"y")))


@pytest.mark.parametrize(
    ("request_head", "status", "location", "shown"),
    [
        (put(), 200, None, True),
        (put(), 201, None, True),
        (put(method="POST"), 200, None, True),
        (put(method="POST"), 201, None, False),
        (put(method="POST"), 201, b"/p", True),
        (put(method="DELETE"), 200, None, False),
        (put(b"/p?x"), 200, None, False),
        (put(), 200, b"/other", False),
        (put(), 204, None, False),
        (put(), 202, None, False),
    ],
)
def test_what_a_response_shows(request_head: RequestHead, status: int, location: bytes | None, shown: bool) -> None:
    fields = () if location is None else ((b"content-location", location),)
    assert (in_response(request_head, ResponseHead(status, fields)) is not None) is shown


def test_what_a_request_shows() -> None:
    head = in_request(put(), ResponseHead(204, ((b"etag", b'"a"'), (b"server", b"x"))))
    assert head == ResponseHead(200, ((b"content-type", b"a/b"), (b"etag", b'"a"')))
    assert in_request(put(method="PATCH"), ResponseHead(204, ())) is None
    assert in_request(put(), ResponseHead(303, ())) is None
