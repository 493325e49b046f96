"""The Kubernetes API as the controller uses it: plain documents in, plain documents out, errors by what they mean.

A thin layer over the dynamic client of `kubernetes.aio`. Resources are named here by hand: discovery would cost
requests at the start, permissions, and a cache file. What to write is decided elsewhere.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
from kubernetes.aio import client as kubernetes_client
from kubernetes.aio import config as kubernetes_config
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.dynamic import DynamicClient, Resource
from kubernetes.aio.dynamic.exceptions import DynamicApiError

FIELD_MANAGER = "pulsecache"
READ_TIMEOUT_S = 15.0
"""Of one request, connecting included."""
WRITE_TIMEOUT_S = 4.0
"""Shorter than the gap between a Lease's renewal deadline and its end: a writer that lost its role has then ended."""

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Kind:
    api_version: str
    kind: str
    plural: str
    namespaced: bool = True

    @property
    def group(self) -> str:
        return self.api_version.rpartition("/")[0]


CACHE_POLICY = Kind("pulsecache.dev/v1alpha1", "CachePolicy", "cachepolicies")
CONFIG_MAP = Kind("v1", "ConfigMap", "configmaps")
SECRET = Kind("v1", "Secret", "secrets")
SERVICE = Kind("v1", "Service", "services")
NAMESPACE = Kind("v1", "Namespace", "namespaces", namespaced=False)
POD = Kind("v1", "Pod", "pods")
EVENT = Kind("v1", "Event", "events")
ENDPOINT_SLICE = Kind("discovery.k8s.io/v1", "EndpointSlice", "endpointslices")
DEPLOYMENT = Kind("apps/v1", "Deployment", "deployments")
STATEFUL_SET = Kind("apps/v1", "StatefulSet", "statefulsets")
DAEMON_SET = Kind("apps/v1", "DaemonSet", "daemonsets")
LEASE = Kind("coordination.k8s.io/v1", "Lease", "leases")
WEBHOOK_CONFIGURATION = Kind(
    "admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration", "mutatingwebhookconfigurations", namespaced=False
)
ACCESS_REVIEW = Kind("authorization.k8s.io/v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews", namespaced=False)

WORKLOADS = (DEPLOYMENT, STATEFUL_SET, DAEMON_SET)


@dataclass(frozen=True, slots=True)
class Listing:
    items: list[Document]
    version: str
    """The resourceVersion of the whole."""


class ApiError(Exception):
    """The API server refused, failed, or did not answer (`status` 0)."""

    def __init__(self, status: int, detail: str) -> None:
        self.status = status
        super().__init__(detail)


class NotFound(ApiError):
    """There is no such object (or no such namespace)."""


class Conflict(ApiError):
    """The object exists already, has changed meanwhile, or a `test` of a patch did not hold."""


class Forbidden(ApiError):
    """RBAC or an admission plugin says no."""


class NotTheWriter(Exception):
    """A write was asked for by a process that does not (any more) hold the writer's role: nothing was written."""


_BY_STATUS: Mapping[int, type[ApiError]] = {403: Forbidden, 404: NotFound, 409: Conflict}


def _plain(client: Any, data: Any) -> Any:
    return data


class Api:
    """Requests to one API server. Every method raises ApiError; those that write raise NotTheWriter, if guarded."""

    def __init__(self, client: kubernetes_client.ApiClient, *, may_write: Callable[[], bool] = lambda: True) -> None:
        self.client = client
        """For those who watch."""
        self._may_write = may_write
        self._dynamic = DynamicClient(client)  # type: ignore[no-untyped-call]  # kubernetes has no types

    def guarded(self, may_write: Callable[[], bool]) -> Api:
        """The same, but each write is preceded by the question whether it may be."""
        return Api(self.client, may_write=may_write)

    async def get(self, kind: Kind, name: str, namespace: str | None = None) -> Document:
        document: Document = await self._call(kind, "get", name=name, namespace=namespace)
        return document

    async def list(self, kind: Kind, namespace: str | None = None, *, labels: str | None = None) -> Listing:
        """All objects as of now, with `kind` and `apiVersion` in each (a LIST leaves them out)."""
        found: list[Document] = []
        token: str | None = None
        while True:
            page = await self._call(kind, "get", namespace=namespace, label_selector=labels, limit=500, _continue=token)
            found += ({"apiVersion": kind.api_version, "kind": kind.kind} | item for item in page.get("items") or ())
            metadata = page.get("metadata") or {}
            token = metadata.get("continue")
            if not token:
                return Listing(found, str(metadata.get("resourceVersion") or ""))

    async def create(self, kind: Kind, document: Document) -> Document:
        namespace = (document.get("metadata") or {}).get("namespace")
        created: Document = await self._call(
            kind, "create", body=document, namespace=namespace, field_manager=FIELD_MANAGER
        )
        return created

    async def replace(self, kind: Kind, document: Document) -> Document:
        """Writes the whole object; Conflict where its resourceVersion is no longer the newest."""
        metadata = document["metadata"]
        replaced: Document = await self._call(
            kind,
            "replace",
            body=document,
            name=metadata["name"],
            namespace=metadata.get("namespace"),
            field_manager=FIELD_MANAGER,
        )
        return replaced

    async def apply(self, kind: Kind, document: Document, *, subresource: str | None = None) -> Document:
        """Server-side apply: what the document has is ours, what it no longer has goes, nothing else is touched."""
        metadata = document["metadata"]
        applied: Document = await self._call(
            kind,
            "server_side_apply",
            subresource=subresource,
            body={"apiVersion": kind.api_version, "kind": kind.kind} | document,
            name=metadata["name"],
            namespace=metadata.get("namespace"),
            field_manager=FIELD_MANAGER,
            force_conflicts="true",
        )
        return applied

    async def patch(
        self, kind: Kind, patch: Sequence[Document] | Document, name: str, namespace: str | None = None
    ) -> Document:
        """A JSON patch where a list is given, else a strategic merge patch."""
        kind_of_patch = "strategic-merge-patch" if isinstance(patch, dict) else "json-patch"
        patched: Document = await self._call(
            kind,
            "patch",
            body=patch,
            name=name,
            namespace=namespace,
            content_type=f"application/{kind_of_patch}+json",
            field_manager=FIELD_MANAGER,
        )
        return patched

    async def delete(self, kind: Kind, name: str, namespace: str | None = None, *, uid: str | None = None) -> None:
        """Deletes the object, if it is still the one of this uid; one that is gone already is no error."""
        body = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}
        try:
            await self._call(
                kind,
                "delete",
                name=name,
                namespace=namespace,
                body=body | ({"preconditions": {"uid": uid}} if uid else {}),
            )
        except NotFound:
            return

    async def _call(self, kind: Kind, verb: str, *, subresource: str | None = None, **arguments: Any) -> Any:
        part = {"kind": kind.kind, "name": f"{kind.plural}/{subresource}", "namespaced": kind.namespaced}
        resource = Resource(  # type: ignore[no-untyped-call]  # kubernetes has no types
            prefix="apis" if kind.group else "api",
            group=kind.group,
            api_version=kind.api_version.rpartition("/")[2],
            kind=kind.kind,
            namespaced=kind.namespaced,
            name=kind.plural,
            client=self._dynamic,
            subresources={subresource: part} if subresource else None,
        )
        target = getattr(resource, subresource) if subresource else resource
        reads = verb == "get" or kind is ACCESS_REVIEW
        if not reads and not self._may_write():
            raise NotTheWriter
        timeout_s = READ_TIMEOUT_S if reads else WRITE_TIMEOUT_S
        try:
            return await getattr(target, verb)(**arguments, serializer=_plain, _request_timeout=timeout_s)
        except DynamicApiError as error:
            raise _BY_STATUS.get(error.status, ApiError)(error.status, _summary(error)) from error
        except ApiException as error:
            raise _BY_STATUS.get(error.status, ApiError)(error.status, str(error.reason)) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ApiError(0, f"the API server does not answer: {error or type(error).__name__}") from error


def _summary(error: DynamicApiError) -> str:
    try:
        return str(error.summary())  # type: ignore[no-untyped-call]  # kubernetes has no types
    except ValueError:
        return f"{error.status} {error.reason}"


def in_cluster() -> bool:
    return "KUBERNETES_SERVICE_HOST" in os.environ


async def configured(kubeconfig: str | None = None) -> kubernetes_client.Configuration:
    """The cluster of the pod, or outside of one that of the kubeconfig (the one named, $KUBECONFIG, ~/.kube/config).

    Raises ApiError where there is none.
    """
    configuration = kubernetes_client.Configuration()
    try:
        if kubeconfig is None and in_cluster():
            load: Any = kubernetes_config.load_incluster_config
            load(client_configuration=configuration)
        else:
            load = kubernetes_config.load_kube_config
            await load(config_file=kubeconfig or os.environ.get("KUBECONFIG"), client_configuration=configuration)
    except kubernetes_config.ConfigException as error:
        raise ApiError(0, f"no cluster: neither in a pod nor by a kubeconfig: {error}") from error
    return configuration


@asynccontextmanager
async def connect(kubeconfig: str | None = None) -> AsyncIterator[Api]:
    async with kubernetes_client.ApiClient(await configured(kubeconfig)) as client:
        yield Api(client)
