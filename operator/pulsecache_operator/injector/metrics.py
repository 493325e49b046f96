"""The injector's metrics (docs/architecture.md, "Metrics"), in a registry of their own."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from pulsecache_operator.watch import Watch

_BUCKETS_S = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0)


class Metrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self.requests = Counter(
            "pulsecache_webhook_requests",
            "Reviews that were answered, by what was done and why.",
            ["result", "reason"],
            registry=self.registry,
        )
        self.duration = Histogram(
            "pulsecache_webhook_duration_seconds",
            "From the first byte of a review's body read to its answer.",
            buckets=_BUCKETS_S,
            registry=self.registry,
        )
        self.certificate_expiry = Gauge(
            "pulsecache_certificate_expiry_timestamp_seconds",
            "When the webhook's certificate ends, Unix time.",
            registry=self.registry,
        )
        self.events = Counter(
            "pulsecache_events",
            "Events about pods without a sidecar, by what became of them (posted, repeated, dropped, failed).",
            ["result"],
            registry=self.registry,
        )
        self._watch_age = Gauge(
            "pulsecache_watch_last_event_age_seconds",
            "Since the API server was last heard of on this watch.",
            ["resource"],
            registry=self.registry,
        )
        for result in ("posted", "repeated", "dropped", "failed"):
            self.events.labels(result)

    def follow(self, watches: Iterable[Watch]) -> None:
        for watch in watches:
            self._watch_age.labels(watch.resource.name).set_function(watch.last_event_age_s)
