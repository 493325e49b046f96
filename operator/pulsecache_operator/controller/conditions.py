"""What the conditions of a policy say, from what was found of its pods. Pure; messages are for people.

A message names the fix, or the command, where a person has to do something. It has counts, and names of workloads,
and never those of pods.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pulsecache_operator.controller.rollout import Surroundings, Survey, Verdict, WorkloadPlan
from pulsecache_operator.controller.status import IN_SYNC, INJECTED, PLACED, Condition, Report, reason_name
from pulsecache_operator.selection import placement_problem
from pulsecache_policy.bundle import Bundle
from pulsecache_policy.model import CachePolicy, Consumer

_NAMED = 5
"""How many workloads a message names."""


def placed_condition(policy: CachePolicy, around: Surroundings) -> Condition:
    if problem := placement_problem(policy, around.services):
        return Condition(PLACED, False, reason_name(problem.reason), f"{_sentence(problem.message)} {problem.fix}")
    if conflict := around.conflicts.get(policy.key):
        return Condition(PLACED, False, "Conflict", _sentence(conflict.message))
    where = policy.placement
    what = "consumers" if isinstance(where, Consumer) else f"Service {where.name}"
    return Condition(PLACED, True, "Placed", f"The policy is about the pods of {what}.")


def injected_condition(
    policy: CachePolicy, found: Survey, workloads: Sequence[WorkloadPlan], injection_problem: str | None
) -> Condition:
    aside = _left_alone(found.left_alone)
    wanting = len(found.injected) + len(found.lacking)
    if not wanting:
        if found.selected:
            return Condition(INJECTED, False, "PodsLeftAlone", f"No pod gets the sidecar.{aside}")
        return Condition(INJECTED, True, "NoPods", "There are no pods to inject.")
    share = f"{len(found.injected)} of {wanting} pods carry the sidecar as the policy wants it."
    if not found.lacking:
        return Condition(INJECTED, True, "Injected", share + aside)
    if found.outdated:
        share += f" {found.outdated} carry it as an older version of the policy wanted it."
    by_verdict: dict[Verdict, list[WorkloadPlan]] = {}
    for plan in workloads:
        by_verdict.setdefault(plan.verdict, []).append(plan)
    if missed := [by_verdict[v] for v in _FOR_PEOPLE if v in by_verdict]:
        told = " ".join(_for_people(policy, plans) for plans in missed)
        return Condition(INJECTED, False, "PodsNotInjected", f"{share} {told}{aside}")
    if waiting := by_verdict.get(Verdict.INJECTOR_NOT_READY):
        told = f"{_names(waiting)} will be rolled once pods get the sidecar: {injection_problem}."
        return Condition(INJECTED, False, "InjectorNotReady", f"{share} {told}{aside}")
    return Condition(INJECTED, False, "RollingOut", f"{share} Rolling {_names(workloads)}.{aside}")


_FOR_PEOPLE = (Verdict.MANUAL, Verdict.MISSED, Verdict.REVERTED, Verdict.NOT_OURS)


def _for_people(policy: CachePolicy, plans: Sequence[WorkloadPlan]) -> str:
    commands = _commands(policy.namespace, plans)
    match plans[0].verdict:
        case Verdict.MANUAL:
            return f"rollout.strategy is None, so roll them yourself: {commands}"
        case Verdict.MISSED:
            return (
                f"{_names(plans)} was rolled and still has pods without it (was the injector away?); "
                f"it is rolled again after ten minutes, or now by: {commands}"
            )
        case Verdict.REVERTED:
            return (
                f"Another tool took the roll-out mark out of {_names(plans)}, so it is not rolled again: "
                f"let that tool ignore the annotation, or run: {commands}"
            )
        case _:
            pods = sum(plan.lacking for plan in plans)
            return f"{pods} belong to nothing that could be rolled: delete them, so that they are made anew."


def _commands(namespace: str, plans: Sequence[WorkloadPlan]) -> str:
    titles = [plan.workload.title for plan in plans if plan.workload]
    return f"kubectl -n {namespace} rollout restart {' '.join(titles[:_NAMED])}{_more(titles, ' (and {} more)')}"


def _names(plans: Sequence[WorkloadPlan]) -> str:
    titles = [plan.workload.title for plan in plans if plan.workload]
    return ", ".join(titles[:_NAMED]) + _more(titles, " and {} more")


def _more(titles: Sequence[str], text: str) -> str:
    return text.format(len(titles) - _NAMED) if len(titles) > _NAMED else ""


def _left_alone(reasons: Mapping[str, int]) -> str:
    if not reasons:
        return ""
    told = ", ".join(f"{count} ({reason})" for reason, count in sorted(reasons.items()))
    return f" Left alone: {told}."


def in_sync_condition(in_force: Bundle | None, asked: int, behind: Sequence[Report | None], *, told: bool) -> Condition:
    """`behind`: what those say that do not run `in_force`; `told`: whether anybody could be asked at all."""
    if not asked:
        return Condition(IN_SYNC, True, "NoPods", "There are no running pods with the sidecar.")
    if not told or in_force is None:
        return Condition(IN_SYNC, None, "NotReported", "It is not known what the sidecars run: they cannot be asked.")
    if not behind:
        return Condition(IN_SYNC, True, "InSync", f"All {asked} sidecars run generation {in_force.generation}.")
    share = f"{asked - len(behind)} of {asked} sidecars run generation {in_force.generation}."
    errors = [report.error for report in behind if report is not None and report.error is not None]
    if errors:
        return Condition(IN_SYNC, False, "Rejected", f"{share} {len(errors)} refuse it: {errors[0]}")
    silent = sum(report is None for report in behind)
    if silent == len(behind):
        return Condition(IN_SYNC, False, "NotReported", f"{share} The others have not told yet what they run.")
    return Condition(IN_SYNC, False, "Outdated", f"{share} The others still run an older one.")


def _sentence(text: str) -> str:
    text = text[:1].upper() + text[1:]
    return text if text.endswith(".") else f"{text}."
