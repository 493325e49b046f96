"""Real controllers against a real API server: processes to start and kill, and a cluster in miniature made by hand.

There is no kubelet and no controller-manager: tests make pods and EndpointSlices themselves.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import yaml

from apiserver import ApiServer, kubectl
from controller_view import SIDECAR, pod_document
from helm import NAMESPACE, Helm
from pulsecache_operator.controller.api import (
    CACHE_POLICY,
    CONFIG_MAP,
    DEPLOYMENT,
    ENDPOINT_SLICE,
    POD,
    SERVICE,
    WEBHOOK_CONFIGURATION,
    Api,
    ApiError,
    NotFound,
    connect,
)
from pulsecache_operator.controller.facts import ROLLOUT_ANNOTATION
from pulsecache_operator.inject import inject
from pulsecache_operator.selection import Inject, plan_for
from pulsecache_policy.parse import parse_policy

Document = dict[str, Any]
T = TypeVar("T")

ROOT = Path(__file__).resolve().parents[2]
CRD = ROOT / "crds" / "cachepolicies.pulsecache.dev.yaml"


async def eventually(
    look: Callable[[], Awaitable[T]], holds: Callable[[T], bool] = bool, *, within_s: float = 20.0
) -> T:
    """Looks again and again until it holds; fails with what was seen last."""
    deadline = time.monotonic() + within_s
    while True:
        try:
            seen: Any = await look()
            if holds(seen):
                found: T = seen
                return found
        except ApiError as error:
            seen = error
        assert time.monotonic() < deadline, f"not within {within_s} s; last seen: {seen!r}"
        await asyncio.sleep(0.1)


async def throughout(look: Callable[[], Awaitable[T]], holds: Callable[[T], bool], *, for_s: float) -> None:
    """Fails if it ever does not hold within the time."""
    deadline = time.monotonic() + for_s
    while time.monotonic() < deadline:
        seen = await look()
        assert holds(seen), seen
        await asyncio.sleep(0.1)


class ControllerProcess:
    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self.log = log

    @property
    def port(self) -> int | None:
        """Of its health listener, once it listens."""
        found = re.search(r"health and metrics on port (\d+)", self.log.read_text(encoding="utf-8"))
        return int(found.group(1)) if found else None

    def logged(self) -> list[Document]:
        lines = self.log.read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    async def get(self, path: str) -> tuple[int, str]:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session,
            session.get(f"http://127.0.0.1:{self.port}{path}") as response,
        ):
            return response.status, await response.text()

    async def ready(self) -> None:
        async def look() -> int:
            assert self.process.poll() is None, self.log.read_text(encoding="utf-8")
            try:
                return (await self.get("/readyz"))[0] if self.port else 0
            except aiohttp.ClientError:
                return 0

        await eventually(look, lambda status: status == 200, within_s=40)

    async def metric(self, name: str) -> float | None:
        _, text = await self.get("/metrics")
        found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
        return float(found.group(1)) if found else None

    async def writes(self) -> bool:
        return await self.metric("pulsecache_writer") == 1

    def end(self) -> int:
        self.process.terminate()
        return self.process.wait(timeout=20)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(timeout=10)


@contextmanager
def controller(
    kubeconfig: Path, folder: Path, *, name: str = "controller", **settings: str
) -> Iterator[ControllerProcess]:
    """A controller as it runs in a pod, but for where it finds the API server."""
    log = folder / f"{name}.log"
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "HOSTNAME": name,
        "KUBECONFIG": str(kubeconfig),
        "PULSECACHE_NAMESPACE": NAMESPACE,
        "PULSECACHE_SIDECAR_IMAGE": "example/sidecar:1",
        "PULSECACHE_HEALTH_LISTEN": "127.0.0.1:0",
    } | {f"PULSECACHE_{key.upper()}": value for key, value in settings.items()}
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "pulsecache_operator", "controller"], env=environ, stdout=output, stderr=output
        )
    running = ControllerProcess(process, log)
    try:
        yield running
    finally:
        # Asked, not killed: the next one need not wait for the end of this one's lease.
        process.terminate()
        try:
            process.wait(timeout=20)
        finally:
            process.kill()
            process.wait(timeout=10)


@asynccontextmanager
async def administrator(server: ApiServer) -> AsyncIterator[Api]:
    """Requests as the cluster's administrator. The CRD is there."""
    applied = kubectl(server, "apply", "--server-side", "-f", str(CRD))
    assert applied.returncode == 0, applied.stderr
    established = kubectl(server, "wait", "--for=condition=Established", "--timeout=20s", "-f", str(CRD))
    assert established.returncode == 0, established.stderr
    async with connect(str(server.kubeconfig)) as api:
        await _exists(server, NAMESPACE)
        yield api


def service_account(server: ApiServer, helm: Helm, folder: Path, *, host: str | None = None) -> Path:
    """A kubeconfig of the controller's ServiceAccount, which may do what the chart's roles allow and nothing else.

    `host`: another address of the API server, as `https://127.0.0.1:1234`.
    """
    wanted = ("ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding")
    documents = [d for d in helm.render() if d["kind"] in wanted and d["metadata"]["name"] == "pulsecache-controller"]
    assert {d["kind"] for d in documents} == set(wanted)
    applied = kubectl(server, "apply", "-f", "-", stdin=yaml.safe_dump_all(documents))
    assert applied.returncode == 0, applied.stderr
    token = kubectl(server, "-n", NAMESPACE, "create", "token", "pulsecache-controller", "--duration=1h")
    assert token.returncode == 0, token.stderr
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": host or server.url, "certificate-authority": str(server.ca)}}],
        "users": [{"name": "u", "user": {"token": token.stdout.strip()}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    file = folder / f"kubeconfig-{'proxied' if host else 'direct'}"
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    return file


async def _exists(server: ApiServer, namespace: str) -> None:
    made = kubectl(server, "create", "namespace", namespace)
    assert made.returncode == 0 or "AlreadyExists" in made.stderr, made.stderr


class Wire:
    """What lies between a controller and its API server: it can be cut, and mended."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._open: set[asyncio.StreamWriter] = set()
        self._whole = True
        self.port = 0

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._whole:
            writer.transport.abort()
            return
        there, back = await asyncio.open_connection("127.0.0.1", self._to)
        self._open |= {writer, back}
        try:
            await asyncio.gather(_pump(reader, back), _pump(there, writer))
        finally:
            self._open -= {writer, back}
            writer.transport.abort()
            back.transport.abort()

    def cut(self) -> None:
        self._whole = False
        for writer in self._open:
            writer.transport.abort()

    def mend(self) -> None:
        self._whole = True


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while content := await reader.read(65536):
            writer.write(content)
            await writer.drain()
    except OSError:
        pass  # cut
    finally:
        writer.transport.abort()


@asynccontextmanager
async def wire(server: ApiServer) -> AsyncIterator[Wire]:
    found = Wire(int(server.url.rpartition(":")[2]))
    async with await asyncio.start_server(found._carry, "127.0.0.1", 0) as listener:
        found.port = listener.sockets[0].getsockname()[1]
        try:
            yield found
        finally:
            found.cut()


class Shop:
    """A namespace with what tests put into it."""

    def __init__(self, api: Api, server: ApiServer, namespace: str) -> None:
        self.api = api
        self.server = server
        self.namespace = namespace

    @classmethod
    async def opened(cls, api: Api, server: ApiServer, namespace: str) -> Shop:
        await _exists(server, namespace)
        return cls(api, server, namespace)

    async def put(self, kind: Any, document: Document) -> Document:
        document["metadata"]["namespace"] = self.namespace
        return await self.api.create(kind, document)

    async def policy(self, name: str = "products", **spec: Any) -> Document:
        defaults: Document = {
            "targetRef": {"kind": "Service", "name": "products", "sectionName": "http"},
            "reads": [{"name": "product", "match": {"methods": ["GET"], "path": "/products/{id}"}}],
        }
        if "consumer" in spec:
            del defaults["targetRef"]
        body = {
            "apiVersion": CACHE_POLICY.api_version,
            "kind": CACHE_POLICY.kind,
            "metadata": {"name": name},
            "spec": defaults | spec,
        }
        return await self.put(CACHE_POLICY, body)

    async def edit(self, name: str, **spec: Any) -> Document:
        patch = [{"op": "add", "path": f"/spec/{key}", "value": value} for key, value in spec.items()]
        return await self.api.patch(CACHE_POLICY, patch, name, self.namespace)

    async def service(self, name: str = "products", *, target_port: Any = "http", **port: Any) -> Document:
        ports = [{"name": "http", "port": 80, "targetPort": target_port} | port]
        spec = {"selector": {"app": name}, "ports": ports}
        return await self.put(SERVICE, {"metadata": {"name": name}, "spec": spec})

    async def deployment(self, name: str = "products", *, replicas: int = 3) -> Document:
        labels = {"app": name}
        container = {"name": "app", "image": "app:1", "ports": [{"name": "http", "containerPort": 8080}]}
        template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
        spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
        return await self.put(DEPLOYMENT, {"metadata": {"name": name}, "spec": spec})

    async def products_pod(self, name: str, *, sidecar: bool, mark: str | None = None, **more: Any) -> Document:
        """A pod of the Deployment, with the sidecar that the policies of the namespace ask for, or without."""
        pod = pod_document(name, mark=mark)
        if sidecar:
            policies = [parse_policy(found) for found in (await self.api.list(CACHE_POLICY, self.namespace)).items]
            services = (await self.api.list(SERVICE, self.namespace)).items
            decision = plan_for(pod, {"metadata": {"name": self.namespace}}, policies, services)
            assert isinstance(decision, Inject), decision
            pod = inject(pod, decision.plan, SIDECAR)
        return await self.pod(pod, **more)

    async def pod(self, document: Document, *, address: str = "10.0.0.1", phase: str = "Running") -> Document:
        """The pod, with the status that a kubelet would give it."""
        metadata = {k: v for k, v in document["metadata"].items() if k not in ("uid", "namespace")}
        for owner in metadata["ownerReferences"]:
            owner.setdefault("apiVersion", "apps/v1")
        created = await self.put(POD, {"metadata": metadata, "spec": document["spec"]})
        conditions = [{"type": "Ready", "status": "True" if phase == "Running" else "False"}]
        status = {"phase": phase, "podIP": address, "podIPs": [{"ip": address}], "conditions": conditions}
        patched = kubectl(
            self.server,
            *("-n", self.namespace, "patch", "pod", metadata["name"], "--subresource=status", "--type=merge"),
            *("-p", json.dumps({"status": status})),
        )
        assert patched.returncode == 0, patched.stderr
        return created

    async def status(self, name: str = "products") -> Document:
        found = await self.api.get(CACHE_POLICY, name, self.namespace)
        return found.get("status") or {}

    async def ready(self, name: str = "products") -> tuple[str, str, int]:
        """(status, reason, observed generation) of Ready."""
        found = await self.status(name)
        condition = next((c for c in found.get("conditions") or () if c["type"] == "Ready"), {})
        return condition.get("status", ""), condition.get("reason", ""), found.get("observedGeneration", 0)

    async def config_map(self, name: str = "products") -> Document | None:
        try:
            return await self.api.get(CONFIG_MAP, f"pulsecache-{name}", self.namespace)
        except NotFound:
            return None

    async def mark(self, name: str = "products") -> str | None:
        """The roll-out mark of the Deployment."""
        found = await self.api.get(DEPLOYMENT, name, self.namespace)
        value: str | None = (found["spec"]["template"]["metadata"].get("annotations") or {}).get(ROLLOUT_ANNOTATION)
        return value


async def webhook(api: Api, *, name: str = "apulsecache-injector") -> Document:
    """A webhook configuration as the chart makes it, which no pod of a test meets."""
    hook = {
        "name": "inject.pulsecache.dev",
        "clientConfig": {"service": {"name": "pulsecache-injector", "namespace": NAMESPACE, "path": "/inject"}},
        "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}],
        "objectSelector": {"matchLabels": {"no": "pod"}},
        "failurePolicy": "Ignore",
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "timeoutSeconds": 3,
    }
    try:
        return await api.create(WEBHOOK_CONFIGURATION, {"metadata": {"name": name}, "webhooks": [hook]})
    except ApiError:
        return await api.get(WEBHOOK_CONFIGURATION, name)


async def injector(api: Api, *, ready: bool = True) -> Document:
    """The EndpointSlice of an injector."""
    document = {
        "metadata": {
            "name": "pulsecache-injector-1",
            "namespace": NAMESPACE,
            "labels": {"kubernetes.io/service-name": "pulsecache-injector"},
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.9.9.9"], "conditions": {"ready": ready}}],
        "ports": [{"name": "https", "port": 8443, "protocol": "TCP"}],
    }
    return await api.apply(ENDPOINT_SLICE, document)
