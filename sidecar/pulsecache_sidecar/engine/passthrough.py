"""Requests on their way to the origin and responses on their way back, as an intermediary passes them on.

No caching here: hop-by-hop fields off, X-Forwarded-For on, and what went wrong at the origin as an answer of our own.
"""

from __future__ import annotations

from dataclasses import replace

from pulsecache_sidecar.core.http.hops import end_to_end, forwarded
from pulsecache_sidecar.core.http.message import Fields, RequestHead, ResponseHead, without
from pulsecache_sidecar.engine.handler import Reply, problem
from pulsecache_sidecar.errors import OriginError, OriginTimeout
from pulsecache_sidecar.ports import OriginResponse

PATIENCE_S = 3600.0
"""For the origin's head, and between two pieces of its body, where no rule says otherwise: whoever long-polls or
streams events through the sidecar is not to notice it."""


def outbound(request: RequestHead) -> RequestHead:
    """The request as it goes to the origin."""
    # Expect was for the listener, which answers 100 as soon as the body is wanted.
    return replace(request, fields=forwarded(without(end_to_end(request.fields), b"expect"), request.peer))


def inbound(head: ResponseHead) -> ResponseHead:
    """The response's head as it goes to the client, or into the cache."""
    return replace(head, fields=end_to_end(head.fields))


def passed_on(response: OriginResponse, extra: Fields = ()) -> Reply:
    head = inbound(response.head)
    return Reply(replace(head, fields=(*head.fields, *extra)), response.body)


def origin_failed(error: OriginError, extra: Fields = ()) -> Reply:
    """502 or 504 (RFC 9110 sections 15.6.3 and 15.6.5)."""
    if isinstance(error, OriginTimeout):
        return problem(
            504, "origin-timeout", "The origin did not answer in time", f"{error}: see why it is slow", extra
        )
    advice = "check that it runs and listens there" if error.reason == "unreachable" else "its log may say why"
    return problem(502, f"origin-{error.reason}", "The origin gave no answer", f"{error}: {advice}", extra)
