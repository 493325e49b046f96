"""The injector's process as a webhook of the real API server: pods go in by POST and come out with a sidecar."""

from __future__ import annotations

import asyncio
import base64
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from apiserver import ApiServer, api_server
from injector_process import (
    OPERATOR_NAMESPACE,
    WEBHOOKS,
    InjectorProcess,
    free_port,
    install_crd,
    install_webhook,
    local_certificate,
    put_secret,
)
from kube_http import KubeHttp
from kube_watch import kill_and_restart
from pods import pod
from pulsecache_operator.certificates import Material
from pulsecache_operator.injector.tls import Certificate
from webhook import secret

pytestmark = [pytest.mark.api, pytest.mark.timeout(240)]

WEBHOOK = "apulsecache-injector"
POLICIES = "/apis/pulsecache.dev/v1alpha1/namespaces/shop/cachepolicies"
SERVICES = "/api/v1/namespaces/shop/services"
PODS = "/api/v1/namespaces/shop/pods"
EVENTS = "/api/v1/namespaces/shop/events"


def policy(name: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "pulsecache.dev/v1alpha1",
        "kind": "CachePolicy",
        "metadata": {"name": name},
        "spec": {"targetRef": {"kind": "Service", "name": name, "sectionName": "http"}} | spec,
    }


def service(name: str, target: Any = "http") -> dict[str, Any]:
    port = {"name": "http", "port": 80, "targetPort": target}
    return {"metadata": {"name": name}, "spec": {"selector": {"app": name}, "ports": [port]}}


def pod_of(app: str, **more: Any) -> dict[str, Any]:
    made = pod(**more)
    made["metadata"] = {"generateName": f"{app}-", "labels": {"app": app}}
    return made


def has_sidecar(pod: dict[str, Any]) -> bool:
    return [c["name"] for c in pod["spec"].get("initContainers", [])] == ["pulsecache"]


class Installation:
    """What the chart installs, and an injector that tests start and end."""

    def __init__(self, server: ApiServer, folder: Path) -> None:
        self.server = server
        self.kube = KubeHttp(server)
        self.material = local_certificate()
        self.injector = InjectorProcess(server, folder / "injector.log", free_port(), free_port())

    def install(self) -> None:
        for name in (OPERATOR_NAMESPACE, "shop"):
            self.kube.create("/api/v1/namespaces", {"metadata": {"name": name}})
        install_crd(self.kube)
        install_webhook(self.kube, WEBHOOK, self.injector.webhook_port, self.material)

    def clean(self) -> None:
        """As `install` left it, for the next test."""
        self.injector.end()
        self.injector.log.unlink(missing_ok=True)
        for collection in (POLICIES, SERVICES, EVENTS, PODS, f"/api/v1/namespaces/{OPERATOR_NAMESPACE}/secrets"):
            self.kube.delete(f"{collection}?gracePeriodSeconds=0")

    def close(self) -> None:
        self.injector.end()
        self.kube.__exit__()

    async def until(self, condition: Callable[[], bool], what: str, within_s: float = 10.0) -> float:
        """How long it took. For conditions that ask the API server: not more often than they can be answered."""
        started = time.monotonic()
        while not condition():
            assert time.monotonic() - started < within_s, f"{what}\n{self.injector.log.read_text()[-4000:]}"
            await asyncio.sleep(0.02)
        return time.monotonic() - started

    def dry_run(self, pod: dict[str, Any]) -> dict[str, Any]:
        made: dict[str, Any] = self.kube.create(f"{PODS}?dryRun=All", pod)
        return made


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with api_server() as server:
        here = Installation(server, tmp_path_factory.mktemp("injector"))
        try:
            here.install()
            yield here
        finally:
            here.close()


@pytest.fixture
def installed(installation: Installation) -> Iterator[Installation]:
    put_secret(installation.kube, installation.material)
    yield installation
    installation.clean()


async def test_from_policy_to_pod(installed: Installation) -> None:
    kube, injector = installed.kube, installed.injector
    injector.start()
    await injector.until_ready()
    assert not has_sidecar(installed.dry_run(pod_of("products")))
    kube.create(SERVICES, service("products"))
    kube.create(POLICIES, policy("products"))
    delay_s = await installed.until(lambda: has_sidecar(installed.dry_run(pod_of("products"))), "a sidecar")
    assert delay_s < 2.0
    made = kube.create(PODS, pod_of("products"))
    assert has_sidecar(made)
    assert made["metadata"]["labels"]["pulsecache.dev/injected"] == "true"
    assert [port["containerPort"] for port in made["spec"]["containers"][0]["ports"]] == [15080, 8080]
    assert not has_sidecar(kube.create(PODS, pod_of("other")))
    assert await injector.metric("pulsecache_webhook_requests_total", reason="", result="injected") >= 2

    # A pod of the namespace opts out, then the whole namespace.
    out = pod_of("products")
    out["metadata"]["labels"]["pulsecache.dev/inject"] = "false"
    assert not has_sidecar(kube.create(PODS, out))
    merge = "application/merge-patch+json"
    kube.request(
        "PATCH", "/api/v1/namespaces/shop", {"metadata": {"labels": {"pulsecache.dev/inject": "false"}}}, merge
    )
    await installed.until(lambda: not has_sidecar(installed.dry_run(pod_of("products"))), "the opt-out")
    kube.request("PATCH", "/api/v1/namespaces/shop", {"metadata": {"labels": {"pulsecache.dev/inject": None}}}, merge)
    await installed.until(lambda: has_sidecar(installed.dry_run(pod_of("products"))), "the end of the opt-out")

    # The Service changes, and the policy goes.
    kube.request("PATCH", f"{SERVICES}/products", {"spec": {"selector": {"app": "other"}}}, merge)
    await installed.until(lambda: has_sidecar(installed.dry_run(pod_of("other"))), "the new selector")
    kube.delete(f"{POLICIES}/products")
    await installed.until(lambda: not has_sidecar(installed.dry_run(pod_of("other"))), "the deletion")
    # A manifest that was copied from an injected pod, of a policy that is gone.
    copied = {"metadata": {"name": "copy"} | {k: made["metadata"][k] for k in ("labels", "annotations")}}
    again = kube.create(PODS, copied | {"spec": made["spec"]})
    assert "initContainers" not in again["spec"]
    assert [port["containerPort"] for port in again["spec"]["containers"][0]["ports"]] == [8080]


async def test_pods_that_get_none_are_told_of_by_an_event_but_not_on_a_dry_run(installed: Installation) -> None:
    kube, injector = installed.kube, installed.injector
    kube.create(SERVICES, service("products"))
    kube.create(POLICIES, policy("products"))
    injector.start()
    await injector.until_ready()

    def events() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = kube.request("GET", EVENTS)[1]["items"]
        return found

    installed.dry_run(pod_of("products", hostNetwork=True))
    assert "the pod uses the node's network" in kube.warnings[0]
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "products-1", "uid": "u", "controller": True}
    for _ in range(3):
        owned = pod_of("products", hostNetwork=True)
        owned["metadata"]["ownerReferences"] = [owner]
        assert "initContainers" not in kube.create(PODS, owned)["spec"]
    await installed.until(lambda: len(events()) == 1, "one Event")
    (event,) = events()
    assert event["involvedObject"]["name"] == "products-1"
    assert (event["reason"], event["type"]) == ("InjectionSkipped", "Warning")
    assert "host-network" in event["message"]
    kube.create(PODS, pod_of("products", hostNetwork=True))
    await installed.until(lambda: len(events()) == 2, "one of the policy, for a pod that a person made")
    assert {e["involvedObject"]["kind"] for e in events()} == {"ReplicaSet", "CachePolicy"}


async def test_it_is_not_ready_before_it_knows_everything(installed: Installation) -> None:
    installed.kube.delete(f"/api/v1/namespaces/{OPERATOR_NAMESPACE}/secrets/pulsecache-webhook-tls")
    installed.injector.start()
    text = await installed.injector.until_ready(ready=False)
    assert "[-] certificate: none yet" in text
    assert (await installed.injector.get("/livez"))[0] == 200
    await installed.until(lambda: "no Secret with a certificate yet" in installed.injector.log.read_text(), "the log")
    # Nobody listens, and pods start as if there were no webhook.
    assert not has_sidecar(installed.kube.create(PODS, pod_of("products")))
    put_secret(installed.kube, installed.material)
    text = await installed.injector.until_ready()
    assert text == (
        "[+] certificate: ok\n[+] cachepolicies: ok\n[+] services: ok\n[+] namespaces: ok\n[+] serving: ok\nok\n"
    )


async def test_without_the_crd_it_waits(tmp_path: Path) -> None:
    with api_server() as server:
        here = Installation(server, tmp_path)
        here.kube.create("/api/v1/namespaces", {"metadata": {"name": OPERATOR_NAMESPACE}})
        put_secret(here.kube, here.material)
        here.injector.start()
        try:
            assert "[-] cachepolicies: not listed yet" in await here.injector.until_ready(ready=False)
            await here.until(lambda: "cachepolicies was interrupted: 404" in here.injector.log.read_text(), "the log")
            install_crd(here.kube)
            await here.injector.until_ready()
        finally:
            here.close()


async def test_killed_pods_still_start_and_the_next_one_injects_again(installed: Installation) -> None:
    kube, injector = installed.kube, installed.injector
    kube.create(SERVICES, service("products"))
    kube.create(POLICIES, policy("products"))
    injector.start()
    await injector.until_ready()
    assert has_sidecar(kube.create(PODS, pod_of("products")))
    injector.end()
    assert not has_sidecar(kube.create(PODS, pod_of("products")))
    injector.start()
    await injector.until_ready()
    assert has_sidecar(kube.create(PODS, pod_of("products")))


async def test_asked_to_stop_under_load_it_fails_no_pod_and_ends_well(installed: Installation) -> None:
    kube, injector = installed.kube, installed.injector
    kube.create(SERVICES, service("products"))
    kube.create(POLICIES, policy("products"))
    injector.start()
    await injector.until_ready()
    stopped = asyncio.Event()

    def create_many() -> list[bool]:
        with KubeHttp(installed.server) as own:
            found = []
            while not stopped.is_set():
                found.append(has_sidecar(own.create(f"{PODS}?dryRun=All", pod_of("products"))))
            return found

    creators = [asyncio.create_task(asyncio.to_thread(create_many)) for _ in range(4)]
    seen = await injector.metric("pulsecache_webhook_requests_total", result="injected", reason="")
    deadline = time.monotonic() + 20
    while seen < 100:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
        seen = await injector.metric("pulsecache_webhook_requests_total", reason="", result="injected")
    assert injector.process is not None
    injector.process.terminate()
    assert await asyncio.to_thread(injector.process.wait, 20) == 0
    stopped.set()
    found = [pod for created in await asyncio.gather(*creators) for pod in created]
    assert found.count(True) >= 100
    log = injector.log.read_text()
    assert "Traceback" not in log, log
    assert '"message": "stopped"' in log


async def test_a_new_certificate_is_taken_while_reviews_go_on(installed: Installation) -> None:
    kube, injector = installed.kube, installed.injector
    kube.create(SERVICES, service("products"))
    kube.create(POLICIES, policy("products"))
    injector.start()
    await injector.until_ready()
    expiry = await injector.metric("pulsecache_certificate_expiry_timestamp_seconds")
    assert expiry > time.time()

    async def served() -> Any:
        context = ssl.create_default_context(cadata=installed.material.ca_bundle.decode())
        _, writer = await asyncio.open_connection("localhost", injector.webhook_port, ssl=context)
        writer.close()
        return writer.get_extra_info("peercert")["serialNumber"]

    before = await served()
    put_secret(kube, local_certificate(installed.material))
    deadline = time.monotonic() + 10
    while await served() == before:
        assert time.monotonic() < deadline
        assert has_sidecar(installed.dry_run(pod_of("products")))
    assert has_sidecar(installed.dry_run(pod_of("products")))


async def test_while_the_api_server_restarts_it_stays_ready_and_then_follows(installed: Installation) -> None:
    installed.kube.create(SERVICES, service("products"))
    installed.injector.start()
    await installed.injector.until_ready()
    await kill_and_restart(installed.server)
    assert (await installed.injector.get("/readyz"))[0] == 200
    installed.kube.__exit__()
    installed.kube = KubeHttp(installed.server)
    installed.kube.create(POLICIES, policy("products"))
    # Back-off has grown meanwhile, to its limit at worst.
    await installed.until(lambda: has_sidecar(installed.dry_run(pod_of("products"))), "a sidecar", within_s=30)
    age = await installed.injector.metric("pulsecache_watch_last_event_age_seconds", resource="cachepolicies")
    assert age < 30


async def test_another_webhook_that_breaks_the_sidecar_is_answered_by_mending_it(installed: Installation) -> None:
    """One that was built before native sidecars decodes the pod, drops what it does not know, and sends the rest."""
    kube, injector = installed.kube, installed.injector
    kube.create(SERVICES, service("products"))
    kube.create(POLICIES, policy("products"))
    injector.start()
    await injector.until_ready()
    asked = []

    async def old(request: web.Request) -> web.Response:
        review = await request.json()
        spec = review["request"]["object"]["spec"]
        asked.append([c["name"] for c in spec["initContainers"]])
        # JSON patch, base64: drop restartPolicy, and put a sidecar of its own in front.
        patch = (
            '[{"op":"remove","path":"/spec/initContainers/0/restartPolicy"},'
            '{"op":"add","path":"/spec/initContainers/0","value":{"name":"mesh","image":"mesh","restartPolicy":"Always"}}]'
        )
        response = {"uid": review["request"]["uid"], "allowed": True, "patchType": "JSONPatch"}
        return web.json_response(
            {
                "apiVersion": "admission.k8s.io/v1",
                "kind": "AdmissionReview",
                "response": response | {"patch": b64(patch)},
            }
        )

    async with tls_app(old, installed.material) as port:
        install_webhook(kube, "zz-mesh", port, installed.material)
        # It is not asked again itself: then it would break the pod for good.
        path = f"{WEBHOOKS}/zz-mesh"
        patch = [{"op": "replace", "path": "/webhooks/0/reinvocationPolicy", "value": "Never"}]
        assert kube.request("PATCH", path, patch, "application/json-patch+json")[0] == 200
        await until_asked(installed, asked)
        made = await asyncio.to_thread(installed.dry_run, pod_of("products"))
        kube.delete(path)
    names = [(c["name"], c.get("restartPolicy")) for c in made["spec"]["initContainers"]]
    assert names == [("pulsecache", "Always"), ("mesh", "Always")]
    assert asked[-1] == ["pulsecache"]


async def until_asked(installed: Installation, asked: list[Any]) -> None:
    """The API server takes a moment to hear of a new webhook."""
    deadline = time.monotonic() + 15
    while not asked:
        assert time.monotonic() < deadline
        await asyncio.to_thread(installed.dry_run, pod_of("products"))


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


class tls_app:  # noqa: N801 (reads as a function)
    """One handler behind TLS; its port."""

    def __init__(self, handler: Any, material: Material) -> None:
        app = web.Application(client_max_size=8 * 1024 * 1024)
        app.router.add_post("/inject", handler)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        self._certificate = Certificate()
        self._certificate.put(secret(material))

    async def __aenter__(self) -> int:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._certificate.context).start()
        return int(self._runner.addresses[0][1])

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()


def test_it_does_without_kopf() -> None:
    program = "import sys, pulsecache_operator.injector.app; sys.exit('kopf' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], timeout=60, check=False).returncode == 0
