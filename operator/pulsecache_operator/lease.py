"""Who may write: a Lease of coordination.k8s.io, held by one process at a time.

Own decisions rest on the process's own monotonic clock: a holder counts from when it *asked* for its last renewal that
succeeded, the others from when they *saw* the record change; no two machines' clocks are compared. The times inside
the Lease are for people. As with every lease, the holder has to look (`Lease.held`) before each write, and each write
has to end within the gap between `renew_deadline_s` and `duration_s`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pulsecache_operator.controller.api import LEASE, Api, ApiError, Conflict, NotFound

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Seconds."""

    duration_s: float = 15.0
    """How long the others leave a silent holder alone."""
    renew_deadline_s: float = 10.0
    """How long the holder trusts its last renewal."""
    retry_s: float = 2.0


class Lease:
    """One candidate. `run` contends until it is cancelled, and then gives the role back."""

    def __init__(
        self,
        api: Api,
        *,
        namespace: str,
        name: str,
        identity: str,
        clock: Callable[[], float],
        wall: Callable[[], datetime] = lambda: datetime.now(UTC),
        timing: Timing | None = None,
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._name = name
        self._clock = clock
        self._wall = wall
        self._timing = timing or Timing()
        self._seen: tuple[str, str] | None = None
        self._seen_at = 0.0
        self._renewed_at: float | None = None
        self.identity = identity
        self.term = 0
        """How often this process has taken the role."""
        self.changed = asyncio.Event()
        """Set whenever the role was taken or lost; whoever waits for it clears it."""

    def held(self) -> bool:
        """Whether this process may write at this instant."""
        return self._renewed_at is not None and self._clock() < self._renewed_at + self._timing.renew_deadline_s

    async def run(self) -> None:
        try:
            while True:
                await self.attempt()
                await asyncio.sleep(self._timing.retry_s)
        finally:
            await self.release()

    async def attempt(self) -> None:
        """One try to take or to keep the role. Trouble with the API is logged: time then decides."""
        asked = self._clock()
        renewed: bool | None = None
        try:
            async with asyncio.timeout(self._timing.renew_deadline_s / 2):
                renewed = await self._contend()
        except Conflict:
            # Somebody else wrote first: who holds it is seen at the next attempt, and until then time decides.
            pass
        except (ApiError, TimeoutError) as error:
            LOG.warning("the lease %s/%s cannot be renewed: %s", self._namespace, self._name, error or "time-out")
        if renewed is None:
            if self._renewed_at is not None and not self.held():
                self._lost("it could not be renewed in time")
        elif renewed:
            # From when it was asked, not answered: the others may have seen the record from then on.
            if not self.held():
                # Also after a lapse in which nobody followed: what was to be written meanwhile was not.
                LOG.info("%s is the writer now", self.identity)
                self.term += 1
                self.changed.set()
            self._renewed_at = asked
        elif self._renewed_at is not None:
            self._lost("somebody else holds it")

    async def _contend(self) -> bool:
        """True where this process now holds the lease, False where somebody else does."""
        try:
            lease = await self._api.get(LEASE, self._name, self._namespace)
        except NotFound:
            await self._api.create(LEASE, self._record({}, taken=True))
            return True
        spec = lease.get("spec") or {}
        holder = spec.get("holderIdentity") or ""
        version = lease["metadata"]["resourceVersion"]
        if self._seen != (holder, version):
            self._seen, self._seen_at = (holder, version), self._clock()
        duration_s = float(spec.get("leaseDurationSeconds") or self._timing.duration_s)
        if holder not in ("", self.identity) and self._clock() < self._seen_at + duration_s:
            return False
        written = await self._api.replace(LEASE, self._record(lease, taken=holder != self.identity))
        self._seen = (self.identity, written["metadata"]["resourceVersion"])
        self._seen_at = self._clock()
        return True

    def _record(self, lease: dict[str, Any], *, taken: bool, holder: str | None = None) -> dict[str, Any]:
        now = self._wall().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        before = lease.get("spec") or {}
        spec = before | {
            "holderIdentity": self.identity if holder is None else holder,
            "leaseDurationSeconds": max(1, round(self._timing.duration_s)),
            "renewTime": now,
        }
        if taken:
            spec["acquireTime"] = now
            spec["leaseTransitions"] = int(before.get("leaseTransitions") or 0) + (1 if before else 0)
        metadata = lease.get("metadata") or {"name": self._name, "namespace": self._namespace}
        return {"apiVersion": LEASE.api_version, "kind": LEASE.kind, "metadata": metadata, "spec": spec}

    def _lost(self, reason: str) -> None:
        LOG.warning("%s is the writer no longer: %s", self.identity, reason)
        self._renewed_at = None
        self.changed.set()

    async def release(self) -> None:
        """Gives the role back, so that the next one need not wait. Call it after the last write has ended."""
        if self._renewed_at is None:
            return
        self._renewed_at = None
        self.changed.set()
        try:
            lease = await self._api.get(LEASE, self._name, self._namespace)
            if (lease.get("spec") or {}).get("holderIdentity") == self.identity:
                await self._api.replace(LEASE, self._record(lease, taken=False, holder=""))
                LOG.info("%s gave the role of the writer back", self.identity)
        except ApiError as error:
            LOG.warning("the lease %s/%s cannot be given back: %s", self._namespace, self._name, error)
