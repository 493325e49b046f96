"""Looks after datasets in Redis: fences dead publishers, releases epochs that are over, tells of uncovered replicas.

Only the writer does. What is decided is `datasets`; a decision is told to Redis by scripts that refuse it where the
epoch is another by now, or where a publisher that was thought dead has beaten.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import NoReturn

from pulsecache_operator.controller.api import POD, Api, ApiError
from pulsecache_operator.controller.cluster import Cluster
from pulsecache_operator.controller.datasets import Memory, Verdict, View, doubtful, judge, lost, policies_in
from pulsecache_operator.controller.metrics import Metrics
from pulsecache_operator.controller.redis_store import RedisStore, RedisTrouble
from pulsecache_operator.placement import selects
from pulsecache_policy.hub_scripts import OLD_EPOCH
from pulsecache_policy.model import CachePolicy, TargetRef

LOG = logging.getLogger(__name__)

STEP_S = 1.0
KEEP = 16_384
"""Entries of a stream, as sidecars keep them."""


class DatasetKeeper:
    def __init__(
        self,
        api: Api,
        cluster: Cluster,
        redis: RedisStore,
        metrics: Metrics,
        *,
        writer: Callable[[], bool],
        clock: Callable[[], float],
    ) -> None:
        self._api = api
        self._cluster = cluster
        self._redis = redis
        self._metrics = metrics
        self._writer = writer
        self._clock = clock
        self._memories: dict[str, Memory] = {}
        self._lost: dict[str, int] = {}
        self._away = False

    def lost(self, dataset: str) -> int:
        return self._lost.get(dataset, 0)

    async def run(self) -> NoReturn:
        while True:
            await asyncio.sleep(STEP_S)
            if not self._writer():
                self._memories.clear()  # whoever takes the role over has to see for himself
                continue
            try:
                await self.step()
            except RedisTrouble as error:
                if not self._away:
                    LOG.warning("datasets cannot be looked after: %s", error)
                self._away = True
            except ApiError as error:
                LOG.warning("datasets cannot be looked after, pods cannot be listed: %s", error)
            else:
                self._away = False

    async def step(self) -> None:
        """Looks at every dataset once. Raises RedisTrouble, ApiError."""
        datasets: dict[str, list[CachePolicy]] = {}
        for policy in self._cluster.policies.all_valid():
            if policy.redis:
                datasets.setdefault(policy.dataset, []).append(policy)
        for gone in self._memories.keys() - datasets.keys():
            del self._memories[gone]
            self._lost.pop(gone, None)
        for dataset, policies in datasets.items():
            await self._look_at(dataset, policies)

    async def _look_at(self, dataset: str, policies: list[CachePolicy]) -> None:
        told = await self._redis.run("publishers", dataset)
        if not told:
            return
        epoch, beats = str(told[0]), {str(told[i]): int(told[i + 2]) for i in range(2, len(told), 3)}
        view = View(
            epoch=epoch,
            beats=beats,
            pods=(),
            policies=frozenset(policy.key for policy in policies),
            uncovered=self._uncovered(policies),
            settle_s=max(policy.staleness.settle_s for policy in policies),
            silence_s=max(
                policy.staleness.heartbeat.interval_s * policy.staleness.heartbeat.failure_threshold
                for policy in policies
            ),
            now=self._clock(),
        )
        memory = self._memories.get(dataset, Memory())
        if doubtful(view, memory):
            listings = [await self._api.list(POD, namespace) for namespace in _namespaces(policies)]
            view = replace(view, pods=[pod for listing in listings for pod in listing.items])
        verdict = judge(view, memory)
        self._memories[dataset] = verdict.memory
        self._lost[dataset] = lost(view, verdict.memory)
        await self._tell(dataset, epoch, verdict)

    async def _tell(self, dataset: str, epoch: str, verdict: Verdict) -> None:
        if not self._writer():
            return
        for publisher, beats in verdict.fence:
            if await self._redis.run("fence", dataset, epoch, publisher, str(beats), "1", _nonce(), KEEP):
                self._metrics.fenced.labels(dataset).inc()
                LOG.info("dataset %s: publisher %s is dead and was fenced", dataset, publisher)
        if verdict.release_old_epoch and await self._redis.run(
            "fence", dataset, epoch, OLD_EPOCH, "", "1", _nonce(), KEEP
        ):
            LOG.info("dataset %s: every sidecar has joined epoch %s or is gone", dataset, epoch)
        if verdict.cover is not None and await self._redis.run(
            "cover", dataset, epoch, str(int(verdict.cover)), _nonce(), KEEP
        ):
            LOG.info("dataset %s: %s", dataset, "covered" if verdict.cover else "replicas without a sidecar serve it")

    def _uncovered(self, policies: Iterable[CachePolicy]) -> bool:
        for policy in policies:
            if not isinstance(policy.placement, TargetRef):
                continue
            services = self._cluster.around(policy.namespace).services
            for pod in self._cluster.pods_of(policy.namespace):
                runs = pod["status"].get("phase") == "Running"
                if runs and policy.key not in policies_in(pod) and selects(policy, pod, services):
                    return True
        return False


def _namespaces(policies: Iterable[CachePolicy]) -> set[str]:
    return {policy.namespace for policy in policies}


def _nonce() -> str:
    return str(secrets.randbelow(2**53))
