"""The example shop's programs in the process of a test, on loopback.

A conftest.py says `from shop_world import postgres as postgres, serve as serve`; importing this module is also what
makes `import shop` work.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from postgres_server import PostgresServer, program

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples" / "shop"))

from shop.client import Client

Serve = Callable[[web.Application], Awaitable[Client]]


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    if program("postgres") is None:
        pytest.skip("PostgreSQL is missing: install the package postgresql")
    with PostgresServer() as server:
        yield server


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Serves an application on loopback and gives a client of it."""
    async with AsyncExitStack() as stack:

        async def start(app: web.Application) -> Client:
            server = TestServer(app)
            await server.start_server()
            stack.push_async_callback(server.close)
            assert server.port is not None
            return await stack.enter_async_context(Client("127.0.0.1", server.port))

        yield start
