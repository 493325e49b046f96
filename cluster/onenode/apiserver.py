"""etcd and kube-apiserver alone, on loopback with free ports: what tests of CRDs, webhooks and RBAC need. No root.

There is no controller behind it: no default ServiceAccount appears, nothing is collected as garbage, no pod is
scheduled. Many may run at once, each in a folder of its own.
"""

from __future__ import annotations

import socket
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from onenode.build import API, Binaries
from onenode.console import ClusterError
from onenode.controlplane import ControlPlane
from onenode.folder import claim, remove
from onenode.process import Process, spawn, tail, wait_for
from onenode.tools import require

# TEST-NET-1 (RFC 5737): an address must be named that is no loopback, and nothing is ever sent to it
ADVERTISED = "192.0.2.1"
PARTS = ("kube-apiserver", "etcd")
ATTEMPTS = 3


@dataclass(frozen=True)
class ApiServer:
    """A running API server and how its administrator reaches it."""

    url: str
    kubeconfig: Path
    ca: Path
    certificate: Path
    key: Path
    kubectl: Path
    """a kubectl of the server's version"""


def up(directory: Path, cache: Path, *, with_parent: bool = False) -> ApiServer:
    """Start an API server whose files are in `directory`, or return the one that runs there.

    `with_parent`: it ends with the calling thread, however that ends. Raises ClusterError.
    """
    binaries = Binaries(cache)
    binaries.ensure(API)
    if with_parent:
        require(["setpriv"])
    ports = directory / "ports"
    if ports.exists():
        plane = _plane(directory, binaries, [int(port) for port in ports.read_text().split()])
        if all(Process.recorded(directory / f"{part}.pid") for part in PARTS) and plane.ready():
            return _described(plane)
    for attempt in range(1, ATTEMPTS + 1):
        down(directory)
        try:
            return _start(directory, binaries, with_parent)
        except ClusterError as error:
            # another process may take a port between our choice and its use
            taken = any("address already in use" in tail(directory / f"{part}.log", 200) for part in PARTS)
            if attempt == ATTEMPTS or not taken:
                for part in PARTS:
                    if process := Process.recorded(directory / f"{part}.pid"):
                        process.end(0)
                raise ClusterError(f"{error}\nlogs are in {directory}") from error
    raise AssertionError("unreachable")


def down(directory: Path) -> None:
    """End what runs in `directory` and delete it."""
    for part in PARTS:
        if process := Process.recorded(directory / f"{part}.pid"):
            process.end(0)  # its data is deleted anyway
    remove(directory)


def _start(directory: Path, binaries: Binaries, with_parent: bool) -> ApiServer:
    claim(directory)
    ports = _free_ports(3)
    plane = _plane(directory, binaries, ports)
    plane.credentials()
    (directory / "ports").write_text(" ".join(str(port) for port in ports))
    started: dict[str, Process] = {}

    def start(part: str, arguments: list[str]) -> None:
        record, log = directory / f"{part}.pid", directory / f"{part}.log"
        started[part] = spawn(arguments, record=record, log=log, with_parent=with_parent)

    def problem() -> str | None:
        for part, process in started.items():
            if not process.alive():
                return f"{part} ended:\n{tail(directory / f'{part}.log')}"
        return None

    start("etcd", plane.etcd())
    start(
        "kube-apiserver",
        plane.apiserver(
            # nobody would make the ServiceAccount that it asks for
            "--disable-admission-plugins=ServiceAccount",
            "--endpoint-reconciler-type=none",
        ),
    )
    wait_for(f"API server in {directory}", plane.ready, timeout_s=60.0, problem=problem)
    return _described(plane)


def _plane(directory: Path, binaries: Binaries, ports: list[int]) -> ControlPlane:
    api, etcd, peer = ports
    return ControlPlane(directory, binaries, "127.0.0.1", api, etcd, peer, ADVERTISED)


def _described(plane: ControlPlane) -> ApiServer:
    certificate, key = plane.client_certificate()
    kubectl = plane.binaries.path("kubectl")
    return ApiServer(plane.url, plane.kubeconfig("super-admin"), plane.ca, certificate, key, kubectl)


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(listener.getsockname()[1]) for listener in sockets]
