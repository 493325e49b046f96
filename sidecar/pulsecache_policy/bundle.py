"""The file that a policy travels in, from the controller to the sidecars: `docs/architecture.md`, "The bundle".

Canonical JSON with a digest over all of it, so that a file that was cut short or mixed from two is told from a good
one. It is no signature: who may write the ConfigMap is Kubernetes' affair.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pulsecache_policy.model import CachePolicy
from pulsecache_policy.parse import parse_policy

FORMAT = 1
MAX_CHARACTERS = 1024 * 1024
"""What fits into a ConfigMap."""
_FIELDS = frozenset(("format", "policy", "generation", "tombstone", "manifest", "sha256"))
_METADATA = ("name", "namespace", "generation", "uid", "creationTimestamp")


class BundleError(Exception):
    """The text is no bundle that can be used; `reason` says why."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


@dataclass(frozen=True, slots=True)
class Bundle:
    policy_key: str
    """`namespace/name`."""
    generation: int
    sha256: str
    tombstone: bool
    manifest: Mapping[str, Any] | None
    """None for a tombstone."""

    @property
    def revision(self) -> str:
        return f"{self.generation}:{self.sha256}"

    def policy(self) -> CachePolicy:
        """Raises InvalidPolicy, and BundleError for a tombstone, which has no policy."""
        if self.manifest is None:
            raise BundleError(f"{self.policy_key} was deleted: this is its tombstone")
        return parse_policy(self.manifest)


def encode(manifest: Mapping[str, Any], *, generation: int) -> str:
    """`manifest` is a CachePolicy as the API server gives it; only what the sidecar reads of it travels. It is not
    parsed here. Raises BundleError where it lacks a name or is no JSON."""
    metadata = manifest.get("metadata")
    if not isinstance(metadata, Mapping) or not isinstance(metadata.get("name"), str):
        raise BundleError("the manifest has no metadata.name")
    kept = {name: metadata[name] for name in _METADATA if metadata.get(name) is not None}
    kept.setdefault("namespace", "default")
    return _seal(
        f"{kept['namespace']}/{kept['name']}",
        generation,
        {
            "apiVersion": manifest.get("apiVersion"),
            "kind": manifest.get("kind"),
            "metadata": kept,
            "spec": manifest.get("spec"),
        },
    )


def encode_tombstone(policy_key: str, *, generation: int) -> str:
    """What takes the place of a deleted policy: pass everything through."""
    return _seal(policy_key, generation, None)


def decode(text: str | bytes) -> Bundle:
    """Raises BundleError. The policy inside is not parsed yet: see `Bundle.policy`."""
    if len(text) > MAX_CHARACTERS:
        raise BundleError(f"{len(text)} characters are more than a bundle has")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"not JSON (cut short?): {error}") from error
    if not isinstance(document, dict):
        raise BundleError("not a JSON object")
    if document.get("format") != FORMAT:
        raise BundleError(f"format {document.get('format')!r} is not {FORMAT}: another version wrote it")
    if unknown := document.keys() - _FIELDS:
        raise BundleError(f"unknown field {min(unknown)}: another version wrote it")
    match document:
        case {
            "policy": str(key),
            "generation": int(generation),
            "tombstone": bool(tombstone),
            "sha256": str(digest),
        } if generation >= 0 and not isinstance(generation, bool):
            manifest = document.get("manifest")
        case _:
            raise BundleError("policy, generation, tombstone or sha256 is missing or of the wrong type")
    if _digest(document) != digest:
        raise BundleError("the digest does not match the content: cut short or mixed from two")
    if tombstone != (manifest is None) or not (manifest is None or isinstance(manifest, dict)):
        raise BundleError("neither a policy nor a tombstone")
    if manifest is not None and _key(manifest) != key:
        raise BundleError(f"the manifest is not that of {key}")
    return Bundle(key, generation, digest, tombstone, manifest)


def _seal(key: str, generation: int, manifest: Mapping[str, Any] | None) -> str:
    document: dict[str, Any] = {
        "format": FORMAT,
        "policy": key,
        "generation": generation,
        "tombstone": manifest is None,
        "manifest": manifest,
    }
    try:
        return _canonical({**document, "sha256": _digest(document)})
    except (TypeError, ValueError, RecursionError) as error:
        raise BundleError(f"the manifest of {key} is no JSON: {error}") from error


def _key(manifest: Mapping[str, Any]) -> str | None:
    match manifest.get("metadata"):
        case {"namespace": str(namespace), "name": str(name)}:
            return f"{namespace}/{name}"
        case _:
            return None


def _digest(document: Mapping[str, Any]) -> str:
    rest = {name: value for name, value in document.items() if name != "sha256"}
    return hashlib.sha256(_canonical(rest).encode()).hexdigest()


def _canonical(document: Mapping[str, Any]) -> str:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
