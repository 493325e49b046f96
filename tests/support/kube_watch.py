"""For tests that watch a real API server: a client through a proxy, and a server that is restarted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.config import load_kube_config

from apiserver import ApiServer, kubectl
from tcp_proxy import TcpProxy, tcp_proxy


@asynccontextmanager
async def client_of(server: ApiServer, *, through: TcpProxy | None = None) -> AsyncIterator[ApiClient]:
    configuration = Configuration()
    load: Any = load_kube_config
    await load(config_file=str(server.kubeconfig), client_configuration=configuration)
    if through is not None:
        configuration.host = f"https://127.0.0.1:{through.port}"
    async with ApiClient(configuration) as client:
        yield client


@asynccontextmanager
async def proxy_to(server: ApiServer) -> AsyncIterator[TcpProxy]:
    address = urlsplit(server.url)
    assert address.hostname is not None
    assert address.port is not None
    async with tcp_proxy(address.hostname, address.port) as proxy:
        yield proxy


async def kill_and_restart(server: ApiServer) -> None:
    """kill -9 of the API server, etcd stays; returns when the new one says that it is ready."""
    from onenode.process import Process, spawn  # on the path by now: `apiserver` put it there

    directory = server.ca.parent.parent
    record, log = directory / "kube-apiserver.pid", directory / "kube-apiserver.log"
    process = Process.recorded(record)
    assert process is not None
    words = _command_line(process.pid)
    process.end(0)
    # In this thread: it is the thread whose end ends the server.
    spawn(words, record=record, log=log, with_parent=True)
    deadline = time.monotonic() + 60.0
    while (await asyncio.to_thread(kubectl, server, "get", "--raw", "/readyz")).returncode != 0:
        assert time.monotonic() < deadline, log.read_text()[-2000:]
        await asyncio.sleep(0.1)


def _command_line(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode().rstrip("\0").split("\0")
