"""The journal's SQLite file: opening it safely, its schema, and the steps of a transaction. Synchronous, one thread.

One process owns the folder (a lock file), so SQLite keeps its lock and its index of the log for itself
(`locking_mode=EXCLUSIVE`: no shared memory, which would die of SIGBUS on a full disk). Every commit is synced
(`synchronous=FULL`). Callers, batches and threads are left to `sqlite_journal`.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from pulsecache_sidecar.adapters import journal_record, sqlite_wal
from pulsecache_sidecar.errors import JournalError, JournalFull
from pulsecache_sidecar.ports import DeadLetter, PendingWrite

logger = logging.getLogger(__name__)

SCHEMA_VERSION = 1
PAGE_BODIES_BYTES = 4 * 1024 * 1024
"""A page of writes ends early when its bodies are together this large."""

_SCHEMA = f"""
CREATE TABLE writes (
    id INTEGER PRIMARY KEY AUTOINCREMENT,  -- never reused: a dead letter keeps its id
    record TEXT NOT NULL,
    body BLOB NOT NULL,
    checksum INTEGER NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    status INTEGER,                        -- of the refusal; NULL while the write is pending
    detail TEXT,
    died REAL
);
CREATE INDEX dead_letters ON writes (id) WHERE status IS NOT NULL;
PRAGMA user_version = {SCHEMA_VERSION};
"""
_PENDING = "SELECT id, record, body, checksum, attempts FROM writes WHERE status IS NULL AND id > ? ORDER BY id"
_DEAD = (
    "SELECT id, record, body, checksum, attempts, status, detail, died FROM writes "
    "WHERE status IS NOT NULL AND id > ? ORDER BY id"
)
_DELETE = "DELETE FROM writes WHERE id IN (SELECT value FROM json_each(?))"
_INSERT_ROWS = 64
"""Rows of one INSERT. Each statement gives up the interpreter's lock and has to win it back from a busy event loop."""
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Damaged(Exception):
    """The file is not what was written; it has to be set aside."""


class JournalFile:
    """An open journal. Raises JournalFull where there is no room (it may come back) and JournalError otherwise."""

    def __init__(self, folder: Path, *, max_entries: int, max_bytes: int) -> None:
        self._folder = folder
        self._home = folder / "journal"  # a folder of its own, so that a damaged journal is set aside in one step
        self._path = self._home / "journal.db"
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._spare_bytes = 0
        """Room for bytes that is certainly there; below 0 it is to be measured."""
        self.set_aside: tuple[str, ...] = ()
        try:
            self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = _lock(folder / "journal.lock")
        except OSError as error:
            raise JournalError(f"the journal folder {folder} cannot be used: {error}") from error
        try:
            self._connection = self._open()
            self._entries = self._count()
            self._next_id = self._last_id() + 1
            _sync_names(self._home, folder)
        except (OSError, sqlite3.Error) as error:
            os.close(self._lock)
            raise JournalError(f"the journal {self._path} cannot be opened: {error}") from error
        except JournalError:
            os.close(self._lock)
            raise

    # --- opening -------------------------------------------------------------------------------------------------

    def _open(self) -> sqlite3.Connection:
        try:
            connection = self._open_checked()
        except Damaged as damage:
            name = self._set_aside()
            logger.error(
                "the journal %s is damaged (%s). It is kept as %s, with acknowledged writes that may not have reached "
                "the origin; a new journal was begun. See what is in it: sqlite3 %s/journal.db .recover",
                self._path,
                damage,
                self._folder / name,
                self._folder / name,
            )
            self._home.mkdir(mode=0o700)
            connection = self._open_checked()
        self.set_aside = tuple(sorted(path.name for path in self._folder.glob("journal.corrupt-*")))
        return connection

    def _open_checked(self) -> sqlite3.Connection:
        """Raises Damaged, sqlite3.Error, OSError, and JournalError where the file is of a newer version."""
        if damage := sqlite_wal.damage(Path(f"{self._path}-wal")):
            raise Damaged(damage)
        if not self._path.exists():
            self._path.touch(mode=0o600)  # requests carry credentials
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        try:
            connection.text_factory = _text
            for pragma in ("locking_mode=EXCLUSIVE", "journal_mode=WAL", "synchronous=FULL", "temp_store=MEMORY"):
                connection.execute(f"PRAGMA {pragma}")
            # Checkpoints are made after the callers were answered, and their errors are seen (an automatic one's not).
            connection.execute("PRAGMA wal_autocheckpoint=0")
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version > SCHEMA_VERSION:
                raise JournalError(
                    f"the journal {self._path} has schema {version}, written by a newer version; this one knows "
                    f"{SCHEMA_VERSION}. Run the newer version until it is drained, or move the file away"
                )
            if version == 0:
                if connection.execute("SELECT count(*) FROM sqlite_schema").fetchone() != (0,):
                    raise Damaged("it is a database, but not a journal")
                connection.executescript(f"BEGIN IMMEDIATE;{_SCHEMA}COMMIT;")
            else:
                _verify(connection)
        except sqlite3.DatabaseError as error:
            connection.close()
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                raise Damaged(str(error)) from error
            raise
        except BaseException:
            connection.close()
            raise
        return connection

    def _set_aside(self) -> str:
        number = 1
        while (self._folder / f"journal.corrupt-{number}").exists():
            number += 1
        name = f"journal.corrupt-{number}"
        self._home.rename(self._folder / name)
        _sync_names(self._folder)
        return name

    def _count(self) -> int:
        count: int = self._connection.execute("SELECT count(*) FROM writes").fetchone()[0]
        return count

    def _last_id(self) -> int:
        row = self._connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'writes'").fetchone()
        return row[0] if row else 0

    def close(self) -> None:
        try:
            self._connection.close()
        except sqlite3.Error as error:
            logger.warning("closing the journal %s failed: %s; the next start reads its log", self._path, error)
        os.close(self._lock)

    # --- a transaction -------------------------------------------------------------------------------------------

    def begin(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        self._connection.execute("COMMIT")

    def rollback(self) -> None:
        """Back to the last commit, also where SQLite has already gone back by itself."""
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
        self._entries = self._count()

    def room(self, size_bytes: int) -> tuple[int, int]:
        """How many more writes fit, and how many more bytes, of `size_bytes` wanted.

        SQLite is asked only where it may matter: each question gives up the interpreter's lock.
        """
        self._spare_bytes -= 2 * size_bytes + 4096  # at most what these take, with half-filled pages
        if self._spare_bytes >= 0:
            return self._max_entries - self._entries, size_bytes
        pages, free, page_bytes = (
            self._connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
        spare = self._max_bytes - (pages - free) * page_bytes
        self._spare_bytes = spare - 2 * size_bytes - 4096
        return self._max_entries - self._entries, spare

    def append(self, rows: Sequence[tuple[str, bytes, int]]) -> list[int]:
        """Inserts (record, body, checksum); returns the ids."""
        first = self._next_id
        for start in range(0, len(rows), _INSERT_ROWS):
            chunk = rows[start : start + _INSERT_ROWS]
            values = ",".join(["(?,?,?,?)"] * len(chunk))
            parameters = [
                value
                for offset, (record, body, checksum) in enumerate(chunk, first + start)
                for value in (offset, record, body, checksum)
            ]
            statement = f"INSERT INTO writes (id, record, body, checksum) VALUES {values}"  # noqa: S608 - question marks
            self._connection.execute(statement, parameters)
        # Not lowered again by a rollback: an id that was once given out is never given out again.
        self._next_id += len(rows)
        self._entries += len(rows)
        return list(range(first, self._next_id))

    def remove(self, ids: Sequence[int]) -> None:
        self._entries -= self._connection.execute(_DELETE, (json.dumps(ids),)).rowcount

    def attempted(self, write_id: int, attempts: int) -> None:
        self._connection.execute("UPDATE writes SET attempts = ? WHERE id = ?", (attempts, write_id))

    def bury(self, letter: DeadLetter) -> None:
        detail = letter.detail.encode("ascii", "backslashreplace").decode("ascii")
        self._connection.execute(
            "UPDATE writes SET status = ?, detail = ?, died = ?, attempts = ? WHERE id = ?",
            (letter.status, detail, letter.died_wall, letter.write.attempts, letter.write.id),
        )

    def revive(self, write_id: int) -> bool:
        return (
            self._connection.execute(
                "UPDATE writes SET status = NULL, detail = NULL, died = NULL WHERE id = ? AND status IS NOT NULL",
                (write_id,),
            ).rowcount
            == 1
        )

    def drop(self, write_id: int) -> bool:
        count = self._connection.execute("DELETE FROM writes WHERE id = ? AND status IS NOT NULL", (write_id,)).rowcount
        self._entries -= count
        return count == 1

    # --- reading -------------------------------------------------------------------------------------------------

    def pending(self, after: int, limit: int | None) -> list[PendingWrite]:
        found, size = [], 0
        for row in self._connection.execute(_PENDING, (after,)):
            found.append(self._decode(*row))
            size += len(row[2])
            if limit is not None and (len(found) >= limit or size >= PAGE_BODIES_BYTES):
                break
        return found

    def dead(self, after: int, limit: int | None) -> list[DeadLetter]:
        found, size = [], 0
        for *row, status, detail, died in self._connection.execute(_DEAD, (after,)):
            found.append(DeadLetter(self._decode(*row), status, detail, died))
            size += len(row[2])
            if limit is not None and (len(found) >= limit or size >= PAGE_BODIES_BYTES):
                break
        return found

    def _decode(self, write_id: int, record: str, body: bytes, checksum: int, attempts: int) -> PendingWrite:
        try:
            return journal_record.decode(write_id, record, body, checksum, attempts)
        except journal_record.DamagedRecord as error:
            raise JournalError(f"the journal {self._path} is damaged: {error}") from error

    # --- trouble -------------------------------------------------------------------------------------------------

    def checkpoint(self) -> None:
        """Moves the log into the database and lets the log be written over from its start."""
        self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def explain(self, error: sqlite3.Error, size_bytes: int) -> tuple[JournalError, bool]:
        """What went wrong while `size_bytes` were written, and whether nothing may be promised any more.

        A write for which there was no room leaves what is committed as it was. After any other error of the disk
        nobody knows what is on it: a sync that failed once may "succeed" when repeated, the data being lost.
        """
        code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
        if code & 0xFF == sqlite3.SQLITE_FULL or (
            code in (sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_TRUNCATE) and not self._has_room(size_bytes)
        ):
            return JournalFull(f"there is no room for the journal in {self._folder}: free some, it then goes on"), False
        if code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return JournalError(f"the journal {self._path} is locked by another program: {error}"), False
        name = getattr(error, "sqlite_errorname", type(error).__name__)
        return JournalError(
            f"the journal {self._path} failed ({name}: {error}); nothing is acknowledged until a "
            "restart, see to the disk first"
        ), True

    def _has_room(self, size_bytes: int) -> bool:
        """Tries what failed, in a file of its own: SQLite tells ENOSPC from other errors, but not EDQUOT and EFBIG."""
        probe = self._home / "probe"
        wal = Path(f"{self._path}-wal")
        try:
            file = os.open(probe, os.O_CREAT | os.O_WRONLY, 0o600)
            try:
                offset = wal.stat().st_size if wal.exists() else 0
                wanted = max(size_bytes, 4096)
                return os.pwrite(file, b"\0" * wanted, offset) == wanted
            finally:
                os.close(file)
                probe.unlink()
        except OSError as error:
            return error.errno not in _NO_ROOM


def _verify(connection: sqlite3.Connection) -> None:
    """Reads everything once: the structure by SQLite, the contents by their checksums. Raises Damaged."""
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise Damaged(verdict)
    for write_id, record, body, checksum in connection.execute("SELECT id, record, body, checksum FROM writes"):
        try:
            if journal_record.checksum(record, body) != checksum:
                raise Damaged(f"checksum of write {write_id}")
        except (UnicodeEncodeError, TypeError, AttributeError) as error:
            raise Damaged(f"write {write_id}: {error}") from error


def _text(raw: bytes) -> str:
    return raw.decode("latin-1")  # everything here is ASCII; what is not shows as a wrong checksum, not as an exception


def _lock(path: Path) -> int:
    """Held until the process ends, however it ends. Raises JournalError where another process holds it."""
    file = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.read(file, 32).decode("ascii", "replace").strip() or "unknown"
        os.close(file)
        raise JournalError(
            f"the journal folder {path.parent} is in use by process {owner}: two sidecars must not share a folder, "
            "give each its own --data"
        ) from None
    os.ftruncate(file, 0)
    os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
    return file


def _sync_names(*folders: Path) -> None:
    """Makes new names durable: syncing a file does not promise that its name survives."""
    for folder in folders:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
