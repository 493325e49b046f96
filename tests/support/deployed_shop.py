"""The example shop on a cluster, from the outside: its Service, its pods, its policies."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from typing import Any

import yaml

from kube import ROOT, Kube, wait_for
from traffic import Answer, request

NAMESPACE = "shop"
RELEASE = "pulsecache"
REPLICAS = 3
MANIFESTS = ROOT / "examples" / "shop" / "manifests"
HOST = {"Host": "products.shop"}
VALUES = {
    "operator.image.tag": "dev",
    "sidecar.image.tag": "dev",
    "redis.image.repository": "pulsecache/redis",
    "redis.image.tag": "dev",
}


class Shop:
    def __init__(self, kube: Kube) -> None:
        self.kube = kube
        self.url = ""

    # --- bringing it up --------------------------------------------------------------------------------------------

    def install(self, *extra: str) -> None:
        """The operator by its chart."""
        values = [word for name, value in VALUES.items() for word in ("--set", f"{name}={value}")]
        self.kube.helm(
            "upgrade", "--install", RELEASE, str(ROOT / "charts" / "pulsecache"), "-n", RELEASE,
            "--create-namespace", "--wait", "--timeout=180s", *values, *extra,
        )  # fmt: skip

    def deploy(self) -> None:
        """The workloads, without any policy."""
        for file in sorted(MANIFESTS.glob("*.yaml")):
            self.kube.apply(file)
        self.kube.rolled_out("statefulset", "postgres", NAMESPACE)
        for name in ("products", "storefront", "prometheus"):
            self.kube.rolled_out("deployment", name, NAMESPACE)
        self.url = f"http://{self.kube.get('service', 'products', NAMESPACE)['spec']['clusterIP']}"

    # --- policies --------------------------------------------------------------------------------------------------

    def policy(self, name: str = "products") -> dict[str, Any]:
        """The manifest as the example has it."""
        found: dict[str, Any] = yaml.safe_load((MANIFESTS / "policies" / f"{name}.yaml").read_text())
        return found

    def with_spec(self, name: str = "products", **changes: Any) -> dict[str, Any]:
        """The example's manifest with parts of the spec merged in."""
        document = copy.deepcopy(self.policy(name))
        _merge(document["spec"], changes)
        return document

    def status(self, name: str = "products") -> dict[str, Any]:
        found: dict[str, Any] = self.kube.get("cachepolicy", name, NAMESPACE).get("status", {})
        return found

    def condition(self, kind: str, name: str = "products") -> dict[str, Any] | None:
        return next((c for c in self.status(name).get("conditions", []) if c["type"] == kind), None)

    def apply_policy(self, document: Mapping[str, Any], *, timeout_s: float = 120) -> None:
        """Applies and waits until every pod runs this generation."""
        self.kube.apply(document)
        name = document["metadata"]["name"]
        generation = self.kube.get("cachepolicy", name, NAMESPACE)["metadata"]["generation"]
        wait_for(f"policy {name} in force", lambda: self._in_force(name, generation), timeout_s=timeout_s)

    def _in_force(self, name: str, generation: int) -> bool:
        status = self.status(name)
        pods = status.get("pods", {})
        return (
            status.get("observedGeneration") == generation
            and pods.get("selected", 0) > 0
            and pods.get("selected") == pods.get("injected") == pods.get("inSync")
        )

    def confirmed(self, *, timeout_s: float = 60) -> None:
        """Waits until all three replicas of products are Ready, and each sidecar says that its dataset is confirmed."""
        wait_for("confirmed", lambda: self.states() == ["confirmed"] * REPLICAS, timeout_s=timeout_s)

    def states(self, app: str = "products") -> list[str]:
        return [report["datasets"][0]["state"] for report in self.reports(app) if report["datasets"]]

    def reports(self, app: str = "products") -> list[dict[str, Any]]:
        return [
            request("GET", f"http://{pod['status']['podIP']}:15090/-/staleness", timeout_s=5).json
            for pod in self.pods(app)
        ]

    # --- pods and requests -----------------------------------------------------------------------------------------

    def pods(self, app: str = "products") -> list[dict[str, Any]]:
        return self.kube.ready_pods(NAMESPACE, f"app.kubernetes.io/name={app}")

    def sidecars(self) -> list[str]:
        """Addresses of the sidecars' data port, one per replica."""
        return [f"http://{pod['status']['podIP']}:15080" for pod in self.pods()]

    def get(self, path: str, base: str | None = None, **headers: str) -> Answer:
        sent = {**HOST, **{name.replace("_", "-"): value for name, value in headers.items()}}
        return request("GET", (base or self.url) + path, headers=sent)

    def put(self, number: int, price: str, base: str | None = None) -> Answer:
        body = {"name": f"Product {number}", "price": price, "description": "changed"}
        return request("PUT", f"{base or self.url}/products/{number}", body, headers=HOST)

    def view(self, number: int, seq: int, base: str | None = None) -> Answer:
        return request("POST", f"{base or self.url}/products/{number}/views", {"seq": seq}, headers=HOST)

    def stop_database(self) -> None:
        self.kube.exec(NAMESPACE, "postgres-0", "sh", "/scripts/stop.sh")

    def start_database(self) -> None:
        self.kube.exec(NAMESPACE, "postgres-0", "sh", "/scripts/start.sh")

    def query(self, sql: str) -> str:
        """A query in the database itself, past everything."""
        return self.kube.exec(
            NAMESPACE, "postgres-0", "/usr/lib/postgresql/15/bin/psql", "-h", "/tmp", "-U", "shop", "-d", "shop",
            "-AtX", "-c", sql,
        ).strip()  # fmt: skip

    def redis(self, up: bool) -> None:
        self.kube.scale("statefulset", "pulsecache-redis", RELEASE, int(up))
        if up:
            self.kube.rolled_out("statefulset", "pulsecache-redis", RELEASE)
        else:
            wait_for(
                "Redis gone",
                lambda: not self.kube.items("pods", RELEASE, "app.kubernetes.io/component=redis"),
                timeout_s=60,
            )


def _merge(into: dict[str, Any], changes: Mapping[str, Any]) -> None:
    for name, value in changes.items():
        if isinstance(value, Mapping) and isinstance(into.get(name), dict):
            _merge(into[name], value)
        elif value is None:
            into.pop(name, None)
        else:
            into[name] = value


def elapsed(since: float) -> float:
    return time.monotonic() - since
