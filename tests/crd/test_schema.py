"""What the schema owes by itself: bounds, descriptions, no defaults below a list, and the parser's own grammar."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
import yaml

from pulsecache_policy import grammar, model

CRD = Path(__file__).parents[2] / "crds" / "cachepolicies.pulsecache.dev.yaml"
VERSION = yaml.safe_load(CRD.read_text())["spec"]["versions"][0]
ROOT = VERSION["schema"]["openAPIV3Schema"]


def nodes(schema: Mapping[str, Any], path: str = "", below_list: bool = False) -> Iterator[tuple[str, Any, bool]]:
    """Every schema of the tree: path, schema, whether a list is above it."""
    yield path, schema, below_list
    for name, child in schema.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}".lstrip("."), below_list)
    if "items" in schema:
        yield from nodes(schema["items"], f"{path}[]", True)
    if isinstance(schema.get("additionalProperties"), dict):
        yield from nodes(schema["additionalProperties"], f"{path}{{}}", below_list)


SCHEMAS = {path: schema for path, schema, _ in nodes(ROOT)}
SPEC = {path.removeprefix("spec."): schema for path, schema in SCHEMAS.items() if path.startswith("spec.")}


def test_every_field_is_described() -> None:
    bare = [path for path, schema in SCHEMAS.items() if "description" not in schema and not path.endswith(("[]", "{}"))]
    assert bare == ["apiVersion", "kind", "metadata", "metadata.name"]


def test_everything_is_bounded() -> None:
    for path, schema in SCHEMAS.items():
        match schema.get("type"):
            case "string" if path not in ("apiVersion", "kind"):
                assert {"maxLength", "enum", "format"} & schema.keys(), path
            case "array":
                assert "maxItems" in schema, path
                assert "x-kubernetes-list-type" in schema, path
            case "integer":
                assert "enum" in schema or "minimum" in schema, path
            case "object" if "additionalProperties" in schema:
                assert "maxProperties" in schema, path


def test_no_default_is_below_a_list() -> None:
    assert [path for path, schema, below in nodes(ROOT) if below and "default" in schema] == []


def test_no_default_is_empty() -> None:
    """An empty one would leave CEL rules above it without the fields that they look at."""
    for path, schema in SCHEMAS.items():
        if schema.get("type") == "object" and "default" in schema:
            defaults = {name: child["default"] for name, child in schema["properties"].items() if "default" in child}
            assert schema["default"] == defaults, path


def test_every_rule_has_a_message() -> None:
    for path, schema in SCHEMAS.items():
        for rule in schema.get("x-kubernetes-validations", ()):
            assert rule.get("message"), path


@pytest.mark.parametrize(
    ("pattern", "paths"),
    [
        (grammar.SERVICE_NAME, ["targetRef.name"]),
        (grammar.DNS_LABEL, ["targetRef.sectionName", "reads[].name", "writes[].name"]),
        (grammar.DNS_LABEL, ["writes[].writeThrough.read", "writes[].writeBehind.read"]),
        (grammar.DNS_SUBDOMAIN, ["dataset"]),
        (grammar.LABEL_VALUE, ["consumer.selector.matchLabels{}"]),
        (grammar.UPSTREAM, ["consumer.upstream"]),
        (grammar.ENV_NAME, ["consumer.env[]"]),
        (grammar.QUANTITY, ["store.memory.maxBytes"]),
        (grammar.DURATION, ["origin.timeout", "staleness.max", "staleness.heartbeat.interval", "staleness.settle"]),
        (grammar.DURATION, ["reads[].ttl.duration"]),
        (grammar.QUERY_NAME, ["reads[].key.query.names[]"]),
        (grammar.FIELD_NAME, ["reads[].key.headers[]", "reads[].key.principal.name"]),
        (grammar.TAG, ["reads[].tags[]", "writes[].invalidates[]"]),
    ],
)
def test_patterns_are_those_of_the_parser(pattern: str, paths: list[str]) -> None:
    for path in paths:
        assert SPEC[path]["pattern"] == f"^({pattern})$", path


@pytest.mark.parametrize(
    ("path", "pattern"),
    [
        ("reads[].match.path", grammar.PATH),
        ("writes[].match.path", grammar.PATH),
        ("consumer.selector.matchLabels", grammar.LABEL_KEY),
    ],
)
def test_patterns_in_rules_are_those_of_the_parser(path: str, pattern: str) -> None:
    rules = " ".join(rule["rule"] for rule in SPEC[path]["x-kubernetes-validations"])
    assert f"^({pattern})$" in rules


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("mode", model.Mode),
        ("rollout.strategy", model.RolloutStrategy),
        ("staleness.whenExceeded", model.WhenExceeded),
        ("staleness.writers", model.Writers),
        ("reads[].ttl.source", model.TtlSource),
        ("reads[].key.query.mode", model.QueryMode),
        ("reads[].key.principal.type", model.PrincipalType),
        ("writes[].strategy", model.WriteStrategy),
        ("writes[].writeThrough.from", model.RepresentationSource),
        ("writes[].writeBehind.journal.type", model.JournalType),
        ("writes[].writeBehind.whenFull", model.WhenFull),
    ],
)
def test_choices_are_those_of_the_model(path: str, kind: type[StrEnum]) -> None:
    assert set(SPEC[path]["enum"]) == {member.value for member in kind}


@pytest.mark.parametrize(
    ("path", "bounds"),
    [
        ("store.memory.maxBytes", grammar.MEMORY_BYTES),
        ("origin.timeout", grammar.ORIGIN_TIMEOUT_MS),
        ("staleness.max", grammar.STALENESS_MAX_MS),
        ("staleness.heartbeat.interval", grammar.HEARTBEAT_INTERVAL_MS),
        ("staleness.settle", grammar.SETTLE_MS),
        ("reads[].ttl.duration", grammar.TTL_MS),
    ],
)
def test_ranges_are_those_of_the_parser(path: str, bounds: grammar.Range) -> None:
    """In the rule, in its message and in the description."""
    schema = SPEC[path]
    rule = schema["x-kubernetes-validations"][-1]
    assert rule["message"] == f"must be {bounds.text}"
    assert bounds.text in schema["description"].replace("Between", "between")
    low, high = bounds.text.removeprefix("between ").split(" and ")
    assert f"'{low}'" in rule["rule"]
    assert f"'{high}'" in rule["rule"]


@pytest.mark.parametrize(
    ("path", "bounds"),
    [
        ("origin.maxConcurrency", grammar.MAX_CONCURRENCY),
        ("staleness.heartbeat.failureThreshold", grammar.FAILURE_THRESHOLD),
        ("writes[].writeBehind.journal.maxEntries", grammar.JOURNAL_ENTRIES),
    ],
)
def test_bounds_of_numbers_are_those_of_the_parser(path: str, bounds: grammar.Range) -> None:
    assert (SPEC[path]["minimum"], SPEC[path]["maximum"]) == (bounds.low, bounds.high)


@pytest.mark.parametrize(
    ("limit", "most", "paths"),
    [
        ("maxItems", grammar.MAX_RULES, ["reads", "writes"]),
        ("maxItems", grammar.MAX_TAGS, ["reads[].tags", "writes[].invalidates"]),
        ("maxItems", grammar.MAX_HEADERS, ["reads[].key.headers"]),
        ("maxItems", grammar.MAX_NAMES, ["consumer.env", "reads[].key.query.names"]),
        ("maxItems", len(grammar.READ_METHODS), ["reads[].match.methods"]),
        ("maxItems", len(grammar.WRITE_METHODS), ["writes[].match.methods"]),
        ("maxProperties", grammar.MAX_LABELS, ["consumer.selector.matchLabels"]),
        ("maxLength", grammar.TEXT_MAX_LENGTH, ["reads[].match.path", "reads[].tags[]", "writes[].invalidates[]"]),
        ("maxLength", grammar.TEXT_MAX_LENGTH, ["consumer.upstream", "consumer.env[]"]),
        ("maxLength", grammar.POLICY_NAME_MAX_LENGTH, ["dataset"]),
        ("maxLength", grammar.NAME_MAX_LENGTH, ["reads[].name", "writes[].name", "reads[].key.query.names[]"]),
        ("maxLength", grammar.NAME_MAX_LENGTH, ["reads[].key.headers[]", "reads[].key.principal.name"]),
        ("maxLength", grammar.DURATION_MAX_LENGTH, ["origin.timeout", "staleness.max", "reads[].ttl.duration"]),
    ],
)
def test_limits_are_those_of_the_parser(limit: str, most: int, paths: list[str]) -> None:
    assert {path: SPEC[path][limit] for path in paths} == dict.fromkeys(paths, most)


def test_columns_name_fields_that_exist() -> None:
    for column in VERSION["additionalPrinterColumns"]:
        path = column["jsonPath"].lstrip(".")
        if "[?" not in path and not path.startswith("metadata"):
            assert path in SCHEMAS, column
