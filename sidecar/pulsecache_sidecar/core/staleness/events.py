"""What the hub tells: the state of a dataset at one position, and the entries of its stream.

Values only. A *position* is a value of the dataset's counter, an *epoch* names one life of that counter, a *cursor*
names one entry of one stream for ever: it is opaque, and no other entry gets the same one, not even after the hub
has lost its end and writes those entries anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

WHOLE_DATASET = "*"
"""The tag that stands for everything in the dataset."""

OLD_EPOCH = "old-epoch"
"""Stands among the publishers for all publishers of the epoch before, which may still be forwarding writes."""

UNCOVERED = "uncovered"
"""Stands among the publishers for replicas that serve the dataset without a sidecar."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Answer to `subscribe`: the state of the dataset at `position`."""

    epoch: str
    position: int
    flush: int
    floor: int
    sequence: int
    """Dense number of the newest stream entry."""
    cursor: str
    """From where to read on."""
    doubts: Mapping[str, tuple[str, ...]]
    """Open doubts: write id -> tags (the tag "*" stands for the whole dataset)."""


@dataclass(frozen=True, slots=True)
class Changed:
    stamp: int
    tags: tuple[str, ...]
    resolves: str | None = None
    """Id of the write whose doubt this change ends."""


@dataclass(frozen=True, slots=True)
class Doubted:
    write: str
    stamp: int
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Flushed:
    stamp: int
    """Nothing that includes less than this is usable."""
    ended_doubts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Watermark:
    """A heartbeat: every change that took effect before `position` was given out is already in the stream."""

    position: int
    lost: tuple[str, ...]
    """Publishers that have not beaten since the heartbeats before."""
    uncovered: bool
    """Replicas without a sidecar serve the dataset: the watermark may not be used."""
    stamp: int
    """Given out by the beat that appended this entry: its age is the heartbeat's age, however late it is read."""
    lead: str = ""
    """The publisher whose beat appended this entry."""


@dataclass(frozen=True, slots=True)
class Entry:
    cursor: str
    sequence: int
    epoch: str
    event: Changed | Doubted | Flushed | Watermark
    previous: str = ""
    """Cursor of the entry before: a reader that stands elsewhere has missed something."""


@dataclass(frozen=True, slots=True)
class Member:
    """A publisher as the hub knows it."""

    coverage: int
    beats: int


@dataclass(frozen=True, slots=True)
class Membership:
    epoch: str
    position: int
    publishers: Mapping[str, Member] = field(default_factory=dict)
