"""What is to be done about the publishers of a dataset, from the one place that knows which pods there are. Pure.

A publisher that stops beating holds the dataset's watermark where it was, and nobody but the controller may take it
away, because it may still be forwarding writes. Three things are decided here, each only after `settle` on this
process's own clock, because a write takes effect within that time of being sent:

- a publisher whose process has certainly ended is fenced;
- `old-epoch`, which stands for all publishers of the epoch before, is fenced once each pod that may publish has joined
  again or is gone;
- `uncovered`, which stands for replicas without a sidecar, is entered at once when there is one, and taken away
  after the last one.

"Certainly" means: from a LIST of pods that began after the publishers were read, and only of one that does not beat
any more. A pod that was deleted by force may outlive its object, cut off from the API server: as long as it beats it
is alive, whatever the API server says.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from pulsecache_operator.controller.api import Document
from pulsecache_operator.controller.facts import carried, uid_of
from pulsecache_operator.controller.rollout import Surroundings
from pulsecache_operator.placement import by_name, claims
from pulsecache_policy.hub_scripts import OLD_EPOCH, UNCOVERED
from pulsecache_policy.model import CachePolicy, TargetRef

CLOCK_TOLERANCE = 1.02
"""How much faster than another's this process's clock may go (DESIGN: 2 %)."""

GAP_S = 10.0
"""Who has not looked for this long does not know that nothing has happened meanwhile."""

_POD = re.compile(r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\.[^.]+")
"""A publisher in a pod. Others (a program outside of the cluster) are nobody's to judge here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """What the policies of a dataset say of it together."""

    name: str
    policies: tuple[CachePolicy, ...]

    @property
    def namespace(self) -> str:
        return self.name.partition("/")[0]

    @property
    def settle_s(self) -> float:
        return max(policy.staleness.settle_s for policy in self.policies) * CLOCK_TOLERANCE

    @property
    def silence_s(self) -> float:
        """Who lives has beaten within this time, if it reaches the hub at all."""
        beats = (policy.staleness.heartbeat for policy in self.policies)
        return max(beat.interval_s * beat.failure_threshold for beat in beats) * CLOCK_TOLERANCE

    @property
    def publishing(self) -> frozenset[str]:
        """The policies (`namespace/name`) whose sidecars join."""
        return frozenset(p.key for p in self.policies if isinstance(p.placement, TargetRef) or p.writes)


def datasets(policies: Iterable[CachePolicy]) -> dict[str, Dataset]:
    """Those that live in Redis."""
    found: dict[str, list[CachePolicy]] = {}
    for policy in policies:
        if policy.redis:
            found.setdefault(policy.dataset, []).append(policy)
    return {name: Dataset(name=name, policies=tuple(sorted(some, key=lambda p: p.key))) for name, some in found.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Replicas:
    """The pods of a dataset at one instant, by uid."""

    there: frozenset[str]
    """All pods of the namespace in which a sidecar may be running."""
    publishing: frozenset[str]
    """Those whose sidecar may be forwarding writes, on their way out or not."""
    bare: frozenset[str]
    """Those that serve it, or did a moment ago, without a sidecar."""


def replicas(dataset: Dataset, pods: Iterable[Document], around: Surroundings) -> Replicas:
    there, publishing, bare = set(), set(), set()
    servers = [policy for policy in dataset.policies if isinstance(policy.placement, TargetRef)]
    services = by_name(around.services, dataset.namespace)
    for pod in pods:
        phase = pod["status"].get("phase")
        if phase in ("Succeeded", "Failed"):
            continue
        runs = pod["status"].get("sidecar") not in ("waiting", "terminated")
        if runs:
            there.add(uid_of(pod))
        if phase == "Pending":
            continue  # no container of the app has run yet
        status = carried(pod)
        held = frozenset(status.policies) if status else frozenset[str]()
        if runs and held & dataset.publishing:
            publishing.add(uid_of(pod))
        serves = pod["status"].get("ready") or pod["metadata"].get("deletionTimestamp")
        labels = pod["metadata"].get("labels") or {}
        if serves and any(p.key not in held and claims(p, labels, services) for p in servers):
            bare.add(uid_of(pod))
    return Replicas(there=frozenset(there), publishing=frozenset(publishing), bare=frozenset(bare))


@dataclass(frozen=True, slots=True, kw_only=True)
class Members:
    """Who publishes, as the hub has it."""

    epoch: str
    beats: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Memo:
    """What this process remembers of a dataset in one epoch. Instants of its own clock."""

    epoch: str = ""
    looked: float = 0.0
    still: Mapping[str, tuple[int, float]] = field(default_factory=dict)
    """Beats of each publisher, and since when they are these."""
    dead: Mapping[str, float] = field(default_factory=dict)
    """Since when a publisher's end is certain."""
    rejoined: float | None = None
    """Since when all that may publish have joined."""
    all_covered: float | None = None
    """Since when no replica is without sidecar."""


@dataclass(frozen=True, slots=True)
class Fence:
    publisher: str
    beats: int | None
    """Only if they are still these."""


@dataclass(frozen=True, slots=True)
class Cover:
    covered: bool


@dataclass(frozen=True, slots=True)
class Decision:
    actions: tuple[Fence | Cover, ...]
    """In this order."""
    memo: Memo


def decide(
    memo: Memo,
    members: Members,
    known: Replicas,
    fresh: Replicas | None,
    *,
    settle_s: float,
    silence_s: float,
    now: float,
) -> Decision:
    """`known`: from the watch, which may be behind. `fresh`: from a LIST that began after `members` was read; None
    where there was none: nobody is then judged."""
    memo = observed(memo, members, now)
    bare = known.bare | (fresh.bare if fresh else frozenset())
    actions: list[Fence | Cover] = []
    if bare and UNCOVERED not in members.beats:
        # Before anything that might let the watermark go on.
        actions.append(Cover(False))
    if fresh is None:
        return Decision(tuple(actions), replace(memo, all_covered=None if bare else memo.all_covered))

    ended = [p for p in members.beats if silent(p, memo, silence_s, now) and _ended(p, members, memo, fresh)]
    dead = {publisher: memo.dead.get(publisher, now) for publisher in ended}
    actions += [Fence(p, members.beats[p]) for p, since in sorted(dead.items()) if now - since >= settle_s]

    rejoined = None
    if OLD_EPOCH in members.beats and fresh.publishing <= {_pod_of(publisher) for publisher in members.beats}:
        rejoined = now if memo.rejoined is None else memo.rejoined
        if now - rejoined >= settle_s:
            actions.append(Fence(OLD_EPOCH, None))

    all_covered = None
    if not bare:
        all_covered = now if memo.all_covered is None else memo.all_covered
        if UNCOVERED in members.beats and now - all_covered >= settle_s:
            actions.append(Cover(True))
    return Decision(tuple(actions), replace(memo, dead=dead, rejoined=rejoined, all_covered=all_covered))


def doubtful(memo: Memo, members: Members, *, silence_s: float, now: float) -> bool:
    """Whether a fresh LIST of pods is worth its price. `memo`: after `observed`."""
    if OLD_EPOCH in members.beats or UNCOVERED in members.beats:
        return True
    return any(silent(publisher, memo, silence_s, now) for publisher in members.beats if _pod_of(publisher))


def observed(memo: Memo, members: Members, now: float) -> Memo:
    """The memo with what is to be seen now. Safe to repeat."""
    if memo.epoch != members.epoch:
        memo = Memo(epoch=members.epoch)
    elif now - memo.looked > GAP_S:
        memo = replace(memo, rejoined=None, all_covered=None)
    still = {}
    for publisher, beats in members.beats.items():
        before = memo.still.get(publisher)
        still[publisher] = before if before is not None and before[0] == beats else (beats, now)
    # Who has beaten since has not ended, whatever was certain before.
    dead = {p: since for p, since in memo.dead.items() if p in still and still[p] == memo.still.get(p)}
    return replace(memo, still=still, dead=dead, looked=now)


def silent(publisher: str, memo: Memo, silence_s: float, now: float) -> bool:
    return now - memo.still[publisher][1] > silence_s


def _ended(publisher: str, members: Members, memo: Memo, fresh: Replicas) -> bool:
    """Whether the process of a silent publisher has certainly ended."""
    uid = _pod_of(publisher)
    if uid is None:
        return False
    if uid not in fresh.there:
        return True
    # In a pod there is one process at a time: who beats has taken the place of who does no longer.
    last_beat = memo.still[publisher][1]
    return any(_pod_of(other) == uid and memo.still[other][1] > last_beat for other in members.beats)


def _pod_of(publisher: str) -> str | None:
    found = _POD.fullmatch(publisher)
    return found.group(1) if found else None
