"""Metrics in Prometheus' text format: plain counters on the way of a request, families made when scraped.

Names and meanings are in docs/architecture.md. A pod shows at most 120 series: further policies and rules are counted
together under the label value `other`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

BOUND_BUCKETS_S = (0.01, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 600.0)
ORIGIN_BUCKETS_S = (0.01, 0.1, 1.0, 10.0)
REQUEST_SERIES = 20
POLICIES = 2
OTHER = "other"


class Histogram:
    """Cumulative only when read: an observation is one bisect and two additions."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def buckets(self) -> list[tuple[str, float]]:
        found, running = [], 0
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            running += count
            found.append((bound, float(running)))
        return found


@dataclass(frozen=True, slots=True)
class DatasetGauges:
    dataset: str
    state: str
    limit_s: float
    bound_s: float | None
    heartbeat_age_s: float | None


@dataclass(frozen=True, slots=True)
class PolicyGauges:
    policy: str
    generation: int
    pending_writes: int
    pending_oldest_age_s: float
    dead_letters: int


@dataclass(frozen=True, slots=True)
class Gauges:
    """What is read off the running parts at the moment of a scrape."""

    datasets: tuple[DatasetGauges, ...] = ()
    policies: tuple[PolicyGauges, ...] = ()
    memory_bytes: int = 0
    memory_entries: int = 0
    memory_limit_bytes: int = 0


class Metrics(Collector):
    """Implements ports.Observer, and is what a scrape reads."""

    STATES = ("confirmed", "unconfirmed", "exceeded", "uncovered")

    def __init__(self, version: str, gauges: Callable[[], Gauges]) -> None:
        self._version = version
        self._gauges = gauges
        self._requests: dict[tuple[str, str, str], int] = {}
        self._bounds: dict[str, Histogram] = {}
        self._origins: dict[str, Histogram] = {}
        self._reloads: dict[tuple[str, str], int] = {}
        self._hub_calls: dict[str, int] = {}
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def request(self, policy: str, rule: str, outcome: str, bound_s: float | None) -> None:
        key = (policy, rule, outcome)
        if key not in self._requests and len(self._requests) >= REQUEST_SERIES:
            key = (OTHER, OTHER, outcome)
        self._requests[key] = self._requests.get(key, 0) + 1
        if bound_s is not None:
            self._histogram(self._bounds, policy, BOUND_BUCKETS_S).observe(bound_s)

    def origin(self, policy: str, duration_s: float) -> None:
        self._histogram(self._origins, policy, ORIGIN_BUCKETS_S).observe(duration_s)

    def hub_call(self, result: str) -> None:
        self._hub_calls[result] = self._hub_calls.get(result, 0) + 1

    def policy_reload(self, policy: str, result: str) -> None:
        key = (policy, result)
        if key not in self._reloads and len(self._reloads) >= 2 * POLICIES:
            key = (OTHER, result)
        self._reloads[key] = self._reloads.get(key, 0) + 1

    @staticmethod
    def _histogram(histograms: dict[str, Histogram], policy: str, bounds: Sequence[float]) -> Histogram:
        found = histograms.get(policy)
        if found is None:
            if len(histograms) >= POLICIES:
                policy = OTHER
            found = histograms.setdefault(policy, Histogram(bounds))
        return found

    def exposition(self) -> bytes:
        return generate_latest(self._registry)

    def collect(self) -> Iterable[Metric]:
        yield _info("pulsecache_build", "Version of the sidecar.", self._version)
        yield _counter(
            "pulsecache_requests",
            "Requests by policy, rule and outcome.",
            ("policy", "rule", "outcome"),
            self._requests,
        )
        yield _histogram(
            "pulsecache_served_staleness_bound_seconds",
            "Upper bound of staleness that was said with each response of a read rule.",
            self._bounds,
        )
        yield _histogram(
            "pulsecache_origin_request_duration_seconds",
            "Time from sending a request to the origin to the head of its response.",
            self._origins,
        )
        yield _counter(
            "pulsecache_policy_reloads",
            "Offered policies by what became of them: applied, rejected, older.",
            ("policy", "result"),
            self._reloads,
        )
        yield _counter(
            "pulsecache_hub_calls",
            "Calls to Redis: ok, error, short-circuit.",
            ("result",),
            {(result,): count for result, count in self._hub_calls.items()},
        )
        yield from self._collect_gauges(self._gauges())

    def _collect_gauges(self, gauges: Gauges) -> Iterator[Metric]:
        datasets, policies = gauges.datasets[:POLICIES], gauges.policies[:POLICIES]
        yield _gauge(
            "pulsecache_staleness_bound_seconds",
            "Age of the watermark: no usable entry of the dataset is staler.",
            "dataset",
            ((d.dataset, d.bound_s) for d in datasets),
        )
        yield _gauge(
            "pulsecache_heartbeat_age_seconds",
            "Time since the last heartbeat was consumed.",
            "dataset",
            ((d.dataset, d.heartbeat_age_s) for d in datasets),
        )
        yield _gauge(
            "pulsecache_staleness_limit_seconds",
            "The policy's staleness.max.",
            "dataset",
            ((d.dataset, d.limit_s) for d in datasets),
        )
        states = GaugeMetricFamily(
            "pulsecache_staleness_state", "1 for the dataset's state, 0 for the others.", labels=("dataset", "state")
        )
        for d in datasets:
            for state in self.STATES:
                states.add_metric((d.dataset, state), float(d.state == state))
        yield states
        yield GaugeMetricFamily("pulsecache_memory_bytes", "Bytes held in memory.", gauges.memory_bytes)
        yield GaugeMetricFamily("pulsecache_memory_entries", "Entries held in memory.", gauges.memory_entries)
        yield GaugeMetricFamily("pulsecache_memory_limit_bytes", "Limit of memory.", gauges.memory_limit_bytes)
        for name, text, values in (
            ("pulsecache_policy_generation", "Generation in force.", [float(p.generation) for p in policies]),
            ("pulsecache_pending_writes", "Acknowledged, not yet at the origin.", [p.pending_writes for p in policies]),
            (
                "pulsecache_pending_write_oldest_age_seconds",
                "Age of the oldest pending write.",
                [p.pending_oldest_age_s for p in policies],
            ),
            ("pulsecache_dead_letters", "Writes that the origin refused.", [p.dead_letters for p in policies]),
        ):
            yield _gauge(name, text, "policy", zip((p.policy for p in policies), values, strict=True))


def _info(name: str, text: str, version: str) -> Metric:
    family = InfoMetricFamily(name, text)
    family.add_metric((), {"version": version})
    return family


def _counter(name: str, text: str, labels: Sequence[str], counts: Mapping[Any, int]) -> Metric:
    family = CounterMetricFamily(name, text, labels=labels)
    for key, count in counts.items():
        family.add_metric(key, count)
    return family


def _gauge(name: str, text: str, label: str, values: Iterable[tuple[str, float | None]]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=(label,))
    for key, value in values:
        if value is not None:
            family.add_metric((key,), value)
    return family


def _histogram(name: str, text: str, histograms: dict[str, Histogram]) -> Metric:
    family = HistogramMetricFamily(name, text, labels=("policy",))
    for policy, histogram in histograms.items():
        family.add_metric((policy,), histogram.buckets(), histogram.total)
    return family
