"""Redis is taken away: the number grows, the state changes, the policy acts, the app goes on."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from deployed_shop import REPLICAS, Shop, elapsed
from kube import wait_for
from traffic import traffic


@pytest.fixture
def redis_comes_back(shop: Shop) -> Iterator[None]:
    yield
    shop.redis(up=True)
    shop.confirmed(timeout_s=120)


def exceeded(shop: Shop) -> bool:
    return shop.states() == ["exceeded"] * REPLICAS


@pytest.mark.usefixtures("redis_comes_back")
def test_without_redis_the_state_is_exceeded_in_time_and_no_request_fails(shop: Shop) -> None:
    spec = shop.policy()["spec"]["staleness"]
    max_s, interval_s = float(spec["max"][:-1]), float(spec["heartbeat"]["interval"][:-1])
    sidecars = shop.sidecars()
    for number in range(1, 11):
        for base in sidecars:
            shop.get(f"/products/{number}", base)
    with traffic(lambda n: f"{sidecars[n % 3]}/products/{n % 10 + 1}", clients=3) as seen:
        shop.redis(up=False)
        gone = time.monotonic()
        wait_for("exceeded everywhere", lambda: exceeded(shop), timeout_s=30, every_s=0.1)
        took_s = elapsed(gone)
        largest_s = seen.largest_bound_s
    print(f"exceeded {took_s:.1f} s after Redis was gone; largest bound said {largest_s:.2f} s")
    assert took_s <= max_s + interval_s + 0.5, "0.5 s for looking"
    assert seen.failures == []
    assert seen.states["unconfirmed"] > 0
    assert largest_s <= max_s, "Revalidate: nothing staler than max is served"


@pytest.mark.usefixtures("redis_comes_back")
def test_the_consumer_serves_stale_and_says_so(shop: Shop) -> None:
    pod = shop.pods("storefront")[0]
    page = f"http://{pod['status']['podIP']}:8080"
    assert shop.get("/products/3", page).status == 200
    shop.redis(up=False)
    wait_for("exceeded at the consumer", lambda: set(shop.states("storefront")) == {"exceeded"}, timeout_s=30)
    answer = shop.get("/products/3", page)
    assert answer.status == 200
    assert "old" in answer.body.decode(), "the page tells its visitor"


@pytest.mark.usefixtures("redis_comes_back")
def test_fail_turns_the_feature_off(shop: Shop) -> None:
    shop.apply_policy(shop.with_spec(staleness={"whenExceeded": "Fail"}))
    shop.confirmed()
    shop.redis(up=False)
    wait_for("exceeded", lambda: exceeded(shop), timeout_s=30)
    answer = shop.get("/products/1")
    assert answer.status == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert shop.get("/stats").status == 200, "what no rule matches goes on"


@pytest.mark.usefixtures("redis_comes_back")
def test_bypass_goes_to_the_origin(shop: Shop) -> None:
    shop.apply_policy(shop.with_spec(staleness={"whenExceeded": "Bypass"}))
    shop.confirmed()
    base = shop.sidecars()[0]
    shop.get("/products/2", base)
    shop.redis(up=False)
    wait_for("exceeded", lambda: exceeded(shop), timeout_s=30)
    wait_for(
        "its own bound beyond max",
        lambda: "fwd=bypass" in shop.get("/products/2", base).cache_status,
        timeout_s=20,
    )
    assert shop.get("/products/2", base).bound_s == 0


def test_the_state_is_in_the_policys_status_and_events(shop: Shop) -> None:
    shop.redis(up=False)
    wait_for("exceeded", lambda: exceeded(shop), timeout_s=30)
    shop.redis(up=True)
    shop.confirmed(timeout_s=120)
    wait_for("status", lambda: shop.status()["staleness"]["state"] == "Confirmed", timeout_s=60)
    reasons = {e["reason"] for e in shop.kube.items("events", "shop") if e["involvedObject"]["kind"] == "CachePolicy"}
    assert "StalenessConfirmed" in reasons
