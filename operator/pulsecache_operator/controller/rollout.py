"""Which pods a policy is about, which of them lack it, and which workloads are rolled for that. Pure.

All is decided from what the pods carry, not from what was done before: a workload is rolled when pods that ought to
have the sidecar have it not (or an older one), and its template does not carry the mark of the same wish yet. So pods
that were injected at their creation are never disturbed, a workload with no pods needs nothing, and a policy that is
deleted or whose rules change rolls nobody.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property

from pulsecache_operator.controller.api import Document
from pulsecache_operator.controller.facts import Workload, bind_of, carried, carries, live, rollout_of, wish_of
from pulsecache_operator.placement import Conflict, by_name, claims, conflicts
from pulsecache_operator.selection import Decision, Inject, plan_for
from pulsecache_policy.model import CachePolicy, RolloutStrategy

SETTLE_S = 2.0
"""A wish has to be this old before pods are rolled for it: the injectors hear of the policy at the same time as we."""
HEAL_EVERY_S = 600.0
"""A workload whose roll-out left pods without sidecar is rolled again at most this often."""


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What decides about a namespace's pods besides themselves."""

    namespace: Document
    policies: tuple[CachePolicy, ...]
    services: tuple[Document, ...]
    own_namespace: str

    @cached_property
    def conflicts(self) -> Mapping[str, Conflict]:
        """The policies (`namespace/name`) that lose to an older one. Worth keeping: each is compared with each."""
        return conflicts(self.policies, self.services)

    def decide(self, pod: Document) -> Decision:
        return plan_for(pod, self.namespace, self.policies, self.services, own_namespace=self.own_namespace)


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """The live pods that a policy is about."""

    selected: tuple[Document, ...] = ()
    injected: tuple[Document, ...] = ()
    """Those that do what the policy asks for."""
    lacking: tuple[Document, ...] = ()
    """Those that ought to, and do not."""
    outdated: int = 0
    """How many of the lacking ones carry the policy, but as it was before."""
    left_alone: Mapping[str, int] = field(default_factory=dict)
    """Reasons why the rest gets no sidecar, and how many pods each."""


def survey(policy: CachePolicy, pods: Iterable[Document], around: Surroundings) -> Survey:
    selected, injected, lacking = [], [], []
    outdated, left_alone = 0, Counter[str]()
    services = by_name(around.services, policy.namespace)
    judged: dict[tuple[object, ...], _Judgement] = {}
    for pod in pods:
        labels = pod["metadata"].get("labels") or {}
        if not live(pod) or not claims(policy, labels, services):
            continue
        selected.append(pod)
        # Pods of one template get one judgement: one each would take a second of the loop for ten thousand.
        alike = (id(pod["spec"]), frozenset(labels.items()), frozenset(pod["metadata"]["annotations"].items()))
        judgement = judged.get(alike)
        if judgement is None:
            judgement = judged[alike] = _judge(policy, pod, around)
        if judgement.left_alone is not None:
            left_alone[judgement.left_alone] += 1
        elif judgement.injected:
            injected.append(pod)
        else:
            lacking.append(pod)
            outdated += judgement.outdated
    return Survey(
        selected=tuple(selected),
        injected=tuple(injected),
        lacking=tuple(lacking),
        outdated=outdated,
        left_alone=dict(left_alone),
    )


@dataclass(frozen=True, slots=True)
class _Judgement:
    left_alone: str | None = None
    injected: bool = False
    outdated: bool = False


def _judge(policy: CachePolicy, pod: Document, around: Surroundings) -> _Judgement:
    decision = around.decide(pod)
    bind = bind_of(decision.plan, policy.name) if isinstance(decision, Inject) else None
    if bind is None:
        return _Judgement(left_alone=_reason(decision, policy))
    status = carried(pod)
    return _Judgement(injected=carries(status, bind), outdated=status is not None and policy.key in status.policies)


def _reason(decision: Decision, policy: CachePolicy) -> str:
    for refusal in decision.refusals:
        if refusal.policy == policy.name:
            return refusal.reason
    return "no-policy" if isinstance(decision, Inject) else decision.reason


# --- workloads ---------------------------------------------------------------------------------------------------


class Verdict(StrEnum):
    ROLL = "roll"
    """Its template gets the mark now."""
    SETTLING = "settling"
    """In a moment."""
    ROLLING = "rolling"
    """The mark is there, and pods of before are still to be replaced."""
    INJECTOR_NOT_READY = "injector-not-ready"
    MISSED = "missed"
    """Pods with the mark have no sidecar, and it was rolled for them too recently to try again."""
    REVERTED = "reverted"
    """Somebody took the mark away: it is not put there twice."""
    MANUAL = "manual"
    """The policy says that people roll."""
    NOT_OURS = "not-ours"
    """Pods of no workload that could be rolled, or whose template does not ask for the sidecar."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Memo:
    """What this process remembers of a workload. Times are its own monotonic clock's."""

    wish: str
    wish_since: float
    mark: str | None
    """What was last seen in the template."""
    mark_since: float
    written: str | None = None
    """What this process wrote there last."""
    written_seen: bool = False
    """Whether that has come back by the watch, which may be late."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadPlan:
    workload: Workload | None
    """None for the pods that belong to none."""
    verdict: Verdict
    lacking: int
    mark: str | None = None
    """With ROLL: the mark to be written."""
    heals: bool = False
    """With ROLL: it was rolled for the same wish before."""
    again_s: float | None = None
    """When to look again, if nothing happens until then."""


def plan_workloads(
    policy: CachePolicy,
    lacking: Sequence[Document],
    workloads: Iterable[Workload],
    around: Surroundings,
    memos: Mapping[str, Memo],
    *,
    injection_problem: str | None,
    now: float,
) -> tuple[tuple[WorkloadPlan, ...], dict[str, Memo]]:
    """What to do about the workloads of pods that lack the policy, and what to remember of them (by uid)."""
    plans: list[WorkloadPlan] = []
    remembered: dict[str, Memo] = {}
    rest = list(lacking)
    for workload in workloads if rest else ():
        mine = [pod for pod in rest if workload.owns(pod)]
        if not mine:
            continue
        taken = {id(pod) for pod in mine}
        rest = [pod for pod in rest if id(pod) not in taken]
        decision = around.decide(workload.template)
        if not isinstance(decision, Inject) or bind_of(decision.plan, policy.name) is None:
            plans.append(WorkloadPlan(workload=workload, verdict=Verdict.NOT_OURS, lacking=len(mine)))
            continue
        wish = _digest([wish_of(bind) for bind in decision.plan.binds])
        memo = _memo(memos.get(workload.uid), wish, workload.rollout, now)
        remembered[workload.uid] = memo
        plan = _decide(workload, mine, memo, injection_problem=injection_problem, now=now)
        if policy.rollout is RolloutStrategy.NONE and plan.verdict not in (Verdict.ROLLING, Verdict.NOT_OURS):
            plan = WorkloadPlan(workload=workload, verdict=Verdict.MANUAL, lacking=len(mine))
        plans.append(plan)
    if rest:
        plans.append(WorkloadPlan(workload=None, verdict=Verdict.NOT_OURS, lacking=len(rest)))
    return tuple(plans), remembered


def _memo(before: Memo | None, wish: str, mark: str | None, now: float) -> Memo:
    if before is None:
        return Memo(wish=wish, wish_since=now, mark=mark, mark_since=now)
    after = before
    if after.wish != wish:
        after = replace(after, wish=wish, wish_since=now)
    if after.mark != mark:
        after = replace(after, mark=mark, mark_since=now)
    if mark is not None and mark == after.written:
        after = replace(after, written_seen=True)
    return after


def written(memo: Memo, mark: str) -> Memo:
    """What to remember once the mark has been written."""
    return replace(memo, written=mark, written_seen=False)


def _decide(
    workload: Workload, lacking: Sequence[Document], memo: Memo, *, injection_problem: str | None, now: float
) -> WorkloadPlan:
    mark = workload.rollout
    rolled_for, _, count = (mark or "").partition("-")
    heals = rolled_for == memo.wish
    settled = WorkloadPlan(workload=workload, verdict=Verdict.ROLLING, lacking=len(lacking))
    if heals and not any(rollout_of(pod) == mark for pod in lacking):
        return settled
    if memo.written is not None and memo.written.partition("-")[0] == memo.wish and mark != memo.written:
        # It was there and is gone: a tool wants its own template back. Both of us rolling in turn would never end.
        return replace(settled, verdict=Verdict.REVERTED if memo.written_seen else Verdict.ROLLING)
    if injection_problem is not None:
        return replace(settled, verdict=Verdict.INJECTOR_NOT_READY)
    if not heals:
        if (wait_s := memo.wish_since + SETTLE_S - now) > 0:
            return replace(settled, verdict=Verdict.SETTLING, again_s=wait_s)
        return replace(settled, verdict=Verdict.ROLL, mark=memo.wish)
    if (wait_s := memo.mark_since + HEAL_EVERY_S - now) > 0:
        return replace(settled, verdict=Verdict.MISSED, again_s=wait_s)
    number = int(count) if count.isascii() and count.isdigit() else 0
    return replace(settled, verdict=Verdict.ROLL, mark=f"{memo.wish}-{number + 1}", heals=True)


def _digest(wishes: Sequence[tuple[object, ...]]) -> str:
    return hashlib.sha256(json.dumps(sorted(wishes, key=str)).encode()).hexdigest()[:10]
