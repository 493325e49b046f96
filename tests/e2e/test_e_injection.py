"""Which pods get a sidecar, and what happens to those that do not."""

from __future__ import annotations

import signal

from containers import restarts, send
from deployed_shop import HOST, RELEASE, Shop
from kube import wait_for
from little_app import app, condition, namespace, policy, service, started
from traffic import request


def test_in_a_restricted_namespace_pods_start_with_their_sidecar(shop: Shop) -> None:
    kube = shop.kube
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    with namespace(kube, "e2e-restricted", labels) as where:
        kube.apply(service(where), policy(where), app(where))
        pod = started(kube, where, with_sidecar=True)
        base = f"http://{pod['status']['podIP']}:15080"
        assert request("GET", f"{base}/hostname", headers=HOST).status == 200
        assert request("GET", f"{base}/hostname", headers=HOST).hit


def test_pods_that_opted_out_are_left_alone(shop: Shop) -> None:
    kube = shop.kube
    with namespace(kube, "e2e-optout") as where:
        deployment = app(where)
        deployment["spec"]["template"]["metadata"]["labels"]["pulsecache.dev/inject"] = "false"
        kube.apply(service(where), policy(where), deployment)
        started(kube, where, with_sidecar=False)


def test_a_namespace_that_opted_out_is_left_alone(shop: Shop) -> None:
    kube = shop.kube
    with namespace(kube, "e2e-optout-all", {"pulsecache.dev/inject": "false"}) as where:
        kube.apply(service(where), policy(where), app(where))
        started(kube, where, with_sidecar=False)


def test_a_pod_in_the_hosts_network_is_left_alone(shop: Shop) -> None:
    kube = shop.kube
    with namespace(kube, "e2e-hostnet") as where:
        deployment = app(where, hostNetwork=True)
        container = deployment["spec"]["template"]["spec"]["containers"][0]
        container["command"][3] = "18080"
        container["ports"][0]["containerPort"] = 18080
        kube.apply(service(where), policy(where), deployment)
        started(kube, where, with_sidecar=False)


def test_a_numeric_target_port_is_told_with_the_fix_and_the_pod_left_alone(shop: Shop) -> None:
    kube = shop.kube
    with namespace(kube, "e2e-numeric") as where:
        kube.apply(service(where, target=8080), policy(where), app(where))
        started(kube, where, with_sidecar=False)
        found = condition(kube, where, "Placed", "NumericTargetPort")
        assert found["status"] == "False"
        assert "targetPort" in found["message"]


def test_a_port_that_is_not_http_is_told_with_the_fix(shop: Shop) -> None:
    kube = shop.kube
    with namespace(kube, "e2e-tls") as where:
        kube.apply(service(where, appProtocol="https"), policy(where), app(where))
        started(kube, where, with_sidecar=False)
        assert condition(kube, where, "Placed", "UnsupportedProtocol")["status"] == "False"
        kube.apply(service(where, appProtocol="kubernetes.io/h2c"))
        assert condition(kube, where, "Placed", "UnsupportedProtocol")["status"] == "False"


def test_a_missing_service_is_told_and_found_when_it_comes(shop: Shop) -> None:
    kube = shop.kube
    with namespace(kube, "e2e-missing") as where:
        kube.apply(policy(where), app(where))
        started(kube, where, with_sidecar=False)
        assert condition(kube, where, "Placed", "ServiceMissing")["status"] == "False"
        kube.apply(service(where))
        condition(kube, where, "Placed", "Placed")
        started(kube, where, with_sidecar=True)


def test_of_two_policies_for_one_port_the_older_wins(shop: Shop) -> None:
    kube = shop.kube
    with namespace(kube, "e2e-conflict") as where:
        kube.apply(service(where), policy(where, "older"))
        condition(kube, where, "Placed", "Placed", "older")
        wait_for(
            "another second of creation",
            lambda: kube.kubectl("get", "--raw", "/healthz") and _later_than(shop, where, "older"),
            timeout_s=10,
        )
        kube.apply(policy(where, "younger"), app(where))
        found = condition(kube, where, "Placed", "Conflict", "younger")
        assert "older" in found["message"]
        pod = started(kube, where, with_sidecar=True)
        assert "older=" in str(pod["spec"]["initContainers"][0]["args"])
        assert "younger=" not in str(pod["spec"]["initContainers"][0]["args"])


def _later_than(shop: Shop, where: str, name: str) -> bool:
    """Creation times are whole seconds: an object made now must get a later one."""
    probe = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "clock", "namespace": where}}
    shop.kube.kubectl("delete", "configmap", "clock", "-n", where, "--ignore-not-found")
    shop.kube.apply(probe)
    made = shop.kube.get("configmap", "clock", where)["metadata"]["creationTimestamp"]
    return made > shop.kube.get("cachepolicy", name, where)["metadata"]["creationTimestamp"]


def test_with_the_webhook_down_pods_start_are_counted_and_healed(shop: Shop) -> None:
    kube = shop.kube
    kube.scale("deployment", "pulsecache-injector", RELEASE, 0)
    try:
        wait_for("no injector", lambda: not _injectors(shop), timeout_s=90)
        with namespace(kube, "e2e-webhook-down") as where:
            kube.apply(service(where), policy(where), app(where))
            started(kube, where, with_sidecar=False)
            wait_for(
                "counted as selected and not injected",
                lambda: _pods(shop, where) == (1, 0),
                timeout_s=60,
            )
            kube.scale("deployment", "pulsecache-injector", RELEASE, 2)
            kube.rolled_out("deployment", "pulsecache-injector", RELEASE)
            started(kube, where, with_sidecar=True)
            wait_for("counted as injected", lambda: _pods(shop, where) == (1, 1), timeout_s=60)
    finally:
        kube.scale("deployment", "pulsecache-injector", RELEASE, 2)
        kube.rolled_out("deployment", "pulsecache-injector", RELEASE)


def _injectors(shop: Shop) -> list[object]:
    return list(shop.kube.items("pods", RELEASE, "app.kubernetes.io/component=injector"))


def _pods(shop: Shop, where: str) -> tuple[int, int]:
    found = shop.kube.get("cachepolicy", "web", where)["status"]["pods"]
    return found["selected"], found["injected"]


def test_one_injector_killed_is_no_pod_missed(shop: Shop) -> None:
    kube = shop.kube
    victim = kube.ready_pods(RELEASE, "app.kubernetes.io/component=injector")[0]
    with namespace(kube, "e2e-one-injector") as where:
        kube.apply(service(where), policy(where))
        condition(kube, where, "Placed", "Placed")
        send(victim, "injector", signal.SIGKILL)
        kube.apply(app(where))
        started(kube, where, with_sidecar=True)
    kube.rolled_out("deployment", "pulsecache-injector", RELEASE)


def test_a_killed_sidecar_comes_back_and_other_replicas_serve_meanwhile(shop: Shop) -> None:
    victim, other, _ = shop.pods()
    before = restarts(victim)
    send(victim, "pulsecache", signal.SIGKILL)
    for _ in range(20):
        assert shop.get("/products/5", f"http://{other['status']['podIP']}:15080").status == 200
    name = victim["metadata"]["name"]
    wait_for(
        "the sidecar again",
        lambda: restarts(shop.kube.get("pod", name, "shop")) == before + 1 and len(shop.pods()) == 3,
        timeout_s=120,
    )
    assert shop.get("/products/5", f"http://{victim['status']['podIP']}:15080").status == 200
    shop.confirmed(timeout_s=60)
