"""Policies for tests, made by the parser from a few words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pulsecache_policy.model import CachePolicy
from pulsecache_policy.parse import parse_policy


def read(path: str, name: str = "read", **more: Any) -> dict[str, Any]:
    return {"name": name, "match": {"path": path}, **more}


def write(path: str, *methods: str, name: str = "write", **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "match": {"methods": list(methods or ["PUT"]), "path": path},
        "strategy": "Invalidate",
        **more,
    }


def manifest(
    *,
    reads: Sequence[Mapping[str, Any]] = (),
    writes: Sequence[Mapping[str, Any]] = (),
    name: str = "products",
    **spec: Any,
) -> dict[str, Any]:
    return {
        "apiVersion": "pulsecache.dev/v1alpha1",
        "kind": "CachePolicy",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"targetRef": {"name": "products"}, "reads": list(reads), "writes": list(writes), **spec},
    }


def policy(**spec: Any) -> CachePolicy:
    return parse_policy(manifest(**spec))
