"""A real redis-server on loopback, on a free port, ended by its pid.

with RedisServer() as redis: ... redis.url ...
redis.pause() / redis.resume()      SIGSTOP: it answers nothing, and its connections stay
redis.kill() / redis.start()        kill -9; started again on the same port, empty unless `persistent`
redis.run("FLUSHALL")               one command on a connection of its own
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import redis as redis_client

START_TIMEOUT_S = 10.0


class RedisServer:
    """`options`: further settings, as `{"maxmemory": "10mb"}`. `persistent`: an append-only file with an fsync per
    write."""

    def __init__(
        self, *, password: str | None = None, persistent: bool = False, options: dict[str, str] | None = None
    ) -> None:
        self.port = _free_port()
        self.password = password
        self._options = {"appendonly": "yes", "appendfsync": "always"} if persistent else {"appendonly": "no"}
        self._options |= {"save": "", **({"requirepass": password} if password else {}), **(options or {})}
        self._folder = Path(tempfile.mkdtemp(prefix="pulsecache-redis-"))
        self._copy = self._folder / "copy"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        credentials = f":{self.password}@" if self.password else ""
        return f"redis://{credentials}127.0.0.1:{self.port}/0"

    def start(self) -> None:
        program = shutil.which("redis-server")
        if program is None:
            raise RuntimeError("redis-server is missing: install the package redis-server")
        flags = [part for name, value in self._options.items() for part in (f"--{name}", value)]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [program, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._folder), *flags],
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            with contextlib.suppress(redis_client.RedisError, OSError):
                if self.run("PING"):
                    return
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"redis-server does not answer: {(self._folder / 'log').read_text()[-2000:]}")
            time.sleep(0.01)  # between two attempts to connect

    def run(self, *command: Any) -> Any:
        with redis_client.Redis(port=self.port, password=self.password, socket_timeout=5, protocol=2) as client:
            return client.execute_command(*command)

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """As a crash: no shutdown, nothing is saved."""
        self._signal(signal.SIGKILL)
        assert self._process is not None
        self._process.wait(START_TIMEOUT_S)
        self._process = None

    def remember(self) -> None:
        """Keeps a copy of what a `persistent` server has on disk."""
        shutil.rmtree(self._copy, ignore_errors=True)
        shutil.copytree(self._folder / "appendonlydir", self._copy)

    def restore(self) -> None:
        """While it does not run: puts that copy in the place of what is on disk."""
        shutil.rmtree(self._folder / "appendonlydir", ignore_errors=True)
        shutil.copytree(self._copy, self._folder / "appendonlydir")

    def stop(self) -> None:
        if self._process is not None:
            self.resume()
            self._process.terminate()
            try:
                self._process.wait(START_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.kill()
        self._process = None
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> RedisServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _signal(self, number: signal.Signals) -> None:
        if self._process is None:
            raise RuntimeError("redis-server does not run")
        self._process.send_signal(number)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert isinstance(port, int)
    return port
