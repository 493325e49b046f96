"""The injector as its Deployment runs it: a process of its own, known to a real API server as a webhook."""

from __future__ import annotations

import asyncio
import base64
import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from apiserver import ApiServer
from kube_http import KubeHttp
from pulsecache_operator.certificates import Material
from webhook import certificate, secret

OPERATOR_NAMESPACE = "pulsecache-system"
CRD = Path(__file__).resolve().parents[2] / "crds" / "cachepolicies.pulsecache.dev.yaml"
WEBHOOKS = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
SECRETS = f"/api/v1/namespaces/{OPERATOR_NAMESPACE}/secrets"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@dataclass
class InjectorProcess:
    server: ApiServer
    log: Path
    webhook_port: int
    health_port: int
    process: subprocess.Popen[bytes] | None = None

    def start(self, **environment: str) -> None:
        settings = {
            "PULSECACHE_NAMESPACE": OPERATOR_NAMESPACE,
            "PULSECACHE_SIDECAR_IMAGE": "registry.example/pulsecache-sidecar:1",
            "PULSECACHE_WEBHOOK_LISTEN": f"127.0.0.1:{self.webhook_port}",
            "PULSECACHE_HEALTH_LISTEN": f"127.0.0.1:{self.health_port}",
            "KUBECONFIG": str(self.server.kubeconfig),
        }
        inherited = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pulsecache_operator", "injector"],
                env=inherited | settings | environment,
                stdout=log,
                stderr=log,
            )

    def end(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)

    async def get(self, path: str) -> tuple[int, str]:
        """Of the health port; 0 when nobody listens."""
        try:
            url = f"http://127.0.0.1:{self.health_port}{path}"
            async with aiohttp.ClientSession() as session, session.get(url) as response:
                return response.status, await response.text()
        except aiohttp.ClientError as error:
            return 0, str(error)

    async def until_ready(self, *, ready: bool = True, within_s: float = 30.0) -> str:
        """Returns what /readyz says at last."""
        deadline = time.monotonic() + within_s
        while True:
            status, text = await self.get("/readyz")
            if status == (200 if ready else 503):
                return text
            assert self.process is not None
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, f"{text}\n{self.log.read_text()}"
            await asyncio.sleep(0.02)

    async def metric(self, name: str, **labels: str) -> float:
        _, text = await self.get("/metrics")
        wanted = name + ("{" + ",".join(f'{k}="{v}"' for k, v in labels.items()) + "}" if labels else "")
        for line in text.splitlines():
            if line.startswith(wanted + " "):
                return float(line.split()[-1])
        return 0.0


def install_crd(kube: KubeHttp) -> None:
    document = yaml.safe_load(CRD.read_text())
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    status, answer = kube.request("POST", path, document)
    assert status in (201, 409), answer
    deadline = time.monotonic() + 20
    # Established comes before the resource is served everywhere.
    while kube.request("GET", "/apis/pulsecache.dev/v1alpha1/cachepolicies")[0] != 200:
        assert time.monotonic() < deadline, "the CRD is not served"
        time.sleep(0.1)


def install_webhook(kube: KubeHttp, name: str, port: int, material: Material, path: str = "/inject") -> None:
    """As the chart does it, but by URL: there are no Services here."""
    webhook: dict[str, Any] = {
        "name": f"{name}.pulsecache.dev",
        "admissionReviewVersions": ["v1"],
        "clientConfig": {
            "url": f"https://localhost:{port}{path}",
            "caBundle": base64.b64encode(material.ca_bundle).decode(),
        },
        "failurePolicy": "Ignore",
        "timeoutSeconds": 3,
        "reinvocationPolicy": "IfNeeded",
        "matchPolicy": "Equivalent",
        "sideEffects": "NoneOnDryRun",
        "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
    }
    kube.create(WEBHOOKS, {"metadata": {"name": name}, "webhooks": [webhook]})


def put_secret(kube: KubeHttp, material: Material) -> None:
    document = secret(material)
    status, _ = kube.request("POST", SECRETS, document)
    if status == 409:
        status, _ = kube.request("PUT", f"{SECRETS}/{document['metadata']['name']}", document)
    assert status in (200, 201)


def local_certificate(before: Material | None = None) -> Material:
    return certificate(before, names=("localhost",))
