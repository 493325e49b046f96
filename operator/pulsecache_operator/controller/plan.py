"""The planner: from what is known of one policy to all that is to be written for it. Pure.

`plan(view)` looks at levels only. Whatever happened, in whatever order, and whoever did half of it before: the same
view gives the same plan, and a plan that was carried out gives a view whose plan writes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from pulsecache_operator.controller import status
from pulsecache_operator.controller.api import Document
from pulsecache_operator.controller.conditions import in_sync_condition, injected_condition, placed_condition
from pulsecache_operator.controller.configmaps import Carried, bury, carry, is_ours, keep, last_good
from pulsecache_operator.controller.facts import Workload, running, uid_of
from pulsecache_operator.controller.rollout import (
    Memo,
    Surroundings,
    Survey,
    WorkloadPlan,
    plan_workloads,
    survey,
)
from pulsecache_operator.controller.status import ACCEPTED, IN_SYNC, INJECTED, PLACED, Condition, Counts, Report
from pulsecache_operator.inject.names import config_map
from pulsecache_policy.bundle import Bundle
from pulsecache_policy.errors import InvalidPolicy
from pulsecache_policy.model import CachePolicy
from pulsecache_policy.parse import parse_policy, warnings


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What is known of one policy at one instant."""

    key: str
    """`namespace/name`."""
    document: Document | None
    """The CachePolicy; None where there is none (any more), which must be certain."""
    config_map: Document | None
    around: Surroundings
    """Its `policies` are the valid ones of the namespace, this one included if it is."""
    pods: tuple[Document, ...] = ()
    """All pods of the namespace, as `facts.Keeper` keeps them."""
    workloads: tuple[Workload, ...] = ()
    """All of the namespace."""
    reports: Mapping[str, Report] | None = None
    """By the pods' uid; None where nobody could be asked."""
    injection_problem: str | None = None
    """Why a pod that is created now might get no sidecar."""
    memos: Mapping[str, Memo] = field(default_factory=dict)
    status: Mapping[str, Any] = field(default_factory=dict)
    """The newest status that was written."""
    now: float
    """Own monotonic clock."""
    wall: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Happening:
    """An Event on the policy."""

    type: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to write; what is None or empty stays as it is."""

    carried: Carried = field(default_factory=Carried)
    """The ConfigMap, and what is in force: also for the copy in Redis."""
    workloads: tuple[WorkloadPlan, ...] = ()
    memos: Mapping[str, Memo] = field(default_factory=dict)
    """What to remember of the workloads, by uid."""
    status: Document | None = None
    happenings: tuple[Happening, ...] = ()
    survey: Survey = field(default_factory=Survey)
    counts: Counts = field(default_factory=Counts)
    again_s: float | None = None


def plan(view: View) -> Plan:
    if view.document is None:
        return Plan(carried=bury(view.key, view.config_map, view.wall))
    return _present(view, view.document)


def _present(view: View, document: Document) -> Plan:
    generation = int(document["metadata"].get("generation") or 0)
    mine = view.config_map is None or is_ours(view.config_map)
    policy, accepted = _accept(document)
    if not mine:
        carried = Carried()
    elif policy is not None:
        carried = carry(view.key, document, generation, view.config_map)
    else:
        carried = keep(view.config_map)
    effective = policy or last_good(carried.content)

    found = Survey()
    if effective is not None:
        around = view.around if policy else replace(view.around, policies=(*view.around.policies, effective))
        found = survey(effective, view.pods, around)
    workloads: tuple[WorkloadPlan, ...] = ()
    memos: dict[str, Memo] = {}
    if policy is not None:
        workloads, memos = plan_workloads(
            policy,
            found.lacking,
            view.workloads,
            view.around,
            view.memos,
            injection_problem=view.injection_problem,
            now=view.now,
        )
    synced = _sync(found, carried.content, view.reports)
    counts = Counts(
        selected=len(found.selected), injected=len(found.injected) + found.outdated, in_sync=len(synced.in_sync)
    )
    conditions = [accepted, *_conditions(view, effective, found, workloads, carried.content, synced, mine=mine)]
    conditions.insert(0, status.summary(conditions, pods=counts.selected))
    new = status.document(
        conditions,
        counts,
        status.staleness(synced.reports, view.status.get("staleness") or {}),
        generation=generation,
        before=view.status,
        now=view.wall,
    )
    again = [workload.again_s for workload in workloads if workload.again_s is not None]
    return Plan(
        carried=carried,
        workloads=workloads,
        memos=memos,
        status=None if status.same(new, view.status) else new,
        happenings=_happenings(view.status, new),
        survey=found,
        counts=counts,
        again_s=min(again) if again else None,
    )


@dataclass(frozen=True, slots=True)
class _Sync:
    asked: int
    """Running pods with the sidecar."""
    in_sync: tuple[str, ...]
    """Those of them that run what is in force, by uid."""
    behind: tuple[Report | None, ...]
    """What the others say."""
    reports: tuple[Report, ...]
    """All there are of selected pods."""


def _sync(found: Survey, in_force: Bundle | None, reports: Mapping[str, Report] | None) -> _Sync:
    known = reports or {}
    asked = [uid_of(pod) for pod in found.injected if running(pod)]
    in_sync = tuple(uid for uid in asked if in_force is not None and _runs(known.get(uid), in_force))
    ahead = set(in_sync)
    behind = tuple(known.get(uid) for uid in asked if uid not in ahead)
    told = tuple(known[uid_of(pod)] for pod in found.selected if uid_of(pod) in known)
    return _Sync(len(asked), in_sync, behind, told)


def _runs(report: Report | None, wanted: Bundle) -> bool:
    if report is None or report.error is not None:
        return False
    return (report.generation, report.sha256) == (wanted.generation, wanted.sha256)


def _accept(document: Document) -> tuple[CachePolicy | None, Condition]:
    try:
        policy = parse_policy(document)
    except InvalidPolicy as error:
        told = "; ".join(map(str, error.errors))
        return None, Condition(ACCEPTED, False, "Invalid", f"The policy is not in force: {told}")
    if advice := warnings(policy):
        return policy, Condition(ACCEPTED, True, "ValidWithWarnings", "; ".join(map(str, advice)))
    return policy, Condition(ACCEPTED, True, "Valid", "The policy is valid.")


def _conditions(
    view: View,
    policy: CachePolicy | None,
    found: Survey,
    workloads: tuple[WorkloadPlan, ...],
    in_force: Bundle | None,
    synced: _Sync,
    *,
    mine: bool,
) -> list[Condition]:
    if policy is None:
        return [Condition(kind, None, "Invalid", "The policy is not valid.") for kind in (PLACED, INJECTED, IN_SYNC)]
    if mine:
        placed = placed_condition(policy, view.around)
    else:
        name = config_map(policy.name)
        taken = f"ConfigMap {name} is not this operator's: delete or rename it, or give the policy another name."
        placed = Condition(PLACED, False, "ConfigMapTaken", taken)
    if placed.status is not True:
        return [placed, *(Condition(kind, None, "NotPlaced", placed.message) for kind in (INJECTED, IN_SYNC))]
    injected = injected_condition(policy, found, workloads, view.injection_problem)
    in_sync = in_sync_condition(in_force, synced.asked, synced.behind, told=view.reports is not None)
    return [placed, injected, in_sync]


def _happenings(before: Mapping[str, Any], after: Document) -> tuple[Happening, ...]:
    """Events for what turned: conditions that got another status or reason, and the state of staleness."""
    earlier = {c.get("type"): c for c in before.get("conditions") or ()}
    found = []
    for condition in after["conditions"]:
        kind, value, reason = condition["type"], condition["status"], condition["reason"]
        was = earlier.get(kind) or {}
        if kind == ACCEPTED:
            # Each new generation is accepted or refused anew.
            turned = (was.get("status"), was.get("observedGeneration")) != (value, condition["observedGeneration"])
        else:
            turned = (was.get("status"), was.get("reason")) != (value, reason) and value == "False"
        if turned and kind in (ACCEPTED, PLACED, INJECTED) and not (kind == INJECTED and reason == "RollingOut"):
            name = "Accepted" if kind == ACCEPTED and value == "True" else reason
            type_ = "Normal" if value == "True" else "Warning"
            found.append(Happening(type=type_, reason=name, message=condition["message"]))
    state = (after.get("staleness") or {}).get("state")
    if state is not None and state != (before.get("staleness") or {}).get("state"):
        bad = state in ("Unconfirmed", "Exceeded")
        if bad or before.get("staleness"):
            message = f"The worst state of staleness over the pods is {state}."
            type_ = "Warning" if bad else "Normal"
            found.append(Happening(type=type_, reason=f"Staleness{state}", message=message))
    return tuple(found)
