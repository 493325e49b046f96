"""Policies from files: bundles in a folder that the kubelet mounts, or CachePolicy manifests given by hand.

Files are looked at each second: the kubelet swaps a symbolic link, editors rename, and neither is worth a dependency on
inotify for a handful of files. A file that is gone says nothing: the last good policy stays (only a tombstone ends it).
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from pathlib import Path

import yaml

from pulsecache_policy import bundle
from pulsecache_policy.bundle import BundleError
from pulsecache_policy.model import KIND
from pulsecache_sidecar.engine.policies import PolicyBook

LOG = logging.getLogger(__name__)
MAX_BYTES = 2 * 1024 * 1024


def manifests(file: Path, default_namespace: str) -> dict[str, bytes]:
    """The CachePolicies of a YAML (or JSON) file by key, each as canonical bytes of a bundle.

    Raises BundleError where the file cannot be read or holds no CachePolicy.
    """
    try:
        loaded = list(yaml.safe_load_all(file.read_bytes()[: MAX_BYTES + 1]))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise BundleError(f"{file} cannot be read: {error}") from error
    documents = [d for d in loaded if isinstance(d, dict) and d.get("kind") == KIND]
    if not documents:
        raise BundleError(f"{file} holds no {KIND}")
    found = {}
    for document in documents:
        metadata = document.get("metadata")
        if not isinstance(metadata, dict):
            raise BundleError(f"{file}: a {KIND} has no metadata")
        namespace = metadata.setdefault("namespace", default_namespace)
        # A manifest on disk has no generation: all its versions count as one, and the newest file wins.
        generation = metadata.get("generation")
        text = bundle.encode(document, generation=generation if isinstance(generation, int) else 1)
        found[f"{namespace}/{metadata.get('name')}"] = text.encode()
    return found


class PolicyFiles:
    """Offers what the files hold to the book, at start and whenever they change."""

    def __init__(self, book: PolicyBook, *, files: tuple[Path, ...], folder: Path | None, namespace: str) -> None:
        self._book = book
        self._files = files
        self._folder = folder
        self._namespace = namespace
        self._seen: dict[Path, str] = {}

    def look(self) -> None:
        """Reads what changed. Small files on a local file system: done in the loop."""
        for file in self._files:
            self._look_at_manifests(file)
        if self._folder is not None:
            for key in self._book.keys:
                self._look_at_bundle(self._folder / f"{key.partition('/')[2]}.json", key)

    async def run(self, interval_s: float = 1.0) -> None:
        while True:
            await asyncio.sleep(interval_s)
            self.look()

    def _changed(self, file: Path) -> bytes | None:
        try:
            with file.open("rb") as opened:
                content = opened.read(MAX_BYTES + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            LOG.warning("policy file %s cannot be read: %s; the policy in force stays", file, error)
            return None
        digest = hashlib.sha256(content).hexdigest()
        if self._seen.get(file) == digest:
            return None
        self._seen[file] = digest
        return content

    def _look_at_bundle(self, file: Path, key: str) -> None:
        if (content := self._changed(file)) is not None:
            self._book.offer(f"file {file.name}", key, content, bundle.decode)

    def _look_at_manifests(self, file: Path) -> None:
        if self._changed(file) is None:
            return
        try:
            found = manifests(file, self._namespace)
        except BundleError as error:
            LOG.error("%s; the policy in force stays", error)
            return
        for key, content in found.items():
            if key in self._book.keys:
                self._book.offer(f"file {file.name}", key, content, bundle.decode)
