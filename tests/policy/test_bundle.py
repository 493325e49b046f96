"""The file a policy travels in: what comes out is what went in, or an error."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies import manifest, read
from pulsecache_policy.bundle import BundleError, decode, encode, encode_tombstone
from pulsecache_policy.errors import InvalidPolicy
from pulsecache_policy.parse import parse_policy

MANIFEST = manifest(reads=[read("/caf%C3%A9/{x}")])


def test_a_policy_survives_the_journey() -> None:
    bundle = decode(encode(MANIFEST, generation=4))
    assert (bundle.policy_key, bundle.generation, bundle.tombstone) == ("shop/products", 4, False)
    assert bundle.policy() == parse_policy(MANIFEST)
    assert bundle.revision == f"4:{bundle.sha256}"


def test_text_and_bytes_are_the_same() -> None:
    text = encode(MANIFEST, generation=4)
    assert decode(text) == decode(text.encode())


def test_the_text_does_not_depend_on_the_order_of_fields() -> None:
    turned = {name: MANIFEST[name] for name in reversed(MANIFEST)}
    assert encode(turned, generation=4) == encode(MANIFEST, generation=4)


def test_only_what_the_sidecar_reads_travels() -> None:
    metadata = {**MANIFEST["metadata"], "generation": 4, "uid": "u", "managedFields": [{}], "labels": {"a": "b"}}
    given_ = {**MANIFEST, "metadata": metadata, "status": {"observedGeneration": 4}}
    bundle = decode(encode(given_, generation=4))
    assert bundle.manifest is not None
    assert bundle.manifest.keys() == {"apiVersion", "kind", "metadata", "spec"}
    assert bundle.manifest["metadata"] == {"name": "products", "namespace": "shop", "generation": 4, "uid": "u"}


def test_the_generation_and_the_content_change_the_digest() -> None:
    texts = [
        encode(MANIFEST, generation=4),
        encode(MANIFEST, generation=5),
        encode({**MANIFEST, "spec": {}}, generation=4),
        encode_tombstone("shop/products", generation=4),
    ]
    assert len({decode(text).sha256 for text in texts}) == 4


def test_a_policy_without_a_namespace_is_in_default() -> None:
    assert decode(encode({**MANIFEST, "metadata": {"name": "products"}}, generation=1)).policy_key == "default/products"


def test_a_tombstone_has_no_policy() -> None:
    bundle = decode(encode_tombstone("shop/products", generation=7))
    assert (bundle.policy_key, bundle.generation, bundle.tombstone) == ("shop/products", 7, True)
    assert bundle.manifest is None
    with pytest.raises(BundleError, match="shop/products was deleted"):
        bundle.policy()


def test_a_bad_policy_in_a_good_bundle_is_the_parser_s_affair() -> None:
    with pytest.raises(InvalidPolicy):
        decode(encode({**MANIFEST, "spec": {}}, generation=1)).policy()


@given(st.data())
def test_a_file_that_was_cut_short_is_refused(data: st.DataObject) -> None:
    text = encode(MANIFEST, generation=4)
    with pytest.raises(BundleError):
        decode(text[: data.draw(st.integers(0, len(text) - 1))])


@given(st.data())
def test_a_file_with_a_changed_byte_is_refused(data: st.DataObject) -> None:
    good = encode(MANIFEST, generation=4).encode()
    place = data.draw(st.integers(0, len(good) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != good[place]))
    with pytest.raises(BundleError):
        decode(good[:place] + bytes([byte]) + good[place + 1 :])


def test_two_files_mixed_are_refused() -> None:
    one, other = json.loads(encode(MANIFEST, generation=4)), json.loads(encode(MANIFEST, generation=5))
    with pytest.raises(BundleError, match="mixed from two"):
        decode(json.dumps({**one, "sha256": other["sha256"]}))


def sealed(**changes: Any) -> str:
    """A bundle with a right digest over wrong content."""
    document = {**json.loads(encode(MANIFEST, generation=4)), **changes}
    del document["sha256"]
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return json.dumps({**document, "sha256": hashlib.sha256(canonical.encode()).hexdigest()})


def test_the_digest_is_that_of_the_canonical_json_of_the_rest() -> None:
    assert decode(sealed()).sha256 == decode(encode(MANIFEST, generation=4)).sha256


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"format": 2}, "format 2 is not 1"),
        ({"policy": "shop/other"}, "not that of shop/other"),
        ({"policy": None}, "missing or of the wrong type"),
        ({"generation": "4"}, "missing or of the wrong type"),
        ({"generation": True}, "missing or of the wrong type"),
        ({"generation": -1}, "missing or of the wrong type"),
        ({"tombstone": 1}, "missing or of the wrong type"),
        ({"tombstone": True}, "neither a policy nor a tombstone"),
        ({"manifest": None}, "neither a policy nor a tombstone"),
        ({"manifest": []}, "neither a policy nor a tombstone"),
        ({"manifest": {}}, "not that of shop/products"),
        ({"extra": 1}, "unknown field extra"),
    ],
)
def test_says_what_is_wrong(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(BundleError) as raised:
        decode(sealed(**changes))

    assert reason in raised.value.reason


@pytest.mark.parametrize(
    "text", ["", "[]", "null", "{}", "[" * 100_000, '{"format":1}', b"\xff", " " * 2_000_000, "NaN"]
)
def test_no_text_does_worse_than_an_error(text: str | bytes) -> None:
    with pytest.raises(BundleError):
        decode(text)


@pytest.mark.parametrize("bad", [{}, {"metadata": None}, {"metadata": {}}, {"metadata": {"name": 5}}])
def test_a_manifest_without_a_name_makes_no_bundle(bad: dict[str, Any]) -> None:
    with pytest.raises(BundleError):
        encode(bad, generation=1)


def test_a_manifest_that_is_no_json_makes_no_bundle() -> None:
    with pytest.raises(BundleError, match="is no JSON"):
        encode({**MANIFEST, "spec": {"x": float("nan")}}, generation=1)
    with pytest.raises(BundleError, match="is no JSON"):
        encode({**MANIFEST, "spec": {"x": object()}}, generation=1)
