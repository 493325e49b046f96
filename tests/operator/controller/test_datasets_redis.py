"""The keeper's hands: real scripts on a real Redis, with pods from a list in memory and time that only passes when
told to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from controller_view import KEEPER, injected, parsed, pod_document, policy_document, service
from pulsecache_operator.controller.api import ApiError, Kind, Listing
from pulsecache_operator.controller.cluster import Cluster
from pulsecache_operator.controller.datasets import DatasetKeeper
from pulsecache_operator.controller.metrics import Metrics
from pulsecache_operator.controller.redis_store import RedisStore, RedisTrouble
from pulsecache_policy import bundle
from pulsecache_policy.hub_scripts import OLD_EPOCH, UNCOVERED
from redis_server import RedisServer

DATASET = "shop/products"
POLICY = policy_document(staleness={"max": "5s", "settle": "30s"})


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer() as found:
        yield found


@pytest.fixture
async def store(server: RedisServer) -> AsyncIterator[RedisStore]:
    server.run("FLUSHALL")
    found = RedisStore(server.url)
    yield found
    await found.aclose()


class Scene:
    def __init__(self, store: RedisStore) -> None:
        self.store = store
        self.now = 1000.0
        self.holds = True
        self.pods: list[dict[str, Any]] = []
        self.api_is_away = False
        self.cluster = Cluster(lambda key: None, lambda namespace: None, own_namespace="pulsecache")
        self.cluster.policies.replace(Listing([POLICY], "9"))
        self.cluster.services.replace([service()])
        self.keeper = DatasetKeeper(
            self,  # type: ignore[arg-type]  # the one method that it needs
            store,
            self.cluster,
            Metrics(),
            held=lambda: self.holds,
            clock=lambda: self.now,
        )
        self.epoch = ""

    async def list(self, kind: Kind, namespace: str) -> Listing:
        if self.api_is_away:
            raise ApiError(0, "the API server does not answer")
        return Listing(self.pods, "10")

    async def begin(self) -> None:
        self.epoch = (await self.store.run("subscribe", DATASET, "epoch-1", "", "", "", ""))[0]

    async def join(self, publisher: str) -> None:
        await self.store.run("join", DATASET, self.epoch, publisher, 10**9)

    async def beat(self, publisher: str) -> None:
        await self.store.run("beat", DATASET, self.epoch, publisher, 10**9, 12345, 1000, 3)

    async def members(self) -> list[str]:
        reply = await self.store.run("publishers", DATASET)
        return [str(name) for name in reply[2::3]]

    async def looks(self, seconds: int, *alive: str) -> None:
        for _ in range(seconds):
            for publisher in alive:
                await self.beat(publisher)
            self.cluster.pods.replace([KEEPER.pod(pod) for pod in self.pods])
            await self.keeper.look()
            self.now += 1

    def sidecar(self, name: str) -> str:
        pod = injected(pod_document(name), parsed(POLICY), [service()])
        uid = f"{name * 8}-0000-0000-0000-000000000000"
        pod["metadata"]["uid"] = uid
        self.pods.append(pod)
        return f"{uid}.1"


@pytest.fixture
def scene(store: RedisStore) -> Scene:
    return Scene(store)


async def test_the_first_epoch_is_released_and_a_dead_publisher_fenced(scene: Scene) -> None:
    a, b = scene.sidecar("a"), scene.sidecar("b")
    await scene.looks(2)
    await scene.begin()
    for publisher in (a, b):
        await scene.join(publisher)
    assert set(await scene.members()) == {OLD_EPOCH, a, b}
    await scene.looks(40, a, b)
    assert set(await scene.members()) == {a, b}
    scene.pods = scene.pods[1:]
    await scene.looks(20, b)
    assert set(await scene.members()) == {a, b}
    await scene.looks(25, b)
    assert await scene.members() == [b]


async def test_a_replica_without_a_sidecar_is_entered_and_taken_away(scene: Scene) -> None:
    a = scene.sidecar("a")
    scene.pods.append(pod_document("plain"))
    await scene.begin()
    await scene.join(a)
    await scene.looks(1, a)
    assert UNCOVERED in await scene.members()
    await scene.looks(60, a)
    assert UNCOVERED in await scene.members()
    scene.pods.pop()
    await scene.looks(33, a)
    assert await scene.members() == [a]


async def test_without_the_role_nothing_is_written(scene: Scene) -> None:
    scene.holds = False
    await scene.begin()
    await scene.looks(60)
    assert await scene.members() == [OLD_EPOCH]


async def test_without_the_api_server_nobody_is_judged(scene: Scene) -> None:
    scene.api_is_away = True
    await scene.begin()
    await scene.looks(60)
    assert await scene.members() == [OLD_EPOCH]


async def test_an_empty_redis_is_no_dataset(scene: Scene) -> None:
    await scene.looks(2)
    assert await scene.store.run("publishers", DATASET) == []


async def test_a_redis_that_is_away_is_trouble_and_no_more(scene: Scene, server: RedisServer) -> None:
    await scene.begin()
    server.pause()
    try:
        await scene.keeper.look()
        with pytest.raises(RedisTrouble):
            await scene.store.reports(["shop/products"])
    finally:
        server.resume()
    await scene.looks(40)
    assert await scene.members() == []


async def test_a_bundle_is_published_once_and_a_tombstone_goes_by_itself(
    store: RedisStore, server: RedisServer
) -> None:
    text = bundle.encode(POLICY, generation=1)
    name = "pc:{shop/products}:policy"
    await store.publish(DATASET, bundle.decode(text), text)
    assert server.run("HGET", name, "bundle").decode() == text
    assert server.run("TTL", name) == -1
    stone = bundle.encode_tombstone(DATASET, generation=1)
    await store.publish(DATASET, bundle.decode(stone), stone)
    assert 0 < server.run("TTL", name) <= 600
    before = server.run("TTL", name)
    await store.publish(DATASET, bundle.decode(stone), stone)
    assert server.run("TTL", name) <= before
    await store.publish(DATASET, bundle.decode(text), text)
    assert server.run("TTL", name) == -1, "a policy that came back does not go with its tombstone"
    await store.forget(DATASET)
    assert server.run("EXISTS", name) == 0


async def test_reports_of_many_policies_come_together(store: RedisStore, server: RedisServer) -> None:
    server.run("HSET", "pc:{shop/p7}:pods", "uid-1", "one", "uid-2", "two")
    found = await store.reports([f"shop/p{i}" for i in range(250)])
    assert len(found) == 250
    assert found["shop/p7"] == {"uid-1": "one", "uid-2": "two"}
    await store.drop_reports("shop/p7", ["uid-1"])
    assert (await store.reports(["shop/p7"]))["shop/p7"] == {"uid-2": "two"}
