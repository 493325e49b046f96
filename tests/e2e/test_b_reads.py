"""What a client of the Service sees."""

from __future__ import annotations

import http.client

from deployed_shop import HOST, NAMESPACE, Shop
from kube import wait_for
from traffic import request


def test_an_answer_from_the_cache_says_how_stale_it_may_be(shop: Shop) -> None:
    base = shop.sidecars()[0]
    shop.get("/products/11", base)
    answer = shop.get("/products/11", base)
    assert answer.hit
    assert answer.state == "confirmed"
    assert answer.bound_s is not None
    assert 0 < answer.bound_s < 2.5
    assert int(answer.headers["age"]) >= 0


def test_replicas_share_what_they_fetched(shop: Shop) -> None:
    first, second, _ = shop.sidecars()
    shop.get("/products/12", first)
    wait_for("a hit through another replica", lambda: shop.get("/products/12", second).hit, timeout_s=5)


def test_what_no_rule_matches_passes_through(shop: Shop) -> None:
    answer = shop.get("/stats")
    assert answer.status == 200
    assert "pulse-staleness" not in answer.headers


def test_a_request_with_credentials_gets_no_shared_answer(shop: Shop) -> None:
    base = shop.sidecars()[0]
    shop.get("/products/13", base)
    assert shop.get("/products/13", base).hit
    for name in ("Authorization", "Cookie"):
        answer = shop.get("/products/13", base, **{name: "of=alice"})
        assert answer.status == 200
        assert not answer.hit


def test_a_validator_saves_the_body(shop: Shop) -> None:
    base = shop.sidecars()[0]
    tag = shop.get("/products/14", base).headers["etag"]
    answer = shop.get("/products/14", base, If_None_Match=tag)
    assert (answer.status, answer.body) == (304, b"")


def test_too_much_of_a_head_is_refused_and_harms_nobody(shop: Shop) -> None:
    assert request("GET", f"{shop.url}/products/1", headers={**HOST, "X": "a" * 100_000}).status == 431
    assert request("GET", f"{shop.url}/products/1?{'a' * 20_000}", headers=HOST).status == 414
    assert shop.get("/products/1").status == 200


def test_a_large_body_passes_to_the_app(shop: Shop) -> None:
    """The app refuses it by its own limit: the sidecar takes part in that as a mere way."""
    answer = request("PUT", f"{shop.url}/products/1", b"{" + b" " * 3_000_000, headers=HOST)
    assert 400 <= answer.status < 500


def test_the_consumers_sidecar_is_its_local_address(shop: Shop) -> None:
    pod = shop.pods("storefront")[0]
    env = {e["name"]: e.get("value") for e in pod["spec"]["containers"][0]["env"]}
    assert env["PRODUCTS_URL"].startswith("http://127.0.0.1:15180")
    page = f"http://{pod['status']['podIP']}:8080/products/15"
    assert request("GET", page).status == 200
    assert request("GET", page).status == 200
    metrics = request("GET", f"http://{pod['status']['podIP']}:15090/metrics").body.decode()
    assert 'policy="shop/storefront"' in metrics
    assert 'outcome="hit"' in metrics


def test_the_admin_listener_changes_nothing_for_strangers(shop: Shop) -> None:
    address = shop.pods()[0]["status"]["podIP"]
    for path in ("/-/livez", "/-/readyz", "/metrics", "/-/staleness"):
        assert request("GET", f"http://{address}:15090{path}").status == 200
    assert request("POST", f"http://{address}:15090/-/purge?dataset=shop/products&tag=products").status == 403
    assert request("GET", f"http://{address}:15090/-/dead-letters").status == 403


def test_keep_alive_and_pipelining_hold_through_the_service(shop: Shop) -> None:
    connection = http.client.HTTPConnection(shop.url.removeprefix("http://"), timeout=10)
    for number in range(1, 30):
        connection.request("GET", f"/products/{number}", headers=HOST)
        response = connection.getresponse()
        assert response.status == 200
        assert f'"id":{number},'.encode() in response.read()
    connection.close()


def test_the_app_is_reached_past_the_cache_by_its_probes(shop: Shop) -> None:
    for pod in shop.kube.ready_pods(NAMESPACE, "app.kubernetes.io/name=products"):
        app = pod["spec"]["containers"][0]
        assert app["readinessProbe"]["httpGet"]["port"] == "pulse-app"
        assert {p["name"]: p["containerPort"] for p in app["ports"]} == {"http": 15080, "pulse-app": 8080}
