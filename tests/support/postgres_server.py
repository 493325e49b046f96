"""A real PostgreSQL on loopback, on a free port, ended by its pid. As root it runs as the user `postgres`.

with PostgresServer() as database: ... database.url ...
database.stop() / database.start()      at once, as in a crash; started again with what was committed
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

BIN = Path("/usr/lib/postgresql/15/bin")


def program(name: str) -> str | None:
    """Where a program of PostgreSQL is: Debian keeps them away from PATH."""
    return shutil.which(name, path=os.pathsep.join([str(BIN), os.environ.get("PATH", "")]))


def unprivileged() -> dict[str, Any]:
    """For subprocess: PostgreSQL does not run as root."""
    if os.geteuid() != 0:
        return {}
    user = pwd.getpwnam("postgres")
    return {"user": user.pw_uid, "group": user.pw_gid}


class PostgresServer:
    """Everyone on this machine may log in as `shop`, without a password, to the database `shop`."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="pulsecache-postgres-"))
        self._identity = unprivileged()
        if self._identity:
            os.chown(self._folder, self._identity["user"], self._identity["group"])
        self._data = self._folder / "data"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]

    @property
    def url(self) -> str:
        return f"postgresql://shop@127.0.0.1:{self.port}/shop"

    def start(self) -> None:
        if not self._data.exists():
            self._run("initdb", f"--pgdata={self._data}", "--username=shop", "--auth=trust", "--no-sync")
        settings = f"-p {self.port} -k {self._folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        self._run("pg_ctl", f"--pgdata={self._data}", "--wait", f"--log={self._folder}/log", "-o", settings, "start")
        if not self.ask("SELECT 1 FROM pg_database WHERE datname = 'shop'", database="postgres"):
            self.ask("CREATE DATABASE shop", database="postgres")

    def stop(self) -> None:
        self._run("pg_ctl", f"--pgdata={self._data}", "--mode=immediate", "--wait", "stop")

    def ask(self, sql: str, *, database: str = "shop") -> str:
        """What psql prints of one statement, without decoration."""
        flags = (
            "--host=127.0.0.1",
            f"--port={self.port}",
            "--username=shop",
            f"--dbname={database}",
            "-v",
            "ON_ERROR_STOP=1",
        )
        return self._run("psql", *flags, "--tuples-only", "--no-align", f"--command={sql}")

    def __enter__(self) -> PostgresServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if (self._data / "postmaster.pid").exists():
            self.stop()
        shutil.rmtree(self._folder)

    def _run(self, name: str, *arguments: str) -> str:
        path = program(name)
        if path is None:
            raise RuntimeError(f"{name} is missing: install the package postgresql")
        # pg_ctl's server would keep a pipe open: a file instead
        with tempfile.TemporaryFile("w+") as output:
            done = subprocess.run(
                [path, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                timeout=30,
                check=False,
                cwd=self._folder,
                **self._identity,
            )
            output.seek(0)
            text = output.read()
        if done.returncode:
            raise RuntimeError(f"{name} failed: {text}")
        return text.strip()
