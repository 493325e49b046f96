"""Which rule a request belongs to, and what the match says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies import policy, read, write
from pulsecache_policy.match import CompiledPolicy, normalise_path, resource
from pulsecache_policy.model import Match, ReadRule, Staleness, TargetRef
from pulsecache_policy.template import PathTemplate


def compiled(**spec: Any) -> CompiledPolicy:
    return CompiledPolicy.compile(policy(**spec))


def rule_of(rules: CompiledPolicy, path: str, method: str = "GET") -> str | None:
    found = rules.match_read(method, path)
    return None if found is None else found.rule.name


def test_the_first_rule_wins() -> None:
    rules = compiled(
        reads=[
            read("/products/best", "best"),
            read("/products/{id}", "product"),
            read("/products/worst", "worst"),
            read("/{rest*}", "rest"),
        ]
    )
    assert rule_of(rules, "/products/best") == "best"
    assert rule_of(rules, "/products/42") == "product"
    assert rule_of(rules, "/products/worst") == "product"
    assert rule_of(rules, "/products/") == "rest"
    assert rule_of(rules, "/products") == "rest"
    assert rule_of(rules, "/") is None


def test_a_later_rule_is_found_where_an_earlier_one_leads_nowhere() -> None:
    rules = compiled(reads=[read("/a/b/c", "abc"), read("/{x}/b/{y}", "xby"), read("/a/{rest*}", "rest")])
    assert rule_of(rules, "/a/b/c") == "abc"
    assert rule_of(rules, "/a/b/d") == "xby"
    assert rule_of(rules, "/a/c/d") == "rest"
    assert rule_of(rules, "/z/b/c") == "xby"
    assert rule_of(rules, "/z/c/c") is None


def test_head_belongs_to_the_rules_for_get() -> None:
    rules = compiled(reads=[read("/a")])
    assert rules.match_read("HEAD", "/a") == rules.match_read("GET", "/a") is not None
    assert rules.match_read("POST", "/a") is None
    assert rules.match_read("OPTIONS", "*") is None


def test_methods_tell_write_rules_apart() -> None:
    rules = compiled(writes=[write("/a", "PUT", name="put"), write("/a", "POST", "PUT", name="post")])
    put, post = rules.match_write("PUT", "/a"), rules.match_write("POST", "/a")
    assert put is not None
    assert post is not None
    assert (put.rule.name, post.rule.name) == ("put", "post")
    assert rules.match_write("DELETE", "/a") is None
    assert rules.match_write("GET", "/a") is None


def test_what_a_read_match_says() -> None:
    found = compiled(reads=[read("/users/{user}/{rest*}", tags=["user:{user}", "files:{rest}", "all"])]).match_read(
        "GET", "/users/bob%40x;v=1/%61/b"
    )
    assert found is not None
    assert found.path == "/users/bob%40x;v=1/a/b"
    assert found.params == {"user": "bob@x", "rest": "a/b"}
    assert found.tags == ("user:bob@x", "files:a/b", "all", "/users/bob@x/a/b")


def test_what_a_write_match_says() -> None:
    rules = compiled(
        reads=[read("/products/{id}", "product", tags=["product:{id}"])],
        writes=[
            write(
                "/products/{id}",
                strategy="WriteThrough",
                writeThrough={"read": "product"},
                invalidates=["products", "product:{id}"],
            )
        ],
    )
    found = rules.match_write("PUT", "/products/4%32")
    assert found is not None
    assert found.path == "/products/42"
    assert found.tags == ("products", "product:42", "/products/42")
    assert found.read == rules.match_read("GET", "/products/42")


def test_a_write_behind_rule_shows_itself_in_its_read_rule() -> None:
    rules = compiled(
        reads=[read("/a/{x}")],
        writes=[write("/a/{x}", strategy="WriteBehind", writeBehind={"read": "read"})],
    )
    found = rules.match_write("PUT", "/a/1")
    assert found is not None
    assert found.read == rules.match_read("GET", "/a/1")


def test_a_write_refreshes_nothing_that_a_read_would_not_use() -> None:
    rules = compiled(
        reads=[read("/products/best", "best"), read("/products/{id}", "product")],
        writes=[write("/products/{id}", strategy="WriteThrough", writeThrough={"read": "product"})],
    )
    best, other = rules.match_write("PUT", "/products/best"), rules.match_write("PUT", "/products/1")
    assert best is not None
    assert other is not None
    assert best.read is None
    assert other.read is not None


@pytest.mark.parametrize("path", ["/a//b", "/a%2Fb", "/a/../b", "/a\\b", "", "*"])
def test_an_ambiguous_path_matches_nothing(path: str) -> None:
    rules = compiled(reads=[read("/{rest*}")], writes=[write("/{rest*}")])
    assert rules.match_read("GET", path) is None
    assert rules.match_write("PUT", path) is None


def test_a_write_to_any_spelling_invalidates_every_spelling() -> None:
    rules = compiled(reads=[read("/u/{x}", tags=["u:{x}"])], writes=[write("/u/{x}", invalidates=["u:{x}"])])
    tags = set()
    for spelling in ("/u/a@b", "/u/a%40b", "/u/%61@b;v=2"):
        found_read, found_write = rules.match_read("GET", spelling), rules.match_write("PUT", spelling)
        assert found_read is not None
        assert found_write is not None
        tags |= {found_read.tags, found_write.tags}
    assert tags == {("u:a@b", "/u/a@b")}


# --- revisions ---------------------------------------------------------------------------------------------------

BASE: dict[str, Any] = {"reads": [read("/a/{x}", ttl={"source": "Policy", "duration": "1m"}, tags=["t:{x}"])]}


def revision(**spec: Any) -> str:
    found = compiled(**{**BASE, **spec}).match_read("GET", "/a/1")
    assert found is not None
    return found.revision


@pytest.mark.parametrize(
    "spec",
    [
        {"reads": [read("/a/{y}", ttl={"source": "Policy", "duration": "1m"}, tags=["t:{y}"])]},
        {"reads": [read("/a/{x}", ttl={"source": "Policy", "duration": "2m"}, tags=["t:{x}"])]},
        {"reads": [read("/a/{x}", ttl={"source": "OriginFirst", "duration": "1m"}, tags=["t:{x}"])]},
        {"reads": [read("/a/{x}", ttl={"source": "Policy", "duration": "1m"}, tags=["u:{x}"])]},
        {"reads": [read("/a/{x}", ttl={"source": "Policy", "duration": "1m"}, tags=["t:{x}"], key={"headers": ["A"]})]},
        {"targetRef": {"name": "other"}},
        {"targetRef": {"name": "products", "sectionName": "http"}},
        {"name": "other"},
    ],
)
def test_a_revision_changes_with_what_an_entry_means(spec: dict[str, Any]) -> None:
    assert revision(**spec) != revision()


@pytest.mark.parametrize(
    "spec",
    [{"staleness": {"max": "9s"}}, {"mode": "Bypass"}, {"writes": [write("/b")]}, {"store": {"redis": {}}}],
)
def test_a_revision_stays_with_what_does_not_touch_entries(spec: dict[str, Any]) -> None:
    assert revision(**spec) == revision()


# --- the tree against the plain definition ------------------------------------------------------------------------

PARTS = ["a", "b", "{x}", "{y}", ""]
TEMPLATES = st.builds(
    lambda parts, rest: "/" + "/".join([*parts, *(["{rest*}"] if rest else [])]),
    st.lists(st.sampled_from(PARTS), max_size=4),
    st.booleans(),
).filter(lambda text: _valid(text))
PATHS = st.lists(st.sampled_from(["a", "b", "c", "", "%61", "a;v"]), min_size=1, max_size=5).map(
    lambda parts: "/" + "/".join(parts)
)


def _valid(text: str) -> bool:
    try:
        PathTemplate.compile(text)
    except ValueError:
        return False
    return True


@given(st.lists(TEMPLATES, max_size=12), PATHS)
def test_the_tree_finds_what_looking_at_each_rule_finds(templates: list[str], path: str) -> None:
    rules = tuple(
        ReadRule(name=f"r{index}", match=Match(methods=("GET",), path=template))
        for index, template in enumerate(templates)
    )
    found = CompiledPolicy.compile(replace(policy(), reads=rules)).match_read("GET", path)
    normal = normalise_path(path)
    expected = None
    if normal is not None:
        subject = resource(normal)
        expected = next(
            (rule for rule in rules if PathTemplate.compile(rule.match.path).match(subject) is not None), None
        )
    assert (None if found is None else found.rule) == expected


def test_a_thousand_rules_cost_a_few_looks() -> None:
    """Counted in nodes, not in time: the tree looks at the nodes on the way of this path, not at a thousand rules."""
    rules = tuple(
        ReadRule(name=f"r{index}", match=Match(methods=("GET",), path=f"/things{index}/{{id}}/parts/{{part}}"))
        for index in range(1000)
    )
    compiled_rules = CompiledPolicy.compile(replace(policy(), reads=rules))
    seen = 0

    class Counting(dict[str, Any]):
        def get(self, key: str, default: Any = None) -> Any:
            nonlocal seen
            seen += 1
            return super().get(key, default)

    nodes = list(compiled_rules._reads.values())
    while nodes:
        node = nodes.pop()
        nodes += [*node.literals.values(), *([node.parameter] if node.parameter else [])]
        node.literals = Counting(node.literals)

    found = compiled_rules.match_read("GET", "/things999/1/parts/2")

    assert found is not None
    assert found.rule.name == "r999"
    assert seen == 4


def test_the_order_of_rules_is_kept_however_the_tree_is_walked() -> None:
    rules = compiled(
        reads=[read("/{a}/x", "first"), read("/a/{b}", "second"), read("/a/x", "third"), read("/{r*}", "fourth")]
    )
    assert rule_of(rules, "/a/x") == "first"
    assert rule_of(rules, "/a/y") == "second"
    assert rule_of(rules, "/b/y") == "fourth"


def test_a_policy_is_kept_as_it_is() -> None:
    given_policy = policy(reads=[read("/a")])
    rules = CompiledPolicy.compile(given_policy)
    assert rules.policy is given_policy
    assert isinstance(rules.policy.placement, TargetRef)
    assert rules.policy.staleness == Staleness()
