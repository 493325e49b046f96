"""Policies and Services: where a policy can be placed at all, and which of two that claim the same is in force. Pure.

The Service that a policy names decides which pods are its (by selector) and which port (by the Service port's name);
a consumer says its pods itself. What a single pod makes of it is `selection`'s matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pulsecache_operator.inject.names import config_map
from pulsecache_policy.model import CachePolicy, Consumer, TargetRef

Object = Mapping[str, Any]
"""A Kubernetes object as its API gives it."""

CACHEABLE_PROTOCOLS = frozenset({"http", "kubernetes.io/ws"})
"""Values of `appProtocol` that mean HTTP/1.1 in clear; a port without one is taken for such."""


class Reason(StrEnum):
    """Why a pod, or a policy, is left alone. Values are metric labels and part of Events."""

    # No policy wants this pod.
    NO_POLICY = "no-policy"
    # Whatever policies want, this pod gets no sidecar.
    OPTED_OUT = "opted-out"
    KUBE_SYSTEM = "kube-system"
    OWN_NAMESPACE = "own-namespace"
    MIRROR_POD = "mirror-pod"
    HOST_NETWORK = "host-network"
    WINDOWS = "windows"
    ADMIN_PORT_TAKEN = "admin-port-taken"
    NAME_TAKEN = "name-taken"
    MALFORMED_STATUS = "malformed-status"
    # A policy cannot be placed anywhere.
    SERVICE_MISSING = "service-missing"
    SERVICE_WITHOUT_SELECTOR = "service-without-selector"
    NO_SUCH_PORT = "no-such-port"
    PORT_NOT_NAMED = "port-not-named"
    PORT_NOT_TCP = "port-not-tcp"
    PORT_NOT_HTTP = "port-not-http"
    NUMERIC_TARGET_PORT = "numeric-target-port"
    NAME_TOO_LONG = "name-too-long"
    # A policy cannot be placed on this pod.
    PORT_NAME_MISSING_ON_CONTAINER = "port-name-missing-on-container"
    HOST_PORT = "host-port"
    NO_FREE_PORT = "no-free-port"
    # An older policy was there first.
    CONFLICTING = "conflicting"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Why a policy can be placed nowhere, for its condition."""

    reason: Reason
    message: str
    """What is wrong with what."""
    fix: str
    """What to do about it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """A policy that has no effect, because an older one claims the same."""

    policy: str
    winner: str
    """Both `namespace/name`."""
    message: str


@dataclass(frozen=True, slots=True)
class Target:
    service: str
    selector: Mapping[str, str]
    port: str
    """The name that a container must declare."""


# --- policies and Services --------------------------------------------------------------------------------------


def placement_problem(policy: CachePolicy, services: Iterable[Object]) -> Problem | None:
    """Why the policy can be placed nowhere; None where it can."""
    resolved = resolve(policy, by_name(services, policy.namespace))
    return resolved if isinstance(resolved, Problem) else None


def selects(policy: CachePolicy, pod: Object, services: Iterable[Object], *, namespace: str = "") -> bool:
    """Whether the policy is about this pod, injected or not. `namespace` for pods that do not say theirs yet."""
    if (namespace or meta(pod).get("namespace")) != policy.namespace:
        return False
    return claims(policy, labels_of(pod), by_name(services, policy.namespace))


def by_age(policies: Iterable[CachePolicy]) -> list[CachePolicy]:
    """Oldest first, then by name; those without a date (not from a cluster) last."""
    return sorted(policies, key=lambda policy: (not policy.created, policy.created, policy.namespace, policy.name))


def conflicts(policies: Iterable[CachePolicy], services: Iterable[Object]) -> dict[str, Conflict]:
    """The policies (`namespace/name`) that lose to an older one on every pod that they select.

    That is: the same port of the same Service, or of Services whose selectors make every pod of the younger one's a pod
    of the older one's; for consumers the same variable of the same pods. Where only some pods are selected by
    both, `plan_for` decides pod by pod.
    """
    services = list(services)
    indices: dict[str, dict[str, Object]] = {}
    in_force: dict[str, list[tuple[CachePolicy, Target | Consumer]]] = {}
    losers: dict[str, Conflict] = {}
    for policy in by_age(policies):
        index = indices.setdefault(policy.namespace, by_name(services, policy.namespace))
        mine = resolve(policy, index)
        if isinstance(mine, Problem):
            continue
        for winner, theirs in in_force.setdefault(policy.namespace, []):
            if claim := _common_claim(theirs, mine):
                losers[policy.key] = Conflict(
                    policy=policy.key,
                    winner=winner.key,
                    message=f"the older policy {winner.name} already has {claim}: delete one of the two",
                )
                break
        else:
            in_force[policy.namespace].append((policy, mine))
    return losers


def _common_claim(older: Target | Consumer, younger: Target | Consumer) -> str | None:
    if isinstance(older, Target) and isinstance(younger, Target):
        if older.port == younger.port and older.selector.items() <= younger.selector.items():
            return f"port {older.port} of the pods of Service {younger.service}"
    elif isinstance(older, Consumer) and isinstance(younger, Consumer):
        common = sorted(set(older.env) & set(younger.env))
        if common and set(older.match_labels) <= set(younger.match_labels):
            return f"the variable {common[0]} of these pods"
    return None


def resolve(policy: CachePolicy, services: Mapping[str, Object]) -> Target | Consumer | Problem:
    """What the policy claims, or why that is nothing. `services` of its namespace, by name."""
    if len(config_map(policy.name)) > 253:
        return Problem(
            reason=Reason.NAME_TOO_LONG,
            message=f"the name of the policy has {len(policy.name)} characters, and its ConfigMap needs 11 more",
            fix="Give the policy a name of at most 242 characters.",
        )
    if isinstance(policy.placement, Consumer):
        return policy.placement
    target = policy.placement
    service = services.get(target.name)
    if service is None:
        return Problem(
            reason=Reason.SERVICE_MISSING,
            message=f"there is no Service {policy.namespace}/{target.name}",
            fix=f"Create the Service {target.name} in namespace {policy.namespace}, or correct spec.targetRef.name.",
        )
    spec = service.get("spec") or {}
    selector = spec.get("selector") or {}
    if not selector or spec.get("type") == "ExternalName":
        return Problem(
            reason=Reason.SERVICE_WITHOUT_SELECTOR,
            message=f"Service {target.name} selects no pods",
            fix="Name a Service with a selector, or use spec.consumer for an origin outside the cluster.",
        )
    port = _service_port(target, spec.get("ports") or [])
    if isinstance(port, Problem):
        return port
    problem = _port_problem(target.name, port)
    return problem or Target(target.name, selector, port["targetPort"])


def _service_port(target: TargetRef, ports: Sequence[Object]) -> Object | Problem:
    names = ", ".join(str(port.get("name", port.get("port"))) for port in ports) or "none"
    if target.section_name is not None:
        for port in ports:
            if port.get("name") == target.section_name:
                return port
        return Problem(
            reason=Reason.NO_SUCH_PORT,
            message=f"Service {target.name} has no port named {target.section_name} (it has: {names})",
            fix="Set spec.targetRef.sectionName to the name of one of the Service's ports.",
        )
    if len(ports) != 1:
        return Problem(
            reason=Reason.PORT_NOT_NAMED,
            message=f"Service {target.name} has {len(ports)} ports (named: {names}), and the policy names none of them",
            fix="Set spec.targetRef.sectionName to the name of the port to cache.",
        )
    return ports[0]


def _port_problem(service: str, port: Object) -> Problem | None:
    which = f"port {port.get('name') or port.get('port')} of Service {service}"
    if (protocol := port.get("protocol") or "TCP") != "TCP":
        return Problem(
            reason=Reason.PORT_NOT_TCP,
            message=f"{which} is {protocol}",
            fix="Name a port that speaks HTTP over TCP.",
        )
    app_protocol = port.get("appProtocol")
    if app_protocol and app_protocol.lower() not in CACHEABLE_PROTOCOLS:
        return Problem(
            reason=Reason.PORT_NOT_HTTP,
            message=f"{which} says appProtocol: {app_protocol}, which cannot be cached",
            fix="Name a port that speaks HTTP/1.1 in clear; if this one does, set its appProtocol to http.",
        )
    target = port.get("targetPort")
    if not isinstance(target, str):
        number = target or port.get("port")
        return Problem(
            reason=Reason.NUMERIC_TARGET_PORT,
            message=f"{which} has the number {number} as targetPort, and only a name can be taken over",
            fix=f"Give containerPort {number} a name in the pod template (for example http) and set the Service's "
            f"targetPort to that name.",
        )
    return None


def claims(policy: CachePolicy, labels: Mapping[str, str], services: Mapping[str, Object]) -> bool:
    """Whether the policy is about pods with these labels. `services` of its namespace, by name."""
    if isinstance(policy.placement, Consumer):
        return bool(policy.placement.match_labels) and set(policy.placement.match_labels) <= labels.items()
    service = services.get(policy.placement.name) or {}
    selector = (service.get("spec") or {}).get("selector") or {}
    return bool(selector) and selector.items() <= labels.items()


# --- dictionaries -----------------------------------------------------------------------------------------------


def by_name(services: Iterable[Object], namespace: str) -> dict[str, Object]:
    return {meta(s)["name"]: s for s in services if meta(s).get("namespace") == namespace}


def meta(value: Object) -> Mapping[str, Any]:
    return value.get("metadata") or {}


def labels_of(value: Object) -> Mapping[str, str]:
    return meta(value).get("labels") or {}
