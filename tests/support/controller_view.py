"""Objects as a cluster would have them, for tests of the controller: policies, Services, workloads, pods."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from datetime import UTC, datetime
from typing import Any

from pulsecache_operator.controller.api import DEPLOYMENT, Kind
from pulsecache_operator.controller.facts import ROLLOUT_ANNOTATION, Keeper, Workload
from pulsecache_operator.controller.plan import Plan, View
from pulsecache_operator.controller.rollout import Surroundings
from pulsecache_operator.inject import SidecarConfig, inject
from pulsecache_operator.selection import Inject, plan_for
from pulsecache_policy.errors import InvalidPolicy
from pulsecache_policy.model import CachePolicy
from pulsecache_policy.parse import parse_policy

Document = dict[str, Any]

WALL = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
SIDECAR = SidecarConfig(
    image="example/sidecar:1",
    pull_policy="IfNotPresent",
    resources={"requests": {"cpu": "50m"}},
    redis_secret="pulsecache-redis",
    version="0",
)
KEEPER = Keeper()


def policy_document(name: str = "products", *, generation: int = 1, uid: str = "", **spec: Any) -> Document:
    defaults: Document = {
        "targetRef": {"kind": "Service", "name": "products", "sectionName": "http"},
        "store": {"redis": {}},
        "reads": [{"name": "product", "match": {"methods": ["GET"], "path": "/products/{id}"}}],
    }
    if "consumer" in spec:
        del defaults["targetRef"]
    return {
        "apiVersion": "pulsecache.dev/v1alpha1",
        "kind": "CachePolicy",
        "metadata": {
            "name": name,
            "namespace": "shop",
            "generation": generation,
            "uid": uid or f"uid-of-{name}",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "resourceVersion": "1",
        },
        "spec": defaults | spec,
    }


def service(name: str = "products", *, target_port: Any = "http", **port: Any) -> Document:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {
            "selector": {"app": name},
            "ports": [{"name": "http", "port": 80, "targetPort": target_port, "protocol": "TCP"} | port],
        },
    }


def namespace(**labels: str) -> Document:
    return {"metadata": {"name": "shop", "labels": labels}}


def template(app: str = "products", **spec: Any) -> Document:
    return {
        "metadata": {"labels": {"app": app}},
        "spec": {"containers": [{"name": "app", "image": "app:1", "ports": [{"name": "http", "containerPort": 8080}]}]}
        | spec,
    }


def workload_document(name: str = "products", *, mark: str | None = None, kind: Kind = DEPLOYMENT) -> Document:
    pod = template(name)
    if mark is not None:
        pod["metadata"]["annotations"] = {ROLLOUT_ANNOTATION: mark}
    return {
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "metadata": {"name": name, "namespace": "shop", "uid": f"{kind.kind}-{name}"},
        "spec": {"selector": {"matchLabels": {"app": name}}, "template": pod},
    }


def workload(name: str = "products", *, mark: str | None = None, kind: Kind = DEPLOYMENT) -> Workload:
    return Workload.of(kind, KEEPER.workload(workload_document(name, mark=mark, kind=kind)))


def pod_document(
    name: str,
    *,
    app: str = "products",
    owner: Document | None = None,
    mark: str | None = None,
    phase: str = "Running",
    deleted: bool = False,
    labels: dict[str, str] | None = None,
    **spec: Any,
) -> Document:
    """A pod as the API server gives it; by default one of the Deployment of the app's name."""
    pod = deepcopy(template(app, **spec))
    revision = mark or "first"
    pod["metadata"] |= {
        "name": name,
        "namespace": "shop",
        "uid": f"uid-of-{name}",
        "labels": {"app": app, "pod-template-hash": revision} | (labels or {}),
        "annotations": {ROLLOUT_ANNOTATION: mark} if mark is not None else {},
        "ownerReferences": [
            owner or {"kind": "ReplicaSet", "name": f"{app}-{revision}", "uid": "rs", "controller": True}
        ],
    }
    if deleted:
        pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    pod["status"] = {
        "phase": phase,
        "podIP": "10.0.0.1" if phase == "Running" else None,
        "conditions": [{"type": "Ready", "status": "True" if phase == "Running" else "False"}],
    }
    return pod


def injected(pod: Document, policies: Iterable[CachePolicy], services: Iterable[Document]) -> Document:
    """The pod as the webhook would have made it."""
    decision = plan_for(pod, namespace(), policies, services)
    assert isinstance(decision, Inject), decision
    return inject(pod, decision.plan, SIDECAR)


def parsed(*documents: Document) -> tuple[CachePolicy, ...]:
    found = []
    for document in documents:
        try:
            found.append(parse_policy(document))
        except InvalidPolicy:
            continue
    return tuple(found)


def view(
    document: Document | None,
    *,
    key: str = "shop/products",
    others: Iterable[Document] = (),
    services: Iterable[Document] | None = None,
    pods: Iterable[Document] = (),
    workloads: Iterable[Workload] = (),
    now: float = 1000.0,
    wall: datetime = WALL,
    namespace_labels: dict[str, str] | None = None,
    **more: Any,
) -> View:
    documents = [*others, *([document] if document else [])]
    return View(
        key=f"shop/{document['metadata']['name']}" if document else key,
        document=document,
        config_map=more.pop("config_map", None),
        around=Surroundings(
            namespace=namespace(**(namespace_labels or {})),
            policies=parsed(*documents),
            services=tuple([service()] if services is None else services),
            own_namespace="pulsecache",
        ),
        pods=tuple(map(KEEPER.pod, pods)),
        workloads=tuple(workloads),
        now=now,
        wall=wall,
        **more,
    )


def stored(plan: Plan, *, uid: str = "cm") -> Document:
    """The ConfigMap of a plan as the API server would keep it."""
    assert plan.carried.apply is not None
    document = deepcopy(plan.carried.apply)
    document["metadata"]["uid"] = uid
    return document


def condition(plan: Plan, kind: str) -> Document:
    assert plan.status is not None
    found: Document = next(c for c in plan.status["conditions"] if c["type"] == kind)
    return found
