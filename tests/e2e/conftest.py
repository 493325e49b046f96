"""One cluster, one operator, one shop for all scenarios; run inside the node's network by `make e2e`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from deployed_shop import NAMESPACE, Shop
from kube import Kube, wait_for


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.timeout(420))


@pytest.fixture(scope="session")
def bare_shop() -> Shop:
    """The operator, and the shop's workloads without a policy."""
    shop = Shop(Kube.of_this_machine())
    if shop.kube.items("namespaces", selector=f"kubernetes.io/metadata.name={NAMESPACE}"):
        shop.kube.delete("namespace", NAMESPACE)
        wait_for(
            "the shop of a former run gone",
            lambda: not shop.kube.items("namespaces", selector=f"kubernetes.io/metadata.name={NAMESPACE}"),
            timeout_s=120,
        )
    shop.install()
    shop.deploy()
    return shop


@pytest.fixture(scope="session")
def policed_shop(bare_shop: Shop) -> Shop:
    for name in ("products", "storefront"):
        bare_shop.kube.apply(bare_shop.policy(name))
    for name in ("products", "storefront"):
        bare_shop.apply_policy(bare_shop.policy(name))
    return bare_shop


@pytest.fixture
def shop(policed_shop: Shop) -> Iterator[Shop]:
    """The shop as its manifests describe it, confirmed; put right again after the test."""
    policed_shop.confirmed(timeout_s=120)
    yield policed_shop
    policed_shop.apply_policy(policed_shop.policy("products"))
