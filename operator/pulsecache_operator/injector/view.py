"""The policies, Services and namespaces of the cluster, as the webhook needs them: at hand, by namespace, and small.

The sinks of three watches. A policy that cannot be read (its CRD should not have let it in) does not replace the one
that could: the last good one stays in force.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from pulsecache_operator.placement import Object, labels_of, meta
from pulsecache_operator.watch import Resource
from pulsecache_policy.errors import InvalidPolicy
from pulsecache_policy.model import API_GROUP, API_VERSION, KIND, CachePolicy
from pulsecache_policy.parse import parse_policy

log = logging.getLogger(__name__)

CACHE_POLICIES = Resource(name="cachepolicies", path=f"/apis/{API_GROUP}/{API_VERSION}/cachepolicies")
SERVICES = Resource(name="services", path="/api/v1/services")
NAMESPACES = Resource(name="namespaces", path="/api/v1/namespaces", metadata_only=True)


class Policies:
    def __init__(self) -> None:
        self._by_namespace: dict[str, dict[str, CachePolicy]] = {}

    def of(self, namespace: str) -> Sequence[CachePolicy]:
        return list(self._by_namespace.get(namespace, {}).values())

    def replace(self, objects: Sequence[Object]) -> None:
        before, self._by_namespace = self._by_namespace, {}
        for item in objects:
            namespace, name = _key(item)
            self._put(item, before.get(namespace, {}).get(name))

    def put(self, item: Object) -> None:
        namespace, name = _key(item)
        self._put(item, self._by_namespace.get(namespace, {}).get(name))

    def drop(self, item: Object) -> None:
        namespace, name = _key(item)
        here = self._by_namespace.get(namespace, {})
        here.pop(name, None)
        if not here:
            self._by_namespace.pop(namespace, None)

    def _put(self, item: Object, before: CachePolicy | None) -> None:
        namespace, name = _key(item)
        try:
            # The items of a LIST do not say what they are.
            policy = parse_policy({"apiVersion": f"{API_GROUP}/{API_VERSION}", "kind": KIND, **item})
        except InvalidPolicy as error:
            same = before is not None and before.uid == meta(item).get("uid")
            what = "its last good version stays in force" if same else "it is not in force"
            log.warning("CachePolicy %s/%s cannot be read, %s: %s", namespace, name, what, error)
            if not same or before is None:
                self.drop(item)
                return
            policy = before
        self._by_namespace.setdefault(namespace, {})[name] = policy


class Objects:
    """Services, or anything else with a namespace and a name."""

    def __init__(self) -> None:
        self._by_namespace: dict[str, dict[str, Object]] = {}

    def of(self, namespace: str) -> Sequence[Object]:
        return list(self._by_namespace.get(namespace, {}).values())

    def replace(self, objects: Sequence[Object]) -> None:
        self._by_namespace = {}
        for item in objects:
            self.put(item)

    def put(self, item: Object) -> None:
        namespace, name = _key(item)
        self._by_namespace.setdefault(namespace, {})[name] = item

    def drop(self, item: Object) -> None:
        namespace, name = _key(item)
        here = self._by_namespace.get(namespace, {})
        here.pop(name, None)
        if not here:
            self._by_namespace.pop(namespace, None)


class Namespaces:
    def __init__(self) -> None:
        self._by_name: dict[str, Object] = {}

    def get(self, name: str) -> Object:
        """The Namespace; without labels, when it is so new that the watch has not told of it yet."""
        return self._by_name.get(name) or {"metadata": {"name": name}}

    def replace(self, objects: Sequence[Object]) -> None:
        self._by_name = {meta(item)["name"]: item for item in objects}

    def put(self, item: Object) -> None:
        self._by_name[meta(item)["name"]] = item

    def drop(self, item: Object) -> None:
        self._by_name.pop(meta(item)["name"], None)


class View:
    """Everything that decisions are made from. Reading it takes no time worth mentioning and never fails."""

    def __init__(self) -> None:
        self.policies = Policies()
        self.services = Objects()
        self.namespaces = Namespaces()

    def policies_of(self, namespace: str) -> Sequence[CachePolicy]:
        return self.policies.of(namespace)

    def services_of(self, namespace: str) -> Sequence[Object]:
        return self.services.of(namespace)

    def namespace(self, name: str) -> Object:
        return self.namespaces.get(name)


def keep_service(service: Object) -> Object:
    spec: Mapping[str, Any] = service.get("spec") or {}
    wanted = ("name", "port", "protocol", "appProtocol", "targetPort")
    return {
        "metadata": _keep_names(service),
        "spec": {
            "type": spec.get("type"),
            "selector": spec.get("selector"),
            "ports": [{key: port[key] for key in wanted if key in port} for port in spec.get("ports") or ()],
        },
    }


def keep_namespace(namespace: Object) -> Object:
    return {"metadata": {**_keep_names(namespace), "labels": labels_of(namespace)}}


def _keep_names(item: Object) -> dict[str, Any]:
    return {key: meta(item)[key] for key in ("name", "namespace") if key in meta(item)}


def _key(item: Object) -> tuple[str, str]:
    return meta(item).get("namespace", ""), meta(item)["name"]
