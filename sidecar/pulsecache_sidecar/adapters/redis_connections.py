"""Connections to one Redis, shared by all datasets of the process, with a deadline on every call and a breaker.

Two pools: short commands, and blocking reads of streams, which would otherwise keep the commands' connections busy.
redis-py repeats nothing here (`Retry(NoBackoff(), 0)`): scripts are sent once, and who may wait for a second try
decides that himself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from hashlib import sha1
from typing import Any, TypeVar, cast

from redis.asyncio import BlockingConnectionPool, ConnectionPool, Redis
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

T = TypeVar("T")

_AWAY = (
    RedisConnectionError,
    RedisTimeoutError,
    BusyLoadingError,
    ReadOnlyError,
    AuthenticationError,
    OSError,
    TimeoutError,
)


class RedisConnections:
    """One per Redis URL (`redis://[user:password@]host[:port][/db]`, `rediss://`, `unix://`) and event loop.

    `client` may be used for other short commands; its errors are redis-py's. `aclose` closes both pools.
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
            "socket_timeout": None,  # deadlines are set per call, below
            "socket_connect_timeout": 1.0,
        }
        self._commands = BlockingConnectionPool.from_url(url, max_connections=max_connections, timeout=None, **common)
        self._streams = ConnectionPool.from_url(url, **common)
        self.client: Redis = Redis(connection_pool=self._commands)
        self._stream_client: Redis = Redis(connection_pool=self._streams)
        self._texts = {name: script(name) for name in SCRIPTS}
        self._digests = {
            name: sha1(text.encode(), usedforsecurity=False).hexdigest() for name, text in self._texts.items()
        }

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

    async def _evaluate(self, name: str, keys: tuple[str, ...], arguments: tuple[str | bytes | int, ...]) -> Any:
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
