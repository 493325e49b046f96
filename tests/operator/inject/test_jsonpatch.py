"""The patch between two documents: correct for any, and small for what injection does."""

from __future__ import annotations

from typing import Any

import jsonpatch
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pulsecache_operator.inject import patch

SCALARS = st.one_of(st.none(), st.booleans(), st.integers(0, 3), st.sampled_from(["", "a", "b/c", "~", "~1"]))
DOCUMENTS = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.dictionaries(st.sampled_from(["name", "a", "b/c", "~", "", "0"]), inner, max_size=4),
    ),
    max_leaves=25,
)
NAMED = st.lists(st.fixed_dictionaries({"name": st.sampled_from("abc"), "value": st.integers(0, 2)}), max_size=6)


def exact(value: Any) -> Any:
    """For a comparison that tells true from 1."""
    if isinstance(value, dict):
        return {key: exact(item) for key, item in value.items()}
    if isinstance(value, list):
        return [exact(item) for item in value]
    return type(value).__name__, value


@given(DOCUMENTS, DOCUMENTS)
def test_applied_to_the_first_it_gives_the_second(before: Any, after: Any) -> None:
    assert exact(jsonpatch.apply_patch(before, patch(before, after))) == exact(after)


@given(NAMED, NAMED)
def test_lists_of_named_things_too(before: Any, after: Any) -> None:
    assert jsonpatch.apply_patch(before, patch(before, after)) == after


@given(DOCUMENTS)
def test_there_is_nothing_to_do_between_equals(document: Any) -> None:
    assert patch(document, document) == []
    assert patch(document, jsonpatch.apply_patch(document, [])) == []


@pytest.mark.parametrize(
    ("before", "after", "operations"),
    [
        (
            {"l": [{"name": "b"}]},
            {"l": [{"name": "a"}, {"name": "b"}]},
            [{"op": "add", "path": "/l/0", "value": {"name": "a"}}],
        ),
        (
            {"l": [{"name": "a"}]},
            {"l": [{"name": "a"}, {"name": "b"}]},
            [{"op": "add", "path": "/l/1", "value": {"name": "b"}}],
        ),
        (
            {"l": [{"name": "a"}, {"name": "b"}, {"name": "c"}]},
            {"l": [{"name": "a"}, {"name": "c"}]},
            [{"op": "remove", "path": "/l/1"}],
        ),
        (
            {"l": [{"name": "a", "v": 1}, {"name": "b"}]},
            {"l": [{"name": "a", "v": 2}, {"name": "b"}]},
            [{"op": "replace", "path": "/l/0/v", "value": 2}],
        ),
        ({"a/b": 1}, {"a/b": 2}, [{"op": "replace", "path": "/a~1b", "value": 2}]),
        ({"a": 1}, {"a": True}, [{"op": "replace", "path": "/a", "value": True}]),
        ({"a": 1}, {}, [{"op": "remove", "path": "/a"}]),
        ({}, {"a": None}, [{"op": "add", "path": "/a", "value": None}]),
    ],
)
def test_it_says_only_what_changed(before: Any, after: Any, operations: Any) -> None:
    assert patch(before, after) == operations
