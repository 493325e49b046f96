"""Asks the API server, at the start, whether the controller may do all that it does: one list instead of many a 403."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from pulsecache_operator.controller.api import (
    ACCESS_REVIEW,
    CACHE_POLICY,
    CONFIG_MAP,
    DAEMON_SET,
    DEPLOYMENT,
    ENDPOINT_SLICE,
    EVENT,
    LEASE,
    NAMESPACE,
    POD,
    SECRET,
    SERVICE,
    STATEFUL_SET,
    WEBHOOK_CONFIGURATION,
    Api,
    Kind,
)
from pulsecache_operator.settings import Settings


@dataclass(frozen=True, slots=True)
class Need:
    verbs: tuple[str, ...]
    kind: Kind
    namespace: str = ""
    """Empty: all namespaces."""
    name: str = ""
    subresource: str = ""


def needs(settings: Settings) -> tuple[Need, ...]:
    own = settings.namespace
    see = ("get", "list", "watch")
    found = [
        Need(see, CACHE_POLICY),
        Need(("patch",), CACHE_POLICY, subresource="status"),
        Need(("list", "watch"), SERVICE),
        Need(("list", "watch"), NAMESPACE),
        Need(("list", "watch"), POD),
        *(Need(("list", "watch", "patch"), kind) for kind in (DEPLOYMENT, STATEFUL_SET, DAEMON_SET)),
        Need(("get", "list", "create", "patch", "delete"), CONFIG_MAP),
        Need(("create", "patch"), EVENT),
        Need(("list", "watch"), ENDPOINT_SLICE, own),
        Need(("create",), LEASE, own),
        Need(("get", "update"), LEASE, own, settings.lease),
        Need(("create",), SECRET, own),
        Need(("get", "patch"), SECRET, own, settings.tls_secret),
        Need((*see, "patch"), WEBHOOK_CONFIGURATION, name=settings.webhook_configuration),
    ]
    if settings.sidecar_redis_url is not None:
        found += [Need(("create",), SECRET), Need(("get", "patch", "delete"), SECRET, name=settings.redis_secret)]
    return tuple(found)


async def missing(api: Api, wanted: Sequence[Need]) -> list[str]:
    """What is not allowed, for people. Raises ApiError."""
    questions = [(need, verb) for need in wanted for verb in need.verbs]
    answers = await asyncio.gather(*(_allowed(api, need, verb) for need, verb in questions))
    return [_told(need, verb) for (need, verb), allowed in zip(questions, answers, strict=True) if not allowed]


async def _allowed(api: Api, need: Need, verb: str) -> bool:
    attributes = {
        "verb": verb,
        "group": need.kind.group,
        "resource": need.kind.plural,
        "subresource": need.subresource,
        "namespace": need.namespace,
        "name": need.name,
    }
    review = {
        "apiVersion": ACCESS_REVIEW.api_version,
        "kind": ACCESS_REVIEW.kind,
        "spec": {"resourceAttributes": {key: value for key, value in attributes.items() if value}},
    }
    answer = await api.create(ACCESS_REVIEW, review)
    return bool((answer.get("status") or {}).get("allowed"))


def _told(need: Need, verb: str) -> str:
    what = ".".join(filter(None, (need.kind.plural, need.kind.group)))
    what += f"/{need.subresource}" if need.subresource else ""
    what += f" named {need.name}" if need.name else ""
    where = (
        f" in namespace {need.namespace}" if need.namespace else " in all namespaces" if need.kind.namespaced else ""
    )
    return f"{verb} {what}{where}"
