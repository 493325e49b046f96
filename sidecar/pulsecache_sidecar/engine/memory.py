"""L1: responses in the memory of this process, bounded in bytes, several variants under one key.

It knows nothing of freshness or coherence: whether what it holds may be used is asked at each use.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from pulsecache_sidecar.core.http.codec import Packed
from pulsecache_sidecar.core.http.message import Fields, ResponseHead
from pulsecache_sidecar.core.http.vary import Variant, matches
from pulsecache_sidecar.core.staleness.validity import Validity

MAX_VARIANTS = 32
"""Variants of one key; the one used longest ago makes room."""

_ENTRY_BYTES = 1200
_FIELD_BYTES = 170
_TAG_BYTES = 60
"""What Python's objects take besides their contents, roughly."""


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    key: str
    packed: Packed
    tags: tuple[str, ...]
    validity: Validity
    sent_at: float
    """Own-clock instant of the request that brought it, or earlier; -inf where it is not known."""
    principal: bool = False
    """It is one principal's own, and never leaves this process."""
    size_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        fields = self.packed.representation.head.fields
        size = _ENTRY_BYTES + len(self.key) + len(self.body)
        size += sum(len(name) + len(value) + _FIELD_BYTES for name, value in fields)
        size += sum(len(name) + len(value or b"") + _FIELD_BYTES for name, value in self.packed.variant)
        size += sum(len(tag) + _TAG_BYTES for tag in self.tags)
        object.__setattr__(self, "size_bytes", size)

    @property
    def head(self) -> ResponseHead:
        return self.packed.representation.head

    @property
    def body(self) -> bytes:
        return self.packed.representation.body

    def age_s(self, now: float) -> float:
        return self.packed.freshness.age_s(now - self.sent_at)

    def ttl_s(self, now: float) -> float:
        """What is left of its lifetime; negative where it is stale."""
        return self.packed.freshness.lifetime_s - self.age_s(now)


class MemoryStore:
    """The entry used longest ago goes first."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._entries: OrderedDict[tuple[str, Variant], Entry] = OrderedDict()
        self._variants: dict[str, list[Variant]] = {}

    @property
    def size_bytes(self) -> int:
        return self._bytes

    @property
    def limit_bytes(self) -> int:
        return self._max_bytes

    def __len__(self) -> int:
        return len(self._entries)

    def resize(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._shrink()

    def get(self, key: str, request: Fields) -> Entry | None:
        """The variant that answers a request with these fields; the newest where several do."""
        variants = self._variants.get(key)
        if variants is None:
            return None
        for variant in reversed(variants):
            if not variant or matches(variant, request):
                self._entries.move_to_end((key, variant))
                return self._entries[key, variant]
        return None

    def has(self, key: str) -> bool:
        """Whether there is any variant at all."""
        return key in self._variants

    def put(self, entry: Entry) -> bool:
        """Takes the place of the same variant. False where it alone is larger than the limit."""
        self.remove(entry.key, entry.packed.variant)
        if entry.size_bytes > self._max_bytes:
            return False
        variants = self._variants.setdefault(entry.key, [])
        if len(variants) >= MAX_VARIANTS:
            self.remove(entry.key, variants[0])
            variants = self._variants.setdefault(entry.key, [])
        variants.append(entry.packed.variant)
        self._entries[entry.key, entry.packed.variant] = entry
        self._bytes += entry.size_bytes
        self._shrink()
        return True

    def remove(self, key: str, variant: Variant) -> None:
        entry = self._entries.pop((key, variant), None)
        if entry is None:
            return
        self._bytes -= entry.size_bytes
        variants = self._variants[key]
        variants.remove(variant)
        if not variants:
            del self._variants[key]

    def clear(self) -> None:
        self._entries.clear()
        self._variants.clear()
        self._bytes = 0

    def _shrink(self) -> None:
        while self._bytes > self._max_bytes:
            key, variant = next(iter(self._entries))
            self.remove(key, variant)
