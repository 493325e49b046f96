"""Which policy is in force for each bind: offers come from files and from Redis, the last good one stays.

A bad offer never replaces a good policy (promise R4); it is remembered, so that reports can tell of it. What a change
of policy means for running parts is left to the listener.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from pulsecache_policy.bundle import Bundle, BundleError
from pulsecache_policy.errors import InvalidPolicy
from pulsecache_policy.match import CompiledPolicy


@dataclass(frozen=True, slots=True)
class InForce:
    """What runs for one policy key. `compiled` is None before the first good policy and after its deletion."""

    compiled: CompiledPolicy | None = None
    generation: int = 0
    sha256: str = ""
    uid: str = ""
    error: str | None = None
    """Why the newest offer is not what runs."""


class PolicyBook:
    """The policies in force, by `namespace/name`. `changed(key, in_force)` is called after each replacement."""

    def __init__(
        self,
        keys: Iterable[str],
        changed: Callable[[str, InForce], None],
        counted: Callable[[str, str], None] = lambda key, result: None,
    ) -> None:
        self._in_force = {key: InForce() for key in keys}
        self._changed = changed
        self._counted = counted
        self._seen: dict[tuple[str, str], str] = {}

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(self._in_force)

    def in_force(self, key: str) -> InForce:
        return self._in_force[key]

    def offer(self, source: str, key: str, content: bytes | str, decode: Callable[[bytes | str], Bundle]) -> None:
        """Takes what `source` now holds for `key` into force, if it is new, good, and not older than what runs.

        A source whose content has not changed has nothing to say: so a late file never undoes what Redis brought.
        """
        try:
            bundle = decode(content)
            if bundle.policy_key != key:
                raise BundleError(f"it carries the policy {bundle.policy_key}, not {key}")
            digest = bundle.sha256
        except (BundleError, InvalidPolicy) as error:
            self._reject(source, key, _digest(content), f"{source}: {error}")
            return
        if self._seen.get((source, key)) == digest:
            return
        current = self._in_force[key]
        if bundle.sha256 == current.sha256:
            self._seen[source, key] = digest
            if current.error is not None:
                self._in_force[key] = replace(current, error=None)
            return
        try:
            compiled = None if bundle.tombstone else CompiledPolicy.compile(bundle.policy())
        except InvalidPolicy as error:
            self._reject(source, key, digest, f"{source}: generation {bundle.generation}: {error}")
            return
        self._seen[source, key] = digest
        uid = compiled.policy.uid if compiled else current.uid
        if uid == current.uid and bundle.generation < current.generation:
            self._counted(key, "older")
            return
        new = InForce(compiled, bundle.generation, bundle.sha256, uid)
        self._in_force[key] = new
        self._counted(key, "applied")
        self._changed(key, new)

    def _reject(self, source: str, key: str, digest: str, reason: str) -> None:
        if self._seen.get((source, key)) == digest:
            return
        self._seen[source, key] = digest
        self._in_force[key] = replace(self._in_force[key], error=reason)
        self._counted(key, "rejected")


def _digest(content: bytes | str) -> str:
    return hashlib.sha256(content if isinstance(content, bytes) else content.encode()).hexdigest()
