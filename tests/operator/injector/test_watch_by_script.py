"""List and watch against a server that misbehaves on request."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from pulsecache_operator.watch import Resource, Timing, Watch
from scripted_api import QUICK, ScriptedApi, Shelf, cut, event, item, raw, scripted_api, silence, status
from wire import until

THINGS = Resource(name="things", path="/apis/x/v1/things")


@asynccontextmanager
async def watching(
    api: ScriptedApi, client: object, shelf: Shelf, timing: Timing = QUICK, resource: Resource = THINGS
) -> AsyncIterator[Watch]:
    watch = Watch(client, resource, shelf, timing=timing)  # type: ignore[arg-type]  # kubernetes has no types
    task = asyncio.create_task(watch.run())
    try:
        yield watch
    finally:
        ended = task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert not ended


async def test_a_list_hands_over_the_whole_set_and_a_watch_goes_on_from_there() -> None:
    async with scripted_api() as (api, client):
        api.on_list("7", item("a"), item("b"))
        api.on_watch(
            event("ADDED", item("c", 8)), event("MODIFIED", item("a", 9)), event("DELETED", item("b", 10)), then=silence
        )
        shelf = Shelf()
        async with watching(api, client, shelf) as watch:
            await until(lambda: len(shelf.told) == 4, "all events")
            assert watch.listed.is_set()
            assert shelf.told == ["replace a b", "put c", "put a", "drop b"]
            query = api.asked(watch=True)[0].query
            assert query["resourceVersion"] == "7"
            assert query["allowWatchBookmarks"] == "true"
            assert 240 <= int(query["timeoutSeconds"]) <= 360


async def test_a_long_list_comes_in_pages_and_is_handed_over_once() -> None:
    async with scripted_api() as (api, client):
        api.on_list("7", item("a"), token="more")
        api.on_list("7", item("b"))
        shelf = Shelf()
        async with watching(api, client, shelf) as watch:
            await asyncio.wait_for(watch.listed.wait(), 5)
        assert shelf.told == ["replace a b"]
        assert [request.query.get("continue") for request in api.asked(watch=False)] == [None, "more"]


async def test_a_watch_that_ends_is_continued_after_its_last_event_or_bookmark() -> None:
    async with scripted_api() as (api, client):
        api.on_list("7")
        api.on_watch(event("ADDED", item("a", 8)))
        api.on_watch(event("BOOKMARK", {"metadata": {"resourceVersion": "42"}}))
        shelf = Shelf()
        async with watching(api, client, shelf):
            await until(lambda: len(api.asked(watch=True)) == 3, "three watches")
        assert [request.query["resourceVersion"] for request in api.asked(watch=True)] == ["7", "8", "42"]
        assert len(api.asked(watch=False)) == 1


@pytest.mark.parametrize("how", ["status", "event"])
async def test_lost_history_means_a_new_list_and_what_vanished_meanwhile_is_gone(how: str) -> None:
    async with scripted_api() as (api, client):
        api.on_list("7", item("a"), item("ghost"))
        if how == "status":
            api.refuse(410, watch=True)
        else:
            api.on_watch(event("ERROR", status(410, "too old resource version")))
        api.on_list("99", item("a"))
        shelf = Shelf()
        async with watching(api, client, shelf):
            await until(lambda: len(shelf.told) == 2, "the second LIST")
            await until(lambda: len(api.asked(watch=True)) == 2, "the second WATCH")
        assert list(shelf.items) == ["a"]
        assert api.asked(watch=True)[1].query["resourceVersion"] == "99"


@pytest.mark.parametrize(
    "trouble",
    [
        raw(b'{"type": "ADDED", "object": {"metadata"', then=cut),
        raw(b"<html>no JSON</html>\n"),
        raw(b"[]\n"),
        raw(b'{"type": "ERROR", "object": {"code": 500, "message": "etcdserver: leader changed"}}\n'),
        cut,
    ],
    ids=["cut in the middle", "no JSON", "no event", "error event", "cut at once"],
)
async def test_what_breaks_a_watch_does_not_lose_its_place(trouble: object) -> None:
    async with scripted_api() as (api, client):
        api.on_list("7", item("a"))
        api.watches.append(trouble)  # type: ignore[arg-type]  # they are answers
        api.on_watch(event("ADDED", item("b", 8)), then=silence)
        shelf = Shelf()
        async with watching(api, client, shelf):
            await until(lambda: "b" in shelf.items, "the event after the trouble")
        assert [request.query["resourceVersion"] for request in api.asked(watch=True)] == ["7", "7"]
        assert len(api.asked(watch=False)) == 1


async def test_events_may_come_in_any_pieces() -> None:
    async with scripted_api() as (api, client):
        api.on_list("7")
        lines = b"".join(
            b'{"type":"ADDED","object":{"metadata":{"name":"%d","resourceVersion":"%d"}}}\n\n' % (i, i)
            for i in range(8, 40)
        )
        api.watches.append(raw(lines, pieces=97, then=silence))
        shelf = Shelf()
        async with watching(api, client, shelf):
            await until(lambda: len(shelf.items) == 32, "all events")


async def test_an_object_larger_than_the_buffers_of_the_client() -> None:
    async with scripted_api() as (api, client):
        api.on_list("7")
        api.on_watch(event("ADDED", item("big", 8, data="x" * 9_000_000)), then=silence)
        shelf = Shelf()
        async with watching(api, client, shelf):
            await until(lambda: "big" in shelf.items, "the event")


async def test_a_server_that_fails_again_and_again_is_listed_anew() -> None:
    """After a restore from a backup its versions are lower than ours, and every watch fails in its own way."""
    async with scripted_api() as (api, client):
        api.on_list("1000", item("a"))
        for _ in range(3):
            api.refuse(504, watch=True)
        api.on_list("5", item("b"))
        shelf = Shelf()
        async with watching(api, client, shelf):
            await until(lambda: list(shelf.items) == ["b"], "the new LIST")
            await until(lambda: len(api.asked(watch=True)) == 4, "the watch after it")
        assert api.asked(watch=True)[-1].query["resourceVersion"] == "5"


async def test_a_connection_that_is_silent_is_given_up() -> None:
    async with scripted_api() as (api, client):
        api.on_list("7")
        api.watches.append(silence)
        api.on_watch(event("ADDED", item("a", 8)), then=silence)
        shelf = Shelf()
        async with watching(api, client, shelf, replace(QUICK, silence_s=0.1)):
            await until(lambda: "a" in shelf.items, "the event after the silence")
        assert len(api.asked(watch=False)) == 1


async def test_a_kind_that_never_changes_is_no_trouble(caplog: pytest.LogCaptureFixture) -> None:
    """Without a change the API server sends no bookmark either: silence is all there is."""
    caplog.set_level(logging.INFO)
    async with scripted_api() as (api, client):
        api.on_list("7")
        quiet = replace(QUICK, silence_s=0.05, short_s=0.04, backoff_first_s=30.0, backoff_max_s=30.0)
        async with watching(api, client, Shelf(), quiet) as watch:
            await until(lambda: len(api.asked(watch=True)) == 8, "eight watches without back-off")
            assert len(api.asked(watch=False)) == 1
            assert watch.last_event_age_s() < 1.0
    assert caplog.messages == []


async def test_until_the_first_list_is_complete_nothing_is_known() -> None:
    async with scripted_api() as (api, client):
        api.refuse(403, watch=False)
        api.on_list("7", item("a"), token="more")
        api.refuse(500, watch=False)
        shelf = Shelf()
        async with watching(api, client, shelf) as watch:
            await until(lambda: len(api.asked(watch=False)) == 4, "the LIST after two failures")
            assert not watch.listed.is_set()
            assert shelf.told == []


async def test_back_off_grows_is_bounded_and_heeds_retry_after() -> None:
    async with scripted_api() as (_, client):
        watch = Watch(client, THINGS, Shelf(), timing=Timing(backoff_first_s=1.0, backoff_max_s=8.0))
        ranges = []
        for failures in (0, 1, 2, 3, 4, 5, 100):
            watch._failures = failures
            waits = [watch._backoff_s() for _ in range(50)]
            ranges.append((min(waits), max(waits)))
        assert ranges[0] == (0.0, 0.0)
        for (low, high), longest in zip(ranges[1:], (1, 2, 4, 8, 8, 8), strict=True):
            assert longest / 2 <= low <= high <= longest
        assert ranges[3][0] != ranges[3][1]


async def test_the_server_may_ask_for_patience() -> None:
    async with scripted_api() as (api, client):
        api.refuse(429, watch=False, headers={"Retry-After": "1"})
        api.on_list("7")
        loop = asyncio.get_running_loop()
        started = loop.time()
        async with watching(api, client, Shelf()) as watch:
            await asyncio.wait_for(watch.listed.wait(), 5)
        assert loop.time() - started >= 1.0


async def test_watches_that_end_at_once_do_not_make_a_busy_loop() -> None:
    async with scripted_api() as (api, client):
        api.on_list("7")
        for _ in range(100):
            api.on_watch()
        async with watching(api, client, Shelf(), replace(QUICK, backoff_first_s=0.2, backoff_max_s=10, short_s=5)):
            await until(lambda: len(api.asked(watch=True)) >= 3, "a third watch")
            assert len(api.asked(watch=True)) <= 4


async def test_the_age_of_what_is_known_is_measured() -> None:
    now = [100.0]
    async with scripted_api() as (api, client):
        api.on_list("7")
        watch = Watch(client, THINGS, Shelf(), timing=QUICK, clock=lambda: now[0])
        task = asyncio.create_task(watch.run())
        await asyncio.wait_for(watch.listed.wait(), 5)
        assert watch.last_event_age_s() == 0.0
        now[0] = 160.0
        assert watch.last_event_age_s() == 60.0
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_selectors_and_metadata_only_are_asked_of_the_server() -> None:
    resource = Resource(
        name="secret", path="/api/v1/x", field_selector="metadata.name=a", label_selector="b=c", metadata_only=True
    )
    async with scripted_api() as (api, client):
        api.on_list("7")
        async with watching(api, client, Shelf(), resource=resource):
            await until(lambda: len(api.requests) == 2, "LIST and WATCH")
        for request, kind in zip(api.requests, ("PartialObjectMetadataList", "PartialObjectMetadata"), strict=True):
            assert request.query["fieldSelector"] == "metadata.name=a"
            assert request.query["labelSelector"] == "b=c"
            assert request.headers["Accept"].startswith(f"application/json;as={kind};")


async def test_trouble_is_told_but_not_each_hiccup(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    async with scripted_api() as (api, client):
        api.on_list("7")
        api.refuse(410, watch=True)
        api.on_list("8")
        api.on_watch(event("ADDED", item("a", 9)), then=silence)
        shelf = Shelf()
        async with watching(api, client, shelf):
            await until(lambda: "a" in shelf.items, "the event")
        assert caplog.messages == []
        for _ in range(2):
            api.refuse(403, watch=False)
        async with watching(api, client, Shelf()):
            await until(lambda: bool(caplog.messages), "a warning")
        assert "the watch of things was interrupted: 403 trouble" in caplog.messages[0]
