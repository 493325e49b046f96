"""The story with processes on loopback: `make demo-local`. No root, no cluster, no Docker, and no Redis needed.

Three replicas of products over one SQLite file, each behind a sidecar. With a redis-server on PATH each sidecar is a
process of its own and they hear of each other through it; without one, a single sidecar process stands before all
three, and the chapter that takes Redis away is left out.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from kube import ROOT, CommandError, TimedOut, wait_for
from story import Broken, Story

POLICY = ROOT / "examples" / "shop" / "manifests" / "policies" / "products.yaml"
SHOP = ROOT / "examples" / "shop"
HOST = "products.shop"


class Processes:
    """What the demo started, ended in reverse order by pid; each one's output goes to a file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self, name: str, *command: str, cwd: Path = ROOT) -> subprocess.Popen[bytes]:
        log = (self.folder / f"{name}.log").open("wb")
        process = subprocess.Popen(command, cwd=cwd, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        self._running.append(process)
        return process

    def end(self) -> None:
        for process in reversed(self._running):
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
                try:
                    process.wait(35)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


class Demo:
    def __init__(self, story: Story, processes: Processes, folder: Path, redis: str | None) -> None:
        self.story = story
        self.processes = processes
        self.folder = folder
        self.redis_server = redis
        self.redis: subprocess.Popen[bytes] | None = None
        self.database = folder / "shop.sqlite"
        self.apps = [free_port() for _ in range(3)]
        self.sidecars = [free_port() for _ in range(3)]
        self.admins = [free_port() for _ in range(3 if redis else 1)]

    def tell(self) -> None:
        story = self.story
        with story.chapter("Three replicas of a shop over one database, no cache"):
            self.start_shop()
            before = self.load(self.apps, 8)
            queries_before = self.costly_queries()
            self.report("before", before)
        with story.chapter("A sidecar before each replica, by one policy file"):
            self.start_sidecars()
        with story.chapter("The same load, from the cache"):
            self.load(self.sidecars, 3)
            start = self.costly_queries()
            self.after(before, self.load(self.sidecars, 8), queries_before, start)
        with story.chapter("A write through one replica, read through another"):
            self.write_through()
        with story.chapter("The database is taken away, and page views are still counted"):
            self.write_behind()
        if self.redis is not None:
            with story.chapter("Redis hangs: the number grows, the state changes, the policy acts"):
                self.without_redis()
        else:
            story.say("There is no redis-server on PATH: the chapter that takes Redis away is left out.")
        with story.chapter("The off switch"):
            self.off_switch()
        story.end()

    def start_shop(self) -> None:
        for number, port in enumerate(self.apps):
            self.processes.start(
                f"products-{number}", sys.executable, "-m", "shop", "products", "--listen", f"127.0.0.1:{port}",
                "--database", f"sqlite:///{self.database}", cwd=SHOP,
            )  # fmt: skip
            wait_for(
                "products", lambda port=port: self.ask(port, "/readyz")["status"] == 200, timeout_s=30, every_s=0.1
            )

    def start_sidecars(self) -> None:
        policy = yaml.safe_load(POLICY.read_text())
        redis = []
        if self.redis_server is not None:
            port = free_port()
            self.redis = self.processes.start(
                "redis", self.redis_server, "--port", str(port), "--save", "", "--bind", "127.0.0.1"
            )
            redis = ["--redis", f"redis://127.0.0.1:{port}", "--unattended"]
            self.policy_file().write_text(yaml.safe_dump(policy))
        else:
            del policy["spec"]["store"]["redis"]
            documents = [policy | {"metadata": {"name": f"products-{n}", "namespace": "shop"}} for n in range(3)]
            for document in documents:
                document["spec"] = document["spec"] | {"dataset": "products"}
            self.policy_file().write_text(yaml.safe_dump_all(documents))
        names = ["products"] * 3 if redis else [f"products-{n}" for n in range(3)]
        binds = [
            f"shop/{name}=127.0.0.1:{listen},http://127.0.0.1:{app}"
            for name, listen, app in zip(names, self.sidecars, self.apps, strict=True)
        ]
        for number, admin in enumerate(self.admins):
            mine = [binds[number]] if redis else binds
            self.processes.start(
                f"sidecar-{number}", sys.executable, "-m", "pulsecache_sidecar", "run",
                "--policy", str(self.policy_file()), *(f"--bind={bind}" for bind in mine),
                "--admin", f"127.0.0.1:{admin}", "--data", str(self.folder / f"data-{number}"), *redis,
            )  # fmt: skip
        self.confirmed()
        self.story.show(f"pulsecache-sidecar run --policy policy.yaml --bind {binds[0]} ...")

    def after(self, before: dict[str, Any], after: dict[str, Any], queries_before: int, start: int) -> None:
        story = self.story
        queries = self.costly_queries() - start
        self.report("after", after)
        story.measured("database queries in 8 s, before", str(queries_before))
        story.measured("database queries in 8 s, after", str(queries), f"{after['requests']} requests")
        story.must(after["latency_s"]["p50"] < before["latency_s"]["p50"], "the cache made the median faster")
        self.ask(self.sidecars[0], "/products/7")
        answer = self.ask(self.sidecars[0], "/products/7")
        story.say("What an answer says of itself:")
        story.show("\n".join([f"HTTP/1.1 {answer['status']}", *(f"{k}: {v}" for k, v in answer["headers"].items())]))
        story.must("hit" in answer["headers"]["cache-status"], "it is from the cache")
        story.must("pulse-staleness" in answer["headers"], "it tells its bound")

    def write_through(self) -> None:
        first, second, _ = self.sidecars
        self.ask(second, "/products/9")
        answer = self.ask(first, "/products/9", "PUT", {"name": "Lamp", "price": "19.90", "description": "cheaper"})
        self.story.must(answer["status"] == 200, f"the write was answered {answer['status']}")
        written = time.monotonic()
        wait_for(
            "the new price through the other replica",
            lambda: json.loads(self.ask(second, "/products/9")["body"])["price"] == "19.90",
            timeout_s=10,
            every_s=0.005,
        )
        self.story.measured(
            "written through one, read through another", f"{(time.monotonic() - written) * 1000:.0f} ms"
        )

    def write_behind(self) -> None:
        story = self.story
        lock = sqlite3.connect(self.database, isolation_level=None, timeout=30)
        lock.execute("BEGIN EXCLUSIVE")
        story.progress("somebody holds the whole database locked")
        try:
            took = [self.ask(self.sidecars[0], "/products/5/views", "POST", {"seq": n}) for n in range(200)]
            story.must(all(a["status"] == 202 for a in took), "every view was answered 202")
            story.measured("page views taken without the database", "200", "each is on disk before its 202")
        finally:
            lock.execute("ROLLBACK")
        back = time.monotonic()
        wait_for("all views in the database", lambda: count(lock) == 200, timeout_s=90, every_s=0.2)
        story.measured("all of them in the database", f"{time.monotonic() - back:.1f} s after it was back")
        order = [row[0] for row in lock.execute("SELECT seq FROM view_events WHERE product_id = 5 ORDER BY id")]
        story.must(order == list(range(200)), "they are there in their order")
        lock.close()

    def without_redis(self) -> None:
        story, redis = self.story, self.redis
        assert redis is not None
        self.ask(self.sidecars[0], "/products/3")
        redis.send_signal(signal.SIGSTOP)
        gone = time.monotonic()

        def exceeded() -> bool:
            answer = self.ask(self.sidecars[0], "/products/3")
            story.must(answer["status"] == 200, f"a request failed without Redis: {answer['status']}")
            said = answer["headers"]["pulse-staleness"]
            story.progress(
                f"{time.monotonic() - gone:4.1f} s without Redis: {answer['status']}, Pulse-Staleness: {said}"
            )
            return "state=exceeded" in said

        wait_for("state exceeded", exceeded, timeout_s=30, every_s=0.7)
        story.measured("Redis hung to state exceeded", f"{time.monotonic() - gone:.1f} s", "limit 5 s + one interval")
        redis.send_signal(signal.SIGCONT)
        back = time.monotonic()
        self.confirmed()
        story.measured("Redis back to state confirmed", f"{time.monotonic() - back:.1f} s")

    def off_switch(self) -> None:
        documents = list(yaml.safe_load_all(self.policy_file().read_text()))
        for mode, wanted in (("Bypass", "fwd=bypass"), ("Serve", "hit")):
            for document in documents:
                document["spec"]["mode"] = mode
            self.policy_file().write_text(yaml.safe_dump_all(documents))
            started = time.monotonic()
            wait_for(mode, lambda wanted=wanted: self.everywhere(wanted), timeout_s=15, every_s=0.05)
            self.story.measured(
                f"mode: {mode} in force everywhere", f"{time.monotonic() - started:.1f} s", "no restart"
            )

    # --- means -------------------------------------------------------------------------------------------------

    def policy_file(self) -> Path:
        return self.folder / "policy.yaml"

    def everywhere(self, wanted: str) -> bool:
        return all(wanted in self.ask(port, "/products/2")["headers"].get("cache-status", "") for port in self.sidecars)

    def confirmed(self) -> None:
        def all_say() -> bool:
            told = [json.loads(self.ask(port, "/-/staleness")["body"]) for port in self.admins]
            datasets = [d for answer in told for d in answer["datasets"]]
            return bool(datasets) and all(d["state"] == "confirmed" and not d["lost_publishers"] for d in datasets)

        wait_for("every sidecar confirmed", all_say, timeout_s=60, every_s=0.2)

    def costly_queries(self) -> int:
        return sum(json.loads(self.ask(port, "/stats")["body"])["queries"]["costly"] for port in self.apps)

    def load(self, ports: list[int], seconds: int) -> dict[str, Any]:
        urls = [f"http://127.0.0.1:{port}/products/{{1-100}}" for port in ports]
        done = subprocess.run(
            [sys.executable, "-m", "shop.load", *urls, "--json", "--duration", str(seconds)],
            cwd=SHOP, capture_output=True, text=True, check=False, timeout=seconds + 60,
        )  # fmt: skip
        if not done.stdout:
            raise Broken(f"the load ended with {done.returncode}: {done.stderr[-500:]}")
        found: dict[str, Any] = json.loads(done.stdout)
        self.story.must(found["failed"] == 0, f"requests failed: {found}")
        return found

    def report(self, when: str, report: dict[str, Any]) -> None:
        latency = report["latency_s"]
        self.story.measured(
            f"latency {when}, p50 / p99",
            f"{latency['p50'] * 1000:.1f} / {latency['p99'] * 1000:.1f} ms",
            f"{report['requests_per_s']:.0f} requests/s by 10 clients",
        )

    @staticmethod
    def ask(port: int, path: str, method: str = "GET", body: Any = None) -> dict[str, Any]:
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", content, method=method)
        request.add_header("Host", HOST)
        request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return {"status": answer.status, "headers": lower(answer.headers), "body": answer.read().decode()}
        except urllib.error.HTTPError as error:
            with error:
                return {"status": error.code, "headers": lower(error.headers), "body": error.read().decode()}
        except OSError as error:
            raise CommandError(f"{method} http://127.0.0.1:{port}{path}: {error}") from error


def lower(headers: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def count(database: sqlite3.Connection) -> int:
    return int(database.execute("SELECT count(*) FROM view_events WHERE product_id = 5").fetchone()[0])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def workplace(keep: bool) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="pulsecache-demo-"))
    try:
        yield folder
    finally:
        if keep:
            print(f"logs and data are in {folder}", file=sys.stderr)
        else:
            shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="demo-local", description=__doc__)
    parser.add_argument("--no-redis", action="store_true", help="as if there were no redis-server")
    parser.add_argument("--keep", action="store_true", help="keep logs and data")
    options = parser.parse_args()
    redis = None if options.no_redis else shutil.which("redis-server")
    story = Story()
    with workplace(options.keep) as folder:
        processes = Processes(folder)
        try:
            Demo(story, processes, folder, redis).tell()
        except (Broken, CommandError, TimedOut) as error:
            print(f"\nThe demo ends here: {error}", file=sys.stderr)
            for log in sorted(folder.glob("*.log")):
                print(f"--- {log.name}\n{log.read_text()[-1500:]}", file=sys.stderr)
            return 1
        finally:
            processes.end()
    return 0


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    sys.exit(main())
