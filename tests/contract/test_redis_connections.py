"""The process's connections, and a real Redis that hangs, is replaced, is full, or says too little."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from importlib.resources import files

import pytest

from eventually import eventually
from pulsecache_policy import hub_scripts
from pulsecache_sidecar.adapters.clock import SystemClock
from pulsecache_sidecar.adapters.redis_connections import RedisConnections
from pulsecache_sidecar.adapters.redis_hub import RedisHub
from pulsecache_sidecar.errors import HubError
from pulsecache_sidecar.ports import Flushed, HubSkipped, StoredObject
from redis_server import RedisServer


@pytest.fixture
async def own_server() -> AsyncIterator[RedisServer]:
    with RedisServer(persistent=True) as server:
        yield server


def connect(server: RedisServer, timeout_s: float = 5.0) -> RedisConnections:
    return RedisConnections(server.url, SystemClock(), timeout_s=timeout_s)


async def subscribed(connections: RedisConnections) -> tuple[RedisHub, str]:
    hub = RedisHub(connections, f"test/{secrets.token_hex(6)}")
    return hub, (await hub.subscribe(None)).epoch


async def test_a_call_ends_at_its_deadline_and_the_next_is_not_even_made(own_server: RedisServer) -> None:
    connections = connect(own_server, timeout_s=0.05)
    loop = asyncio.get_running_loop()

    async def begin() -> tuple[RedisHub, str] | None:
        try:
            return await subscribed(connections)
        except HubError:  # the machine is busy
            return None

    hub, epoch = await eventually(begin, "subscribed")
    own_server.pause()
    before = loop.time()
    with pytest.raises(HubError, match="no answer within"):
        await hub.get("k", epoch)
    assert loop.time() - before < 0.5
    with pytest.raises(HubSkipped):
        await hub.get("k", epoch)
    own_server.resume()
    await connections.aclose()


async def test_what_redis_refuses_is_no_sign_of_being_away(own_server: RedisServer) -> None:
    connections = connect(own_server)
    hub, epoch = await subscribed(connections)
    own_server.run("CONFIG", "SET", "maxmemory", "1")
    with pytest.raises(HubError, match="refused put"):
        await hub.put("k", epoch, StoredObject(b"x", ("a",), 1, 1), 60)
    assert connections.breaker.closed
    assert (await hub.change("p", epoch, ["a"]))[0] > 0
    await connections.aclose()


async def test_after_a_restart_no_call_is_made_before_a_subscription(own_server: RedisServer) -> None:
    connections = connect(own_server)
    hub, epoch = await subscribed(connections)
    position = await hub.sample(epoch)
    own_server.kill()
    own_server.start()
    for _ in range(3):
        with pytest.raises(HubError):
            await hub.change("p", epoch, ["a"])
    again = await hub.subscribe(None)
    assert again.epoch == epoch
    assert again.sequence == 0, "nothing was announced meanwhile"
    assert again.position >= position + 2**32
    assert (await hub.change("p", epoch, ["a"]))[0] > again.position
    await connections.aclose()


async def test_each_dataset_subscribes_for_itself_after_a_restart(own_server: RedisServer) -> None:
    connections = connect(own_server)
    (one, first), (two, second) = await subscribed(connections), await subscribed(connections)
    own_server.kill()
    own_server.start()
    with pytest.raises(HubError):
        await one.sample(first)
    await one.subscribe(None)
    await one.sample(first)
    with pytest.raises(HubError, match="subscribe again"):
        await two.sample(second)
    await two.subscribe(None)
    await two.sample(second)
    await connections.aclose()


async def test_a_connection_that_was_cut_is_made_anew_without_a_word(own_server: RedisServer) -> None:
    connections = connect(own_server)
    hub, epoch = await subscribed(connections)
    own_server.run("CLIENT", "KILL", "TYPE", "normal")

    async def works() -> bool:
        try:
            return await hub.sample(epoch) > 0
        except HubError:
            return False

    await eventually(works, "a sample")
    await connections.aclose()


async def test_a_redis_that_does_not_say_who_it_is_works_and_leaps_at_each_subscription(
    own_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    own_server.run("ACL", "SETUSER", "sidecar", "on", ">secret", "~*", "+@all", "-info")
    url = own_server.url.replace("redis://", "redis://sidecar:secret@")
    connections = RedisConnections(url, SystemClock(), timeout_s=5.0)
    hub, epoch = await subscribed(connections)
    assert "does not say who it is" in caplog.text
    first, second = await hub.subscribe(None), await hub.subscribe(None)
    assert (first.epoch, second.position - first.position) == (epoch, 2**32)
    await connections.aclose()


async def test_an_entry_of_a_later_version_flushes(own_server: RedisServer) -> None:
    connections = connect(own_server)
    hub, epoch = await subscribed(connections)
    snapshot = await hub.subscribe(None)
    name = hub_scripts.stream_key(hub._dataset)
    own_server.run("XADD", name, "1-5", "e", epoch, "p", "0-0", "k", "novelty", "s", snapshot.position + 1, "z", "?")
    (entry,) = await hub.read(snapshot.cursor, block_s=0.01)
    assert entry.event == Flushed(snapshot.position + 1)
    await connections.aclose()


@pytest.mark.parametrize("fields", [["k", "c"], ["e", "x", "p", "0-0", "k", "c", "s", "many", "t", "[]", "r", ""]])
async def test_an_entry_that_is_not_understood_at_all_is_an_error_of_the_hub(
    own_server: RedisServer, fields: list[str]
) -> None:
    connections = connect(own_server)
    hub, _ = await subscribed(connections)
    snapshot = await hub.subscribe(None)
    own_server.run("XADD", hub_scripts.stream_key(hub._dataset), "1-5", *fields)
    with pytest.raises(HubError, match="not understood"):
        await hub.read(snapshot.cursor, block_s=0.01)
    await connections.aclose()


def test_braces_in_a_dataset_are_refused() -> None:
    with pytest.raises(ValueError, match="braces"):
        RedisHub(None, "a/{b}")  # type: ignore[arg-type] # it gets no farther


def test_every_script_is_there_and_tells_how_it_is_called() -> None:
    folder = {file.name.removesuffix(".lua") for file in files(hub_scripts).iterdir() if file.name.endswith(".lua")}
    assert folder == {*hub_scripts.SCRIPTS, "common"}
    for name in hub_scripts.SCRIPTS:
        text = hub_scripts.script(name)
        assert f"-- {name}: " in text
        assert "--   ARGV: " in text
        assert "--   reply: " in text
        assert "local HUB, STREAM = KEYS[1], KEYS[2]" in text
        assert text.startswith("#!lua flags=") or name in ("put", "change_and_store")
    for name in hub_scripts.READ_ONLY:
        assert hub_scripts.script(name).startswith("#!lua flags=no-writes")
