"""The controller's metrics (docs/architecture.md, "Metrics"), in a registry of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from pulsecache_operator.watch import Watch

_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_STATES = ("selected", "injected", "in-sync", "uninjected")


class Metrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self.policies = Gauge("pulsecache_policies", "CachePolicies in the cluster.", registry=self.registry)
        self.reconciles = Counter(
            "pulsecache_reconciles",
            "Turns of the work queue, by result (ok, error).",
            ["result"],
            registry=self.registry,
        )
        self.duration = Histogram(
            "pulsecache_reconcile_duration_seconds",
            "Duration of a turn of the work queue.",
            buckets=_BUCKETS_S,
            registry=self.registry,
        )
        self._pods = Gauge(
            "pulsecache_pods",
            "Live pods that a policy is about, by state (selected, injected, in-sync, uninjected).",
            ["namespace", "policy", "state"],
            registry=self.registry,
        )
        self._certificate_expiry = Gauge(
            "pulsecache_certificate_expiry_timestamp_seconds",
            "When the webhook's certificate ends, Unix time.",
            registry=None,
        )
        self._expiry_known = False
        self.writer = Gauge(
            "pulsecache_writer", "1 where this replica holds the writer's Lease, else 0.", registry=self.registry
        )
        self.fenced = Counter(
            "pulsecache_fenced_publishers",
            "Publishers that were removed because they are dead.",
            ["dataset"],
            registry=self.registry,
        )
        self._watch_age = Gauge(
            "pulsecache_watch_last_event_age_seconds",
            "Since the API server was last heard of on this watch.",
            ["resource"],
            registry=self.registry,
        )
        for result in ("ok", "error"):
            self.reconciles.labels(result)

    def follow(self, watches: Iterable[Watch], *, policies: Callable[[], float]) -> None:
        for watch in watches:
            self._watch_age.labels(watch.resource.name).set_function(watch.last_event_age_s)
        self._watch_age.labels("cachepolicies").set_function(policies)

    def pods(self, key: str, *, selected: int, injected: int, in_sync: int, uninjected: int) -> None:
        namespace, _, name = key.partition("/")
        for state, value in zip(_STATES, (selected, injected, in_sync, uninjected), strict=True):
            self._pods.labels(namespace, name, state).set(value)

    def expires(self, end: datetime) -> None:
        """Before it is known there is no such series: a 0 would say that it ended long ago."""
        self._certificate_expiry.set(end.timestamp())
        if not self._expiry_known:
            self._expiry_known = True
            self.registry.register(self._certificate_expiry)

    def forget_pods(self) -> None:
        """Who has lost the writer's role counts no longer: the sum over the replicas would count twice."""
        self._pods.clear()

    def forget(self, key: str) -> None:
        """A policy that is gone has no series any more."""
        namespace, _, name = key.partition("/")
        for state in _STATES:
            try:
                self._pods.remove(namespace, name, state)
            except KeyError:
                return
