"""W1 to W3 with real processes: killed at any moment, every acknowledged write reaches a real HTTP origin, in order."""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import write_behind_child
import writes
from tiny_origin import RESET, Received, TinyOrigin, tiny_origin


@dataclass
class History:
    """What processes acknowledged over all their lives, as they said it."""

    accepted: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Body -> (order key, Idempotency-Key)."""
    left: int | None = None

    def note(self, line: str) -> None:
        what, *rest = line.split()
        if what == "accepted":
            key, body, idempotency_key = rest
            self.accepted[body] = (key, idempotency_key)
        else:
            self.left = int(rest[0])


async def live(
    folder: Path,
    origin: TinyOrigin,
    history: History,
    life: int,
    count: int,
    *,
    keys: int = 8,
    callers: int = 8,
    die: str | None = None,
    kill_after: int | None = None,
) -> int:
    """One life of a process; killed by itself (`die`) or after so many acknowledgements. Returns its exit code."""
    numbers = (str(number) for number in (origin.port, life, count, keys, callers))
    command = [sys.executable, write_behind_child.__file__, str(folder), *numbers, *([die] if die else [])]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, env=writes.child_environment()
    )
    assert process.stdout is not None
    seen = 0
    try:
        async for raw in process.stdout:
            if raw.endswith(b"\n"):  # a line cut short by the kill was not said
                history.note(raw.decode())
                seen += 1
            if seen == kill_after:
                process.kill()
    except BaseException:
        process.kill()
        raise
    finally:
        code = await process.wait()
    return code


def check(history: History, received: Sequence[Received]) -> dict[str, int]:
    """Returns how often each write was received."""
    times: dict[str, int] = defaultdict(int)
    keys: dict[str, str] = {}
    last: dict[str, tuple[int, int]] = {}
    for request in received:
        body = request.body.decode()
        life, _, number = body.partition(".")
        place = (int(life), int(number))
        assert keys.setdefault(body, request.idempotency_key) == request.idempotency_key, (
            "another key for the same write"
        )
        assert last.get(request.target, (0, -1)) <= place, f"{body} came after {last[request.target]}"
        last[request.target] = place
        times[body] += 1
    assert len(set(keys.values())) == len(keys), "two writes with the same key"
    for body, (key, idempotency_key) in history.accepted.items():
        assert body in times, f"write {body} of {key} was acknowledged and lost"
        assert keys[body] == idempotency_key
    return times


@pytest.mark.timeout(180)
async def test_killed_at_any_moment_no_acknowledged_write_is_lost(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    history = History()
    async with tiny_origin() as origin:
        origin.answer = lambda received: chance.choices([200, 500, 503, 429, RESET], [12, 1, 1, 1, 1])[0]
        for life in range(25):
            await live(tmp_path, origin, history, life, 200, kill_after=chance.randrange(1, 201))
        origin.answer = lambda received: 200
        assert await live(tmp_path, origin, history, 25, 0) == 0
        assert history.left == 0
    times = check(history, origin.received)
    assert len(history.accepted) > 500
    assert max(times.values()) > 1, "nothing was ever repeated: the kills came at the wrong moments"


async def test_killed_before_the_commit_nothing_was_acknowledged(tmp_path: Path) -> None:
    history = History()
    async with tiny_origin() as origin:
        assert await live(tmp_path, origin, history, 0, 1, die="before-commit:1") == -9
        assert history.accepted == {}
        assert await live(tmp_path, origin, history, 1, 0) == 0
    assert origin.received == []


async def test_killed_after_the_commit_the_write_is_sent_though_nobody_was_told(tmp_path: Path) -> None:
    history = History()
    async with tiny_origin() as origin:
        assert await live(tmp_path, origin, history, 0, 1, die="after-commit:1") == -9
        assert history.accepted == {}
        assert await live(tmp_path, origin, history, 1, 0) == 0
    assert [request.body for request in origin.received] == [b"0.0"]


async def test_killed_before_the_answer_is_recorded_the_write_is_repeated_with_its_key(tmp_path: Path) -> None:
    history = History()
    async with tiny_origin() as origin:
        assert await live(tmp_path, origin, history, 0, 3, keys=1, callers=1, die="before-done:2") == -9
        assert await live(tmp_path, origin, history, 1, 0) == 0
    times = check(history, origin.received)
    assert times["0.1"] == 2
    assert times["0.0"] == 1


async def test_applied_and_then_reset_it_is_repeated_with_the_same_key(tmp_path: Path) -> None:
    history = History()
    resets = iter([RESET, RESET])
    async with tiny_origin() as origin:
        origin.answer = lambda received: next(resets, 201)
        assert await live(tmp_path, origin, history, 0, 2, keys=1, callers=1) == 0
    assert check(history, origin.received) == {"0.0": 3, "0.1": 1}


@pytest.mark.timeout(180)
async def test_ten_thousand_writes_with_three_kills_all_arrive_in_order(tmp_path: Path) -> None:
    history = History()
    async with tiny_origin() as origin:
        started = time.monotonic()
        for life, kill_after in enumerate((2000, 3000, 1500)):
            await live(tmp_path, origin, history, life, 5000, keys=500, callers=100, kill_after=kill_after)
        missing = 10_000 - len(history.accepted)
        assert await live(tmp_path, origin, history, 3, missing, keys=500, callers=100) == 0
        print(f"{len(history.accepted)} acknowledged in {time.monotonic() - started:.1f} s")
    assert history.left == 0
    assert len(history.accepted) >= 10_000
    check(history, origin.received)
