"""A policy for pods that run already: the way in which Helm and Argo CD apply things."""

from __future__ import annotations

import time

from deployed_shop import HOST, NAMESPACE, Shop, elapsed
from kube import wait_for
from traffic import request, traffic


def test_without_a_policy_pods_are_left_alone(bare_shop: Shop) -> None:
    for pod in bare_shop.pods():
        assert [c["name"] for c in pod["spec"]["containers"]] == ["products"]
        assert "initContainers" not in pod["spec"]
    assert "cache-status" not in bare_shop.get("/products/1").headers


def test_a_policy_serves_from_rolled_pods_within_a_minute_and_no_request_fails(bare_shop: Shop) -> None:
    shop = bare_shop
    before = {pod["metadata"]["uid"] for pod in shop.pods()}
    with traffic(lambda n: f"{shop.url}/products/{n % 20 + 1}", clients=2) as seen:
        started = time.monotonic()
        for name in ("products", "storefront"):
            shop.kube.apply(shop.policy(name))

        def rolled() -> bool:
            pods = shop.pods()
            return (
                len(pods) == 3
                and not before & {pod["metadata"]["uid"] for pod in pods}
                and all("pulsecache.dev/status" in pod["metadata"].get("annotations", {}) for pod in pods)
            )

        wait_for("three rolled pods with a sidecar", rolled, timeout_s=60, every_s=1.0)
        wait_for(
            "an answer from the cache",
            lambda: request("GET", f"{shop.url}/products/1", headers=HOST).hit,
            timeout_s=60 - elapsed(started),
        )
        took_s = elapsed(started)
    print(f"policy to cached answers: {took_s:.1f} s, {seen.answers} requests meanwhile")
    assert took_s < 60
    assert seen.failures == []
    assert seen.answers > 100


def test_its_status_tells_of_it(policed_shop: Shop) -> None:
    status = policed_shop.status()
    assert status["pods"] == {"selected": 3, "injected": 3, "inSync": 3}
    assert {c["type"]: c["status"] for c in status["conditions"]}["Ready"] == "True"


def test_the_dataset_becomes_confirmed(policed_shop: Shop) -> None:
    policed_shop.confirmed(timeout_s=60)
    wait_for(
        "status Confirmed",
        lambda: policed_shop.status().get("staleness", {}).get("state") == "Confirmed",
        timeout_s=30,
    )


def test_the_sidecar_is_first_and_meets_the_restricted_standard(policed_shop: Shop) -> None:
    for pod in policed_shop.pods():
        sidecar = pod["spec"]["initContainers"][0]
        assert sidecar["name"] == "pulsecache"
        assert sidecar["restartPolicy"] == "Always"
        assert "ports" not in sidecar
        context = sidecar["securityContext"]
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["readOnlyRootFilesystem"] is True
    slices = policed_shop.kube.items("endpointslices", NAMESPACE, "kubernetes.io/service-name=products")
    assert {port["port"] for found in slices for port in found["ports"]} == {15080}
