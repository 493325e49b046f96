"""A small web app in its own namespace, to be injected or left alone in all manners of ways."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from kube import Kube, wait_for

_RESTRICTED = {
    "runAsNonRoot": True,
    "runAsUser": 65532,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


def app(namespace: str, name: str = "web", **pod_spec: Any) -> dict[str, Any]:
    """A Deployment of Python's file server, with a named port."""
    spec: dict[str, Any] = {
        "terminationGracePeriodSeconds": 2,
        "containers": [
            {
                "name": "web",
                "image": "pulsecache/shop:dev",
                "imagePullPolicy": "IfNotPresent",
                "command": ["python3", "-m", "http.server", "8080", "--directory", "/etc"],
                "ports": [{"name": "http", "containerPort": 8080}],
                "readinessProbe": {"httpGet": {"path": "/hostname", "port": "http"}, "periodSeconds": 1},
                "securityContext": copy.deepcopy(_RESTRICTED),
            }
        ],
        **pod_spec,
    }
    labels = {"app": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }


def service(namespace: str, name: str = "web", target: int | str = "http", **port: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "selector": {"app": "web"},
            "ports": [{"name": "http", "port": 80, "targetPort": target, **port}],
        },
    }


def policy(namespace: str, name: str = "web", service: str = "web", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "pulsecache.dev/v1alpha1",
        "kind": "CachePolicy",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "targetRef": {"kind": "Service", "name": service, "sectionName": "http"},
            "reads": [
                {
                    "name": "all",
                    "match": {"methods": ["GET"], "path": "/{path*}"},
                    "ttl": {"source": "OriginFirst", "duration": "60s"},
                }
            ],
            **spec,
        },
    }


@contextmanager
def namespace(kube: Kube, name: str, labels: Mapping[str, str] | None = None) -> Iterator[str]:
    kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": dict(labels or {})}})
    try:
        yield name
    finally:
        kube.delete("namespace", name)


def pods(kube: Kube, where: str, name: str = "web") -> list[dict[str, Any]]:
    return kube.ready_pods(where, f"app={name}")


def injected(pod: Mapping[str, Any]) -> bool:
    return any(c["name"] == "pulsecache" for c in pod["spec"].get("initContainers", []))


def started(kube: Kube, where: str, *, with_sidecar: bool) -> dict[str, Any]:
    """Waits for one Ready pod, with or without a sidecar."""

    def found() -> dict[str, Any] | None:
        ready = pods(kube, where)
        return ready[0] if len(ready) == 1 and injected(ready[0]) is with_sidecar else None

    return wait_for(f"a pod in {where} {'with' if with_sidecar else 'without'} a sidecar", found, timeout_s=90)


def condition(kube: Kube, where: str, kind: str, reason: str, name: str = "web") -> dict[str, Any]:
    """Waits for a condition of a policy with this reason."""

    def found() -> dict[str, Any] | None:
        conditions = kube.get("cachepolicy", name, where).get("status", {}).get("conditions", [])
        return next((c for c in conditions if c["type"] == kind and c["reason"] == reason), None)

    return wait_for(f"condition {kind}/{reason} of {where}/{name}", found, timeout_s=60)
