"""The normal form of a path, the form that rules and tags see, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pulsecache_policy.paths import decode_unreserved, normalise_path, path_tag, resource

SENT = st.text(st.sampled_from("abAZ09-._~!$&'()*+,;=:@/%25FfcC3\\ ?\x00é{"), max_size=24).map(lambda text: "/" + text)


@pytest.mark.parametrize(
    ("sent", "normal"),
    [
        ("/", "/"),
        ("/products/42", "/products/42"),
        ("/products/", "/products/"),
        ("/%70roducts/%7e", "/products/~"),
        ("/caf%c3%a9", "/caf%C3%A9"),
        ("/a%20b", "/a%20b"),
        ("/a%2541", "/a%2541"),
        ("/bob%40example.com", "/bob%40example.com"),
        ("/bob@example.com", "/bob@example.com"),
        ("/a;v=1/b", "/a;v=1/b"),
        ("/.well-known/x", "/.well-known/x"),
        ("/a..b/...", "/a..b/..."),
    ],
)
def test_normal_form(sent: str, normal: str) -> None:
    assert normalise_path(sent) == normal


@pytest.mark.parametrize(
    "sent",
    [
        "",
        "*",
        "products",
        "http://host/products",
        "//",
        "/a//b",
        "/a%2Fb",
        "/a%2fb",
        "/a\\b",
        "/a%5cb",
        "/a%00",
        "/a%0a",
        "/a%1F",
        "/a%7f",
        "/a b",
        "/a\tb",
        "/a\x00",
        "/a?b",
        "/a#b",
        "/a%",
        "/a%4",
        "/a%zz",
        "/a%%34%31",
        "/caf\xe9",
        '/a"b',
        "/{id}",
        "/a|b",
        "/.",
        "/..",
        "/a/./b",
        "/a/../b",
        "/a/..",
        "/a/%2e%2E/b",
        "/a/.%2e",
    ],
)
def test_what_servers_read_in_different_ways_is_refused(sent: str) -> None:
    assert normalise_path(sent) is None
    assert path_tag(sent) is None


@pytest.mark.parametrize(
    "spellings",
    [
        ("/users/bob@x", "/users/bob%40x", "/users/%62ob%40x"),
        ("/a!b", "/a%21b"),
        ("/a", "/a;v=1", "/a;jsessionid=9;x", "/a%3Bv"),
        ("/a/b", "/a;v=1/b", "/a;/b;"),
        ("/caf%C3%A9", "/caf%c3%a9"),
    ],
)
def test_every_spelling_of_a_resource_has_one_tag(spellings: tuple[str, ...]) -> None:
    assert {path_tag(spelling) for spelling in spellings} == {spellings[0]}


def test_an_answer_is_found_under_its_own_spelling_only() -> None:
    """An origin may tell reserved characters from their encodings (RFC 3986 section 2.2)."""
    assert normalise_path("/a%2Bb") != normalise_path("/a+b")


@given(SENT)
def test_normalising_twice_changes_nothing(sent: str) -> None:
    normal = normalise_path(sent)
    if normal is not None:
        assert normalise_path(normal) == normal
        assert resource(resource(normal)) == resource(normal)


@given(SENT)
def test_a_tag_of_a_path_starts_with_a_slash_and_has_as_many_segments(sent: str) -> None:
    normal = normalise_path(sent)
    if normal is not None:
        assert resource(normal).startswith("/")
        assert resource(normal).count("/") == normal.count("/") == sent.count("/")


@given(SENT)
def test_equal_normal_forms_are_equal_once_decoded(sent: str) -> None:
    """Nothing but the encoding of unreserved characters and the case of hexadecimal digits is evened out."""
    normal = normalise_path(sent)
    if normal is not None:
        assert normal == decode_unreserved(sent)
        assert normal.upper() == decode_unreserved(sent.upper())
