"""What else an unsafe request changed, as its response names it (RFC 9111 section 4.4)."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urljoin, urlsplit

from pulsecache_sidecar.core.http.message import Fields, RequestHead, values


def changed_targets(request: RequestHead, fields: Fields) -> Iterator[str]:
    """Path and query of Location and Content-Location, where they are of the same origin: others cannot be vouched
    for."""
    for name in (b"location", b"content-location"):
        for value in values(fields, name):
            target = same_origin(request, value)
            if target is not None:
                yield target


def same_origin(request: RequestHead, reference: bytes) -> str | None:
    """A URI reference resolved against the request's URL, as path and query; None where it leads elsewhere."""
    base = f"http://{request.authority}{request.target.decode('latin-1')}"
    try:
        url = urlsplit(urljoin(base, reference.decode("latin-1")))
        authority = url.netloc.lower()
    except ValueError:
        return None
    if url.scheme not in ("http", "https") or authority != request.authority:
        return None
    return (url.path or "/") + (f"?{url.query}" if url.query else "")
