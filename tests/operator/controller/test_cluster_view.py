"""What the controller knows: the newer of two versions, no ghosts, and whom a change concerns."""

from __future__ import annotations

from typing import Any

import pytest

from controller_view import KEEPER, pod_document, policy_document, service, workload_document
from pulsecache_operator.controller.api import DEPLOYMENT, Listing
from pulsecache_operator.controller.cluster import Cluster

Document = dict[str, Any]


def version(document: Document, number: int, **more: Any) -> Document:
    return document | {"metadata": document["metadata"] | {"resourceVersion": str(number)}} | more


class Known:
    def __init__(self) -> None:
        self.concerned: list[str] = []
        self.namespaces: list[str] = []
        self.cluster = Cluster(self.concerned.append, self.namespaces.append, own_namespace="pulsecache")
        self.policies = self.cluster.policies

    def asked(self) -> set[str]:
        """Whom the changes since the last question concern."""
        found = set(self.concerned)
        self.concerned.clear()
        return found

    def reads(self, key: str = "shop/products") -> str | None:
        document = self.policies.get(key)
        return document["metadata"]["resourceVersion"] if document else None


@pytest.fixture
def known() -> Known:
    return Known()


PRODUCTS = policy_document()


class TestPolicies:
    def test_an_event_that_comes_late_does_not_bring_back_what_was_before(self, known: Known) -> None:
        known.policies.heard("MODIFIED", version(PRODUCTS, 7))
        known.policies.heard("MODIFIED", version(PRODUCTS, 5))
        assert known.reads() == "7"

    def test_a_list_that_began_earlier_does_not_undo_an_event(self, known: Known) -> None:
        known.policies.heard("ADDED", version(PRODUCTS, 9))
        known.policies.replace(Listing([], "8"))
        assert known.reads() == "9"
        known.policies.replace(Listing([version(PRODUCTS, 7)], "8"))
        assert known.reads() == "9"

    def test_a_list_finds_what_was_deleted_in_a_gap(self, known: Known) -> None:
        known.policies.heard(None, version(PRODUCTS, 3))
        known.asked()
        known.policies.replace(Listing([], "8"))
        assert known.reads() is None
        assert known.asked() == {"shop/products"}

    def test_what_was_deleted_is_not_brought_back_by_a_list_that_began_before(self, known: Known) -> None:
        known.policies.heard(None, version(PRODUCTS, 3))
        known.policies.heard("DELETED", version(PRODUCTS, 6))
        known.policies.replace(Listing([version(PRODUCTS, 3)], "5"))
        assert known.reads() is None

    def test_one_of_the_same_name_is_another_policy(self, known: Known) -> None:
        known.policies.heard(None, version(PRODUCTS, 30))
        again = policy_document(uid="another")
        known.policies.heard("ADDED", version(again, 40))
        known.policies.heard("DELETED", version(PRODUCTS, 35))
        assert known.reads() == "40"

    def test_one_that_turns_invalid_is_known_but_not_valid(self, known: Known) -> None:
        known.policies.heard(None, version(PRODUCTS, 3))
        assert known.policies.valid("shop/products") is not None
        known.policies.heard("MODIFIED", version(policy_document(reads=[{"name": "x"}]), 4))
        assert known.policies.valid("shop/products") is None
        assert known.reads() == "4"

    def test_what_others_wrote_into_managed_fields_is_not_kept(self, known: Known) -> None:
        document = version(PRODUCTS, 3)
        document["metadata"]["managedFields"] = [{"manager": "kubectl"}]
        known.policies.heard(None, document)
        found = known.policies.get("shop/products")
        assert found is not None
        assert "managedFields" not in found["metadata"]


class TestWhomItConcerns:
    @pytest.fixture(autouse=True)
    def _there(self, known: Known) -> None:
        known.cluster.services.replace([service()])
        for name in ("products", "other"):
            known.policies.heard(None, policy_document(name))
        known.policies.heard(
            None,
            policy_document(
                "storefront",
                consumer={"selector": {"matchLabels": {"app": "shop"}}, "upstream": "http://x", "env": ["X"]},
            ),
        )
        known.asked()
        known.namespaces.clear()

    def test_an_edit_concerns_its_own_policy_and_the_namespace(self, known: Known) -> None:
        known.policies.heard("MODIFIED", version(policy_document(generation=2, mode="Bypass"), 2))
        assert known.asked() == {"shop/products"}
        assert known.namespaces == ["shop"]

    def test_what_is_around_is_the_same_until_it_changes(self, known: Known) -> None:
        before = known.cluster.around("shop")
        known.policies.heard("MODIFIED", version(PRODUCTS, 2, status={"pods": {"selected": 1}}))
        known.cluster.pods.put(KEEPER.pod(pod_document("a")))
        assert known.cluster.around("shop") is before
        known.policies.heard("MODIFIED", version(policy_document(generation=2, mode="Bypass"), 3))
        after = known.cluster.around("shop")
        assert after is not before
        assert any(policy.generation == 2 for policy in after.policies)
        known.cluster.services.put(service(target_port=8080))
        assert known.cluster.around("shop") is not after
        known.policies.replace(Listing([], "99"))
        assert known.cluster.around("shop").policies == ()

    def test_a_status_concerns_its_own_policy(self, known: Known) -> None:
        known.policies.heard("MODIFIED", version(PRODUCTS, 2, status={"pods": {"selected": 1}}))
        assert known.asked() == {"shop/products"}
        assert known.namespaces == []

    def test_a_pod_concerns_who_selects_it(self, known: Known) -> None:
        known.cluster.pods.put(KEEPER.pod(pod_document("a")))
        assert known.asked() == {"shop/products", "shop/other"}
        known.cluster.pods.put(KEEPER.pod(pod_document("b", app="shop")))
        assert known.asked() == {"shop/storefront"}
        known.cluster.pods.put(KEEPER.pod(pod_document("c", app="elsewhere")))
        assert known.asked() == set()

    def test_what_nobody_needs_of_a_pod_is_no_change(self, known: Known) -> None:
        known.cluster.pods.put(KEEPER.pod(pod_document("a")))
        known.asked()
        chatty = pod_document("a")
        chatty["metadata"]["resourceVersion"] = "99"
        chatty["status"]["containerStatuses"] = [{"restartCount": 7}]
        known.cluster.pods.put(KEEPER.pod(chatty))
        assert known.asked() == set()

    def test_a_pod_that_changes_sides_concerns_both(self, known: Known) -> None:
        known.cluster.pods.put(KEEPER.pod(pod_document("a")))
        known.asked()
        known.cluster.pods.put(KEEPER.pod(pod_document("a", app="shop")))
        assert known.asked() == {"shop/products", "shop/other", "shop/storefront"}

    def test_pods_that_a_new_list_does_not_have_are_gone(self, known: Known) -> None:
        known.cluster.pods.replace([KEEPER.pod(pod_document("a")), KEEPER.pod(pod_document("b", app="shop"))])
        known.asked()
        known.cluster.pods.replace([KEEPER.pod(pod_document("b", app="shop"))])
        assert known.asked() == {"shop/products", "shop/other"}
        assert [pod["metadata"]["name"] for pod in known.cluster.pods_of("shop")] == ["b"]

    def test_a_workload_concerns_who_selects_its_pods(self, known: Known) -> None:
        known.cluster.workload_sink(DEPLOYMENT).put(KEEPER.workload(workload_document()))
        assert known.asked() == {"shop/products", "shop/other"}

    def test_a_service_and_a_namespace_concern_all_there(self, known: Known) -> None:
        everybody = {"shop/products", "shop/other", "shop/storefront"}
        known.cluster.services.put(service(target_port=8080))
        assert known.asked() == everybody
        known.cluster.namespaces.put({"metadata": {"name": "shop", "labels": {"pulsecache.dev/inject": "false"}}})
        assert known.asked() == everybody
        known.cluster.services.put(service(target_port=8080))
        assert known.asked() == set()


def test_pods_of_one_template_share_what_is_kept_of_it() -> None:
    one, two = (KEEPER.pod(pod_document(name)) for name in "ab")
    assert one["spec"] is two["spec"]
