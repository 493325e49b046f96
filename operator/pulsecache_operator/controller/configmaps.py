"""The ConfigMap that carries a policy to its pods, and the tombstone that takes its place. Pure.

It has no ownerReference: garbage collection would take it away with its policy, and a file that vanished by itself
changes nothing for a sidecar. So a ConfigMap of ours without a policy *is* the sign that the policy was deleted,
however long the controller was away; it then becomes a tombstone (pass everything through), and goes ten minutes later.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from pulsecache_operator.controller.api import Document
from pulsecache_operator.controller.status import instant
from pulsecache_operator.inject.names import BUNDLE_KEY, config_map
from pulsecache_policy import bundle
from pulsecache_policy.bundle import Bundle, BundleError
from pulsecache_policy.errors import InvalidPolicy
from pulsecache_policy.model import CachePolicy

MANAGED_LABELS = {"app.kubernetes.io/managed-by": "pulsecache"}
POLICY_LABEL = "pulsecache.dev/policy"
"""On a ConfigMap: "true". The name of the policy is in that of the ConfigMap; it may be too long for a label."""
SELECTOR = f"{POLICY_LABEL}=true"
GENERATION_ANNOTATION = "pulsecache.dev/generation"
SHA256_ANNOTATION = "pulsecache.dev/sha256"
DELETED_ANNOTATION = "pulsecache.dev/policy-deleted-at"
TOMBSTONE_LIFE = timedelta(minutes=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Carried:
    """What a ConfigMap carries, and what is to become of it."""

    content: Bundle | None = None
    text: str | None = None
    """Of the content."""
    apply: Document | None = None
    """The ConfigMap to be written; None where it is good as it is."""
    delete: str | None = None
    """Its uid, where it is to go."""
    again_s: float | None = None


def carry(key: str, manifest: Document, generation: int, existing: Document | None) -> Carried:
    """For a valid policy."""
    text = bundle.encode(manifest, generation=generation)
    content = bundle.decode(text)
    return Carried(content=content, text=text, apply=None if _holds(existing, text) else _document(key, content, text))


def keep(existing: Document | None) -> Carried:
    """For a policy that is not valid: what slipped by replaces nothing, the last good one stays in force."""
    text = _text(existing) if existing is not None else None
    return Carried(content=_decoded(text), text=text)


def bury(key: str, existing: Document | None, now: datetime) -> Carried:
    """For a policy that is gone."""
    if existing is None or not is_ours(existing):
        return Carried()
    before = keep(existing)
    tombstone = before.content
    since = _deleted_at(existing)
    if tombstone is None or not tombstone.tombstone:
        generation = before.content.generation if before.content else _noted_generation(existing)
        text = bundle.encode_tombstone(key, generation=generation)
        tombstone, since = bundle.decode(text), None
    else:
        text = before.text or ""
    # A date that was edited, or written by a clock far ahead, would let it stay for ever: it begins anew.
    if since is None or since > now + TOMBSTONE_LIFE:
        written = _document(key, tombstone, text, {DELETED_ANNOTATION: instant(now)})
        return Carried(content=tombstone, text=text, apply=written, again_s=TOMBSTONE_LIFE.total_seconds())
    if (left := since + TOMBSTONE_LIFE - now) > timedelta(0):
        return Carried(content=tombstone, text=text, again_s=left.total_seconds())
    return Carried(delete=str(existing["metadata"]["uid"]))


def last_good(content: Bundle | None) -> CachePolicy | None:
    if content is None or content.tombstone:
        return None
    try:
        return content.policy()
    except InvalidPolicy:
        return None


def _document(key: str, content: Bundle, text: str, annotations: Mapping[str, str] | None = None) -> Document:
    namespace, _, name = key.partition("/")
    noted = {GENERATION_ANNOTATION: str(content.generation), SHA256_ANNOTATION: content.sha256}
    return {
        "metadata": {
            "name": config_map(name),
            "namespace": namespace,
            "labels": MANAGED_LABELS | {POLICY_LABEL: "true"},
            "annotations": noted | dict(annotations or {}),
        },
        "data": {BUNDLE_KEY: text},
    }


def policy_of(document: Document) -> str | None:
    """`namespace/name` of the policy whose ConfigMap this is; None for one that is not ours."""
    metadata = document["metadata"]
    prefix = config_map("")
    if not is_ours(document) or not str(metadata["name"]).startswith(prefix):
        return None
    return f"{metadata['namespace']}/{str(metadata['name']).removeprefix(prefix)}"


def is_ours(document: Document) -> bool:
    labels = document["metadata"].get("labels") or {}
    return labels.get(POLICY_LABEL) == "true" and MANAGED_LABELS.items() <= labels.items()


def _text(document: Document) -> str | None:
    text = (document.get("data") or {}).get(BUNDLE_KEY)
    return text if isinstance(text, str) else None


def _holds(document: Document | None, text: str) -> bool:
    """Whether the ConfigMap is exactly as it should be, so that a tombstone's date goes with the tombstone."""
    if document is None or _text(document) != text:
        return False
    return DELETED_ANNOTATION not in (document["metadata"].get("annotations") or {})


def _decoded(text: str | None) -> Bundle | None:
    try:
        return bundle.decode(text) if text is not None else None
    except BundleError:
        return None


def _noted_generation(document: Document) -> int:
    noted = (document["metadata"].get("annotations") or {}).get(GENERATION_ANNOTATION, "")
    return int(noted) if noted.isascii() and noted.isdigit() else 0


def _deleted_at(document: Document) -> datetime | None:
    noted = (document["metadata"].get("annotations") or {}).get(DELETED_ANNOTATION, "")
    try:
        found = datetime.fromisoformat(noted)
    except ValueError:
        return None
    return found if found.tzinfo else None
