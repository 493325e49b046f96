"""The whole story on a cluster: `make demo`, or `make demo CONTEXT=<kube context>` on yours.

Every number is measured while it runs; a step that does not happen ends the demo with status 1.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from functools import partial
from typing import Any
from urllib.parse import quote

from kube import CLUSTER, ROOT, CommandError, Kube, TimedOut, wait_for
from story import Broken, Story

SHOP = ROOT / "examples" / "shop" / "manifests"
IMAGES = ("sidecar", "operator", "shop", "redis", "postgres", "prometheus")
VARIABLES = {"__rate_interval": "1m", "__range": "1h", "__interval": "15s", "namespace": ".*", "policy": ".*"}
CLIENT: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "client", "namespace": "shop"},
    "spec": {
        "terminationGracePeriodSeconds": 0,
        "automountServiceAccountToken": False,
        "containers": [
            {
                "name": "client",
                "image": "pulsecache/shop:dev",
                "imagePullPolicy": "IfNotPresent",
                "command": ["python3", "-c", "import signal; signal.pause()"],
                "securityContext": {
                    "runAsNonRoot": True,
                    "runAsUser": 65532,
                    "allowPrivilegeEscalation": False,
                    "capabilities": {"drop": ["ALL"]},
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
            }
        ],
    },
}
# One request from inside the cluster, told as JSON; the standard library of the image is enough.
REQUEST = """
import http.client, json, sys, time
method, host, port, path, body = sys.argv[1:6]
c = http.client.HTTPConnection(host, int(port), timeout=20)
start = time.monotonic()
c.request(method, path, body or None, {"Host": "products.shop", "Content-Type": "application/json"})
r = c.getresponse()
content = r.read().decode()
print(json.dumps({"status": r.status, "headers": {k.lower(): v for k, v in r.getheaders()}, "body": content,
                  "took_s": time.monotonic() - start}))
"""
# Load that goes on until a file appears.
UNTIL_TOLD = """
import asyncio, json, os, sys
from shop.load import Plan, run
async def main():
    stop = asyncio.Event()
    async def watch():
        while not os.path.exists("/tmp/enough"):
            await asyncio.sleep(0.2)
        os.unlink("/tmp/enough")
        stop.set()
    watching = asyncio.create_task(watch())
    plan = Plan(urls=["http://products.shop.svc/products/{1-100}"], rate=float(sys.argv[1]), duration_s=600)
    report = await run(plan, stop)
    await watching
    print(json.dumps(report.document()))
asyncio.run(main())
"""


class Demo:
    def __init__(self, context: str | None, story: Story) -> None:
        self.context = context
        self.story = story
        self.kube: Kube

    # --- steps -------------------------------------------------------------------------------------------------

    def tell(self) -> None:
        story = self.story
        with story.chapter("A cluster, and the images"):
            self.cluster()
        with story.chapter("helm install pulsecache, and a shop without any policy"):
            self.install()
        with story.chapter("Before: every read is a query of the database"):
            before = self.load(12)
            queries_before = self.costly_queries()
            self.report("before", before)
        with story.chapter("kubectl apply of two policies, while customers go on shopping"):
            self.apply_policies()
        with story.chapter("After: the same load, from the cache"):
            self.load(4)
            start = self.costly_queries()
            after = self.load(12)
            self.after(before, after, queries_before, self.costly_queries() - start)
        with story.chapter("A write through one replica, read through another"):
            self.write_through()
        with story.chapter("The database is stopped, and page views are still counted"):
            self.write_behind()
        with story.chapter("Redis is taken away: the number grows, the state changes, the policy acts"):
            self.without_redis()
        with story.chapter("The off switch"):
            self.off_switch()
        with story.chapter("Prometheus and the dashboards"):
            self.observe()
        story.end()

    def cluster(self) -> None:
        if self.context is None:
            started = time.monotonic()
            stream([*CLUSTER, "up"])
            self.kube = Kube.of_this_machine()
            self.story.measured("cluster up", f"{time.monotonic() - started:.0f} s")
        else:
            self.kube = Kube(self.context)
            self.kube.kubectl("version")
        started = time.monotonic()
        context = ["--context", self.context] if self.context else []
        stream(["python3", str(ROOT / "cluster" / "images.py"), "load", *IMAGES, *context])
        self.story.measured("images built and loaded", f"{time.monotonic() - started:.0f} s")

    def install(self) -> None:
        kube, story = self.kube, self.story
        if kube.items("namespaces", selector="kubernetes.io/metadata.name=shop"):
            story.progress("removing the shop of a former run")
            kube.kubectl("delete", "namespace", "shop", timeout_s=180)
        kube.helm(
            "upgrade", "--install", "pulsecache", str(ROOT / "charts" / "pulsecache"), "-n", "pulsecache",
            "--create-namespace", "--wait", "--timeout=180s",
            "--values", str(ROOT / "examples" / "shop" / "values.yaml"),
        )  # fmt: skip
        story.progress("the operator and its Redis run")
        for file in sorted(SHOP.glob("*.yaml")):
            kube.apply(file)
        kube.apply(CLIENT)
        kube.rolled_out("statefulset", "postgres", "shop")
        for name in ("products", "storefront", "prometheus"):
            kube.rolled_out("deployment", name, "shop")
        wait_for(
            "the client pod",
            lambda: kube.ready_pods("shop", "") and self.ask("/healthz")["status"] == 200,
            timeout_s=60,
        )
        story.say(
            "products: three replicas over a real PostgreSQL, behind a Service whose targetPort has a name. "
            "storefront: calls it. Nothing in them knows of a cache."
        )

    def apply_policies(self) -> None:
        kube, story = self.kube, self.story
        background = self.start_load(rate=60)
        started = time.monotonic()
        for file in sorted((SHOP / "policies").glob("*.yaml")):
            kube.apply(file)

        def rolled() -> bool:
            pods = kube.ready_pods("shop", "app.kubernetes.io/name=products")
            return len(pods) == 3 and all(has_sidecar(pod) for pod in pods)

        wait_for("three pods with a sidecar", rolled, timeout_s=120)
        wait_for(
            "an answer from the cache",
            lambda: "hit" in self.ask("/products/1")["headers"].get("cache-status", ""),
            timeout_s=60,
        )
        story.measured("policy applied to answers from the cache", f"{time.monotonic() - started:.0f} s", "limit 60 s")
        wait_for(
            "the last old pod gone",
            lambda: len(kube.items("pods", "shop", "app.kubernetes.io/name=products")) == 3,
            timeout_s=90,
        )
        self.confirmed()
        report = self.finish_load(background)
        story.measured("requests while the pods were rolled", str(report["requests"]), f"{report['failed']} failed")
        story.must(report["failed"] == 0, f"requests failed during the roll-out: {report}")
        story.show(kube.kubectl("get", "cachepolicies", "-n", "shop"))

    def after(self, before: dict[str, Any], after: dict[str, Any], queries_before: int, queries: int) -> None:
        story = self.story
        self.report("after", after)
        story.measured("database queries in 12 s, before", str(queries_before))
        story.measured("database queries in 12 s, after", str(queries), f"{after['requests']} requests")
        story.must(after["latency_s"]["p50"] < before["latency_s"]["p50"], "the cache made the median faster")
        share = queries / max(1, after["requests"])
        story.must(share < queries_before / max(1, before["requests"]), "the cache saved queries")
        answer = self.ask("/products/7")
        answer = self.ask("/products/7")
        story.say("What an answer says of itself:")
        story.show("\n".join([f"HTTP/1.1 {answer['status']}", *(f"{k}: {v}" for k, v in answer["headers"].items())]))
        story.must("pulse-staleness" in answer["headers"], "an answer tells its bound")

    def write_through(self) -> None:
        story = self.story
        first, second, _ = self.sidecars()
        self.ask("/products/9", second)
        body = json.dumps({"name": "Lamp", "price": "19.90", "description": "now cheaper"})
        answer = self.ask("/products/9", first, "PUT", body)
        story.must(answer["status"] == 200, f"the write was answered {answer['status']}")
        written = time.monotonic()

        def seen() -> bool:
            read = self.ask("/products/9", second)
            return bool(json.loads(read["body"])["price"] == "19.90")

        wait_for("the new price through the other replica", seen, timeout_s=10, every_s=0.05)
        story.measured(
            "written through one replica, read through another",
            f"within {time.monotonic() - written:.1f} s",
            "includes starting the client",
        )

    def write_behind(self) -> None:
        kube, story = self.kube, self.story
        before = self.views(5)
        kube.exec("shop", "postgres-0", "sh", "/scripts/stop.sh")
        story.progress("PostgreSQL is stopped")
        try:
            report = json.loads(
                self.client(
                    *load_command(None, requests=200, url="http://products.shop.svc/products/5/views", method="POST")
                )
            )
            story.must(report["statuses"] == {"202": 200}, f"views were answered {report['statuses']}")
            story.measured("page views taken while the database was stopped", "200", "each is on disk before its 202")
        finally:
            kube.exec("shop", "postgres-0", "sh", "/scripts/start.sh")
        back = time.monotonic()
        wait_for("all views in the database", lambda: self.views(5) == before + 200, timeout_s=90)
        story.measured("all of them in the database", f"{time.monotonic() - back:.0f} s after it was back")

    def without_redis(self) -> None:
        kube, story = self.kube, self.story
        self.confirmed()
        background = self.start_load(rate=50)
        kube.scale("statefulset", "pulsecache-redis", "pulsecache", 0)
        gone = time.monotonic()
        seen: list[str] = []

        def exceeded() -> bool:
            answer = self.ask("/products/3")
            said = answer["headers"].get("pulse-staleness", "")
            seen.append(said)
            story.progress(
                f"{time.monotonic() - gone:4.1f} s without Redis: {answer['status']}, Pulse-Staleness: {said}"
            )
            return "state=exceeded" in said

        wait_for("state exceeded", exceeded, timeout_s=60, every_s=0.7)
        story.measured(
            "Redis gone to state exceeded",
            f"{time.monotonic() - gone:.0f} s",
            "limit 5 s + one interval + its way down",
        )
        wait_for("the storefront's page telling how old its prices may be", lambda: "old" in self.page(), timeout_s=20)
        story.progress("the storefront tells its visitors how old its prices may be, and closes the checkout")
        kube.scale("statefulset", "pulsecache-redis", "pulsecache", 1)
        back = time.monotonic()
        self.confirmed(timeout_s=120)
        story.measured("Redis back to state confirmed", f"{time.monotonic() - back:.0f} s", "includes settle: 5 s")
        report = self.finish_load(background)
        story.measured("requests meanwhile", str(report["requests"]), f"{report['failed']} failed")
        story.must(report["failed"] == 0, f"requests failed without Redis: {report}")

    def off_switch(self) -> None:
        kube, story = self.kube, self.story
        for mode, wanted in (("Bypass", "fwd=bypass"), ("Serve", "hit")):
            started = time.monotonic()
            kube.patch("cachepolicy", "products", "shop", {"spec": {"mode": mode}})
            wait_for(mode, partial(self.everywhere, wanted), timeout_s=30, every_s=0.1)
            story.measured(f"mode: {mode} in force in all pods", f"{time.monotonic() - started:.1f} s", "no restart")

    def everywhere(self, wanted: str) -> bool:
        answers = [self.ask("/products/2", sidecar) for sidecar in self.sidecars()]
        return all(wanted in answer["headers"].get("cache-status", "") for answer in answers)

    def observe(self) -> None:
        story = self.story
        empty = []
        expressions = dashboard_expressions()
        for panel, expression in expressions:
            if not self.prometheus(expression):
                empty.append(panel)
        story.measured("dashboard expressions with data", f"{len(expressions) - len(empty)} of {len(expressions)}")
        story.must(not empty, f"panels without data: {empty}")
        story.say("To look at the numbers, and to import charts/pulsecache/dashboards/*.json into Grafana:")
        how = "" if self.context else 'eval "$(python3 cluster/cluster.py env)"; '
        story.show(f"{how}kubectl -n shop port-forward service/prometheus 9090")

    # --- means -------------------------------------------------------------------------------------------------

    def client(self, *command: str, timeout_s: float = 120) -> str:
        return self.kube.exec("shop", "client", *command, timeout_s=timeout_s)

    def start_load(self, rate: int) -> subprocess.Popen[str]:
        """Customers that go on shopping until `finish_load`."""
        return self.kube.start_exec("shop", "client", "python3", "-c", UNTIL_TOLD, str(rate))

    def finish_load(self, background: subprocess.Popen[str]) -> dict[str, Any]:
        self.client("touch", "/tmp/enough")
        told, trouble = background.communicate(timeout=60)
        try:
            found: dict[str, Any] = json.loads(told)
        except ValueError:
            raise Broken(f"the load in the background ended without a report: {trouble[-500:]}") from None
        return found

    def ask(self, path: str, host: str = "products.shop.svc", method: str = "GET", body: str = "") -> dict[str, Any]:
        name, _, port = host.partition(":")
        found: dict[str, Any] = json.loads(
            self.client("python3", "-c", REQUEST, method, name, port or "80", path, body)
        )
        return found

    def load(self, seconds: int) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.client(*load_command(seconds), timeout_s=seconds + 60))
        self.story.must(found["failed"] == 0, f"requests failed: {found}")
        return found

    def report(self, when: str, report: dict[str, Any]) -> None:
        latency = report["latency_s"]
        self.story.measured(
            f"latency {when}, p50 / p99",
            f"{latency['p50'] * 1000:.1f} / {latency['p99'] * 1000:.1f} ms",
            f"{report['requests_per_s']:.0f} requests/s by 10 clients",
        )

    def costly_queries(self) -> int:
        return int(json.loads(self.ask("/stats")["body"])["costly_queries_of_all_replicas"])

    def views(self, number: int) -> int:
        sql = f"select count(*) from view_events where product_id = {number}"
        out = self.kube.exec(
            "shop",
            "postgres-0",
            "/usr/lib/postgresql/15/bin/psql",
            "-h",
            "/tmp",
            "-U",
            "shop",
            "-d",
            "shop",
            "-AtX",
            "-c",
            sql,
        )
        return int(out)

    def sidecars(self) -> list[str]:
        return [
            f"{pod['status']['podIP']}:15080" for pod in self.kube.ready_pods("shop", "app.kubernetes.io/name=products")
        ]

    def confirmed(self, timeout_s: float = 90) -> None:
        def all_say() -> bool:
            pods = self.kube.ready_pods("shop", "app.kubernetes.io/name=products")
            told = [self.ask("/-/staleness", f"{pod['status']['podIP']}:15090") for pod in pods]
            return all(d["state"] == "confirmed" for answer in told for d in json.loads(answer["body"])["datasets"])

        wait_for("every sidecar confirmed", all_say, timeout_s=timeout_s)

    def page(self) -> str:
        return str(self.ask("/products/3", "storefront.shop.svc")["body"])

    def prometheus(self, expression: str) -> list[Any]:
        answer = self.ask(f"/api/v1/query?query={quote(expression)}", "prometheus.shop.svc:9090")
        found: list[Any] = json.loads(answer["body"]).get("data", {}).get("result", [])
        return found


def load_command(
    seconds: int | None,
    *,
    rate: int | None = None,
    requests: int | None = None,
    url: str = "http://products.shop.svc/products/{1-100}",
    method: str = "GET",
) -> list[str]:
    command = ["python3", "-m", "shop.load", url, "--json", "--concurrency", "10", "--method", method]
    for flag, value in (("--duration", seconds), ("--rate", rate), ("--requests", requests)):
        command += [flag, str(value)] if value is not None else []
    return command


def dashboard_expressions() -> list[tuple[str, str]]:
    """(panel, expression) of every dashboard, with Grafana's variables filled in as for "All"."""
    found = []
    for file in sorted((ROOT / "charts" / "pulsecache" / "dashboards").glob("*.json")):
        for panel in json.loads(file.read_text())["panels"]:
            for target in panel.get("targets", []):
                expression = target["expr"]
                for name, value in VARIABLES.items():
                    expression = expression.replace(f"${{{name}}}", value).replace(f"${name}", value)
                found.append((f"{file.stem}: {panel['title']}", expression))
    return found


def has_sidecar(pod: dict[str, Any]) -> bool:
    return any(c["name"] == "pulsecache" for c in pod["spec"].get("initContainers", []))


def stream(command: list[str]) -> None:
    """Runs a long command whose progress people want to see. Raises CommandError."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=False)
    if done.returncode != 0:
        raise CommandError(f"{' '.join(command)} ended with {done.returncode}: see above")


def main() -> int:
    parser = argparse.ArgumentParser(prog="demo", description=__doc__)
    parser.add_argument("--context", help="a kube context; without it the one-node cluster of this repository")
    options = parser.parse_args()
    story = Story()
    try:
        Demo(options.context, story).tell()
    except (Broken, CommandError, TimedOut) as error:
        print(f"\nThe demo ends here: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
