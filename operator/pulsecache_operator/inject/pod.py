"""`inject` and `strip`: a plan carried out on a pod, and taken back.

A port is taken over by declaration alone: the name that the Service uses gets the sidecar's number, the app's own
number gets another name, and what the kubelet resolves by name within that container (probes, hooks) follows the app.
Nothing else in a pod refers to a port's name, and text that only looks like it (env, args) is not guessed at.

A pod that already is as the plan wants it stays untouched, whatever others (a mesh, the ServiceAccount plugin) have
done to it since, the sidecar's place among the init containers included. Whether to inject at all is decided by
`selection`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pulsecache_operator.inject import sidecar
from pulsecache_operator.inject.names import (
    CONTAINER,
    DATA_VOLUME,
    INJECTED_LABEL,
    POLICIES_VOLUME,
    STATUS_ANNOTATION,
)
from pulsecache_operator.inject.plan import InjectionPlan, Redirect, SidecarConfig, TakeOver, digest
from pulsecache_operator.inject.quantity import add
from pulsecache_operator.inject.status import EnvUndo, InjectionStatus, PortUndo, Undo, status_of

Pod = dict[str, Any]

ANNOTATIONS_LIMIT_BYTES = 256 * 1024
"""The API server's limit for all annotations of an object, names and values together."""


def inject(pod: Mapping[str, Any], plan: InjectionPlan, config: SidecarConfig) -> Pod:
    """The pod with the sidecar that `plan` asks for, in place of any that it has; `pod` itself is not changed.

    `plan` must have been made for this pod. Raises MalformedStatus, and ValueError when a container or port of
    the plan is not there or the pod's annotations are full.
    """
    wish = digest(plan, config)
    status = status_of(pod)
    if status is not None and status.digest == wish and _intact(pod, status):
        return _copied(pod)
    after = strip(pod)
    spec = after["spec"]
    absent: list[str] = []
    metadata = _child(after, "metadata", {}, "metadata", absent)
    labels = _child(metadata, "labels", {}, "metadata.labels", absent)
    annotations = _child(metadata, "annotations", {}, "metadata.annotations", absent)
    init_containers = _child(spec, "initContainers", [], "spec.initContainers", absent)
    volumes = _child(spec, "volumes", [], "spec.volumes", absent)

    ports = tuple(_take_over(spec, bind) for bind in plan.binds if isinstance(bind, TakeOver))
    env: list[EnvUndo] = []
    no_env = tuple(c["name"] for c in spec.get("containers") or [] if c.get("env") is None)
    redirects = [bind for bind in plan.binds if isinstance(bind, Redirect)]
    for container in spec.get("containers") or []:
        env += (_redirect(container, name, bind.url) for bind in redirects for name in bind.env)
    resources = _raise_budget(spec, config)

    init_containers.insert(0, sidecar.container(plan, config))
    volumes.extend(sidecar.volumes(plan))
    undo = Undo(
        absent=tuple(absent),
        label=labels.get(INJECTED_LABEL),
        ports=ports,
        env=tuple(env),
        no_env=no_env if redirects else (),
        resources=resources,
    )
    labels[INJECTED_LABEL] = "true"
    annotations[STATUS_ANNOTATION] = InjectionStatus(
        version=config.version,
        image=config.image,
        policies=plan.policies,
        binds=tuple(bind.bind for bind in plan.binds),
        digest=wish,
        undo=undo,
    ).dump()
    if sum(len(key.encode()) + len(value.encode()) for key, value in annotations.items()) > ANNOTATIONS_LIMIT_BYTES:
        raise ValueError("what has to be remembered to take the sidecar out again does not fit into the annotations")
    return after


def strip(pod: Mapping[str, Any]) -> Pod:
    """The pod as it was before injection; a pod that was not injected comes back equal. Raises MalformedStatus.

    What others have changed since is left as they made it.
    """
    before = _copied(pod)
    status = status_of(pod)
    if status is None:
        return before
    undo, spec, metadata = status.undo, before["spec"], before["metadata"]
    for key, ours in (("initContainers", (CONTAINER,)), ("volumes", (POLICIES_VOLUME, DATA_VOLUME))):
        if spec.get(key):
            spec[key] = [element for element in spec[key] if element.get("name") not in ours]
    containers = {c.get("name"): c for c in containers_of(spec)}
    for port in undo.ports:
        if container := containers.get(port.container):
            _give_back(container, port)
    for variable in undo.env:
        if container := containers.get(variable.container):
            _restore_env(container, variable)
    for name in undo.no_env:
        if (container := containers.get(name)) and container.get("env") == []:
            del container["env"]
    if undo.resources is not None:
        spec["resources"] = _copied(undo.resources)
    labels = metadata.get("labels") or {}
    if undo.label is None:
        labels.pop(INJECTED_LABEL, None)
    else:
        labels[INJECTED_LABEL] = undo.label
    del metadata["annotations"][STATUS_ANNOTATION]
    for path in reversed(undo.absent):
        _drop_if_empty(before, path)
    return before


def plain(pod: Mapping[str, Any]) -> Mapping[str, Any]:
    """`strip` for those who only read: a pod that was not injected is handed back itself. Raises MalformedStatus."""
    return pod if status_of(pod) is None else strip(pod)


# --- ports ------------------------------------------------------------------------------------------------------


def _take_over(spec: dict[str, Any], bind: TakeOver) -> PortUndo:
    container, port = _declared(spec, bind.container, bind.port)
    if port["containerPort"] != bind.app_port:
        raise ValueError(f"port {bind.port} of container {bind.container} is not {bind.app_port}")
    port["containerPort"] = bind.data_port
    own = {"name": bind.alias, "containerPort": bind.app_port}
    if "protocol" in port:
        own["protocol"] = port["protocol"]
    container["ports"].append(own)
    _rename(container, bind.port, bind.alias)
    return PortUndo(container=bind.container, port=bind.port, was=bind.app_port, now=bind.data_port, alias=bind.alias)


def _give_back(container: dict[str, Any], undo: PortUndo) -> None:
    ports = container.get("ports") or []
    for port in ports:
        if port.get("name") == undo.port and port.get("containerPort") == undo.now:
            port["containerPort"] = undo.was
    container["ports"] = [port for port in ports if port.get("name") != undo.alias]
    _rename(container, undo.alias, undo.port)


def _declared(spec: Mapping[str, Any], container: str, port: str) -> tuple[dict[str, Any], dict[str, Any]]:
    for candidate in containers_of(spec):
        if candidate.get("name") == container:
            for declared in candidate.get("ports") or []:
                if declared.get("name") == port:
                    return candidate, declared
    raise ValueError(f"the pod has no container {container} with a port {port}")


def references(container: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The actions of a container whose `port` the kubelet resolves among the ports of the same container."""
    hooks = container.get("lifecycle") or {}
    handlers = [container.get(probe) for probe in ("startupProbe", "livenessProbe", "readinessProbe")]
    handlers += [hooks.get("postStart"), hooks.get("preStop")]
    for handler in handlers:
        for action in ("httpGet", "tcpSocket"):
            if handler and isinstance(handler.get(action), dict):
                yield handler[action]


def _rename(container: Mapping[str, Any], old: str, new: str) -> None:
    for action in references(container):
        if action.get("port") == old:
            action["port"] = new


# --- environment ------------------------------------------------------------------------------------------------


def _redirect(container: dict[str, Any], name: str, url: str) -> EnvUndo:
    """Sets the variable, in place where it was (a variable may refer to those before it)."""
    entries = container.get("env") or []
    was = [entry for entry in entries if entry.get("name") == name]
    if was:
        container["env"] = [{"name": name, "value": url} if e.get("name") == name else e for e in entries]
    else:
        container["env"] = [*entries, {"name": name, "value": url}]
    return EnvUndo(container=container["name"], name=name, was=tuple(was), now=url)


def _restore_env(container: dict[str, Any], undo: EnvUndo) -> None:
    ours = {"name": undo.name, "value": undo.now}
    was = [_copied(entry) for entry in undo.was]
    env: list[Any] = []
    for entry in container.get("env") or []:
        if entry != ours:
            env.append(entry)
        elif was:
            env.append(was.pop(0))
    container["env"] = env


# --- the pod's own budget ---------------------------------------------------------------------------------------


def _raise_budget(spec: dict[str, Any], config: SidecarConfig) -> Mapping[str, Any] | None:
    """A pod that has resources as a whole is refused when its containers ask for more: the sidecar brings its own."""
    budget = spec.get("resources")
    if not budget or not (budget.get("requests") or budget.get("limits")):
        return None
    was = _copied(budget)
    requests, limits = config.resources.get("requests", {}), config.resources.get("limits", {})
    # Where a limit alone is given, the request is the limit; and a raised request must stay below its limit.
    for section, wanted in (("requests", {**limits, **requests}), ("limits", {**requests, **limits})):
        for resource, quantity in (budget.get(section) or {}).items():
            if resource in wanted:
                budget[section][resource] = add(quantity, wanted[resource])
    return was if was != budget else None


# --- dictionaries -----------------------------------------------------------------------------------------------


def _copied(value: Mapping[str, Any]) -> dict[str, Any]:
    """A deep copy of what JSON can say; several times faster than copy.deepcopy."""
    return {key: _copied_value(element) for key, element in value.items()}


def _copied_value(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copied_value(element) for key, element in value.items()}
    if isinstance(value, list):
        return [_copied_value(element) for element in value]
    return value


def containers_of(spec: Mapping[str, Any]) -> list[dict[str, Any]]:
    """All containers, the app's first: the order in which Kubernetes looks for a port by name."""
    return [*(spec.get("containers") or []), *(spec.get("initContainers") or [])]


def _child(parent: dict[str, Any], key: str, default: Any, path: str, absent: list[str]) -> Any:
    if parent.get(key) is None:
        parent[key] = default
        absent.append(path)
    return parent[key]


def _drop_if_empty(root: dict[str, Any], path: str) -> None:
    *outer, key = path.split(".")
    parent: Any = root
    for step in outer:
        parent = parent.get(step)
        if not isinstance(parent, dict):
            return
    if parent.get(key) in ({}, []):
        del parent[key]


def _intact(pod: Mapping[str, Any], status: InjectionStatus) -> bool:
    """Whether what was injected is still there (an old webhook may have dropped `restartPolicy`, for example)."""
    spec, metadata = pod["spec"], pod["metadata"]
    ours = [c for c in spec.get("initContainers") or [] if c.get("name") == CONTAINER]
    if len(ours) != 1 or ours[0].get("restartPolicy") != "Always" or ours[0].get("image") != status.image:
        return False
    if (metadata.get("labels") or {}).get(INJECTED_LABEL) != "true":
        return False
    if not {POLICIES_VOLUME, DATA_VOLUME} <= {v.get("name") for v in spec.get("volumes") or []}:
        return False
    declared = {
        (c.get("name"), p.get("name"), p.get("containerPort"))
        for c in containers_of(spec)
        for p in c.get("ports") or []
    }
    for port in status.undo.ports:
        if not {(port.container, port.port, port.now), (port.container, port.alias, port.was)} <= declared:
            return False
    for variable in status.undo.env:
        env = [c.get("env") or [] for c in spec.get("containers") or [] if c.get("name") == variable.container]
        if not env or {"name": variable.name, "value": variable.now} not in env[0]:
            return False
    return True
