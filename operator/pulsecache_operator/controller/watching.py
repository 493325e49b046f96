"""Kopf, as the ears of the controller: it watches CachePolicies and tells of each event. Nothing is decided here.

Only `on.event` is used, with a registry of our own: such handlers put no finalizer, no annotation and no status on
anybody's objects. Kopf runs in a thread and loop of its own, because on some errors of a watch it ends its whole
operator, and then cancels every task of its loop that is younger than itself; here it is started again, with back-off.
What it may miss (deletions in a gap of the watch) the controller's own LISTs find.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import kopf
from kubernetes.aio.client import Configuration

from pulsecache_operator.controller.api import CACHE_POLICY, Document, configured

LOG = logging.getLogger(__name__)

RETRIES_S = (1.0, 2.0, 4.0)
"""Waits between Kopf's own tries of a request; a 403 is retried like a hiccup, for as long as this allows."""
BACKOFF_S = 1.0
BACKOFF_LIMIT_S = 30.0
CALM_S = 60.0
"""Who ran for this long before he failed is started again at once."""
STOP_S = 10.0

Connection = Callable[[], Awaitable[Configuration]]
Heard = Callable[[str | None, Document], None]
"""(type, object): ADDED, MODIFIED, DELETED, or None for an object that was there at the beginning."""


class PolicyWatch:
    """Calls `heard` in the loop in which `start` was called."""

    def __init__(
        self,
        heard: Heard,
        connection: Connection = configured,
        *,
        retries_s: tuple[float, ...] = RETRIES_S,
        backoff_s: float = BACKOFF_S,
    ) -> None:
        self._heard = heard
        self._connection = connection
        self._retries_s = retries_s
        self._backoff_s = backoff_s
        self._stop = threading.Event()
        self._ending: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self.restarts = 0
        """How often Kopf ended by itself."""

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, args=(loop,), name="kopf", daemon=True)
        self._thread.start()

    def trouble(self) -> str | None:
        """Why a restart of the process would help, or None."""
        if self._thread is not None and not self._thread.is_alive() and not self._stop.is_set():
            return "the thread of the policies' watch has ended"
        return None

    async def stop(self) -> None:
        with self._lock:
            self._stop.set()
            if self._ending is not None:
                loop, ending = self._ending
                loop.call_soon_threadsafe(ending.set)
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, STOP_S)

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        failures = 0
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                asyncio.run(self._operate(loop))
            except Exception as error:  # noqa: BLE001 - whatever ended Kopf, the policies have to be watched
                LOG.warning("the watch of CachePolicies failed: %s", error or type(error).__name__)
            except asyncio.CancelledError:
                LOG.warning("the watch of CachePolicies was cancelled from within")
            if self._stop.is_set():
                return
            self.restarts += 1
            failures = 0 if time.monotonic() - began > CALM_S else failures + 1
            wait_s = min(BACKOFF_LIMIT_S, self._backoff_s * 2 ** min(failures, 10))
            LOG.warning("the watch of CachePolicies has ended; it begins again in %.0f s", wait_s)
            self._stop.wait(wait_s)

    async def _operate(self, loop: asyncio.AbstractEventLoop) -> None:
        # An event of this loop, not of threads: Kopf waits for one of those in a worker thread, and its loop cannot
        # be closed as long as that thread waits, also when Kopf has ended for another reason.
        ending = asyncio.Event()
        with self._lock:
            if self._stop.is_set():
                return
            self._ending = (asyncio.get_running_loop(), ending)
        try:
            await kopf.operator(
                registry=_registry(self._heard, loop, self._connection),
                settings=_settings(self._retries_s),
                clusterwide=True,
                stop_flag=ending,
            )
        finally:
            with self._lock:
                self._ending = None


def _registry(heard: Heard, loop: asyncio.AbstractEventLoop, connection: Connection) -> kopf.OperatorRegistry:
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.ConnectionInfo:
        found = await connection()
        scheme, _space, token = str(found.api_key.get("BearerToken", "")).partition(" ")
        return kopf.ConnectionInfo(
            server=found.host,
            ca_path=found.ssl_ca_cert,
            insecure=not found.verify_ssl,
            scheme=scheme.capitalize() or None,
            token=token or None,
            certificate_path=found.cert_file,
            private_key_path=found.key_file,
        )

    group, version = CACHE_POLICY.api_version.split("/")

    @kopf.on.event(group, version, CACHE_POLICY.plural, registry=registry)
    async def event(event: Any, **_: Any) -> None:
        # A returned value would be written into the object's status.
        loop.call_soon_threadsafe(heard, event["type"], dict(event["object"]))

    return registry


def _settings(retries_s: tuple[float, ...]) -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.peering.standalone = True  # peering pauses watches and knows no take-over in seconds: see `lease`
    settings.posting.enabled = False  # our Events are our own
    settings.scanning.disabled = True  # no watch of CRDs and namespaces, and no permission for it
    settings.watching.server_timeout = 300  # an int: it goes into the URL as it is
    settings.watching.connect_timeout = 10
    settings.watching.inactivity_timeout = 70
    settings.watching.chunk_size = 500
    settings.networking.connect_timeout = 10
    settings.networking.request_timeout = 60
    settings.networking.error_backoffs = retries_s
    settings.process.ultimate_exiting_timeout = None  # it would kill the whole process, which is not Kopf's alone
    settings.execution.max_workers = 1
    return settings
