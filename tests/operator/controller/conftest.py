from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from apiserver import ApiServer
from apiserver import apiserver as apiserver
from controller_process import ControllerProcess, Shop, administrator, controller, eventually, service_account
from helm import Helm
from helm import helm as helm
from pulsecache_operator.controller.api import Api


@pytest.fixture
async def api(apiserver: ApiServer) -> AsyncIterator[Api]:
    """Requests as administrator."""
    async with administrator(apiserver) as found:
        yield found


@pytest.fixture
def account(apiserver: ApiServer, api: Api, helm: Helm, tmp_path: Path) -> Path:
    """The kubeconfig of a controller that the chart has installed."""
    return service_account(apiserver, helm, tmp_path)


@pytest.fixture
async def running(account: Path, tmp_path: Path) -> AsyncIterator[ControllerProcess]:
    """A controller that is the writer."""
    with controller(account, tmp_path) as process:
        await process.ready()
        await eventually(process.writes, within_s=40)
        yield process
        assert process.end() == 0, process.log.read_text(encoding="utf-8")


@pytest.fixture
async def shop(api: Api, apiserver: ApiServer, request: pytest.FixtureRequest) -> Shop:
    """A namespace of the test's own."""
    name = request.node.name.replace("_", "-")[:50].strip("-")
    return await Shop.opened(api, apiserver, name)
