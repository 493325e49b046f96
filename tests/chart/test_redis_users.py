"""The chart's redis.conf and users.acl in a real Redis: the two users may do what the programs do, and nothing else."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis

from helm import ROOT, Helm, find
from pulsecache_policy.hub_scripts import SCRIPTS, script
from pulsecache_sidecar.adapters.clock import SystemClock
from pulsecache_sidecar.adapters.redis_connections import RedisConnections
from pulsecache_sidecar.adapters.redis_hub import RedisHub
from pulsecache_sidecar.ports import StoredObject

pytestmark = pytest.mark.api  # needs helm, which is built beside the API server

PASSWORDS = {"operator": "operator-password-0001", "sidecar": "sidecar-password-00001"}
VALUES = {"redis": {"auth": {f"{user}Password": password for user, password in PASSWORDS.items()}, "maxmemory": "32mb"}}
EXAMINER = "user examiner on nopass ~* &* +@all"
"""Besides the chart's users, to ask Redis what they may do."""


@dataclass(frozen=True)
class Server:
    port: int

    def client(self, user: str | None, password: str | None = None) -> redis.Redis:
        return redis.Redis(port=self.port, username=user, password=password, protocol=2, socket_timeout=5)

    def url(self, user: str) -> str:
        return f"redis://{user}:{PASSWORDS[user]}@127.0.0.1:{self.port}/0"

    def allows(self, user: str, *command: str) -> bool:
        with self.client("examiner", "any") as examiner:
            return bool(examiner.execute_command("ACL", "DRYRUN", user, *command) == b"OK")


@pytest.fixture(scope="module")
def server(helm: Helm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder: Path = tmp_path_factory.mktemp("redis")
    documents = helm.render(VALUES)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    users = find(documents, "Secret", "pulsecache-redis-server")["stringData"]["users.acl"]
    (folder / "users.acl").write_text(f"{users.strip()}\n{EXAMINER}\n")
    configuration = find(documents, "ConfigMap", "pulsecache-redis")["data"]["redis.conf"]
    for there, here in (
        ("/etc/pulsecache-redis-users/users.acl", str(folder / "users.acl")),
        ("dir /data", f"dir {folder}"),
        ("port 6379", f"port {port}"),
        ("bind * -::*", "bind 127.0.0.1"),
    ):
        assert there in configuration
        configuration = configuration.replace(there, here)
    (folder / "redis.conf").write_text(configuration)
    program = shutil.which("redis-server")
    assert program, "redis-server is missing: install the package redis-server"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program, str(folder / "redis.conf")], stdout=log, stderr=log)
    try:
        wait_until_open(port, process, folder / "log")
        yield Server(port)
    finally:
        process.terminate()
        process.wait(10)


def wait_until_open(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline, pause = time.monotonic() + 10, threading.Event()
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        pause.wait(0.02)
    raise AssertionError(f"redis-server does not start: {log.read_text()[-2000:]}")


def test_nobody_gets_in_without_a_password(server: Server) -> None:
    with server.client(None) as anonymous, pytest.raises(redis.AuthenticationError):
        anonymous.ping()
    with server.client("sidecar", PASSWORDS["operator"]) as wrong, pytest.raises(redis.AuthenticationError):
        wrong.ping()


@pytest.mark.parametrize("user", PASSWORDS)
def test_a_client_library_connects_without_complaint(server: Server, user: str) -> None:
    with redis.Redis.from_url(server.url(user), client_name="pod") as client:
        assert client.ping()


@pytest.mark.parametrize("user", PASSWORDS)
@pytest.mark.parametrize("name", SCRIPTS)
def test_every_command_of_every_script_is_allowed(server: Server, user: str, name: str) -> None:
    commands = set(re.findall(r"redis\.p?call\(\s*'(\w+)'", script(name)))
    assert commands
    key = "pc:{shop/products}:hub"
    arguments = {"HSET": ("f", "v"), "HGET": ("f",), "HMGET": ("f",), "HDEL": ("f",), "HEXISTS": ("f",)} | {
        "HINCRBY": ("f", "1"),
        "XADD": ("*", "f", "v"),
        "XRANGE": ("-", "+"),
        "XDEL": ("1-1",),
        "PEXPIRE": ("1000",),
    }
    for command in commands:
        assert server.allows(user, command, key, *arguments.get(command, ())), command


@pytest.fixture
async def hub(server: Server) -> AsyncIterator[RedisHub]:
    connections = RedisConnections(server.url("sidecar"), SystemClock(), timeout_s=5.0)
    yield RedisHub(connections, "shop/products")
    await connections.aclose()


async def test_a_sidecar_can_do_its_work(hub: RedisHub) -> None:
    start = await hub.subscribe(None)
    await hub.join("pod.1", start.epoch, start.position)
    await hub.beat("pod.1", start.epoch, start.position)
    stamp, _ = await hub.change("pod.1", start.epoch, ["product:1"])
    stored = StoredObject(b"{}", ("product:1",), valid=stamp, includes=stamp)
    assert await hub.put("GET /products/1", start.epoch, stored, 60.0)
    found, _ = await hub.get("GET /products/1", start.epoch)
    assert found is not None
    assert await hub.read(start.cursor, block_s=0.01)
    await hub.leave("pod.1", start.epoch)


def of_the_programs(folder: str) -> set[str]:
    """Commands that the programs send besides scripts, as far as their text shows."""
    text = "".join(path.read_text() for path in (ROOT / folder).rglob("*.py"))
    names = (
        "hset|hget|hgetall|hmget|hdel|hkeys|hlen|xread|xrange|xlen|xinfo_stream|delete|unlink|exists|expire|scan|info"
    )
    found = set(re.findall(rf"redis\w*\.({names})\(", text)) | set(re.findall(rf"client\.({names})\(", text))
    return {{"delete": "del", "xinfo_stream": "xinfo"}.get(name, name) for name in found}


@pytest.mark.parametrize(
    ("user", "folder"), [("sidecar", "sidecar/pulsecache_sidecar"), ("operator", "operator/pulsecache_operator")]
)
def test_what_the_programs_send_themselves_is_allowed(server: Server, user: str, folder: str) -> None:
    shapes: dict[str, tuple[str, ...]] = {
        "hset": ("k", "f", "v"),
        "hget": ("k", "f"),
        "hmget": ("k", "f"),
        "hdel": ("k", "f"),
        "xread": ("STREAMS", "k", "0"),
        "xrange": ("k", "-", "+"),
        "xinfo": ("STREAM", "k"),
        "expire": ("k", "1"),
        "scan": ("0",),
        "info": (),
    }
    for command in of_the_programs(folder):
        shape = tuple("pc:{shop/products}:pods" if part == "k" else part for part in shapes.get(command, ("k",)))
        assert server.allows(user, command, *shape), command


REFUSED: tuple[tuple[Any, ...], ...] = (
    ("FLUSHALL",),
    ("FLUSHDB",),
    ("KEYS", "*"),
    ("CONFIG", "GET", "*"),
    ("ACL", "LIST"),
    ("CLIENT", "LIST"),
    ("CLIENT", "KILL", "TYPE", "normal"),
    ("FUNCTION", "LOAD", "#!lua name=f\n"),
    ("SCRIPT", "FLUSH"),
    ("DEBUG", "SLEEP", "1"),
    ("SHUTDOWN",),
    ("REPLICAOF", "NO", "ONE"),
    ("MONITOR",),
    ("SUBSCRIBE", "channel"),
    ("PUBLISH", "channel", "message"),
    ("GET", "of-somebody-else"),
    ("HGETALL", "of-somebody-else"),
    ("EVAL", "return redis.call('GET', KEYS[1])", "1", "of-somebody-else"),
    ("MODULE", "LIST"),
    ("MIGRATE", "10.0.0.1", "6379", "pc:x", "0", "1"),
    ("RESTORE", "pc:x", "0", "x"),
)


@pytest.mark.parametrize("user", PASSWORDS)
@pytest.mark.parametrize("command", REFUSED, ids=lambda command: " ".join(command[:2]))
def test_everything_else_is_refused(server: Server, user: str, command: tuple[Any, ...]) -> None:
    assert not server.allows(user, *command)


def test_a_sidecar_cannot_list_what_others_keep(server: Server) -> None:
    assert not server.allows("sidecar", "SCAN", "0")
    assert not server.allows("sidecar", "INFO")


def test_a_script_does_not_reach_further_than_its_user(server: Server) -> None:
    with (
        server.client("sidecar", PASSWORDS["sidecar"]) as client,
        pytest.raises(redis.ResponseError, match="can't run this command"),
    ):
        client.eval("return redis.call('FLUSHALL')", 0)


def test_the_order_of_changes_is_never_evicted(server: Server) -> None:
    """Objects have a lifetime, and only what has one may go."""
    with server.client("examiner", "any") as examiner:
        assert examiner.config_get("maxmemory-policy") == {"maxmemory-policy": "volatile-lru"}
        assert examiner.config_get("maxmemory") == {"maxmemory": str(32 * 1024 * 1024)}
