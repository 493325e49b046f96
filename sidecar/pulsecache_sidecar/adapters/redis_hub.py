"""The hub of one dataset in Redis: each method is one Lua script of `pulsecache_policy.hub_scripts`."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from typing import Any

from pulsecache_policy.hub_scripts import hub_key, object_key, stream_key
from pulsecache_sidecar.adapters.redis_connections import RedisConnections
from pulsecache_sidecar.errors import HubError
from pulsecache_sidecar.ports import (
    Changed,
    Doubted,
    Entry,
    Flushed,
    Member,
    Membership,
    Snapshot,
    StoredObject,
    Watermark,
)

READ_COUNT = 500
"""Entries per read: bounds what one step holds in memory."""


class RedisHub:
    """`keep`: entries in the stream; with them live the stamps of changes. `failure_threshold`: heartbeats without a
    beat after which a publisher is called lost. The connections belong to whoever made them."""

    def __init__(
        self, connections: RedisConnections, dataset: str, *, failure_threshold: int = 3, keep: int = 16_384
    ) -> None:
        if any(character in dataset for character in "{}"):
            raise ValueError(f"dataset {dataset!r}: braces would change where Redis Cluster keeps it")
        self._connections = connections
        self._dataset = dataset
        self._keys = (hub_key(dataset), stream_key(dataset))
        self._threshold = failure_threshold
        self._keep = keep
        self._generation: int | None = None
        """Of the server that the latest subscription has compared notes with."""

    async def subscribe(self, last_acknowledged: str | None, ended: Sequence[str] = ()) -> Snapshot:
        epoch, _, entry = (last_acknowledged or "").partition(":")
        try:
            reply = await self._subscribe(epoch, entry, ended)
        except _AnotherServer:
            reply = await self._subscribe(epoch, entry, ended)  # that one has been recognised now
        with _understanding("subscribe"):
            epoch, position, flush, floor, sequence, last, doubts = reply
            return Snapshot(
                epoch=epoch.decode(),
                position=position,
                flush=flush,
                floor=floor,
                sequence=sequence,
                cursor=f"{epoch.decode()}:{last.decode()}",
                doubts={write: tuple(tags) for write, tags in json.loads(doubts).items()},
            )

    async def read(self, cursor: str, *, block_s: float) -> Sequence[Entry]:
        self._check_generation()
        _, _, after = cursor.partition(":")
        found = await self._connections.read(self._keys[1], after, block_s=block_s, count=READ_COUNT)
        with _understanding("xread"):
            return [_entry(entry_id.decode(), fields) for entry_id, fields in found]

    async def sample(self, epoch: str) -> int:
        return int(await self._run("sample", epoch, probe=True))

    async def join(self, publisher: str, epoch: str, coverage: int) -> int:
        return int(await self._run("join", epoch, publisher, coverage, probe=True))

    async def beat(self, publisher: str, epoch: str, coverage: int) -> int:
        return int(
            await self._run("beat", epoch, publisher, coverage, _nonce(), self._keep, self._threshold, probe=True)
        )

    async def leave(self, publisher: str, epoch: str) -> None:
        await self._run("leave", epoch, publisher, probe=True)

    async def publishers(self) -> Membership:
        reply = await self._run("publishers", probe=True)
        with _understanding("publishers"):
            if not reply:
                return Membership(epoch="", position=0)
            epoch, position, *rest = reply
            members = {
                name.decode(): Member(coverage, beats)
                for name, coverage, beats in zip(rest[::3], rest[1::3], rest[2::3], strict=True)
            }
            return Membership(epoch.decode(), position, members)

    async def change(
        self, publisher: str, epoch: str, tags: Sequence[str], *, resolves: str | None = None
    ) -> tuple[int, str]:
        stamp, entry = await self._run(
            "change", epoch, publisher, _json(tags), resolves or "", _nonce(), self._keep, probe=False
        )
        return stamp, f"{epoch}:{entry.decode()}"

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
        stamp, entry, done = await self._run(
            "change_and_store",
            epoch,
            publisher,
            _json(tags),
            resolves or "",
            _nonce(),
            self._keep,
            _json(stored.tags),
            sent,
            _milliseconds(ttl_s),
            stored.payload,
            key=key,
            probe=False,
        )
        return stamp, f"{epoch}:{entry.decode()}", bool(done)

    async def doubt(self, publisher: str, epoch: str, write: str, tags: Sequence[str]) -> tuple[int, str]:
        stamp, entry = await self._run("doubt", epoch, publisher, write, _json(tags), _nonce(), self._keep, probe=True)
        return stamp, f"{epoch}:{entry.decode()}"

    async def fence(self, publisher: str, epoch: str, *, beats: int | None, flush: bool) -> bool:
        seen = "" if beats is None else beats
        return bool(await self._run("fence", epoch, publisher, seen, int(flush), _nonce(), self._keep, probe=True))

    async def cover(self, epoch: str, *, covered: bool) -> bool:
        """The controller's part: whether every replica that serves the dataset has a sidecar."""
        return bool(await self._run("cover", epoch, int(covered), _nonce(), self._keep, probe=True))

    async def get(self, key: str, epoch: str) -> tuple[StoredObject | None, int]:
        reply = await self._run("get", epoch, key=key, probe=False)
        with _understanding("get"):
            if len(reply) == 1:
                return None, reply[0]
            position, payload, tags, valid = reply
            return StoredObject(payload, tuple(json.loads(tags)), valid=valid, includes=position), position

    async def put(self, key: str, epoch: str, stored: StoredObject, ttl_s: float) -> bool:
        return bool(
            await self._run(
                "put",
                epoch,
                _json(stored.tags),
                stored.valid,
                stored.includes,
                _milliseconds(ttl_s),
                stored.payload,
                key=key,
                probe=False,
            )
        )

    async def aclose(self) -> None:
        """Nothing of its own is open."""

    async def _run(self, name: str, *arguments: str | bytes | int, key: str | None = None, probe: bool) -> Any:
        self._check_generation()
        keys = self._keys if key is None else (*self._keys, object_key(self._dataset, key))
        return await self._connections.run(name, keys, *arguments, probe=probe)

    async def _subscribe(self, epoch: str, entry: str, ended: Sequence[str]) -> Any:
        server = await self._connections.server()
        before = self._connections.generation
        try:
            reply = await self._connections.run(
                "subscribe", self._keys, secrets.token_hex(8), epoch, entry, " ".join(ended), server, probe=True
            )
        except HubError as error:
            if self._connections.generation != before:
                raise _AnotherServer(str(error)) from error
            raise
        if self._connections.generation != before:
            raise _AnotherServer("another Redis began to answer while subscribing")
        self._generation = before
        return reply

    def _check_generation(self) -> None:
        if self._generation not in (None, self._connections.generation):
            raise HubError("another Redis answers than the one that was subscribed at: subscribe again")


class _AnotherServer(HubError):
    """Not the server that the subscription was meant for."""


class _understanding:  # noqa: N801 - reads as a statement
    """Maps a reply of an unexpected shape to HubError: whoever wrote it, nothing is known."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, (ValueError, TypeError, KeyError, AttributeError, UnicodeError)):
            raise HubError(f"Redis gave a reply to {self._what} that is not understood: {error}") from error


def _entry(entry_id: str, fields: dict[bytes, bytes]) -> Entry:
    epoch = fields[b"e"].decode()
    stamp = int(fields[b"s"])
    event: Changed | Doubted | Flushed | Watermark
    match fields[b"k"]:
        case b"c":
            resolves = fields[b"r"].decode()
            event = Changed(stamp, tuple(json.loads(fields[b"t"])), resolves or None)
        case b"d":
            event = Doubted(fields[b"r"].decode(), stamp, tuple(json.loads(fields[b"t"])))
        case b"f":
            event = Flushed(stamp, tuple(json.loads(fields[b"r"])))
        case b"w":
            event = Watermark(
                position=int(fields[b"w"]),
                lost=tuple(fields[b"x"].decode().split()),
                uncovered=fields[b"u"] == b"1",
                stamp=stamp,
                lead=fields[b"l"].decode(),
            )
        case _:
            # Of a later version. Whatever it says, nothing of before is used after it.
            event = Flushed(stamp)
    return Entry(
        cursor=f"{epoch}:{entry_id}",
        sequence=int(entry_id.partition("-")[0]),
        epoch=epoch,
        event=event,
        previous=f"{epoch}:{fields[b'p'].decode()}",
    )


def _json(tags: Sequence[str]) -> str:
    return json.dumps(list(tags))


def _nonce() -> int:
    return secrets.randbelow(2**53)


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))
