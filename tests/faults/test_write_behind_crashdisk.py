"""W1: an acknowledged write is on stable storage. Shown on every kind of disk that a power failure may leave."""

from __future__ import annotations

import errno
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

import crashdisk
import journal_child
import writes
from pulsecache_sidecar.adapters.journal_file import JournalFile


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return crashdisk.library(tmp_path_factory.mktemp("library"))


def run_child(library: Path, folder: Path, seed: int, count: int, fail: str | None = None) -> Path:
    folder.mkdir()
    log = folder.parent / f"{folder.name}.log"
    environment = {**writes.child_environment(), **crashdisk.environment(library, folder, log, fail)}
    command = [sys.executable, journal_child.__file__, str(folder), str(seed), str(count)]
    subprocess.run(command, env=environment, check=True, timeout=50, stderr=subprocess.DEVNULL)
    return log


def lines(operations: Sequence[crashdisk.Operation]) -> list[list[str]]:
    """What the child had said by then."""
    said = b"".join(op.data for op in operations if op.path.endswith("/said"))
    return [line.split(" ") for line in said.decode().splitlines()]


def restore(image: Mapping[str, bytes], original: Path, to: Path) -> None:
    for path, content in image.items():
        target = to / Path(path).relative_to(original)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_whatever_of_the_unsynced_survives_every_acknowledged_write_is_there(
    library: Path, tmp_path: Path, seed: int
) -> None:
    folder = tmp_path / "data"
    operations = crashdisk.read_log(run_child(library, folder, seed, 60))
    assert sum(op.kind == "s" and op.path.endswith("-wal") for op in operations) > 20
    assert any(op.kind == "s" and op.path.endswith(".db") for op in operations), "no checkpoint was made"
    checked = 0
    for number, (history, image) in enumerate(crashdisk.images(operations, seed, 60)):
        to = tmp_path / f"image-{number}"
        restore(image, folder, to)
        said = lines(history)
        bodies = {line[1]: line[2] for line in said if line[0] == "append"}
        appended = {int(line[2]): bodies[line[1]] for line in said if line[0] == "appended"}
        leaving = {int(line[1]) for line in said if line[0] in ("done", "bury")}
        gone = {int(line[1]) for line in said if line[0] == "gone"}
        buried = {int(line[1]) for line in said if line[0] == "buried"}

        file = JournalFile(to, max_entries=1000, max_bytes=1 << 30)
        assert file.set_aside == (), "a torn end was taken for damage"
        pending = {write.id: write.body.decode() for write in file.pending(0, None)}
        dead = {letter.write.id: letter.write.body.decode() for letter in file.dead(0, None)}
        file.close()

        for write_id, body in appended.items():
            found = pending.get(write_id) or dead.get(write_id)
            assert found == body or (write_id in leaving and write_id not in buried and found is None)
            assert write_id in leaving or write_id in pending
        assert not gone & (set(pending) | set(dead)), "what was done came back"
        assert buried <= set(dead)
        assert {*pending.values(), *dead.values()} <= set(bodies.values()), "an invented record"
        checked += len(appended)
    assert checked > 500


def test_a_disk_that_ignores_syncs_would_be_noticed(library: Path, tmp_path: Path) -> None:
    """The test above can fail: without syncs the same history loses acknowledged writes."""
    folder = tmp_path / "data"
    operations = crashdisk.read_log(run_child(library, folder, 4, 30))
    lying = [op for op in operations if not (op.kind == "s" and op.path.endswith("-wal"))]
    lost = 0
    for number, (history, image) in enumerate(crashdisk.images(lying, 4, 30)):
        to = tmp_path / f"image-{number}"
        restore(image, folder, to)
        said = lines(history)
        kept = {int(line[2]) for line in said if line[0] == "appended"}
        kept -= {int(line[1]) for line in said if line[0] in ("done", "bury")}
        file = JournalFile(to, max_entries=1000, max_bytes=1 << 30)
        lost += len(kept - {write.id for write in file.pending(0, None)})
        file.close()
    assert lost > 0


def test_after_a_failed_sync_nothing_is_acknowledged_any_more(library: Path, tmp_path: Path) -> None:
    """A repeated sync may succeed although the data is gone: so there is none, until a restart."""
    folder = tmp_path / "data"
    operations = crashdisk.read_log(run_child(library, folder, 5, 30, fail=f"sync:8:{errno.EIO}"))
    said = lines(operations)
    first_refused = next(index for index, line in enumerate(said) if line[0] == "refused")
    assert any(line[0] == "appended" for line in said[:first_refused])
    assert not [line for line in said[first_refused:] if line[0] in ("appended", "gone", "buried")]
    assert said[-1][0] == "failure"
    assert "restart" in " ".join(said[-1])
    appended = {int(line[2]) for line in said if line[0] == "appended"}
    appended -= {int(line[1]) for line in said if line[0] in ("done", "bury")}
    file = JournalFile(folder, max_entries=1000, max_bytes=1 << 30)
    assert appended <= {write.id for write in file.pending(0, None)}
    file.close()


def test_a_failed_write_poisons_too_but_one_without_room_does_not(library: Path, tmp_path: Path) -> None:
    for code, poisoned in ((errno.EIO, True), (errno.ENOSPC, False)):
        folder = tmp_path / errno.errorcode[code]
        said = lines(crashdisk.read_log(run_child(library, folder, 6, 30, fail=f"write:12:{code}")))
        refused = [index for index, line in enumerate(said) if line[0] == "refused"]
        assert refused
        after = [line for line in said[refused[-1] :] if line[0] == "appended"]
        assert bool(after) is not poisoned
        assert (said[-1] == ["failure", "None"]) is not poisoned
