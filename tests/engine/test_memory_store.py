"""L1: bounded in bytes, variants under one key, the one used longest ago goes first."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pulsecache_sidecar.core.http.codec import Packed
from pulsecache_sidecar.core.http.freshness import Freshness
from pulsecache_sidecar.core.http.message import Representation, ResponseHead
from pulsecache_sidecar.core.http.vary import Variant
from pulsecache_sidecar.core.staleness.validity import Validity
from pulsecache_sidecar.engine.memory import MAX_VARIANTS, Entry, MemoryStore

VALIDITY = Validity("e", 1, 1, 0.0, 0)


def entry(key: str, body: bytes = b"", variant: Variant = ()) -> Entry:
    packed = Packed(Representation(ResponseHead(200, ()), body), Freshness(60, 0, True), variant, False, 0.0)
    return Entry(key, packed, ("t",), VALIDITY, 0.0)


def test_what_is_put_is_found() -> None:
    store = MemoryStore(100_000)
    first = entry("a", b"1")
    assert store.get("a", ()) is None
    assert store.put(first)
    assert store.get("a", ()) is first
    second = entry("a", b"2")
    assert store.put(second)
    assert (store.get("a", ()), len(store)) == (second, 1)


def test_variants_live_side_by_side() -> None:
    store = MemoryStore(100_000)
    german = entry("a", b"de", ((b"accept-language", b"de"),))
    none = entry("a", b"", ((b"accept-language", None),))
    store.put(german)
    store.put(none)
    assert store.get("a", ((b"accept-language", b"de"),)) is german
    assert store.get("a", ()) is none
    assert store.get("a", ((b"accept-language", b"fr"),)) is None
    assert store.has("a")


def test_variants_of_one_key_are_capped() -> None:
    store = MemoryStore(10**9)
    for n in range(MAX_VARIANTS + 5):
        store.put(entry("a", b"", ((b"x", b"%d" % n),)))
    assert len(store) == MAX_VARIANTS
    assert store.get("a", ((b"x", b"0"),)) is None


def test_the_least_recently_used_goes_first() -> None:
    size = entry("a", b"x" * 1000).size_bytes
    store = MemoryStore(3 * size)
    for key in "abc":
        store.put(entry(key, b"x" * 1000))
    store.get("a", ())
    store.put(entry("d", b"x" * 1000))
    assert [key for key in "abcd" if store.has(key)] == ["a", "c", "d"]


def test_what_is_larger_than_everything_is_not_taken() -> None:
    store = MemoryStore(5000)
    store.put(entry("a"))
    assert not store.put(entry("b", b"x" * 10_000))
    assert store.has("a")
    assert not store.put(entry("a", b"x" * 10_000))
    assert not store.has("a"), "what it should have replaced is no longer true"


def test_shrinking_takes_effect_at_once() -> None:
    store = MemoryStore(10**6)
    for n in range(100):
        store.put(entry(str(n)))
    store.resize(store.size_bytes // 2)
    assert store.size_bytes <= store.limit_bytes
    assert 40 <= len(store) <= 60
    store.clear()
    assert (len(store), store.size_bytes) == (0, 0)


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 3000), st.integers(0, 3), st.booleans())))
def test_the_bytes_always_add_up(steps: list[tuple[str, int, int, bool]]) -> None:
    store = MemoryStore(8000)
    for key, size, number, removes in steps:
        variant = ((b"x", b"%d" % number),) if number else ()
        if removes:
            store.remove(key, variant)
        else:
            store.put(entry(key, b"x" * size, variant))
        assert store.size_bytes == sum(held.size_bytes for held in store._entries.values()) <= 8000
        assert sum(map(len, store._variants.values())) == len(store)
