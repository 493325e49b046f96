"""`pulsecache-operator injector`: the parts of the injector, wired, started and stopped in order.

Ready means: a certificate is loaded, the first LISTs of CachePolicies, Services and Namespaces are complete, and nobody
has asked to stop. The webhook's port opens only then, so that no pod is answered out of an empty view.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Sequence
from typing import Any

from pulsecache_operator import __version__
from pulsecache_operator.controller.api import EVENT, connect
from pulsecache_operator.health import HealthServer
from pulsecache_operator.inject import SidecarConfig
from pulsecache_operator.injector import tls
from pulsecache_operator.injector.events import EventReporter
from pulsecache_operator.injector.metrics import Metrics
from pulsecache_operator.injector.server import InjectorServer
from pulsecache_operator.injector.view import (
    CACHE_POLICIES,
    NAMESPACES,
    SERVICES,
    View,
    keep_namespace,
    keep_service,
)
from pulsecache_operator.settings import Settings
from pulsecache_operator.watch import Watch

log = logging.getLogger(__name__)


class _Stopping(Exception):
    """Ends the task group; the injector was asked to stop."""


async def run_injector(settings: Settings, *, stop: asyncio.Event | None = None) -> None:
    """Serves until SIGTERM or SIGINT, or until `stop` is set.

    Raises ExceptionGroup when a part ends by itself: the process is to end and be started again.
    """
    asked = stop or _signalled()
    metrics = Metrics()
    view = View()
    certificate = tls.Certificate(lambda expiry: metrics.certificate_expiry.set(expiry.timestamp()))
    async with connect() as api:
        views = (
            Watch(api.client, CACHE_POLICIES, view.policies),
            Watch(api.client, SERVICES, view.services, keep=keep_service),
            Watch(api.client, NAMESPACES, view.namespaces, keep=keep_namespace),
        )
        watches = (*views, Watch(api.client, tls.secret(settings.namespace, settings.tls_secret), certificate))
        metrics.follow(watches)

        async def post(event: dict[str, Any]) -> None:
            await api.create(EVENT, event)

        events = EventReporter(post, metrics.events)
        server = InjectorServer(
            settings.webhook_listen.host,
            settings.webhook_listen.port,
            context=certificate.context,
            known=view,
            config=sidecar_config(settings),
            own_namespace=settings.namespace,
            metrics=metrics,
            report=events.report,
        )
        serving = asyncio.Event()
        ready = {
            "certificate": lambda: None if certificate.loaded.is_set() else "none yet",
            **{watch.resource.name: _listed(watch) for watch in views},
            "serving": lambda: None if serving.is_set() and not asked.is_set() else "not yet, or no longer",
        }
        health = HealthServer(settings.health_listen.host, settings.health_listen.port, metrics.registry, ready=ready)
        async with health:
            try:
                async with asyncio.TaskGroup() as tasks:
                    for watch in watches:
                        tasks.create_task(watch.run(), name=f"watch {watch.resource.name}")
                    tasks.create_task(events.run(), name="events")
                    first = [certificate.loaded, *(watch.listed for watch in views)]
                    tasks.create_task(_serve(server, first, serving, asked), name="webhook")
            except* _Stopping:
                log.info("stopped")


async def _serve(
    server: InjectorServer, first: Sequence[asyncio.Event], serving: asyncio.Event, asked: asyncio.Event
) -> None:
    """Opens the port when all of `first` has happened; closes it when asked to. Raises Stopping."""
    stop = asyncio.ensure_future(asked.wait())
    prepared = asyncio.gather(*(event.wait() for event in first))
    try:
        await asyncio.wait((prepared, stop), return_when=asyncio.FIRST_COMPLETED)
        if not asked.is_set():
            await server.start()
            serving.set()
            await stop
            log.info("stopping: reviews that have come are still answered")
        raise _Stopping
    finally:
        prepared.cancel()
        stop.cancel()
        await server.stop()


def sidecar_config(settings: Settings) -> SidecarConfig:
    return SidecarConfig(
        image=settings.sidecar_image,
        pull_policy=settings.sidecar_image_pull_policy,
        resources=settings.sidecar_resources,
        redis_secret=settings.redis_secret,
        version=__version__,
    )


def _listed(watch: Watch) -> Any:
    return lambda: None if watch.listed.is_set() else "not listed yet"


def _signalled() -> asyncio.Event:
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked.set)
    return asked
