"""The whole data path over real sockets: hits, misses, writes, and many users at once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from policies import policy as policy_of
from pulsecache_policy.match import CompiledPolicy
from pulsecache_sidecar.adapters.clock import SystemClock
from pulsecache_sidecar.adapters.local_hub import LocalHub
from pulsecache_sidecar.engine.coherence import Coherence
from pulsecache_sidecar.engine.exchange import Exchange
from pulsecache_sidecar.engine.memory import MemoryStore
from pulsecache_sidecar.engine.serving import Serving
from wire import Ignored, Listening, Received, Script, ScriptedOrigin, listening, origin_of, plain, until

READS = [
    {
        "name": "product",
        "match": {"path": "/products/{id}"},
        "ttl": {"source": "OriginFirst", "duration": "60s"},
        "tags": ["products"],
    }
]
WRITES = [
    {
        "name": "update",
        "match": {"methods": ["PUT"], "path": "/products/{id}"},
        "strategy": "WriteThrough",
        "writeThrough": {"read": "product"},
        "invalidates": ["products"],
    }
]


@asynccontextmanager
async def caching(script: Script, **spec: Any) -> AsyncIterator[tuple[Listening, ScriptedOrigin, MemoryStore]]:
    policy = policy_of(**{"reads": READS, "writes": WRITES, "staleness": {"max": "5s", "writers": "All"}, **spec})
    clock = SystemClock()
    coherence = Coherence(
        policy.dataset,
        policy.staleness,
        LocalHub(clock, covered=True),
        publisher_id="here",
        publishes=True,
        clock=clock,
        observer=Ignored(),
    )
    memory = MemoryStore(policy.memory_max_bytes)
    serving = Serving(CompiledPolicy.compile(policy), coherence, memory)
    await coherence.start()
    async with ScriptedOrigin(script).running() as origin:
        http_origin = origin_of(origin)
        exchange = Exchange(http_origin, lambda: serving, clock=clock, observer=Ignored(), policy=policy.key)
        async with listening(exchange) as front:
            try:
                yield front, origin, memory
            finally:
                await exchange.aclose(1.0)
                await http_origin.aclose()
    await coherence.stop()


async def shop(request: Received, writer: asyncio.StreamWriter) -> None:
    writer.write(plain(f"{request.target} {request.body.decode()}".encode(), 'ETag: "v1"'))
    await writer.drain()


async def test_a_hit_needs_no_origin_and_says_so() -> None:
    async with caching(shop) as (front, origin, _):
        client = await front.client()
        miss = await client.get("/products/1")
        hit = await client.get("/products/1")
        head = await client.get("/products/1", method="HEAD")
        unchanged = await client.get("/products/1", 'If-None-Match: "v1"')
        again = await client.get("/products/1")
    assert miss["cache-status"] == "pulsecache; fwd=miss; stored"
    for answer in (hit, head, unchanged, again):
        assert (answer["cache-status"] or "").startswith("pulsecache; hit; ttl=")
        assert answer["pulse-staleness"]
        assert answer["age"] is not None
    assert (hit.body, hit["content-length"]) == (miss.body, str(len(miss.body)))
    assert (head.body, head["content-length"]) == (b"", str(len(miss.body)))
    assert (unchanged.status, unchanged.body, unchanged["content-length"]) == (304, b"", None)
    assert len(origin.requests) == 1


async def test_pipelined_hits_and_misses_are_answered_in_order() -> None:
    async with caching(shop) as (front, origin, _):
        client = await front.client()
        targets = [f"/products/{n % 7}" if n % 3 else f"/other/{n}" for n in range(200)]
        client.write(b"".join(f"GET {target} HTTP/1.1\r\nHost: shop.test\r\n\r\n".encode() for target in targets))
        bodies = [(await client.answer()).body.decode().strip() for _ in targets]
    assert bodies == targets
    assert len([request for request in origin.requests if request.target.startswith("/products")]) == 7


async def test_a_reader_that_reads_nothing_does_not_fill_the_memory_with_answers() -> None:
    async def large(request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(plain(b"x" * 500_000))
        await writer.drain()

    async with caching(large) as (front, _, _memory):
        client = await front.client()
        await client.get("/products/1")
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # it is a whole transport
        client.write(b"GET /products/1 HTTP/1.1\r\nHost: shop.test\r\n\r\n" * 60)
        connection = next(iter(front.server._connections))
        await until(lambda: not connection._gate.is_open, "the client's buffer is full")
        assert connection.transport.get_write_buffer_size() < 2_000_000
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        for _ in range(60):
            assert len((await client.answer()).body) == 500_000


async def test_a_write_is_read_back() -> None:
    async with caching(shop) as (front, origin, _):
        client = await front.client()
        for value in (b"one", b"two"):
            await client.get("/products/1")
            written = await client.get("/products/1", method="PUT", body=value)
            assert written["cache-status"] == "pulsecache; fwd=method; stored"
            assert (await client.get("/products/1")).body == b"/products/1 " + value
    assert [request.method for request in origin.requests] == ["GET", "PUT", "PUT"]


async def test_a_body_that_breaks_off_is_a_clear_error_and_is_asked_for_again() -> None:
    broken = True

    async def script(request: Received, writer: asyncio.StreamWriter) -> None:
        if broken:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
            await writer.drain()
            writer.close()
            return
        writer.write(plain(b"whole"))
        await writer.drain()

    async with caching(script) as (front, _, memory):
        client = await front.client()
        answer = await client.get("/products/1")
        assert (answer.status, len(memory)) == (502, 0)
        broken = False
        assert (await client.get("/products/1")).body == b"whole"


async def test_users_never_see_each_others_answers() -> None:
    """Interleaved over keep-alive connections, with credentials of all kinds and none; each body names who asked."""

    async def personal(request: Received, writer: asyncio.StreamWriter) -> None:
        who = request["authorization"] or request["cookie"] or "nobody"
        fields = {
            "/products/plain": [],
            "/products/private": ["Cache-Control: private, max-age=60"],
            "/products/vary": ["Vary: Authorization, Cookie"],
            "/products/session": ["Set-Cookie: sid=new"],
            "/mine/a": [],
            "/mine/b": ["Cache-Control: max-age=60"],
        }[request.target]
        writer.write(plain(who.encode(), *fields))
        await writer.drain()

    mine = {
        "name": "mine",
        "match": {"path": "/mine/{id}"},
        "ttl": {"source": "Policy", "duration": "60s"},
        "key": {"principal": {"type": "Header", "name": "Authorization"}},
    }
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    async with caching(personal, reads=[*READS, mine], writes=[]) as (front, origin, _):
        clients = [await front.client() for _ in range(4)]

        async def one(client: Any, count: int) -> None:
            for _ in range(count):
                who = chance.choice(["nobody", "alice", "bob", "sid=1", "sid=2"])
                fields = []
                if who in ("alice", "bob"):
                    fields = [f"Authorization: {who}"]
                elif who != "nobody":
                    fields = [f"Cookie: {who}"]
                target = chance.choice(
                    [
                        "/products/plain",
                        "/products/private",
                        "/products/vary",
                        "/products/session",
                        "/mine/a",
                        "/mine/b",
                    ]
                )
                answer = await client.get(target, *fields)
                assert answer.body.decode() == who, f"{target} for {who} brought {answer.body!r} (seed {seed})"

        await asyncio.gather(*(one(client, 300) for client in clients))
        assert len(origin.requests) < 1200, f"nothing was ever a hit (seed {seed})"


async def test_the_origin_gone_and_back() -> None:
    async with caching(shop) as (front, origin, _):
        client = await front.client()
        assert (await client.get("/products/1")).status == 200
        origin.script = _hang_up
        assert (await client.get("/products/2")).status == 502
        assert (await client.get("/products/1")).status == 200
        origin.script = shop
        assert (await client.get("/products/2")).status == 200


async def _hang_up(request: Received, writer: asyncio.StreamWriter) -> None:
    writer.close()
