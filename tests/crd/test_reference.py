"""The reference page tells of every field, and its example is the one that is tested."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "policy.md").read_text()
SCHEMA = yaml.safe_load((ROOT / "crds" / "cachepolicies.pulsecache.dev.yaml").read_text())["spec"]["versions"][0][
    "schema"
]
SPEC = SCHEMA["openAPIV3Schema"]["properties"]["spec"]


def leaves(schema: dict[str, object], path: str = "") -> list[str]:
    properties = schema.get("properties")
    if isinstance(properties, dict):
        return [leaf for name, child in properties.items() for leaf in leaves(child, f"{path}.{name}".lstrip("."))]
    items = schema.get("items")
    if isinstance(items, dict) and "properties" in items:
        return leaves(items, path)
    return [path]


@pytest.mark.parametrize("leaf", leaves(SPEC))
def test_every_field_is_in_the_reference(leaf: str) -> None:
    name = leaf.removeprefix("reads.").removeprefix("writes.")
    assert f"`{name}`" in PAGE


def test_the_example_is_the_tested_one() -> None:
    block = re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert block is not None
    assert yaml.safe_load(block[1]) == yaml.safe_load((ROOT / "examples" / "policies" / "products.yaml").read_text())
