"""The service `products`: a JSON API over the catalogue.

    GET   /products                      all products, short
    GET   /products/{id}                 one product with its rating: the slow query. ETag; Cache-Control only if set
    PUT   /products/{id}                 replaces it, PATCH changes fields; answers with the new one. If-Match
    POST  /products/{id}/views           counts a look, once per Idempotency-Key. Body, if any: {"seq": number}
    GET   /products/{id}/views           the counter, and the events in order (?after=ID&limit=N)
    GET   /stats                         how many costly queries this process, and the database, have answered
    GET   /healthz, /readyz

Neither health check asks the database: while it is away the pod must stay in the Service, because what is in the
caches can still be served and views can still be taken. `/readyz` only waits for the first contact.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from aiohttp import web

from shop.catalogue import Catalogue, InvalidProduct, VersionConflict, changes_of
from shop.database import Database, DatabaseUnavailable, connect

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger("shop.products")

_LARGEST_ID = 2**31 - 1
_THREADS = 16


class Products:
    def __init__(self, database: Database, *, query_delay_s: float, cache_control: str | None) -> None:
        self._catalogue = Catalogue(database, query_delay_s=query_delay_s)
        self._database = database
        self._cache_control = cache_control
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="database")
        self._prepared = asyncio.Event()
        self._trouble = asyncio.Event()
        self._counts: Counter[str] = Counter()
        self._instance = os.environ.get("HOSTNAME") or socket.gethostname()

    def app(self) -> web.Application:
        app = web.Application(middlewares=[_problems])
        app.add_routes(
            [
                web.get("/products", self.get_products),
                web.get(r"/products/{id:\d{1,10}}", self.get_product),
                web.put(r"/products/{id:\d{1,10}}", self.change_product),
                web.patch(r"/products/{id:\d{1,10}}", self.change_product),
                web.post(r"/products/{id:\d{1,10}}/views", self.post_view),
                web.get(r"/products/{id:\d{1,10}}/views", self.get_views),
                web.get("/stats", self.get_stats),
                web.get("/healthz", self.get_healthz),
                web.get("/readyz", self.get_readyz),
            ]
        )
        app.cleanup_ctx.append(self._lifetime)
        return app

    async def _lifetime(self, _: web.Application) -> AsyncIterator[None]:
        preparing = asyncio.create_task(self._prepare())
        yield
        preparing.cancel()
        await asyncio.gather(preparing, return_exceptions=True)
        self._threads.shutdown()
        self._database.close()

    async def _prepare(self) -> None:
        """Makes the tables at the start, and again after trouble: a database may come back empty."""
        while True:
            self._trouble.clear()
            try:
                await self._in_thread(self._catalogue.prepare)
            except DatabaseUnavailable as error:
                log.warning("the database is not there, trying again in a second: %s", error)
                await asyncio.sleep(1)
                continue
            self._prepared.set()
            log.info("the database is ready")
            await self._trouble.wait()

    async def _call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await self._in_thread(function, *args, **kwargs)
        except DatabaseUnavailable:
            self._trouble.set()
            raise

    async def _in_thread(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, lambda: function(*args, **kwargs))

    async def get_products(self, _: web.Request) -> web.Response:
        products = await self._call(self._catalogue.products)
        self._counts["costly"] += 1
        return self._representation({"products": products})

    async def get_product(self, request: web.Request) -> web.Response:
        number = _number(request)
        tags = request.if_none_match
        if tags:
            version = await self._call(self._catalogue.version, number)
            self._counts["cheap"] += 1
            if version is not None and any(tag.value in (_tag(number, version), "*") for tag in tags):
                return self._representation(None, status=304, etag=_tag(number, version))
        product = await self._call(self._catalogue.product, number)
        self._counts["costly"] += 1
        if product is None:
            raise _no_such_product(number)
        return self._representation(product, etag=_tag(number, product["version"]))

    async def change_product(self, request: web.Request) -> web.Response:
        number = _number(request)
        changes = changes_of(await _document(request), complete=request.method == "PUT")
        expected = _expected_version(request, number)
        product = await self._call(self._catalogue.update, number, changes, expected_version=expected)
        self._counts["writes"] += 1
        if product is None:
            raise _no_such_product(number)
        return self._representation(product, etag=_tag(number, product["version"]))

    async def post_view(self, request: web.Request) -> web.Response:
        number = _number(request)
        document = await _document(request) if request.body_exists else None
        seq = document.get("seq") if isinstance(document, dict) else None
        if seq is not None and (isinstance(seq, bool) or not isinstance(seq, int) or not 0 <= seq <= _LARGEST_ID):
            raise InvalidProduct(f"seq: expected a whole number from 0 to {_LARGEST_ID}")
        key = request.headers.get("Idempotency-Key")
        if key is not None and not 0 < len(key) <= 255:
            raise InvalidProduct("Idempotency-Key: expected 1 to 255 characters")
        view = await self._call(self._catalogue.record_view, number, key, seq)
        self._counts["views"] += 1
        if view is None:
            raise _no_such_product(number)
        return _json({"product": view.product, "views": view.views, "attempts": view.attempts})

    async def get_views(self, request: web.Request) -> web.Response:
        number = _number(request)
        try:
            after, limit = (int(request.query.get(name, default)) for name, default in (("after", 0), ("limit", 1000)))
        except ValueError:
            raise InvalidProduct("after and limit: expected whole numbers") from None
        limit = min(max(limit, 0), 10_000)
        views = await self._call(self._catalogue.views, number, after=after, limit=limit)
        if views is None:
            raise _no_such_product(number)
        return _json(views, headers={"Cache-Control": "no-store"})

    async def get_stats(self, _: web.Request) -> web.Response:
        try:
            everywhere = await self._call(self._catalogue.costly_queries)
        except DatabaseUnavailable:
            everywhere = None
        return _json(
            {
                "instance": self._instance,
                "queries": {name: self._counts[name] for name in ("costly", "cheap", "writes", "views")},
                "costly_queries_of_all_replicas": everywhere,
            },
            headers={"Cache-Control": "no-store"},
        )

    async def get_healthz(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def get_readyz(self, _: web.Request) -> web.Response:
        if self._prepared.is_set():
            return web.Response(text="ok\n")
        return web.Response(status=503, text="the database has not been reached yet\n")

    def _representation(self, document: object, *, status: int = 200, etag: str | None = None) -> web.Response:
        response = web.Response(status=status) if document is None else _json(document, status=status)
        if etag is not None:
            response.headers["ETag"] = f'"{etag}"'
        if self._cache_control is not None:
            response.headers["Cache-Control"] = self._cache_control
        return response


@web.middleware
async def _problems(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """What went wrong, as problem details (RFC 9457)."""
    try:
        return await handler(request)
    except DatabaseUnavailable as error:
        return _problem(503, "The database is not available", str(error), {"Retry-After": "1"})
    except InvalidProduct as error:
        return _problem(422, "The request's content is not valid", str(error))
    except VersionConflict as error:
        return _problem(412, "The product has changed", str(error))
    except web.HTTPException as error:
        if error.status < 400:
            raise
        allow = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
        return _problem(error.status, error.reason, error.text or error.reason, allow)


def _problem(status: int, title: str, detail: str, headers: dict[str, str] | None = None) -> web.Response:
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    return _json(body, status=status, headers=headers, content_type="application/problem+json")


def _json(
    document: object,
    *,
    status: int = 200,
    headers: dict[str, str] | None = None,
    content_type: str = "application/json",
) -> web.Response:
    body = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
    return web.Response(body=body, status=status, headers=headers, content_type=content_type)


def _number(request: web.Request) -> int:
    number = int(request.match_info["id"])
    if number > _LARGEST_ID:
        raise _no_such_product(number)
    return number


async def _document(request: web.Request) -> object:
    try:
        return json.loads(await request.read())
    except ValueError as error:
        raise InvalidProduct(f"the body is not JSON: {error}") from None


def _expected_version(request: web.Request, number: int) -> int | None:
    """If-Match of one strong tag (RFC 9110 section 13.1.1); a tag of something else matches no version."""
    tags = request.if_match
    if not tags or any(tag.value == "*" for tag in tags):
        return None
    prefix = _tag(number, "")
    versions = [tag.value.removeprefix(prefix) for tag in tags if tag.value.startswith(prefix) and not tag.is_weak]
    return int(versions[0]) if versions and versions[0].isdigit() else -1


def _tag(number: int, version: object) -> str:
    return f"product-{number}-{version}"


def _no_such_product(number: int) -> web.HTTPNotFound:
    return web.HTTPNotFound(text=f"there is no product {number}")


def application(*, database: str, query_delay_s: float, cache_control: str | None) -> web.Application:
    """Raises ValueError for a database URL of an unknown kind."""
    return Products(connect(database), query_delay_s=query_delay_s, cache_control=cache_control).app()
