"""As much of an API server as Kopf needs for CachePolicies: discovery, lists, and watches as a test scripts them."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from kubernetes.aio.client import Configuration

Document = dict[str, Any]


def policy(name: str, version: int) -> Document:
    return {
        "apiVersion": "pulsecache.dev/v1alpha1",
        "kind": "CachePolicy",
        "metadata": {"name": name, "namespace": "shop", "uid": name, "resourceVersion": str(version)},
        "spec": {},
    }


class KopfApi:
    def __init__(self) -> None:
        self.items: list[Document] = []
        self.watches: deque[list[Document] | int] = deque()
        """What each watch sends before it ends, or the status it is refused with; then they are silent."""
        self.opened = 0
        self.written: list[str] = []
        """Requests that were no GETs."""
        self.paths: list[str] = []
        self.tokens: list[str | None] = []
        self.url = ""

    async def connection(self) -> Configuration:
        configuration = Configuration()
        configuration.host = self.url
        configuration.api_key["BearerToken"] = "bearer let-me-in"
        return configuration

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        self.paths.append(request.path)
        self.tokens.append(request.headers.get("Authorization"))
        if request.method != "GET":
            self.written.append(f"{request.method} {request.path}")
            return web.json_response({})
        match request.path:
            case "/api":
                return web.json_response({"kind": "APIVersions", "versions": ["v1"]})
            case "/apis":
                groups = [_group("pulsecache.dev", "v1alpha1"), _group("apiextensions.k8s.io", "v1")]
                return web.json_response({"kind": "APIGroupList", "groups": groups})
            case "/api/v1":
                return _resources("v1", ("namespaces", "Namespace"), ("events", "Event"))
            case "/apis/apiextensions.k8s.io/v1":
                return _resources("apiextensions.k8s.io/v1", ("customresourcedefinitions", "CustomResourceDefinition"))
            case "/apis/pulsecache.dev/v1alpha1":
                return _resources("pulsecache.dev/v1alpha1", ("cachepolicies", "CachePolicy"))
            case "/apis/pulsecache.dev/v1alpha1/cachepolicies":
                if request.query.get("watch") == "true":
                    return await self._watch(request)
                return web.json_response({"metadata": {"resourceVersion": "1"}, "items": self.items})
        return web.json_response({"kind": "Status", "code": 404}, status=404)

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        self.opened += 1
        answer: list[Document] | int = self.watches.popleft() if self.watches else []
        if isinstance(answer, int):
            return web.json_response({"kind": "Status", "code": answer, "message": "trouble"}, status=answer)
        response = web.StreamResponse()
        await response.prepare(request)
        for event in answer:
            await response.write(json.dumps(event).encode() + b"\n")
        if not answer:
            await asyncio.Event().wait()
        return response


def _group(name: str, version: str) -> Document:
    found = {"groupVersion": f"{name}/{version}", "version": version}
    return {"name": name, "versions": [found], "preferredVersion": found}


def _resources(group_version: str, *resources: tuple[str, str]) -> web.Response:
    listed = [
        {
            "name": plural,
            "singularName": kind.lower(),
            "kind": kind,
            "namespaced": plural in ("cachepolicies", "events"),
            "verbs": ["get", "list", "watch", "patch"],
        }
        for plural, kind in resources
    ]
    return web.json_response({"kind": "APIResourceList", "groupVersion": group_version, "resources": listed})


@asynccontextmanager
async def kopf_api() -> AsyncIterator[KopfApi]:
    api = KopfApi()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", api._serve)
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        api.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield api
    finally:
        await runner.cleanup()
