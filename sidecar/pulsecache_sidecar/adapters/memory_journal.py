"""A journal in memory: the same contract as the one on disk, and gone with the process. For tests and trials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pulsecache_sidecar.errors import JournalFull
from pulsecache_sidecar.ports import DeadLetter, PendingWrite

_PAGE_BODIES_BYTES = 4 * 1024 * 1024


class MemoryJournal:
    """Implements ports.Journal."""

    def __init__(self, *, max_entries: int = 100_000) -> None:
        self._max_entries = max_entries
        self._last_id = 0
        self._pending: dict[int, PendingWrite] = {}
        self._dead: dict[int, DeadLetter] = {}
        self.failure: str | None = None

    async def append(self, write: PendingWrite) -> PendingWrite:
        if len(self._pending) + len(self._dead) >= self._max_entries:
            raise JournalFull("the journal in memory is full")
        self._last_id += 1
        self._pending[self._last_id] = written = replace(write, id=self._last_id)
        return written

    async def load(self, after: int = 0, limit: int | None = None) -> Sequence[PendingWrite]:
        found: list[PendingWrite] = []
        size = 0
        for write_id in sorted(key for key in self._pending if key > after):
            found.append(self._pending[write_id])
            size += len(found[-1].body)
            if limit is not None and (len(found) >= limit or size >= _PAGE_BODIES_BYTES):
                break
        return found

    async def done(self, write_id: int) -> None:
        self._pending.pop(write_id, None)

    async def attempted(self, write_id: int, attempts: int) -> None:
        if write_id in self._pending:
            self._pending[write_id] = replace(self._pending[write_id], attempts=attempts)

    async def bury(self, letter: DeadLetter) -> None:
        if self._pending.pop(letter.write.id, None) is not None:
            self._dead[letter.write.id] = letter

    async def dead_letters(self, after: int = 0, limit: int | None = None) -> Sequence[DeadLetter]:
        return [self._dead[write_id] for write_id in sorted(key for key in self._dead if key > after)][:limit]

    async def retry(self, write_id: int) -> bool:
        letter = self._dead.pop(write_id, None)
        if letter is not None:
            self._pending[write_id] = letter.write
        return letter is not None

    async def drop(self, write_id: int) -> bool:
        return self._dead.pop(write_id, None) is not None

    async def aclose(self) -> None:
        return None
