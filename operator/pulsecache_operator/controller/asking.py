"""What sidecars run, asked of themselves: where there is no Redis, it is away, or a pod has not reported to it.

Their metrics are open to the cluster and have the generation of each policy and the state of each dataset: enough to
count by, though not to tell two lives of a policy apart. Who does not answer has told nothing.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

import aiohttp

from pulsecache_operator.controller.facts import running, uid_of
from pulsecache_operator.controller.redis_store import state_of
from pulsecache_operator.controller.status import Report
from pulsecache_operator.inject.names import ADMIN_PORT

AT_ONCE = 16
TIMEOUT_S = 2.0
KEPT_S = 3.0
"""For how long an answer is good: several policies of one pod ask in a row."""
MAX_BYTES = 1024 * 1024

_SAMPLE = re.compile(r"^(\w+)\{([^}]*)\} (\S+)", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')

Answer = Mapping[str, Any]


class PodAsker:
    """One session for all. `aclose` it."""

    def __init__(self, *, port: int = ADMIN_PORT, clock: Callable[[], float] = time.monotonic) -> None:
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        self._session = aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=AT_ONCE))
        self._port = port
        self._clock = clock
        self._kept: dict[str, tuple[float, str | None]] = {}

    async def aclose(self) -> None:
        await self._session.close()

    async def ask(self, pods: list[dict[str, Any]], policy: str, dataset: str) -> dict[str, Report]:
        """Reports on one policy by the uid of those pods that answered and run it."""
        now = self._clock()
        self._kept = {uid: kept for uid, kept in self._kept.items() if now - kept[0] < KEPT_S}
        asked = [pod for pod in pods if running(pod)]
        texts = await asyncio.gather(*(self._metrics(uid_of(pod), str(pod["status"]["podIP"])) for pod in asked))
        found = {}
        for pod, text in zip(asked, texts, strict=True):
            if text is not None and (report := report_in(text, policy, dataset)) is not None:
                found[uid_of(pod)] = report
        return found

    async def _metrics(self, uid: str, address: str) -> str | None:
        if uid in self._kept:
            return self._kept[uid][1]
        host = f"[{address}]" if ":" in address else address
        text: str | None = None
        try:
            async with self._session.get(f"http://{host}:{self._port}/metrics") as response:
                if response.status == 200:
                    content = bytearray()
                    async for chunk in response.content.iter_any():
                        content += chunk
                        if len(content) > MAX_BYTES:
                            break
                    text = content.decode(errors="replace")
        except (aiohttp.ClientError, TimeoutError, OSError):
            # Starting, ending, or behind a NetworkPolicy: it shows as "not told".
            text = None
        self._kept[uid] = (self._clock(), text)
        return text


def report_in(metrics: str, policy: str, dataset: str) -> Report | None:
    """The report on a policy that a sidecar's metrics amount to."""
    generation: int | None = None
    state = None
    for name, labels, value in _SAMPLE.findall(metrics):
        if name == "pulsecache_policy_generation" and dict(_LABEL.findall(labels)).get("policy") == policy:
            generation = int(float(value))
        elif name == "pulsecache_staleness_state" and float(value) == 1:
            found = dict(_LABEL.findall(labels))
            state = state_of(found.get("state")) if found.get("dataset") == dataset else state
    return None if generation is None else Report(generation=generation, state=state)
