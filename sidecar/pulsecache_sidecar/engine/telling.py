"""Answers to requests of a read rule: each with how it came about, how stale it may be, and counted once.

What is answered was decided before, in `look_aside`; here is how it is said (docs/architecture.md, "Response fields").
"""

from __future__ import annotations

from dataclasses import replace

from pulsecache_sidecar.core.http import status_fields
from pulsecache_sidecar.core.http.conditional import not_modified, not_modified_head
from pulsecache_sidecar.core.http.credentials import credentials
from pulsecache_sidecar.core.http.message import Fields, ResponseHead, without
from pulsecache_sidecar.engine.fetch import Failed, HandOver, Landed, Stale, bound_of, lag
from pulsecache_sidecar.engine.handler import Reply, problem
from pulsecache_sidecar.engine.limits import Overloaded
from pulsecache_sidecar.engine.memory import Entry
from pulsecache_sidecar.engine.passthrough import inbound, origin_failed
from pulsecache_sidecar.engine.serving import Read
from pulsecache_sidecar.errors import OriginError
from pulsecache_sidecar.ports import Clock, Observer, OriginResponse, PendingWrite

_OWN = (b"pulse-staleness",)
"""What an origin says there is counted into our own value."""
_DESCRIPTIVE = frozenset((b"content-type", b"content-language", b"content-encoding"))


class Teller:
    def __init__(self, clock: Clock, observer: Observer) -> None:
        self._clock = clock
        self._observer = observer

    # --- from what is held ------------------------------------------------------------------------------------------

    def hit(self, read: Read, entry: Entry, bound_s: float, now: float) -> Reply:
        return self._of(read, entry, "hit", bound_s, status_fields.hit(entry.ttl_s(now)), now)

    def stale(self, read: Read, entry: Entry, bound_s: float, detail: str, now: float) -> Reply:
        return self._of(read, entry, "stale", bound_s, status_fields.hit(entry.ttl_s(now), detail=detail), now)

    def landed(self, read: Read, landed: Landed, why: str, *, collapsed: bool = False) -> Reply:
        """What a fetch brought: as of now for whoever led it; who joined later may get what is a little older."""
        now = self._clock.now()
        if landed.how == "hit":
            return self.hit(read, landed.entry, bound_of(read, landed.entry, now), now)
        bound_s = bound_of(read, landed.entry, now) if collapsed else landed.entry.packed.lag_s
        told = status_fields.forwarded(
            why,
            status=304 if landed.how == "revalidated" else None,
            stored=landed.stored,
            collapsed=collapsed,
            detail=landed.why,
        )
        return self._of(read, landed.entry, landed.how, bound_s, told, now)

    def instead(self, read: Read, stale: Stale, why: str) -> Reply:
        """An older answer in place of an error."""
        now = self._clock.now()
        told = status_fields.forwarded(why, detail="stale-if-error")
        return self._of(read, stale.entry, "stale", bound_of(read, stale.entry, now), told, now)

    def _of(
        self, read: Read, entry: Entry, outcome: str, bound_s: float, cache_status: tuple[bytes, bytes], now: float
    ) -> Reply:
        told = (self._counted(read, outcome, bound_s, now), cache_status)
        age = (b"age", b"%d" % min(max(0.0, entry.age_s(now)), 2**31))
        head = entry.head
        if not_modified(read.request.fields, head, self._clock.wall):
            head = not_modified_head(head)
            return Reply(replace(head, fields=(*head.fields, age, *told)))
        return Reply(replace(head, fields=(*head.fields, age, *told)), entry.body)

    # --- from the origin, as it comes ---------------------------------------------------------------------------------

    def handed_over(self, read: Read, handed: HandOver, why: str, detail: str | None = None) -> Reply:
        told = status_fields.forwarded(why, detail=detail or handed.reason.value)
        return self._passed(read, handed.head, handed, told, "bypass" if why == "bypass" else "miss")

    def passed(self, read: Read, response: OriginResponse, why: str, detail: str | None) -> Reply:
        told = status_fields.forwarded(why, detail=detail)
        return self._passed(read, inbound(response.head), response, told, "bypass" if why == "bypass" else "miss")

    def _passed(
        self,
        read: Read,
        head: ResponseHead,
        source: HandOver | OriginResponse,
        cache_status: tuple[bytes, bytes],
        outcome: str,
    ) -> Reply:
        told = (self._counted(read, outcome, lag(head.fields), self._clock.now()), cache_status)
        return Reply(replace(head, fields=(*without(head.fields, *_OWN), *told)), source.body)

    # --- from nobody ------------------------------------------------------------------------------------------------

    def failed(self, read: Read, failed: Failed, why: str) -> Reply:
        told = self._unknown(read, "error", status_fields.forwarded(why, detail="origin-failed"))
        if isinstance(failed.error, Overloaded):
            return overloaded(failed.error, told)
        return origin_failed(failed.error, told)

    def origin_failed(self, read: Read, error: OriginError | Overloaded, why: str) -> Reply:
        return self.failed(read, Failed(error), why)

    def turned_off(self, read: Read) -> Reply:
        """`whenExceeded: Fail`, and the dataset is Exceeded."""
        policy = read.serving.policy.policy
        told = self._unknown(read, "fail", status_fields.answered("staleness-exceeded"))
        detail = (
            f"the dataset {policy.dataset} has not been confirmed for more than {policy.staleness.max_s:g} s, and its "
            "policy says whenExceeded: Fail: see which publisher, or Redis, is away (GET /-/staleness tells)"
        )
        retry = (b"retry-after", b"1")
        return problem(503, "staleness-exceeded", "Not known to be up to date", detail, (retry, *told))

    def pending(self, read: Read, write: PendingWrite) -> Reply | None:
        """The value of an acknowledged write that is not yet at the origin. Who may read what others wrote is the
        origin's to say: here only who carries its writer's credentials sees it."""
        if credentials(write.request.fields) != credentials(read.request.fields):
            return None
        now = self._clock.now()
        self._observer.request(read.policy_key, read.match.rule.name, "pending", 0.0)
        fields = tuple(field for field in write.request.fields if field[0] in _DESCRIPTIVE)
        told = (
            (b"cache-control", b"no-store"),
            status_fields.pulse_staleness(0.0, read.coherence.state(now).value, pending=True),
            status_fields.answered("pending-write"),
        )
        return Reply(ResponseHead(200, (*fields, *told)), write.body)

    # --- counting ---------------------------------------------------------------------------------------------------

    def _counted(self, read: Read, outcome: str, bound_s: float, now: float) -> tuple[bytes, bytes]:
        known = bound_s if bound_s < status_fields.UNKNOWN else None
        self._observer.request(read.policy_key, read.match.rule.name, outcome, known)
        return status_fields.pulse_staleness(bound_s, read.coherence.state(now).value)

    def _unknown(self, read: Read, outcome: str, cache_status: tuple[bytes, bytes]) -> Fields:
        self._observer.request(read.policy_key, read.match.rule.name, outcome, None)
        state = read.coherence.state(self._clock.now()).value
        return (status_fields.pulse_staleness(status_fields.UNKNOWN, state), cache_status)


def overloaded(error: Overloaded, extra: Fields = ()) -> Reply:
    detail = f"{error}: the policy's origin.maxConcurrency is reached; raise it, or scale the origin"
    return problem(
        503, "origin-overloaded", "Too many requests at the origin", detail, ((b"retry-after", b"1"), *extra)
    )
