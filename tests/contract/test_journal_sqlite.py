"""What the journal on disk promises besides: group commit, one owner, damage, full disks, restarts."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import resource
import shutil
import sqlite3
import sys
import threading
from pathlib import Path

import pytest

import writes
from pulsecache_sidecar.adapters import sqlite_journal, sqlite_wal
from pulsecache_sidecar.adapters.journal_file import SCHEMA_VERSION, JournalFile
from pulsecache_sidecar.adapters.sqlite_journal import SqliteJournal
from pulsecache_sidecar.errors import JournalError, JournalFull
from pulsecache_sidecar.ports import DeadLetter, PendingWrite


async def fill(folder: Path, count: int, body: bytes = b"x" * 500) -> list[int]:
    """One commit each, and no orderly end: the log stays as a crash would leave it."""
    journal = await SqliteJournal.open(folder)
    ids = [(await journal.append(writes.pending(body))).id for _ in range(count)]
    copy = folder.with_name("crashed")
    shutil.copytree(folder / "journal", copy)
    await journal.aclose()
    shutil.rmtree(folder / "journal")
    copy.rename(folder / "journal")
    return ids


async def pending_ids(folder: Path) -> list[int]:
    journal = await SqliteJournal.open(folder)
    found = [write.id for write in await journal.load()]
    await journal.aclose()
    return found


# --- group commit -----------------------------------------------------------------------------------------------


class HeldCommits:
    """Holds every commit at its door, and counts."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.arrived, self.go = threading.Semaphore(0), threading.Semaphore(0)
        self.count = 0
        commit = JournalFile.commit

        def held(file: JournalFile) -> None:
            self.count += 1
            self.arrived.release()
            self.go.acquire()
            commit(file)

        monkeypatch.setattr(JournalFile, "commit", held)


async def test_nobody_is_answered_before_the_commit_that_holds_their_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = await SqliteJournal.open(tmp_path)
    commits = HeldCommits(monkeypatch)
    first = asyncio.create_task(journal.append(writes.pending()))
    await asyncio.to_thread(commits.arrived.acquire)
    others = [asyncio.create_task(journal.append(writes.pending())) for _ in range(50)]
    assert await asyncio.wait([first, *others], timeout=0.05) == (set(), {first, *others})
    commits.go.release()
    await first
    await asyncio.to_thread(commits.arrived.acquire)
    assert await asyncio.wait(others, timeout=0.05) == (set(), set(others))
    commits.go.release()
    await asyncio.gather(*others)
    assert commits.count == 2, "those who came during a commit share the next one"
    await journal.aclose()


async def test_a_caller_that_went_away_during_the_commit_does_not_disturb_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = await SqliteJournal.open(tmp_path)
    commits = HeldCommits(monkeypatch)
    gone, stays = (asyncio.create_task(journal.append(writes.pending(body))) for body in (b"gone", b"stays"))
    await asyncio.to_thread(commits.arrived.acquire)
    gone.cancel()
    commits.go.release(10)
    await stays
    assert b"stays" in [write.body for write in await journal.load()]
    await journal.aclose()


async def test_every_commit_is_synced(tmp_path: Path) -> None:
    file = JournalFile(tmp_path, max_entries=10, max_bytes=1 << 30)
    settings = {
        name: file._connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("journal_mode", "synchronous", "locking_mode")
    }
    assert settings == {"journal_mode": "wal", "synchronous": 2, "locking_mode": "exclusive"}
    file.close()


async def test_the_log_is_folded_into_the_database_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_journal, "CHECKPOINT_BYTES", 100_000)
    journal = await SqliteJournal.open(tmp_path)
    for _ in range(20):
        written = await asyncio.gather(*(journal.append(writes.pending(b"x" * 5000)) for _ in range(10)))
        await asyncio.gather(*(journal.done(write.id) for write in written))
    assert (tmp_path / "journal" / "journal.db-wal").stat().st_size < 1_000_000
    assert (tmp_path / "journal" / "journal.db").stat().st_size < 1_000_000
    await journal.aclose()


# --- restarts ---------------------------------------------------------------------------------------------------


async def test_all_is_there_after_a_restart_and_ids_go_on(tmp_path: Path) -> None:
    journal = await SqliteJournal.open(tmp_path)
    first, second, third = [await journal.append(writes.pending(b"%d" % n)) for n in range(3)]
    await journal.attempted(second.id, 4)
    await journal.bury(DeadLetter(first, 400, "HTTP 400", 5.0))
    await journal.done(third.id)
    await journal.aclose()

    again = await SqliteJournal.open(tmp_path, max_entries=3)
    assert [(write.id, write.attempts) for write in await again.load()] == [(second.id, 4)]
    assert [letter.write.id for letter in await again.dead_letters()] == [first.id]
    assert (await again.append(writes.pending())).id == third.id + 1
    with pytest.raises(JournalFull):
        await again.append(writes.pending())
    await again.aclose()


async def test_after_an_orderly_end_nothing_more_is_taken(tmp_path: Path) -> None:
    journal = await SqliteJournal.open(tmp_path)
    ending = asyncio.gather(*(journal.append(writes.pending()) for _ in range(20)))
    await asyncio.sleep(0)
    await journal.aclose()
    await journal.aclose()
    assert len(await ending) == 20
    with pytest.raises(JournalError, match="closed"):
        await journal.append(writes.pending())
    assert len(await pending_ids(tmp_path)) == 20


async def test_only_its_owner_can_read_what_requests_carry(tmp_path: Path) -> None:
    journal = await SqliteJournal.open(tmp_path)
    await journal.append(writes.pending())
    for path in (tmp_path / "journal").iterdir():
        assert path.stat().st_mode & 0o077 == 0
    assert (tmp_path / "journal").stat().st_mode & 0o077 == 0
    await journal.aclose()


# --- one owner --------------------------------------------------------------------------------------------------


async def test_a_folder_has_one_owner_and_the_second_is_told_who(tmp_path: Path) -> None:
    journal = await SqliteJournal.open(tmp_path)
    with pytest.raises(JournalError, match=f"in use by process {os.getpid()}"):
        await SqliteJournal.open(tmp_path)
    program = (
        "import asyncio, sys; from pathlib import Path\n"
        "from pulsecache_sidecar.adapters.sqlite_journal import SqliteJournal\n"
        "asyncio.run(SqliteJournal.open(Path(sys.argv[1])))"
    )
    other = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, str(tmp_path), stderr=asyncio.subprocess.PIPE
    )
    _, said = await other.communicate()
    assert other.returncode != 0
    assert f"in use by process {os.getpid()}" in said.decode()
    await journal.append(writes.pending())
    await journal.aclose()
    assert len(await pending_ids(tmp_path)) == 1


async def test_a_folder_that_cannot_be_used_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match="cannot be used"):
        await SqliteJournal.open(tmp_path / "file" / "folder")


async def test_the_journal_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    await fill(tmp_path / "data", 1)
    with sqlite3.connect(tmp_path / "data" / "journal" / "journal.db") as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.close()
    for _ in range(2):
        with pytest.raises(JournalError, match="newer version"):
            await SqliteJournal.open(tmp_path / "data")
    assert not list((tmp_path / "data").glob("journal.corrupt-*"))


# --- damage -----------------------------------------------------------------------------------------------------


async def expect_set_aside(folder: Path, caplog: pytest.LogCaptureFixture, number: int = 1) -> None:
    caplog.set_level(logging.CRITICAL + 1, "pulsecache_sidecar.adapters.journal_file")
    caplog.set_level(logging.ERROR, "pulsecache_sidecar.adapters.journal_file")
    journal = await SqliteJournal.open(folder)
    assert journal.set_aside == tuple(f"journal.corrupt-{n}" for n in range(1, number + 1))
    assert list(await journal.load()) == []
    await journal.append(writes.pending())
    await journal.aclose()
    (record,) = [record for record in caplog.records if "damaged" in record.message]
    assert f"journal.corrupt-{number}" in record.message
    assert (folder / f"journal.corrupt-{number}" / "journal.db").exists()


@pytest.mark.parametrize("content", [b"", b"not a database, but long enough to be looked at" * 100])
async def test_garbage_is_set_aside_or_empty(tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    await fill(tmp_path / "data", 3)
    home = tmp_path / "data" / "journal"
    (home / "journal.db-wal").unlink()
    (home / "journal.db").write_bytes(content)
    if content:
        await expect_set_aside(tmp_path / "data", caplog)
    else:
        assert await pending_ids(tmp_path / "data") == []  # an empty file is how a new journal begins


async def test_a_foreign_database_is_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "journal").mkdir()
    with sqlite3.connect(tmp_path / "journal" / "journal.db") as connection:
        connection.execute("CREATE TABLE something (else_entirely)")
    connection.close()
    await expect_set_aside(tmp_path, caplog)


@pytest.mark.parametrize("where", ["body", "record", "structure"])
async def test_a_flipped_bit_in_the_database_sets_it_aside(
    tmp_path: Path, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    journal = await SqliteJournal.open(tmp_path)
    for _ in range(30):
        await journal.append(writes.pending(b"BODY" * 100))
    await journal.aclose()
    path = tmp_path / "journal" / "journal.db"
    raw = bytearray(path.read_bytes())
    at = {"body": raw.find(b"BODY"), "record": raw.find(b"shop/products"), "structure": 4096 * 2 + 3}[where]
    raw[at] ^= 0x10
    path.write_bytes(raw)
    await expect_set_aside(tmp_path, caplog)


async def test_damaged_journals_are_kept_side_by_side(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in (1, 2):
        caplog.clear()
        (tmp_path / "journal").mkdir(exist_ok=True)
        (tmp_path / "journal" / "journal.db").write_bytes(b"garbage" * 1000)
        await expect_set_aside(tmp_path, caplog, number)


WAL = "journal.db-wal"
FRAME_BYTES = 24 + 4096


@pytest.mark.parametrize("offset", [0, 4, 10, 24, 24 + 4000])
@pytest.mark.parametrize("frame", [0, 5, 30])
async def test_a_flipped_bit_in_the_middle_of_the_log_is_not_taken_for_its_end(
    tmp_path: Path, frame: int, offset: int, caplog: pytest.LogCaptureFixture
) -> None:
    """SQLite would forget every commit after it without a word."""
    await fill(tmp_path / "data", 40)
    path = tmp_path / "data" / "journal" / WAL
    raw = bytearray(path.read_bytes())
    raw[32 + frame * FRAME_BYTES + offset] ^= 0x04
    path.write_bytes(raw)
    await expect_set_aside(tmp_path / "data", caplog)


@pytest.mark.parametrize("at", [0, 9, 17, 26])
async def test_a_flipped_bit_in_the_head_of_the_log_is_not_taken_for_an_empty_one(
    tmp_path: Path, at: int, caplog: pytest.LogCaptureFixture
) -> None:
    await fill(tmp_path / "data", 40)
    path = tmp_path / "data" / "journal" / WAL
    raw = bytearray(path.read_bytes())
    raw[at] ^= 0x04
    path.write_bytes(raw)
    await expect_set_aside(tmp_path / "data", caplog)


@pytest.mark.parametrize("cut", [1, 23, 24, 500, 4096])
async def test_a_torn_end_of_the_log_costs_the_last_commit_alone(tmp_path: Path, cut: int) -> None:
    ids = await fill(tmp_path / "data", 40)
    path = tmp_path / "data" / "journal" / WAL
    path.write_bytes(path.read_bytes()[:-cut])
    assert await pending_ids(tmp_path / "data") == ids[:-1]


@pytest.mark.parametrize("size", [0, 1, 31, 32, 40])
async def test_a_log_that_was_just_begun_is_sound(tmp_path: Path, size: int) -> None:
    await fill(tmp_path / "data", 3)
    path = tmp_path / "log"
    path.write_bytes((tmp_path / "data" / "journal" / WAL).read_bytes()[:size])
    assert sqlite_wal.damage(path) is None
    assert sqlite_wal.damage(tmp_path / "nothing") is None


async def test_a_log_that_was_written_over_is_sound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind its end are frames of the round before."""
    monkeypatch.setattr(sqlite_journal, "CHECKPOINT_BYTES", 200_000)
    ids = await fill(tmp_path / "data", 130)
    assert (tmp_path / "data" / "journal" / WAL).stat().st_size < 100 * FRAME_BYTES
    assert await pending_ids(tmp_path / "data") == ids


# --- room -------------------------------------------------------------------------------------------------------


async def test_a_limit_of_bytes_is_kept_and_room_comes_back(tmp_path: Path) -> None:
    journal = await SqliteJournal.open(tmp_path, max_bytes=300_000)
    results = await asyncio.gather(
        *(journal.append(writes.pending(b"x" * 10_000)) for _ in range(50)), return_exceptions=True
    )
    written = [result for result in results if isinstance(result, PendingWrite)]
    assert all(isinstance(result, PendingWrite | JournalFull) for result in results)
    assert 20 <= len(written) <= 30
    for write in written[:5]:
        await journal.done(write.id)
    await journal.append(writes.pending(b"x" * 10_000))
    await journal.aclose()
    assert (tmp_path / "journal" / "journal.db").stat().st_size < 400_000


FULL_DISK = """
import asyncio, json, resource, sys
from pathlib import Path
import writes
from pulsecache_sidecar.adapters.sqlite_journal import SqliteJournal
from pulsecache_sidecar.errors import JournalError, JournalFull

async def main(folder):
    journal = await SqliteJournal.open(folder)
    kept = [(await journal.append(writes.pending(b"x" * 2000))).id for _ in range(10)]
    size = (folder / "journal" / "journal.db-wal").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 3000, resource.RLIM_INFINITY))
    refused = []
    for _ in range(5):
        try:
            kept.append((await journal.append(writes.pending(b"y" * 20_000))).id)
        except JournalFull as error:
            refused.append(str(error))
    failure, readable = journal.failure, len(await journal.load())
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    kept.append((await journal.append(writes.pending(b"z" * 20_000))).id)
    await journal.done(kept.pop(0))
    print(json.dumps({"kept": kept, "refused": refused, "failure": failure, "readable": readable}))
    sys.stdout.flush()
    import os
    os.kill(os.getpid(), 9)

asyncio.run(main(Path(sys.argv[1])))
"""


async def test_a_full_disk_refuses_keeps_what_it_has_and_recovers_by_itself(tmp_path: Path) -> None:
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", FULL_DISK, str(tmp_path)),
        env=writes.child_environment(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await child.communicate()
    assert child.returncode == -9, err.decode()
    found = json.loads(out)
    assert len(found["refused"]) == 5
    assert "no room" in found["refused"][0]
    assert found["failure"] is None
    assert found["readable"] == 10
    assert await pending_ids(tmp_path) == found["kept"]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


async def test_what_is_done_can_leave_although_what_comes_has_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one group: else a journal on a full disk could never become emptier while writes keep coming."""
    journal = await SqliteJournal.open(tmp_path)
    written = await journal.append(writes.pending())

    def full(file: JournalFile, rows: object) -> list[int]:
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise error

    commits = HeldCommits(monkeypatch)
    waiting = asyncio.create_task(journal.attempted(written.id, 1))
    await asyncio.to_thread(commits.arrived.acquire)
    monkeypatch.setattr(JournalFile, "append", full)
    append = asyncio.create_task(journal.append(writes.pending()))
    done = asyncio.create_task(journal.done(written.id))
    await asyncio.sleep(0)
    commits.go.release(10)
    await asyncio.gather(waiting, done)
    with pytest.raises(JournalFull, match="no room"):
        await append
    assert list(await journal.load()) == []
    assert journal.failure is None
    await journal.aclose()


async def test_a_defect_in_the_journals_thread_is_told_to_everyone_and_hangs_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    journal = await SqliteJournal.open(tmp_path)

    def broken(file: JournalFile, rows: object) -> list[int]:
        raise ZeroDivisionError

    monkeypatch.setattr(JournalFile, "append", broken)
    results = await asyncio.gather(*(journal.append(writes.pending()) for _ in range(5)), return_exceptions=True)
    assert all(isinstance(result, JournalError) for result in results)
    assert journal.failure is not None
    assert list(await journal.load()) == []
    await journal.aclose()


async def test_another_program_that_looks_into_the_journal_is_kept_out(tmp_path: Path) -> None:
    journal = await SqliteJournal.open(tmp_path)
    await journal.append(writes.pending())
    shell = await asyncio.create_subprocess_exec(
        *(
            sys.executable,
            "-c",
            "import sqlite3,sys; sqlite3.connect(sys.argv[1], timeout=0).execute('SELECT * FROM writes')",
        ),
        str(tmp_path / "journal" / "journal.db"),
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await shell.communicate()
    assert "locked" in said.decode()
    await journal.append(writes.pending())
    await journal.aclose()
