"""A small load generator of the standard library alone, for the demonstration and the tests.

    python3 -m shop.load http://products.shop.svc/products/{1-100} --concurrency 20 --duration 30 --every 1
    python3 examples/shop/load.py ... --json

As a library: `run(Plan(...), stop)` gives a Report. A request has failed when no whole answer came in time or its
status is 5xx.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from shop.client import Client, RequestFailed, Response

_RANGE = re.compile(r"\{(\d+)-(\d+)\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to ask for. Each of `urls` is `http://host[:port]/path`; `{1-100}` in it stands for a number by chance."""

    urls: Sequence[str]
    concurrency: int = 10
    duration_s: float = math.inf
    requests: float = math.inf
    """End after so many, whichever is first."""
    rate: float = math.inf
    """Requests per second at most, over all workers."""
    timeout_s: float = 10.0
    requests_per_connection: int = 100
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Report:
    """What was seen. Times in seconds."""

    duration_s: float = 0.0
    latencies_s: list[float] = field(default_factory=list)
    """Of the requests that were answered."""
    statuses: Counter[int] = field(default_factory=Counter)
    caches: Counter[str] = field(default_factory=Counter)
    states: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    """Requests without an answer, by what happened."""
    largest_bound_s: float | None = None

    @property
    def requests(self) -> int:
        return len(self.latencies_s) + self.errors.total()

    @property
    def failed(self) -> int:
        return self.errors.total() + sum(count for status, count in self.statuses.items() if status >= 500)

    def percentile_s(self, percent: float) -> float | None:
        """Nearest rank; None where nothing was answered."""
        if not self.latencies_s:
            return None
        ordered = sorted(self.latencies_s)
        return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]

    def add(self, response: Response, latency_s: float) -> None:
        self.latencies_s.append(latency_s)
        self.statuses[response.status] += 1
        if response.cache is not None:
            self.caches[response.cache] += 1
        if response.state is not None:
            self.states[response.state] += 1
        if response.bound_s is not None:
            self.largest_bound_s = max(response.bound_s, self.largest_bound_s or 0.0)

    def document(self) -> dict[str, Any]:
        """For --json."""
        return {
            "requests": self.requests,
            "failed": self.failed,
            "duration_s": round(self.duration_s, 3),
            "requests_per_s": round(self.requests / self.duration_s, 1) if self.duration_s else 0.0,
            "latency_s": {f"p{percent:g}": _rounded(self.percentile_s(percent)) for percent in (50, 90, 99, 100)},
            "statuses": {str(status): count for status, count in sorted(self.statuses.items())},
            "caches": dict(sorted(self.caches.items())),
            "states": dict(sorted(self.states.items())),
            "largest_bound_s": self.largest_bound_s,
            "errors": dict(self.errors.most_common(10)),
        }

    def __str__(self) -> str:
        document = self.document()
        latency = ", ".join(
            f"{name} {value * 1000:.1f} ms" for name, value in document["latency_s"].items() if value is not None
        )
        rate = document["requests_per_s"]
        lines = [
            f"{self.requests} requests in {self.duration_s:.1f} s ({rate}/s), {self.failed} failed",
            f"latency   {latency or 'nothing was answered'}",
        ]
        for title, name in (("status", "statuses"), ("cache", "caches"), ("state", "states"), ("errors", "errors")):
            if document[name]:
                lines.append(f"{title:<9} " + ", ".join(f"{key} {count}" for key, count in document[name].items()))
        if self.largest_bound_s is not None:
            lines.append(f"largest Pulse-Staleness {self.largest_bound_s:.3f} s")
        return "\n".join(lines)


async def run(
    plan: Plan, stop: asyncio.Event | None = None, *, seen: Callable[[Response, float], None] | None = None
) -> Report:
    """Asks until the plan is done or `stop` is set; `seen` hears of each answer and its latency."""
    load = _Load(plan, stop or asyncio.Event(), seen)
    return await load.run()


class _Load:
    def __init__(self, plan: Plan, stop: asyncio.Event, seen: Callable[[Response, float], None] | None) -> None:
        self._plan = plan
        self._stop = stop
        self._seen = seen
        self._report = Report()
        self._begun = 0
        self._start = time.monotonic()

    async def run(self) -> Report:
        workers = [asyncio.create_task(self._work()) for _ in range(self._plan.concurrency)]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
            self._report.duration_s = time.monotonic() - self._start
        return self._report

    async def _work(self) -> None:
        clients: dict[tuple[str, int], Client] = {}
        try:
            while await self._may_go_on():
                host, port, path = _target(random.choice(self._plan.urls))
                client = clients.get((host, port))
                if client is None:
                    client = clients[host, port] = Client(
                        host,
                        port,
                        timeout_s=self._plan.timeout_s,
                        requests_per_connection=self._plan.requests_per_connection,
                    )
                await self._ask(client, path)
        finally:
            for client in clients.values():
                await client.aclose()

    async def _ask(self, client: Client, path: str) -> None:
        sent = time.monotonic()
        try:
            response = await client.request(self._plan.method, path, headers=self._plan.headers)
        except RequestFailed as error:
            self._report.errors[str(error)] += 1
            # A server that refuses at once would otherwise be asked as fast as this machine can.
            await self._pause(0.05)
            return
        latency_s = time.monotonic() - sent
        self._report.add(response, latency_s)
        if self._seen is not None:
            self._seen(response, latency_s)

    async def _may_go_on(self) -> bool:
        if self._stop.is_set() or self._begun >= self._plan.requests:
            return False
        due = self._start + self._begun / self._plan.rate
        self._begun += 1
        end = self._start + self._plan.duration_s
        if due >= end or time.monotonic() >= end:
            return False
        wait_s = due - time.monotonic()
        if wait_s > 0:
            await self._pause(wait_s)
        return not self._stop.is_set()

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stop.wait()


def _target(url: str) -> tuple[str, int, str]:
    chosen = _RANGE.sub(lambda match: str(random.randint(int(match[1]), int(match[2]))), url)
    parts = urlsplit(chosen)
    if parts.scheme != "http" or not parts.hostname:
        raise ValueError(f"{url!r}: expected http://host[:port]/path")
    path = parts.path or "/"
    return parts.hostname, parts.port or 80, f"{path}?{parts.query}" if parts.query else path


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 6)


# --- as a program ----------------------------------------------------------------------------------------------


class _Ticker:
    """A line per interval: what a person wants to see move."""

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._since: list[tuple[Response, float]] = []

    def seen(self, response: Response, latency_s: float) -> None:
        self._since.append((response, latency_s))

    async def tick(self) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            seen, self._since = self._since, []
            states = Counter(response.state or "-" for response, _ in seen)
            bounds = [response.bound_s for response, _ in seen if response.bound_s is not None]
            hits = sum(response.cache == "hit" for response, _ in seen)
            mean_ms = sum(latency for _, latency in seen) / len(seen) * 1000 if seen else math.nan
            print(
                f"{len(seen) / self._every_s:8.0f}/s  {mean_ms:7.1f} ms  hits {hits / max(1, len(seen)):4.0%}"
                f"  staleness up to {f'{max(bounds):.3f}' if bounds else '-':>7} s"
                f"  {', '.join(f'{state} {count}' for state, count in states.most_common())}",
                flush=True,
            )


def _positive(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text} is not more than 0")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="load", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("urls", nargs="+", metavar="URL", help="http://host[:port]/path; {1-100} is a number by chance")
    parser.add_argument("--concurrency", type=int, default=10)
    parser.add_argument("--duration", type=_positive, default=10.0, metavar="SECONDS")
    parser.add_argument("--requests", type=_positive, default=math.inf, help="end after so many, if that is first")
    parser.add_argument("--rate", type=_positive, default=math.inf, help="requests per second at most")
    parser.add_argument("--timeout", type=_positive, default=10.0, metavar="SECONDS")
    parser.add_argument("--requests-per-connection", type=int, default=100)
    parser.add_argument("--method", default="GET")
    parser.add_argument("--every", type=_positive, metavar="SECONDS", help="a line of progress so often")
    parser.add_argument("--json", action="store_true", help="the report as JSON")
    return parser


async def _main(options: argparse.Namespace) -> Report:
    plan = Plan(
        urls=options.urls,
        concurrency=options.concurrency,
        duration_s=options.duration,
        requests=options.requests,
        rate=options.rate,
        timeout_s=options.timeout,
        requests_per_connection=options.requests_per_connection,
        method=options.method,
    )
    if options.every is None:
        return await run(plan)
    ticker = _Ticker(options.every)
    ticking = asyncio.create_task(ticker.tick())
    try:
        return await run(plan, seen=ticker.seen)
    finally:
        ticking.cancel()


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 1 when a request failed, 2 when nothing could be tried."""
    options = _parser().parse_args(arguments)
    try:
        for url in options.urls:
            _target(url)
    except ValueError as error:
        print(f"load: {error}", file=sys.stderr)
        return 2
    report = asyncio.run(_main(options))
    print(json.dumps(report.document()) if options.json else report)
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
