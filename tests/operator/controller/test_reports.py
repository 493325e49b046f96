"""What sidecars run: as they report it to Redis, or as their metrics say; nonsense is nobody's report."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from controller_view import KEEPER, pod_document
from pulsecache_operator.controller.asking import PodAsker, report_in
from pulsecache_operator.controller.reconcile import FORGET_REPORT_S, Reports
from pulsecache_operator.controller.redis_store import report_of
from pulsecache_operator.controller.status import Report, State

ANSWER = {
    "pod": "a",
    "policies": [
        {"policy": "shop/products", "generation": 4, "sha256": "abc", "error": None, "state": "Exceeded"},
        {"policy": "shop/catalog", "generation": 7, "sha256": "def", "error": None, "lostPublishers": 2},
    ],
}


def test_a_report_of_redis() -> None:
    said = {"pod": "a", "generation": 4, "sha256": "abc", "error": None, "state": "Confirmed", "since": "2026-01-01"}
    assert report_of(json.dumps(said)) == Report(generation=4, sha256="abc", state=State.CONFIRMED, since="2026-01-01")


@pytest.mark.parametrize(
    "text",
    ["", "nonsense", "[]", "null", "{}", '{"generation": "many"}', '{"generation": null}', "[" * 100_000],
)
def test_nonsense_is_no_report(text: str) -> None:
    assert report_of(text) is None


def test_parts_that_are_nonsense_are_left_out() -> None:
    said = {"generation": 4, "sha256": 5, "error": {}, "state": "Great", "since": 7}
    assert report_of(json.dumps(said)) == Report(generation=4, sha256="")


def test_a_report_in_the_answer_of_a_pod() -> None:
    answer = json.dumps(ANSWER).encode()
    assert report_in(answer, "shop/products") == Report(generation=4, sha256="abc", state=State.EXCEEDED)
    assert report_in(answer, "shop/catalog") == Report(generation=7, sha256="def", lost_publishers=2)
    assert report_in(answer, "shop/other") is None


@pytest.mark.parametrize("answer", [b"", b"[]", b"{}", b'{"policies": 5}', b'{"policies": [5]}', b'{"policies": [{}]}'])
def test_an_answer_that_is_nonsense_is_none(answer: bytes) -> None:
    assert report_in(answer, "shop/products") is None


def test_a_report_whose_pod_is_gone_is_forgotten_after_a_while() -> None:
    reports = Reports()
    assert reports.gone("k", {"a": "", "b": ""}, {"a"}, now=0.0) == []
    assert reports.gone("k", {"a": "", "b": ""}, {"a"}, now=FORGET_REPORT_S - 1) == []
    assert reports.gone("k", {"a": "", "b": ""}, {"a"}, now=FORGET_REPORT_S) == ["b"]


def test_a_report_that_came_before_its_pod_is_not_forgotten() -> None:
    reports = Reports()
    reports.gone("k", {"a": ""}, set(), now=0.0)
    reports.gone("k", {"a": ""}, {"a"}, now=5.0)
    assert reports.gone("k", {"a": ""}, set(), now=FORGET_REPORT_S + 1) == [], "it is counted anew"


class Sidecars:
    def __init__(self) -> None:
        self.asked = 0
        self.answer: web.Response | None = None

    async def staleness(self, _: web.Request) -> web.Response:
        self.asked += 1
        return self.answer if self.answer is not None else web.json_response(ANSWER)


@asynccontextmanager
async def sidecars() -> AsyncIterator[tuple[Sidecars, int]]:
    found = Sidecars()
    app = web.Application()
    app.router.add_get("/-/staleness", found.staleness)
    runner = web.AppRunner(app, access_log=None, handle_signals=False)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield found, runner.addresses[0][1]
    finally:
        await runner.cleanup()


def pods(count: int, address: str = "127.0.0.1", **more: Any) -> list[dict[str, Any]]:
    found = [KEEPER.pod(pod_document(f"p{i}", **more)) for i in range(count)]
    for pod in found:
        pod["status"]["podIP"] = address
    return found


async def test_pods_are_asked_themselves_and_answers_kept_a_moment() -> None:
    async with sidecars() as (found, port):
        now = 0.0
        asker = PodAsker(port=port, clock=lambda: now)
        try:
            answers = await asker.ask(pods(50), "shop/products")
            assert len(answers) == 50
            assert answers["uid-of-p7"] == Report(generation=4, sha256="abc", state=State.EXCEEDED)
            assert len(await asker.ask(pods(50), "shop/catalog")) == 50
            assert found.asked == 50
            now = 60.0
            await asker.ask(pods(50), "shop/products")
            assert found.asked == 100
        finally:
            await asker.aclose()


async def test_who_does_not_answer_has_told_nothing() -> None:
    async with sidecars() as (found, port):
        found.answer = web.Response(status=500)
        asker = PodAsker(port=port)
        try:
            assert await asker.ask(pods(3), "shop/products") == {}
            assert await asker.ask(pods(3, address="127.0.0.99"), "shop/products") == {}
            assert await asker.ask(pods(3, phase="Pending"), "shop/products") == {}
        finally:
            await asker.aclose()
    assert found.asked == 3
