"""Events on policies. The same piece of news is one Event whose count grows, and is not repeated all the time."""

from __future__ import annotations

import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime

from pulsecache_operator.controller.api import CACHE_POLICY, EVENT, Api, ApiError, Document
from pulsecache_operator.controller.plan import Happening

LOG = logging.getLogger(__name__)

COMPONENT = "pulsecache-controller"
REPEAT_S = 60.0
"""Within this time the same news is told once: what flaps must not flood anybody."""
REMEMBERED = 10_000


class Events:
    """Events are a courtesy: what cannot be posted is logged and forgotten."""

    def __init__(self, api: Api, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._api = api
        self._clock = clock
        self._told: OrderedDict[tuple[str, str, str], tuple[float, int]] = OrderedDict()

    async def post(self, policy: Document, happening: Happening) -> None:
        key = (str(policy["metadata"].get("uid")), happening.reason, happening.message)
        now = self._clock()
        before, count = self._told.get(key, (now - REPEAT_S, 0))
        if now - before < REPEAT_S:
            return
        self._told[key] = (now, count + 1)
        self._told.move_to_end(key)
        if len(self._told) > REMEMBERED:
            self._told.popitem(last=False)
        try:
            await self._post(policy, happening, key, count + 1)
        except ApiError as error:
            LOG.warning("the Event %s on %s could not be posted: %s", happening.reason, _name(policy), error)

    async def _post(self, policy: Document, happening: Happening, key: tuple[str, str, str], count: int) -> None:
        digest = hashlib.sha256("\n".join(key).encode()).hexdigest()[:16]
        metadata = policy["metadata"]
        name, namespace = f"{metadata['name'][:200]}.{digest}", metadata["namespace"]
        moment = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        event = {
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": {
                "apiVersion": CACHE_POLICY.api_version,
                "kind": CACHE_POLICY.kind,
                "name": metadata["name"],
                "namespace": namespace,
                "uid": metadata.get("uid"),
            },
            "type": happening.type,
            "reason": happening.reason,
            "message": happening.message[:1024],
            "source": {"component": COMPONENT},
            "reportingComponent": COMPONENT,
            "firstTimestamp": moment,
            "lastTimestamp": moment,
            "count": count,
        }
        # Applied, not created: the one that is there already is brought up to date, whoever wrote it.
        await self._api.apply(EVENT, event)


def _name(policy: Document) -> str:
    return f"{policy['metadata']['namespace']}/{policy['metadata']['name']}"
