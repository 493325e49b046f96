"""What the engine needs of the world: small protocols, each with a real adapter and an in-memory one.

Positions, epochs and tags are those of `core.staleness`: a *position* is a value of the dataset's counter, an
*epoch* names one life of that counter, a *tag* is what changes name and entries carry. Each entry carries, besides
the tags of its rule, one tag for its path (it starts with "/"; tags of a policy never do), so a change has tags only.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from pulsecache_sidecar.core.http.message import RequestHead, ResponseHead
from pulsecache_sidecar.core.staleness.events import Changed as Changed
from pulsecache_sidecar.core.staleness.events import Doubted as Doubted
from pulsecache_sidecar.core.staleness.events import Entry as Entry
from pulsecache_sidecar.core.staleness.events import Flushed as Flushed
from pulsecache_sidecar.core.staleness.events import Member as Member
from pulsecache_sidecar.core.staleness.events import Membership as Membership
from pulsecache_sidecar.core.staleness.events import Snapshot as Snapshot
from pulsecache_sidecar.core.staleness.events import Watermark as Watermark
from pulsecache_sidecar.errors import HubError

Body = AsyncIterator[bytes]


class Clock(Protocol):
    """Own clock of the process: seconds, monotonic, running on through suspension (CLOCK_BOOTTIME)."""

    def now(self) -> float: ...

    def wall(self) -> float:
        """Seconds since 1970, only for Date, Expires and what people read."""
        ...


class OriginResponse(Protocol):
    """A response whose head has arrived. Exactly one of: reading `body` to its end, or `abort`."""

    @property
    def head(self) -> ResponseHead: ...

    @property
    def body(self) -> Body: ...

    def abort(self) -> None:
        """Give up: the connection is closed abortively and never used again."""
        ...


class Origin(Protocol):
    async def send(self, request: RequestHead, body: Body | None, *, timeout_s: float) -> OriginResponse:
        """Sends a request and returns once the response's head is there.

        `request.fields` are sent as they are, without hop-by-hop fields, framed anew. Cancelling closes the
        connection abortively. Raises OriginError.
        """
        ...

    async def aclose(self) -> None: ...


class Tunnel(Protocol):
    """A connection to the origin for a protocol that is not understood here."""

    def splice(self, client: asyncio.Transport, received: bytes) -> None:
        """Takes the client's connection over: `received` and all that follows goes to the origin, and back."""
        ...

    def abort(self) -> None:
        """Instead of `splice`."""
        ...


class TunnelOrigin(Origin, Protocol):
    """An origin through which other protocols can be reached."""

    async def upgrade(self, request: RequestHead, *, timeout_s: float) -> tuple[OriginResponse, Tunnel | None]:
        """Sends a request with Upgrade, or CONNECT. The tunnel is there if the origin agreed (101, or 2xx to CONNECT),
        and the response has then no body. Raises OriginError."""
        ...

    async def tunnel(self, *, timeout_s: float) -> Tunnel:
        """A connection on which nothing has been sent. Raises OriginError."""
        ...


# --- the hub: order and announcement of changes of one dataset -------------------------------------------------


class HubSkipped(HubError):
    """Not even asked: the hub did not answer lately."""


class ForeignEpoch(Exception):
    """The call carried another epoch than the dataset's: subscribe and join again."""


class UnknownPublisher(Exception):
    """The publisher is not (any more) a member: join again before anything else is forwarded."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object of the shared store. `valid` and `includes` are positions (core.staleness.entry)."""

    payload: bytes
    tags: tuple[str, ...]
    valid: int
    includes: int


class Hub(Protocol):
    """One dataset's counter, stamps, stream and shared objects. Every method is one atomic step, safe to repeat and to
    arrive late. Each raises HubError when the outcome is unknown, and ForeignEpoch where it carries an epoch that is
    over. Positions returned are newly given out, except by `get` and `publishers`, which only read the counter."""

    async def subscribe(self, last_acknowledged: str | None, ended: Sequence[str] = ()) -> Snapshot:
        """`last_acknowledged`: cursor of the last entry this process was told of; `ended`: epochs that it has seen end.
        Where the hub has lost that entry (and not merely trimmed it), is back in such an epoch, or has none, a new
        epoch starts."""
        ...

    async def read(self, cursor: str, *, block_s: float) -> Sequence[Entry]:
        """Entries after `cursor`, waiting for the first up to `block_s`; empty where none came."""
        ...

    async def sample(self, epoch: str) -> int: ...

    async def join(self, publisher: str, epoch: str, coverage: int) -> int: ...

    async def beat(self, publisher: str, epoch: str, coverage: int) -> int:
        """Raises UnknownPublisher. The lead's beat appends a heartbeat to the stream."""
        ...

    async def leave(self, publisher: str, epoch: str) -> None:
        """Does nothing where a doubt of this publisher is open."""
        ...

    async def publishers(self) -> Membership: ...

    async def change(
        self, publisher: str, epoch: str, tags: Sequence[str], *, resolves: str | None = None
    ) -> tuple[int, str]:
        """Stamps the tags and appends the change; returns (stamp, cursor of its entry)."""
        ...

    async def change_and_store(
        self,
        publisher: str,
        epoch: str,
        tags: Sequence[str],
        key: str,
        stored: StoredObject,
        ttl_s: float,
        *,
        sent: int,
        resolves: str | None = None,
    ) -> tuple[int, str, bool]:
        """As `change`; and stores unless the object's tags or a flush were stamped after `sent`, or are in doubt by
        another write than `resolves`: two writes overlapped and their order at the origin is unknown. The object is
        stored with `includes` = the stamp. The bool tells whether it was stored."""
        ...

    async def doubt(self, publisher: str, epoch: str, write: str, tags: Sequence[str]) -> tuple[int, str]:
        """Puts the tags in doubt until the write is resolved or its publisher fenced; again with other tags: those
        take the place of the former. Raises UnknownPublisher."""
        ...

    async def fence(self, publisher: str, epoch: str, *, beats: int | None, flush: bool) -> bool:
        """Removes a publisher that is dead (`beats`: only if its beat count is still this), ends its doubts, and
        stamps a flush if told so. False where it was gone or has beaten."""
        ...

    async def get(self, key: str, epoch: str) -> tuple[StoredObject | None, int]:
        """The object if it is usable now, and the counter's value: the object contains every change of its tags up to
        there."""
        ...

    async def put(self, key: str, epoch: str, stored: StoredObject, ttl_s: float) -> bool:
        """Stores if it is usable now; False where a change made it unusable."""
        ...

    async def aclose(self) -> None: ...


# --- the journal of write-behind ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PendingWrite:
    """An acknowledged request on its way to the origin."""

    id: int
    """Order of acceptance in this journal."""
    policy: str
    rule: str
    order_key: str
    """Writes of one order key reach the origin in the order of acceptance."""
    idempotency_key: str
    request: RequestHead
    body: bytes
    tags: tuple[str, ...]
    """What this write will change."""
    accepted_wall: float
    attempts: int = 0
    shows: str | None = None
    """Cache key of the read entry that shows the body of this request while it is pending."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    write: PendingWrite
    status: int
    detail: str
    died_wall: float


class Journal(Protocol):
    async def append(self, write: PendingWrite) -> PendingWrite:
        """Returns, with its id, only after the write is on stable storage. Raises JournalError, JournalFull."""
        ...

    @property
    def failure(self) -> str | None:
        """Why nothing is acknowledged any more until the process starts anew; None while the journal works."""
        ...

    async def load(self, after: int = 0, limit: int | None = None) -> Sequence[PendingWrite]:
        """Pending writes with an id above `after`, in order of id. With a `limit` at most so many, and fewer where
        bodies are large, but none only at the end."""
        ...

    async def done(self, write_id: int) -> None: ...

    async def attempted(self, write_id: int, attempts: int) -> None: ...

    async def bury(self, letter: DeadLetter) -> None: ...

    async def dead_letters(self, after: int = 0, limit: int | None = None) -> Sequence[DeadLetter]:
        """As `load`, for writes that the origin refused."""
        ...

    async def retry(self, write_id: int) -> bool:
        """Moves a dead letter back to the pending writes; False where there is none of this id."""
        ...

    async def drop(self, write_id: int) -> bool: ...

    async def aclose(self) -> None: ...


# --- what is told of it -------------------------------------------------------------------------------------------


class Observer(Protocol):
    """Counts and times; never blocks and never fails. Outcomes and reasons are those of docs/architecture.md."""

    def request(self, policy: str, rule: str, outcome: str, bound_s: float | None) -> None: ...

    def origin(self, policy: str, duration_s: float) -> None: ...

    def hub_call(self, result: str) -> None: ...
