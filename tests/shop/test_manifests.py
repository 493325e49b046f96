"""The shop's manifests fit each other, its scripts work, and its policies are about requests that the service knows."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from postgres_server import program, unprivileged
from pulsecache_policy.model import CachePolicy, TargetRef, WhenExceeded, Writers
from pulsecache_policy.parse import parse_policy
from shop import products, targets
from shop_world import Serve as Serve  # makes `import shop` work

ROOT = Path(__file__).resolve().parents[2]
MANIFESTS = ROOT / "examples" / "shop" / "manifests"
DOCUMENTS: list[dict[str, Any]] = [
    d for path in sorted(MANIFESTS.glob("*.yaml")) for d in yaml.safe_load_all(path.read_text()) if d
]


def named(kind: str, name: str) -> dict[str, Any]:
    (found,) = (d for d in DOCUMENTS if d["kind"] == kind and d["metadata"]["name"] == name)
    return found


def policy(name: str) -> CachePolicy:
    return parse_policy(yaml.safe_load((MANIFESTS / "policies" / f"{name}.yaml").read_text()))


# --- manifests -------------------------------------------------------------------------------------------------


def test_every_service_has_a_named_port_of_its_pods() -> None:
    """Only a named one can be taken over by a sidecar."""
    services = [d for d in DOCUMENTS if d["kind"] == "Service"]
    assert {s["metadata"]["name"] for s in services} == {"postgres", "products", "storefront", "prometheus"}
    for service in services:
        (workload,) = (
            d
            for d in DOCUMENTS
            if d["kind"] in ("Deployment", "StatefulSet")
            and service["spec"]["selector"].items() <= d["spec"]["template"]["metadata"]["labels"].items()
        )
        names = {p["name"] for c in workload["spec"]["template"]["spec"]["containers"] for p in c.get("ports", [])}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= names


def test_health_checks_and_named_things_exist() -> None:
    app = products.application(database="sqlite:///unused", query_delay_s=0, cache_control=None)
    routes = {resource.canonical for resource in app.router.resources()}
    (container,) = named("Deployment", "products")["spec"]["template"]["spec"]["containers"]
    for probe in ("livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["path"] in routes
    secret = named("Secret", "database")["stringData"]
    for document in DOCUMENTS:
        text = yaml.safe_dump(document)
        for key in re.findall(r"secretKeyRef:\s+key: (\w+)\s+name: database", text):
            assert key in secret


def test_the_database_url_is_that_of_the_database() -> None:
    secret = named("Secret", "database")["stringData"]
    assert secret["url"] == f"postgresql://shop:{secret['password']}@postgres.shop.svc:5432/shop"


def test_prometheus_takes_its_configuration(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is missing: install the package prometheus")
    file = tmp_path / "prometheus.yml"
    file.write_text(named("ConfigMap", "prometheus")["data"]["prometheus.yml"])
    done = subprocess.run([promtool, "check", "config", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_targets_are_the_pods_that_run() -> None:
    def pod(name: str, ip: str | None, phase: str = "Running", **labels: str) -> dict[str, Any]:
        return {
            "metadata": {"name": name, "namespace": "shop", "labels": labels},
            "status": {"phase": phase} | ({"podIP": ip} if ip else {}),
        }

    found = targets.target_groups(
        {
            "items": [
                pod("a", "10.0.0.1"),
                pod("b", "fd00::2", **{"app.kubernetes.io/component": "injector"}),
                pod("new", None, "Pending"),
                pod("old", "10.0.0.3", "Succeeded"),
            ]
        },
        port=15090,
    )
    assert found == [
        {"targets": ["10.0.0.1:15090"], "labels": {"namespace": "shop", "pod": "a"}},
        {"targets": ["[fd00::2]:15090"], "labels": {"namespace": "shop", "pod": "b", "component": "injector"}},
    ]


# --- policies --------------------------------------------------------------------------------------------------


def test_policies_are_valid_and_share_one_dataset() -> None:
    server_side, client_side = policy("products"), policy("storefront")
    assert server_side.dataset == client_side.dataset == "shop/products"
    assert isinstance(server_side.placement, TargetRef)
    ports = named("Service", server_side.placement.name)["spec"]["ports"]
    assert server_side.placement.section_name in {port["name"] for port in ports}
    for each in (server_side, client_side):
        assert each.staleness.writers is Writers.ALL
        assert each.redis
    assert server_side.staleness.when_exceeded is WhenExceeded.REVALIDATE
    assert client_side.staleness.when_exceeded is WhenExceeded.SERVE_STALE


def test_the_demonstration_need_not_wait_long() -> None:
    for name in ("products", "storefront"):
        staleness = policy(name).staleness
        assert staleness.max_s <= 5
        assert staleness.settle_s <= 5
        # so that `unconfirmed` can be seen before `exceeded`
        assert staleness.heartbeat.interval_s * staleness.heartbeat.failure_threshold < staleness.max_s


def test_every_rule_is_about_requests_that_the_service_answers() -> None:
    app = products.application(database="sqlite:///unused", query_delay_s=0, cache_control=None)
    known = {(route.method, route.resource.canonical) for route in app.router.routes() if route.resource is not None}
    for name in ("products", "storefront"):
        read = policy(name)
        matches = [rule.match for rule in read.reads] + [rule.match for rule in read.writes]
        assert {(method, match.path) for match in matches for method in match.methods} <= known


def test_the_storefront_is_pointed_at_the_variable_that_it_reads() -> None:
    (container,) = named("Deployment", "storefront")["spec"]["template"]["spec"]["containers"]
    given = {variable["name"]: variable["value"] for variable in container["env"]}
    placement = policy("storefront").placement
    assert not isinstance(placement, TargetRef)
    assert {name: given[name] for name in placement.env} == {"PRODUCTS_URL": placement.upstream}
    labels = named("Deployment", "storefront")["spec"]["template"]["metadata"]["labels"]
    assert set(placement.match_labels) <= set(labels.items())


# --- the database's scripts ------------------------------------------------------------------------------------


@pytest.fixture
def pod(tmp_path: Path) -> Iterator[dict[str, str]]:
    """run.sh as the container runs it, with folders and a port of this machine. The environment for the others."""
    if program("postgres") is None:
        pytest.skip("PostgreSQL is missing: install the package postgresql")
    identity = unprivileged()
    # pytest's own folders are closed to other users
    folder = Path(f"/tmp/pulsecache-pod-{os.getpid()}-{time.monotonic_ns()}")
    folder.mkdir()
    if identity:
        os.chown(folder, identity["user"], identity["group"])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    for name, text in named("ConfigMap", "postgres-scripts")["data"].items():
        for there, here in (
            ("--host=/tmp", f"--host={folder} --port={port}"),
            ("unix_socket_directories=/tmp", f"unix_socket_directories={folder} -c port={port}"),
            ("/tmp/password", f"{folder}/password"),
        ):
            text = text.replace(there, here)
        (folder / name).write_text(text)
    environment = {
        "PATH": os.environ["PATH"],
        "PGDATA": f"{folder}/data",
        "POSTGRES_PASSWORD": "secret",
        "FOLDER": str(folder),
        "URL": f"postgresql://shop:secret@127.0.0.1:{port}/shop",
    }
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            ["sh", str(folder / "run.sh")], env=environment, stdout=log, stderr=log, cwd=folder, **identity
        )
    try:
        yield environment
    finally:
        process.terminate()
        assert process.wait(15) == 0, "SIGTERM ends it cleanly"
        shutil.rmtree(folder)


def script(pod: dict[str, str], name: str) -> str:
    command = ["sh", f"{pod['FOLDER']}/{name}.sh"]
    done: subprocess.CompletedProcess[str] = subprocess.run(
        command, env=pod, cwd=pod["FOLDER"], capture_output=True, text=True, timeout=30, check=False, **unprivileged()
    )
    assert done.returncode == 0, done.stderr + Path(pod["FOLDER"], "log").read_text()[-3000:]
    return done.stdout


def sql(pod: dict[str, str], statement: str) -> str | None:
    """None while the database does not answer."""
    command = ["psql", pod["URL"], "-tA", "-c", statement]
    done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def test_the_database_can_be_taken_away_and_brought_back(pod: dict[str, str]) -> None:
    deadline, pause = time.monotonic() + 30, threading.Event()
    while sql(pod, "SELECT 1") is None:
        assert time.monotonic() < deadline, Path(pod["FOLDER"], "log").read_text()
        pause.wait(0.1)
    assert sql(pod, "CREATE TABLE kept AS SELECT 42 AS answer") is not None
    for _ in range(2):
        script(pod, "stop")
        assert sql(pod, "SELECT 1") is None
        assert "answers" in script(pod, "start")
        assert sql(pod, "SELECT answer FROM kept") == "42"
    assert sql(pod, "SHOW password_encryption") == "scram-sha-256"
    wrong = pod | {"URL": pod["URL"].replace("secret", "guessed")}
    assert sql(wrong, "SELECT 1") is None
