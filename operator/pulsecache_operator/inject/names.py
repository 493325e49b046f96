"""The names by which an injected pod is recognised and put together (docs/architecture.md). Nothing else."""

from __future__ import annotations

INJECT_LABEL = "pulsecache.dev/inject"
"""On a pod or a namespace: "false" keeps the sidecar out."""
INJECTED_LABEL = "pulsecache.dev/injected"
STATUS_ANNOTATION = "pulsecache.dev/status"

CONTAINER = "pulsecache"
POLICIES_VOLUME = "pulsecache-policies"
POLICIES_PATH = "/etc/pulsecache/policies"
DATA_VOLUME = "pulsecache-data"
DATA_PATH = "/var/lib/pulsecache"
APP_PORT = "pulse-app"

SERVER_PORTS = range(15080, 15180)
CLIENT_PORTS = range(15180, 15280)
ADMIN_PORT = 15090

USER_ID = 65532
REDIS_SECRET_KEY = "url"  # noqa: S105 (the name of a key, not a secret)
BUNDLE_KEY = "bundle.json"


def config_map(policy: str) -> str:
    """The ConfigMap that carries the compiled policy."""
    return f"pulsecache-{policy}"
