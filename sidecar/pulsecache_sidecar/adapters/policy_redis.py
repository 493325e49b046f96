"""Policies from Redis, and reports to it: the fast way of an edit, never the only one.

The controller writes each bundle to a hash besides the ConfigMap; polling it makes an edit a matter of seconds instead
of the kubelet's minute. What this process runs is reported beside it. Both are hints: any trouble with Redis is counted
by the connection's own metrics and otherwise changes nothing.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from pulsecache_policy import bundle
from pulsecache_sidecar.engine.policies import PolicyBook

LOG = logging.getLogger(__name__)
_PATIENCE_S = 1.0


class PolicyHints:
    """Polls the bundles of the book's policies and writes reports. Owns nothing of the connection."""

    def __init__(
        self,
        book: PolicyBook,
        redis: Redis,
        *,
        pod_uid: str,
        report: Callable[[str], dict[str, Any]],
        refresh_s: float = 60.0,
    ) -> None:
        self._book = book
        self._redis = redis
        self._pod_uid = pod_uid
        self._report = report
        self._revisions: dict[str, bytes | str] = {}
        self._reported: dict[str, str] = {}
        self._refresh_s = refresh_s

    async def run(self, interval_s: float = 1.0) -> None:
        since_refresh_s = 0.0
        away = False
        while True:
            await asyncio.sleep(interval_s)
            since_refresh_s += interval_s
            if since_refresh_s >= self._refresh_s:
                # Redis may have been emptied meanwhile: say it all again.
                self._reported.clear()
                since_refresh_s = 0.0
            try:
                async with asyncio.timeout(_PATIENCE_S):
                    for key in self._book.keys:
                        await self._poll(key)
                        await self._tell(key)
                away = False
            except (RedisError, OSError, TimeoutError) as error:
                if not away:
                    LOG.warning("policies are not read from Redis for now (the files suffice): %s", error)
                away = True
                self._reported.clear()

    async def _poll(self, key: str) -> None:
        name = f"pc:{{{key}}}:policy"
        revision = await self._redis.hget(name, "revision")
        if revision is None or self._revisions.get(key) == revision:
            return
        content = await self._redis.hget(name, "bundle")
        if content is not None:
            self._book.offer("redis", key, content, bundle.decode)
            self._revisions[key] = revision

    async def _tell(self, key: str) -> None:
        text = json.dumps(self._report(key), sort_keys=True)
        if self._reported.get(key) != text:
            await self._redis.hset(f"pc:{{{key}}}:pods", self._pod_uid, text)
            self._reported[key] = text
