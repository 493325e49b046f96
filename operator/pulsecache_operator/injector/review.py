"""One AdmissionReview from question to answer, by what is at hand. Pure, and it allows every pod.

What is decided here is told three times: to the API server (patch, warnings, audit annotations), to the metrics
(`result`, `reason`), and as `news` for Events. Errors are the caller's matter (`refrain` is the answer then).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pulsecache_operator.inject import SidecarConfig, inject, patch
from pulsecache_operator.inject.pod import plain
from pulsecache_operator.placement import Object
from pulsecache_operator.selection import Inject, Reason, Skip, plan_for
from pulsecache_policy.model import CachePolicy

_WARNING_CHARACTERS = 250
"""The API server may cut longer ones."""


class MalformedReview(Exception):
    """The body is no AdmissionReview of v1: whoever sent it is not the API server."""


class Knowledge(Protocol):
    """What is at hand."""

    def policies_of(self, namespace: str) -> Sequence[CachePolicy]: ...

    def services_of(self, namespace: str) -> Sequence[Object]: ...

    def namespace(self, name: str) -> Object: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """A policy has no effect on a pod that it selects: worth an Event."""

    namespace: str
    owner: Object | None
    """The reference to what made the pod; None where a person did."""
    policy: str
    policy_uid: str
    reason: Reason
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    review: dict[str, Any]
    result: str
    """`injected`, `skipped` or `error`."""
    reason: str
    news: tuple[News, ...] = ()


@dataclass(frozen=True, slots=True)
class Question:
    uid: str
    request: Mapping[str, Any]


def question(document: Any) -> Question:
    """The request in a review. Raises MalformedReview."""
    if not isinstance(document, dict) or document.get("apiVersion") != "admission.k8s.io/v1":
        raise MalformedReview("the body is no AdmissionReview of admission.k8s.io/v1")
    request = document.get("request")
    if not isinstance(request, dict) or not isinstance(request.get("uid"), str):
        raise MalformedReview("the AdmissionReview has no request with a uid")
    return Question(request["uid"], request)


def answer(asked: Question, known: Knowledge, config: SidecarConfig, own_namespace: str) -> Answer:
    """What to do with the pod. May raise anything on a pod that is none."""
    request = asked.request
    kind = request.get("kind") or {}
    if (kind.get("kind"), request.get("operation")) != ("Pod", "CREATE") or request.get("subResource"):
        return _allowed(asked.uid, result="skipped", reason="not-a-new-pod")
    pod, where = request["object"], request["namespace"]
    policies = known.policies_of(where)
    decision = plan_for(pod, known.namespace(where), policies, known.services_of(where), own_namespace=own_namespace)
    news = () if request.get("dryRun") else _news(decision, pod, where, policies)
    warnings = [f"pulsecache: policy {policy} has no effect on this pod: {text}" for policy, _, text in _told(decision)]
    after: Object
    match decision:
        case Inject():
            after, result, reason = inject(pod, decision.plan, config), "injected", ""
        case Skip(reason=Reason.MALFORMED_STATUS):
            after, result, reason = pod, "skipped", decision.reason
            warnings.append(f"pulsecache: {decision.message}")
        case Skip():
            after, result, reason = plain(pod), "skipped", decision.reason
    operations = patch(pod, after)
    if result == "injected" and not operations:
        reason = "unchanged"
    audit = {"decision": " ".join((result, reason)).strip()}
    return _allowed(asked.uid, operations, warnings, audit, result=result, reason=reason, news=news)


def refrain(uid: str, reason: str) -> Answer:
    """The answer where something went wrong on our side: the pod starts, without a sidecar."""
    warning = f"pulsecache: the pod starts without a sidecar ({reason}); see the injector's log"
    return _allowed(uid, (), [warning], {"decision": f"error {reason}"}, result="error", reason=reason)


def _allowed(
    uid: str,
    operations: Sequence[Mapping[str, Any]] = (),
    warnings: Sequence[str] = (),
    audit: Mapping[str, str] | None = None,
    *,
    result: str,
    reason: str,
    news: tuple[News, ...] = (),
) -> Answer:
    response: dict[str, Any] = {"uid": uid, "allowed": True}
    if operations:
        text = json.dumps(operations, separators=(",", ":"), ensure_ascii=False)
        response |= {"patchType": "JSONPatch", "patch": base64.b64encode(text.encode()).decode("ascii")}
    if warnings:
        response["warnings"] = [warning[:_WARNING_CHARACTERS] for warning in warnings]
    if audit:
        response["auditAnnotations"] = dict(audit)
    review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}
    return Answer(review=review, result=result, reason=reason, news=news)


def _told(decision: Inject | Skip) -> list[tuple[str, Reason, str]]:
    """Policies that select the pod and have no effect on it. Of one whose Service is missing nobody knows."""
    told: list[tuple[str, Reason, str]] = [
        (r.policy, r.reason, r.message) for r in decision.refusals if r.reason is not Reason.SERVICE_MISSING
    ]
    if isinstance(decision, Skip):
        refused = {refusal.policy for refusal in decision.refusals}
        told += [(p, decision.reason, decision.message) for p in decision.selected_by if p not in refused]
    return told


def _news(decision: Inject | Skip, pod: Object, where: str, policies: Sequence[CachePolicy]) -> tuple[News, ...]:
    told = _told(decision)
    if not told:
        return ()
    references = (pod.get("metadata") or {}).get("ownerReferences") or ()
    owner = next((reference for reference in references if reference.get("controller")), None)
    uids = {policy.name: policy.uid for policy in policies}
    return tuple(
        News(namespace=where, owner=owner, policy=name, policy_uid=uids.get(name, ""), reason=reason, message=message)
        for name, reason, message in told
    )
