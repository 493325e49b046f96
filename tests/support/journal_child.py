"""A process that writes into a journal and says in a file of the same folder what it was told: for crash tests.

python journal_child.py FOLDER SEED WRITES
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from pathlib import Path

import writes
from pulsecache_sidecar.adapters import sqlite_journal
from pulsecache_sidecar.adapters.sqlite_journal import SqliteJournal
from pulsecache_sidecar.errors import JournalError
from pulsecache_sidecar.ports import DeadLetter


async def main(folder: Path, seed: int, count: int) -> None:
    chance = random.Random(seed)
    sqlite_journal.CHECKPOINT_BYTES = 32 * 1024
    said = os.open(folder / "said", os.O_CREAT | os.O_WRONLY)
    journal = await SqliteJournal.open(folder)

    def say(text: str) -> None:
        os.write(said, text.encode() + b"\n")

    async def one(number: int) -> None:
        body = b"%d:" % number + chance.randbytes(chance.choice([0, 100, 3000, 9000])).hex().encode()
        say(f"append {number} {body.decode()}")
        try:
            written = await journal.append(writes.pending(body))
            say(f"appended {number} {written.id}")
            choice = chance.random()
            if choice < 0.5:
                say(f"done {written.id}")
                await journal.done(written.id)
                say(f"gone {written.id}")
            elif choice < 0.7:
                await journal.attempted(written.id, 3)
            elif choice < 0.8:
                say(f"bury {written.id}")
                await journal.bury(DeadLetter(written, 422, "no", time.time()))
                say(f"buried {written.id}")
        except JournalError as error:
            say(f"refused {number} {error}")

    numbers = iter(range(count))
    while batch := [number for number, _ in zip(numbers, range(chance.choice([1, 1, 2, 5])), strict=False)]:
        await asyncio.gather(*(one(number) for number in batch))
    say(f"failure {journal.failure}")
    await journal.aclose()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
