"""Writes: forwarded once, announced before they are answered, and what of them may be stored."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from exchange_world import Arrived, Response, Sidecar, sidecars
from pulsecache_policy.model import WriteRule
from pulsecache_sidecar.core.http.message import RequestHead
from pulsecache_sidecar.errors import JournalFull, OriginBadResponse, OriginUnreachable
from pulsecache_sidecar.ports import PendingWrite
from virtual_time import virtual_time


class Shop:
    """An app with products by path; a PUT is answered with what it has become."""

    def __init__(self) -> None:
        self.products: dict[str, bytes] = {}
        self.written: dict[str, str] = {"cache-control": "max-age=60", "etag": '"new"'}
        self.status = 200
        self.body: bytes | None = None
        self.delay_s = 0.0

    async def __call__(self, arrived: Arrived) -> Response:
        path = arrived.target.split("?")[0]
        if arrived.method in ("GET", "HEAD"):
            value = self.products.get(path)
            if value is None:
                return Response(404)
            return Response(200, {"cache-control": "max-age=60"}, value)
        if self.status < 300:
            if arrived.method == "DELETE":
                self.products.pop(path, None)
                return Response(200, {}, b"deleted")
            self.products[path] = arrived.body.upper()
        await asyncio.sleep(self.delay_s)
        body = self.products.get(path, b"") if self.body is None else self.body
        return Response(self.status, self.written, body if self.status != 204 else b"")


def writing(source: str, **more: Any) -> dict[str, Any]:
    rule = {
        "name": "update",
        "match": {"methods": ["PUT", "DELETE"], "path": "/products/{id}"},
        "strategy": "WriteThrough",
        "writeThrough": {"read": "product", "from": source},
        "invalidates": ["products"],
    }
    return {"writes": [{**rule, **more}]}


INVALIDATING = {
    "writes": [
        {
            "name": "update",
            "match": {"methods": ["PUT"], "path": "/products/{id}"},
            "strategy": "Invalidate",
            "invalidates": ["products"],
        }
    ]
}


# --- what is stored ---------------------------------------------------------------------------------------------------


@virtual_time
async def test_the_response_body_becomes_the_entry() -> None:
    async with sidecars(Shop()) as (pod,):
        written = await pod.put("/products/1", b"new")
        assert (written.status, written.body, written.outcome) == (200, b"NEW", "write-through")
        assert written["cache-status"] == "pulsecache; fwd=method; stored"
        read = await pod.get("/products/1")
        assert (read.body, read.outcome, read["etag"]) == (b"NEW", "hit", '"new"')
    assert pod.app.calls() == []


@virtual_time
async def test_the_request_body_becomes_the_entry() -> None:
    shop = Shop()
    shop.status = 204
    async with sidecars(shop, **writing("RequestBody")) as (pod,):
        await pod.put("/products/1", b"new", content_type="text/csv", x_other="1")
        read = await pod.get("/products/1")
        assert (read.body, read["content-type"], read.outcome) == (b"new", "text/csv", "hit")
        assert (read["x-other"], read["content-length"]) == (None, None)


@virtual_time
async def test_a_refetch_asks_as_anybody_would() -> None:
    async with sidecars(Shop(), **writing("Refetch")) as (pod,):
        await pod.put("/products/1", b"new", authorization="Bearer admin", cookie="a=b")
        (refetch,) = [arrived for arrived in pod.app.arrived if arrived.method == "GET"]
        assert (refetch["authorization"], refetch["cookie"]) == (None, None)
        assert (await pod.get("/products/1")).outcome == "hit"
    assert pod.app.calls() == ["/products/1"]


@pytest.mark.parametrize("source", ["ResponseBody", "RequestBody"])
def test_what_an_administrator_wrote_is_not_stored_for_everybody(source: str) -> None:
    @virtual_time
    async def run() -> None:
        async with sidecars(Shop(), **writing(source)) as (pod,):
            got = await pod.put("/products/1", b"new", authorization="Bearer admin")
            assert "detail=authorization" in (got["cache-status"] or "")
            assert len(pod.memory) == 0
            assert (await pod.get("/products/1")).outcome == "miss"

    run()


@pytest.mark.parametrize(
    ("status", "fields", "stored"),
    [
        (200, {}, True),
        (201, {}, True),
        (200, {"content-location": "/products/1"}, True),
        (200, {"content-location": "/audit/77"}, False),
        (200, {"content-location": "http://elsewhere/products/1"}, False),
        (203, {}, False),
        (204, {}, False),
        (303, {"location": "/products/1"}, False),
        (200, {"cache-control": "no-store"}, False),
        (200, {"set-cookie": "a=b"}, False),
        (200, {"vary": "*"}, False),
    ],
)
def test_only_what_is_the_representation_is_stored(status: int, fields: dict[str, str], stored: bool) -> None:
    @virtual_time
    async def run() -> None:
        shop = Shop()
        shop.products["/products/1"] = b"OLD"
        async with sidecars(shop) as (pod,):
            await pod.get("/products/1")
            shop.status, shop.written = status, fields
            got = await pod.put("/products/1", b"new")
            assert got.status == status
            assert ("stored" in (got["cache-status"] or "").split("; ")) is stored
            shop.products["/products/1"] = b"LATER"
            assert (await pod.get("/products/1")).outcome == ("hit" if stored else "miss")

    run()


@virtual_time
async def test_a_delete_leaves_nothing_behind() -> None:
    shop = Shop()
    shop.products["/products/1"] = b"OLD"
    async with sidecars(shop) as (pod,):
        await pod.get("/products/1")
        assert (await pod.ask("DELETE", "/products/1")).body == b"deleted"
        assert (await pod.get("/products/1")).status == 404


@virtual_time
async def test_a_write_with_a_query_is_not_the_plain_resource() -> None:
    async with sidecars(Shop()) as (pod,):
        await pod.put("/products/1?partial=1", b"new")
        assert (await pod.get("/products/1")).outcome == "miss"


@virtual_time
async def test_two_writes_that_overlap_store_nothing() -> None:
    shop = Shop()
    shop.delay_s = 1.0
    async with sidecars(shop) as (pod,):
        await asyncio.sleep(2)
        first = asyncio.create_task(pod.put("/products/1", b"one"))
        await asyncio.sleep(0.5)
        second = asyncio.create_task(pod.put("/products/1", b"two"))
        await asyncio.gather(first, second)
        shop.delay_s = 0.0
        assert "stored" not in ((await second)["cache-status"] or "").split("; ")
        assert (await pod.get("/products/1")).body == shop.products["/products/1"]


# --- who hears of it --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", [INVALIDATING, writing("ResponseBody"), {"writes": []}])
def test_an_acknowledged_write_is_seen_by_the_next_read_here(spec: dict[str, Any]) -> None:
    @virtual_time
    async def run() -> None:
        shop = Shop()
        shop.products["/products/1"] = b"OLD"
        async with sidecars(shop, **spec) as (pod,):
            for n in range(5):
                await pod.get("/products/1")
                await pod.put("/products/1", b"v%d" % n)
                assert (await pod.get("/products/1")).body == b"V%d" % n

    run()


@virtual_time
async def test_the_others_see_it_within_the_bound_they_print() -> None:
    shop = Shop()
    shop.products["/products/1"] = b"OLD"
    async with sidecars(shop, 3) as pods:
        await asyncio.sleep(2)
        for pod in pods:
            await pod.get("/products/1")
        await pods[0].put("/products/1", b"new")
        acknowledged = pods[0].clock.now()
        await asyncio.sleep(0.001)
        for pod in pods[1:]:
            got = await pod.get("/products/1")
            assert got.body == b"NEW" or got.staleness_s >= pod.clock.now() - acknowledged
        await asyncio.sleep(0.5)
        for pod in pods:
            assert (await pod.get("/products/1")).body == b"NEW"


@virtual_time
async def test_tags_of_the_rule_are_invalidated_too() -> None:
    shop = Shop()
    shop.products |= {"/products/1": b"ONE", "/products/2": b"TWO"}
    async with sidecars(shop) as (pod,):
        await pod.get("/products/2")
        await pod.put("/products/1", b"new")
        assert (await pod.get("/products/2")).outcome == "miss"


@virtual_time
async def test_every_spelling_of_a_path_is_invalidated() -> None:
    shop = Shop()
    shop.products |= {"/products/a%40b": b"X", "/products/a@b": b"X"}
    async with sidecars(shop, writes=[]) as (pod,):
        await pod.get("/products/a%40b")
        await pod.put("/products/a@b", b"new")
        assert (await pod.get("/products/a%40b")).outcome == "miss"


@pytest.mark.parametrize(
    ("fields", "invalidated"),
    [
        ({"location": "/products/2"}, True),
        ({"location": "http://shop/products/2?x=1"}, True),
        ({"content-location": "../products/2"}, True),
        ({"location": "http://elsewhere/products/2"}, False),
        ({"location": "//elsewhere/products/2"}, False),
    ],
)
def test_location_and_content_location_are_invalidated(fields: dict[str, str], invalidated: bool) -> None:
    @virtual_time
    async def run() -> None:
        shop = Shop()
        shop.products["/products/2"] = b"TWO"
        shop.written = fields
        shop.status = 201
        async with sidecars(shop) as (pod,):
            await pod.get("/products/2")
            await pod.ask("POST", "/orders/new", b"x")
            assert (await pod.get("/products/2")).outcome == ("miss" if invalidated else "hit")

    run()


@virtual_time
async def test_a_write_whose_path_cannot_be_named_invalidates_everything() -> None:
    shop = Shop()
    shop.products["/products/2"] = b"TWO"
    async with sidecars(shop) as (pod,):
        await pod.get("/products/2")
        await pod.ask("POST", "/a/../products/2", b"x")
        assert (await pod.get("/products/2")).outcome == "miss"


@pytest.mark.parametrize("method", ["POST", "PATCH", "FROBNICATE"])
def test_unsafe_methods_without_a_rule_pass_and_invalidate_their_url(method: str) -> None:
    @virtual_time
    async def run() -> None:
        shop = Shop()
        shop.products["/products/1"] = b"ONE"
        async with sidecars(shop, writes=[]) as (pod,):
            await pod.get("/products/1")
            got = await pod.ask(method, "/products/1", b"x")
            assert (got.outcome, got["cache-status"]) == ("pass", None)
            assert (await pod.get("/products/1")).outcome == "miss"

    run()


@pytest.mark.parametrize("spec", [INVALIDATING, {"writes": []}])
@pytest.mark.parametrize("status", [400, 404, 409, 412, 422])
def test_a_refused_write_changes_nothing(status: int, spec: dict[str, Any]) -> None:
    @virtual_time
    async def run() -> None:
        shop = Shop()
        shop.products["/products/1"] = b"ONE"
        async with sidecars(shop, **spec) as (pod,):
            await pod.get("/products/1")
            shop.status = status
            assert (await pod.put("/products/1", b"x")).status == status
            assert (await pod.get("/products/1")).outcome == "hit"
            assert pod.coherence.report(pod.clock.now()).open_writes == 0

    run()


# --- outcomes that nobody knows ---------------------------------------------------------------------------------------


def failing(how: int | Exception) -> Callable[[Arrived], Response | Exception]:
    def script(arrived: Arrived) -> Response | Exception:
        if arrived.method == "GET":
            return Response(200, {"cache-control": "max-age=3600"}, b"value")
        return how if isinstance(how, Exception) else Response(how, {}, b"?")

    return script


@pytest.mark.parametrize("spec", [INVALIDATING, writing("ResponseBody"), {"writes": []}])
@pytest.mark.parametrize("how", [500, 503, 408, 202, OriginBadResponse("reset", request_sent=True)])
def test_an_unknown_outcome_keeps_the_entry_out_of_use_until_it_is_settled(
    how: int | Exception, spec: dict[str, Any]
) -> None:
    @virtual_time
    async def run() -> None:
        async with sidecars(failing(how), **spec) as (pod,):
            await asyncio.sleep(2)
            await pod.get("/products/1")
            got = await pod.put("/products/1", b"x")
            assert got.status == (how if isinstance(how, int) else 502)
            for _ in range(28):
                assert (await pod.get("/products/1")).outcome == "miss"
                await asyncio.sleep(1)
            await asyncio.sleep(5)
            await pod.get("/products/1")
            assert (await pod.get("/products/1")).outcome == "hit"

    run()


@virtual_time
async def test_a_write_that_was_never_sent_has_changed_nothing() -> None:
    async with sidecars(failing(OriginUnreachable("refused", request_sent=False))) as (pod,):
        await pod.get("/products/1")
        assert (await pod.put("/products/1", b"x")).status == 502
        assert (await pod.get("/products/1")).outcome == "hit"


@virtual_time
async def test_a_client_that_leaves_does_not_leave_its_write_open() -> None:
    shop = Shop()
    shop.products["/products/1"] = b"OLD"
    shop.delay_s = 1.0
    async with sidecars(shop) as (pod,):
        await pod.get("/products/1")
        leaving = asyncio.create_task(pod.put("/products/1", b"new"))
        await asyncio.sleep(0.5)
        leaving.cancel()
        await asyncio.sleep(1)
        assert pod.coherence.report(pod.clock.now()).open_writes == 0
        assert (await pod.get("/products/1")).body == b"NEW"


@virtual_time
async def test_a_response_body_that_breaks_off_still_announces_the_write() -> None:
    def script(arrived: Arrived) -> Response:
        if arrived.method == "GET":
            return Response(200, {"cache-control": "max-age=60"}, b"value")
        return Response(200, {}, [b"half", OriginBadResponse("reset", request_sent=True)])

    async with sidecars(script) as (pod,):
        await pod.get("/products/1")
        assert (await pod.put("/products/1", b"x")).status == 502
        assert (await pod.get("/products/1")).outcome == "miss"
        assert pod.coherence.report(pod.clock.now()).open_writes == 0


@virtual_time
async def test_a_client_that_breaks_off_its_upload_leaves_an_unknown_outcome() -> None:
    async with sidecars(failing(200), writes=[]) as (pod,):
        await pod.get("/products/1")

        async def broken() -> AsyncIterator[bytes]:
            yield b"some"
            raise ConnectionResetError("the client went away")

        request = RequestHead("POST", b"/products/1", ((b"host", b"shop"), (b"transfer-encoding", b"chunked")))
        with pytest.raises(ConnectionResetError):
            await pod.exchange.handle(request, broken())
        assert pod.coherence.report(pod.clock.now()).open_writes == 1
        assert (await pod.get("/products/1")).outcome == "miss"


@virtual_time
async def test_a_small_upload_that_breaks_off_is_never_sent() -> None:
    async with sidecars(failing(200), writes=[]) as (pod,):
        await pod.get("/products/1")

        async def broken() -> AsyncIterator[bytes]:
            yield b"some"
            raise ConnectionResetError("the client went away")

        request = RequestHead("POST", b"/products/1", ((b"host", b"shop"), (b"content-length", b"10")))
        with pytest.raises(ConnectionResetError):
            await pod.exchange.handle(request, broken())
        assert pod.app.calls("POST") == []
        assert (await pod.get("/products/1")).outcome == "hit"


@virtual_time
async def test_a_write_whose_client_has_left_is_not_waited_for_without_end() -> None:
    shop = Shop()
    shop.products["/products/1"] = b"OLD"
    shop.delay_s = 1000.0
    specs: tuple[dict[str, Any], ...] = ({"writes": []}, INVALIDATING)
    for spec in specs:
        async with sidecars(shop, **spec) as (pod,):
            leaving = asyncio.create_task(pod.put("/products/1", b"new"))
            await asyncio.sleep(1)
            leaving.cancel()
            await asyncio.sleep(70)  # the policy's time-out, then `settle`
            assert pod.coherence.report(pod.clock.now()).open_writes == 0


@virtual_time
async def test_a_large_request_body_streams_through_and_invalidates() -> None:
    shop = Shop()
    shop.body = b"done"
    async with sidecars(shop) as (pod,):
        got = await pod.put("/products/1", b"x" * 3_000_000)
        assert (got.body, got.outcome) == (b"done", "write")
        assert len(pod.app.arrived[0].body) == 3_000_000
        assert (await pod.get("/products/1")).outcome == "miss"


@virtual_time
async def test_a_large_response_body_streams_through_and_is_announced() -> None:
    shop = Shop()
    shop.products["/products/1"] = b"OLD"
    async with sidecars(shop) as (pod,):
        await pod.get("/products/1")
        shop.body = b"y" * 3_000_000
        assert len((await pod.put("/products/1", b"new")).body) == 3_000_000
        assert (await pod.get("/products/1")).body == b"NEW"


# --- write-behind -----------------------------------------------------------------------------------------------------


class Pending:
    """engine.serving.PendingWrites, as far as a request sees it."""

    def __init__(self) -> None:
        self.accepted: list[PendingWrite] = []
        self.error: Exception | None = None
        self.flushed = asyncio.Event()

    async def accept(
        self,
        request: RequestHead,
        body: bytes,
        *,
        policy: str,
        rule: WriteRule,
        order_key: str,
        tags: tuple[str, ...],
        shows: str | None,
    ) -> PendingWrite:
        if self.error is not None:
            raise self.error
        write = PendingWrite(
            len(self.accepted) + 1, policy, rule.name, order_key, '"k"', request, body, tags, 0.0, shows=shows
        )
        self.accepted.append(write)
        return write

    def pending(self, key: str) -> PendingWrite | None:
        return next((write for write in reversed(self.accepted) if write.shows == key), None)

    def has_pending(self, order_key: str) -> bool:
        return any(write.order_key == order_key for write in self.accepted)

    async def settled(self, order_key: str) -> None:
        await self.flushed.wait()
        self.accepted.clear()


def behind(**more: Any) -> dict[str, Any]:
    rule = {
        "name": "later",
        "match": {"methods": ["PUT"], "path": "/products/{id}"},
        "strategy": "WriteBehind",
        "writeBehind": {"status": 202, "read": "product", **more},
    }
    return {"writes": [rule]}


async def later(check: Callable[[Sidecar, Pending, Shop], Any], **more: Any) -> None:
    pending, shop = Pending(), Shop()
    shop.products["/products/1"] = b"OLD"
    async with sidecars(shop, write_behind=pending, **behind(**more)) as (pod,):
        await check(pod, pending, shop)


@virtual_time
async def test_write_behind_answers_at_once_and_shows_the_pending_value() -> None:
    async def check(pod: Sidecar, pending: Pending, shop: Shop) -> None:
        await pod.get("/products/1")
        got = await pod.put("/products/1", b"new", content_type="text/csv")
        assert (got.status, got.outcome) == (202, "write-behind")
        assert got["pulse-staleness"] == "0;state=confirmed;pending"
        (accepted,) = pending.accepted
        assert (accepted.body, accepted.policy, accepted.rule) == (b"new", "shop/products", "later")
        assert "/products/1" in accepted.tags
        read = await pod.get("/products/1")
        assert (read.status, read.body, read["content-type"], read.outcome) == (200, b"new", "text/csv", "pending")
        assert (read["pulse-staleness"] or "").endswith(";pending")
        assert pod.app.calls("PUT") == []

    await later(check)


@virtual_time
async def test_a_pending_value_is_shown_to_its_writer_only() -> None:
    async def check(pod: Sidecar, pending: Pending, shop: Shop) -> None:
        await pod.put("/products/1", b"mine", authorization="alice")
        assert (await pod.get("/products/1", authorization="alice")).body == b"mine"
        assert (await pod.get("/products/1", authorization="bob")).body == b"OLD"
        assert (await pod.get("/products/1")).body == b"OLD"

    await later(check)


@virtual_time
async def test_a_full_journal_slides_into_write_through_but_overtakes_nothing() -> None:
    async def check(pod: Sidecar, pending: Pending, shop: Shop) -> None:
        await pod.put("/products/1", b"first")
        pending.error = JournalFull("100000 writes are pending")
        second = asyncio.create_task(pod.put("/products/1", b"second"))
        elsewhere = await pod.put("/products/2", b"other")
        assert elsewhere.status == 200
        await asyncio.sleep(1)
        assert pod.app.calls("PUT") == ["/products/2"]
        pending.flushed.set()
        assert (await second).body == b"SECOND"

    await later(check)


@virtual_time
async def test_a_write_that_would_overtake_a_stuck_one_is_refused_after_a_while() -> None:
    async def check(pod: Sidecar, pending: Pending, shop: Shop) -> None:
        await pod.put("/products/1", b"first")
        got = await pod.ask("DELETE", "/products/1")
        assert (got.status, got["retry-after"]) == (503, "1")
        assert pod.app.calls("DELETE") == []

    await later(check)


@virtual_time
async def test_a_full_journal_fails_where_the_policy_says_so() -> None:
    async def check(pod: Sidecar, pending: Pending, shop: Shop) -> None:
        pending.error = JournalFull("100000 writes are pending")
        got = await pod.put("/products/1", b"new")
        assert (got.status, got.outcome, got["retry-after"]) == (503, "error", "1")
        assert b"100000 writes are pending" in got.body
        assert pod.app.calls("PUT") == []

    await later(check, whenFull="Fail")
