"""The admin listener: probes, metrics and staleness for all, everything that changes something only from loopback.

It has no authentication, so what it shows to the pod's network holds no data of the app and nothing it does to the
cache can be asked for from outside the pod.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

from pulsecache_sidecar.adapters.prometheus import CONTENT_TYPE
from pulsecache_sidecar.core.http.message import RequestHead, ResponseHead
from pulsecache_sidecar.engine.handler import Reply, TunnelRefused, problem
from pulsecache_sidecar.ports import Body, Tunnel

Parameters = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Endpoints:
    """What the listener can tell and do; values are JSON."""

    live: Callable[[], str | None]
    """None, or why the process ought to be restarted."""
    ready: Callable[[], str | None]
    """None, or why no request should come yet. Never depends on Redis."""
    metrics: Callable[[], bytes]
    staleness: Callable[[], Any]
    policies: Callable[[], Any]
    journal: Callable[[], Any]
    dead_letters: Callable[[], Awaitable[Any]]
    retry: Callable[[int], Awaitable[bool]]
    drop: Callable[[int], Awaitable[bool]]
    purge: Callable[[str, str], Awaitable[bool]]
    """(dataset, tag): False where there is no such dataset here."""


class Admin:
    """Implements engine.handler.Handler."""

    def __init__(self, endpoints: Endpoints) -> None:
        self._endpoints = endpoints

    def at_once(self, request: RequestHead) -> Reply | None:
        if request.method not in ("GET", "HEAD"):
            return None
        match request.path:
            case "/-/livez":
                return _health(self._endpoints.live())
            case "/-/readyz":
                return _health(self._endpoints.ready())
            case "/metrics":
                return Reply(ResponseHead(200, ((b"content-type", CONTENT_TYPE.encode()),)), self._endpoints.metrics())
            case "/-/staleness":
                return _json(self._endpoints.staleness())
            case _:
                return None

    async def handle(self, request: RequestHead, body: Body | None) -> Reply:
        if body is not None:
            async for _ in body:
                """An admin request's body says nothing, but has to be read off the connection."""
        if (found := self.at_once(request)) is not None:
            return found
        if not _from_loopback(request.peer):
            return problem(403, "loopback-only", "Only from inside the pod", f"{request.path} answers on loopback only")
        match request.method, request.path.strip("/").split("/"):
            case "GET", ["-", "policies"]:
                return _json(self._endpoints.policies())
            case "GET", ["-", "journal"]:
                return _json(self._endpoints.journal())
            case "GET", ["-", "dead-letters"]:
                return _json(await self._endpoints.dead_letters())
            case "POST", ["-", "dead-letters", number, "retry"] if number.isascii() and number.isdigit():
                return _done(await self._endpoints.retry(int(number)), f"no dead letter has the id {number}")
            case "DELETE", ["-", "dead-letters", number] if number.isascii() and number.isdigit():
                return _done(await self._endpoints.drop(int(number)), f"no dead letter has the id {number}")
            case "POST", ["-", "purge"]:
                return await self._purge(parse_qs(request.query))
            case _:
                return problem(404, "no-such-endpoint", "No such endpoint", f"{request.method} {request.path}")

    async def upgrade(self, request: RequestHead) -> Reply:
        return problem(501, "not-implemented", "No upgrade here", "the admin listener speaks HTTP/1.1 only")

    async def tunnel(self) -> Tunnel:
        raise TunnelRefused("the admin listener speaks HTTP/1.1 only")

    async def _purge(self, query: Mapping[str, list[str]]) -> Reply:
        dataset, tag = (query.get(name, [""])[0] for name in ("dataset", "tag"))
        if not dataset or not tag:
            return problem(400, "bad-request", "What is to be purged?", "give dataset=NAMESPACE/NAME and tag=TAG")
        return _done(await self._endpoints.purge(dataset, tag), f"no policy here has the dataset {dataset}")


def _health(trouble: str | None) -> Reply:
    status, text = (200, "ok") if trouble is None else (503, trouble)
    return Reply(ResponseHead(status, ((b"content-type", b"text/plain; charset=utf-8"),)), text.encode() + b"\n")


def _json(value: Any, status: int = 200) -> Reply:
    fields = ((b"content-type", b"application/json"), (b"cache-control", b"no-store"))
    return Reply(ResponseHead(status, fields), json.dumps(value, indent=1).encode() + b"\n")


def _done(found: bool, otherwise: str) -> Reply:
    return _json({"done": True}) if found else problem(404, "not-found", "Not found", otherwise)


def _from_loopback(peer: str) -> bool:
    try:
        address = ipaddress.ip_address(peer.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
