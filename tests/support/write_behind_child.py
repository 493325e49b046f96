"""A process with real write-behind (SQLite, HTTP origin), made to be killed: for fault tests.

    python write_behind_child.py FOLDER PORT ROUND WRITES KEYS CALLERS [DIE]

Accepts WRITES writes over KEYS order keys by CALLERS callers (each key belongs to one caller), prints a line for each
acknowledgement as soon as it has it, then drains and prints how many are left. DIE kills it at a certain point:
before-commit:N, after-commit:N or before-done:N.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from pulsecache_sidecar.adapters.clock import SystemClock
from pulsecache_sidecar.adapters.http_origin import HttpOrigin
from pulsecache_sidecar.adapters.journal_file import JournalFile
from pulsecache_sidecar.adapters.sqlite_journal import SqliteJournal
from pulsecache_sidecar.core.backoff import Backoff
from pulsecache_sidecar.engine.delivery import Target
from pulsecache_sidecar.engine.flusher import FlushOptions
from pulsecache_sidecar.engine.upstream import Upstream
from pulsecache_sidecar.engine.write_behind import WriteBehind
from write_behind_world import RecordedCoherence, Unobserved, a_policy, put


def arm(point: str, number: int) -> None:
    """Kills this process, as an OOM killer would, when it passes the point for the numbered time."""
    left = number
    commit, remove = JournalFile.commit, JournalFile.remove

    def passing() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def committing(file: JournalFile) -> None:
        if point == "before-commit":
            passing()
        commit(file)
        if point == "after-commit":
            passing()

    def removing(file: JournalFile, ids: Sequence[int]) -> None:
        if point == "before-done":
            passing()
        remove(file, ids)

    setattr(JournalFile, "commit", committing)  # noqa: B010 - a failpoint, not an assignment that types should follow
    setattr(JournalFile, "remove", removing)  # noqa: B010 - as above


async def main(folder: Path, port: int, life: int, count: int, keys: int, callers: int) -> None:
    origin = HttpOrigin("127.0.0.1", port)
    upstream = Upstream(origin, SystemClock(), Unobserved())
    journal = await SqliteJournal.open(folder)
    quick = Backoff(base_s=0.005, cap_s=0.05)
    write_behind = WriteBehind(
        journal,
        lambda policy: Target.of(upstream, a_policy(), RecordedCoherence()),
        SystemClock(),
        options=FlushOptions(lane=quick, gate=quick),
    )
    await write_behind.start()

    async def caller(mine: Sequence[int]) -> None:
        for number in range(mine[0], count, callers):
            key = f"/{mine[number // callers % len(mine)]}"
            body = f"{life}.{number}"
            written = await put(write_behind, body.encode(), key=key)
            os.write(1, f"accepted {key} {body} {written.idempotency_key}\n".encode())

    await asyncio.gather(*(caller(range(first, keys, callers)) for first in range(callers)))
    left = await write_behind.drain(40.0)
    os.write(1, f"left {left}\n".encode())
    await write_behind.stop()
    await journal.aclose()
    await origin.aclose()


if __name__ == "__main__":
    if len(sys.argv) > 7:
        where, _, when = sys.argv[7].partition(":")
        arm(where, int(when))
    asyncio.run(main(Path(sys.argv[1]), *(int(argument) for argument in sys.argv[2:7])))
