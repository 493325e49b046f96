"""The real API server, asked about generated pods: what it takes without the sidecar, it takes with it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, event, given, settings

from apiserver import ApiServer
from kube_http import KubeHttp
from pods import CONFIG, World, pod, server_side, service, worlds
from pulsecache_operator.inject import inject, strip
from pulsecache_operator.selection import Inject

pytestmark = [pytest.mark.api, pytest.mark.timeout(600)]

MANY = settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
NAMESPACES = {"shop": {}, "shop-restricted": {"pod-security.kubernetes.io/enforce": "restricted"}}


@pytest.fixture(scope="module")
def kube(apiserver: ApiServer) -> Iterator[KubeHttp]:
    with KubeHttp(apiserver) as kube:
        for name, labels in NAMESPACES.items():
            status, _ = kube.request("POST", "/api/v1/namespaces", {"metadata": {"name": name, "labels": labels}})
            assert status in (201, 409)
        yield kube


def dry_run(kube: KubeHttp, pod: dict[str, Any], where: str) -> tuple[int, dict[str, Any]]:
    pod = pod | {"metadata": {**pod["metadata"], "namespace": where}}
    status, document = kube.request("POST", f"/api/v1/namespaces/{where}/pods?dryRun=All&fieldValidation=Strict", pod)
    return status, document


def check(kube: KubeHttp, world: World, where: str) -> None:
    decision = world.decide()
    assume(isinstance(decision, Inject))
    assert isinstance(decision, Inject)
    status, plain = dry_run(kube, world.pod, where)
    event(f"without the sidecar: {status}")
    assume(status == 201)
    status, answer = dry_run(kube, inject(world.pod, decision.plan, CONFIG), where)
    assert status == 201, answer

    # A webhook sees pods in which the server has filled in its defaults already, and fills them in again afterwards.
    seen = plain | {"metadata": world.pod["metadata"]}
    assert world.decide(seen) == decision
    status, injected = dry_run(kube, inject(seen, decision.plan, CONFIG), where)
    assert status == 201, injected
    assert inject(injected, decision.plan, CONFIG) == injected
    assert world.decide(injected) == decision
    assert lasting(strip(injected)) == lasting(plain)


def lasting(document: dict[str, Any]) -> Any:
    """Without what is different each time, and without the status (the class of service is one of all containers)."""
    metadata = {
        key: value
        for key, value in document.get("metadata", {}).items()
        if key not in ("name", "uid", "creationTimestamp", "managedFields")
    }
    rest = {key: value for key, value in document.items() if key != "status"}
    return without_empty(rest | ({"metadata": metadata} if metadata else {}))


def without_empty(value: Any) -> Any:
    """The server leaves most of them out; a pod from elsewhere (generated here) may have them."""
    if isinstance(value, dict):
        return {key: without_empty(item) for key, item in value.items() if item not in ([], {})}
    return [without_empty(item) for item in value] if isinstance(value, list) else value


@MANY
@given(world=worlds())
def test_in_an_ordinary_namespace(kube: KubeHttp, world: World) -> None:
    check(kube, world, "shop")


@MANY
@given(world=worlds(restricted=True))
def test_in_a_namespace_with_pod_security_restricted(kube: KubeHttp, world: World) -> None:
    check(kube, world, "shop-restricted")


def test_pod_security_refuses_an_ordinary_pod_so_that_the_above_means_something(kube: KubeHttp) -> None:
    status, answer = dry_run(kube, pod(), "shop-restricted")
    assert status == 403
    assert "restricted" in answer["message"]


def test_a_long_lived_pod_can_be_copied(kube: KubeHttp) -> None:
    """`kubectl get pod -o yaml`, a new name, `kubectl apply`: a manifest that carries an injection already."""
    world = World(pod=pod(), policies=[server_side()], services=[service()])
    decision = world.decide()
    assert isinstance(decision, Inject)
    status, once = dry_run(kube, inject(world.pod, decision.plan, CONFIG), "shop")
    assert status == 201
    copy = once | {"metadata": {"name": "copy", **{key: once["metadata"][key] for key in ("labels", "annotations")}}}
    again = world.decide(copy)
    assert again == decision
    status, answer = dry_run(kube, inject(copy, again.plan, CONFIG), "shop")
    assert status == 201, answer
