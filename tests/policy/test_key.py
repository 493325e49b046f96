"""The cache key: what it must tell apart, what it may bring together, and when there is none."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies import policy, read, write
from pulsecache_policy.key import CacheKey, Unkeyable, cache_key, read_key
from pulsecache_policy.match import CompiledPolicy, ReadMatch

Fields = tuple[tuple[bytes, bytes], ...]


def matched(path: str = "/a", **key: Any) -> ReadMatch:
    rules = CompiledPolicy.compile(policy(reads=[read("/{rest*}", **({"key": key} if key else {}))]))
    found = rules.match_read("GET", path)
    assert found is not None
    return found


def key_of(
    match: ReadMatch, *, authority: str = "shop", query: str = "", fields: Fields = (), method: str = "GET"
) -> str:
    key = cache_key(match, scheme_authority=authority, query=query, fields=fields, method=method)
    assert isinstance(key, CacheKey), key
    return key.digest


def reason(match: ReadMatch, *, query: str = "", fields: Fields = (), method: str = "GET") -> str:
    key = cache_key(match, scheme_authority="shop", query=query, fields=fields, method=method)
    assert isinstance(key, Unkeyable), key
    return key.reason


def query_key(query: str, **spec: Any) -> str:
    return key_of(matched(query=spec) if spec else matched(), query=query)


def test_a_key_is_short_and_stable() -> None:
    digest = key_of(matched())
    assert len(digest) == 32
    assert int(digest, 16) >= 0
    assert digest == key_of(matched())


def test_get_and_head_share_a_key_and_nothing_else_has_one() -> None:
    assert key_of(matched(), method="HEAD") == key_of(matched(), method="GET")
    assert reason(matched(), method="POST") == "method"


def test_hosts_are_told_apart_without_regard_to_case() -> None:
    assert key_of(matched(), authority="Shop:80") == key_of(matched(), authority="shop:80")
    assert key_of(matched(), authority="shop") != key_of(matched(), authority="shop:80")


def test_paths_are_told_apart_in_normal_form() -> None:
    assert key_of(matched("/%61")) == key_of(matched("/a"))
    assert len({key_of(matched(path)) for path in ("/a", "/A", "/a/", "/a;v=1", "/a%3Bv=1", "/a@", "/a%40")}) == 7


def test_rules_of_other_meaning_do_not_share_entries() -> None:
    assert key_of(matched()) != key_of(matched(query={"mode": "None"}))


# --- query --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a=1&b=2", "b=2&a=1"),
        ("%61=1", "a=1"),
        ("a=%7e", "a=~"),
        ("a=%c3", "a=%C3"),
        ("a=1&b=2&a=3", "a=1&a=3&b=2"),
    ],
)
def test_queries_that_are_the_same(one: str, other: str) -> None:
    assert query_key(one) == query_key(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("", "a"),
        ("a", "a="),
        ("a=1", "a=1&a=1"),
        ("a=1&a=2", "a=2&a=1"),
        ("a=1&A=2", "A=2&a=1"),
        ("a[]=1&a[0]=2", "a[0]=2&a[]=1"),
        ("a=%26b", "a=&b"),
        ("a=%2B", "a=+"),
        ("a=%20", "a=+"),
        ("a=1&b=2", "a=1%26b=2"),
        ("a=1;b=2", "b=2;a=1"),
        ("x=1&a=1;x=2", "a=1;x=2&x=1"),
        ("a=%2541", "a=%41"),
        ("a=%%34%31", "a=%41"),
        ("a=%%34%31", "a=A"),
        ("a&&b", "a&b"),
    ],
)
def test_queries_that_may_be_different(one: str, other: str) -> None:
    assert query_key(one) != query_key(other)


def test_none_ignores_the_query() -> None:
    assert query_key("a=1", mode="None") == query_key("b;%", mode="None") == query_key("", mode="None")


def test_only_looks_at_the_listed_names() -> None:
    spec = {"mode": "Only", "names": ["page"]}
    assert query_key("page=1&utm=x", **spec) == query_key("utm=y&page=1", **spec)
    assert query_key("utm=x", **spec) == query_key("", **spec)
    assert query_key("page=1", **spec) != query_key("page=2", **spec)


@pytest.mark.parametrize(
    "disguise",
    ["p%61ge=2", "page[]=2", "page[x]=2", "Page=2", "+page=2", "page%20=2", "page%00x=2", "%20page=2", "page"],
)
def test_only_misses_nothing_that_an_origin_may_take_for_a_listed_name(disguise: str) -> None:
    """An answer to the disguised parameter must not be stored under the key of the request without it."""
    spec = {"mode": "Only", "names": ["page"]}
    assert query_key(disguise, **spec) != query_key("", **spec)


def test_only_knows_that_some_origins_fold_punctuation() -> None:
    spec = {"mode": "Only", "names": ["a_b"]}
    assert query_key("a.b=2", **spec) != query_key("", **spec)


def test_except_leaves_out_exactly_the_listed_names() -> None:
    spec = {"mode": "Except", "names": ["utm"]}
    assert query_key("a=1&utm=x&utm=y", **spec) == query_key("a=1", **spec) == query_key("%75tm=z&a=1", **spec)
    for kept in ("UTM=x", "utm[]=x", "utm2=x", "ut"):
        assert query_key(f"a=1&{kept}", **spec) != query_key("a=1", **spec)


@pytest.mark.parametrize("query", ["utm=1;page=2", "utm=%", "utm=%zz&page=1", "page=1&%4"])
@pytest.mark.parametrize("mode", ["Only", "Except"])
def test_nothing_is_left_out_of_a_query_that_origins_split_differently(query: str, mode: str) -> None:
    assert reason(matched(query={"mode": mode, "names": ["utm"]}), query=query) == "ambiguous-query"


# --- headers and principals ---------------------------------------------------------------------------------------


def test_listed_headers_are_told_apart_by_value_order_and_number() -> None:
    match = matched(headers=["Accept", "X-Tenant"])
    variants: list[Fields] = [
        (),
        ((b"accept", b""),),
        ((b"accept", b"a"),),
        ((b"x-tenant", b"a"),),
        ((b"accept", b"a"), (b"accept", b"b")),
        ((b"accept", b"b"), (b"accept", b"a")),
        ((b"accept", b"a, b"),),
        ((b"accept", b"a"), (b"x-tenant", b"b")),
    ]
    assert len({key_of(match, fields=fields) for fields in variants}) == len(variants)
    assert key_of(match, fields=((b"other", b"1"), (b"accept", b"a"))) == key_of(match, fields=((b"accept", b"a"),))


HEADER = {"type": "Header", "name": "Authorization"}
COOKIE = {"type": "Cookie", "name": "session"}


def test_principals_are_told_apart_and_said() -> None:
    key = cache_key(
        matched(principal=HEADER), scheme_authority="shop", query="", fields=((b"authorization", b"a"),), method="GET"
    )
    assert isinstance(key, CacheKey)
    assert key.principal
    match = matched(principal=HEADER)
    assert key_of(match, fields=((b"authorization", b"a"),)) != key_of(match, fields=((b"authorization", b"A"),))


def test_a_cookie_is_found_among_others_and_over_several_fields() -> None:
    match = matched(principal=COOKIE)
    alone = key_of(match, fields=((b"cookie", b"session=1"),))
    assert key_of(match, fields=((b"cookie", b"a=b; session=1;c=d"),)) == alone
    assert key_of(match, fields=((b"cookie", b"a=b"), (b"cookie", b"session=1"))) == alone
    assert key_of(match, fields=((b"cookie", b"session=1=2"),)) != alone
    assert key_of(match, fields=((b"cookie", b'session="1"'),)) != alone


@pytest.mark.parametrize(
    ("principal", "fields", "expected"),
    [
        (HEADER, (), "no-principal"),
        (HEADER, ((b"authorization", b""),), "no-principal"),
        (HEADER, ((b"cookie", b"authorization=1"),), "no-principal"),
        (HEADER, ((b"authorization", b"a"), (b"authorization", b"a")), "ambiguous-principal"),
        (COOKIE, ((b"session", b"1"),), "no-principal"),
        (COOKIE, ((b"cookie", b"session"),), "no-principal"),
        (COOKIE, ((b"cookie", b"session="),), "no-principal"),
        (COOKIE, ((b"cookie", b"Session=1"),), "no-principal"),
        (COOKIE, ((b"cookie", b"xsession=1"),), "no-principal"),
        (COOKIE, ((b"cookie", b"session=1; session=2"),), "ambiguous-principal"),
        (COOKIE, ((b"cookie", b"session=1"), (b"cookie", b"session=1")), "ambiguous-principal"),
        (COOKIE, ((b"cookie", b'session="a;b"'),), "ambiguous-principal"),
    ],
)
def test_without_one_certain_principal_there_is_no_key(
    principal: dict[str, str], fields: Fields, expected: str
) -> None:
    assert reason(matched(principal=principal), fields=fields) == expected


# --- properties ---------------------------------------------------------------------------------------------------

TEXT = st.text(st.sampled_from("ab:0123,=&\x00"), max_size=4)
VALUES = st.lists(TEXT.map(str.encode), max_size=3)


@given(TEXT, VALUES, VALUES, TEXT, VALUES, VALUES)
def test_equal_keys_mean_equal_hosts_and_headers(
    host: str, one: list[bytes], two: list[bytes], other_host: str, other_one: list[bytes], other_two: list[bytes]
) -> None:
    match = matched(headers=["h1", "h2"])

    def key(authority: str, first: list[bytes], second: list[bytes]) -> str:
        fields = (*((b"h1", value) for value in first), *((b"h2", value) for value in second))
        return key_of(match, authority=authority, fields=fields)

    same = (host.lower(), one, two) == (other_host.lower(), other_one, other_two)
    assert (key(host, one, two) == key(other_host, other_one, other_two)) is same


QUERY = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "A", "%61", "utm", "p[]", ""]), st.sampled_from(["", "=", "=1", "=%31", "=%26"])
    ),
    max_size=4,
).map(lambda pairs: "&".join(name + value for name, value in pairs))


def by_name(query: str) -> dict[str, list[str]]:
    """What an origin that decodes unreserved characters sees: for each name, its values in order."""
    found: dict[str, list[str]] = {}
    for pair in query.replace("%61", "a").replace("%31", "1").split("&") if query else []:
        name, sign, value = pair.partition("=")
        found.setdefault(name, []).append(sign + value)
    return found


@given(QUERY, QUERY)
def test_equal_keys_mean_equal_values_of_every_parameter(one: str, other: str) -> None:
    if query_key(one) == query_key(other):
        assert by_name(one) == by_name(other)


@given(QUERY, QUERY)
def test_except_means_equal_values_of_every_other_parameter(one: str, other: str) -> None:
    spec = {"mode": "Except", "names": ["utm"]}
    first, second = by_name(one), by_name(other)
    first.pop("utm", None)
    second.pop("utm", None)
    if query_key(one, **spec) == query_key(other, **spec):
        assert first == second


@given(st.lists(st.sampled_from([b"session=a", b"session=b", b"x=y", b"session=", b"", b'session="'])), st.booleans())
def test_a_key_on_a_cookie_holds_exactly_one_value(pairs: list[bytes], joined: bool) -> None:
    fields: Fields = ((b"cookie", b"; ".join(pairs)),) if joined else tuple((b"cookie", pair) for pair in pairs)
    key = cache_key(matched(principal=COOKIE), scheme_authority="shop", query="", fields=fields, method="GET")
    values = [pair for pair in pairs if pair.startswith(b"session=")]
    assert isinstance(key, CacheKey) is (values in ([b"session=a"], [b"session=b"]))


# --- what a write refreshes ----------------------------------------------------------------------------------------


def test_a_write_refreshes_the_entry_without_a_query() -> None:
    rules = CompiledPolicy.compile(
        policy(
            reads=[read("/a/{x}")],
            writes=[write("/a/{x}", strategy="WriteThrough", writeThrough={"read": "read"})],
        )
    )
    put, get = rules.match_write("PUT", "/a/%31"), rules.match_read("GET", "/a/1")
    assert put is not None
    assert put.read is not None
    assert get is not None
    key = read_key(put.read, "SHOP")
    assert isinstance(key, CacheKey)
    assert key.digest == key_of(get)
    assert key.digest != key_of(get, query="lang=de")
