"""Which policy is in force: the newest good one, whatever else is offered (promise R4)."""

from __future__ import annotations

from typing import Any

import pytest

from pulsecache_policy import bundle
from pulsecache_sidecar.engine.policies import InForce, PolicyBook

KEY = "shop/products"


def manifest(ttl: str = "60s", *, uid: str = "u1", generation: int = 1, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "pulsecache.dev/v1alpha1",
        "kind": "CachePolicy",
        "metadata": {"name": "products", "namespace": "shop", "uid": uid, "generation": generation},
        "spec": {
            "targetRef": {"kind": "Service", "name": "products"},
            "reads": [
                {
                    "name": "product",
                    "match": {"methods": ["GET"], "path": "/products/{id}"},
                    "ttl": {"source": "OriginFirst", "duration": ttl},
                }
            ],
            **spec,
        },
    }


class Offers:
    def __init__(self) -> None:
        self.changes: list[InForce] = []
        self.counts: list[str] = []
        self.book = PolicyBook(
            [KEY], lambda key, in_force: self.changes.append(in_force), lambda key, result: self.counts.append(result)
        )

    def offer(self, content: str | bytes, source: str = "file") -> InForce:
        self.book.offer(source, KEY, content, bundle.decode)
        return self.book.in_force(KEY)

    def generation(self, generation: int, source: str = "file", **kwargs: Any) -> InForce:
        return self.offer(bundle.encode(manifest(generation=generation, **kwargs), generation=generation), source)


@pytest.fixture
def offers() -> Offers:
    return Offers()


def test_before_any_offer_nothing_is_in_force(offers: Offers) -> None:
    assert offers.book.in_force(KEY).compiled is None


def test_a_good_policy_comes_into_force_once(offers: Offers) -> None:
    offers.generation(1)
    found = offers.generation(1)
    assert found.compiled is not None
    assert found.generation == 1
    assert len(offers.changes) == 1


def test_a_bad_policy_never_replaces_a_good_one(offers: Offers) -> None:
    good = offers.generation(1)
    found = offers.offer(bundle.encode(manifest(generation=2, mode="Sometimes"), generation=2))
    assert found.compiled is good.compiled
    assert found.error is not None
    assert "spec.mode" in found.error
    assert offers.counts == ["applied", "rejected"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 2}', b"\xff\xfe", "null"])
def test_a_broken_file_never_replaces_a_good_policy(offers: Offers, content: str | bytes) -> None:
    good = offers.generation(1)
    assert offers.offer(content).compiled is good.compiled


def test_a_file_cut_short_anywhere_never_replaces_a_good_policy(offers: Offers) -> None:
    good = offers.generation(1)
    text = bundle.encode(manifest(generation=2), generation=2)
    for end in range(len(text) - 1):
        assert offers.offer(text[:end]).compiled is good.compiled


def test_the_policy_of_somebody_else_is_refused(offers: Offers) -> None:
    other = manifest()
    other["metadata"]["name"] = "other"
    assert offers.offer(bundle.encode(other, generation=1)).compiled is None


def test_a_correction_clears_the_error(offers: Offers) -> None:
    offers.generation(1)
    offers.offer("{")
    assert offers.generation(1).error is None


def test_a_late_file_does_not_undo_what_redis_brought(offers: Offers) -> None:
    offers.generation(1)
    offers.generation(3, source="redis")
    assert offers.generation(2).generation == 3
    assert offers.counts[-1] == "older"


def test_a_tombstone_ends_a_policy(offers: Offers) -> None:
    offers.generation(1)
    assert offers.offer(bundle.encode_tombstone(KEY, generation=2)).compiled is None
    assert len(offers.changes) == 2


def test_a_policy_made_again_under_its_name_starts_from_generation_one(offers: Offers) -> None:
    offers.generation(7)
    offers.offer(bundle.encode_tombstone(KEY, generation=8))
    found = offers.generation(1, uid="u2")
    assert found.compiled is not None
    assert found.generation == 1
