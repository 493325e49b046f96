"""The whole controller, as a process with the chart's permissions, against a real API server."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from apiserver import ApiServer, kubectl
from controller_process import (
    ControllerProcess,
    Shop,
    controller,
    eventually,
    injector,
    service_account,
    throughout,
    webhook,
    wire,
)
from helm import NAMESPACE, Helm
from pulsecache_operator.controller.api import (
    CACHE_POLICY,
    CONFIG_MAP,
    DEPLOYMENT,
    EVENT,
    POD,
    SECRET,
    WEBHOOK_CONFIGURATION,
    Api,
    NotFound,
)
from pulsecache_operator.controller.redis_store import RedisStore
from pulsecache_policy import bundle
from pulsecache_policy.hub_scripts import OLD_EPOCH, UNCOVERED
from redis_server import RedisServer

pytestmark = [pytest.mark.api, pytest.mark.timeout(120)]

Document = dict[str, Any]


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


def content(config_map: Document | None) -> bundle.Bundle | None:
    return bundle.decode(config_map["data"]["bundle.json"]) if config_map else None


async def events(shop: Shop) -> list[str]:
    return [event["reason"] for event in (await shop.api.list(EVENT, shop.namespace)).items]


class TestPolicies:
    async def test_a_policy_becomes_a_configmap_and_a_status(self, running: ControllerProcess, shop: Shop) -> None:
        await shop.service()
        await shop.policy()
        await eventually(shop.ready, lambda ready: ready == ("True", "NoPods", 1))
        found = content(await shop.config_map())
        assert found is not None
        assert found.policy_key == f"{shop.namespace}/products"
        await eventually(lambda: events(shop), lambda reasons: reasons == ["Accepted"])
        document = await shop.api.get(CACHE_POLICY, "products", shop.namespace)
        assert "finalizers" not in document["metadata"]
        assert "annotations" not in document["metadata"]
        managers = {entry["manager"] for entry in document["metadata"]["managedFields"] if entry.get("subresource")}
        assert managers == {"pulsecache"}
        assert not [entry for entry in running.logged() if "not allowed" in entry["message"]]

    async def test_an_edit_is_followed_and_a_quiet_policy_left_alone(
        self, running: ControllerProcess, shop: Shop
    ) -> None:
        await shop.service()
        await shop.policy()
        await eventually(shop.ready, lambda ready: ready[2] == 1)
        await shop.edit("products", mode="Bypass")
        await eventually(shop.ready, lambda ready: ready == ("True", "NoPods", 2))
        found = content(await shop.config_map())
        assert found is not None
        assert found.generation == 2

        async def versions() -> tuple[str, str]:
            policy = await shop.api.get(CACHE_POLICY, "products", shop.namespace)
            config_map = await shop.config_map()
            assert config_map is not None
            return policy["metadata"]["resourceVersion"], config_map["metadata"]["resourceVersion"]

        quiet = await versions()
        await throughout(versions, lambda now: now == quiet, for_s=3)

    async def test_a_service_that_comes_later_is_found(self, running: ControllerProcess, shop: Shop) -> None:
        await shop.policy()
        await eventually(shop.ready, lambda ready: ready[:2] == ("False", "ServiceMissing"))
        await shop.service()
        await eventually(shop.ready, lambda ready: ready[:2] == ("True", "NoPods"))
        await eventually(lambda: events(shop), lambda reasons: sorted(reasons) == ["Accepted", "ServiceMissing"])

    async def test_a_numeric_target_port_is_told_with_the_fix(self, running: ControllerProcess, shop: Shop) -> None:
        await shop.service(target_port=8080)
        await shop.policy()
        await eventually(shop.ready, lambda ready: ready[:2] == ("False", "NumericTargetPort"))
        placed = next(c for c in (await shop.status())["conditions"] if c["type"] == "Placed")
        assert "Give containerPort 8080 a name" in placed["message"]

    async def test_a_configmap_that_was_edited_or_deleted_comes_back(
        self, running: ControllerProcess, shop: Shop
    ) -> None:
        await shop.service()
        await shop.policy()
        before = await eventually(shop.config_map)
        assert before is not None
        await shop.api.delete(CONFIG_MAP, "pulsecache-products", shop.namespace)
        await shop.edit("products", mode="Bypass")  # anything that gives it a turn before the minute is over
        await eventually(shop.config_map)

    async def test_a_configmap_of_somebody_else_is_left_alone(self, running: ControllerProcess, shop: Shop) -> None:
        await shop.put(CONFIG_MAP, {"metadata": {"name": "pulsecache-products"}, "data": {"bundle.json": "mine"}})
        await shop.service()
        await shop.policy()
        await eventually(shop.ready, lambda ready: ready[:2] == ("False", "ConfigMapTaken"))
        found = await shop.config_map()
        assert found is not None
        assert found["data"] == {"bundle.json": "mine"}

    async def test_a_policy_that_lost_a_conflict_is_in_force_when_the_winner_is_deleted(
        self, running: ControllerProcess, shop: Shop
    ) -> None:
        await shop.service()
        await shop.policy("older")
        await eventually(lambda: shop.ready("older"), lambda ready: ready[:2] == ("True", "NoPods"))
        await shop.policy("younger")
        await eventually(lambda: shop.ready("younger"), lambda ready: ready[:2] == ("False", "Conflict"))
        assert (await shop.ready("older"))[:2] == ("True", "NoPods")
        await shop.api.delete(CACHE_POLICY, "older", shop.namespace)
        await eventually(lambda: shop.ready("younger"), lambda ready: ready[:2] == ("True", "NoPods"))


class TestDeletion:
    async def test_a_deleted_policy_leaves_a_tombstone(self, running: ControllerProcess, shop: Shop) -> None:
        await shop.service()
        await shop.policy()
        await eventually(shop.config_map)
        await shop.api.delete(CACHE_POLICY, "products", shop.namespace)

        async def buried() -> bool:
            found = content(await shop.config_map())
            return found is not None and found.tombstone

        await eventually(buried)
        await throughout(buried, bool, for_s=2)
        await shop.policy()
        await eventually(buried, lambda found: not found)

    async def test_a_tombstone_goes_when_its_time_is_over(self, account: Path, shop: Shop, tmp_path: Path) -> None:
        await shop.service()
        await shop.policy()
        with controller(account, tmp_path, name="first"):
            await eventually(shop.config_map, within_s=40)
            await shop.api.delete(CACHE_POLICY, "products", shop.namespace)

            async def noted() -> str | None:
                found = await shop.config_map()
                annotations: dict[str, str] = (found or {"metadata": {}})["metadata"].get("annotations") or {}
                return annotations.get("pulsecache.dev/policy-deleted-at")

            await eventually(noted)
        past = {"metadata": {"annotations": {"pulsecache.dev/policy-deleted-at": "2020-01-01T00:00:00Z"}}}
        await shop.api.patch(CONFIG_MAP, past, "pulsecache-products", shop.namespace)
        with controller(account, tmp_path, name="second"):
            await eventually(shop.config_map, lambda found: found is None, within_s=40)

    async def test_what_was_deleted_while_nobody_looked_is_buried(
        self, account: Path, shop: Shop, tmp_path: Path
    ) -> None:
        await shop.service()
        await shop.policy()
        with controller(account, tmp_path, name="first") as first:
            await eventually(shop.config_map, within_s=40)
            first.kill()
        await shop.api.delete(CACHE_POLICY, "products", shop.namespace)
        with controller(account, tmp_path, name="second"):

            async def buried() -> bool:
                found = content(await shop.config_map())
                return found is not None and found.tombstone

            await eventually(buried, within_s=60)


class TestRollout:
    async def test_pods_of_before_are_rolled_once_when_the_injector_is_there(
        self, running: ControllerProcess, shop: Shop
    ) -> None:
        await webhook(shop.api)
        await injector(shop.api, ready=False)
        await shop.service()
        await shop.deployment()
        for name in "abc":
            await shop.products_pod(name, sidecar=False)
        await shop.policy()
        await eventually(shop.ready, lambda ready: ready[:2] == ("False", "InjectorNotReady"))
        assert await shop.mark() is None
        await injector(shop.api)
        mark = await eventually(shop.mark)
        assert mark is not None
        await eventually(shop.ready, lambda ready: ready[:2] == ("False", "RollingOut"))
        await eventually(lambda: events(shop), lambda reasons: "RolloutStarted" in reasons)
        for name in "abc":
            await shop.api.delete(POD, name, shop.namespace)
            await shop.products_pod(f"{name}2", sidecar=True, mark=mark)

        async def counts() -> Any:
            return (await shop.status()).get("pods")

        await eventually(counts, lambda pods: pods == {"selected": 3, "injected": 3, "inSync": 0})
        await throughout(shop.mark, lambda now: now == mark, for_s=2)
        deployment = await shop.api.get(DEPLOYMENT, "products", shop.namespace)
        assert deployment["metadata"]["generation"] == 2

    async def test_a_policy_that_rolls_nobody_prints_the_command(self, running: ControllerProcess, shop: Shop) -> None:
        await shop.service()
        await shop.deployment()
        await shop.products_pod("a", sidecar=False)
        await shop.policy(rollout={"strategy": "None"})
        await eventually(shop.ready, lambda ready: ready[:2] == ("False", "PodsNotInjected"))
        found = next(c for c in (await shop.status())["conditions"] if c["type"] == "Injected")
        assert f"kubectl -n {shop.namespace} rollout restart deployment/products" in found["message"]
        assert await shop.mark() is None


class TestRedis:
    async def test_bundles_reports_and_secrets(
        self, account: Path, tmp_path: Path, shop: Shop, redis: RedisServer
    ) -> None:
        url = {"redis_url": redis.url, "sidecar_redis_url": "redis://sidecar:password@redis:6379/0"}
        await shop.service()
        await shop.policy(store={"redis": {}})
        with controller(account, tmp_path, **url):
            key = f"{shop.namespace}/products"

            async def copy() -> bundle.Bundle | None:
                text = redis.run("HGET", f"pc:{{{key}}}:policy", "bundle")
                return bundle.decode(text) if text else None

            found = await eventually(copy, within_s=40)
            assert found is not None
            assert redis.run("HGET", f"pc:{{{key}}}:policy", "revision").decode() == found.revision

            async def secret() -> Document | None:
                try:
                    return await shop.api.get(SECRET, "pulsecache-redis", shop.namespace)
                except NotFound:
                    return None

            given = await eventually(secret)
            assert given is not None
            assert base64.b64decode(given["data"]["url"]).decode() == url["sidecar_redis_url"]

            pod = await shop.products_pod("a", sidecar=True)
            said = {"pod": "a", "generation": 1, "sha256": found.sha256, "error": None, "state": "Exceeded"}
            redis.run("HSET", f"pc:{{{key}}}:pods", pod["metadata"]["uid"], json.dumps(said))
            await eventually(shop.ready, lambda ready: ready[:2] == ("True", "InSync"))
            status = await shop.status()
            assert status["staleness"]["state"] == "Exceeded"
            assert status["pods"] == {"selected": 1, "injected": 1, "inSync": 1}
            await eventually(lambda: events(shop), lambda reasons: "StalenessExceeded" in reasons)

            redis.run("FLUSHALL")
            redis.run("HSET", f"pc:{{{key}}}:pods", "nonsense", "not JSON")
            await shop.edit("products", mode="Bypass")
            await eventually(copy, lambda copied: copied is not None and copied.generation == 2)
            await eventually(shop.ready, lambda ready: ready[:2] == ("False", "NotReported"))

            await shop.api.delete(CACHE_POLICY, "products", shop.namespace)
            await eventually(copy, lambda copied: copied is not None and copied.tombstone)
            await eventually(secret, lambda found: found is None)
            assert 0 < redis.run("TTL", f"pc:{{{key}}}:policy") <= 600

    async def test_datasets_are_looked_after(
        self, account: Path, tmp_path: Path, shop: Shop, redis: RedisServer
    ) -> None:
        await shop.service()
        await shop.policy(store={"redis": {}}, staleness={"max": "5s", "settle": "1s"})
        dataset, store = f"{shop.namespace}/products", RedisStore(redis.url)

        async def members() -> set[str]:
            return set((await store.run("publishers", dataset))[2::3])

        try:
            (epoch, *_) = await store.run("subscribe", dataset, "epoch-1", "", "", "", "")
            pod = await shop.products_pod("a", sidecar=True)
            publisher = f"{pod['metadata']['uid']}.1"
            with controller(account, tmp_path, redis_url=redis.url) as process:
                await process.ready()
                await eventually(process.writes, within_s=40)
                assert await members() == {OLD_EPOCH}, "the sidecar of the pod has not joined"
                await store.run("join", dataset, epoch, publisher, 10**9)
                await eventually(members, lambda found: found == {publisher})
                await shop.products_pod("b", sidecar=False)
                await eventually(members, lambda found: found == {publisher, UNCOVERED})
                for name in "ab":
                    await shop.api.delete(POD, name, shop.namespace)
                await eventually(members, lambda found: found == set())
                assert await process.metric(f'pulsecache_fenced_publishers_total{{dataset="{dataset}"}}') == 2.0
        finally:
            await store.aclose()

    async def test_a_black_hole_holds_nobody_up(
        self, account: Path, tmp_path: Path, shop: Shop, redis: RedisServer
    ) -> None:
        redis.pause()
        try:
            await shop.service()
            await shop.policy(store={"redis": {}})
            with controller(account, tmp_path, redis_url=redis.url):
                await eventually(shop.ready, lambda ready: ready == ("True", "NoPods", 1), within_s=40)
        finally:
            redis.resume()


class TestWebhook:
    async def test_the_secret_is_made_and_the_cabundle_kept(self, running: ControllerProcess, api: Api) -> None:
        await webhook(api)

        async def trusted() -> bool:
            secret = await api.get(SECRET, "pulsecache-webhook-tls", NAMESPACE)
            found = await api.get(WEBHOOK_CONFIGURATION, "apulsecache-injector")
            return bool(found["webhooks"][0]["clientConfig"].get("caBundle") == secret["data"]["ca.crt"])

        await eventually(trusted)
        expiry = await running.metric("pulsecache_certificate_expiry_timestamp_seconds")
        assert expiry is not None
        before = await api.get(WEBHOOK_CONFIGURATION, "apulsecache-injector")
        patch = [{"op": "remove", "path": "/webhooks/0/clientConfig/caBundle"}]
        await api.patch(WEBHOOK_CONFIGURATION, patch, "apulsecache-injector")
        await eventually(trusted)
        after = await api.get(WEBHOOK_CONFIGURATION, "apulsecache-injector")
        assert after["webhooks"] == before["webhooks"]

    async def test_a_secret_that_is_lost_is_made_anew(self, running: ControllerProcess, api: Api) -> None:
        async def data() -> Document:
            found: Document = (await api.get(SECRET, "pulsecache-webhook-tls", NAMESPACE))["data"]
            return found

        before = await eventually(data)
        await api.delete(SECRET, "pulsecache-webhook-tls", NAMESPACE)
        await webhook(api)
        touch = {"metadata": {"annotations": {"touched": before["tls.crt"][-20:]}}}
        await api.patch(WEBHOOK_CONFIGURATION, touch, "apulsecache-injector")
        await eventually(data, lambda now: now["ca.crt"] != before["ca.crt"])


class TestTwoReplicas:
    async def test_one_writes_and_the_other_follows_at_once_when_it_ends(
        self, account: Path, shop: Shop, tmp_path: Path
    ) -> None:
        await shop.service()
        with controller(account, tmp_path, name="first") as first:
            await first.ready()
            await eventually(first.writes, within_s=40)
            with controller(account, tmp_path, name="second") as second:
                await second.ready()
                assert not await second.writes()
                await shop.policy()
                await eventually(shop.ready, lambda ready: ready[2] == 1)
                known = await first.metric("pulsecache_policies")
                await eventually(lambda: second.metric("pulsecache_policies"), lambda found: found == known)
                expiry = "pulsecache_certificate_expiry_timestamp_seconds"
                assert (await first.metric(expiry) or 0) > 1e9
                assert await second.metric(expiry) in (None, await first.metric(expiry)), "never a 0"
                selected = f'pulsecache_pods{{namespace="{shop.namespace}",policy="products",state="selected"}}'
                assert await first.metric(selected) == 0.0
                assert await second.metric(selected) is None, "the sum over the replicas counts once"
                assert first.end() == 0
                await eventually(second.writes, within_s=6)
                await shop.edit("products", mode="Bypass")
                await eventually(shop.ready, lambda ready: ready[2] == 2)
                assert second.end() == 0

    async def test_a_writer_that_is_killed_is_followed_when_its_lease_is_over(
        self, account: Path, shop: Shop, tmp_path: Path
    ) -> None:
        await shop.service()
        with (
            controller(account, tmp_path, name="first") as first,
            controller(account, tmp_path, name="second") as other,
        ):
            await first.ready()
            await other.ready()

            async def writers() -> list[ControllerProcess]:
                return [process for process in (first, other) if await process.writes()]

            (writer,) = await eventually(writers, lambda found: len(found) == 1, within_s=40)
            follower = other if writer is first else first
            writer.kill()
            await shop.policy()
            await eventually(follower.writes, within_s=25)
            await eventually(shop.ready, lambda ready: ready[2] == 1)


class TestTrouble:
    async def test_a_cut_wire_hides_nothing_for_long(
        self, apiserver: ApiServer, account: Path, helm: Helm, shop: Shop, tmp_path: Path
    ) -> None:
        """Deleted, edited and made while nobody heard of it; and no two writers after it."""
        await shop.service()
        for name in ("gone", "edited"):
            await shop.policy(name)
        async with wire(apiserver) as line:
            proxied = service_account(apiserver, helm, tmp_path, host=f"https://127.0.0.1:{line.port}")
            with controller(proxied, tmp_path) as process:
                await eventually(lambda: shop.config_map("gone"), within_s=40)
                await eventually(lambda: shop.ready("edited"), lambda ready: ready[2] == 1)
                line.cut()
                await shop.api.delete(CACHE_POLICY, "gone", shop.namespace)
                await shop.edit("edited", mode="Bypass")
                await shop.policy("new")
                await eventually(process.writes, lambda writes: not writes, within_s=20)
                assert (await process.get("/livez"))[0] == 200
                line.mend()

                async def buried() -> bool:
                    found = content(await shop.config_map("gone"))
                    return found is not None and found.tombstone

                await eventually(buried, within_s=40)
                await eventually(lambda: shop.ready("edited"), lambda ready: ready[2] == 2)
                await eventually(lambda: shop.config_map("new"))
                # In a thread: the wire is carried by this loop.
                assert await asyncio.to_thread(process.end) == 0

    async def test_a_start_changes_nothing_that_is_good(self, account: Path, shop: Shop, tmp_path: Path) -> None:
        """Before all has been listed, nothing is missing: no status says for a moment that the Service is."""
        await shop.service()
        await shop.policy()
        with controller(account, tmp_path, name="first"):
            await eventually(shop.ready, lambda ready: ready == ("True", "NoPods", 1), within_s=40)

        async def version() -> str:
            found = await shop.api.get(CACHE_POLICY, "products", shop.namespace)
            return str(found["metadata"]["resourceVersion"])

        before, told = await version(), await events(shop)
        with controller(account, tmp_path, name="second") as second:
            await eventually(second.ready, lambda _: True, within_s=40)
            await eventually(second.writes, within_s=40)

            async def turns() -> float:
                return await second.metric('pulsecache_reconciles_total{result="ok"}') or 0.0

            await eventually(turns, lambda count: count >= 3)
            assert await version() == before
            assert await events(shop) == told


class TestPermissions:
    async def test_what_is_not_allowed_is_told_in_one_line(
        self, account: Path, apiserver: ApiServer, tmp_path: Path
    ) -> None:
        taken = kubectl(apiserver, "delete", "clusterrolebinding", "pulsecache-controller")
        assert taken.returncode == 0, taken.stderr
        with controller(account, tmp_path) as process:

            async def told() -> list[str]:
                return [entry["message"] for entry in process.logged() if "not allowed" in entry["message"]]

            (message,) = await eventually(told, within_s=40)
            assert "list cachepolicies.pulsecache.dev in all namespaces" in message
            assert "patch cachepolicies.pulsecache.dev/status" in message
            assert "patch deployments.apps" in message
            assert "leases" not in message, "the Role in its own namespace is still there"
            assert (await process.get("/readyz"))[0] == 503
