"""Kopf as ears: every event is heard, nothing is ever written, and its end is not ours."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from eventually import eventually
from kopf_api import KopfApi, kopf_api, policy
from pulsecache_operator.controller.watching import PolicyWatch

ERROR_500 = {"type": "ERROR", "object": {"kind": "Status", "code": 500, "message": "etcd is away"}}


@asynccontextmanager
async def listening(api: KopfApi) -> AsyncIterator[tuple[PolicyWatch, list[tuple[str | None, str]]]]:
    heard: list[tuple[str | None, str]] = []

    def hear(kind: str | None, document: dict[str, Any]) -> None:
        heard.append((kind, document["metadata"]["name"]))

    watch = PolicyWatch(hear, api.connection, retries_s=(0.01,), backoff_s=0.01)
    watch.start()
    try:
        yield watch, heard
    finally:
        await watch.stop()
        assert watch.trouble() is None


async def test_what_is_there_and_what_comes_is_heard_and_nothing_is_written() -> None:
    async with kopf_api() as api:
        api.items = [policy("old", 1)]
        api.watches.append(
            [
                {"type": "ADDED", "object": policy("new", 2)},
                {"type": "MODIFIED", "object": policy("new", 3)},
                {"type": "DELETED", "object": policy("old", 4)},
            ]
        )
        async with listening(api) as (_, heard):
            await eventually(lambda: len(heard) >= 4, "four events")
            assert (None, "old") in heard
            assert [event for event in heard if event[1] == "new"] == [("ADDED", "new"), ("MODIFIED", "new")]
            assert ("DELETED", "old") in heard
        assert api.written == []
        assert set(api.tokens) == {"Bearer let-me-in"}


async def test_it_asks_for_no_crds_and_no_namespaces() -> None:
    async with kopf_api() as api:
        async with listening(api):
            await eventually(lambda: api.opened, "a watch")
        assert not [path for path in api.paths if path.endswith(("customresourcedefinitions", "namespaces"))]


@pytest.mark.parametrize("trouble", [500, 403, [ERROR_500]])
@pytest.mark.timeout(60)
async def test_an_error_that_ends_kopf_does_not_end_the_watch(trouble: Any) -> None:
    async with kopf_api() as api:
        api.watches.extend([trouble] * 4)
        async with listening(api) as (watch, heard):
            # A refusal is tried again by Kopf itself for some seconds before it gives up.
            await eventually(lambda: watch.restarts or api.opened > 4, "Kopf's end, or its next watch", within_s=40)
            api.items = [policy("later", 5)]
            api.watches.clear()
            api.watches.append([{"type": "ADDED", "object": policy("later", 5)}])
            await eventually(lambda: any(name == "later" for _, name in heard), "what comes later", within_s=40)


async def test_a_stop_in_the_middle_of_a_watch_is_quick() -> None:
    async with kopf_api() as api, listening(api) as (watch, _):
        await eventually(lambda: api.opened, "a watch")
        await watch.stop()
        assert watch._thread is not None
        assert not watch._thread.is_alive()
