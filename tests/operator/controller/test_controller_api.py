"""The whole controller, as a process, against a real API server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from apiserver import ApiServer
from controller_process import (
    ControllerProcess,
    Shop,
    administrator,
    controller,
    eventually,
    throughout,
)
from pulsecache_operator.controller.api import (
    CACHE_POLICY,
    Api,
)
from pulsecache_policy import bundle

pytestmark = [pytest.mark.api, pytest.mark.timeout(120)]


@pytest.fixture
async def api(apiserver: ApiServer) -> AsyncIterator[Api]:
    async with administrator(apiserver) as found:
        yield found


@pytest.fixture
async def running(apiserver: ApiServer, api: Api, tmp_path: Path) -> AsyncIterator[ControllerProcess]:
    with controller(apiserver, tmp_path) as process:
        await process.ready()
        await eventually(process.writes, within_s=40)
        yield process


@pytest.fixture
async def shop(api: Api, apiserver: ApiServer, request: pytest.FixtureRequest) -> Shop:
    name = request.node.name.replace("_", "-")[:50].strip("-")
    return await Shop.opened(api, apiserver, name)


async def test_a_policy_becomes_a_configmap_and_a_status(running: ControllerProcess, shop: Shop) -> None:
    await shop.service()
    await shop.policy()
    await eventually(shop.ready, lambda ready: ready == ("True", "NoPods", 1))
    found = await shop.config_map()
    assert found is not None
    assert bundle.decode(found["data"]["bundle.json"]).policy_key == f"{shop.namespace}/products"
    assert (await running.get("/livez"))[0] == 200
    assert await running.metric("pulsecache_policies") == 1.0
    document = await shop.api.get(CACHE_POLICY, "products", shop.namespace)
    assert "finalizers" not in document["metadata"]
    assert "annotations" not in document["metadata"]
    managers = {entry["manager"] for entry in document["metadata"]["managedFields"] if entry.get("subresource")}
    assert managers == {"pulsecache"}


async def test_an_edit_is_followed_and_a_quiet_policy_is_left_alone(running: ControllerProcess, shop: Shop) -> None:
    await shop.service()
    await shop.policy()
    await eventually(shop.ready, lambda ready: ready[2] == 1)
    await shop.edit("products", mode="Bypass")
    await eventually(shop.ready, lambda ready: ready == ("True", "NoPods", 2))
    found = await shop.config_map()
    assert found is not None
    assert bundle.decode(found["data"]["bundle.json"]).generation == 2

    async def version() -> tuple[str, str]:
        policy = await shop.api.get(CACHE_POLICY, "products", shop.namespace)
        config_map = await shop.config_map()
        assert config_map is not None
        return policy["metadata"]["resourceVersion"], config_map["metadata"]["resourceVersion"]

    quiet = await version()
    await throughout(version, lambda now: now == quiet, for_s=3)
