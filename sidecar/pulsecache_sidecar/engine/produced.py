"""What a write-through would store, decided as if it were the answer to a GET."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pulsecache_sidecar.core.http.codec import Packed
from pulsecache_sidecar.core.http.message import Representation, ResponseHead, without
from pulsecache_sidecar.core.http.storable import NotStored, Times, storable
from pulsecache_sidecar.engine.fetch import lag
from pulsecache_sidecar.engine.serving import Read
from pulsecache_sidecar.ports import Body


@dataclass(frozen=True, slots=True)
class Produced:
    packed: Packed


def produce(read: Read, head: ResponseHead | None, body: bytes | Body, times: Times) -> Produced | NotStored:
    """`head` None: the write shows no representation. Credentials count here as well: what an administrator was shown
    is not for everybody, unless the origin says so; `from: Refetch` asks as anybody would."""
    if head is None:
        return NotStored.STATUS
    if not isinstance(body, bytes):
        return NotStored.TOO_LARGE
    decision = storable(read.request, head, ttl=read.match.rule.ttl, principal=None, times=times)
    if isinstance(decision, NotStored):
        return decision
    if decision.private:
        return NotStored.VARY
    kept = replace(head, fields=without(head.fields, b"age", b"pulse-staleness", b"content-length"))
    return Produced(
        Packed(Representation(kept, body), decision.freshness, decision.variant, decision.anyone, lag(head.fields))
    )
