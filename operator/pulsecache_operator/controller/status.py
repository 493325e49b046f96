"""Conditions, counts and staleness: what people and tools read of a policy. Pure.

By the conventions of Kubernetes: conditions are independent of each other and never lists of pods, `Ready` sums them
up, `lastTransitionTime` moves with the status of a condition only, and nothing changes by itself with time.
docs/operations.md says what each reason means and what to do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from pulsecache_operator.controller.api import Document

ACCEPTED, PLACED, INJECTED, IN_SYNC, READY = "Accepted", "Placed", "Injected", "InSync", "Ready"
MESSAGE_LIMIT = 1024
"""Characters. Kubernetes allows 32 768, people read fewer."""


@dataclass(frozen=True, slots=True)
class Condition:
    type: str
    status: bool | None
    """None: unknown."""
    reason: str
    message: str


class State(StrEnum):
    """States of a dataset in a sidecar, the better ones first."""

    CONFIRMED = "Confirmed"
    UNCOVERED = "Uncovered"
    UNCONFIRMED = "Unconfirmed"
    EXCEEDED = "Exceeded"


_BADNESS = list(State)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What one sidecar says it runs."""

    generation: int
    sha256: str = ""
    error: str | None = None
    """Why it runs no newer one."""
    state: State | None = None
    since: str | None = None
    """RFC 3339, by the clock of its node."""
    lost_publishers: int = 0
    """As the last heartbeat that it consumed told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    selected: int = 0
    injected: int = 0
    in_sync: int = 0


def summary(conditions: Sequence[Condition], *, pods: int) -> Condition:
    """`Ready`: as bad as the worst of the others, with its reason."""
    for bad in (False, None):
        for condition in conditions:
            if condition.status is bad:
                return Condition(READY, bad, condition.reason, condition.message)
    if not pods:
        return Condition(READY, True, "NoPods", "The policy is in force; there are no pods that it is about.")
    last = conditions[-1]
    return Condition(READY, True, last.reason, last.message)


def staleness(reports: Iterable[Report], before: Mapping[str, Any]) -> Document | None:
    """The worst state over the pods, and since when; None where no sidecar has told any.

    `since` is that of the pods when it is a new state; the first one that was written stays as long as the state does,
    whichever pods come and go.
    """
    told = [report for report in reports if report.state is not None]
    if not told:
        return None
    worst = max((report.state for report in told if report.state is not None), key=_BADNESS.index)
    found: Document = {"state": str(worst), "lostPublishers": max(report.lost_publishers for report in told)}
    if before.get("state") == worst and before.get("since"):
        return found | {"since": before["since"]}
    since = sorted(moment for report in told if report.state is worst and (moment := _instant(report.since)))
    return found | ({"since": since[0]} if since else {})


def _instant(text: str | None) -> str | None:
    """As Kubernetes writes instants, or None where it is none."""
    if text is None:
        return None
    try:
        return instant(datetime.fromisoformat(text).astimezone(UTC))
    except ValueError:
        return None


def instant(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def document(
    conditions: Sequence[Condition],
    counts: Counts,
    stale: Document | None,
    *,
    generation: int,
    before: Mapping[str, Any],
    now: datetime,
) -> Document:
    """The whole `status`. Equal to `before` where nothing has changed."""
    earlier = {c.get("type"): c for c in before.get("conditions") or ()}
    found: Document = {
        "observedGeneration": generation,
        "conditions": [_condition(c, earlier.get(c.type) or {}, generation, now) for c in conditions],
        "pods": {"selected": counts.selected, "injected": counts.injected, "inSync": counts.in_sync},
    }
    return found | ({"staleness": stale} if stale is not None else {})


def same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two documents say the same; conditions are a map by type, in whatever order they are."""
    return _unordered(one) == _unordered(other)


def _unordered(found: Mapping[str, Any]) -> Document:
    return dict(found) | {"conditions": {c.get("type"): c for c in found.get("conditions") or ()}}


def _condition(condition: Condition, before: Mapping[str, Any], generation: int, now: datetime) -> Document:
    status = {True: "True", False: "False", None: "Unknown"}[condition.status]
    kept = before.get("lastTransitionTime") if before.get("status") == status else None
    message = condition.message
    return {
        "type": condition.type,
        "status": status,
        "reason": condition.reason,
        "message": message if len(message) <= MESSAGE_LIMIT else message[: MESSAGE_LIMIT - 1] + "…",
        "observedGeneration": generation,
        "lastTransitionTime": kept or instant(now),
    }


def reason_name(reason: str) -> str:
    """`service-missing` as conditions and Events write it: `ServiceMissing`."""
    known = {"port-not-http": "UnsupportedProtocol", "port-not-tcp": "UnsupportedProtocol", "conflicting": "Conflict"}
    return known.get(reason) or "".join(part.capitalize() for part in reason.split("-"))
