"""What the injector keeps at hand of the cluster."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from pods import service
from pulsecache_operator.injector.view import Namespaces, Objects, Policies, View, keep_namespace, keep_service


def policy(name: str, max_s: int = 5, *, uid: str = "u", namespace: str = "shop", **spec: Any) -> dict[str, Any]:
    """As a LIST has it: without kind."""
    return {
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": uid,
            "generation": 1,
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "resourceVersion": "7",
            "managedFields": [],
        },
        "spec": {"targetRef": {"name": name}, "staleness": {"max": f"{max_s}s"}} | spec,
        "status": {"conditions": []},
    }


def broken(name: str, **more: Any) -> dict[str, Any]:
    return policy(name, **more) | {"spec": {"mode": "Nonsense"}}


def known(policies: Policies, namespace: str = "shop") -> dict[str, float]:
    return {policy.name: policy.staleness.max_s for policy in policies.of(namespace)}


def test_policies_are_kept_by_namespace_with_their_age() -> None:
    policies = Policies()
    policies.replace([policy("a"), policy("b"), policy("c", namespace="other")])
    assert known(policies) == {"a": 5, "b": 5}
    assert {p.created for p in policies.of("shop")} == {"2026-01-01T00:00:00Z"}
    policies.put({"kind": "CachePolicy", "apiVersion": "pulsecache.dev/v1alpha1", **policy("b", 9)})
    policies.drop(policy("a"))
    policies.drop(policy("a"))
    assert known(policies) == {"b": 9}
    policies.replace([policy("z")])
    assert known(policies) == {"z": 5}
    assert known(policies, "other") == {}


@pytest.mark.parametrize("how", ["put", "replace"])
def test_the_last_good_one_stays_in_force_when_a_bad_one_comes(how: str, caplog: pytest.LogCaptureFixture) -> None:
    policies = Policies()
    policies.put(policy("a", 7))
    bad = broken("a")
    policies.put(bad) if how == "put" else policies.replace([bad])
    assert known(policies) == {"a": 7}
    assert "CachePolicy shop/a cannot be read, its last good version stays in force" in caplog.text
    assert "mode" in caplog.text


def test_a_bad_one_of_which_no_good_one_is_known_is_not_in_force(caplog: pytest.LogCaptureFixture) -> None:
    policies = Policies()
    policies.replace([broken("a"), policy("b")])
    assert known(policies) == {"b": 5}
    assert "it is not in force" in caplog.text


def test_a_new_one_of_the_same_name_does_not_inherit_from_the_deleted_one() -> None:
    policies = Policies()
    policies.put(policy("a", uid="first"))
    policies.put(broken("a", uid="second"))
    assert known(policies) == {}


def test_of_a_service_only_what_decides_is_kept() -> None:
    full = service("products", {"name": "http", "port": 80, "targetPort": "http", "nodePort": 30000})
    full["metadata"] |= {"managedFields": [{}], "annotations": {"a": "b"}, "uid": "x"}
    full["spec"] |= {"clusterIP": "10.0.0.1", "type": "NodePort"}
    full["status"] = {}
    assert keep_service(full) == {
        "metadata": {"name": "products", "namespace": "shop"},
        "spec": {
            "type": "NodePort",
            "selector": {"app": "products"},
            "ports": [{"name": "http", "port": 80, "targetPort": "http"}],
        },
    }
    assert keep_service({"metadata": {"name": "x", "namespace": "y"}})["spec"]["ports"] == []


def test_services_come_and_go() -> None:
    services = Objects()
    services.replace([service("a"), service("b")])
    services.put(service("a", selector={"app": "new"}))
    services.drop(service("b"))
    (left,) = services.of("shop")
    assert left["spec"]["selector"] == {"app": "new"}
    services.drop(service("a"))
    services.drop(service("a"))
    assert services.of("shop") == []


def test_a_namespace_that_is_not_known_yet_has_no_labels() -> None:
    namespaces = Namespaces()
    full = {"metadata": {"name": "shop", "labels": {"a": "b"}, "managedFields": []}}
    namespaces.replace([keep_namespace(full)])
    assert namespaces.get("shop") == {"metadata": {"name": "shop", "labels": {"a": "b"}}}
    assert namespaces.get("new") == {"metadata": {"name": "new"}}
    namespaces.put(keep_namespace({"metadata": {"name": "new", "labels": {"c": "d"}}}))
    namespaces.drop(full)
    assert namespaces.get("new")["metadata"]["labels"] == {"c": "d"}
    assert namespaces.get("shop") == {"metadata": {"name": "shop"}}


def test_an_empty_view_answers_everything(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    view = View()
    assert view.policies_of("x") == []
    assert view.services_of("x") == []
    assert view.namespace("x") == {"metadata": {"name": "x"}}
    assert not caplog.messages
