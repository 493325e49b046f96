"""Which policies select a pod, and what follows from that: a plan, or a reason why not. Pure.

All questions that the webhook, the controller and people ask about this are answered here and in `placement` alone,
so that "why has this pod no sidecar" has one answer. Nothing of the cluster's state but the arguments plays a
part.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pulsecache_operator.inject.names import (
    ADMIN_PORT,
    APP_PORT,
    CLIENT_PORTS,
    CONTAINER,
    DATA_VOLUME,
    INJECT_LABEL,
    POLICIES_VOLUME,
    SERVER_PORTS,
)
from pulsecache_operator.inject.plan import InjectionPlan, Redirect, TakeOver
from pulsecache_operator.inject.pod import containers_of, plain, references
from pulsecache_operator.inject.status import MalformedStatus
from pulsecache_operator.placement import (
    Conflict,
    Object,
    Problem,
    Reason,
    Target,
    by_age,
    by_name,
    claims,
    conflicts,
    labels_of,
    meta,
    placement_problem,
    resolve,
    selects,
)
from pulsecache_policy.model import CachePolicy, Consumer

__all__ = [
    "Conflict",
    "Decision",
    "Inject",
    "Object",
    "Problem",
    "Reason",
    "Refusal",
    "Skip",
    "by_age",
    "conflicts",
    "placement_problem",
    "plan_for",
    "selects",
]

SYSTEM_NAMESPACES = frozenset({"kube-system", "kube-public", "kube-node-lease"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a policy that selects the pod (or may: its Service is missing) has no part in its injection."""

    policy: str
    """Its name, in the pod's namespace."""
    reason: Reason
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Inject:
    plan: InjectionPlan
    refusals: tuple[Refusal, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Skip:
    """No sidecar for this pod. One that it carries (a copied manifest) is to be stripped, except where its
    status annotation is malformed."""

    reason: Reason
    message: str
    refusals: tuple[Refusal, ...] = ()
    selected_by: tuple[str, ...] = ()
    """Names of the policies that select the pod: for them the skip is news, for a pod nobody selects it is none."""


Decision = Inject | Skip


# --- one pod ----------------------------------------------------------------------------------------------------


def plan_for(
    pod: Object,
    namespace: Object,
    policies: Iterable[CachePolicy],
    services: Iterable[Object],
    *,
    own_namespace: str = "",
) -> Decision:
    """What is to be done to the pod, whatever has been done to it already.

    `namespace` is the Namespace object; it, not the pod, says where the pod is (the review of a pod to be created may
    leave `metadata.namespace` out). Of `policies` and `services` those of other namespaces are ignored.
    """
    where = meta(namespace)["name"]
    try:
        bare = plain(pod)
    except MalformedStatus as error:
        return Skip(reason=Reason.MALFORMED_STATUS, message=str(error))
    index = by_name(services, where)
    labels = labels_of(bare)
    selecting, refusals = [], []
    for policy in by_age(policy for policy in policies if policy.namespace == where):
        selected = claims(policy, labels, index)
        if not selected and (isinstance(policy.placement, Consumer) or policy.placement.name in index):
            continue
        resolved = resolve(policy, index)
        if isinstance(resolved, Problem):
            if selected or resolved.reason is Reason.SERVICE_MISSING:
                message = f"{resolved.message}. {resolved.fix}"
                refusals.append(Refusal(policy=policy.name, reason=resolved.reason, message=message))
        elif selected:
            selecting.append((policy, resolved))
    selected_by = tuple(p.name for p, _ in selecting) + tuple(
        r.policy for r in refusals if r.reason is not Reason.SERVICE_MISSING
    )
    if selected_by and (obstacle := _obstacle(bare, namespace, own_namespace)):
        reason, message = obstacle
        return Skip(reason=reason, message=message, refusals=tuple(refusals), selected_by=selected_by)

    allocation = _Allocation(bare)
    binds: list[TakeOver | Redirect] = []
    for policy, resolved in selecting:
        bind = allocation.bind(policy, resolved)
        if isinstance(bind, Refusal):
            refusals.append(bind)
        else:
            binds.append(bind)
    if binds:
        return Inject(plan=InjectionPlan(namespace=where, binds=tuple(binds)), refusals=tuple(refusals))
    # The refusal of a policy that selects the pod says more than one of a policy that perhaps would.
    telling = sorted(refusals, key=lambda refusal: refusal.reason is Reason.SERVICE_MISSING)
    if telling:
        reason, message = telling[0].reason, telling[0].message
        return Skip(reason=reason, message=message, refusals=tuple(refusals), selected_by=selected_by)
    return Skip(reason=Reason.NO_POLICY, message="no policy selects the pod")


def _obstacle(pod: Object, namespace: Object, own_namespace: str) -> tuple[Reason, str] | None:
    """Why a pod gets no sidecar, whatever policies say. `pod` is stripped."""
    where, spec = meta(namespace)["name"], pod.get("spec") or {}
    if where in SYSTEM_NAMESPACES:
        return Reason.KUBE_SYSTEM, f"pods of {where} are left alone"
    if where == own_namespace:
        return Reason.OWN_NAMESPACE, "pods of the operator's own namespace are left alone"
    for what, labels in (("pod", labels_of(pod)), ("namespace", labels_of(namespace))):
        if labels.get(INJECT_LABEL) == "false":
            return Reason.OPTED_OUT, f'the {what} carries the label {INJECT_LABEL}: "false"'
    if "kubernetes.io/config.mirror" in (meta(pod).get("annotations") or {}):
        return Reason.MIRROR_POD, "the pod mirrors a static pod of a node, which nobody but the node can change"
    if spec.get("hostNetwork"):
        return Reason.HOST_NETWORK, "the pod uses the node's network, where the sidecar's ports are not its own"
    system = (spec.get("os") or {}).get("name") or (spec.get("nodeSelector") or {}).get("kubernetes.io/os")
    if system == "windows":
        return Reason.WINDOWS, "the sidecar runs on Linux only"
    containers = containers_of(spec)
    for container in containers:
        if any(port.get("containerPort") == ADMIN_PORT for port in container.get("ports") or []):
            message = f"container {container.get('name')} declares port {ADMIN_PORT}, the sidecar's own"
            return Reason.ADMIN_PORT_TAKEN, message
        if container.get("name") == CONTAINER:
            return Reason.NAME_TAKEN, f"the pod has a container of its own named {CONTAINER}"
    for volume in spec.get("volumes") or []:
        if volume.get("name") in (POLICIES_VOLUME, DATA_VOLUME):
            return Reason.NAME_TAKEN, f"the pod has a volume of its own named {volume['name']}"
    return None


class _Allocation:
    """Port numbers, port names and variables of one pod, given to policies in the order of their age."""

    def __init__(self, pod: Object) -> None:
        spec = pod.get("spec") or {}
        all_containers = containers_of(spec)
        self._numbers: set[Any] = {ADMIN_PORT}
        self._names: set[Any] = set()
        for container in all_containers:
            for port in container.get("ports") or []:
                self._numbers |= {port.get("containerPort"), port.get("hostPort")}
                self._names.add(port.get("name"))
            for action in references(container):
                # A probe may name a port that nobody declares, by number or by name.
                self._numbers.add(action.get("port"))
                self._names.add(action.get("port"))
        natives = [c for c in spec.get("initContainers") or [] if c.get("restartPolicy") == "Always"]
        self._listening = [*(spec.get("containers") or []), *natives]
        self._ports: dict[str, str] = {}
        self._env: dict[str, str] = {}

    def bind(self, policy: CachePolicy, resolved: Target | Consumer) -> TakeOver | Redirect | Refusal:
        if isinstance(resolved, Consumer):
            return self._redirect(policy, resolved)
        return self._take_over(policy, resolved)

    def _take_over(self, policy: CachePolicy, target: Target) -> TakeOver | Refusal:
        if winner := self._ports.get(target.port):
            message = f"the older policy {winner} already has port {target.port} of this pod"
            return Refusal(policy=policy.name, reason=Reason.CONFLICTING, message=message)
        found = self._declared(target.port)
        if found is None:
            message = (
                f"no container declares a TCP port named {target.port}, the targetPort of Service {target.service}: "
                f"name it in the pod template"
            )
            return Refusal(policy=policy.name, reason=Reason.PORT_NAME_MISSING_ON_CONTAINER, message=message)
        container, port = found
        if port.get("hostPort"):
            message = (
                f"port {target.port} of container {container['name']} has a hostPort, which would lead past the app"
            )
            return Refusal(policy=policy.name, reason=Reason.HOST_PORT, message=message)
        number = self._free(SERVER_PORTS)
        alias = self._alias()
        if number is None or alias is None:
            message = f"no port is free in {SERVER_PORTS.start}-{SERVER_PORTS.stop - 1}"
            return Refusal(policy=policy.name, reason=Reason.NO_FREE_PORT, message=message)
        self._numbers.add(number)
        self._names.add(alias)
        self._ports[target.port] = policy.name
        return TakeOver(
            policy=policy.name,
            container=container["name"],
            port=target.port,
            app_port=port["containerPort"],
            data_port=number,
            alias=alias,
        )

    def _redirect(self, policy: CachePolicy, consumer: Consumer) -> Redirect | Refusal:
        for name in consumer.env:
            if winner := self._env.get(name):
                message = f"the older policy {winner} already has the variable {name} of this pod"
                return Refusal(policy=policy.name, reason=Reason.CONFLICTING, message=message)
        number = self._free(CLIENT_PORTS)
        if number is None:
            message = f"no port is free in {CLIENT_PORTS.start}-{CLIENT_PORTS.stop - 1}"
            return Refusal(policy=policy.name, reason=Reason.NO_FREE_PORT, message=message)
        self._numbers.add(number)
        self._env.update(dict.fromkeys(consumer.env, policy.name))
        env = tuple(dict.fromkeys(consumer.env))
        return Redirect(policy=policy.name, upstream=consumer.upstream, env=env, data_port=number)

    def _declared(self, name: str) -> tuple[Object, Object] | None:
        """The port that Kubernetes finds by that name: containers first, the first declaration counts."""
        for container in self._listening:
            for port in container.get("ports") or []:
                if port.get("name") == name and (port.get("protocol") or "TCP") == "TCP":
                    return container, port
        return None

    def _free(self, numbers: range) -> int | None:
        return next((number for number in numbers if number not in self._numbers), None)

    def _alias(self) -> str | None:
        names = (APP_PORT if i == 0 else f"{APP_PORT}-{i}" for i in range(len(SERVER_PORTS) * 2))
        return next((name for name in names if name not in self._names), None)
