"""An app that is slow, hung or dead behind its sidecar."""

from __future__ import annotations

import signal

from containers import send
from deployed_shop import Shop
from kube import wait_for
from traffic import request


def test_a_hung_app_gives_a_clear_answer_in_time_and_what_is_cached_goes_on(shop: Shop) -> None:
    shop.apply_policy(shop.with_spec(origin={"timeout": "2s"}))
    pod = shop.pods()[0]
    base = f"http://{pod['status']['podIP']}:15080"
    shop.get("/products/71", base)
    assert shop.get("/products/71", base).hit
    send(pod, "products", signal.SIGSTOP)
    try:
        assert shop.get("/products/71", base).hit
        answer = shop.get("/products/72", base)
        assert answer.status == 504
        assert answer.headers["content-type"] == "application/problem+json"
        assert 1.5 < answer.took_s < 6
    finally:
        send(pod, "products", signal.SIGCONT)
    wait_for("the app again", lambda: shop.get("/products/72", base).status == 200, timeout_s=30)
    wait_for("all Ready", lambda: len(shop.pods()) == 3, timeout_s=60)


def test_a_dead_app_gives_a_bad_gateway_and_comes_back(shop: Shop) -> None:
    pod = shop.pods()[0]
    base = f"http://{pod['status']['podIP']}:15080"
    send(pod, "products", signal.SIGKILL)
    answer = shop.get("/products/73", base)
    assert answer.status in (200, 502)
    wait_for("the app again", lambda: shop.get("/products/73", base).status == 200, timeout_s=60)
    wait_for("all Ready", lambda: len(shop.pods()) == 3, timeout_s=60)


def test_a_database_that_is_away_is_the_apps_error_not_ours(shop: Shop) -> None:
    shop.get("/products/74")
    shop.stop_database()
    try:
        answer = shop.get("/products/75", shop.sidecars()[0])
        assert answer.status == 503
        assert request("GET", f"{shop.url}/healthz").status == 200
    finally:
        shop.start_database()
    wait_for("answers again", lambda: shop.get("/products/75").status == 200, timeout_s=30)
