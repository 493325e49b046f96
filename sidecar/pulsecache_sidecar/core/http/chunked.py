"""The chunked transfer coding, decoded and encoded (RFC 9112 section 7.1). Extensions and trailers are checked and
dropped; nothing but CRLF ends a line."""

from __future__ import annotations

import re

MAX_LINE = 1024
"""Bytes of one chunk-size line, extension included."""
MAX_TRAILERS = 8 * 1024

_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?")
_TRAILER = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*")

LAST_CHUNK = b"0\r\n\r\n"


class BadChunk(ValueError):
    """Bytes that are not the chunked coding."""


def encode(data: bytes) -> bytes:
    """One chunk; `data` is not empty (an empty one would end the body)."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class ChunkedDecoder:
    """Fed with bytes as they arrive. `done` is set at the end of the body; `rest` then holds what came after it."""

    def __init__(self) -> None:
        self.done = False
        self.rest = b""
        self._buffer = b""
        self._left = 0
        """Bytes of the current chunk that are still to come."""
        self._state = "size"
        self._trailer_bytes = 0

    def feed(self, data: bytes) -> list[bytes]:
        """The pieces of body in `data`. Raises BadChunk."""
        buffer = self._buffer + data if self._buffer else data
        pieces: list[bytes] = []
        position = 0
        while not self.done:
            if self._state == "data":
                piece = buffer[position : position + self._left]
                if not piece:
                    break
                pieces.append(piece)
                position += len(piece)
                self._left -= len(piece)
                if self._left == 0:
                    self._state = "end"
            elif self._state == "end":
                ending = buffer[position : position + 2]
                if not b"\r\n".startswith(ending):
                    raise BadChunk("a chunk does not end where its size says")
                if len(ending) < 2:
                    break
                position += 2
                self._state = "size"
            else:
                line, position_after = self._line(buffer, position)
                if line is None:
                    break
                position = position_after
                if self._state == "size":
                    self._size(line)
                else:
                    self._trailer(line)
        rest = buffer[position:]
        if self.done:
            self.rest, self._buffer = rest, b""
        else:
            self._buffer = rest
        return pieces

    def _line(self, buffer: bytes, position: int) -> tuple[bytes | None, int]:
        end = buffer.find(b"\n", position, position + MAX_LINE)
        if end < 0:
            if len(buffer) - position >= MAX_LINE:
                raise BadChunk("a chunk-size or trailer line is too long")
            return None, position
        if end == position or buffer[end - 1] != 0x0D:
            raise BadChunk("a line that does not end in CRLF")
        return buffer[position : end - 1], end + 1

    def _size(self, line: bytes) -> None:
        match = _SIZE_LINE.fullmatch(line)
        if not match:
            raise BadChunk("a chunk size that is not hexadecimal")
        self._left = int(match[1], 16)
        self._state = "data" if self._left else "trailer"

    def _trailer(self, line: bytes) -> None:
        if not line:
            self.done = True
            return
        self._trailer_bytes += len(line) + 2
        if self._trailer_bytes > MAX_TRAILERS:
            raise BadChunk("the trailers are too long")
        if not _TRAILER.fullmatch(line):
            raise BadChunk("a trailer that is not a field line")
