"""The way to the origin for what a rule covers: a turn under `origin.maxConcurrency`, the policy's time-out, and the
clock on it."""

from __future__ import annotations

from pulsecache_policy.model import CachePolicy
from pulsecache_sidecar.core.http.message import RequestHead
from pulsecache_sidecar.engine.limits import Held, Slots
from pulsecache_sidecar.ports import Body, Clock, Observer, Origin, OriginResponse


class Upstream:
    """One per bind. What no rule covers does not come this way: it is sent as it would be without a sidecar."""

    def __init__(self, origin: Origin, clock: Clock, observer: Observer) -> None:
        self.origin = origin
        self.clock = clock
        self.observer = observer
        self.slots = Slots(0)

    async def turn(self, policy: CachePolicy) -> Turn:
        """Waits for a place at the origin, as long as for an answer. Raises Overloaded."""
        self.slots.limit = policy.origin.max_concurrency
        await self.slots.acquire(policy.origin.timeout_s)
        return Turn(self, policy)


class Turn:
    """The right to send one request. Either `send` or `pass_up` follows."""

    def __init__(self, upstream: Upstream, policy: CachePolicy) -> None:
        self._upstream = upstream
        self._policy = policy

    def pass_up(self) -> None:
        self._upstream.slots.release()

    async def send(self, request: RequestHead, body: Body | None = None) -> OriginResponse:
        """The turn ends with the response's body, or with an error. Raises OriginError, and what `body` raises."""
        upstream = self._upstream
        began = upstream.clock.now()
        try:
            response = await upstream.origin.send(request, body, timeout_s=self._policy.origin.timeout_s)
        except BaseException:
            upstream.slots.release()
            raise
        upstream.observer.origin(self._policy.key, upstream.clock.now() - began)
        return Held(response, upstream.slots.release)
