"""Unsafe requests: forwarded, and what they changed is announced before they are answered (DESIGN section 6).

    open the write -> send -> 4xx: refused, nothing changed
                           -> 5xx, 408, 202, reset, time-out: unknown, stays open until it is settled
                           -> 2xx, 3xx: took effect, with what it stores if the rule says so -> announced -> answered

A write whose body is in memory goes on to its end when its client leaves: a known outcome is worth more than a saved
request. Write-behind is accepted here and sent by the flusher.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

from pulsecache_policy.model import RepresentationSource, WhenFull, WriteStrategy
from pulsecache_sidecar.core.http import codec, status_fields
from pulsecache_sidecar.core.http.effect import effect
from pulsecache_sidecar.core.http.framing import declared_length
from pulsecache_sidecar.core.http.message import ResponseHead, without
from pulsecache_sidecar.core.http.storable import NotStored, Times
from pulsecache_sidecar.core.http.written import in_request, in_response
from pulsecache_sidecar.core.retry import Effect
from pulsecache_sidecar.engine.bodies import OneBody, Prefixed, collect
from pulsecache_sidecar.engine.fetch import dated, lag
from pulsecache_sidecar.engine.handler import Reply, problem
from pulsecache_sidecar.engine.limits import Overloaded
from pulsecache_sidecar.engine.look_aside import LookAside
from pulsecache_sidecar.engine.memory import Entry
from pulsecache_sidecar.engine.passthrough import PATIENCE_S, inbound, origin_failed, outbound, passed_on
from pulsecache_sidecar.engine.produced import Produced, produce
from pulsecache_sidecar.engine.serving import Background, OpenWrite
from pulsecache_sidecar.engine.telling import overloaded
from pulsecache_sidecar.engine.upstream import Upstream
from pulsecache_sidecar.engine.write_request import Write, telling
from pulsecache_sidecar.errors import JournalError, OriginError
from pulsecache_sidecar.ports import Body, OriginResponse

log = logging.getLogger(__name__)

SMALL_BYTES = 64 * 1024
"""Up to this length a body that no rule covers is taken in whole; larger ones stream."""


class Writes:
    def __init__(self, upstream: Upstream, look_aside: LookAside) -> None:
        self._upstream = upstream
        self._clock = upstream.clock
        self._observer = upstream.observer
        self._look_aside = look_aside
        self._background = Background()

    async def aclose(self, within_s: float) -> None:
        await self._background.finish(within_s)

    # --- what a rule covers -----------------------------------------------------------------------------------------

    async def by_rule(self, write: Write, body: Body | None, *, serve: bool) -> Reply:
        """`serve` False: the policy is switched off. What changes is still announced, nothing more."""
        whole = b"" if body is None else await collect(body, declared_length(write.request.fields))
        if isinstance(whole, Prefixed):
            return await self._forward(write, whole, None, "write")
        assert write.match is not None
        strategy = write.match.rule.strategy if serve else WriteStrategy.INVALIDATE
        if strategy is WriteStrategy.WRITE_BEHIND:
            return await self._behind(write, whole, has_body=body is not None)
        return await self._through(write, whole, has_body=body is not None, serve=serve)

    async def _through(self, write: Write, body: bytes, *, has_body: bool, serve: bool = True) -> Reply:
        source = write.source if serve else None
        outcome = "write" if source is None else "write-through"
        if not await self._in_turn(write):
            return self._told(write, _too_early(write), "error")
        request_body = OneBody(body) if has_body else None
        work = self._forward(write, request_body, source, outcome, body)
        return await self._to_its_end(write, work)

    async def _to_its_end(self, write: Write, work: Coroutine[Any, Any, Reply]) -> Reply:
        """Goes on for the policy's time-out when the client leaves: then its outcome is most likely known."""
        task = self._background.start(work)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_nobody_waits)
            patience_s = write.serving.policy.policy.origin.timeout_s
            limit = asyncio.get_running_loop().call_later(patience_s, task.cancel)
            task.add_done_callback(lambda _: limit.cancel())
            raise

    async def _in_turn(self, write: Write) -> bool:
        """Waits until nothing acknowledged before is still to be sent to the same resource (W2: order per key)."""
        behind = write.serving.write_behind
        if behind is None or not behind.has_pending(write.order_key):
            return True
        try:
            async with asyncio.timeout(write.serving.policy.policy.origin.timeout_s):
                await behind.settled(write.order_key)
        except TimeoutError:
            return False
        return True

    async def _behind(self, write: Write, body: bytes, *, has_body: bool) -> Reply:
        behind, match = write.serving.write_behind, write.match
        assert match is not None
        rule, spec = match.rule, match.rule.write_behind
        assert spec is not None
        try:
            if behind is None:
                raise JournalError("this process keeps no journal")
            await behind.accept(
                outbound(write.request),
                body,
                policy=write.serving.policy.policy.key,
                rule=rule,
                order_key=write.order_key,
                tags=write.tags,
                shows=write.read.key if write.read is not None else None,
            )
        except JournalError as error:
            log.warning("rule %s of %s cannot write behind: %s", rule.name, write.serving.policy.policy.key, error)
            if spec.when_full is WhenFull.WRITE_THROUGH:
                return await self._through(write, body, has_body=has_body)
            detail = f"{error}: try again later, or see why pending writes do not reach the origin"
            retry = ((b"retry-after", b"1"),)
            return self._told(write, problem(503, "journal-full", "Not accepted", detail, retry), "error")
        reply = Reply(ResponseHead(spec.status, ((b"cache-control", b"no-store"),)))
        return self._told(write, reply, "write-behind", 0.0, status_fields.answered("write-behind"), pending=True)

    # --- what no rule covers -----------------------------------------------------------------------------------------

    async def unnamed(self, write: Write, body: Body | None) -> Reply:
        """Passes through, and invalidates its URL (RFC 9111 section 4.4). Neither the policy's time-out nor its limit
        of requests applies: without the sidecar there would be none. A small body is taken in before anything is sent:
        a client that breaks off its upload then leaves no open write behind."""
        declared = 0 if body is None else declared_length(write.request.fields)
        if declared is None or declared > SMALL_BYTES:
            return await self._unnamed(write, body)
        whole = None if body is None else await collect(body, declared)
        sent = OneBody(whole) if isinstance(whole, bytes) else whole
        return await self._to_its_end(write, self._unnamed(write, sent))

    async def _unnamed(self, write: Write, body: Body | None) -> Reply:
        if not await self._in_turn(write):
            return _too_early(write)
        opened = write.serving.coherence.open_write(write.tags, self._clock.now())
        sent = telling(body, opened, self._clock.now)
        policy_key = write.serving.policy.policy.key
        try:
            response = await self._upstream.origin.send(outbound(write.request), sent, timeout_s=PATIENCE_S)
        except OriginError as error:
            self._lost(opened, error.request_sent)
            self._observer.request(policy_key, "", "error", None)
            return origin_failed(error)
        except BaseException:
            self._lost(opened, True)
            raise
        await self._conclude(write, opened, response)
        self._observer.request(policy_key, "", "pass", None)
        return passed_on(response)

    # --- forwarding -------------------------------------------------------------------------------------------------

    async def _forward(
        self,
        write: Write,
        body: Body | None,
        source: RepresentationSource | None,
        outcome: str,
        sent_body: bytes = b"",
    ) -> Reply:
        try:
            turn = await self._upstream.turn(write.serving.policy.policy)
        except Overloaded as error:
            return self._told(write, overloaded(error), "error")
        now, sent_wall = self._clock.now(), self._clock.wall()
        opened = write.serving.coherence.open_write(write.tags, now)
        try:
            response = await turn.send(outbound(write.request), telling(body, opened, self._clock.now))
        except OriginError as error:
            self._lost(opened, error.request_sent)
            return self._told(write, origin_failed(error), "error")
        except BaseException:
            self._lost(opened, True)
            raise
        head = inbound(response.head)
        if source is None or effect(head.status) is not Effect.TOOK:
            await self._conclude(write, opened, response)
            return self._told(write, Reply(head, response.body), outcome, lag(head.fields))
        return await self._refreshing(write, opened, response, source, sent_body, now, sent_wall)

    async def _refreshing(
        self,
        write: Write,
        opened: OpenWrite,
        response: OriginResponse,
        source: RepresentationSource,
        sent_body: bytes,
        sent_at: float,
        sent_wall: float,
    ) -> Reply:
        """It took effect; the read entry gets its new representation, unless another write overlapped."""
        assert write.read is not None
        head = dated(inbound(response.head), self._clock.wall())
        times = Times(sent_wall, self._clock.wall(), self._clock.now() - sent_at)
        produced: Produced | NotStored = NotStored.BYPASS
        body: bytes | Body = response.body
        try:
            if source is RepresentationSource.RESPONSE_BODY:
                body = await collect(response.body, declared_length(head.fields))
                produced = produce(write.read, in_response(write.request, head), body, times)
            elif source is RepresentationSource.REQUEST_BODY:
                produced = produce(write.read, in_request(write.request, head), sent_body, times)
        except BaseException as error:
            # The head said that it took effect: that must be told, whatever became of the rest.
            self._background.start(opened.took_effect(write.also_changed(head)))
            if isinstance(error, OriginError):
                return self._told(write, origin_failed(error), "error")
            raise
        stored = await self._announce(write, opened, head, produced, sent_at)
        if source is RepresentationSource.REFETCH:
            await self._look_aside.refresh(write.read.anonymous())
        why = produced.value if isinstance(produced, NotStored) and produced is not NotStored.BYPASS else None
        told = status_fields.forwarded("method", stored=stored, detail=why)
        return self._told(write, Reply(inbound(response.head), body), "write-through", lag(head.fields), told)

    async def _announce(
        self, write: Write, opened: OpenWrite, head: ResponseHead, produced: Produced | NotStored, sent_at: float
    ) -> bool:
        assert write.read is not None
        extra = write.also_changed(head)
        if isinstance(produced, NotStored):
            await opened.took_effect(extra)
            return False
        read, packed = write.read, produced.packed
        ttl_s = max(1.0, produced.packed.freshness.lifetime_s)
        validity = await opened.took_effect(extra, (read.key, codec.encode(packed), read.tags, ttl_s))
        if validity is None or not read.coherence.usable(validity, read.tags):
            return False
        return read.serving.memory.put(Entry(read.key, packed, read.tags, validity, sent_at))

    async def _conclude(self, write: Write, opened: OpenWrite, response: OriginResponse) -> None:
        """Ends the write as its status says. Its announcement is waited for before anything of the answer is sent."""
        head = response.head
        try:
            match effect(head.status):
                case Effect.NONE:
                    opened.refused()
                case Effect.UNKNOWN:
                    opened.unknown(self._clock.now(), write.also_changed(head))
                case Effect.TOOK:
                    await opened.took_effect(write.also_changed(head))
        except BaseException:
            response.abort()
            raise

    def _lost(self, opened: OpenWrite, request_sent: bool) -> None:
        """No answer: whether it took effect is unknown, unless nothing was sent at all."""
        if request_sent:
            opened.unknown(self._clock.now())
        else:
            opened.refused()

    # --- answers ----------------------------------------------------------------------------------------------------

    def _told(
        self,
        write: Write,
        reply: Reply,
        outcome: str,
        bound_s: float = 0.0,
        cache_status: tuple[bytes, bytes] | None = None,
        *,
        pending: bool = False,
    ) -> Reply:
        """The reply of a rule, counted, with the two fields that all of them carry."""
        policy = write.serving.policy.policy
        failed = outcome == "error"
        bound_s = status_fields.UNKNOWN if failed else bound_s
        known = bound_s if bound_s < status_fields.UNKNOWN else None
        self._observer.request(policy.key, write.rule_name, outcome, known)
        state = write.serving.coherence.state(self._clock.now()).value
        told = (
            status_fields.pulse_staleness(bound_s, state, pending=pending),
            cache_status or status_fields.forwarded("method", detail="origin-failed" if failed else None),
        )
        reply.head = replace(reply.head, fields=(*without(reply.head.fields, b"pulse-staleness"), *told))
        return reply


def _nobody_waits(task: asyncio.Task[Reply]) -> None:
    """The client has left: what the origin still sends is given up, and its connection with it."""
    if task.cancelled():
        return
    if (error := task.exception()) is not None:
        log.error("a write broke after its client had left", exc_info=error)
    elif (abort := getattr(task.result().body, "abort", None)) is not None:
        abort()


def _too_early(write: Write) -> Reply:
    detail = (
        f"an earlier write to {write.request.path} was acknowledged and has not reached the origin yet: this one must "
        "not overtake it; see why pending writes do not get through (GET /-/journal)"
    )
    return problem(503, "pending-write", "An earlier write is still pending", detail, ((b"retry-after", b"1"),))
