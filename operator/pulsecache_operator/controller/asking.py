"""What sidecars run, asked of themselves: where there is no Redis, it is away, or a pod has not reported to it.

`GET /-/staleness` is open to the cluster and has the reports that would go to Redis. Who does not answer has told
nothing.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import aiohttp

from pulsecache_operator.controller.facts import running, uid_of
from pulsecache_operator.controller.redis_store import report_in_document
from pulsecache_operator.controller.status import Report
from pulsecache_operator.inject.names import ADMIN_PORT

AT_ONCE = 16
TIMEOUT_S = 2.0
"""Of one pod."""
TOGETHER_S = 5.0
"""Of all of them: who has not been asked by then is asked another time."""
KEPT_S = 3.0
"""For how long an answer is good: several policies of one pod ask in a row."""
MAX_BYTES = 1024 * 1024


class PodAsker:
    """One session for all. `aclose` it."""

    def __init__(self, *, port: int = ADMIN_PORT, clock: Callable[[], float] = time.monotonic) -> None:
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        self._session = aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=AT_ONCE))
        self._port = port
        self._clock = clock
        self._kept: dict[str, tuple[float, bytes]] = {}

    async def aclose(self) -> None:
        await self._session.close()

    async def ask(self, pods: list[dict[str, Any]], policy: str) -> dict[str, Report]:
        """Reports on one policy by the uid of those pods that answered and run it."""
        now = self._clock()
        self._kept = {uid: kept for uid, kept in self._kept.items() if now - kept[0] < KEPT_S}
        asked = [pod for pod in pods if running(pod)]
        if not asked:
            return {}
        tasks = [asyncio.create_task(self._told(uid_of(pod), str(pod["status"]["podIP"]))) for pod in asked]
        try:
            done, _ = await asyncio.wait(tasks, timeout=TOGETHER_S)
        finally:
            for task in tasks:
                task.cancel()
        found = {}
        for pod, task in zip(asked, tasks, strict=True):
            if task in done and (report := report_in(task.result(), policy)) is not None:
                found[uid_of(pod)] = report
        return found

    async def _told(self, uid: str, address: str) -> bytes:
        """What the pod answers; empty where it does not."""
        if uid in self._kept:
            return self._kept[uid][1]
        host = f"[{address}]" if ":" in address else address
        content = bytearray()
        try:
            async with self._session.get(f"http://{host}:{self._port}/-/staleness") as response:
                if response.status == 200:
                    async for chunk in response.content.iter_any():
                        content += chunk
                        if len(content) > MAX_BYTES:
                            break
        except (aiohttp.ClientError, TimeoutError, OSError):
            # Starting, ending, or behind a NetworkPolicy: it shows as "not told".
            content.clear()
        self._kept[uid] = (self._clock(), bytes(content))
        return bytes(content)


def report_in(answer: bytes, policy: str) -> Report | None:
    """The report on a policy in a sidecar's answer; None where there is none that can be read."""
    try:
        policies = json.loads(answer)["policies"]
        told = next(one for one in policies if one["policy"] == policy)
    except (ValueError, KeyError, TypeError, StopIteration, RecursionError):
        return None
    return report_in_document(told)
