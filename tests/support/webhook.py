"""The webhook as the API server meets it: certificates, reviews, and a client over TLS."""

from __future__ import annotations

import base64
import io
import json
import ssl
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import aiohttp
import jsonpatch

from pods import namespace
from pulsecache_operator.certificates import Material, now_utc, renew
from pulsecache_policy.model import CachePolicy

NAMES = ("pulsecache-injector.pulsecache-system.svc",)


def certificate(before: Material | None = None, now: datetime | None = None, names: Sequence[str] = NAMES) -> Material:
    """A CA and a leaf; with `before` a later leaf of the same CA."""
    if before is not None:
        before = Material(ca_bundle=before.ca_bundle, ca_key=before.ca_key)
    return renew(before or Material(), names, now or now_utc()).material


def secret(material: Material, name: str = "pulsecache-webhook-tls") -> dict[str, Any]:
    data = {key: base64.b64encode(value).decode() for key, value in material.data().items()}
    return {"metadata": {"name": name, "namespace": "pulsecache-system"}, "data": data}


def review(pod: Any, *, where: str = "shop", uid: str = "u-1", **request: Any) -> dict[str, Any]:
    return {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": uid,
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "namespace": where,
            "operation": "CREATE",
            "object": pod,
            "oldObject": None,
            "dryRun": False,
        }
        | request,
    }


def patched(pod: Any, answer: dict[str, Any]) -> Any:
    """The pod as the API server goes on with it."""
    response = answer["response"]
    assert response["allowed"] is True
    if "patch" not in response:
        return pod
    assert response["patchType"] == "JSONPatch"
    return jsonpatch.apply_patch(pod, json.loads(base64.b64decode(response["patch"])))


class Known:
    """Knowledge at hand, by hand."""

    def __init__(
        self, policies: Sequence[CachePolicy] = (), services: Sequence[Any] = (), labels: dict[str, str] | None = None
    ) -> None:
        self.policies, self.services, self.labels = list(policies), list(services), labels or {}

    def policies_of(self, namespace: str) -> Sequence[CachePolicy]:
        return [policy for policy in self.policies if policy.namespace == namespace]

    def services_of(self, namespace: str) -> Sequence[Any]:
        return self.services

    def namespace(self, name: str) -> Any:
        return namespace(name) | {"metadata": {"name": name, "labels": self.labels}}


class Caller:
    """An API server's side of the webhook: it checks the certificate by CA and name."""

    def __init__(self, port: int, material: Material, path: str = "/inject") -> None:
        context = ssl.create_default_context(cadata=material.ca_bundle.decode())
        self._url = f"https://127.0.0.1:{port}{path}"
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context), trust_env=False)

    async def __aenter__(self) -> Caller:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def ask(self, document: Any) -> dict[str, Any]:
        body = io.BytesIO(json.dumps(document).encode())
        async with self._session.post(self._url, data=body, server_hostname=NAMES[0]) as response:
            assert response.status == 200, await response.text()
            answer: dict[str, Any] = await response.json()
            return answer

    async def send(self, body: Any) -> tuple[int, str]:
        async with self._session.post(self._url, data=body, server_hostname=NAMES[0]) as response:
            return response.status, await response.text()
