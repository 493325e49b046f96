"""The journal of write-behind in SQLite, written by a thread of its own with group commit.

Whatever is asked while a commit is being synced goes into the next one together, and everyone is answered only after
the commit that holds their write: the slower the disk, the larger the groups. The file itself, its schema and its
errors are `journal_file`'s.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from pulsecache_sidecar.adapters import journal_record
from pulsecache_sidecar.adapters.journal_file import JournalFile
from pulsecache_sidecar.errors import JournalError, JournalFull
from pulsecache_sidecar.ports import DeadLetter, PendingWrite

logger = logging.getLogger(__name__)

MAX_BATCH = 512
CHECKPOINT_BYTES = 4 * 1024 * 1024
_CALL_BYTES = 4096
"""What a call that brings no body adds to the log, roughly: a page."""
_COMMIT_BYTES = 3 * 4096
"""What each commit adds besides, roughly: the pages that lead to the changed ones."""
_IDS = 1 << 63

T = TypeVar("T")


class _Kind(Enum):
    APPEND = auto()
    REMOVE = auto()
    CHANGE = auto()
    READ = auto()


@dataclass(slots=True, eq=False)
class _Call:
    """One caller's wish. `argument`: the row of an APPEND, the id of a REMOVE, else a function of the file."""

    kind: _Kind
    argument: Any
    future: asyncio.Future[Any]
    size_bytes: int = _CALL_BYTES
    result: Any = None


class SqliteJournal:
    """Implements ports.Journal in `folder/journal`. At most `max_entries` writes, dead letters included, and about
    `max_bytes`; beyond that append raises JournalFull."""

    def __init__(self, file: JournalFile, loop: asyncio.AbstractEventLoop) -> None:
        self._file = file
        self._loop = loop
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._failure: str | None = None
        self._closed = False
        self._logged_bytes = 0
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    @classmethod
    async def open(
        cls, folder: Path, *, max_entries: int = 100_000, max_bytes: int = 256 * 1024 * 1024
    ) -> SqliteJournal:
        """Raises JournalError: the folder is in use, unusable, or holds the journal of a newer version."""
        file = await asyncio.to_thread(JournalFile, folder, max_entries=max_entries, max_bytes=max_bytes)
        return cls(file, asyncio.get_running_loop())

    @property
    def failure(self) -> str | None:
        return self._failure

    @property
    def set_aside(self) -> tuple[str, ...]:
        """Names of damaged journals kept in the folder: somebody has to look at them."""
        return self._file.set_aside

    async def append(self, write: PendingWrite) -> PendingWrite:
        record, checksum = journal_record.encode(write)
        size = len(record) + len(write.body) + 64
        write_id: int = await self._ask(_Kind.APPEND, (record, write.body, checksum), size)
        return replace(write, id=write_id)

    async def done(self, write_id: int) -> None:
        await self._ask(_Kind.REMOVE, write_id)

    async def attempted(self, write_id: int, attempts: int) -> None:
        await self._change(lambda file: file.attempted(write_id, attempts))

    async def bury(self, letter: DeadLetter) -> None:
        await self._change(lambda file: file.bury(letter))

    async def retry(self, write_id: int) -> bool:
        return 0 < write_id < _IDS and await self._change(lambda file: file.revive(write_id))

    async def drop(self, write_id: int) -> bool:
        return 0 < write_id < _IDS and await self._change(lambda file: file.drop(write_id))

    async def load(self, after: int = 0, limit: int | None = None) -> Sequence[PendingWrite]:
        found: list[PendingWrite] = await self._ask(_Kind.READ, lambda file: file.pending(_id(after), limit))
        return found

    async def dead_letters(self, after: int = 0, limit: int | None = None) -> Sequence[DeadLetter]:
        found: list[DeadLetter] = await self._ask(_Kind.READ, lambda file: file.dead(_id(after), limit))
        return found

    async def aclose(self) -> None:
        """Finishes what was asked before and gives the folder free."""
        if not self._closed:
            self._closed = True
            self._calls.put(None)
        await asyncio.to_thread(self._thread.join)

    async def _change(self, work: Callable[[JournalFile], T]) -> T:
        result: T = await self._ask(_Kind.CHANGE, work)
        return result

    async def _ask(self, kind: _Kind, argument: Any, size_bytes: int = _CALL_BYTES) -> Any:
        if self._closed:
            raise JournalError("the journal is closed")
        call = _Call(kind, argument, self._loop.create_future(), size_bytes)
        self._calls.put(call)
        return await call.future

    # --- in the journal's thread ---------------------------------------------------------------------------------

    def _run(self) -> None:
        going = True
        while going:
            batch, going = self._next_batch()
            results = self._work_off(batch)
            try:
                self._loop.call_soon_threadsafe(_answer, results)
            except RuntimeError:  # the loop is closed: nobody is left to be answered
                logger.debug("the event loop ended before the journal")
                going = False
            self._checkpoint()
        self._file.close()

    def _next_batch(self) -> tuple[list[_Call], bool]:
        """Waits for a call and takes all that have come meanwhile; False at the end."""
        batch: list[_Call] = []
        call = self._calls.get()
        while call is not None:
            batch.append(call)
            if len(batch) == MAX_BATCH:
                return batch, True
            try:
                call = self._calls.get_nowait()
            except Empty:
                return batch, True
        return batch, False

    def _work_off(self, batch: list[_Call]) -> list[tuple[_Call, JournalError | None]]:
        error = JournalError(self._failure) if self._failure else self._transaction(batch)
        if error is None:
            return [(call, call.result if isinstance(call.result, JournalError) else None) for call in batch]
        # Reading still works on a full or broken disk; and what is done must be able to leave a full journal, or it
        # would never become less full. So these have a second try on their own.
        again: list[_Call] = []
        lost: list[_Call] = []
        for call in batch:
            hopeful = call.kind is _Kind.READ or (call.kind is not _Kind.APPEND and self._failure is None)
            (again if hopeful else lost).append(call)
        answered: list[tuple[_Call, JournalError | None]] = [(call, error) for call in lost]
        if again:
            error = self._transaction(again)
            answered += [
                (call, error or (call.result if isinstance(call.result, JournalError) else None)) for call in again
            ]
        return answered

    def _transaction(self, batch: list[_Call]) -> JournalError | None:
        """All of the batch or nothing; the error is everybody's."""
        size = sum(call.size_bytes for call in batch)
        try:
            if all(call.kind is _Kind.READ for call in batch):
                self._apply(batch)
            else:
                self._file.begin()
                self._apply(batch)
                self._file.commit()
                self._logged_bytes += size + _COMMIT_BYTES
        except sqlite3.Error as cause:
            error, poisoned = self._file.explain(cause, size)
            try:
                self._file.rollback()
            except sqlite3.Error as second:
                error, poisoned = self._file.explain(second, size)
            self._failed(error, poisoned)
            return error
        except Exception as defect:
            # A defect of ours: the thread must live on to say so, or every caller would wait for ever.
            logger.exception("the journal's thread failed; nothing is acknowledged until a restart")
            self._failure = f"the journal's thread failed: {defect!r}"
            return JournalError(self._failure)
        return None

    def _failed(self, error: JournalError, poisoned: bool) -> None:
        if poisoned and self._failure is None:
            self._failure = str(error)
        logger.error("%s", error)

    def _apply(self, batch: list[_Call]) -> None:
        self._append([call for call in batch if call.kind is _Kind.APPEND])
        if removed := [call.argument for call in batch if call.kind is _Kind.REMOVE]:
            self._file.remove(removed)
        for call in batch:
            if call.kind in (_Kind.CHANGE, _Kind.READ):
                try:
                    call.result = call.argument(self._file)
                except JournalError as error:
                    call.result = error

    def _append(self, calls: list[_Call]) -> None:
        if not calls:
            return
        fitting: list[_Call] = []
        entries, size_bytes = self._file.room(sum(call.size_bytes for call in calls))
        for call in calls:
            if entries > 0 and call.size_bytes <= size_bytes:
                entries -= 1
                size_bytes -= call.size_bytes
                fitting.append(call)
            else:
                call.result = JournalFull(
                    "the journal is full: the origin takes writes more slowly than they come, or dead letters fill it"
                )
        for call, write_id in zip(fitting, self._file.append([call.argument for call in fitting]), strict=True):
            call.result = write_id

    def _checkpoint(self) -> None:
        if self._logged_bytes < CHECKPOINT_BYTES or self._failure is not None:
            return
        try:
            self._file.checkpoint()
            self._logged_bytes = 0
        except sqlite3.Error as cause:
            error, poisoned = self._file.explain(cause, self._logged_bytes)
            self._failed(error, poisoned)


def _id(number: int) -> int:
    """The nearest number that SQLite can take for an id: ids also come from people."""
    return min(max(number, 0), _IDS - 1)


def _answer(answered: list[tuple[_Call, JournalError | None]]) -> None:
    """In the event loop. A caller that went away (cancelled) is passed over: its write stays."""
    for call, error in answered:
        if call.future.done():
            continue
        if error is None:
            call.future.set_result(call.result)
        else:
            call.future.set_exception(type(error)(str(error)))  # one each: raising writes into an exception
