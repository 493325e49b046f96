"""How many requests of rules are at the origin at once; the rest wait in line, not for ever."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from pulsecache_sidecar.core.http.message import ResponseHead
from pulsecache_sidecar.ports import Body, OriginResponse


class Overloaded(Exception):
    """No turn within the time that a request may wait."""


class Slots:
    """First come, first served. `limit` may change at any time: it counts from the next request."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._taken = 0
        self._line: deque[asyncio.Future[None]] = deque()

    @property
    def taken(self) -> int:
        return self._taken

    @property
    def waiting(self) -> int:
        return len(self._line)

    async def acquire(self, timeout_s: float) -> None:
        """Raises Overloaded. Cancelled, it has taken nothing."""
        if self._taken < self.limit and not self._line:
            self._taken += 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._line.append(turn)
        try:
            async with asyncio.timeout(timeout_s):
                await turn
        except TimeoutError:
            self._leave(turn)
            raise Overloaded(f"{self._taken} requests are at the origin and {len(self._line)} wait") from None
        except asyncio.CancelledError:
            self._leave(turn)
            raise

    def release(self) -> None:
        self._taken -= 1
        self._call()

    def _leave(self, turn: asyncio.Future[None]) -> None:
        if turn in self._line:
            self._line.remove(turn)
        elif turn.done() and not turn.cancelled():
            self.release()  # its turn had come at the same moment: it goes to the next

    def _call(self) -> None:
        while self._line and self._taken < self.limit:
            turn = self._line.popleft()
            if not turn.done():
                self._taken += 1
                turn.set_result(None)


class Held:
    """A response that holds a slot until its body has ended, in whatever way. An OriginResponse, and its own body."""

    def __init__(self, response: OriginResponse, release: Callable[[], None]) -> None:
        self._response = response
        self._release: Callable[[], None] | None = release

    @property
    def head(self) -> ResponseHead:
        return self._response.head

    @property
    def body(self) -> Body:
        return self

    def __aiter__(self) -> Held:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await anext(self._response.body)
        except BaseException:
            self._done()
            raise

    def abort(self) -> None:
        self._response.abort()
        self._done()

    def _done(self) -> None:
        if self._release is not None:
            release, self._release = self._release, None
            release()
