"""What the parser says: every error at once, each with its path; and the values of a good document.

Single fields are in the table of `tests/crd`.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies import manifest, read, write
from policy_cases import CLIENT_SIDE, SERVER_SIDE, changed
from pulsecache_policy import grammar
from pulsecache_policy.errors import InvalidPolicy
from pulsecache_policy.model import (
    Consumer,
    JournalType,
    Principal,
    PrincipalType,
    QueryMode,
    RepresentationSource,
    TargetRef,
    TtlSource,
    Writers,
    WriteStrategy,
)
from pulsecache_policy.parse import parse_policy


def errors(document: object) -> dict[str, str]:
    with pytest.raises(InvalidPolicy) as raised:
        parse_policy(document)
    return {error.path: error.reason for error in raised.value.errors}


def test_a_server_side_policy() -> None:
    policy = parse_policy(SERVER_SIDE)
    assert policy.key == policy.dataset == "default/products"
    assert policy.placement == TargetRef(name="products", section_name="http")
    assert policy.memory_max_bytes == 64 * 1024 * 1024
    assert policy.redis
    assert policy.staleness.writers is Writers.ALL
    assert policy.staleness.heartbeat.interval_s == 1.0
    product, basket = policy.reads
    assert (product.ttl.source, product.ttl.duration_s) == (TtlSource.ORIGIN_FIRST, 60.0)
    assert product.match.methods == ("GET",)
    assert basket.ttl.source is TtlSource.ORIGIN
    assert basket.key.query.mode is QueryMode.ONLY
    assert basket.key.headers == ("accept-language",)
    assert basket.key.principal == Principal(type=PrincipalType.COOKIE, name="session")
    update, views, create = policy.writes
    assert update.write_through is not None
    assert update.write_through.source is RepresentationSource.RESPONSE_BODY
    assert views.write_behind is not None
    assert views.write_behind.journal.type is JournalType.EMPTY_DIR
    assert views.write_behind.journal.max_entries == 100_000
    assert create.strategy is WriteStrategy.INVALIDATE


def test_a_client_side_policy() -> None:
    policy = parse_policy(CLIENT_SIDE)
    assert policy.dataset == "default/products"
    assert policy.placement == Consumer(
        match_labels=(("app", "storefront"),), upstream="http://products.shop.svc", env=("PRODUCTS_URL",)
    )


def test_the_namespace_of_a_document_wins_over_the_default() -> None:
    nameless = changed(SERVER_SIDE, {"metadata": {"name": "products"}, "spec.dataset": None})
    assert parse_policy(nameless, default_namespace="shop").key == "shop/products"
    assert parse_policy(nameless, default_namespace="shop").dataset == "shop/products"
    assert parse_policy(SERVER_SIDE, default_namespace="shop").key == "default/products"


def test_what_the_api_server_adds_is_kept_or_left_aside() -> None:
    metadata = {
        "name": "products",
        "generation": 4,
        "uid": "u-1",
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "managedFields": [{"manager": "kubectl"}],
        "resourceVersion": "7",
    }
    policy = parse_policy(changed(SERVER_SIDE, {"metadata": metadata, "status": {"observedGeneration": 4}}))
    assert (policy.generation, policy.uid, policy.created) == (4, "u-1", "2026-01-01T00:00:00Z")


def test_every_error_is_told_at_once() -> None:
    found = errors(
        {
            "apiVersion": "pulsecache.dev/v1",
            "kind": "CachePolicy",
            "metadata": {"name": "Products"},
            "spec": {
                "mode": "Off",
                "staleness": {"max": "5", "heartbeat": {"failureThreshold": 0}},
                "reads": [{"name": "a", "match": {"path": "a"}}, {"name": "a"}, 5],
                "writes": [{"match": {"methods": ["GET"], "path": "/{x}"}, "strategy": "WriteThrough"}],
                "surprise": True,
            },
        }
    )
    assert found.keys() == {
        "apiVersion",
        "metadata.name",
        "spec",
        "spec.mode",
        "spec.staleness.max",
        "spec.staleness.heartbeat.failureThreshold",
        "spec.reads[0].match.path",
        "spec.reads[1].name",
        "spec.reads[1].match",
        "spec.reads[2]",
        "spec.writes[0].name",
        "spec.writes[0].match.methods[0]",
        "spec.writes[0].writeThrough",
        "spec.surprise",
    }


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        ("spec.staleness.max", "5", '"5" must be a duration such as 500ms, 5s or 1m30s'),
        ("spec.staleness.settle", "2h", "2h must be between 100ms and 1h"),
        ("spec.store.memory.maxBytes", "64MB", "must be a whole number of bytes, or one with a suffix, such as 64Mi"),
        ("spec.origin.maxConcurrency", 0, "0 must be between 1 and 10000"),
        ("spec.mode", "Off", '"Off" must be Serve or Bypass'),
        ("spec.dataset", 5, "must be a string, not a number"),
        ("spec.reads[0].match.path", "/a//b", "has an empty segment"),
        ("spec.reads[0].tags[0]", "p:{no}", '"{no}" is no name of the path /products/{id}'),
        ("spec.writes[0].writeThrough.read", "other", 'there is no read rule "other"'),
        ("spec.targetRef", None, "exactly one of targetRef"),
        ("spec.surprise", 1, "is no field of a CachePolicy"),
    ],
)
def test_says_what_is_expected(path: str, value: object, reason: str) -> None:
    found = errors(changed(SERVER_SIDE, {path: value}))
    assert any(reason in said for where, said in found.items() if where.startswith(path) or path.startswith(where))


def test_a_rule_with_errors_is_not_missing_for_those_that_refer_to_it() -> None:
    found = errors(changed(SERVER_SIDE, {"spec.reads[0].match.path": "bad"}))
    assert found.keys() == {"spec.reads[0].match.path"}


def test_a_message_does_not_repeat_a_novel() -> None:
    novel = "x" * 100_000
    for path in (
        "spec.mode",
        "spec.staleness.max",
        "spec.store.memory.maxBytes",
        "spec.dataset",
        "spec.reads[0].tags[0]",
    ):
        assert len(errors(changed(SERVER_SIDE, {path: novel}))[path]) < 250


def test_names_of_header_fields_are_kept_in_lower_case() -> None:
    rule = read("/a", key={"headers": ["Accept", "ACCEPT"], "principal": {"type": "Header", "name": "X-User"}})
    key = parse_policy(manifest(reads=[rule])).reads[0].key
    assert key.headers == ("accept",)
    assert key.principal == Principal(type=PrincipalType.HEADER, name="x-user")


@pytest.mark.parametrize("document", [None, 5, "text", [], True, {}, {5: 6}, {"spec": {"reads": {"a": 1}}}])
def test_no_document_does_worse_than_an_error(document: object) -> None:
    assert errors(document)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3),
    max_leaves=8,
)
PLACES = [
    "spec",
    "metadata",
    "metadata.name",
    "metadata.generation",
    "spec.targetRef",
    "spec.store",
    "spec.store.memory.maxBytes",
    "spec.origin",
    "spec.staleness",
    "spec.staleness.max",
    "spec.staleness.heartbeat",
    "spec.reads",
    "spec.reads[0]",
    "spec.reads[0].match",
    "spec.reads[0].match.methods",
    "spec.reads[0].match.path",
    "spec.reads[0].ttl",
    "spec.reads[0].key",
    "spec.reads[0].key.query",
    "spec.reads[0].tags",
    "spec.writes",
    "spec.writes[0]",
    "spec.writes[0].writeThrough",
    "spec.writes[1].writeBehind",
]


@given(st.sampled_from(PLACES), JSON)
def test_anything_anywhere_is_parsed_or_refused(place: str, value: Any) -> None:
    with suppress(InvalidPolicy):
        parse_policy(changed(SERVER_SIDE, {place: value}))


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1ms", 1), ("1s", 1000), ("1m30s", 90_000), ("1h", 3_600_000), ("500ms1s", 1500), ("0s", 0)],
)
def test_durations(text: str, expected: int) -> None:
    assert grammar.milliseconds(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"), [("5", 5), ("2k", 2000), ("1Ki", 1024), ("3M", 3_000_000), ("64Mi", 67108864), ("1Gi", 2**30)]
)
def test_quantities(text: str, expected: int) -> None:
    assert grammar.quantity(text) == expected


def test_a_list_of_rules_that_is_too_long_is_not_looked_at() -> None:
    rules = [write(f"/{n}", name=f"w{n}") for n in range(grammar.MAX_RULES + 1)]
    assert errors(manifest(writes=rules)) == {"spec.writes": "has 65 items, at most 64 are allowed"}
