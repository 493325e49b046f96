"""Errors by the party that caused them. Adapters map what libraries raise to these; nothing else crosses a port."""

from __future__ import annotations


class ClientProtocolError(Exception):
    """The client broke HTTP; `status` is what it is told before its connection is closed."""

    def __init__(self, status: int, detail: str) -> None:
        self.status = status
        self.detail = detail
        super().__init__(detail)


class OriginError(Exception):
    """The origin gave no usable response. `reason` is a metric label; `request_sent` tells whether any byte of the
    request may have reached it (an unsafe request has then an unknown outcome)."""

    reason = "error"

    def __init__(self, detail: str, *, request_sent: bool) -> None:
        self.request_sent = request_sent
        super().__init__(detail)


class OriginUnreachable(OriginError):
    reason = "unreachable"


class OriginTimeout(OriginError):
    reason = "timeout"


class OriginBadResponse(OriginError):
    """Reset, short body, or bytes that are not HTTP."""

    reason = "bad-response"


class HubError(Exception):
    """The hub (Redis) did not answer in time, or refused: nothing is known about the effect of the call."""


class JournalError(Exception):
    """The journal could not make a write durable: it must not be acknowledged."""


class JournalFull(JournalError):
    """The journal's limit of entries is reached."""
