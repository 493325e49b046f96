from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Protocol

import pytest

from pulsecache_sidecar.adapters.clock import SystemClock
from pulsecache_sidecar.adapters.local_hub import LocalHub
from pulsecache_sidecar.adapters.redis_connections import RedisConnections
from pulsecache_sidecar.adapters.redis_hub import RedisHub
from redis_server import RedisServer

AnyHub = LocalHub | RedisHub


class MakeHub(Protocol):
    def __call__(self, **settings: Any) -> AnyHub: ...


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
async def connections(redis_server: RedisServer) -> AsyncIterator[RedisConnections]:
    # Other programs share the machine: what is tested here is answers, not deadlines.
    opened = RedisConnections(redis_server.url, SystemClock(), timeout_s=5.0)
    yield opened
    await opened.aclose()


@pytest.fixture(params=["local", "redis"])
def make_hub(request: pytest.FixtureRequest, connections: RedisConnections) -> MakeHub:
    """Hubs of a dataset of their own, as after a Redis that nobody has used yet."""

    def make(**settings: Any) -> AnyHub:
        if request.param == "local":
            return LocalHub(SystemClock(), covered=True, first=False, max_objects=100, **settings)
        return RedisHub(connections, f"test/{secrets.token_hex(8)}", **settings)

    return make


@pytest.fixture
def hub(make_hub: MakeHub) -> AnyHub:
    return make_hub()


@pytest.fixture
def another_server(redis_server: RedisServer) -> Callable[[AnyHub], None]:
    """What a hub holds was written on another server than the one that answers now."""

    def change(hub: AnyHub) -> None:
        if isinstance(hub, LocalHub):
            hub.server = "another"
        else:
            redis_server.run("HSET", hub._keys[0], "server", "another")

    return change
