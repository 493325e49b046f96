"""Connections to one Redis, shared by all datasets of the process, with a deadline on every call and a breaker.

Two pools: short commands, and blocking reads of streams, which would otherwise keep the commands' connections busy.
redis-py repeats nothing here (`Retry(NoBackoff(), 0)`): scripts are sent once, and who may wait for a second try
decides that himself.

A Redis that was restarted, or the replica that took its place, may have lost the latest writes. Nobody may rely on what
it says, or tell it that everything is announced, before a subscription has compared notes with it. But pools connect
anew in silence. So every new connection asks who answers (`run_id`); with another one than before the connection is
refused, and `generation` counts on: hubs make no call then until they have subscribed again.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable
from hashlib import sha1
from typing import Any, TypeVar, cast

from redis.asyncio import BlockingConnectionPool, ConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    NoScriptError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import (
    ConnectionError as RedisConnectionError,
)
from redis.exceptions import (
    TimeoutError as RedisTimeoutError,
)

from pulsecache_policy.hub_scripts import SCRIPTS, script
from pulsecache_sidecar.adapters.redis_breaker import Breaker
from pulsecache_sidecar.errors import HubError
from pulsecache_sidecar.ports import Clock, ForeignEpoch, HubSkipped, UnknownPublisher

LOG = logging.getLogger(__name__)
T = TypeVar("T")

_RUN_ID = re.compile(rb"run_id:(\w+)")
_AWAY = (
    RedisConnectionError,
    RedisTimeoutError,
    BusyLoadingError,
    ReadOnlyError,
    AuthenticationError,
    OSError,
    TimeoutError,
)


class _Bounded(Redis):
    """No call takes longer than a second (TimeoutError)."""

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        async with asyncio.timeout(1.0):
            return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]


class RedisConnections:
    """One per Redis URL (`redis://[user:password@]host[:port][/db]`, `rediss://`, `unix://`) and event loop.

    `client` may be used for other short commands: its errors are redis-py's, its calls end within a second. `aclose`
    closes both pools.
    """

    def __init__(
        self,
        url: str,
        clock: Clock,
        *,
        timeout_s: float = 0.05,
        max_connections: int = 32,
        breaker: Breaker | None = None,
    ) -> None:
        self.timeout_s = timeout_s
        self.breaker = breaker or Breaker(clock)
        common: dict[str, Any] = {
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,
            "socket_keepalive": True,
            "socket_connect_timeout": 1.0,
            # With a time-out redis-py sends through asyncio.wait_for, which can swallow a cancellation (Python 3.11):
            # the deadlines are set per call, below.
            "socket_timeout": None,
            "redis_connect_func": self._connected,
        }
        self.generation = 0
        """How many different servers have answered so far."""
        self._run_id: bytes | None = None
        self._may_ask = True
        self._outdated = False
        self._commands = BlockingConnectionPool.from_url(url, max_connections=max_connections, timeout=None, **common)
        self._streams = ConnectionPool.from_url(url, **common)
        self.client: Redis = _Bounded(connection_pool=self._commands)
        self._stream_client: Redis = Redis(connection_pool=self._streams)
        self._texts = {name: script(name) for name in SCRIPTS}
        self._digests = {
            name: sha1(text.encode(), usedforsecurity=False).hexdigest() for name, text in self._texts.items()
        }

    async def server(self) -> str:
        """The run_id of the server that answers; empty where it does not say. Raises HubError."""
        if self._run_id is None:
            await self._guarded(self.client.ping(), self.timeout_s, "ping")
        return (self._run_id or b"").decode()

    async def run(self, name: str, keys: tuple[str, ...], *arguments: str | bytes | int, probe: bool) -> Any:
        """Runs a script of hub_scripts. `probe`: no request waits for this call, so it is made also while the breaker
        is open. Raises HubError, HubSkipped, ForeignEpoch, UnknownPublisher."""
        if not self.breaker.admits(probe=probe):
            raise HubSkipped("Redis did not answer lately; it is asked again in the background")
        return await self._guarded(self._evaluate(name, keys, arguments), self.timeout_s, name)

    async def read(
        self, stream: str, after: str, *, block_s: float, count: int
    ) -> list[tuple[bytes, dict[bytes, bytes]]]:
        """Entries of a stream after an id, waiting up to `block_s` for the first. Raises HubError."""
        call = cast(
            Awaitable[Any],
            self._stream_client.xread({stream: after}, count=count, block=max(1, round(block_s * 1000))),
        )
        reply = await self._guarded(call, block_s + 10 * self.timeout_s, "xread")
        return list(reply[0][1]) if reply else []

    async def aclose(self) -> None:
        for client, pool in ((self.client, self._commands), (self._stream_client, self._streams)):
            await client.aclose()
            await pool.disconnect()

    async def _connected(self, connection: AbstractConnection) -> None:
        await connection.on_connect()
        if not self._may_ask:
            return
        await connection.send_command("INFO", "server")
        try:
            found = _RUN_ID.search(await connection.read_response())
        except ResponseError as error:
            LOG.warning("Redis does not say who it is (INFO: %s): a failover is noticed only by the stream", error)
            self._may_ask = False
            return
        if found is None or found[1] == self._run_id:
            return
        first, self._run_id = self._run_id is None, found[1]
        self.generation += 1
        if not first:
            self._outdated = True
            raise RedisConnectionError("another Redis answers than before: it may have lost the latest writes")

    async def _evaluate(self, name: str, keys: tuple[str, ...], arguments: tuple[str | bytes | int, ...]) -> Any:
        if self._outdated:
            self._outdated = False
            await self._commands.disconnect()  # connections to the server of before
        try:
            return await self.client.evalsha(self._digests[name], len(keys), *keys, *arguments)
        except NoScriptError:  # a Redis that was restarted or flushed its scripts; EVAL loads it again
            return await self.client.eval(self._texts[name], len(keys), *keys, *arguments)

    async def _guarded(self, call: Awaitable[T], timeout_s: float, what: str) -> T:
        try:
            async with asyncio.timeout(timeout_s):
                result = await call
        except _AWAY as error:
            self.breaker.failed()
            detail = str(error) or f"no answer within {timeout_s:g} s"
            raise HubError(f"Redis is out of reach ({what}): {detail}") from error
        except ResponseError as error:
            self.breaker.succeeded()
            match str(error).partition(" ")[0]:
                case "FOREIGNEPOCH":
                    raise ForeignEpoch from error
                case "UNKNOWNPUBLISHER":
                    raise UnknownPublisher from error
            raise HubError(f"Redis refused {what}: {error}") from error
        except RedisError as error:
            raise HubError(f"Redis could not be asked ({what}): {error}") from error
        self.breaker.succeeded()
        return result
