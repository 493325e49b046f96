"""The status annotation of an injected pod: what was put in, and what has to be remembered to take it out again.

The annotation is on an object of the user's and may come back as anything (copied, edited, made up): what does not have
exactly this shape is MalformedStatus, and then nobody touches the pod.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pulsecache_operator.inject.names import STATUS_ANNOTATION

FORMAT = 1


class MalformedStatus(Exception):
    """The pod carries the annotation, but not as this operator writes it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PortUndo:
    container: str
    port: str
    was: int
    now: int
    alias: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvUndo:
    container: str
    name: str
    was: tuple[Mapping[str, Any], ...]
    """The entries of that name, in order; empty where there was none."""
    now: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Undo:
    absent: tuple[str, ...] = ()
    """Objects and lists that injection had to create, for example `spec.volumes`; the outer ones first."""
    label: str | None = None
    """The value that the mark of injected pods had before."""
    ports: tuple[PortUndo, ...] = ()
    env: tuple[EnvUndo, ...] = ()
    no_env: tuple[str, ...] = ()
    """Containers that had no list of variables."""
    resources: Mapping[str, Any] | None = None
    """`spec.resources`, where the pod as a whole has a budget."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InjectionStatus:
    version: str
    """Of the operator that injected."""
    image: str
    policies: tuple[str, ...]
    """`namespace/name` of each policy that has a bind in this pod."""
    binds: tuple[str, ...]
    digest: str
    undo: Undo = field(default_factory=Undo)

    def dump(self) -> str:
        undo = self.undo
        document: dict[str, Any] = {
            "format": FORMAT,
            "version": self.version,
            "image": self.image,
            "policies": list(self.policies),
            "binds": list(self.binds),
            "digest": self.digest,
            "undo": {
                "absent": list(undo.absent),
                "label": undo.label,
                "ports": [[p.container, p.port, p.was, p.now, p.alias] for p in undo.ports],
                "env": [[e.container, e.name, list(e.was), e.now] for e in undo.env],
                "noEnv": list(undo.no_env),
                "resources": undo.resources,
            },
        }
        return json.dumps(document, separators=(",", ":"), ensure_ascii=False)


def status_of(pod: Mapping[str, Any]) -> InjectionStatus | None:
    """What was injected into the pod; None where nothing was. Raises MalformedStatus."""
    annotations = (pod.get("metadata") or {}).get("annotations") or {}
    text = annotations.get(STATUS_ANNOTATION)
    if text is None:
        return None
    try:
        return _load(json.loads(text))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise MalformedStatus(f"the annotation {STATUS_ANNOTATION} is not one of this operator: {error!r}") from error


def _load(document: Any) -> InjectionStatus:
    if _is(document, dict)["format"] != FORMAT:
        raise ValueError(f"format {document['format']!r}")
    undo = _is(document["undo"], dict)
    return InjectionStatus(
        version=_is(document["version"], str),
        image=_is(document["image"], str),
        policies=_strings(document["policies"]),
        binds=_strings(document["binds"]),
        digest=_is(document["digest"], str),
        undo=Undo(
            absent=_strings(undo["absent"]),
            label=None if undo["label"] is None else _is(undo["label"], str),
            ports=tuple(
                PortUndo(
                    container=_is(container, str),
                    port=_is(port, str),
                    was=_is(was, int),
                    now=_is(now, int),
                    alias=_is(alias, str),
                )
                for container, port, was, now, alias in _is(undo["ports"], list)
            ),
            env=tuple(
                EnvUndo(
                    container=_is(container, str),
                    name=_is(name, str),
                    was=tuple(_is(entry, dict) for entry in _is(was, list)),
                    now=_is(now, str),
                )
                for container, name, was, now in _is(undo["env"], list)
            ),
            no_env=_strings(undo["noEnv"]),
            resources=None if undo["resources"] is None else _is(undo["resources"], dict),
        ),
    )


def _strings(value: Any) -> tuple[str, ...]:
    return tuple(_is(element, str) for element in _is(value, list))


def _is(value: Any, kind: type[Any]) -> Any:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise TypeError(f"{value!r} is no {kind.__name__}")
    return value
