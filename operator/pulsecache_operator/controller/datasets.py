"""Keeps the datasets in Redis: reads who publishes, lets `keeper` decide, and carries it out.

Only the holder of the Lease does; and should two at once, each script is safe to repeat and compares what it was told.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable

from pulsecache_operator.controller.api import POD, Api, ApiError
from pulsecache_operator.controller.cluster import Cluster
from pulsecache_operator.controller.facts import Keeper
from pulsecache_operator.controller.keeper import (
    Cover,
    Dataset,
    Fence,
    Members,
    Memo,
    Replicas,
    datasets,
    decide,
    doubtful,
    observed,
    replicas,
)
from pulsecache_operator.controller.metrics import Metrics
from pulsecache_operator.controller.redis_store import RedisRefused, RedisStore, RedisTrouble

LOG = logging.getLogger(__name__)

KEEP = 16_384
"""Entries of a stream, as sidecars keep them."""


class DatasetKeeper:
    def __init__(
        self,
        api: Api,
        redis: RedisStore,
        cluster: Cluster,
        metrics: Metrics,
        *,
        held: Callable[[], bool],
        clock: Callable[[], float],
    ) -> None:
        self._api = api
        self._redis = redis
        self._cluster = cluster
        self._metrics = metrics
        self._held = held
        self._clock = clock
        self._keeper = Keeper()
        self._memos: dict[str, Memo] = {}
        self._away = False

    def forget(self) -> None:
        """What was seen does not count any more: somebody else has the role."""
        self._memos.clear()

    async def look(self) -> None:
        """One look at every dataset. Trouble is logged: the next look comes soon."""
        found = datasets(self._cluster.policies.all_valid())
        self._memos = {name: memo for name, memo in self._memos.items() if name in found}
        try:
            for dataset in found.values():
                try:
                    await self._look_at(dataset)
                except RedisRefused as error:
                    LOG.info("dataset %s: %s; it is looked at again", dataset.name, error)
            self._away = False
        except RedisTrouble as error:
            if not self._away:
                LOG.warning("datasets in Redis cannot be looked after for now: %s", error)
            self._away = True
        except ApiError as error:
            LOG.warning("datasets in Redis cannot be looked after: pods cannot be listed: %s", error)

    async def _look_at(self, dataset: Dataset) -> None:
        members = _members(await self._redis.run("publishers", dataset.name))
        if members is None:
            return
        silence_s = dataset.silence_s
        now = self._clock()
        around = self._cluster.around(dataset.namespace)
        known = replicas(dataset, self._cluster.pods_of(dataset.namespace), around)
        memo = observed(self._memos.get(dataset.name, Memo()), members, now)
        fresh: Replicas | None = None
        if doubtful(memo, members, silence_s=silence_s, now=now):
            # Begun after the members were read: who is missing in it was gone by then.
            pods = (await self._api.list(POD, dataset.namespace)).items
            fresh = replicas(dataset, map(self._keeper.pod, pods), around)
        decision = decide(
            memo, members, known, fresh, settle_s=dataset.settle_s, silence_s=silence_s, now=self._clock()
        )
        self._memos[dataset.name] = decision.memo
        for action in decision.actions:
            if self._held():
                await self._act(dataset.name, members.epoch, action)

    async def _act(self, dataset: str, epoch: str, action: Fence | Cover) -> None:
        nonce = secrets.randbelow(2**53)
        match action:
            case Cover(covered):
                if await self._redis.run("cover", dataset, epoch, int(covered), nonce, KEEP):
                    told = "every replica has a sidecar" if covered else "replicas without a sidecar serve it"
                    LOG.info("dataset %s: %s", dataset, told)
            case Fence(publisher, beats):
                seen = "" if beats is None else beats
                if await self._redis.run("fence", dataset, epoch, publisher, seen, 1, nonce, KEEP):
                    self._metrics.fenced.labels(dataset).inc()
                    LOG.info("dataset %s: publisher %s is gone for certain and was fenced", dataset, publisher)


def _members(reply: object) -> Members | None:
    """The reply of the script `publishers`; None where the dataset has no epoch yet."""
    if not isinstance(reply, list) or not reply:
        return None
    rest = reply[2:]
    return Members(
        epoch=str(reply[0]),
        beats={str(rest[at]): int(rest[at + 2]) for at in range(0, len(rest) - 2, 3)},
    )
