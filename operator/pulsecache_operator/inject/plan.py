"""What is to be done to one pod, as values. `selection` makes plans, `pod.inject` carries them out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeOver:
    """Server-side: the sidecar stands in front of one named port of the pod."""

    policy: str
    container: str
    """The app's container, which declares the port."""
    port: str
    """Name of the port; it will lead to `data_port`."""
    app_port: int
    """Where the app listens, before and after."""
    data_port: int
    alias: str
    """The new name of `app_port`."""

    @property
    def bind(self) -> str:
        """The value of the sidecar's `--bind`; the kubelet puts the pod's address in."""
        return f"{self.policy}=*:{self.data_port},http://$(PULSECACHE_POD_IP):{self.app_port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Redirect:
    """Client-side: variables of the app's containers lead to the sidecar instead of `upstream`."""

    policy: str
    upstream: str
    env: tuple[str, ...]
    data_port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.data_port}"

    @property
    def bind(self) -> str:
        return f"{self.policy}=127.0.0.1:{self.data_port},{self.upstream}"


@dataclass(frozen=True, slots=True, kw_only=True)
class InjectionPlan:
    namespace: str
    binds: tuple[TakeOver | Redirect, ...]
    """In the order of age of their policies, so that a new policy moves nobody's port."""

    @property
    def policies(self) -> tuple[str, ...]:
        """`namespace/name` of each policy."""
        return tuple(f"{self.namespace}/{bind.policy}" for bind in self.binds)


@dataclass(frozen=True, slots=True, kw_only=True)
class SidecarConfig:
    """What is the same for all sidecars of an installation."""

    image: str
    pull_policy: str
    resources: Mapping[str, Mapping[str, str]]
    redis_secret: str
    version: str
    """Of the operator that injects; only told, in the status annotation."""


def digest(plan: InjectionPlan, config: SidecarConfig) -> str:
    """Equal for equal wishes: an injected pod that carries it needs nothing more."""
    wish = json.dumps([asdict(plan), asdict(config)], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(wish.encode()).hexdigest()[:16]
