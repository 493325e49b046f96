"""/livez, /readyz and /metrics."""

from __future__ import annotations

import aiohttp
import pytest
from prometheus_client import CollectorRegistry, Gauge

from pulsecache_operator.health import HealthServer


async def get(health: HealthServer, path: str) -> tuple[int, str]:
    url = f"http://127.0.0.1:{health.port}{path}"
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return response.status, await response.text()


async def test_a_check_says_what_is_wrong() -> None:
    trouble: dict[str, str | None] = {"certificate": "none yet", "live": None}
    ready = {"certificate": lambda: trouble["certificate"], "services": lambda: None}
    live = {"loop": lambda: trouble["live"]}
    async with HealthServer("127.0.0.1", 0, CollectorRegistry(), ready=ready, live=live) as health:
        assert await get(health, "/livez") == (200, "[+] loop: ok\nok\n")
        assert await get(health, "/readyz") == (503, "[-] certificate: none yet\n[+] services: ok\nnot ok\n")
        trouble["certificate"], trouble["live"] = None, "the thread has ended"
        assert (await get(health, "/readyz"))[0] == 200
        assert await get(health, "/livez") == (503, "[-] loop: the thread has ended\nnot ok\n")


async def test_metrics_are_those_of_the_registry() -> None:
    registry = CollectorRegistry()
    Gauge("answers", "To everything.", registry=registry).set(42)
    async with HealthServer("127.0.0.1", 0, registry) as health:
        status, text = await get(health, "/metrics")
        assert (status, "answers 42.0" in text) == (200, True)
        assert (await get(health, "/livez"))[0] == 200
        assert (await get(health, "/other"))[0] == 404


async def test_a_port_that_is_taken_is_told_at_once() -> None:
    async with HealthServer("127.0.0.1", 0, CollectorRegistry()) as health:
        with pytest.raises(OSError, match="address already in use"):
            await HealthServer("127.0.0.1", health.port, CollectorRegistry()).__aenter__()
