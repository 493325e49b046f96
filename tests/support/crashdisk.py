"""What may be on a disk after the power fails: every legal outcome of what a process asked it to do.

A process runs with a library (crashdisk.c) that notes each write, truncation and sync of the files in one folder. For
any moment of that history `images` makes folders as a disk might hold them: what was synced is there; of what was not,
each sector of each write may be there or not. kill -9 cannot show this, because the kernel keeps what was written.
"""

from __future__ import annotations

import random
import shutil
import struct
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

SECTOR_BYTES = 512
_HEAD = struct.Struct("<qI")


@dataclass(frozen=True, slots=True)
class Operation:
    kind: str
    """w(rite), t(runcate), s(ync), u(nlink)."""
    path: str
    offset: int
    data: bytes


@dataclass
class _File:
    durable: bytearray = field(default_factory=bytearray)
    named: bool = False
    """Whether its name was synced with its folder."""
    waiting: list[Operation] = field(default_factory=list)


def library(folder: Path) -> Path:
    """Compiles the library; skips the test where there is no C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler (cc) for the disk that fails")
    built = folder / "crashdisk.so"
    source = Path(__file__).with_name("crashdisk.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-Wall", "-o", built, source, "-ldl"], check=True)
    return built


def environment(built: Path, folder: Path, log: Path, fail: str | None = None) -> dict[str, str]:
    found = {"LD_PRELOAD": str(built), "CRASHDISK_FOLDER": str(folder), "CRASHDISK_LOG": str(log)}
    return found if fail is None else {**found, "CRASHDISK_FAIL": fail}


def read_log(log: Path) -> list[Operation]:
    raw, at, found = log.read_bytes(), 0, []
    while at < len(raw):
        kind = chr(raw[at])
        (path_size,) = struct.unpack_from("<I", raw, at + 1)
        path = raw[at + 5 : at + 5 + path_size].decode()
        offset, size = _HEAD.unpack_from(raw, at + 5 + path_size)
        at += 5 + path_size + _HEAD.size
        data = b""
        if kind == "w":
            data, at = raw[at : at + size], at + size
        found.append(Operation(kind, path, offset, data))
    return found


class Disk:
    """The state of a disk while operations are given to it one by one."""

    def __init__(self) -> None:
        self._files: dict[str, _File] = {}

    def apply(self, operation: Operation) -> None:
        path = operation.path
        if operation.kind == "u":
            self._files.pop(path, None)
        elif operation.kind != "s":
            self._files.setdefault(path, _File()).waiting.append(operation)
        elif path in self._files:
            file = self._files[path]
            for waiting in file.waiting:
                _carry_out(file.durable, waiting)
            file.waiting.clear()
        else:  # a folder
            for name, file in self._files.items():
                file.named = file.named or Path(name).parent == Path(path)

    def image(self, chance: random.Random, keep: float) -> Mapping[str, bytes]:
        """One legal outcome of losing power now; `keep` is how likely each thing that was not synced survives."""
        found: dict[str, bytes] = {}
        for path, file in self._files.items():
            if not file.named and chance.random() >= keep:
                continue
            content = bytearray(file.durable)
            for operation in file.waiting:
                if operation.kind == "w":
                    for piece in _sectors(operation):
                        if chance.random() < keep:
                            _carry_out(content, piece)
                elif chance.random() < keep:
                    _carry_out(content, operation)
            found[path] = bytes(content)
        return found


def images(
    operations: Sequence[Operation], seed: int, moments: int
) -> Iterator[tuple[Sequence[Operation], Mapping[str, bytes]]]:
    """For so many moments: what had been asked before, and what a disk may hold then."""
    chance = random.Random(seed)
    chosen = set(chance.sample(range(len(operations)), min(moments, len(operations))))
    disk = Disk()
    for number, operation in enumerate(operations):
        disk.apply(operation)
        if number in chosen:
            for keep in (0.0, 1.0, chance.choice([0.1, 0.5, 0.9])):
                yield operations[: number + 1], disk.image(chance, keep)


def _sectors(write: Operation) -> Iterator[Operation]:
    at = 0
    while at < len(write.data):
        size = SECTOR_BYTES - (write.offset + at) % SECTOR_BYTES
        yield Operation("w", write.path, write.offset + at, write.data[at : at + size])
        at += size


def _carry_out(content: bytearray, operation: Operation) -> None:
    if operation.kind == "t":
        del content[operation.offset :]
        content.extend(bytes(operation.offset - len(content)))
        return
    end = operation.offset + len(operation.data)
    content.extend(bytes(max(0, end - len(content))))
    content[operation.offset : end] = operation.data
