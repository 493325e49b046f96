"""A real API server (etcd and kube-apiserver, nothing else) for tests marked `api`.

A conftest.py says `from apiserver import apiserver as apiserver` and its tests take the session-wide fixture of that
name; or a test starts one of its own: `with api_server() as server:`. Tests of one session share the fixture's server:
use names or namespaces of your own. Without the binaries in the cache they are built first, which takes minutes; when
that fails the tests fail.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "cluster"))

from onenode import apiserver as onenode_apiserver
from onenode.apiserver import ApiServer
from onenode.build import API, Binaries
from onenode.settings import cache_folder

__all__ = ["ApiServer", "api_server", "apiserver", "kubectl"]


@contextmanager
def api_server() -> Iterator[ApiServer]:
    """A new API server on loopback, gone afterwards; the kernel ends it when this thread is killed."""
    _build()
    with tempfile.TemporaryDirectory(prefix="pulsecache-api-") as folder:
        directory = Path(folder) / "server"
        server = onenode_apiserver.up(directory, cache_folder(), with_parent=True)
        try:
            yield server
        finally:
            onenode_apiserver.down(directory)


@pytest.fixture(scope="session")
def apiserver() -> Iterator[ApiServer]:
    """The API server of the session."""
    with api_server() as server:
        yield server


def kubectl(
    server: ApiServer, *arguments: str, stdin: str | None = None, timeout_s: float = 30.0
) -> subprocess.CompletedProcess[str]:
    """Run kubectl as administrator; the caller looks at `returncode`, `stdout` and `stderr`."""
    return subprocess.run(
        [str(server.kubectl), f"--kubeconfig={server.kubeconfig}", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def _build() -> None:
    binaries = Binaries(cache_folder())
    if binaries.missing(API):
        # pytest-timeout's alarm is meant for tests: a compiler may take its minutes
        signal.setitimer(signal.ITIMER_REAL, 0)
        binaries.ensure(API)
