"""Back-pressure between a connection and a coroutine, both ways, in a few lines each. No framing here."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from typing import cast

HIGH_WATER = 256 * 1024
"""Bytes received and not yet taken at which a connection stops reading."""


class Gate:
    """Open while a transport takes what is written to it."""

    __slots__ = ("_error", "_open", "_waiters")

    def __init__(self) -> None:
        self._open = True
        self._waiters: list[asyncio.Future[None]] = []
        self._error: Exception | None = None

    @property
    def is_open(self) -> bool:
        return self._open

    def close(self) -> None:
        self._open = False

    def open(self) -> None:
        self._open = True
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()

    def fail(self, error: Exception) -> None:
        """The connection is gone: whoever waits, or comes, is told."""
        self._error = error
        self.open()

    async def passed(self) -> None:
        while not self._open and self._error is None:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter
        if self._error is not None:
            raise self._error


class Chunks:
    """The pieces of a body between a protocol, which puts, and one reader, which takes. `put` tells when to stop
    reading from the socket; `take` calls `resume` when it may go on."""

    __slots__ = ("_ended", "_error", "_pieces", "_size", "_waiter")

    def __init__(self) -> None:
        self._pieces: deque[bytes] = deque()
        self._size = 0
        self._ended = False
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None

    @property
    def size(self) -> int:
        return self._size

    @property
    def ended(self) -> bool:
        return self._ended

    def put(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._size += len(piece)
        self._wake()

    def end(self) -> None:
        self._ended = True
        self._wake()

    def fail(self, error: Exception) -> None:
        """Pieces that are already here are still taken first."""
        if not self._ended and self._error is None:
            self._error = error
            self._wake()

    def take(self) -> bytes | None:
        """All that is there, or None. Raises what `fail` was given once everything before it has been taken."""
        if self._pieces:
            data = self._pieces.popleft() if len(self._pieces) == 1 else b"".join(self._pieces)
            self._pieces.clear()
            self._size = 0
            return data
        if self._error is not None:
            raise self._error
        return None

    async def wait(self) -> None:
        """Returns when there is something to take, or the end."""
        if self._pieces or self._ended or self._error is not None:
            return
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def transport_of(transport: asyncio.BaseTransport) -> asyncio.Transport:
    return cast(asyncio.Transport, transport)


def set_reading(transport: asyncio.Transport, reading: bool) -> None:
    """pause_reading and resume_reading that may be repeated."""
    if transport.is_closing() or transport.is_reading() == reading:
        return
    if reading:
        transport.resume_reading()
    else:
        transport.pause_reading()


def abort(transport: asyncio.Transport) -> None:
    """Closes with a reset: the peer cannot take it for an orderly end, and nothing that is still buffered is sent."""
    if transport.is_closing():
        transport.abort()
        return
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.fileno() >= 0:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
