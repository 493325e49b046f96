"""Path templates and tag templates."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pulsecache_policy.template import PathTemplate, check_tag, expand, placeholders


@pytest.mark.parametrize(
    ("template", "path", "params"),
    [
        ("/", "/", {}),
        ("/products", "/products", {}),
        ("/products/{id}", "/products/42", {"id": "42"}),
        ("/products/{id}", "/products/a.b@c", {"id": "a.b@c"}),
        ("/{a}/x/{b}", "/1/x/2", {"a": "1", "b": "2"}),
        ("/{a}/", "/1/", {"a": "1"}),
        ("/files/{path*}", "/files/a", {"path": "a"}),
        ("/files/{path*}", "/files/a/b/", {"path": "a/b/"}),
        ("/{all*}", "/a/b", {"all": "a/b"}),
        ("/caf%C3%A9/{x}", "/caf%C3%A9/1", {"x": "1"}),
    ],
)
def test_matches(template: str, path: str, params: dict[str, str]) -> None:
    assert PathTemplate.compile(template).match(path) == params


@pytest.mark.parametrize(
    ("template", "path"),
    [
        ("/", "/a"),
        ("/products", "/products/"),
        ("/products/", "/products"),
        ("/products", "/Products"),
        ("/products/{id}", "/products"),
        ("/products/{id}", "/products/"),
        ("/products/{id}", "/products/1/2"),
        ("/products/{id}", "/product/1"),
        ("/files/{path*}", "/files"),
        ("/files/{path*}", "/files/"),
        ("/{all*}", "/"),
        ("/a", "a"),
        ("/a", ""),
    ],
)
def test_does_not_match(template: str, path: str) -> None:
    assert PathTemplate.compile(template).match(path) is None


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("products", 'must start with "/"'),
        ("/a//b", "empty segment"),
        ("/a/../b", 'the segment ".."'),
        ("/{rest*}/b", "only be the last segment"),
        ("/a{id}", "a placeholder is a whole segment"),
        ("/{id}/{id}", 'the name "id" is there twice'),
        ("/{}", "a name has letters"),
        ("/{a-b}", "a name has letters"),
        ("/a b", "not in normal form"),
        ("/%41", "not in normal form"),
        ("/{a}/{b}/{c}/{d}/{e}/{f}/{g}/{h}/{i}", "more than 8 names"),
    ],
)
def test_says_what_is_wrong(template: str, reason: str) -> None:
    with pytest.raises(ValueError, match=r".") as raised:
        PathTemplate.compile(template)

    assert reason in str(raised.value)


def test_names_are_in_order_and_include_the_rest() -> None:
    assert PathTemplate.compile("/{b}/x/{a}/{rest*}").names == ("b", "a", "rest")


def test_a_tag_takes_its_values_from_the_path() -> None:
    assert expand("product:{id}/{lang}", {"id": "42", "lang": "de"}) == "product:42/de"
    assert expand("products", {}) == "products"


def test_values_are_not_expanded_again() -> None:
    assert expand("a:{x}:{y}", {"x": "{y}", "y": "1"}) == "a:{y}:1"


def test_the_names_of_a_tag() -> None:
    assert placeholders("a:{x}:{y}{x}") == ("x", "y", "x")


@pytest.mark.parametrize("tag", ["*", "/a", "{id}", "", "a b", "a{", "a{x*}"])
def test_no_request_can_make_a_tag_of_another_kind(tag: str) -> None:
    """`*` is the whole dataset and "/..." a path: a tag starts with a character of the policy's own."""
    with pytest.raises(ValueError, match="is no tag"):
        check_tag(tag)


SEGMENT = st.sampled_from(["a", "b", "", "{x}", "{y}"])
TEMPLATES = st.builds(
    lambda parts, rest: "/" + "/".join([*parts, *(["{rest*}"] if rest else [])]),
    st.lists(SEGMENT, min_size=1, max_size=3, unique=True),
    st.booleans(),
)
PATHS = st.lists(st.sampled_from(["a", "b", "c", ""]), min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts))


def compiled(text: str) -> PathTemplate | None:
    try:
        return PathTemplate.compile(text)
    except ValueError:
        return None


@given(TEMPLATES, TEMPLATES, PATHS)
def test_what_covers_another_matches_all_that_it_matches(one: str, other: str, path: str) -> None:
    first, second = compiled(one), compiled(other)
    if first is not None and second is not None and first.covers(second) and second.match(path) is not None:
        assert first.match(path) is not None


@pytest.mark.parametrize(
    ("one", "other", "covers"),
    [
        ("/{x}", "/a", True),
        ("/a", "/{x}", False),
        ("/{x}", "/{y}", True),
        ("/{x*}", "/a/b", True),
        ("/{x*}", "/a/{y*}", True),
        ("/a/{y*}", "/{x*}", False),
        ("/{x}", "/{x*}", False),
        ("/a/{x*}", "/a/", False),
        ("/a/{x*}", "/a", False),
        ("/{x}/", "/a/", True),
        ("/{x}/{y}", "/a/", False),
    ],
)
def test_covers(one: str, other: str, covers: bool) -> None:
    assert PathTemplate.compile(one).covers(PathTemplate.compile(other)) is covers
