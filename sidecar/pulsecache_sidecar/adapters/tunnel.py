"""Two connections joined byte for byte, with back-pressure both ways and half-closes passed on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from pulsecache_sidecar.adapters.http_flow import abort, set_reading


class Pipe(asyncio.Protocol):
    """One end of a splice: what it receives goes to `other`."""

    def __init__(self, other: asyncio.Transport, lost: Callable[[], None]) -> None:
        self._other = other
        self._lost = lost

    def data_received(self, data: bytes) -> None:
        self._other.write(data)

    def eof_received(self) -> bool:
        if self._other.is_closing() or not self._other.can_write_eof():
            return False
        self._other.write_eof()
        return True

    def pause_writing(self) -> None:
        set_reading(self._other, False)  # our own peer reads slowly: stop reading from the other one

    def resume_writing(self) -> None:
        set_reading(self._other, True)

    def connection_lost(self, error: Exception | None) -> None:
        self._lost()
        if error is None:
            self._other.close()
        else:
            abort(self._other)


class OriginTunnel:
    """The origin's side, waiting for the client's. Implements ports.Tunnel. `ended` is called when both are gone."""

    def __init__(self, origin: asyncio.Transport, early: bytes, ended: Callable[[OriginTunnel], None]) -> None:
        self._origin = origin
        self._early = early
        self._ended = ended
        self._sides = 1

    def splice(self, client: asyncio.Transport, received: bytes) -> None:
        origin = self._origin
        self._sides = 2
        client.set_protocol(Pipe(origin, self._side_lost))
        if origin.is_closing():  # it was lost meanwhile, and told so to its former protocol
            self._side_lost()
        else:
            origin.set_protocol(Pipe(client, self._side_lost))
        if received:
            origin.write(received)
        if self._early:
            client.write(self._early)
        if origin.is_closing():
            client.close()
        else:
            set_reading(origin, True)
            set_reading(client, True)

    def abort(self) -> None:
        abort(self._origin)
        if self._sides == 1:
            self._side_lost()

    def _side_lost(self) -> None:
        self._sides -= 1
        if self._sides == 0:
            self._ended(self)
