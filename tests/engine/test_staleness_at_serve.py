"""How stale an answer may be, what is said of it, and what each `whenExceeded` does when nobody knows any more."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from exchange_world import Arrived, Response, Sidecar, Wire, sidecars
from pulsecache_sidecar.adapters.local_hub import LocalHub
from pulsecache_sidecar.errors import OriginUnreachable
from pulsecache_sidecar.ports import Hub
from virtual_time import VirtualClock, virtual_time


def product(arrived: Arrived) -> Response:
    return Response(200, {"cache-control": "max-age=3600"}, b"v1")


def tagged(arrived: Arrived) -> Response:
    if arrived["if-none-match"]:
        return Response(304, {"etag": '"v1"'})
    return Response(200, {"cache-control": "max-age=3600", "etag": '"v1"'}, b"v1")


class Cut:
    """`hub=` for `sidecars`: makes a wire and remembers it."""

    def __init__(self) -> None:
        self.wire: Wire

    def __call__(self, clock: VirtualClock) -> Hub:
        self.wire = Wire(LocalHub(clock, covered=True, max_objects=100))
        return cast(Hub, self.wire)


def staleness(when: str, **more: Any) -> dict[str, Any]:
    return {"max": "5s", "writers": "All", "whenExceeded": when, "heartbeat": {"interval": "1s"}, **more}


@virtual_time
async def test_while_heartbeats_come_the_bound_stays_small_however_old_the_answer() -> None:
    async with sidecars(product, staleness=staleness("Revalidate")) as (pod,):
        await pod.get("/products/1")
        for _ in range(20):
            await asyncio.sleep(30)
            got = await pod.get("/products/1")
            assert (got.outcome, got.state) == ("hit", "confirmed")
            assert 0 < got.staleness_s <= 2.5
            assert got.bound_s is not None
            assert got.staleness_s >= got.bound_s
    assert len(pod.app.arrived) == 1


@virtual_time
async def test_where_writers_are_unknown_the_bound_is_the_age() -> None:
    async with sidecars(product, staleness={"max": "5s", "writers": "Unknown"}) as (pod,):
        await pod.get("/products/1")
        await asyncio.sleep(4)
        got = await pod.get("/products/1")
        assert (got.outcome, got.state, got.staleness_s) == ("hit", "uncovered", 4.0)
        await asyncio.sleep(1.5)
        assert (await pod.get("/products/1")).outcome == "miss"


async def exceeded(pod: Sidecar, hub: Cut) -> None:
    """Fills the cache and takes the hub away until nothing is known any more."""
    await asyncio.sleep(2)
    assert (await pod.get("/products/1")).outcome == "miss"
    hub.wire.cut = True
    await asyncio.sleep(3)
    got = await pod.get("/products/1")
    assert got.outcome == "hit"
    assert 3 <= got.staleness_s <= 5
    await asyncio.sleep(5)


@virtual_time
async def test_revalidate_asks_the_origin_and_says_that_the_dataset_is_exceeded() -> None:
    hub = Cut()
    async with sidecars(tagged, hub=hub, staleness=staleness("Revalidate")) as (pod,):
        await exceeded(pod, hub)
        got = await pod.get("/products/1")
        assert (got.body, got.outcome, got.staleness_s, got.state) == (b"v1", "revalidated", 0, "exceeded")
        assert pod.app.arrived[-1]["if-none-match"] == '"v1"'
        await asyncio.sleep(1)
        got = await pod.get("/products/1")  # good for a while again: by its own age
        assert got.outcome == "hit"
        assert 1 <= got.staleness_s <= 5
        hub.wire.cut = False
        await asyncio.sleep(5)
        got = await pod.get("/products/1")
        assert got.state == "confirmed"


@virtual_time
async def test_revalidate_fetches_anew_what_has_no_etag() -> None:
    hub = Cut()
    async with sidecars(product, hub=hub, staleness=staleness("Revalidate")) as (pod,):
        await exceeded(pod, hub)
        assert (await pod.get("/products/1")).outcome == "miss"


@virtual_time
async def test_bypass_leaves_the_cache_as_it_is() -> None:
    hub = Cut()
    async with sidecars(product, hub=hub, staleness=staleness("Bypass")) as (pod,):
        await exceeded(pod, hub)
        for _ in range(2):
            got = await pod.get("/products/1")
            assert got["cache-status"] == "pulsecache; fwd=bypass; detail=staleness-exceeded"
            assert got.staleness_s == 0
        assert len(pod.memory) == 1


@virtual_time
async def test_serve_stale_serves_and_says_so() -> None:
    hub = Cut()
    async with sidecars(product, hub=hub, staleness=staleness("ServeStale")) as (pod,):
        await exceeded(pod, hub)
        got = await pod.get("/products/1")
        assert (got.body, got.outcome, got.state) == (b"v1", "stale", "exceeded")
        assert got.staleness_s >= 8
        assert "detail=staleness-exceeded" in (got["cache-status"] or "")
    assert len(pod.app.arrived) == 1


@virtual_time
async def test_fail_turns_the_rule_off_and_on_again() -> None:
    hub = Cut()
    async with sidecars(product, hub=hub, staleness=staleness("Fail")) as (pod,):
        await exceeded(pod, hub)
        for target in ("/products/1", "/products/2"):
            got = await pod.get(target)
            assert (got.status, got.outcome, got["content-type"]) == (503, "fail", "application/problem+json")
            assert got["pulse-staleness"] == "unknown;state=exceeded"
            assert got["retry-after"]
        assert (await pod.get("/other")).status == 200
        hub.wire.cut = False
        await asyncio.sleep(5)
        assert (await pod.get("/products/1")).status == 200


@virtual_time
async def test_without_a_hub_everything_is_served_by_its_age() -> None:
    async with sidecars(product, hub=lambda _: None) as (pod,):
        await pod.get("/products/1")
        await asyncio.sleep(4)
        assert (await pod.get("/products/1")).staleness_s == 4
        await asyncio.sleep(2)
        assert (await pod.get("/products/1")).outcome == "miss"


@virtual_time
async def test_stale_if_error_never_exceeds_what_the_policy_promises() -> None:
    broken = False

    def script(arrived: Arrived) -> Response | Exception:
        if broken:
            return OriginUnreachable("gone", request_sent=False)
        return Response(200, {"cache-control": "max-age=3, stale-if-error=3600"}, b"good")

    hub = Cut()
    async with sidecars(script, hub=hub, staleness=staleness("Revalidate")) as (pod,):
        await asyncio.sleep(2)
        await pod.get("/products/1")
        broken = True
        await asyncio.sleep(60)
        got = await pod.get("/products/1")  # nothing was announced: it is what the origin would say
        assert (got.body, got.outcome) == (b"good", "stale")
        assert got.staleness_s < 5
        hub.wire.cut = True
        await asyncio.sleep(10)
        assert (await pod.get("/products/1")).status == 502


@virtual_time
async def test_an_invalidated_entry_is_revalidated_by_a_strong_etag_only() -> None:
    for etag, conditional in (('"strong"', True), ('W/"weak"', False)):

        def script(arrived: Arrived, etag: str = etag) -> Response:
            if arrived.method == "DELETE":
                return Response(204)
            if arrived["if-none-match"]:
                return Response(304, {"etag": etag})
            return Response(200, {"cache-control": "max-age=60", "etag": etag}, b"x")

        async with sidecars(script) as (pod,):
            await pod.get("/products/1")
            await pod.ask("DELETE", "/products/1")
            got = await pod.get("/products/1")
            assert (pod.app.arrived[-1]["if-none-match"] is not None) is conditional
            assert got.outcome == ("revalidated" if conditional else "miss")
