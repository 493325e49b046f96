"""Reads: what is answered from memory, what is asked of the origin, how often, and what is said about it."""

from __future__ import annotations

import asyncio

import pytest

from exchange_world import Arrived, Response, sidecars
from pulsecache_policy.model import Mode
from pulsecache_sidecar.errors import OriginBadResponse, OriginTimeout, OriginUnreachable
from virtual_time import virtual_time


def product(arrived: Arrived) -> Response:
    return Response(200, {"content-type": "text/plain", "etag": '"v1"'}, f"{arrived.target} v1".encode())


def reads(**more: object) -> list[dict[str, object]]:
    rule = {"name": "product", "match": {"path": "/products/{id}"}, "ttl": {"source": "OriginFirst", "duration": "60s"}}
    return [{**rule, **more}]


@virtual_time
async def test_the_first_read_is_a_miss_and_the_second_a_hit() -> None:
    async with sidecars(product) as (pod,):
        first, second = await pod.get("/products/1"), await pod.get("/products/1")
    assert (first.body, second.body) == (b"/products/1 v1", b"/products/1 v1")
    assert pod.outcomes == ["miss", "hit"]
    assert first["cache-status"] == "pulsecache; fwd=miss; stored"
    assert first["pulse-staleness"] == "0;state=confirmed"
    assert second["cache-status"] == "pulsecache; hit; ttl=60"
    assert second["age"] == "0"
    assert second["content-type"] == "text/plain"
    assert pod.app.calls() == ["/products/1"]


@virtual_time
async def test_what_no_rule_covers_passes_without_a_word() -> None:
    async with sidecars(product) as (pod,):
        for _ in range(2):
            got = await pod.get("/other")
            assert (got["cache-status"], got["pulse-staleness"]) == (None, None)
    assert pod.outcomes == ["pass", "pass"]
    assert len(pod.app.arrived) == 2


@virtual_time
async def test_without_a_policy_everything_passes() -> None:
    async with sidecars(product) as (pod,):
        pod.serving = None
        for _ in range(2):
            assert (await pod.get("/products/1"))["cache-status"] is None
        assert (await pod.put("/products/1", b"x")).status == 200
    assert len(pod.app.arrived) == 3


@virtual_time
async def test_switched_off_nothing_is_served_from_the_cache() -> None:
    async with sidecars(product) as (pod,):
        await pod.get("/products/1")
        pod.edit(mode=Mode.BYPASS)
        got = await pod.get("/products/1")
        assert got["cache-status"] == "pulsecache; fwd=bypass; detail=mode"
    assert pod.app.calls() == ["/products/1"] * 2


@virtual_time
async def test_switched_off_writes_are_still_announced_so_that_switching_on_is_safe() -> None:
    async with sidecars(product) as (pod,):
        await pod.get("/products/1")
        pod.edit(mode=Mode.BYPASS)
        await pod.put("/products/1", b"new")
        pod.edit(mode=Mode.SERVE)
        assert (await pod.get("/products/1")).outcome in ("miss", "revalidated")


@virtual_time
async def test_age_grows_and_the_lifetime_ends() -> None:
    async with sidecars(product, staleness={"max": "10m", "writers": "All"}) as (pod,):
        await pod.get("/products/1")
        await asyncio.sleep(59.5)
        late = await pod.get("/products/1")
        assert (late.outcome, late["age"]) == ("hit", "59")
        await asyncio.sleep(1)
        assert (await pod.get("/products/1")).outcome == "miss"


@virtual_time
async def test_an_age_that_comes_with_the_answer_counts() -> None:
    def aged(arrived: Arrived) -> Response:
        return Response(200, {"cache-control": "max-age=60", "age": "50"}, b"x")

    async with sidecars(aged, staleness={"max": "10m", "writers": "All"}) as (pod,):
        first = await pod.get("/products/1")
        assert (first["age"], first.staleness_s) == ("50", 50.0)  # the origin's own word: it adds up
        await asyncio.sleep(5)
        second = await pod.get("/products/1")
        assert (second.outcome, second["age"]) == ("hit", "55")
        assert second.staleness_s >= 50.0
        await asyncio.sleep(6)
        assert (await pod.get("/products/1")).outcome == "miss"


@virtual_time
async def test_the_staleness_that_an_origin_tells_adds_up() -> None:
    def lagging(arrived: Arrived) -> Response:
        return Response(200, {"pulse-staleness": "2.5;state=confirmed"}, b"x")

    async with sidecars(lagging) as (pod,):
        first, second = await pod.get("/products/1"), await pod.get("/products/1")
    assert first["pulse-staleness"] == "2.5;state=confirmed"
    assert second.outcome == "hit"
    assert second.staleness_s >= 2.5


# --- revalidation -----------------------------------------------------------------------------------------------------


def validating(arrived: Arrived) -> Response:
    if arrived["if-none-match"] == '"v1"':
        return Response(304, {"etag": '"v1"', "x-new": "yes", "cache-control": "max-age=10"})
    return Response(200, {"etag": '"v1"', "cache-control": "max-age=10", "x-old": "1"}, b"body")


@virtual_time
async def test_what_has_expired_is_revalidated_and_freshened() -> None:
    async with sidecars(validating, staleness={"max": "10m", "writers": "All"}) as (pod,):
        await pod.get("/products/1")
        await asyncio.sleep(11)
        again = await pod.get("/products/1")
        assert (again.status, again.body, again.outcome) == (200, b"body", "revalidated")
        assert again["cache-status"] == "pulsecache; fwd=stale; fwd-status=304; stored"
        assert (again["x-new"], again["x-old"], again["age"]) == ("yes", "1", "0")
        await asyncio.sleep(9)
        assert (await pod.get("/products/1")).outcome == "hit"


@virtual_time
async def test_a_client_that_has_it_gets_304_from_the_cache() -> None:
    async with sidecars(validating) as (pod,):
        await pod.get("/products/1")
        got = await pod.get("/products/1", if_none_match='W/"v0", "v1"')
        assert (got.status, got.body, got["etag"]) == (304, b"", '"v1"')
        assert (await pod.get("/products/1", if_none_match='"v2"')).status == 200
    assert len(pod.app.arrived) == 1


@virtual_time
async def test_a_clients_condition_is_not_sent_on_where_the_whole_answer_is_wanted() -> None:
    async with sidecars(validating) as (pod,):
        got = await pod.get("/products/1", if_none_match='"v1"')
        assert (got.status, got.outcome) == (304, "miss")
        assert pod.app.arrived[0]["if-none-match"] is None
        assert (await pod.get("/products/1")).body == b"body"


@virtual_time
async def test_no_cache_is_stored_but_asked_about_each_time() -> None:
    def script(arrived: Arrived) -> Response:
        if arrived["if-none-match"]:
            return Response(304, {"etag": '"a"', "cache-control": "no-cache"})
        return Response(200, {"etag": '"a"', "cache-control": "no-cache"}, b"body")

    async with sidecars(script) as (pod,):
        for _ in range(3):
            assert (await pod.get("/products/1")).body == b"body"
    assert pod.outcomes == ["miss", "revalidated", "revalidated"]


@virtual_time
async def test_range_requests_are_the_origins() -> None:
    async with sidecars(validating) as (pod,):
        await pod.get("/products/1")
        got = await pod.get("/products/1", range="bytes=0-1")
        assert got["cache-status"] == "pulsecache; fwd=bypass; detail=range"
        assert (await pod.get("/products/1")).outcome == "hit"


@virtual_time
async def test_head_is_answered_from_what_a_get_brought() -> None:
    async with sidecars(validating) as (pod,):
        assert (await pod.ask("HEAD", "/products/1")).outcome == "miss"
        await pod.get("/products/1")
        assert (await pod.ask("HEAD", "/products/1")).outcome == "hit"
    assert [arrived.method for arrived in pod.app.arrived] == ["HEAD", "GET"]


# --- what is not stored -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "request_fields", "reason"),
    [
        ({"cache-control": "no-store"}, {}, "no-store"),
        ({"cache-control": "private"}, {}, "private"),
        ({"cache-control": 'private="set-cookie"'}, {}, "private"),
        ({"set-cookie": "a=b"}, {}, "set-cookie"),
        ({"vary": "*"}, {}, "vary"),
        ({"vary": "accept, *"}, {}, "vary"),
        ({}, {"authorization": "Bearer 1"}, "authorization"),
        ({}, {"cookie": "a=b"}, "cookie"),
        ({}, {"cache_control": "no-store"}, "no-store"),
    ],
)
def test_not_stored(fields: dict[str, str], request_fields: dict[str, str], reason: str) -> None:
    @virtual_time
    async def run() -> None:
        async with sidecars(lambda _: Response(200, fields, b"x")) as (pod,):
            for _ in range(2):
                got = await pod.get("/products/1", **request_fields)
                assert f"detail={reason}" in (got["cache-status"] or "")
                assert "stored" not in (got["cache-status"] or "")
        assert len(pod.app.arrived) == 2
        assert len(pod.memory) == 0

    run()


@pytest.mark.parametrize("control", ["public", "s-maxage=60", "must-revalidate"])
def test_with_the_origins_word_credentials_do_not_matter(control: str) -> None:
    @virtual_time
    async def run() -> None:
        async with sidecars(lambda _: Response(200, {"cache-control": control}, b"x")) as (pod,):
            await pod.get("/products/1", authorization="Bearer 1")
            assert (await pod.get("/products/1", authorization="Bearer 2")).outcome == "hit"
            assert (await pod.get("/products/1", cookie="a=b")).outcome == "hit"
            assert (await pod.get("/products/1")).outcome == "hit"

    run()


@virtual_time
async def test_an_answer_for_nobody_in_particular_is_not_given_to_somebody() -> None:
    async with sidecars(product) as (pod,):
        await pod.get("/products/1")
        got = await pod.get("/products/1", authorization="Bearer 1")
        assert (got.outcome, got["cache-status"]) == ("bypass", "pulsecache; fwd=bypass; detail=authorization")
        assert (await pod.get("/products/1")).outcome == "hit"


@virtual_time
async def test_a_client_with_credentials_keeps_its_own_condition() -> None:
    async with sidecars(validating) as (pod,):
        got = await pod.get("/products/1", cookie="a=b", if_none_match='"v1"')
        assert (got.status, pod.app.arrived[0]["if-none-match"]) == (304, '"v1"')


def who(arrived: Arrived) -> Response:
    return Response(200, {}, f"for {arrived['authorization'] or arrived['cookie']}".encode())


@pytest.mark.parametrize(
    ("principal", "field"),
    [({"type": "Header", "name": "Authorization"}, "authorization"), ({"type": "Cookie", "name": "sid"}, "cookie")],
)
def test_a_principals_answers_are_kept_apart_and_never_leave_the_process(principal: dict[str, str], field: str) -> None:
    @virtual_time
    async def run() -> None:
        async with sidecars(who, 2, reads=reads(key={"principal": principal}), writes=[]) as (pod, other):
            for _ in range(3):
                for user in ("sid=alice", "sid=bob"):
                    assert (await pod.get("/products/1", **{field: user})).body == f"for {user}".encode()
            assert pod.outcomes == ["miss", "miss", "hit", "hit", "hit", "hit"]
            assert (await pod.get("/products/1")).outcome == "bypass"  # nobody: there is no key for that
            await asyncio.sleep(1)
            assert (await other.get("/products/1", **{field: "sid=alice"})).outcome == "miss"

    run()


@virtual_time
async def test_a_principal_by_cookie_does_not_cover_an_authorization() -> None:
    key = {"principal": {"type": "Cookie", "name": "sid"}}
    async with sidecars(who, reads=reads(key=key), writes=[]) as (pod,):
        for user in ("a", "b"):
            got = await pod.get("/products/1", cookie="sid=1", authorization=user)
            assert got.body == f"for {user}".encode()


# --- variants ---------------------------------------------------------------------------------------------------------


def by_language(arrived: Arrived) -> Response:
    return Response(200, {"vary": "Accept-Language"}, (arrived["accept-language"] or "none").encode())


@virtual_time
async def test_variants_are_kept_apart() -> None:
    async with sidecars(by_language) as (pod,):
        assert (await pod.get("/products/1", accept_language="de")).body == b"de"
        assert (await pod.get("/products/1", accept_language="fr")).body == b"fr"
        assert (await pod.get("/products/1")).body == b"none"
        for language in ("de", "fr"):
            got = await pod.get("/products/1", accept_language=language)
            assert (got.body, got.outcome) == (language.encode(), "hit")
        assert (await pod.get("/products/1", accept_language="it"))[
            "cache-status"
        ] == "pulsecache; fwd=vary-miss; stored"


# --- concurrency ------------------------------------------------------------------------------------------------------


@virtual_time
async def test_concurrent_misses_are_one_request_to_the_origin() -> None:
    async with sidecars(product) as (pod,):
        pod.app.open = asyncio.Event()
        asking = [asyncio.create_task(pod.get("/products/1")) for _ in range(50)]
        await asyncio.sleep(0.1)
        pod.app.open.set()
        answers = await asyncio.gather(*asking)
    assert {answer.body for answer in answers} == {b"/products/1 v1"}
    assert len(pod.app.arrived) == 1
    assert sum("collapsed" in (answer["cache-status"] or "") for answer in answers) == 49


@virtual_time
async def test_a_leader_that_leaves_does_not_take_the_others_down() -> None:
    async with sidecars(product) as (pod,):
        pod.app.open = asyncio.Event()
        leader = asyncio.create_task(pod.get("/products/1"))
        await asyncio.sleep(0.1)
        follower = asyncio.create_task(pod.get("/products/1"))
        await asyncio.sleep(0.1)
        leader.cancel()
        pod.app.open.set()
        assert (await follower).body == b"/products/1 v1"
    assert len(pod.app.arrived) == 1


@virtual_time
async def test_what_cannot_be_shared_is_fetched_by_each_for_himself() -> None:
    async with sidecars(lambda _: Response(200, {"cache-control": "no-store"}, b"mine")) as (pod,):
        pod.app.open = asyncio.Event()
        asking = [asyncio.create_task(pod.get("/products/1")) for _ in range(5)]
        await asyncio.sleep(0.1)
        assert len(pod.app.arrived) == 1
        pod.app.open.set()
        await asyncio.gather(*asking)
        assert len(pod.app.arrived) == 5
        pod.app.open = asyncio.Event()
        asking = [asyncio.create_task(pod.get("/products/1")) for _ in range(5)]
        await asyncio.sleep(0.1)
        assert len(pod.app.arrived) == 10  # nobody waits for anybody any more
        pod.app.open.set()
        await asyncio.gather(*asking)


@virtual_time
async def test_a_response_handed_to_a_leader_who_has_left_is_given_up() -> None:
    async with sidecars(lambda _: Response(200, {"cache-control": "no-store"}, [b"a", b"b"])) as (pod,):
        pod.app.open = asyncio.Event()
        leader = asyncio.create_task(pod.get("/products/1"))
        await asyncio.sleep(0.1)
        leader.cancel()
        pod.app.open.set()
        await asyncio.sleep(0.1)
        assert pod.app.responses[0].aborted


@virtual_time
async def test_who_knows_of_a_write_does_not_join_a_fetch_from_before_it() -> None:
    version = 1

    async def script(arrived: Arrived) -> Response:
        nonlocal version
        if arrived.method == "PUT":
            version = 2
            return Response(204)
        seen = version
        await asyncio.sleep(1)
        return Response(200, {}, b"%d" % seen)

    async with sidecars(script) as (pod,):
        early = asyncio.create_task(pod.get("/products/1"))
        await asyncio.sleep(0.1)
        await pod.put("/products/1", b"2")
        late = asyncio.create_task(pod.get("/products/1"))
        assert (await late).body == b"2"
        assert (await early).body == b"1"
        assert "detail=overlap" in ((await early)["cache-status"] or "")
        assert (await pod.get("/products/1")).body == b"2"


@virtual_time
async def test_no_more_than_max_concurrency_reach_the_origin_and_the_rest_wait() -> None:
    origin = {"maxConcurrency": 2, "timeout": "10s"}

    async def slow(arrived: Arrived) -> Response:
        await asyncio.sleep(1)
        return product(arrived)

    async with sidecars(slow, origin=origin) as (pod,):
        answers = await asyncio.gather(*(pod.get(f"/products/{n}") for n in range(10)))
        assert {answer.status for answer in answers} == {200}
        assert pod.app.most_at_once == 2
        answers = await asyncio.gather(*(pod.get(f"/products/{n}") for n in range(100, 130)))
        refused = [answer for answer in answers if answer.status == 503]
        assert refused
        assert refused[0]["retry-after"] == "1"
        assert b"maxConcurrency" in refused[0].body


@virtual_time
async def test_clients_that_leave_while_they_wait_in_line_leak_nothing() -> None:
    async with sidecars(product, origin={"maxConcurrency": 1, "timeout": "10s"}) as (pod,):
        pod.app.open = asyncio.Event()
        asking = [asyncio.create_task(pod.ask("HEAD", f"/products/{n}")) for n in range(10)]
        await asyncio.sleep(0.1)
        for task in asking:
            task.cancel()
        await asyncio.sleep(0.1)
        pod.app.open.set()
        assert (await pod.get("/products/x")).status == 200


# --- trouble ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (OriginUnreachable("cannot connect to app:80: refused", request_sent=False), 502, "origin-unreachable"),
        (OriginTimeout("app:80 did not answer within 30 s", request_sent=True), 504, "origin-timeout"),
        (OriginBadResponse("app:80 reset the connection", request_sent=True), 502, "origin-bad-response"),
    ],
)
def test_a_failing_origin_is_told_plainly(error: Exception, status: int, kind: str) -> None:
    @virtual_time
    async def run() -> None:
        async with sidecars(lambda _: error) as (pod,):
            got = await pod.get("/products/1")
            assert (got.status, got.outcome) == (status, "error")
            assert kind.encode() in got.body
            assert b"app:80" in got.body
            assert got["content-type"] == "application/problem+json"

    run()


@virtual_time
async def test_stale_if_error_only_within_its_window() -> None:
    broken = False

    def script(arrived: Arrived) -> Response | Exception:
        if broken:
            return (
                Response(500, {}, b"oops")
                if arrived["x-how"] == "500"
                else OriginUnreachable("gone", request_sent=False)
            )
        return Response(200, {"cache-control": "max-age=10, stale-if-error=20"}, b"good")

    async with sidecars(script, staleness={"max": "10m", "writers": "All"}) as (pod,):
        await pod.get("/products/1")
        broken = True
        await asyncio.sleep(15)
        for how in ("500", "gone"):
            got = await pod.get("/products/1", x_how=how)
            assert (got.status, got.body, got.outcome) == (200, b"good", "stale")
            assert "stale-if-error" in (got["cache-status"] or "")
        await asyncio.sleep(16)
        assert (await pod.get("/products/1")).status == 502
        assert (await pod.get("/products/1", x_how="500")).status == 500


@virtual_time
async def test_stale_if_error_never_shows_a_writer_what_was_before_its_write() -> None:
    broken = False

    def script(arrived: Arrived) -> Response | Exception:
        if arrived.method == "PUT":
            return Response(204)
        if broken:
            return OriginUnreachable("gone", request_sent=False)
        return Response(200, {"cache-control": "max-age=10, stale-if-error=600"}, b"old")

    async with sidecars(script) as (pod,):
        await pod.get("/products/1")
        await pod.put("/products/1", b"new")
        broken = True
        assert (await pod.get("/products/1")).status == 502


@virtual_time
async def test_without_stale_if_error_an_error_is_an_error() -> None:
    answers: list[Response | Exception] = [
        Response(200, {"cache-control": "max-age=10"}, b"good"),
        OriginUnreachable("gone", request_sent=False),
    ]
    async with sidecars(lambda _: answers.pop(0), staleness={"max": "10m", "writers": "All"}) as (pod,):
        await pod.get("/products/1")
        await asyncio.sleep(11)
        assert (await pod.get("/products/1")).status == 502


@virtual_time
async def test_a_body_that_breaks_off_is_not_stored() -> None:
    answers = [
        Response(200, {}, [b"half", OriginBadResponse("reset", request_sent=True)]),
        Response(200, {}, b"whole"),
    ]
    async with sidecars(lambda _: answers.pop(0)) as (pod,):
        assert (await pod.get("/products/1")).status == 502
        assert (await pod.get("/products/1")).body == b"whole"


@virtual_time
async def test_a_large_body_streams_past_the_cache() -> None:
    pieces: list[bytes | Exception] = [b"x" * 100_000 for _ in range(20)]
    async with sidecars(lambda _: Response(200, {}, list(pieces))) as (pod,):
        for _ in range(2):
            got = await pod.get("/products/1")
            assert len(got.body) == 2_000_000
            assert "detail=too-large" in (got["cache-status"] or "")
    assert len(pod.app.arrived) == 2


# --- the shared store -------------------------------------------------------------------------------------------------


@virtual_time
async def test_what_one_pod_has_fetched_another_finds() -> None:
    async with sidecars(product, 2) as (one, two):
        await asyncio.sleep(2)
        await one.get("/products/1")
        await asyncio.sleep(1.5)
        got = await two.get("/products/1")
        assert (got.body, got.outcome) == (b"/products/1 v1", "hit")
        assert got["age"] in ("1", "2", "3")
        assert (await two.get("/products/1")).outcome == "hit"
    assert len(one.app.arrived) == 1


@virtual_time
async def test_a_payload_that_cannot_be_read_is_a_miss() -> None:
    async with sidecars(product, 2) as (one, two):
        await asyncio.sleep(2)
        await one.get("/products/1")
        key = next(iter(one.memory._variants))
        await asyncio.sleep(2)
        ticket = one.coherence.ticket(one.clock.now())
        one.coherence.share(key, b"\x80 not ours", ("/products/1",), one.coherence.fetched(ticket), 60.0)
        await asyncio.sleep(1)
        assert (await two.get("/products/1")).outcome == "miss"
