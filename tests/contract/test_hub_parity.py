"""The hub in memory and the hub in Redis give the same answers to the same calls, whatever the calls."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pulsecache_sidecar.adapters.clock import SystemClock
from pulsecache_sidecar.adapters.local_hub import LocalHub
from pulsecache_sidecar.adapters.redis_connections import RedisConnections
from pulsecache_sidecar.adapters.redis_hub import RedisHub
from pulsecache_sidecar.ports import Entry, ForeignEpoch, Membership, Snapshot, StoredObject, UnknownPublisher
from redis_server import RedisServer

PUBLISHERS = st.sampled_from(["p", "q", "r"])
TAGS = st.lists(st.sampled_from(["a", "b", "c", "*"]), max_size=3, unique=True).map(tuple)
KEYS = st.sampled_from(["k", "l"])
WRITES = st.sampled_from(["1", "2"])
BACK = st.integers(0, 6)
"""A position is chosen as the so-manieth last that was seen."""
MAYBE_WRITE = st.none() | WRITES

CALLS = st.one_of(
    st.tuples(st.just("subscribe"), st.none() | BACK),
    st.tuples(st.just("made-up cursor"), st.integers(1, 12)),
    st.tuples(st.just("read"), BACK),
    st.tuples(st.just("sample")),
    st.tuples(st.just("join"), PUBLISHERS, BACK),
    st.tuples(st.just("beat"), PUBLISHERS, BACK),
    st.tuples(st.just("beat"), PUBLISHERS, BACK),
    st.tuples(st.just("leave"), PUBLISHERS),
    st.tuples(st.just("change"), PUBLISHERS, TAGS, MAYBE_WRITE),
    st.tuples(st.just("store"), PUBLISHERS, TAGS, KEYS, TAGS, BACK, MAYBE_WRITE),
    st.tuples(st.just("doubt"), PUBLISHERS, WRITES, TAGS),
    st.tuples(st.just("fence"), PUBLISHERS | st.just("old-epoch"), st.none() | st.integers(0, 3), st.booleans()),
    st.tuples(st.just("cover"), st.booleans()),
    st.tuples(st.just("get"), KEYS),
    st.tuples(st.just("put"), KEYS, TAGS, BACK, BACK),
    st.tuples(st.just("publishers")),
    st.tuples(st.just("foreign")),
)


class Player:
    """Plays calls on a hub and notes the answers without what is random in them: ids of epochs and of entries."""

    def __init__(self, hub: Any) -> None:
        self._hub = hub
        self._epochs: list[str] = []
        self._cursors: list[str] = []
        self._positions = [0]
        self.answers: list[Any] = []

    async def play(self, call: tuple[Any, ...]) -> None:
        try:
            answer = await self._do(call)
        except (ForeignEpoch, UnknownPublisher) as error:
            answer = type(error).__name__
        self.answers.append((call, self._plain(answer)))

    async def _do(self, call: tuple[Any, ...]) -> Any:
        hub, epoch = self._hub, self._epochs[-1] if self._epochs else ""
        match call:
            case ("subscribe", back):
                return await hub.subscribe(None if back is None or not self._cursors else self._cursor(back))
            case ("made-up cursor", sequence):
                return await hub.subscribe(f"{epoch}:{sequence}-1")
            case ("read", back):
                # What a cursor of another epoch finds is chance; the entries' epoch tells the reader.
                own = [cursor for cursor in self._cursors if cursor.startswith(f"{epoch}:")]
                return await hub.read(own[-1 - min(back, len(own) - 1)], block_s=0.001) if own else None
            case ("sample",):
                return await hub.sample(epoch)
            case ("join", publisher, back):
                return await hub.join(publisher, epoch, self._position(back))
            case ("beat", publisher, back):
                return await hub.beat(publisher, epoch, self._position(back))
            case ("leave", publisher):
                return await hub.leave(publisher, epoch)
            case ("change", publisher, tags, write):
                return await hub.change(publisher, epoch, tags, resolves=write and f"{publisher}/{write}")
            case ("store", publisher, tags, key, own, back, write):
                sent = self._position(back)
                stored = StoredObject(b"stored", own, valid=sent, includes=sent)
                resolves = write and f"{publisher}/{write}"
                return await hub.change_and_store(publisher, epoch, tags, key, stored, 60, sent=sent, resolves=resolves)
            case ("doubt", publisher, write, tags):
                return await hub.doubt(publisher, epoch, f"{publisher}/{write}", tags)
            case ("fence", publisher, beats, flush):
                return await hub.fence(publisher, epoch, beats=beats, flush=flush)
            case ("cover", covered):
                return await hub.cover(epoch, covered=covered)
            case ("get", key):
                return await hub.get(key, epoch)
            case ("put", key, tags, one, other):
                valid, includes = sorted((self._position(one), self._position(other)))
                return await hub.put(key, epoch, StoredObject(b"put", tags, valid=valid, includes=includes), 60)
            case ("publishers",):
                return await hub.publishers()
            case ("foreign",):
                return await hub.sample("another")
        raise AssertionError(call)

    def _position(self, back: int) -> int:
        return self._positions[-1 - min(back, len(self._positions) - 1)]

    def _cursor(self, back: int) -> str:
        return self._cursors[-1 - min(back, len(self._cursors) - 1)]

    def _epoch(self, epoch: str) -> int:
        if epoch not in self._epochs:
            self._epochs.append(epoch)
        return self._epochs.index(epoch)

    def _place(self, cursor: str) -> tuple[int, str]:
        if cursor not in self._cursors:
            self._cursors.append(cursor)
        epoch, _, entry = cursor.partition(":")
        return self._epoch(epoch), entry.partition("-")[0]

    def _plain(self, answer: Any) -> Any:
        match answer:
            case Snapshot():
                self._positions.append(answer.position)
                plain = (answer.position, answer.flush, answer.floor, answer.sequence, dict(answer.doubts))
                return self._epoch(answer.epoch), self._place(answer.cursor), *plain
            case Membership():
                return self._epoch(answer.epoch) if answer.epoch else None, answer.position, dict(answer.publishers)
            case Entry():
                places = self._place(answer.cursor), self._place(answer.previous)
                return *places, answer.sequence, self._epoch(answer.epoch), answer.event
            case bool():
                return answer
            case int():
                self._positions.append(answer)
                return answer
            case (int() as stamp, str() as cursor, *rest):
                self._positions.append(stamp)
                return stamp, self._place(cursor), *rest
            case list() | tuple():
                return [self._plain(part) for part in answer]
        return answer


async def play_on_both(server: RedisServer, calls: list[tuple[Any, ...]], keep: int) -> None:
    connections = RedisConnections(server.url, SystemClock(), timeout_s=5.0)
    try:
        shared: dict[str, Any] = {"keep": keep, "failure_threshold": 2}
        makers: list[Callable[[], Any]] = [
            lambda: LocalHub(SystemClock(), covered=True, first=False, max_objects=100, **shared),
            lambda: RedisHub(connections, f"parity/{secrets.token_hex(8)}", **shared),
        ]
        players = [Player(make()) for make in makers]
        for call in [("subscribe", None), *calls, ("subscribe", None), ("publishers",)]:
            for player in players:
                await player.play(call)
            local, redis = (player.answers[-1] for player in players)
            assert local == redis
    finally:
        await connections.aclose()


@given(calls=st.lists(CALLS, max_size=40), keep=st.sampled_from([2, 4, 1000]))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_both_hubs_answer_alike(redis_server: RedisServer, calls: list[tuple[Any, ...]], keep: int) -> None:
    asyncio.run(play_on_both(redis_server, calls, keep))
