"""The service `storefront`: a page per product, made from what `products` answers.

    GET /                   links to some products
    GET /products/{id}      the page (HTML; JSON where the client asks for it)
    GET /healthz

It shows what an app may do with `Pulse-Staleness`: as long as the cache hears its heartbeat the page is as any other;
when it does not, the visitor reads how old the price may be; and when that is older than the policy allows, checkout
is off, because nobody should pay a price that is no longer true. Both response fields are passed on as they came.
"""

from __future__ import annotations

import asyncio
import html
import json
import logging
import math
import re
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp
from aiohttp import web

log = logging.getLogger("shop.storefront")

_PASSED_ON = ("Pulse-Staleness", "Cache-Status", "Age")
_ITEM = re.compile(r"\s*(?:(?P<seconds>\d{1,15}(?:\.\d{1,3})?)|(?P<token>[a-z]+))\s*(?P<parameters>(?:;.*)?)$")
_STATE = re.compile(r";\s*state=([a-z]+)")


@dataclass(frozen=True, slots=True)
class Staleness:
    """What `Pulse-Staleness` says: at most `bound_s` seconds old (None: nobody knows), and the state of the data."""

    bound_s: float | None
    state: str


def staleness_of(value: str | None) -> Staleness | None:
    """Reads the response field; None where there is none, and what cannot be read counts as unknown."""
    if value is None:
        return None
    item = _ITEM.match(value)
    if item is None:
        return Staleness(None, "unknown")
    state = _STATE.search(item["parameters"])
    bound_s = float(item["seconds"]) if item["seconds"] else None
    return Staleness(bound_s, state[1] if state else "unknown")


def banner(staleness: Staleness | None) -> str | None:
    """What the visitor is told, if anything."""
    if staleness is None or staleness.state == "confirmed" or staleness.bound_s == 0:
        return None
    if staleness.bound_s is None:
        return "Nobody can say at the moment how old these prices are."
    return f"Prices may be {math.ceil(staleness.bound_s)} s old."


def checkout_open(staleness: Staleness | None) -> bool:
    """Off while the data may be older than the policy allows; what was fetched for this very request is not old."""
    return staleness is None or staleness.state != "exceeded" or staleness.bound_s == 0


class Storefront:
    def __init__(self, products_url: str) -> None:
        self._products_url = products_url.rstrip("/")
        self._views: set[asyncio.Task[None]] = set()

    def app(self) -> web.Application:
        app = web.Application()
        app.add_routes(
            [
                web.get("/", self.get_index),
                web.get(r"/products/{id:\d{1,10}}", self.get_page),
                web.get("/healthz", self.get_healthz),
            ]
        )
        app.cleanup_ctx.append(self._lifetime)
        return app

    async def _lifetime(self, _: web.Application) -> AsyncIterator[None]:
        timeout = aiohttp.ClientTimeout(total=10, sock_connect=2)
        async with aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as self._session:
            yield
            if self._views:
                await asyncio.wait(self._views, timeout=5)

    async def get_index(self, _: web.Request) -> web.Response:
        items = "".join(f'<li><a href="/products/{number}">Product {number}</a></li>' for number in range(1, 11))
        return _html("Shop", f"<ul>{items}</ul>")

    async def get_page(self, request: web.Request) -> web.Response:
        number = int(request.match_info["id"])
        as_json = "application/json" in request.headers.get("Accept", "")
        try:
            async with self._session.get(f"{self._products_url}/products/{number}") as response:
                passed_on = {name: response.headers[name] for name in _PASSED_ON if name in response.headers}
                status, body = response.status, await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            log.warning("products did not answer for product %d: %s", number, error or type(error).__name__)
            return _unavailable(as_json, {})
        if status == 404:
            raise web.HTTPNotFound(text=f"there is no product {number}\n")
        if status != 200:
            return _unavailable(as_json, passed_on)
        self._count_view(number)
        staleness = staleness_of(passed_on.get("Pulse-Staleness"))
        model = {
            "product": json.loads(body),
            "staleness": None if staleness is None else {"bound_s": staleness.bound_s, "state": staleness.state},
            "banner": banner(staleness),
            "checkout": checkout_open(staleness),
        }
        if as_json:
            return web.json_response(model, headers=passed_on)
        return _page(model, passed_on)

    async def get_healthz(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    def _count_view(self, number: int) -> None:
        """Beside the page: nobody waits for a counter, and a page without one is still a page."""
        task = asyncio.create_task(self._post_view(number))
        self._views.add(task)
        task.add_done_callback(self._views.discard)

    async def _post_view(self, number: int) -> None:
        url = f"{self._products_url}/products/{number}/views"
        try:
            async with self._session.post(url, headers={"Idempotency-Key": str(uuid.uuid4())}) as response:
                if response.status >= 400:
                    log.warning("a view of product %d was not counted: %s answered %d", number, url, response.status)
        except (aiohttp.ClientError, TimeoutError) as error:
            log.warning("a view of product %d was not counted: %s", number, error or type(error).__name__)


def _page(model: dict[str, object], passed_on: dict[str, str]) -> web.Response:
    product = model["product"]
    assert isinstance(product, dict)
    text = {name: html.escape(str(product.get(name, ""))) for name in ("name", "price", "description", "rating")}
    notice = f'<p role="status">{html.escape(str(model["banner"]))}</p>' if model["banner"] else ""
    button = "<button>Buy</button>" if model["checkout"] else "<button disabled>Checkout is closed for now</button>"
    body = f"{notice}<p>{text['description']}</p><p>{text['price']} &euro;, {text['rating']} of 5 stars</p>{button}"
    return _html(text["name"], body, passed_on)


def _html(title: str, body: str, headers: dict[str, str] | None = None, status: int = 200) -> web.Response:
    page = f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><h1>{title}</h1>{body}</html>\n"
    return web.Response(text=page, content_type="text/html", headers=headers, status=status)


def _unavailable(as_json: bool, passed_on: dict[str, str]) -> web.Response:
    if as_json:
        return web.json_response({"title": "The catalogue is not available"}, status=503, headers=passed_on)
    return _html("The catalogue is not available", "<p>Please come back in a moment.</p>", passed_on, 503)


def application(*, products_url: str) -> web.Application:
    return Storefront(products_url).app()
