"""Finds damage in a SQLite write-ahead log that SQLite itself would pass over in silence.

SQLite reads the log up to the first frame whose checksum is wrong and takes that for the torn end of a crash. That is
right at the end and wrong in the middle, where it would forget commits that were already acknowledged. The two differ
in what follows: a transaction's first frame is written only after the one before it was synced, so a sound frame behind
a commit proves that everything up to that commit was once on the disk. Damage in the very last transaction cannot be
told from a torn one. The format is at https://www.sqlite.org/fileformat2.html#the_write_ahead_log.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

_HEADER = struct.Struct(">8I")
_FRAME = struct.Struct(">6I")
_MAGIC = 0x377F0682
_DEFAULT_PAGE_BYTES = 4096
_WORD = 0xFFFFFFFF

Sums = tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Frame:
    commit: bool
    salts: tuple[int, int]
    stored: Sums
    signed: bytes
    """What the checksum covers, besides all frames before."""


def damage(path: Path) -> str | None:
    """Tells what is wrong with the log, or None where it is sound, torn at its end, or not there. Raises OSError."""
    try:
        with path.open("rb") as file:
            raw = file.read(_HEADER.size)
            if len(raw) < _HEADER.size:
                return None
            magic, _, page_bytes, _, *salts_and_sums = _HEADER.unpack(raw)
            order = ">" if magic & 1 else "<"
            sums: Sums = (salts_and_sums[2], salts_and_sums[3])
            sound = magic | 1 == _MAGIC | 1 and _sums(raw[:24], order, (0, 0)) == sums
            frames = _frames(file.read, page_bytes if sound else _DEFAULT_PAGE_BYTES)
            salts = (salts_and_sums[0], salts_and_sums[1]) if sound else None
            return _first_lost(frames, order if sound else "<", salts, sums)
    except FileNotFoundError:
        return None


def _first_lost(frames: Iterator[_Frame], order: str, salts: tuple[int, int] | None, sums: Sums) -> str | None:
    broken: int | None = None if salts else 0
    committed = False
    for number, frame in enumerate(frames):
        salts = salts or frame.salts
        if broken is None:
            if frame.salts == salts and _sums(frame.signed, order, sums) == frame.stored:
                sums = frame.stored
                continue
            broken = number
        elif committed and frame.salts == salts and _sums(frame.signed, order, sums) == frame.stored:
            return f"its log is damaged at frame {broken}, and sound commits follow"
        # Frames of the log's earlier rounds, also where a frame of this round never arrived, have other salts.
        committed = committed or (frame.commit and frame.salts == salts)
        sums = frame.stored
    return None


def _frames(read: Callable[[int], bytes], page_bytes: int) -> Iterator[_Frame]:
    while len(raw := read(_FRAME.size + page_bytes)) == _FRAME.size + page_bytes:
        _, size_after_commit, *rest = _FRAME.unpack_from(raw)
        yield _Frame(
            commit=size_after_commit != 0,
            salts=(rest[0], rest[1]),
            stored=(rest[2], rest[3]),
            signed=raw[:8] + raw[_FRAME.size :],
        )


def _sums(data: bytes, order: str, sums: Sums) -> Sums:
    words = iter(struct.unpack(f"{order}{len(data) // 4}I", data))
    first, second = sums
    for even, odd in zip(words, words, strict=True):
        first = (first + even + second) & _WORD
        second = (second + odd + first) & _WORD
    return first, second
