"""Whether a response may be stored; the engine's tests show the same from the outside."""

from __future__ import annotations

import pytest

from pulsecache_policy.model import Principal, PrincipalType, Ttl, TtlSource
from pulsecache_sidecar.core.http.credentials import unkeyed
from pulsecache_sidecar.core.http.message import RequestHead, ResponseHead
from pulsecache_sidecar.core.http.storable import NotStored, Storable, Times, storable

TTL = Ttl(source=TtlSource.ORIGIN_FIRST, duration_s=60.0)
HEADER = Principal(type=PrincipalType.HEADER, name="Authorization")
OTHER_HEADER = Principal(type=PrincipalType.HEADER, name="X-User")
COOKIE = Principal(type=PrincipalType.COOKIE, name="sid")
COOKIE_HEADER = Principal(type=PrincipalType.HEADER, name="Cookie")


def decide(
    request: dict[str, str],
    response: dict[str, str],
    *,
    status: int = 200,
    method: str = "GET",
    ttl: Ttl = TTL,
    principal: Principal | None = None,
) -> Storable | NotStored:
    return storable(
        RequestHead(method, b"/", tuple((k.encode(), v.encode()) for k, v in request.items())),
        ResponseHead(status, tuple((k.encode(), v.encode()) for k, v in response.items())),
        ttl=ttl,
        principal=principal,
        times=Times(0.0, 0.0, 0.0),
    )


@pytest.mark.parametrize(
    ("principal", "request_fields", "response", "expected"),
    [
        (None, {"authorization": "a"}, {}, NotStored.AUTHORIZATION),
        (None, {"authorization": ""}, {}, None),
        (None, {"authorization": "a"}, {"cache-control": "max-age=5"}, NotStored.AUTHORIZATION),
        (None, {"authorization": "a"}, {"cache-control": "public"}, None),
        (None, {"authorization": "a"}, {"cache-control": "s-maxage=9"}, None),
        (None, {"cookie": "a=b"}, {}, NotStored.COOKIE),
        (HEADER, {"authorization": "a"}, {}, None),
        (HEADER, {"authorization": "a", "cookie": "b=c"}, {}, NotStored.COOKIE),
        (COOKIE, {"cookie": "sid=1"}, {}, None),
        (COOKIE_HEADER, {"cookie": "sid=1"}, {}, None),
        (COOKIE, {"cookie": "sid=1", "authorization": "a"}, {}, NotStored.AUTHORIZATION),
        (OTHER_HEADER, {"authorization": "a", "x-user": "u"}, {}, NotStored.AUTHORIZATION),
        (None, {}, {"cache-control": "private"}, NotStored.PRIVATE),
        (HEADER, {"authorization": "a"}, {"cache-control": "private, max-age=5"}, None),
        (HEADER, {"authorization": "a"}, {"set-cookie": "a=b"}, NotStored.SET_COOKIE),
        (HEADER, {"authorization": "a"}, {"cache-control": "no-store"}, NotStored.NO_STORE),
    ],
)
def test_who_asked(
    principal: Principal | None, request_fields: dict[str, str], response: dict[str, str], expected: NotStored | None
) -> None:
    found = decide(request_fields, response, principal=principal)
    assert found is expected if expected is not None else isinstance(found, Storable)


@pytest.mark.parametrize(
    ("status", "response", "expected"),
    [
        (200, {}, None),
        (404, {"cache-control": "max-age=5"}, None),
        (404, {}, NotStored.NO_LIFETIME),
        (404, {"etag": '"a"'}, NotStored.STATUS),
        (500, {"cache-control": "max-age=5"}, None),
        (206, {"cache-control": "max-age=5"}, NotStored.STATUS),
        (304, {"cache-control": "max-age=5"}, NotStored.STATUS),
        (200, {"content-range": "bytes 0-1/2"}, NotStored.RANGE),
        (200, {"cache-control": "max-age=0"}, NotStored.NO_LIFETIME),
        (200, {"cache-control": "max-age=0", "etag": '"a"'}, None),
        (200, {"vary": "*"}, NotStored.VARY),
        (200, {"vary": "accept"}, None),
    ],
)
def test_what_came(status: int, response: dict[str, str], expected: NotStored | None) -> None:
    found = decide({}, response, status=status)
    assert found is expected if expected is not None else isinstance(found, Storable)


def test_without_lifetime_or_validator_an_origins_word_is_needed() -> None:
    assert decide({}, {}, ttl=Ttl()) is NotStored.NO_LIFETIME
    assert isinstance(decide({}, {"last-modified": "Sun, 06 Nov 1994 08:49:37 GMT"}, ttl=Ttl()), Storable)


def test_methods_and_ranges() -> None:
    assert decide({}, {}, method="HEAD") is NotStored.METHOD
    assert decide({"range": "bytes=0-1"}, {}) is NotStored.RANGE
    assert decide({"cache-control": "no-store"}, {}) is NotStored.NO_STORE


def test_what_varies_by_who_asks_stays_in_memory() -> None:
    for name, private in (("Accept", False), ("Cookie", True), ("authorization, accept", True)):
        found = decide({}, {"vary": name})
        assert isinstance(found, Storable)
        assert found.private is private


def test_the_first_unkeyed_credential_is_named() -> None:
    fields = ((b"cookie", b"a=b"), (b"authorization", b"x"))
    assert unkeyed(fields, None) == b"authorization"
    assert unkeyed(fields, HEADER) == b"cookie"
    assert unkeyed((), None) is None
