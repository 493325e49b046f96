"""Events about pods without a sidecar: few, bounded, and nobody waits for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from prometheus_client import CollectorRegistry

from pulsecache_operator.injector import events
from pulsecache_operator.injector.events import EventReporter, event
from pulsecache_operator.injector.metrics import Metrics
from pulsecache_operator.injector.review import News
from pulsecache_operator.selection import Reason

OWNER = {
    "apiVersion": "apps/v1",
    "kind": "ReplicaSet",
    "name": "products-5d8f",
    "uid": "rs",
    "controller": True,
    "blockOwnerDeletion": True,
}
NEWS = News(
    namespace="shop",
    owner=OWNER,
    policy="products",
    policy_uid="p-uid",
    reason=Reason.HOST_NETWORK,
    message="the pod uses the node's network",
)


def test_an_event_is_about_what_made_the_pod() -> None:
    assert event(NEWS, datetime(2026, 1, 1, tzinfo=UTC)) == {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"generateName": "pulsecache-", "namespace": "shop"},
        "involvedObject": {
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "name": "products-5d8f",
            "uid": "rs",
            "namespace": "shop",
        },
        "type": "Warning",
        "reason": "InjectionSkipped",
        "message": "policy products has no effect on a pod (host-network): the pod uses the node's network",
        "source": {"component": "pulsecache-injector"},
        "reportingComponent": "pulsecache-injector",
        "firstTimestamp": "2026-01-01T00:00:00Z",
        "lastTimestamp": "2026-01-01T00:00:00Z",
        "count": 1,
    }


def test_of_a_pod_that_a_person_made_it_is_about_the_policy() -> None:
    involved = event(replace(NEWS, owner=None), datetime.now(UTC))["involvedObject"]
    assert (involved["kind"], involved["name"], involved["uid"]) == ("CachePolicy", "products", "p-uid")


def test_what_somebody_wished_is_no_warning_and_a_long_story_is_cut() -> None:
    wished = event(replace(NEWS, reason=Reason.OPTED_OUT, message="x" * 5000), datetime.now(UTC))
    assert wished["type"] == "Normal"
    assert len(wished["message"]) == 1024


class Board:
    """Where Events are posted in these tests."""

    def __init__(self) -> None:
        self.posted: list[dict[str, Any]] = []
        self.error: Exception | None = None
        self.open = asyncio.Event()
        self.open.set()
        self.now = 1000.0
        self.registry: CollectorRegistry
        self.reporter: EventReporter

    async def post(self, event: dict[str, Any]) -> None:
        await self.open.wait()
        if self.error:
            raise self.error
        self.posted.append(event)

    def count(self, result: str) -> float:
        return self.registry.get_sample_value("pulsecache_events_total", {"result": result}) or 0.0


@asynccontextmanager
async def board() -> AsyncIterator[Board]:
    board, metrics = Board(), Metrics()
    board.registry = metrics.registry
    board.reporter = EventReporter(board.post, metrics.events, clock=lambda: board.now)
    task = asyncio.create_task(board.reporter.run())
    try:
        yield board
    finally:
        assert not task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_the_same_of_a_hundred_pods_is_told_once_in_ten_minutes() -> None:
    async with board() as b:
        for _ in range(100):
            b.reporter.report(NEWS)
        b.reporter.report(replace(NEWS, reason=Reason.HOST_PORT))
        b.reporter.report(replace(NEWS, policy="other"))
        b.reporter.report(replace(NEWS, owner=OWNER | {"uid": "other"}))
        await b.reporter.drained()
        assert (len(b.posted), b.count("posted"), b.count("repeated")) == (4, 4, 99)
        b.now += 601.0
        b.reporter.report(NEWS)
        await b.reporter.drained()
        assert len(b.posted) == 5


async def test_an_event_that_cannot_be_posted_is_counted_and_the_next_one_is_posted() -> None:
    async with board() as b:
        b.error = RuntimeError("403")
        b.reporter.report(NEWS)
        await b.reporter.drained()
        b.error = None
        b.reporter.report(replace(NEWS, policy="next"))
        await b.reporter.drained()
        assert (b.count("failed"), b.count("posted")) == (1, 1)


async def test_while_the_api_server_is_slow_the_rest_is_dropped_and_nobody_waits() -> None:
    async with board() as b:
        b.open.clear()
        for number in range(events.QUEUE + 500):
            b.reporter.report(replace(NEWS, policy=f"p{number}"))
        dropped = b.count("dropped")
        assert 499 <= dropped <= 500
        b.open.set()
        await b.reporter.drained()
        assert len(b.posted) == events.QUEUE + 500 - dropped
        # What was dropped may be told when it comes again.
        b.reporter.report(replace(NEWS, policy=f"p{events.QUEUE + 499}"))
        await b.reporter.drained()
        assert len(b.posted) == events.QUEUE + 501 - dropped


async def test_what_is_remembered_is_bounded() -> None:
    async with board() as b:
        for number in range(events.REMEMBERED + 300):
            b.reporter.report(replace(NEWS, policy=f"p{number}"))
            if number % 500 == 0:
                await b.reporter.drained()
        await b.reporter.drained()
        assert len(b.reporter._posted) == events.REMEMBERED
