"""An API server that misbehaves on request: each LIST and WATCH gets the next scripted answer, then it waits.

For what a real one does not do on demand. Speaks plain HTTP on loopback.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from kubernetes.aio.client import ApiClient, Configuration

from pulsecache_operator.watch import Timing

QUICK = Timing(connect_s=2.0, list_s=2.0, silence_s=5.0, backoff_first_s=0.01, backoff_max_s=0.05, short_s=0.05)

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


def item(name: str, version: int = 1, **more: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "shop", "resourceVersion": str(version)}} | more


def event(kind: str, thing: dict[str, Any]) -> dict[str, Any]:
    return {"type": kind, "object": thing}


def status(code: int, message: str = "trouble") -> dict[str, Any]:
    return {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code}


class ScriptedApi:
    def __init__(self) -> None:
        self.lists: deque[Answer] = deque()
        self.watches: deque[Answer] = deque()
        self.requests: list[web.Request] = []

    def asked(self, *, watch: bool) -> list[web.Request]:
        return [request for request in self.requests if (request.query.get("watch") == "true") == watch]

    async def serve(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        answers = self.watches if request.query.get("watch") == "true" else self.lists
        if answers:
            return await answers.popleft()(request)
        return await raw(b"", then=silence)(request)

    # --- answers ---

    def on_list(self, version: str, *items: dict[str, Any], token: str | None = None) -> None:
        metadata = {"resourceVersion": version} | ({"continue": token} if token else {})
        self.lists.append(_document({"kind": "List", "metadata": metadata, "items": list(items)}))

    def on_watch(self, *events: dict[str, Any], then: Answer | None = None) -> None:
        """Sends the events; then ends the watch, or goes on as `then` says."""
        self.watches.append(raw(b"".join(json.dumps(e).encode() + b"\n" for e in events), then=then))

    def refuse(self, code: int, *, watch: bool, headers: dict[str, str] | None = None) -> None:
        (self.watches if watch else self.lists).append(_document(status(code), code=code, headers=headers))


def _document(content: Any, *, code: int = 200, headers: dict[str, str] | None = None) -> Answer:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.json_response(content, status=code, headers=headers)

    return answer


def raw(content: bytes, *, pieces: int = 1, then: Answer | None = None) -> Answer:
    """The bytes as they are, in so many writes."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        size = max(1, -(-len(content) // pieces))
        for start in range(0, len(content), size):
            await response.write(content[start : start + size])
        if then is not None:
            await then(request)
        return response

    return answer


async def silence(_: web.Request) -> web.StreamResponse:
    """Nothing, until the other side goes."""
    await asyncio.Event().wait()
    raise AssertionError("unreachable")


async def cut(request: web.Request) -> web.StreamResponse:
    """The connection ends in the middle."""
    assert request.transport is not None
    request.transport.abort()
    return await silence(request)


@asynccontextmanager
async def scripted_api() -> AsyncIterator[tuple[ScriptedApi, ApiClient]]:
    api = ScriptedApi()
    app = web.Application()
    app.router.add_get("/{path:.*}", api.serve)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    try:
        async with ApiClient(Configuration(host=f"http://127.0.0.1:{port}")) as client:
            yield api, client
    finally:
        await runner.cleanup()


class Shelf:
    """A sink that remembers what it was told, and how."""

    def __init__(self) -> None:
        self.items: dict[str, dict[str, Any]] = {}
        self.told: list[str] = []

    def replace(self, objects: Any) -> None:
        self.items = {thing["metadata"]["name"]: thing for thing in objects}
        self.told.append(f"replace {' '.join(self.items)}".strip())

    def put(self, thing: Any) -> None:
        self.items[thing["metadata"]["name"]] = thing
        self.told.append(f"put {thing['metadata']['name']}")

    def drop(self, thing: Any) -> None:
        self.items.pop(thing["metadata"]["name"], None)
        self.told.append(f"drop {thing['metadata']['name']}")
