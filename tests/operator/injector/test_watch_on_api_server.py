"""List and watch of the real API server, through restarts, lost history and dead connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from kubernetes.aio.client import ApiClient

from apiserver import ApiServer, api_server
from kube_http import KubeHttp
from kube_watch import client_of, kill_and_restart, proxy_to
from pulsecache_operator.watch import Resource, Timing, Watch
from scripted_api import Shelf
from wire import until

pytestmark = [pytest.mark.api, pytest.mark.timeout(180)]

NAMESPACE = "watched"
CONFIG_MAPS = f"/api/v1/namespaces/{NAMESPACE}/configmaps"
QUICK = Timing(connect_s=2.0, list_s=5.0, watch_s=300.0, silence_s=30.0, backoff_first_s=0.05, backoff_max_s=0.2)


@pytest.fixture(scope="module")
def kube(apiserver: ApiServer) -> Iterator[KubeHttp]:
    with KubeHttp(apiserver) as kube:
        kube.create("/api/v1/namespaces", {"metadata": {"name": NAMESPACE, "labels": {"team": "a"}}})
        yield kube


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": {"of": name.split("-")[0]}}, "data": data}


def resource(label: str, **more: Any) -> Resource:
    return Resource(name="configmaps", path=CONFIG_MAPS, label_selector=f"of={label}", **more)


@asynccontextmanager
async def watching(
    client: ApiClient, resource: Resource, shelf: Shelf, timing: Timing = QUICK, watch: Watch | None = None
) -> AsyncIterator[Watch]:
    watch = watch or Watch(client, resource, shelf, timing=timing)
    task = asyncio.create_task(watch.run())
    try:
        await asyncio.wait_for(watch.listed.wait(), 10)
        yield watch
    finally:
        ended = task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert not ended


async def test_a_set_is_kept_true(apiserver: ApiServer, kube: KubeHttp) -> None:
    kube.create(CONFIG_MAPS, config_map("a-1"))
    shelf = Shelf()
    async with client_of(apiserver) as client, watching(client, resource("a"), shelf):
        assert list(shelf.items) == ["a-1"]
        kube.create(CONFIG_MAPS, config_map("a-2", x="1"))
        kube.create(CONFIG_MAPS, config_map("unseen"))
        await until(lambda: "a-2" in shelf.items, "the new one")
        kube.request("PUT", f"{CONFIG_MAPS}/a-2", config_map("a-2", x="2"))
        await until(lambda: shelf.items["a-2"]["data"] == {"x": "2"}, "the change")
        kube.delete(f"{CONFIG_MAPS}/a-1")
        await until(lambda: "a-1" not in shelf.items, "the deletion")
        assert shelf.told == ["replace a-1", "put a-2", "put a-2", "drop a-1"]


async def test_more_than_a_page(apiserver: ApiServer, kube: KubeHttp) -> None:
    for number in range(520):
        kube.create(CONFIG_MAPS, config_map(f"many-{number}"))
    shelf = Shelf()
    async with client_of(apiserver) as client, watching(client, resource("many"), shelf):
        assert len(shelf.items) == 520
        assert len(shelf.told) == 1


async def test_metadata_alone(apiserver: ApiServer, kube: KubeHttp) -> None:
    namespaces = Resource(name="namespaces", path="/api/v1/namespaces", metadata_only=True)
    shelf = Shelf()
    async with client_of(apiserver) as client, watching(client, namespaces, shelf):
        assert shelf.items[NAMESPACE]["metadata"]["labels"]["team"] == "a"
        assert "spec" not in shelf.items[NAMESPACE]
        kube.create("/api/v1/namespaces", {"metadata": {"name": "later", "labels": {"team": "b"}}})
        await until(lambda: "later" in shelf.items, "the new one")
        assert "spec" not in shelf.items["later"]


async def test_bookmarks_move_a_watch_forward_past_what_is_not_its_own(apiserver: ApiServer, kube: KubeHttp) -> None:
    """The server sends one before it ends a watch: the next one starts there, however much others have changed."""
    shelf = Shelf()
    async with client_of(apiserver) as client:
        async with watching(client, resource("quiet"), shelf, Timing(watch_s=6.0, backoff_first_s=0.05)) as watch:
            kube.create(CONFIG_MAPS, config_map("quiet-1"))
            await until(lambda: "quiet-1" in shelf.items, "the watch")
            version = watch._version
            kube.create(CONFIG_MAPS, config_map("noise"))
            await until(lambda: watch._version != version, "a bookmark", within_s=20)
        assert shelf.told == ["replace", "put quiet-1"]


async def test_what_happens_while_the_cable_is_out_is_not_missed(apiserver: ApiServer, kube: KubeHttp) -> None:
    shelf = Shelf()
    kube.create(CONFIG_MAPS, config_map("cable-1"))
    async with proxy_to(apiserver) as proxy, client_of(apiserver, through=proxy) as client:
        timing = Timing(connect_s=1.0, silence_s=0.5, backoff_first_s=0.05, backoff_max_s=0.2)
        async with watching(client, resource("cable"), shelf, timing) as watch:
            proxy.freeze()
            kube.create(CONFIG_MAPS, config_map("cable-2"))
            kube.delete(f"{CONFIG_MAPS}/cable-1")
            connections = proxy.connections
            # The silence is noticed although nobody closed anything.
            await until(lambda: proxy.connections > connections, "a new connection", within_s=10)
            assert list(shelf.items) == ["cable-1"]
            assert watch.last_event_age_s() > 0.4
            proxy.thaw()
            await until(lambda: list(shelf.items) == ["cable-2"], "both changes", within_s=10)


async def test_a_reset_connection_is_continued_without_a_new_list(apiserver: ApiServer, kube: KubeHttp) -> None:
    shelf = Shelf()
    names = [f"reset-{number}" for number in range(5)]
    async with (
        proxy_to(apiserver) as proxy,
        client_of(apiserver, through=proxy) as client,
        watching(client, resource("reset"), shelf),
    ):
        for number, name in enumerate(names, start=1):
            proxy.cut()
            kube.create(CONFIG_MAPS, config_map(name))
            await until(lambda number=number: len(shelf.items) == number, "the next one")
        assert shelf.told == ["replace", *(f"put {name}" for name in names)]


async def test_an_api_server_that_is_killed_and_comes_back() -> None:
    shelf = Shelf()
    with api_server() as server:
        async with client_of(server) as client:
            with KubeHttp(server) as kube:
                kube.create("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
                kube.create(CONFIG_MAPS, config_map("k-1"))
            async with watching(client, resource("k"), shelf):
                await kill_and_restart(server)
                with KubeHttp(server) as kube:
                    kube.create(CONFIG_MAPS, config_map("k-2"))
                await until(lambda: sorted(shelf.items) == ["k-1", "k-2"], "an event of the new one", within_s=20)


async def test_history_that_is_lost_for_good() -> None:
    """A server knows only what happened since its start: who was away for longer gets 410, and lists again."""
    shelf = Shelf()
    with api_server() as server:
        async with client_of(server) as client:
            with KubeHttp(server) as kube:
                kube.create("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
                kube.create(CONFIG_MAPS, config_map("k-stays"))
                kube.create(CONFIG_MAPS, config_map("k-goes"))
                async with watching(client, resource("k"), shelf) as watch:
                    assert sorted(shelf.items) == ["k-goes", "k-stays"]
                kube.delete(f"{CONFIG_MAPS}/k-goes")
            await kill_and_restart(server)
            async with watching(client, resource("k"), shelf, watch=watch):
                await until(lambda: list(shelf.items) == ["k-stays"], "the truth", within_s=20)
                assert shelf.told == [shelf.told[0], "replace k-stays"], "no event told of it"
