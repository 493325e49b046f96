"""Events about pods that got no sidecar, posted beside the reviews: what cannot be posted is counted and forgotten.

A Deployment of a hundred pods is one piece of news: of the same owner, policy and reason one Event is posted in ten
minutes. The queue is bounded, and nobody waits for it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, NoReturn

from prometheus_client import Counter

from pulsecache_operator.injector.review import News
from pulsecache_operator.placement import Reason
from pulsecache_policy.model import API_GROUP, API_VERSION, KIND

log = logging.getLogger(__name__)

COMPONENT = "pulsecache-injector"
QUEUE = 1000
REPEAT_S = 600.0
REMEMBERED = 10_000
"""Pieces of news that are known to be posted already."""

_WISHED = frozenset({Reason.OPTED_OUT, Reason.OWN_NAMESPACE, Reason.KUBE_SYSTEM})
"""Somebody wants it so: Normal, not Warning."""

Post = Callable[[dict[str, Any]], Awaitable[None]]


class EventReporter:
    def __init__(self, post: Post, counter: Counter, *, clock: Callable[[], float] = time.monotonic) -> None:
        """`post` creates an Event and may raise anything. `counter` has the label `result`."""
        self._post = post
        self._counter = counter
        self._clock = clock
        self._queue: asyncio.Queue[News] = asyncio.Queue(QUEUE)
        self._posted: OrderedDict[tuple[str, ...], float] = OrderedDict()

    def report(self, news: News) -> None:
        """Never blocks, never fails."""
        now, key = self._clock(), _key(news)
        before = self._posted.get(key)
        if before is not None and now - before < REPEAT_S:
            self._counter.labels("repeated").inc()
            return
        try:
            self._queue.put_nowait(news)
        except asyncio.QueueFull:
            self._counter.labels("dropped").inc()
            return
        self._posted[key] = now
        self._posted.move_to_end(key)
        while len(self._posted) > REMEMBERED:
            self._posted.popitem(last=False)

    async def run(self) -> NoReturn:
        while True:
            news = await self._queue.get()
            try:
                await self._post(event(news, datetime.now(UTC)))
            except Exception as error:  # noqa: BLE001 (an Event is a courtesy: no reason of its failure may end this task)
                self._counter.labels("failed").inc()
                log.warning("an Event for %s/%s could not be posted: %s", news.namespace, news.policy, error)
            else:
                self._counter.labels("posted").inc()
            self._queue.task_done()

    async def drained(self) -> None:
        """Returns when all that was reported has been tried."""
        await self._queue.join()


def event(news: News, now: datetime) -> dict[str, Any]:
    time_text = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"generateName": "pulsecache-", "namespace": news.namespace},
        "involvedObject": _involved(news),
        "type": "Normal" if news.reason in _WISHED else "Warning",
        "reason": "InjectionSkipped",
        "message": f"policy {news.policy} has no effect on a pod ({news.reason}): {news.message}"[:1024],
        "source": {"component": COMPONENT},
        "reportingComponent": COMPONENT,
        "firstTimestamp": time_text,
        "lastTimestamp": time_text,
        "count": 1,
    }


def _involved(news: News) -> Mapping[str, Any]:
    if news.owner is not None:
        owner = {key: news.owner[key] for key in ("apiVersion", "kind", "name", "uid") if key in news.owner}
        return {**owner, "namespace": news.namespace}
    return {
        "apiVersion": f"{API_GROUP}/{API_VERSION}",
        "kind": KIND,
        "name": news.policy,
        "namespace": news.namespace,
        "uid": news.policy_uid,
    }


def _key(news: News) -> tuple[str, ...]:
    owner = news.owner or {}
    return (news.namespace, str(owner.get("uid") or ""), news.policy, news.reason)
