"""Upgrade and uninstall, last because they end what the others need."""

from __future__ import annotations

from deployed_shop import RELEASE, Shop
from kube import wait_for
from traffic import traffic


def test_an_upgrade_under_load_fails_no_request(shop: Shop) -> None:
    with traffic(lambda n: f"{shop.url}/products/{n % 20 + 1}", clients=2) as seen:
        shop.install("--set", "controller.replicas=2", "--set", "injector.podAnnotations.turn=second")
        shop.kube.rolled_out("deployment", "pulsecache-injector", RELEASE)
    assert seen.failures == []
    controllers = shop.kube.ready_pods(RELEASE, "app.kubernetes.io/component=controller")
    assert len(controllers) == 2


def test_after_uninstalling_pods_go_on_and_policies_stay(policed_shop: Shop) -> None:
    shop = policed_shop
    shop.kube.helm("uninstall", RELEASE, "-n", RELEASE, "--wait", timeout_s=180)
    assert shop.kube.get("cachepolicy", "products", "shop")["metadata"]["name"] == "products"
    with traffic(lambda n: f"{shop.url}/products/{n % 20 + 1}", clients=2) as seen:
        shop.kube.kubectl("rollout", "restart", "deployment/products", "-n", "shop")
        shop.kube.rolled_out("deployment", "products", "shop")
        wait_for("three pods", lambda: len(shop.pods()) == 3, timeout_s=60)
    assert seen.failures == []
    assert all("initContainers" not in pod["spec"] for pod in shop.pods())
