"""What is kept of pods and workloads, and the questions that are asked of them. Pure.

Pods are many and alike, so of each only what a decision needs is kept, and pods of one template share it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from pulsecache_operator.controller.api import DEPLOYMENT, Document, Kind
from pulsecache_operator.inject.names import CONTAINER, STATUS_ANNOTATION
from pulsecache_operator.inject.plan import InjectionPlan, Redirect, TakeOver
from pulsecache_operator.inject.status import InjectionStatus, MalformedStatus, status_of

ROLLOUT_ANNOTATION = "pulsecache.dev/rollout"
_MIRROR_ANNOTATION = "kubernetes.io/config.mirror"
_HASH_LABEL = "pod-template-hash"

_KEPT_OF_POD_SPEC = ("hostNetwork", "os", "nodeSelector", "resources")
_KEPT_OF_CONTAINER = (
    "name",
    "ports",
    "restartPolicy",
    "lifecycle",
    "startupProbe",
    "livenessProbe",
    "readinessProbe",
)


class Keeper:
    """`keep` functions for watches; specs that are equal become one."""

    def __init__(self) -> None:
        self._specs: dict[str, Document] = {}

    def pod(self, pod: Mapping[str, Any]) -> Document:
        metadata, status = pod.get("metadata") or {}, pod.get("status") or {}
        conditions = {c.get("type"): c.get("status") for c in status.get("conditions") or ()}
        return {
            "metadata": self._metadata(metadata, (STATUS_ANNOTATION, ROLLOUT_ANNOTATION, _MIRROR_ANNOTATION))
            | {
                "ownerReferences": [r for r in metadata.get("ownerReferences") or () if r.get("controller")],
                "deletionTimestamp": metadata.get("deletionTimestamp"),
            },
            "spec": self._spec(pod.get("spec") or {}),
            "status": {
                "phase": status.get("phase"),
                "podIP": status.get("podIP"),
                "ready": conditions.get("Ready") == "True",
                "sidecar": _state_of_sidecar(status),
            },
        }

    def workload(self, workload: Mapping[str, Any]) -> Document:
        spec = workload.get("spec") or {}
        template = spec.get("template") or {}
        return {
            "metadata": self._metadata(workload.get("metadata") or {}, ()),
            "spec": {
                "template": {
                    "metadata": self._metadata(
                        template.get("metadata") or {}, (ROLLOUT_ANNOTATION, _MIRROR_ANNOTATION)
                    ),
                    "spec": self._spec(template.get("spec") or {}),
                },
            },
        }

    def _metadata(self, metadata: Mapping[str, Any], annotations: tuple[str, ...]) -> Document:
        kept = {name: metadata[name] for name in ("name", "namespace", "uid", "labels") if name in metadata}
        given = metadata.get("annotations") or {}
        return kept | {"annotations": {name: given[name] for name in annotations if name in given}}

    def _spec(self, spec: Mapping[str, Any]) -> Document:
        kept: Document = {name: spec[name] for name in _KEPT_OF_POD_SPEC if name in spec}
        for section in ("containers", "initContainers"):
            kept[section] = [
                {name: container[name] for name in _KEPT_OF_CONTAINER if name in container}
                for container in spec.get(section) or ()
            ]
        # What a service account's token is mounted as is different in each pod, and nobody's matter.
        volumes = [v.get("name") for v in spec.get("volumes") or ()]
        kept["volumes"] = [{"name": name} for name in volumes if not str(name).startswith("kube-api-access-")]
        text = json.dumps(kept, sort_keys=True)
        if len(self._specs) > 10_000:
            self._specs.clear()  # those in use stay alive where they are used; only sharing begins anew
        return self._specs.setdefault(text, kept)


def _state_of_sidecar(status: Mapping[str, Any]) -> str | None:
    """`running`, `waiting` or `terminated`; None where the kubelet has not told."""
    for container in status.get("initContainerStatuses") or ():
        if container.get("name") == CONTAINER:
            return next(iter(container.get("state") or {}), None)
    return None


def without_managed_fields(document: Mapping[str, Any]) -> Document:
    metadata = {k: v for k, v in (document.get("metadata") or {}).items() if k != "managedFields"}
    return dict(document) | {"metadata": metadata}


# --- workloads ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Workload:
    kind: Kind
    namespace: str
    name: str
    uid: str
    template: Document
    """Its pods-to-be, in the shape of a pod."""

    @property
    def rollout(self) -> str | None:
        """The value of the roll-out mark in its template."""
        value = self.template["metadata"]["annotations"].get(ROLLOUT_ANNOTATION)
        return str(value) if value is not None else None

    @property
    def title(self) -> str:
        """As kubectl takes it: `deployment/products`."""
        return f"{self.kind.kind.lower()}/{self.name}"

    def owns(self, pod: Document) -> bool:
        """Whether the pod came from this workload.

        A Deployment's pods belong to its ReplicaSets, whose names are made of its own and the hash that is also a
        label of the pod: no watch of ReplicaSets is needed.
        """
        for owner in pod["metadata"]["ownerReferences"]:
            if self.kind is not DEPLOYMENT:
                if owner.get("uid") == self.uid:
                    return True
            elif owner.get("kind") == "ReplicaSet":
                hashed = (pod["metadata"].get("labels") or {}).get(_HASH_LABEL)
                if hashed and owner.get("name") == f"{self.name}-{hashed}":
                    return True
        return False

    @classmethod
    def of(cls, kind: Kind, document: Document) -> Workload:
        metadata = document["metadata"]
        return cls(kind, metadata["namespace"], metadata["name"], metadata["uid"], document["spec"]["template"])


# --- pods --------------------------------------------------------------------------------------------------------


def uid_of(pod: Document) -> str:
    return str(pod["metadata"]["uid"])


def live(pod: Document) -> bool:
    """Neither finished nor on its way out."""
    return not pod["metadata"].get("deletionTimestamp") and pod["status"].get("phase") not in ("Succeeded", "Failed")


def running(pod: Document) -> bool:
    """Its sidecar, if it has one, ought to be there."""
    return live(pod) and pod["status"].get("phase") == "Running" and bool(pod["status"].get("podIP"))


def rollout_of(pod: Document) -> str | None:
    value = pod["metadata"]["annotations"].get(ROLLOUT_ANNOTATION)
    return str(value) if value is not None else None


def carried(pod: Document) -> InjectionStatus | None:
    """What was injected into the pod and is still there."""
    text = pod["metadata"]["annotations"].get(STATUS_ANNOTATION)
    if text is None:
        return None
    for container in pod["spec"]["initContainers"]:
        if container["name"] == CONTAINER and container.get("restartPolicy") == "Always":
            return _injection(text)
    return None


@lru_cache(maxsize=4096)
def _injection(text: str) -> InjectionStatus | None:
    """Pods of one template carry the same text, and it is asked for often."""
    try:
        return status_of({"metadata": {"annotations": {STATUS_ANNOTATION: text}}})
    except MalformedStatus:
        return None


def bind_of(plan: InjectionPlan, policy: str) -> TakeOver | Redirect | None:
    return next((bind for bind in plan.binds if bind.policy == policy), None)


def carries(status: InjectionStatus | None, bind: TakeOver | Redirect) -> bool:
    """Whether what was injected does what `bind` asks for, by whatever ports of the sidecar's own.

    Those move when another policy of the pod is deleted, and that is no reason to disturb anybody.
    """
    if status is None:
        return False
    if isinstance(bind, TakeOver):
        upstream = f"http://$(PULSECACHE_POD_IP):{bind.app_port}"
        return any(
            (undo.container, undo.port, undo.was) == (bind.container, bind.port, bind.app_port)
            and f"{bind.policy}=*:{undo.now},{upstream}" in status.binds
            for undo in status.undo.ports
        )
    for text in status.binds:
        address, _, upstream = text.removeprefix(f"{bind.policy}=").partition(",")
        if text.startswith(f"{bind.policy}=") and upstream == bind.upstream:
            url = f"http://{address}"
            return {undo.name for undo in status.undo.env if undo.now == url} == set(bind.env)
    return False


def wish_of(bind: TakeOver | Redirect) -> tuple[Any, ...]:
    """What of a bind a running pod must have; two wishes that are equal ask for the same pod."""
    if isinstance(bind, TakeOver):
        return (bind.policy, bind.container, bind.port, bind.app_port)
    return (bind.policy, bind.upstream, *sorted(bind.env))
