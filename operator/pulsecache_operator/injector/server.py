"""POST /inject over TLS. Whatever happens on our side, the pod is allowed: unchanged, with a warning and a metric.

No API call is made while a review is answered: `Knowledge` is at hand, and news go to a queue.
"""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
import time
from collections.abc import Callable

from aiohttp import web

from pulsecache_operator.inject import SidecarConfig
from pulsecache_operator.injector.metrics import Metrics
from pulsecache_operator.injector.review import Answer, Knowledge, MalformedReview, News, answer, question, refrain

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 8 * 1024 * 1024
"""A pod of the greatest size, in a review, with the old object beside it, is well below."""
LINGER_S = 1.0
"""For what still comes of a body that was refused, so that the sender reads why."""
DEADLINE_S = 2.0
"""The API server waits three seconds: an answer after that only costs."""


class InjectorServer:
    def __init__(
        self,
        host: str,
        port: int,
        *,
        context: ssl.SSLContext,
        known: Knowledge,
        config: SidecarConfig,
        own_namespace: str,
        metrics: Metrics,
        report: Callable[[News], None],
        deadline_s: float = DEADLINE_S,
        drain_s: float = 10.0,
    ) -> None:
        self._host, self._port, self._context = host, port, context
        self._known, self._config, self._own_namespace = known, config, own_namespace
        self._metrics, self._report, self._deadline_s = metrics, report, deadline_s
        self._drain_s, self._draining = drain_s, False
        self._open = 0
        self._idle = asyncio.Event()
        self._idle.set()
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.router.add_post("/inject", self._handle)
        self._runner = web.AppRunner(
            app, access_log=None, handle_signals=False, shutdown_timeout=1.0, lingering_time=LINGER_S
        )
        self._site: web.TCPSite | None = None

    async def start(self) -> None:
        """Listens. Raises OSError when the address cannot be had."""
        await self._runner.setup()
        self._site = web.TCPSite(self._runner, self._host, self._port, ssl_context=self._context, backlog=1024)
        await self._site.start()
        log.info("the webhook listens on port %d", self.port)

    async def stop(self) -> None:
        """Takes no new connection, answers what has begun to come within `drain_s`, then closes the idle ones."""
        self._draining = True
        if self._site is not None:
            await self._site.stop()
            self._site = None
        try:
            # aiohttp's own clean-up would throw away the rest of a body that is still on its way.
            async with asyncio.timeout(self._drain_s):
                await self._idle.wait()
        except TimeoutError:
            log.warning("%d reviews are cut off: they were not done within %g s", self._open, self._drain_s)
        await self._runner.cleanup()

    @property
    def port(self) -> int:
        return int(self._runner.addresses[0][1])

    async def _handle(self, request: web.Request) -> web.Response:
        self._open += 1
        self._idle.clear()
        try:
            response = await self._inject(request)
        finally:
            self._open -= 1
            if not self._open:
                self._idle.set()
        if self._draining:
            response.force_close()
        return response

    async def _inject(self, request: web.Request) -> web.Response:
        started = time.perf_counter()
        try:
            async with asyncio.timeout(self._deadline_s):
                body = await request.read()
        except TimeoutError:
            return self._refused(408, "slow-body", "the body of the review did not come in time")
        except web.HTTPRequestEntityTooLarge:
            return self._refused(413, "too-large", f"a review of more than {MAX_BODY_BYTES} bytes")
        try:
            asked = question(json.loads(body))
        except (MalformedReview, ValueError, RecursionError) as error:
            return self._refused(400, "malformed-review", str(error))
        given = self._answer(asked.uid, lambda: answer(asked, self._known, self._config, self._own_namespace))
        response = web.json_response(given.review)
        self._metrics.requests.labels(given.result, given.reason).inc()
        self._metrics.duration.observe(time.perf_counter() - started)
        for news in given.news:
            self._report(news)
        return response

    def _answer(self, uid: str, decide: Callable[[], Answer]) -> Answer:
        try:
            return decide()
        except Exception as error:
            # The catch-all: no error of ours may keep a pod from starting.
            log.exception("review %s: the pod is allowed without a sidecar", uid)
            return refrain(uid, type(error).__name__)

    def _refused(self, status: int, reason: str, message: str) -> web.Response:
        """There is no uid to answer to; for the API server it counts as a failed call, and `Ignore` lets the pod go."""
        log.warning("a request was refused: %s", message)
        self._metrics.requests.labels("error", reason).inc()
        return web.Response(status=status, text=f"{message}\n")
