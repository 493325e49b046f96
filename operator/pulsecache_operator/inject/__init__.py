"""From a pod to the pod with a sidecar, and back: dict in, dict out. Pure; knows neither API nor policies' content."""

from __future__ import annotations

from pulsecache_operator.inject.jsonpatch import patch
from pulsecache_operator.inject.plan import InjectionPlan, Redirect, SidecarConfig, TakeOver
from pulsecache_operator.inject.pod import inject, strip
from pulsecache_operator.inject.status import InjectionStatus, MalformedStatus, status_of

__all__ = [
    "InjectionPlan",
    "InjectionStatus",
    "MalformedStatus",
    "Redirect",
    "SidecarConfig",
    "TakeOver",
    "inject",
    "patch",
    "status_of",
    "strip",
]
