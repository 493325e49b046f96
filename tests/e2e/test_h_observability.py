"""What Prometheus and Grafana show."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from dashboards import Query, queries
from deployed_shop import NAMESPACE, Shop
from kube import wait_for
from traffic import request

SERIES = 120


@pytest.fixture(scope="module")
def prometheus(policed_shop: Shop) -> str:
    """All kinds of requests have been made, and scraped."""
    shop = policed_shop
    for number in range(1, 10):
        for base in shop.sidecars():
            shop.get(f"/products/{number}", base)
            shop.get(f"/products/{number}", base)
    shop.put(1, "9.99")
    shop.view(1, 1)
    address = f"http://{shop.kube.get('service', 'prometheus', NAMESPACE)['spec']['clusterIP']}:9090"
    wait_for("scraped", lambda: ask(address, "count(pulsecache_requests_total)"), timeout_s=60)
    return address


def ask(address: str, expression: str) -> list[object]:
    answer = request("GET", f"{address}/api/v1/query?query={quote(expression)}")
    assert answer.status == 200, f"{expression}: {answer.body.decode()}"
    found: list[object] = answer.json["data"]["result"]
    return found


@pytest.mark.parametrize("query", queries(), ids=str)
def test_every_expression_of_the_dashboards_returns_data(prometheus: str, query: Query) -> None:
    assert wait_for(f"data for {query}", lambda: ask(prometheus, query.expression), timeout_s=30)


def test_every_sidecar_is_scraped(prometheus: str) -> None:
    assert len(ask(prometheus, "count by (instance) (pulsecache_build_info)")) >= 4


def test_a_sidecar_shows_at_most_120_series(policed_shop: Shop) -> None:
    for pod in policed_shop.pods():
        text = request("GET", f"http://{pod['status']['podIP']}:15090/metrics").body.decode()
        assert len([line for line in text.splitlines() if line and not line.startswith("#")]) <= SERIES


def test_the_operator_tells_of_its_work(prometheus: str) -> None:
    for name in ("pulsecache_webhook_requests_total", "pulsecache_reconciles_total", "pulsecache_writer == 1"):
        assert ask(prometheus, name), name


def test_a_request_through_the_service_is_counted(prometheus: str) -> None:
    assert ask(prometheus, 'pulsecache_requests_total{outcome="hit",policy="shop/products"}')
