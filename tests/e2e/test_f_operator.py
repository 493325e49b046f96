"""Edits, bad edits, deletions, and the operator's own deaths."""

from __future__ import annotations

import time

import pytest

from containers import restarts
from deployed_shop import HOST, NAMESPACE, RELEASE, Shop, elapsed
from kube import CommandError, wait_for
from traffic import request, traffic


def generations(shop: Shop) -> set[int]:
    return {policy["generation"] for report in shop.reports() for policy in report["policies"]}


def test_an_edit_is_in_force_in_all_running_pods_within_5_s_without_a_restart(shop: Shop) -> None:
    before = {pod["metadata"]["uid"]: restarts(pod) for pod in shop.pods()}
    reads = shop.policy()["spec"]["reads"]
    reads[0]["ttl"]["duration"] = "33s"
    started = time.monotonic()
    shop.kube.apply(shop.with_spec(reads=reads))
    generation = shop.kube.get("cachepolicy", "products", NAMESPACE)["metadata"]["generation"]
    wait_for("the edit everywhere", lambda: generations(shop) == {generation}, timeout_s=20, every_s=0.1)
    took_s = elapsed(started)
    print(f"edit in force in all pods after {took_s:.1f} s")
    assert took_s < 5
    base = shop.sidecars()[0]
    shop.get("/products/61", base)
    answer = shop.get("/products/61", base)
    assert any(f"ttl={ttl}" in answer.cache_status for ttl in (33, 32, 31))
    assert {pod["metadata"]["uid"]: restarts(pod) for pod in shop.pods()} == before


def test_the_off_switch_is_in_force_within_5_s(shop: Shop) -> None:
    base = shop.sidecars()[0]
    shop.get("/products/62", base)
    started = time.monotonic()
    shop.kube.patch("cachepolicy", "products", NAMESPACE, {"spec": {"mode": "Bypass"}})
    wait_for("bypass", lambda: "fwd=bypass" in shop.get("/products/62", base).cache_status, timeout_s=20, every_s=0.1)
    assert elapsed(started) < 5
    shop.kube.patch("cachepolicy", "products", NAMESPACE, {"spec": {"mode": "Serve"}})
    wait_for("hits again", lambda: shop.get("/products/62", base).hit, timeout_s=20)


def test_no_request_fails_while_the_policy_is_edited_under_load(shop: Shop) -> None:
    with traffic(lambda n: f"{shop.url}/products/{n % 20 + 1}", clients=3) as seen:
        for turn in range(10):
            reads = shop.policy()["spec"]["reads"]
            reads[0]["ttl"]["duration"] = f"{20 + turn}s"
            mode = "Bypass" if turn % 4 == 3 else "Serve"
            settle = "6s" if turn % 3 == 0 else "5s"
            shop.apply_policy(shop.with_spec(reads=reads, mode=mode, staleness={"settle": settle}), timeout_s=60)
    assert seen.failures == []
    assert seen.answers > 200


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"mode": "Sometimes"}, "spec.mode"),
        ({"staleness": {"max": "1s", "heartbeat": {"interval": "2s"}}}, "spec.staleness.heartbeat.interval"),
        ({"consumer": {"selector": {"matchLabels": {"a": "b"}}, "upstream": "http://x", "env": ["X"]}}, "spec"),
        ({"speed": "high"}, "speed"),
    ],
)
def test_a_bad_policy_is_refused_when_it_is_applied(shop: Shop, changes: dict[str, object], path: str) -> None:
    before = shop.kube.get("cachepolicy", "products", NAMESPACE)["metadata"]["generation"]
    with pytest.raises(CommandError, match=path):
        shop.kube.apply(shop.with_spec(**changes))
    assert shop.kube.get("cachepolicy", "products", NAMESPACE)["metadata"]["generation"] == before


def test_a_controller_that_is_killed_takes_up_where_it_was(shop: Shop) -> None:
    pod = shop.kube.ready_pods(RELEASE, "app.kubernetes.io/component=controller")[0]
    shop.kube.kubectl("delete", "pod", pod["metadata"]["name"], "-n", RELEASE, "--grace-period=0", "--force")
    for number in range(1, 10):
        assert shop.get(f"/products/{number}").status == 200
    reads = shop.policy()["spec"]["reads"]
    reads[0]["ttl"]["duration"] = "44s"
    shop.apply_policy(shop.with_spec(reads=reads), timeout_s=120)


def test_a_deleted_policy_leaves_pods_that_pass_everything_through(shop: Shop) -> None:
    before = {pod["metadata"]["uid"] for pod in shop.pods()}
    with traffic(lambda n: f"{shop.url}/products/{n % 20 + 1}", clients=2) as seen:
        shop.kube.kubectl("delete", "cachepolicy", "products", "-n", NAMESPACE)
        bases = shop.sidecars()
        wait_for(
            "pass-through everywhere",
            lambda: all("cache-status" not in shop.get("/products/1", base).headers for base in bases),
            timeout_s=30,
        )
        tombstone = shop.kube.get("configmap", "pulsecache-products", NAMESPACE)
        assert '"tombstone":true' in tombstone["data"]["bundle.json"]
        shop.apply_policy(shop.policy())
        wait_for("hits again", lambda: shop.get("/products/1").hit, timeout_s=30)
    assert seen.failures == []
    assert {pod["metadata"]["uid"] for pod in shop.pods()} == before, "nothing was rolled"


def test_kubectl_shows_what_people_want_to_know(shop: Shop) -> None:
    table = shop.kube.kubectl("get", "pcp", "-n", NAMESPACE)
    assert table.splitlines()[0].split()[:3] == ["NAME", "READY", "MODE"]
    assert "products" in table


def test_a_policy_that_does_not_roll_tells_the_command_instead(shop: Shop) -> None:
    kube = shop.kube
    from little_app import app, namespace, policy, service, started

    with namespace(kube, "e2e-no-roll") as where:
        kube.apply(service(where), app(where))
        pod = started(kube, where, with_sidecar=False)
        kube.apply(policy(where, rollout={"strategy": "None"}))

        def told() -> bool:
            conditions = kube.get("cachepolicy", "web", where)["status"]["conditions"]
            return any("kubectl" in c["message"] and "rollout restart" in c["message"] for c in conditions)

        wait_for("the command in a condition", told, timeout_s=60)
        assert kube.get("pod", pod["metadata"]["name"], where)["metadata"]["uid"] == pod["metadata"]["uid"]
        kube.kubectl("rollout", "restart", "deployment/web", "-n", where)
        started(kube, where, with_sidecar=True)


def test_requests_to_each_replica_work_by_pod_address(shop: Shop) -> None:
    for base in shop.sidecars():
        assert request("GET", f"{base}/products/2", headers=HOST).status == 200
