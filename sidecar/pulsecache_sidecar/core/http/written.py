"""The representation that a write leaves, as far as its request or its response shows it (RFC 9110 sections 6.4.2,
9.3.4)."""

from __future__ import annotations

from pulsecache_sidecar.core.http.locations import same_origin
from pulsecache_sidecar.core.http.message import RequestHead, ResponseHead, first, without

_DESCRIBES_CONTENT = frozenset((b"content-type", b"content-language", b"content-encoding"))
_FROM_RESPONSE = frozenset((b"etag", b"last-modified", b"cache-control", b"expires", b"date", b"vary"))
"""A validator in the response to a PUT says that the content was taken as it was sent."""


def as_read(request: RequestHead) -> RequestHead:
    """The GET that would bring what was written."""
    return RequestHead("GET", request.target.split(b"?", 1)[0], request.fields, request.version, request.peer)


def in_response(request: RequestHead, head: ResponseHead) -> ResponseHead | None:
    """The head of a 200 to a GET of the written resource, where the response's content is its new state: the rule says
    so, and the response does not say otherwise. A 201 to a POST is about another resource than the one posted to."""
    if request.query or head.status not in (200, 201) or request.method == "DELETE":
        return None
    location = first(head.fields, b"content-location")
    if location is None:
        if head.status == 201 and request.method != "PUT":
            return None
    elif same_origin(request, location) != request.target.decode("latin-1"):
        return None
    return ResponseHead(200, without(head.fields, b"location", b"accept-ranges"))


def in_request(request: RequestHead, head: ResponseHead) -> ResponseHead | None:
    """The same from what a PUT sent, once its response says that it was taken."""
    if request.query or request.method != "PUT" or head.status not in (200, 201, 204):
        return None
    sent = tuple(field for field in request.fields if field[0] in _DESCRIBES_CONTENT)
    told = tuple(field for field in head.fields if field[0] in _FROM_RESPONSE)
    return ResponseHead(200, (*sent, *told))
