"""The service `products`, on both of its databases: what a cache in front of it may rely on."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from eventually import eventually
from postgres_server import PostgresServer
from shop import products
from shop.client import Client, Response
from shop_world import Serve

PRODUCT = "/products/7"
NEW = {"name": "Kettle", "price": "24.90", "description": "Boils water."}


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/shop.sqlite"
    postgres: PostgresServer = request.getfixturevalue("postgres")
    empty(postgres)
    return postgres.url


def empty(postgres: PostgresServer) -> None:
    postgres.ask("DROP SCHEMA public CASCADE; CREATE SCHEMA public")


async def start(serve: Serve, database: str, **settings: Any) -> Client:
    app = products.application(database=database, **{"query_delay_s": 0.0, "cache_control": None} | settings)
    client = await serve(app)
    await eventually(lambda: ready(client), "ready")
    return client


async def ready(client: Client) -> bool:
    return (await client.request("GET", "/readyz")).status == 200


@pytest.fixture
async def shop(serve: Serve, database: str) -> Client:
    return await start(serve, database)


async def send(client: Client, method: str, path: str, document: object, **headers: str) -> Response:
    fields = {"Content-Type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return await client.request(method, path, headers=fields, body=body)


async def test_the_answer_to_a_put_is_what_a_get_then_gives(shop: Client) -> None:
    """Write-through with `from: ResponseBody` rests on this, to the byte."""
    put = await send(shop, "PUT", PRODUCT, NEW)
    got = await shop.request("GET", PRODUCT)
    assert put.status == got.status == 200
    assert put.body == got.body
    assert put.headers["etag"] == got.headers["etag"]
    assert json.loads(got.body).items() >= {**NEW, "id": 7, "version": 2}.items()


async def test_patch_changes_the_named_fields_only(shop: Client) -> None:
    before = json.loads((await shop.request("GET", PRODUCT)).body)
    patched = json.loads((await send(shop, "PATCH", PRODUCT, {"price": 3})).body)
    changed = {name for name in before if before[name] != patched[name]}
    assert changed == {"price", "version", "updated_at"}
    assert patched["price"] == "3.00"


async def test_the_origin_says_nothing_of_freshness_unless_told_to(serve: Serve, database: str) -> None:
    silent = await (await start(serve, database)).request("GET", PRODUCT)
    assert not {"cache-control", "expires", "age"} & set(silent.headers)
    speaking = await start(serve, database, cache_control="max-age=5")
    assert (await speaking.request("GET", PRODUCT)).headers["cache-control"] == "max-age=5"


async def test_a_conditional_request_is_cheap_as_long_as_nothing_changed(shop: Client) -> None:
    etag = (await shop.request("GET", PRODUCT)).headers["etag"]
    unchanged = await shop.request("GET", PRODUCT, headers={"If-None-Match": etag})
    assert (unchanged.status, unchanged.body, unchanged.headers["etag"]) == (304, b"", etag)
    await send(shop, "PUT", PRODUCT, NEW)
    changed = await shop.request("GET", PRODUCT, headers={"If-None-Match": etag})
    assert changed.status == 200
    assert changed.headers["etag"] != etag
    stats = json.loads((await shop.request("GET", "/stats")).body)
    assert stats["queries"] == {"costly": 2, "cheap": 2, "writes": 1, "views": 0}


async def test_a_write_on_a_version_that_is_gone_is_refused(shop: Client) -> None:
    etag = (await shop.request("GET", PRODUCT)).headers["etag"]
    assert (await send(shop, "PUT", PRODUCT, NEW, If_Match=etag)).status == 200
    refused = await send(shop, "PUT", PRODUCT, NEW, If_Match=etag)
    assert refused.status == 412
    assert json.loads(refused.body)["detail"] == "product 7 has version 2, not 1"
    assert (await send(shop, "PUT", PRODUCT, NEW, If_Match="*")).status == 200
    assert (await send(shop, "PUT", PRODUCT, NEW, If_Match='"of-another-thing"')).status == 412


async def test_the_list_has_every_product(shop: Client) -> None:
    listed = json.loads((await shop.request("GET", "/products")).body)["products"]
    assert [product["id"] for product in listed] == list(range(1, 101))
    assert listed[6] == {"id": 7, "name": "Product 7", "price": "17.00"}


@pytest.mark.parametrize(
    ("method", "document", "said"),
    [
        ("PUT", {"name": "Kettle", "price": "1"}, "description: missing"),
        ("PUT", [], "expected a JSON object"),
        ("PUT", b"{", "the body is not JSON"),
        ("PUT", b"\xff", "the body is not JSON"),
        ("PATCH", {}, "nothing to change"),
        ("PATCH", {"colour": "red"}, "nothing to change"),
        ("PATCH", {"name": ""}, "name: expected a text"),
        ("PATCH", {"name": "a\0b"}, "name: expected a text"),
        ("PATCH", {"price": "-1"}, "price: expected an amount"),
        ("PATCH", {"price": "NaN"}, "price: expected an amount"),
        ("PATCH", {"price": "Infinity"}, "price: expected an amount"),
        ("PATCH", {"price": "1e999999"}, "price: expected an amount"),
        ("PATCH", {"price": "1e9"}, "price: expected an amount"),
        ("PATCH", {"price": "99999999.999"}, "price: expected an amount"),
        ("PATCH", {"price": True}, "price: expected an amount"),
        ("PATCH", {"price": {}}, "price: expected an amount"),
    ],
)
async def test_a_bad_document_is_refused_with_the_field(shop: Client, method: str, document: object, said: str) -> None:
    before = (await shop.request("GET", PRODUCT)).body
    refused = await send(shop, method, PRODUCT, document)
    assert refused.status == 422
    assert refused.headers["content-type"].startswith("application/problem+json")
    assert said in json.loads(refused.body)["detail"]
    assert (await shop.request("GET", PRODUCT)).body == before


@pytest.mark.parametrize("number", ["0", "101", "9999999999"])
async def test_what_does_not_exist_is_not_found(shop: Client, number: str) -> None:
    assert (await shop.request("GET", f"/products/{number}")).status == 404
    assert (await send(shop, "PUT", f"/products/{number}", NEW)).status == 404
    assert (await shop.request("POST", f"/products/{number}/views")).status == 404
    assert (await shop.request("GET", f"/products/{number}/views")).status == 404


# --- views -----------------------------------------------------------------------------------------------------


async def look(client: Client, key: str, seq: int, path: str = PRODUCT) -> Response:
    return await send(client, "POST", f"{path}/views", {"seq": seq}, Idempotency_Key=key)


async def test_a_view_is_counted_once_however_often_it_is_delivered(shop: Client) -> None:
    for attempt in (1, 2, 3):
        answer = json.loads((await look(shop, "key-a", 1)).body)
        assert answer == {"product": 7, "views": 1, "attempts": attempt}


async def test_views_are_listed_in_the_order_of_their_commit(shop: Client) -> None:
    for seq in range(5):
        await look(shop, f"key-{seq}", seq)
    await look(shop, "key-2", 2)
    listed = json.loads((await shop.request("GET", f"{PRODUCT}/views")).body)
    assert listed["views"] == 5
    assert [event["seq"] for event in listed["events"]] == [0, 1, 2, 3, 4]
    assert [event["attempts"] for event in listed["events"]] == [1, 1, 2, 1, 1]
    after = listed["events"][2]["id"]
    rest = json.loads((await shop.request("GET", f"{PRODUCT}/views?after={after}&limit=1")).body)
    assert [event["seq"] for event in rest["events"]] == [3]


async def test_replicas_that_get_the_same_view_count_it_once(serve: Serve, database: str) -> None:
    replicas = [await start(serve, database) for _ in range(3)]
    for seq in range(10):
        answers = await asyncio.gather(*(look(replica, f"key-{seq}", seq) for replica in replicas))
        assert sorted(json.loads(answer.body)["attempts"] for answer in answers) == [1, 2, 3]
    listed = json.loads((await replicas[2].request("GET", f"{PRODUCT}/views")).body)
    assert listed["views"] == len(listed["events"]) == 10


async def test_replicas_that_write_at_once_lose_no_view(serve: Serve, database: str) -> None:
    replicas = [await start(serve, database) for _ in range(3)]

    async def many(replica: Client, name: str) -> None:
        for seq in range(20):
            assert (await look(replica, f"{name}-{seq}", seq)).status == 200

    await asyncio.gather(*(many(replica, f"r{i}") for i, replica in enumerate(replicas)))
    listed = json.loads((await replicas[0].request("GET", f"{PRODUCT}/views")).body)
    assert listed["views"] == len(listed["events"]) == 60
    for i in range(3):
        own = [e["seq"] for e in listed["events"] if e["idempotency_key"].startswith(f"r{i}-")]
        assert own == list(range(20)), "each sender's order is kept"


async def test_a_view_without_a_key_is_one_more(shop: Client) -> None:
    answers = [await shop.request("POST", f"{PRODUCT}/views") for _ in range(2)]
    assert [json.loads(answer.body)["views"] for answer in answers] == [1, 2]


@pytest.mark.parametrize(
    ("key", "seq"), [("", 1), ("k" * 256, 1), ("key", -1), ("key", "1"), ("key", True), ("key", 2**31)]
)
async def test_a_bad_view_is_refused(shop: Client, key: str, seq: Any) -> None:
    assert (await look(shop, key, seq)).status == 422


# --- several replicas, and a database that goes away -----------------------------------------------------------


async def test_replicas_that_start_together_make_one_catalogue(serve: Serve, database: str) -> None:
    apps = [products.application(database=database, query_delay_s=0.0, cache_control=None) for _ in range(4)]
    clients = await asyncio.gather(*(serve(app) for app in apps))
    for client in clients:
        await eventually(partial(ready, client), "ready")
    bodies = {(await client.request("GET", PRODUCT)).body for client in clients}
    assert len(bodies) == 1
    assert json.loads(bodies.pop())["reviews"] == 200


async def test_a_write_on_one_replica_is_read_on_the_other(serve: Serve, database: str) -> None:
    one, other = [await start(serve, database) for _ in range(2)]
    written = await send(one, "PUT", PRODUCT, NEW)
    assert (await other.request("GET", PRODUCT)).body == written.body


async def test_a_costly_read_takes_as_long_as_it_was_told_to(serve: Serve, database: str) -> None:
    slow = await start(serve, database, query_delay_s=0.3)
    loop = asyncio.get_running_loop()
    begun = loop.time()
    await slow.request("GET", PRODUCT)
    assert loop.time() - begun >= 0.3


async def test_costly_queries_are_counted_for_all_replicas_together(serve: Serve, postgres: PostgresServer) -> None:
    empty(postgres)
    replicas = [await start(serve, postgres.url) for _ in range(2)]
    for replica in replicas:
        await replica.request("GET", PRODUCT)
        await replica.request("GET", "/products")
    stats = json.loads((await replicas[0].request("GET", "/stats")).body)
    assert stats["costly_queries_of_all_replicas"] == 4
    assert stats["queries"]["costly"] == 2


async def test_while_the_database_is_away_the_pod_stays_in_its_service(serve: Serve, postgres: PostgresServer) -> None:
    """What is in the caches can still be served, and views can still be taken, only through pods that are ready."""
    empty(postgres)
    shop = await start(serve, postgres.url)
    before = (await shop.request("GET", PRODUCT)).body
    postgres.stop()
    try:
        answer = await shop.request("GET", PRODUCT)
        assert answer.status == 503
        assert answer.headers["retry-after"] == "1"
        assert "PostgreSQL" in json.loads(answer.body)["detail"]
        for check in ("/healthz", "/readyz"):
            assert (await shop.request("GET", check)).status == 200
        assert json.loads((await shop.request("GET", "/stats")).body)["costly_queries_of_all_replicas"] is None
    finally:
        postgres.start()

    async def back() -> bool:
        return (await shop.request("GET", PRODUCT)).body == before

    await eventually(back, "the database answers again")


async def test_a_database_that_comes_back_empty_is_filled_again(serve: Serve, postgres: PostgresServer) -> None:
    empty(postgres)
    shop = await start(serve, postgres.url)
    empty(postgres)
    assert (await shop.request("GET", PRODUCT)).status == 503

    async def back() -> bool:
        return (await shop.request("GET", PRODUCT)).status == 200

    await eventually(back, "the database answers again")


async def test_nobody_is_ready_before_the_database_was_reached_once(serve: Serve) -> None:
    early = await serve(
        products.application(database="postgresql://shop@127.0.0.1:1/shop", query_delay_s=0.0, cache_control=None)
    )
    assert (await early.request("GET", "/readyz")).status == 503
    assert (await early.request("GET", "/healthz")).status == 200
