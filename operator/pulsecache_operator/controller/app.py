"""`pulsecache-operator controller`: the parts of the controller, wired, started and stopped in order.

Every replica watches everything; the one that holds the Lease also writes. A replica that takes the role over looks at
everything at once, and each minute it looks at everything again: nothing rests on an event that may have been missed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import signal
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NoReturn

from pulsecache_operator.controller.api import (
    CACHE_POLICY,
    CONFIG_MAP,
    Api,
    ApiError,
    NotTheWriter,
    connect,
)
from pulsecache_operator.controller.asking import PodAsker
from pulsecache_operator.controller.cluster import Cluster, Objects
from pulsecache_operator.controller.configmaps import SELECTOR, policy_of
from pulsecache_operator.controller.datasets import DatasetKeeper
from pulsecache_operator.controller.listening import PolicyListener, watches
from pulsecache_operator.controller.metrics import Metrics
from pulsecache_operator.controller.queue import WorkQueue
from pulsecache_operator.controller.reconcile import Reconciler, Reports
from pulsecache_operator.controller.redis_store import RedisStore, RedisTrouble
from pulsecache_operator.controller.webhook import InjectionGate, WebhookKeeper
from pulsecache_operator.health import Check, HealthServer
from pulsecache_operator.lease import Lease
from pulsecache_operator.settings import Settings
from pulsecache_operator.watch import Watch

LOG = logging.getLogger(__name__)

RESYNC_S = 60.0
REPORTS_S = 2.0
LOOK_AGAIN_S = 0.5
GATE_S = 1.0
DATASETS_S = 1.0
DATASETS_S = 1.0
STOP_S = 8.0
"""For the turns that have begun. Less than a pod is given to end."""


def now_s() -> float:
    """Own clock of the process: monotonic, and running on while the machine is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class What(StrEnum):
    POLICY = "policy"
    NAMESPACE = "namespace"
    WEBHOOK = "webhook"


@dataclass(frozen=True, slots=True)
class Key:
    what: What
    name: str = ""

    def __str__(self) -> str:
        return f"{self.what} {self.name}".rstrip()


class _Stopping(Exception):
    """Ends the task group; the controller was asked to stop."""


async def run(settings: Settings, *, stop: asyncio.Event | None = None) -> None:
    """Works until SIGTERM or SIGINT, or until `stop` is set.

    Raises ExceptionGroup when a part ends by itself: the process is to end and be started again.
    """
    asked = stop or _signalled()
    async with connect() as api:
        controller = Controller(api, settings)
        try:
            await controller.run(asked)
        finally:
            await controller.aclose()


class Controller:
    def __init__(self, api: Api, settings: Settings) -> None:
        self._settings = settings
        self._metrics = Metrics()
        self._lease = Lease(
            api,
            namespace=settings.namespace,
            name=settings.lease,
            identity=f"{os.environ.get('HOSTNAME') or socket.gethostname()}_{secrets.token_hex(4)}",
            clock=now_s,
        )
        self._reads = api
        self._api = api.guarded(self._lease.held)
        self._queue: WorkQueue[Key] = WorkQueue(self._turn, failed=self._failed)
        self._cluster = Cluster(
            lambda key: self._add(Key(What.POLICY, key)),
            lambda namespace: self._add(Key(What.NAMESPACE, namespace)),
            own_namespace=settings.namespace,
        )
        self._slices = Objects(lambda old, new: None)
        self._listener = PolicyListener(api, settings, self._cluster.policies, clock=now_s)
        self._redis = RedisStore(settings.redis_url) if settings.redis_url else None
        self._datasets = (
            DatasetKeeper(api, self._redis, self._cluster, self._metrics, held=self._lease.held, clock=now_s)
            if self._redis is not None
            else None
        )
        self._reports = Reports()
        self._asker = PodAsker(clock=now_s)
        self._webhook = WebhookKeeper(self._api, settings, expires=self._metrics.expires)
        self._gate = InjectionGate(self._webhook, self._slices, service=settings.webhook_service, clock=now_s)
        self._reconciler = Reconciler(
            self._api,
            self._cluster,
            settings,
            self._metrics,
            redis=self._redis,
            reports=self._reports,
            asker=self._asker,
            injection_problem=self._gate.problem,
            clock=now_s,
        )
        self._watches = watches(api.client, settings, self._cluster, self._slices, lambda: self._add(Key(What.WEBHOOK)))
        self._metrics.writer.set_function(lambda: float(self._lease.held()))
        self._metrics.policies.set_function(lambda: float(len(self._cluster.policies)))
        self._metrics.follow(self._watches, policies=self._listener.silent_s)
        self.health_port: int | None = None

    async def aclose(self) -> None:
        await self._asker.aclose()
        if self._redis is not None:
            await self._redis.aclose()

    async def run(self, asked: asyncio.Event) -> None:
        health = HealthServer(
            self._settings.health_listen.host,
            self._settings.health_listen.port,
            self._metrics.registry,
            live={"kopf": self._listener.trouble},
            ready=self._readiness(asked),
        )
        async with health:
            self.health_port = health.port
            try:
                async with asyncio.TaskGroup() as tasks:
                    for watch in self._watches:
                        tasks.create_task(watch.run(), name=f"watch {watch.resource.name}")
                    tasks.create_task(self._listener.run(), name="policies")
                    for part in (self._sweep, self._follow_gate, self._read_reports, self._keep_datasets):
                        tasks.create_task(part(), name=part.__name__)
                    lease = tasks.create_task(self._lease.run(), name="lease")
                    work = tasks.create_task(self._queue.run(), name="work queue")
                    tasks.create_task(self._stop(asked, lease, work), name="stop")
            except* _Stopping:
                LOG.info("stopped")
            finally:
                await self._listener.stop()

    async def _stop(self, asked: asyncio.Event, lease: asyncio.Task[None], work: asyncio.Task[None]) -> NoReturn:
        await asked.wait()
        LOG.info("stopping: turns that have begun are ended")
        self._queue.end()
        await asyncio.wait({work}, timeout=STOP_S)
        work.cancel()
        # Only now: whoever has the role next must not meet our writes.
        lease.cancel()
        await asyncio.wait({lease}, timeout=STOP_S)
        raise _Stopping

    def _readiness(self, asked: asyncio.Event) -> Mapping[str, Check]:
        def listed(watch: Watch) -> Check:
            return lambda: None if watch.listed.is_set() else "not listed yet"

        return {
            **{watch.resource.name: listed(watch) for watch in self._watches},
            CACHE_POLICY.plural: lambda: None if self._cluster.policies.listed else "not listed yet",
            "running": lambda: "asked to stop" if asked.is_set() else None,
        }

    # --- looking -------------------------------------------------------------------------------------------------

    async def _read_reports(self) -> NoReturn:
        """What sidecars have told Redis; where that has changed, its policy gets a turn."""
        while True:
            await asyncio.sleep(REPORTS_S)
            if self._redis is None or not self._lease.held():
                continue
            keys = tuple(self._cluster.policies)
            before = self._reports.read
            try:
                self._reports.read = await self._redis.reports(keys)
            except RedisTrouble as error:
                if before is not None:
                    LOG.warning("reports of sidecars cannot be read, they are asked themselves now: %s", error)
                self._reports.read = None
            after = self._reports.read
            for key in keys:
                if (before is None) != (after is None) or (before or {}).get(key) != (after or {}).get(key):
                    self._add(Key(What.POLICY, key))

    async def _keep_datasets(self) -> NoReturn:
        while True:
            await asyncio.sleep(DATASETS_S)
            if self._datasets is None:
                continue
            if self._lease.held() and self._looked_around():
                await self._datasets.look()
            else:
                self._datasets.forget()

    def _looked_around(self) -> bool:
        """Whether what there is has been listed once: before, nobody is missed and nobody is bare."""
        return self._cluster.policies.listed and all(watch.listed.is_set() for watch in self._watches)

    async def _follow_gate(self) -> NoReturn:
        """When pods get sidecars again, those who wait for it get a turn."""
        before = self._gate.problem()
        while True:
            await asyncio.sleep(GATE_S)
            if (problem := self._gate.problem()) != before:
                before = problem
                for key in self._cluster.policies:
                    self._add(Key(What.POLICY, key))

    # --- working -------------------------------------------------------------------------------------------------

    async def _sweep(self) -> NoReturn:
        """Gives everything a turn: each minute, and when this process has become the writer."""
        term = 0
        while True:
            if self._lease.term != term:
                term = self._lease.term
                self._reconciler.forget()
            if self._lease.held():
                try:
                    orphans = await self._reads.list(CONFIG_MAP, labels=SELECTOR)
                except ApiError as error:
                    LOG.warning("the ConfigMaps of policies cannot be listed: %s", error)
                else:
                    for found in orphans.items:
                        if key := policy_of(found):
                            self._add(Key(What.POLICY, key))
                for key in self._cluster.policies:
                    self._add(Key(What.POLICY, key))
                    self._add(Key(What.NAMESPACE, key.partition("/")[0]))
                self._add(Key(What.WEBHOOK))
                self._reconciler.tidy()
            else:
                self._metrics.forget_pods()
                try:
                    await self._webhook.look()
                except ApiError as error:
                    LOG.warning("the webhook's certificate cannot be looked at: %s", error)
            try:
                async with asyncio.timeout(RESYNC_S):
                    await self._lease.changed.wait()
            except TimeoutError:
                continue
            self._lease.changed.clear()

    def _add(self, key: Key) -> None:
        # Without the role there is nothing to do; who takes it over looks at everything.
        if self._lease.held():
            self._queue.add(key)

    async def _turn(self, key: Key) -> float | None:
        if not self._lease.held():
            return None
        if key.what is not What.WEBHOOK and not self._looked_around():
            # What has not been listed yet is not missing: no status may say so.
            return LOOK_AGAIN_S
        began = time.perf_counter()
        try:
            match key.what:
                case What.POLICY:
                    again_s = await self._reconciler.policy(key.name)
                case What.NAMESPACE:
                    for concerned in await self._reconciler.namespace(key.name):
                        self._add(Key(What.POLICY, concerned))
                    again_s = None
                case What.WEBHOOK:
                    await self._webhook.keep()
                    again_s = None
        except NotTheWriter:
            return None
        self._metrics.reconciles.labels("ok").inc()
        self._metrics.duration.observe(time.perf_counter() - began)
        return again_s

    def _failed(self, key: Key, error: Exception) -> None:
        self._metrics.reconciles.labels("error").inc()
        if isinstance(error, ApiError):
            LOG.warning("%s: %s; it is tried again", key, error)
        else:
            LOG.error("%s: %s; it is tried again", key, error, exc_info=error)


def _signalled() -> asyncio.Event:
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked.set)
    return asked
