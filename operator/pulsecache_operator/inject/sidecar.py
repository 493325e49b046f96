"""The sidecar's container and volumes. It passes Pod Security `restricted` and declares no ports (the app does).

Everything that the API server would fill in is said here, so that an injected pod that went through it once more is
still what it was.
"""

from __future__ import annotations

from typing import Any

from pulsecache_operator.inject.names import (
    ADMIN_PORT,
    BUNDLE_KEY,
    CONTAINER,
    DATA_PATH,
    DATA_VOLUME,
    POLICIES_PATH,
    POLICIES_VOLUME,
    REDIS_SECRET_KEY,
    USER_ID,
    config_map,
)
from pulsecache_operator.inject.plan import InjectionPlan, SidecarConfig


def container(plan: InjectionPlan, config: SidecarConfig) -> dict[str, Any]:
    """A native sidecar: an init container that keeps running, started before and stopped after the app."""
    args = ["run", "--policies", POLICIES_PATH, "--admin", f"*:{ADMIN_PORT}", "--data", DATA_PATH]
    for bind in plan.binds:
        args += ["--bind", bind.bind]
    return {
        "name": CONTAINER,
        "image": config.image,
        "imagePullPolicy": config.pull_policy,
        "restartPolicy": "Always",
        "args": args,
        "env": [
            _field("PULSECACHE_POD_NAME", "metadata.name"),
            _field("PULSECACHE_POD_NAMESPACE", "metadata.namespace"),
            _field("PULSECACHE_POD_UID", "metadata.uid"),
            _field("PULSECACHE_POD_IP", "status.podIP"),
            {
                "name": "PULSECACHE_REDIS_URL",
                "valueFrom": {"secretKeyRef": {"name": config.redis_secret, "key": REDIS_SECRET_KEY, "optional": True}},
            },
        ],
        "resources": {section: dict(quantities) for section, quantities in config.resources.items()},
        # The app's containers wait for this probe; a sidecar that does not start is restarted after half a minute.
        "startupProbe": _probe("/-/livez", period_s=1, failures=30, timeout_s=1),
        "livenessProbe": _probe("/-/livez", period_s=10, failures=3, timeout_s=3),
        "readinessProbe": _probe("/-/readyz", period_s=5, failures=3, timeout_s=2),
        "volumeMounts": [
            {"name": POLICIES_VOLUME, "mountPath": POLICIES_PATH, "readOnly": True},
            {"name": DATA_VOLUME, "mountPath": DATA_PATH},
        ],
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER_ID,
            "runAsGroup": USER_ID,
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }


def volumes(plan: InjectionPlan) -> list[dict[str, Any]]:
    """Policies from ConfigMaps that may not exist yet, and room for the journal."""
    sources = [
        {
            "configMap": {
                "name": config_map(bind.policy),
                "items": [{"key": BUNDLE_KEY, "path": f"{bind.policy}.json"}],
                "optional": True,
            }
        }
        for bind in plan.binds
    ]
    return [
        {"name": POLICIES_VOLUME, "projected": {"sources": sources, "defaultMode": 0o644}},
        {"name": DATA_VOLUME, "emptyDir": {}},
    ]


def _field(variable: str, path: str) -> dict[str, Any]:
    return {"name": variable, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}}


def _probe(path: str, *, period_s: int, failures: int, timeout_s: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": path, "port": ADMIN_PORT, "scheme": "HTTP"},
        "periodSeconds": period_s,
        "timeoutSeconds": timeout_s,
        "successThreshold": 1,
        "failureThreshold": failures,
    }
