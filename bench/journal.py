"""How many writes a second the journal makes durable, with and without group commit.

    python bench/journal.py [--folder DIR] [--writes N] [--json FILE]

Every append is answered after its commit was synced. `naive` is the same file with a commit for each append. The folder
must be on the disk that is to be measured; a tmpfs syncs nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

from pulsecache_policy.model import Match, WriteRule, WriteStrategy
from pulsecache_sidecar.adapters import journal_record
from pulsecache_sidecar.adapters.clock import SystemClock
from pulsecache_sidecar.adapters.journal_file import JournalFile
from pulsecache_sidecar.adapters.sqlite_journal import SqliteJournal
from pulsecache_sidecar.core.http.message import RequestHead, ResponseHead
from pulsecache_sidecar.engine.delivery import Target
from pulsecache_sidecar.engine.upstream import Upstream
from pulsecache_sidecar.engine.write_behind import WriteBehind
from pulsecache_sidecar.ports import Body, OriginResponse, PendingWrite


def a_write(number: int, body_bytes: int) -> PendingWrite:
    fields = (
        (b"host", b"products.shop.svc"),
        (b"content-type", b"application/json"),
        (b"authorization", b"Bearer " + b"t" * 200),
        (b"user-agent", b"bench/1.0"),
        (b"idempotency-key", b'"0e2f6a52-5a2f-4d2c-9d42-6f1f2a1b7c3d"'),
    )
    return PendingWrite(
        id=0,
        policy="shop/products",
        rule="view-count",
        order_key=f"/products/{number % 1000}/views",
        idempotency_key="0e2f6a52-5a2f-4d2c-9d42-6f1f2a1b7c3d",
        request=RequestHead("POST", b"/products/%d/views" % (number % 1000), fields),
        body=b"x" * body_bytes,
        tags=("products",),
        accepted_wall=time.time(),
    )


def sync_cost_s(folder: Path, rounds: int = 300) -> float:
    """The mean of write and fdatasync of 500 bytes: what no journal can go below for a single caller."""
    file = os.open(folder / "sync", os.O_CREAT | os.O_WRONLY)
    started = time.perf_counter()
    for _ in range(rounds):
        os.write(file, b"x" * 500)
        os.fdatasync(file)
    os.close(file)
    return (time.perf_counter() - started) / rounds


def naive(folder: Path, writes: int, body_bytes: int) -> float:
    file = JournalFile(folder, max_entries=1_000_000, max_bytes=1 << 40)
    started = time.perf_counter()
    for number in range(writes):
        write = a_write(number, body_bytes)
        record, checksum = journal_record.encode(write)
        file.begin()
        file.append([(record, write.body, checksum)])
        file.commit()
    seconds = time.perf_counter() - started
    file.close()
    return writes / seconds


async def grouped(folder: Path, writes: int, callers: int, body_bytes: int, *, settle: bool) -> dict[str, float]:
    journal = await SqliteJournal.open(folder, max_entries=1_000_000, max_bytes=1 << 40)
    numbers = iter(range(writes))
    waits: list[float] = []

    async def caller() -> None:
        for number in numbers:
            write = a_write(number, body_bytes)
            asked = time.perf_counter()
            written = await journal.append(write)
            waits.append(time.perf_counter() - asked)
            if settle:
                await journal.done(written.id)

    cpu, started = time.process_time(), time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    await journal.aclose()
    waits.sort()
    return {
        "per_s": round(writes / seconds),
        "p50_ms": round(waits[len(waits) // 2] * 1e3, 2),
        "p99_ms": round(waits[len(waits) * 99 // 100] * 1e3, 2),
        "cpu_us": round(cpu / writes * 1e6),
    }


class InstantOrigin:
    """Answers 204 at once."""

    head = ResponseHead(204, ())

    async def send(self, request: RequestHead, body: Body | None, *, timeout_s: float) -> OriginResponse:
        return self

    @property
    def body(self) -> Body:
        return self._nothing()

    async def _nothing(self) -> AsyncIterator[bytes]:
        yield b""

    def abort(self) -> None:
        return None

    async def aclose(self) -> None:
        return None


async def whole(folder: Path, writes: int, callers: int, body_bytes: int) -> dict[str, float]:
    """Accepted and at the origin: everything but HTTP."""
    journal = await SqliteJournal.open(folder)
    upstream = Upstream(InstantOrigin(), SystemClock(), Unobserved())
    write_behind = WriteBehind(journal, lambda policy: Target.of(upstream, None, None), SystemClock())
    await write_behind.start()
    rule = WriteRule(name="view-count", match=Match(methods=("POST",), path="/"), strategy=WriteStrategy.WRITE_BEHIND)
    numbers = iter(range(writes))

    async def caller() -> None:
        for number in numbers:
            write = a_write(number, body_bytes)
            await write_behind.accept(
                write.request,
                write.body,
                policy=write.policy,
                rule=rule,
                order_key=write.order_key,
                tags=write.tags,
                shows=None,
            )

    cpu, started = time.process_time(), time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    accepted = time.perf_counter() - started
    assert await write_behind.drain(600.0) == 0
    flushed, cpu = time.perf_counter() - started, time.process_time() - cpu
    await write_behind.stop()
    await journal.aclose()
    return {
        "accepted_per_s": round(writes / accepted),
        "flushed_per_s": round(writes / flushed),
        "cpu_us": round(cpu / writes * 1e6),
    }


class Unobserved:
    def request(self, policy: str, rule: str, outcome: str, bound_s: float | None) -> None:
        return None

    def origin(self, policy: str, duration_s: float) -> None:
        return None

    def hub_call(self, result: str) -> None:
        return None


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--folder", type=Path, help="where to measure (default: the folder of temporary files)")
    arguments.add_argument("--writes", type=int, default=10_000)
    arguments.add_argument("--body", type=int, default=200, help="bytes of each body (%(default)s)")
    arguments.add_argument("--json", type=Path, help="write the figures there, too")
    given = arguments.parse_args()
    figures: dict[str, object] = {}
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder = Path(name)
        figures["sync_ms"] = round(sync_cost_s(folder) * 1e3, 3)
        print(f"write + fdatasync of 500 bytes: {figures['sync_ms']} ms")
        few = min(given.writes, 2000)
        figures["naive"] = round(naive(folder / "naive", few, given.body))
        print(f"naive, a commit each:       {figures['naive']:>7} /s")
        for callers in (1, 10, 100):
            for settle in (False, True):
                label = f"{callers} callers{', append and done' if settle else ''}"
                where = folder / label.replace(" ", "-")
                writes = given.writes if callers > 1 else few
                found = asyncio.run(grouped(where, writes, callers, given.body, settle=settle))
                figures[label] = found
                print(
                    f"{label + ':':<28}{found['per_s']:>7.0f} /s  append p50 {found['p50_ms']} ms, "
                    f"p99 {found['p99_ms']} ms, {found['cpu_us']:.0f} us of CPU a write"
                )
        figures["whole"] = ends = asyncio.run(whole(folder / "whole", given.writes, 100, given.body))
        print(
            f"write-behind, 100 callers:   {ends['accepted_per_s']:>6.0f} /s accepted, {ends['flushed_per_s']:.0f} /s "
            f"accepted and sent to an origin that answers at once, {ends['cpu_us']:.0f} us of CPU a write"
        )
    if given.json:
        given.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
