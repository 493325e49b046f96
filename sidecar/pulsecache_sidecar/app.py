"""The one place where the sidecar's parts are wired together, and their order of starting and stopping.

Start: data folder, journal, policies from files, coherence of their datasets, then the listeners. Stop: not ready, no
new connections, requests in flight, pending writes, publishers leave, connections closed.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import time
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from typing import Any

import uvloop

from pulsecache_policy.model import CachePolicy, Consumer
from pulsecache_sidecar import __version__
from pulsecache_sidecar.adapters import sockets
from pulsecache_sidecar.adapters.admin import Admin, Endpoints
from pulsecache_sidecar.adapters.clock import SystemClock
from pulsecache_sidecar.adapters.http_origin import HttpOrigin
from pulsecache_sidecar.adapters.http_server import HttpServer
from pulsecache_sidecar.adapters.identity import PublisherIds
from pulsecache_sidecar.adapters.local_hub import LocalHub
from pulsecache_sidecar.adapters.policy_files import PolicyFiles
from pulsecache_sidecar.adapters.policy_redis import PolicyHints
from pulsecache_sidecar.adapters.prometheus import Metrics
from pulsecache_sidecar.adapters.redis_connections import RedisConnections
from pulsecache_sidecar.adapters.redis_hub import RedisHub
from pulsecache_sidecar.adapters.sqlite_journal import SqliteJournal
from pulsecache_sidecar.config import Bind, Config
from pulsecache_sidecar.engine.active import Actives
from pulsecache_sidecar.engine.coherence import Coherence
from pulsecache_sidecar.engine.delivery import Target
from pulsecache_sidecar.engine.exchange import Exchange
from pulsecache_sidecar.engine.policies import InForce, PolicyBook
from pulsecache_sidecar.engine.write_behind import WriteBehind
from pulsecache_sidecar.errors import JournalError
from pulsecache_sidecar.ports import Hub
from pulsecache_sidecar.reports import Reports

LOG = logging.getLogger(__name__)


class App:
    """One sidecar process. `start` opens, `run` serves until `stop` is set, leaving closes in order."""

    def __init__(self, config: Config, journal: SqliteJournal) -> None:
        self._config = config
        self._clock = SystemClock()
        self._redis = RedisConnections(config.redis_url, self._clock) if config.redis_url else None
        self._ids = PublisherIds(config.data_dir, config.pod.uid)
        self._write_behind = WriteBehind(journal, self._target, self._clock)
        self._actives = Actives(self._coherence, self._write_behind)
        self._book = PolicyBook(
            [bind.policy for bind in config.binds],
            self._policy_changed,
            lambda key, result: self.metrics.policy_reload(key, result),
        )
        self._reports = Reports(config, self._clock, self._book, self._actives, self._write_behind)
        self.metrics = Metrics(__version__, self._reports.gauges)
        self._files = PolicyFiles(
            self._book, files=config.policy_files, folder=config.policies_dir, namespace=config.pod.namespace
        )
        self._origins = [_origin(bind) for bind in config.binds]
        self._exchanges = {
            bind.policy: self._exchange(bind, origin) for bind, origin in zip(config.binds, self._origins, strict=True)
        }
        self._local_hubs: dict[str, LocalHub] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._not_ready: str | None = "starting"
        self._beat = self._clock.now()

    async def run(self, listening: dict[str, socket.socket], admin: socket.socket, stop: asyncio.Event) -> int:
        """Serves on these sockets until `stop` is set. Returns how many acknowledged writes are left in the journal."""
        async with AsyncExitStack() as stack:
            if self._redis is not None:
                stack.push_async_callback(self._redis.aclose)
            self._files.look()
            for key in self._book.keys:
                if (error := self._book.in_force(key).error) is not None:
                    LOG.error("policy %s is not in force, its requests pass through: %s", key, error)
            await self._actives.started()
            await self._write_behind.start()
            for origin in self._origins:
                stack.push_async_callback(origin.aclose)
            admin_server = HttpServer(self._admin())
            stack.push_async_callback(admin_server.aclose, 1.0)
            await admin_server.listen(admin)
            servers = [await self._serve(bind, listening[str(bind.listen)]) for bind in self._config.binds]
            self._spawn(self._files.run())
            if self._redis is not None:
                hints = PolicyHints(
                    self._book, self._redis.client, pod_uid=self._config.pod.uid, report=self._reports.of_policy
                )
                self._spawn(hints.run())
            self._not_ready = None
            LOG.info("serving %s", ", ".join(f"{b.policy} on {b.listen}" for b in self._config.binds))
            await stop.wait()
            return await self._drain(servers)

    async def _drain(self, servers: list[HttpServer]) -> int:
        self._not_ready = "stopping"
        deadline = self._clock.now() + self._config.drain_s
        await asyncio.gather(*(server.aclose(self._config.drain_s / 2) for server in servers))
        await asyncio.gather(*(exchange.aclose(1.0) for exchange in self._exchanges.values()))
        left = await self._write_behind.drain(max(0.0, deadline - self._clock.now() - 1.0))
        await self._write_behind.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._actives.stop()
        if left:
            LOG.warning("%d acknowledged writes are still in the journal; the next start sends them", left)
        return left

    async def _serve(self, bind: Bind, listening: socket.socket) -> HttpServer:
        server = HttpServer(self._exchanges[bind.policy])
        await server.listen(listening)
        return server

    def _exchange(self, bind: Bind, origin: HttpOrigin) -> Exchange:
        return Exchange(
            origin,
            lambda: self._actives.serving(bind.policy),
            clock=self._clock,
            observer=self.metrics,
            policy=bind.policy,
            tunnels=bind.authority is None,
            authority=bind.authority,
        )

    def _policy_changed(self, key: str, in_force: InForce) -> None:
        if in_force.compiled is None:
            LOG.warning("policy %s was deleted: everything passes through", key)
        else:
            LOG.info("policy %s: generation %d is in force", key, in_force.generation)
        self._actives.replace(key, in_force.compiled)

    def _coherence(self, policy: CachePolicy) -> Coherence:
        publisher, predecessor = self._ids.new(policy.dataset)
        return Coherence(
            policy.dataset,
            policy.staleness,
            self._hub(policy),
            publisher_id=publisher,
            publishes=not isinstance(policy.placement, Consumer) or bool(policy.writes),
            clock=self._clock,
            observer=self.metrics,
            predecessor=predecessor,
            unattended=self._config.unattended,
        )

    def _hub(self, policy: CachePolicy) -> Hub | None:
        threshold = policy.staleness.heartbeat.failure_threshold
        if not policy.redis:
            # In a pod others may write to the same data; by hand this process is the only way to it.
            if policy.dataset not in self._local_hubs:
                self._local_hubs[policy.dataset] = LocalHub(
                    self._clock, covered=not self._config.pod.real, failure_threshold=threshold
                )
            return self._local_hubs[policy.dataset]
        if self._redis is None:
            LOG.warning("policy %s wants Redis, and there is none: every bound is the age of the answer", policy.key)
            return None
        return RedisHub(self._redis, policy.dataset, failure_threshold=threshold)

    def _target(self, policy_key: str) -> Target | None:
        exchange, active = self._exchanges.get(policy_key), self._actives.get(policy_key)
        if exchange is None:
            return None
        if active is None:
            return Target.of(exchange.upstream, None, None)
        return Target.of(exchange.upstream, active.policy, active.coherence)

    def _admin(self) -> Admin:
        return Admin(
            Endpoints(
                live=lambda: None,
                ready=lambda: self._not_ready,
                metrics=self.metrics.exposition,
                staleness=self._reports.staleness,
                policies=self._reports.policies,
                journal=self._reports.journal,
                dead_letters=self._reports.dead_letters,
                retry=self._write_behind.retry,
                drop=self._write_behind.drop,
                purge=self._purge,
            )
        )

    async def _purge(self, dataset: str, tag: str) -> bool:
        found = [active for active in self._actives.all().values() if active.policy.dataset == dataset]
        for active in found:
            await active.coherence.open_write((tag,), self._clock.now()).took_effect()
        return bool(found)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(_tell_failure)
        self._tasks.append(task)


def _origin(bind: Bind) -> HttpOrigin:
    assert bind.origin.host is not None
    return HttpOrigin(bind.origin.host, bind.origin.port, authority=bind.authority)


def _tell_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        LOG.error("a background task failed: the sidecar goes on without it", exc_info=error)


def run(config: Config) -> int:
    """Runs until SIGTERM or SIGINT. Returns the exit status: 0 after a clean stop, 1 where it could not start."""
    try:
        config.data_dir.mkdir(parents=True, exist_ok=True)
        listening = {str(bind.listen): sockets.bind(bind.listen) for bind in config.binds}
        admin = sockets.bind(config.admin)
    except OSError as error:
        LOG.error("cannot start: %s", error)
        return 1
    try:
        return uvloop.run(_main(config, listening, admin))
    except JournalError as error:
        LOG.error("cannot start: %s", error)
        return 1


async def _main(config: Config, listening: dict[str, socket.socket], admin: socket.socket) -> int:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    started = time.monotonic()
    journal = await SqliteJournal.open(config.data_dir)
    try:
        await App(config, journal).run(listening, admin, stop)
    finally:
        await journal.aclose()
    LOG.info("stopped after %.0f s", time.monotonic() - started)
    return 0
