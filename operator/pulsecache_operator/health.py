"""/livez, /readyz and /metrics on a port of their own, for the controller and the injector.

A check is a function that says what is wrong, or None. Liveness has checks only for what a restart would cure; that
the event loop turns is shown by any answer at all.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

log = logging.getLogger(__name__)

Check = Callable[[], str | None]


class HealthServer:
    def __init__(
        self,
        host: str,
        port: int,
        registry: CollectorRegistry,
        *,
        live: Mapping[str, Check] | None = None,
        ready: Mapping[str, Check] | None = None,
    ) -> None:
        self._host, self._port = host, port
        self._registry = registry
        self._live, self._ready = live or {}, ready or {}
        app = web.Application()
        app.router.add_get("/livez", self._livez)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)

    async def __aenter__(self) -> HealthServer:
        """Listens. Raises OSError when the address cannot be had."""
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self._port).start()
        except OSError:
            await self._runner.cleanup()
            raise
        log.info("health and metrics on port %d", self.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    @property
    def port(self) -> int:
        """Where it listens, also when it was asked for any port (0)."""
        return int(self._runner.addresses[0][1])

    async def _livez(self, _: web.Request) -> web.Response:
        return _verdict(self._live)

    async def _readyz(self, _: web.Request) -> web.Response:
        return _verdict(self._ready)

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})


def _verdict(checks: Mapping[str, Check]) -> web.Response:
    """200 and `ok`, or 503 and what is wrong; each check has its line."""
    problems = {name: check() for name, check in checks.items()}
    good = not any(problems.values())
    lines = [f"[{'-' if problem else '+'}] {name}: {problem or 'ok'}" for name, problem in problems.items()]
    text = "\n".join([*lines, "ok" if good else "not ok", ""])
    return web.Response(text=text, status=200 if good else 503)
