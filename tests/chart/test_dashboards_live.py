"""Every expression of the dashboards gives data, in a real Prometheus that scrapes the programs' own metrics."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
import yaml
from prometheus_client import generate_latest

from dashboards import Query, queries
from pulsecache_operator.controller.metrics import Metrics as ControllerMetrics
from pulsecache_operator.injector.metrics import Metrics as InjectorMetrics
from pulsecache_sidecar.adapters.prometheus import DatasetGauges, Gauges, PolicyGauges
from pulsecache_sidecar.adapters.prometheus import Metrics as SidecarMetrics

POLICY = "shop/products"
OUTCOMES = (
    "hit",
    "miss",
    "revalidated",
    "stale",
    "pending",
    "bypass",
    "pass",
    "write",
    "write-through",
    "write-behind",
)
QUERIES = queries({"__rate_interval": "5s"})


def sidecar() -> Callable[[], bytes]:
    """A sidecar that is busier each time somebody looks."""
    gauges = Gauges(
        datasets=(DatasetGauges(POLICY, "confirmed", 5.0, 0.4, 0.3),),
        policies=(PolicyGauges(POLICY, 4, 7, 2.5, 1),),
        memory_bytes=1000,
        memory_entries=10,
        memory_limit_bytes=64000,
    )
    metrics = SidecarMetrics("0.1.0", lambda: gauges)

    def scrape() -> bytes:
        for outcome in OUTCOMES:
            metrics.request(POLICY, "product", outcome, 0.4)
        metrics.origin(POLICY, 0.06)
        metrics.hub_call("ok")
        metrics.policy_reload(POLICY, "applied")
        return metrics.exposition()

    return scrape


def injector() -> Callable[[], bytes]:
    metrics = InjectorMetrics()

    def scrape() -> bytes:
        metrics.requests.labels("injected", "").inc()
        metrics.duration.observe(0.002)
        metrics.certificate_expiry.set(time.time() + 86400)
        metrics._watch_age.labels("pods").set(1)
        return generate_latest(metrics.registry)

    return scrape


def controller() -> Callable[[], bytes]:
    metrics = ControllerMetrics()

    def scrape() -> bytes:
        metrics.policies.set(1)
        metrics.reconciles.labels("ok").inc()
        metrics.duration.observe(0.02)
        metrics.pods(POLICY, selected=3, injected=2, in_sync=2, uninjected=1)
        metrics.writer.set(1)
        return generate_latest(metrics.registry)

    return scrape


@pytest.fixture(scope="module")
def exporters() -> Iterator[int]:
    """/sidecar, /injector and /controller on one port."""
    scrapes = {"/sidecar": sidecar(), "/injector": injector(), "/controller": controller()}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = scrapes[self.path]()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the base class calls it so
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@dataclass(frozen=True)
class Prometheus:
    url: str

    def ask(self, expression: str) -> list[dict[str, object]]:
        with urlopen(f"{self.url}/api/v1/query?{urlencode({'query': expression})}", timeout=10) as answer:
            result: list[dict[str, object]] = json.load(answer)["data"]["result"]
        return result


@pytest.fixture(scope="module")
def prometheus(exporters: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("prometheus is missing: install the package prometheus")
    folder: Path = tmp_path_factory.mktemp("prometheus")
    jobs = [
        {
            "job_name": name,
            "metrics_path": f"/{name}",
            "honor_labels": name != "sidecar",
            "static_configs": [
                {"targets": [f"127.0.0.1:{exporters}"], "labels": {"namespace": namespace, "pod": f"{name}-0"}}
            ],
        }
        for name, namespace in (("sidecar", "shop"), ("injector", "pulsecache"), ("controller", "pulsecache"))
    ]
    timing = {"scrape_interval": "500ms", "scrape_timeout": "500ms"}
    (folder / "prometheus.yml").write_text(yaml.safe_dump({"global": timing, "scrape_configs": jobs}))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [program, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log)
    server = Prometheus(f"http://127.0.0.1:{port}")
    try:
        wait_for_two_scrapes(server, process, folder / "log")
        yield server
    finally:
        process.terminate()
        process.wait(15)


def wait_for_two_scrapes(server: Prometheus, process: subprocess.Popen[bytes], log: Path) -> None:
    """A rate needs two samples of each target."""
    deadline, pause = time.monotonic() + 30, threading.Event()
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if len(server.ask("count_over_time(up[1m]) > 2 and on (job) up == 1")) == 3:
                return
        except OSError:
            pass
        pause.wait(0.2)
    raise AssertionError(f"Prometheus has no samples: {log.read_text()[-2000:]}")


@pytest.mark.parametrize("query", QUERIES, ids=[f"{q.dashboard}-{i}-{q.panel}" for i, q in enumerate(QUERIES)])
def test_expression_gives_data(prometheus: Prometheus, query: Query) -> None:
    result = prometheus.ask(query.expression)
    assert result, str(query)
    assert all(sample["value"][1] != "NaN" for sample in result), str(query)  # type: ignore[index]  # plain JSON


def ask_one(prometheus: Prometheus, panel: str) -> float:
    (query,) = (q for q in QUERIES if q.panel == panel)
    (sample,) = prometheus.ask(query.expression)
    return float(sample["value"][1])  # type: ignore[index]  # plain JSON


def test_hit_ratio_counts_reads_only(prometheus: Prometheus) -> None:
    """One each of hit, stale, pending, miss, revalidated and bypass: writes and what passes through do not count."""
    assert ask_one(prometheus, "Hit ratio") == pytest.approx(0.5)


def test_a_missed_pod_is_counted_once(prometheus: Prometheus) -> None:
    assert ask_one(prometheus, "Pods without sidecar") == 1


def test_a_variable_narrows_to_one_policy(prometheus: Prometheus) -> None:
    for query in queries({"__rate_interval": "5s", "policy": "shop/other", "namespace": "elsewhere"}):
        if query.panel == "Hit ratio":
            assert prometheus.ask(query.expression) == []
