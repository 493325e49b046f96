from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pulsecache_sidecar.core.staleness.stamps import Stamps


def test_what_contains_the_change_is_admitted_what_does_not_is_not() -> None:
    stamps = Stamps()
    stamps.stamp(["a"], 5)
    assert not stamps.admits(4, ("z", "a"))
    assert stamps.admits(5, ("z", "a"))
    assert stamps.admits(0, ("z",))


def test_repeated_and_late_changes_take_nothing_back() -> None:
    stamps = Stamps()
    stamps.stamp(["a"], 5)
    stamps.stamp(["a"], 3)
    assert not stamps.admits(4, ("a",))


def test_the_whole_dataset() -> None:
    stamps = Stamps()
    stamps.stamp(["*"], 5)
    assert not stamps.admits(4, ("anything",))
    assert not stamps.admits(4, ())
    assert stamps.admits(5, ("anything",))


@given(
    changes=st.lists(st.sampled_from("abcdefgh"), max_size=60),
    limit=st.integers(1, 5),
    tags=st.lists(st.sampled_from("abcdefgh"), max_size=3).map(tuple),
    includes=st.integers(0, 60),
)
def test_forgetting_refuses_more_and_never_less(
    changes: list[str], limit: int, tags: tuple[str, ...], includes: int
) -> None:
    bounded, whole = Stamps(limit), Stamps(10_000)
    for number, tag in enumerate(changes, start=1):
        bounded.stamp([tag], number)
        whole.stamp([tag], number)
    assert len(bounded) <= 2 * limit + 1
    assert whole.admits(includes, tags) or not bounded.admits(includes, tags)
    assert bounded.admits(len(changes), tags), "the latest is always admitted"
    assert bounded.floor <= max(0, len(changes) - limit), "what is younger than a generation is not refused for it"
