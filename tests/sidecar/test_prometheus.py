"""What a scrape shows."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from pulsecache_sidecar.adapters.prometheus import DatasetGauges, Gauges, Metrics, PolicyGauges


def samples(metrics: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    families = text_string_to_metric_families(metrics.exposition().decode())
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return samples(metrics).get((name, frozenset(labels.items())))


def test_requests_are_counted_by_policy_rule_and_outcome() -> None:
    metrics = Metrics("1", Gauges)
    for outcome in ("hit", "hit", "miss"):
        metrics.request("shop/products", "product", outcome, None)
    assert value(metrics, "pulsecache_requests_total", policy="shop/products", rule="product", outcome="hit") == 2


def test_the_bound_is_a_cumulative_histogram_in_seconds() -> None:
    metrics = Metrics("1", Gauges)
    for bound in (0.01, 0.3, 700.0):
        metrics.request("a/b", "r", "hit", bound)
    name = "pulsecache_served_staleness_bound_seconds"
    assert value(metrics, f"{name}_bucket", policy="a/b", le="0.01") == 1
    assert value(metrics, f"{name}_bucket", policy="a/b", le="0.5") == 2
    assert value(metrics, f"{name}_bucket", policy="a/b", le="600.0") == 2
    assert value(metrics, f"{name}_bucket", policy="a/b", le="+Inf") == 3
    assert value(metrics, f"{name}_count", policy="a/b") == 3
    assert value(metrics, f"{name}_sum", policy="a/b") == 700.31


def test_the_state_is_one_of_four() -> None:
    metrics = Metrics("1", lambda: Gauges(datasets=(DatasetGauges("a/b", "exceeded", 5.0, 9.5, None),)))
    found = {
        state: value(metrics, "pulsecache_staleness_state", dataset="a/b", state=state) for state in Metrics.STATES
    }
    assert found == {"confirmed": 0, "unconfirmed": 0, "exceeded": 1, "uncovered": 0}
    assert value(metrics, "pulsecache_staleness_bound_seconds", dataset="a/b") == 9.5
    assert value(metrics, "pulsecache_heartbeat_age_seconds", dataset="a/b") is None


def test_a_pod_shows_at_most_120_series_however_many_rules_there_are() -> None:
    gauges = Gauges(
        datasets=tuple(DatasetGauges(f"n/{i}", "confirmed", 5.0, 0.1, 0.1) for i in range(10)),
        policies=tuple(PolicyGauges(f"n/{i}", 1, 0, 0.0, 0) for i in range(10)),
    )
    metrics = Metrics("1", lambda: gauges)
    for policy in range(10):
        for rule in range(20):
            for outcome in ("hit", "miss", "stale"):
                metrics.request(f"n/{policy}", f"r{rule}", outcome, 0.1)
        metrics.origin(f"n/{policy}", 0.1)
        for result in ("applied", "rejected", "older"):
            metrics.policy_reload(f"n/{policy}", result)
    for result in ("ok", "error", "short-circuit"):
        metrics.hub_call(result)
    assert len(samples(metrics)) <= 120
    counted = sum(v for (name, _), v in samples(metrics).items() if name == "pulsecache_requests_total")
    assert counted == 600, "what does not fit is counted as other, never lost"


def test_every_family_has_help_and_a_unit_in_its_name() -> None:
    text = Metrics("1", Gauges).exposition().decode()
    typed = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    told = {line.split()[2] for line in text.splitlines() if line.startswith("# HELP") and len(line.split()) > 3}
    assert typed == told
