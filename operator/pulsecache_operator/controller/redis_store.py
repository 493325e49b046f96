"""Redis as the controller uses it: bundles and reports of policies, and scripts of datasets.

The keys are those of docs/architecture.md.
Everything here is a hint or is looked at again: each call has a short deadline, is tried once, and raises RedisTrouble.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from hashlib import sha1
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError, ResponseError

from pulsecache_operator.controller.status import Report, State
from pulsecache_policy import hub_scripts
from pulsecache_policy.bundle import Bundle

TIMEOUT_S = 1.0
TOMBSTONE_LIFE_S = 600
_REPORTS_AT_ONCE = 100
"""Policies per round trip."""


class RedisTrouble(Exception):
    """Redis did not answer in time, or refused: nothing is known about the effect of the call."""


class RedisRefused(RedisTrouble):
    """Redis answered, and said no: for the scripts, that the epoch or the publisher is another by now."""


class RedisStore:
    def __init__(self, url: str) -> None:
        self._redis: Any = Redis.from_url(
            url,
            retry=Retry(NoBackoff(), 0),
            socket_connect_timeout=TIMEOUT_S,
            socket_timeout=TIMEOUT_S,
            protocol=2,
            decode_responses=True,
        )
        self._texts = {name: hub_scripts.script(name) for name in hub_scripts.SCRIPTS}
        self._digests = {n: sha1(text.encode(), usedforsecurity=False).hexdigest() for n, text in self._texts.items()}

    async def aclose(self) -> None:
        await self._redis.aclose()

    async def publish(self, key: str, content: Bundle, text: str) -> None:
        """The copy of a policy's bundle; a tombstone goes by itself when its time is over."""
        name = f"pc:{{{key}}}:policy"
        async with _mapped(), self._redis.pipeline(transaction=True) as pipe:
            pipe.hget(name, "revision")
            pipe.ttl(name)
            revision, ttl_s = await pipe.execute()
            if revision == content.revision and (ttl_s >= 0) == content.tombstone:
                return
            pipe.hset(name, mapping={"revision": content.revision, "bundle": text})
            if content.tombstone:
                pipe.expire(name, TOMBSTONE_LIFE_S)
            else:
                pipe.persist(name)
            await pipe.execute()

    async def forget(self, key: str) -> None:
        async with _mapped():
            await self._redis.delete(f"pc:{{{key}}}:policy", f"pc:{{{key}}}:pods")

    async def reports(self, keys: Sequence[str]) -> dict[str, dict[str, str]]:
        """What the sidecars report, as they wrote it: policy -> pod uid -> JSON."""
        found: dict[str, dict[str, str]] = {}
        for start in range(0, len(keys), _REPORTS_AT_ONCE):
            some = keys[start : start + _REPORTS_AT_ONCE]
            async with _mapped(), self._redis.pipeline(transaction=False) as pipe:
                for key in some:
                    pipe.hgetall(f"pc:{{{key}}}:pods")
                found |= dict(zip(some, await pipe.execute(), strict=True))
        return found

    async def drop_reports(self, key: str, uids: Iterable[str]) -> None:
        async with _mapped():
            await self._redis.hdel(f"pc:{{{key}}}:pods", *uids)

    async def run(self, script: str, dataset: str, *arguments: str | int) -> Any:
        """One script of a dataset."""
        keys = (hub_scripts.hub_key(dataset), hub_scripts.stream_key(dataset))
        async with _mapped():
            try:
                return await self._redis.evalsha(self._digests[script], len(keys), *keys, *arguments)
            except NoScriptError:
                return await self._redis.eval(self._texts[script], len(keys), *keys, *arguments)


@asynccontextmanager
async def _mapped() -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(2 * TIMEOUT_S):
            yield
    except ResponseError as error:
        raise RedisRefused(str(error)) from error
    except (RedisError, OSError, TimeoutError) as error:
        raise RedisTrouble(str(error) or type(error).__name__) from error


def report_of(text: str) -> Report | None:
    """A sidecar's report; None for what is none (a Redis is open to whoever has its password)."""
    try:
        return report_in_document(json.loads(text))
    except (ValueError, RecursionError):
        return None


def report_in_document(said: Any) -> Report | None:
    try:
        generation, sha256, lost = int(said["generation"]), said.get("sha256"), said.get("lostPublishers")
        error, state, since = said.get("error"), said.get("state"), said.get("since")
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return None
    return Report(
        generation=generation,
        sha256=sha256 if isinstance(sha256, str) else "",
        error=error if isinstance(error, str) else None,
        state=state_of(state),
        since=since if isinstance(since, str) else None,
        lost_publishers=lost if isinstance(lost, int) and 0 <= lost < 2**31 else 0,
    )


def state_of(text: object) -> State | None:
    return next((state for state in State if isinstance(text, str) and state.lower() == text.lower()), None)
