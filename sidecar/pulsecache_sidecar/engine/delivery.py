"""One attempt to bring a pending write to its origin: a turn, the request, what it changed, what was said.

Order, repetition and what is recorded are the flusher's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, assert_never

from pulsecache_policy.match import path_tag
from pulsecache_policy.model import CachePolicy
from pulsecache_sidecar.core.http.locations import changed_targets
from pulsecache_sidecar.core.http.message import RequestHead, ResponseHead, first
from pulsecache_sidecar.core.retry import Effect, Retry, Scope, Verdict, after_error, after_response
from pulsecache_sidecar.core.staleness.events import WHOLE_DATASET
from pulsecache_sidecar.engine.limits import Overloaded
from pulsecache_sidecar.engine.passthrough import PATIENCE_S
from pulsecache_sidecar.engine.upstream import Upstream
from pulsecache_sidecar.errors import OriginError
from pulsecache_sidecar.ports import Body, Clock, Origin, OriginResponse, PendingWrite

logger = logging.getLogger(__name__)

_DETAIL_BYTES = 2048
_DETAIL_CHARACTERS = 500
_BODY_BYTES = 64 * 1024
_BODY_S = 5.0
"""A longer or slower body of a response is not worth reading just to keep the connection."""


class OpenWrite(Protocol):
    """A write that may change the dataset until one of these tells its outcome."""

    def refused(self) -> None: ...

    async def took_effect(self, extra_tags: tuple[str, ...] = ()) -> object: ...

    def unknown(self, now: float, extra_tags: tuple[str, ...] = ()) -> None: ...


class Coherence(Protocol):
    def open_write(self, tags: tuple[str, ...], now: float) -> OpenWrite: ...


class Turn(Protocol):
    """The right to send one request: see `upstream`."""

    def pass_up(self) -> None: ...

    async def send(self, request: RequestHead, body: Body | None = None) -> OriginResponse: ...


@dataclass(frozen=True, slots=True)
class Target:
    """Where the writes of a policy go, as of now. Without coherence nobody is told of changes: nobody caches."""

    turn: Callable[[], Awaitable[Turn]]
    """Raises Overloaded."""
    coherence: Coherence | None
    timeout_s: float

    @classmethod
    def of(cls, upstream: Upstream, policy: CachePolicy | None, coherence: Coherence | None) -> Target:
        """Of a bind. Its policy may have been deleted (None): what was acknowledged is sent all the same."""
        if policy is None:
            return cls(_Bare(upstream.origin).turn, coherence, PATIENCE_S)
        return cls(lambda: upstream.turn(policy), coherence, policy.origin.timeout_s)


@dataclass(frozen=True, slots=True)
class _Bare:
    """A Turn at an origin that no policy limits."""

    origin: Origin

    async def turn(self) -> Turn:
        return self

    def pass_up(self) -> None:
        return None

    async def send(self, request: RequestHead, body: Body | None = None) -> OriginResponse:
        return await self.origin.send(request, body, timeout_s=PATIENCE_S)


class _Untold:
    """The OpenWrite of a dataset that nobody caches."""

    def refused(self) -> None:
        return None

    async def took_effect(self, extra_tags: tuple[str, ...] = ()) -> None:
        return None

    def unknown(self, now: float, extra_tags: tuple[str, ...] = ()) -> None:
        return None


_UNTOLD = _Untold()


async def attempt(write: PendingWrite, target: Target, clock: Clock, *, unknown_until: float) -> tuple[Verdict, str]:
    """Sends a write once; what is to become of it, and what the origin said.

    `unknown_until`: own time until which an earlier attempt may still be at work at the origin.
    """
    try:
        turn = await target.turn()
    except Overloaded as overloaded:
        return Retry("overloaded", Scope.ORIGIN, Effect.NONE), str(overloaded)
    started = clock.now()
    try:
        # Only now: while it waits for its turn, a write changes nothing and holds nothing back.
        opened = target.coherence.open_write(write.tags, started) if target.coherence is not None else _UNTOLD
    except BaseException:
        turn.pass_up()
        raise
    verdict: Verdict
    try:
        response = await turn.send(write.request, _once(write.body) if write.body else None)
    except OriginError as error:
        verdict = after_error(error)
        await _tell(opened, clock, verdict.effect)
        return verdict, str(error)
    except BaseException:
        opened.unknown(clock.now())
        raise
    may_be_running = started < unknown_until
    verdict = after_response(response.head, clock.wall(), may_be_running=may_be_running)
    # The change is told of before the body is read: the body may take its time, readers should not wait for it.
    try:
        await _tell(opened, clock, verdict.effect, _also_changed(write.request, response.head))
    except BaseException:
        response.abort()
        raise
    detail = _detail(response.head, await _read(response, target.timeout_s))
    if may_be_running:
        detail += " (an earlier attempt had no answer and may have taken effect)"
    return verdict, detail


async def _tell(opened: OpenWrite, clock: Clock, effect: Effect, extra_tags: tuple[str, ...] = ()) -> None:
    match effect:
        case Effect.NONE:
            opened.refused()
        case Effect.UNKNOWN:
            # Settling counts from now, not from the last byte: when that was written is not known here.
            opened.unknown(clock.now(), extra_tags)
        case Effect.TOOK:
            try:
                await opened.took_effect(extra_tags)
            except Exception:
                # The origin has the write, whatever became of the announcement: it must not be sent again for that.
                logger.exception("a change that took effect could not be announced")
                opened.unknown(clock.now(), extra_tags)
        case _:
            assert_never(effect)


def _also_changed(request: RequestHead, head: ResponseHead) -> tuple[str, ...]:
    """Tags of what the response names (RFC 9111 section 4.4); a path that cannot be named stands for everything."""
    targets = changed_targets(request, head.fields)
    return tuple(path_tag(target.partition("?")[0]) or WHOLE_DATASET for target in targets)


async def _once(body: bytes) -> AsyncIterator[bytes]:
    yield body


async def _read(response: OriginResponse, timeout_s: float) -> bytes:
    """The first bytes of the body, read to its end if that comes soon: then the connection serves again."""
    kept, size = bytearray(), 0
    try:
        async with asyncio.timeout(min(timeout_s, _BODY_S)):
            async for chunk in response.body:
                kept += chunk[: _DETAIL_BYTES - len(kept)]
                size += len(chunk)
                if size > _BODY_BYTES:
                    response.abort()
                    break
    except (OriginError, TimeoutError):
        response.abort()  # the head said everything that matters
    except BaseException:
        response.abort()
        raise
    return bytes(kept)


def _detail(head: ResponseHead, body: bytes) -> str:
    kind = (first(head.fields, b"content-type") or b"").lower()
    readable = kind.startswith(b"text/") or b"json" in kind or b"xml" in kind
    text = " ".join(body.decode("utf-8", "replace").split())[:_DETAIL_CHARACTERS] if readable else ""
    return f"HTTP {head.status}" + (f": {text}" if text else "")
