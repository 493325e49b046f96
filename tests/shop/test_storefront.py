"""The storefront: what a visitor sees of how old a price may be."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from shop import storefront
from shop.client import Client
from shop.storefront import Staleness, banner, checkout_open, staleness_of
from shop_world import Serve


@pytest.mark.parametrize(
    ("field", "meaning"),
    [
        (None, None),
        ("0.412;state=confirmed", Staleness(0.412, "confirmed")),
        ("0;state=exceeded", Staleness(0.0, "exceeded")),
        ("12 ; state=unconfirmed;pending", Staleness(12.0, "unconfirmed")),
        ("unknown;state=uncovered", Staleness(None, "uncovered")),
        ("3.5", Staleness(3.5, "unknown")),
        ("", Staleness(None, "unknown")),
        ("-1;state=confirmed", Staleness(None, "unknown")),
        ("soon enough", Staleness(None, "unknown")),
        ("1, 2", Staleness(None, "unknown")),
    ],
)
def test_the_field_is_read_and_what_cannot_be_read_is_unknown(field: str | None, meaning: Staleness | None) -> None:
    assert staleness_of(field) == meaning


@pytest.mark.parametrize(
    ("staleness", "text", "open_"),
    [
        (None, None, True),
        (Staleness(0.4, "confirmed"), None, True),
        (Staleness(3.2, "unconfirmed"), "Prices may be 4 s old.", True),
        (Staleness(7.0, "exceeded"), "Prices may be 7 s old.", False),
        (Staleness(0.0, "exceeded"), None, True),
        (Staleness(None, "exceeded"), "Nobody can say at the moment how old these prices are.", False),
        (Staleness(9.0, "uncovered"), "Prices may be 9 s old.", True),
    ],
)
def test_visitors_are_told_and_checkout_closes_when_the_limit_is_exceeded(
    staleness: Staleness | None, text: str | None, open_: bool
) -> None:
    assert banner(staleness) == text
    assert checkout_open(staleness) == open_


class Products:
    """Stands for what is behind PRODUCTS_URL: the service, or the sidecar in front of it."""

    def __init__(self) -> None:
        self.fields: dict[str, str] = {}
        self.status = 200
        self.views: asyncio.Queue[tuple[str, str]] = asyncio.Queue()

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/products/{id}", self._product)
        app.router.add_post("/products/{id}/views", self._view)
        return app

    async def _product(self, request: web.Request) -> web.Response:
        product = {"id": int(request.match_info["id"]), "name": "<Kettle>", "price": "24.90", "rating": 4.5}
        return web.json_response(product, status=self.status, headers=self.fields)

    async def _view(self, request: web.Request) -> web.Response:
        await self.views.put((request.match_info["id"], request.headers["Idempotency-Key"]))
        return web.Response(status=202)


@pytest.fixture
async def behind() -> AsyncIterator[tuple[Products, str]]:
    products = Products()
    server = TestServer(products.app())
    await server.start_server()
    yield products, str(server.make_url("/"))
    await server.close()


@pytest.fixture
async def shop(serve: Serve, behind: tuple[Products, str]) -> Client:
    return await serve(storefront.application(products_url=behind[1]))


AS_JSON = {"Accept": "application/json"}


async def test_a_page_shows_the_product_and_passes_the_fields_on(shop: Client, behind: tuple[Products, str]) -> None:
    behind[0].fields = {"Pulse-Staleness": "0.4;state=confirmed", "Cache-Status": "pulsecache; hit; ttl=9", "Age": "3"}
    page = await shop.request("GET", "/products/7")
    assert page.status == 200
    assert page.headers["pulse-staleness"] == "0.4;state=confirmed"
    assert (page.headers["cache-status"], page.headers["age"]) == ("pulsecache; hit; ttl=9", "3")
    assert b"&lt;Kettle&gt;" in page.body
    assert b"<Kettle>" not in page.body
    assert b"<button>Buy</button>" in page.body


async def test_an_exceeded_limit_shows_the_age_and_closes_the_checkout(
    shop: Client, behind: tuple[Products, str]
) -> None:
    behind[0].fields = {"Pulse-Staleness": "6.2;state=exceeded"}
    page = await shop.request("GET", "/products/7")
    assert b"Prices may be 7 s old." in page.body
    assert b"<button disabled>" in page.body
    model = json.loads((await shop.request("GET", "/products/7", headers=AS_JSON)).body)
    assert model["staleness"] == {"bound_s": 6.2, "state": "exceeded"}
    assert (model["checkout"], model["product"]["price"]) == (False, "24.90")


async def test_without_a_cache_it_is_a_page_like_any_other(shop: Client) -> None:
    model = json.loads((await shop.request("GET", "/products/7", headers=AS_JSON)).body)
    assert (model["staleness"], model["banner"], model["checkout"]) == (None, None, True)


async def test_each_page_counts_a_view_with_a_key_of_its_own(shop: Client, behind: tuple[Products, str]) -> None:
    for _ in range(2):
        await shop.request("GET", "/products/7")
    (one, first), (other, second) = [await asyncio.wait_for(behind[0].views.get(), 5) for _ in range(2)]
    assert one == other == "7"
    assert first != second


@pytest.mark.parametrize("status", [500, 503])
async def test_a_catalogue_in_trouble_is_said_and_not_hidden(
    shop: Client, behind: tuple[Products, str], status: int
) -> None:
    behind[0].status = status
    behind[0].fields = {"Pulse-Staleness": "unknown;state=exceeded"}
    page = await shop.request("GET", "/products/7")
    assert page.status == 503
    assert page.headers["pulse-staleness"] == "unknown;state=exceeded"
    assert b"not available" in page.body


async def test_a_product_that_is_not_there_is_not_found(shop: Client, behind: tuple[Products, str]) -> None:
    behind[0].status = 404
    assert (await shop.request("GET", "/products/7")).status == 404
    assert behind[0].views.empty()


async def test_nobody_behind_it_is_said_within_time(serve: Serve) -> None:
    shop = await serve(storefront.application(products_url="http://127.0.0.1:1"))
    assert (await shop.request("GET", "/products/7", headers=AS_JSON)).status == 503
    assert (await shop.request("GET", "/healthz")).status == 200
