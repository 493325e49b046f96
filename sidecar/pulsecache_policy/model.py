"""What a valid CachePolicy says, as frozen values.

Only `parse` makes these from documents, so whoever holds one holds a valid policy. Durations are seconds in
floats and sizes bytes in integers: units are in the names.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

API_GROUP = "pulsecache.dev"
API_VERSION = "v1alpha1"
KIND = "CachePolicy"


class Mode(StrEnum):
    SERVE = "Serve"
    BYPASS = "Bypass"


class RolloutStrategy(StrEnum):
    WORKLOAD = "Workload"
    NONE = "None"


class WhenExceeded(StrEnum):
    REVALIDATE = "Revalidate"
    BYPASS = "Bypass"
    SERVE_STALE = "ServeStale"
    FAIL = "Fail"


class Writers(StrEnum):
    UNKNOWN = "Unknown"
    ALL = "All"


class TtlSource(StrEnum):
    ORIGIN = "Origin"
    """The response's own freshness information, nothing else."""
    ORIGIN_FIRST = "OriginFirst"
    """The response's own freshness information; where it has none, `duration`."""
    POLICY = "Policy"
    """`duration`, whatever lifetime the response names (no-store and private still forbid storing)."""


class QueryMode(StrEnum):
    ALL = "All"
    NONE = "None"
    ONLY = "Only"
    EXCEPT = "Except"


class PrincipalType(StrEnum):
    HEADER = "Header"
    COOKIE = "Cookie"


class WriteStrategy(StrEnum):
    INVALIDATE = "Invalidate"
    WRITE_THROUGH = "WriteThrough"
    WRITE_BEHIND = "WriteBehind"


class RepresentationSource(StrEnum):
    RESPONSE_BODY = "ResponseBody"
    REQUEST_BODY = "RequestBody"
    REFETCH = "Refetch"


class JournalType(StrEnum):
    EMPTY_DIR = "EmptyDir"


class WhenFull(StrEnum):
    WRITE_THROUGH = "WriteThrough"
    FAIL = "Fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetRef:
    """Server-side placement: the pods behind one port of a Service."""

    name: str
    section_name: str | None = None
    """Name of the Service's port; None where the Service has just one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Consumer:
    """Client-side placement: the sidecar is the local address of a remote origin."""

    match_labels: tuple[tuple[str, str], ...]
    upstream: str
    """`http://host[:port]`, no path."""
    env: tuple[str, ...]
    """Variables of the app's containers that are set to the local address."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    max_concurrency: int = 100
    timeout_s: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    interval_s: float = 1.0
    failure_threshold: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Staleness:
    max_s: float = 5.0
    when_exceeded: WhenExceeded = WhenExceeded.REVALIDATE
    writers: Writers = Writers.UNKNOWN
    heartbeat: Heartbeat = field(default_factory=Heartbeat)
    settle_s: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    methods: tuple[str, ...]
    path: str
    """Path template: literal segments, `{name}` for one segment, `{name*}` for the rest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ttl:
    source: TtlSource = TtlSource.ORIGIN
    duration_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryKey:
    mode: QueryMode = QueryMode.ALL
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    type: PrincipalType
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySpec:
    query: QueryKey = field(default_factory=QueryKey)
    headers: tuple[str, ...] = ()
    """Lower-case header names that are part of the key."""
    principal: Principal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadRule:
    name: str
    match: Match
    ttl: Ttl = field(default_factory=Ttl)
    key: KeySpec = field(default_factory=KeySpec)
    tags: tuple[str, ...] = ()
    """Tag templates: text with `{name}` of the path template."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteThrough:
    read: str
    source: RepresentationSource = RepresentationSource.RESPONSE_BODY
    """The field `from` of the document."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Journal:
    type: JournalType = JournalType.EMPTY_DIR
    max_entries: int = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteBehind:
    journal: Journal = field(default_factory=Journal)
    status: int = 202
    when_full: WhenFull = WhenFull.WRITE_THROUGH
    read: str | None = None
    """The read rule whose entry shows the pending value (the request's body); None: pending values are not shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteRule:
    name: str
    match: Match
    strategy: WriteStrategy
    write_through: WriteThrough | None = None
    write_behind: WriteBehind | None = None
    invalidates: tuple[str, ...] = ()
    """Tag templates with names of this rule's path template."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CachePolicy:
    name: str
    namespace: str
    placement: TargetRef | Consumer
    dataset: str
    """`namespace/name`: what is cached and invalidated together."""
    generation: int = 0
    uid: str = ""
    created: str = ""
    """`metadata.creationTimestamp` as the API server writes it (RFC 3339, UTC, seconds); "" where there is none.
    Of two policies that claim the same port the older one wins."""
    mode: Mode = Mode.SERVE
    rollout: RolloutStrategy = RolloutStrategy.WORKLOAD
    memory_max_bytes: int = 64 * 1024 * 1024
    redis: bool = False
    """Whether `store.redis` is there: objects, positions and changes are then shared through Redis."""
    origin: Origin = field(default_factory=Origin)
    staleness: Staleness = field(default_factory=Staleness)
    reads: tuple[ReadRule, ...] = ()
    writes: tuple[WriteRule, ...] = ()

    @property
    def key(self) -> str:
        """`namespace/name` of the policy itself."""
        return f"{self.namespace}/{self.name}"
