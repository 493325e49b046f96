"""The first process of the node's namespaces: starts what is described in a folder, starts it again when it ends.

It runs as a program of its own (`python3 supervisor.py FOLDER CACHE`), process 1 of a process namespace: the kernel
ends everything in the namespace with it, containers too, whatever it dies of. `FOLDER/services/NAME.json` describes a
service: `argv`, and `log`, a file. SIGHUP makes it look there again. A service that ends is started again after
`RESTART_S`, for ever; `FOLDER/services.report` says how often.

Files of the machine stay as they are: what the node writes to /run, /var/log and /var/lib, and the kernel settings that
the kubelet insists on, exist only in this mount namespace.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

RESTART_S = 1.0
PRIVATE_FOLDERS = ("/run", "/var/log", "/var/lib")
# what the kubelet wants to find; it would write them to the real ones, which have no namespace
KERNEL_SETTINGS = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}
# these belong to the network namespace
NETWORK_SETTINGS = {
    "ipv4/ip_forward": "1",
    "bridge/bridge-nf-call-iptables": "1",
}
SIGNALS = {signal.SIGCHLD, signal.SIGHUP, signal.SIGTERM}


class Service:
    """One service: what to run, and when next."""

    def __init__(self, argv: list[str], log: str) -> None:
        self.argv = argv
        self.log = log
        self.pid: int | None = None
        self.due = 0.0
        self.starts = 0

    def start(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        self.starts += 1
        try:
            self.pid = os.posix_spawnp(
                self.argv[0],
                self.argv,
                os.environ,
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_OPEN, 1, self.log, flags, 0o644),
                    (os.POSIX_SPAWN_DUP2, 1, 2),
                ],
                setsid=True,
                setsigmask=[],
            )
        except OSError as error:
            print(f"{self.argv[0]}: {error}", flush=True)
            self.ended()

    def ended(self) -> None:
        self.pid = None
        self.due = time.monotonic() + RESTART_S


class Supervisor:
    """The services of a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._services: dict[str, Service] = {}

    def run(self) -> None:
        # blocked, not handled: a signal waits until it is asked for, so none can fall between two steps
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        while True:
            self._look()
            self._start_due()
            self._report()
            if self._wait() == signal.SIGTERM:
                return
            self._reap()

    def _look(self) -> None:
        for path in sorted((self._folder / "services").glob("*.json")):
            if path.stem not in self._services:
                self._services[path.stem] = Service(**json.loads(path.read_text()))

    def _start_due(self) -> None:
        for service in self._services.values():
            if service.pid is None and service.due <= time.monotonic():
                service.start()

    def _wait(self) -> int:
        due = [service.due for service in self._services.values() if service.pid is None]
        if not due:
            return signal.sigwaitinfo(SIGNALS).si_signo
        received = signal.sigtimedwait(SIGNALS, max(0.0, min(due) - time.monotonic()))
        return received.si_signo if received else 0

    def _reap(self) -> None:
        # also the orphans of containers: their parent is process 1
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for name, service in self._services.items():
                if service.pid == pid:
                    print(f"{name} ended: {os.waitstatus_to_exitcode(status)}", flush=True)
                    service.ended()

    def _report(self) -> None:
        report = {name: {"pid": service.pid, "starts": service.starts} for name, service in self._services.items()}
        partial = self._folder / "services.partial"
        partial.write_text(json.dumps(report))
        partial.replace(self._folder / "services.report")


def prepare(folder: Path, keep: list[Path]) -> None:
    """Make the namespaces a place for a node; what is in `keep` stays where it is, also in a private folder."""
    # shared among the node's own mounts: volumes mounted later have to appear in containers
    mount("--make-rshared", "/")
    kept = {path: os.open(path, os.O_PATH) for path in sorted(keep)}  # a folder before what is in it
    for private in PRIVATE_FOLDERS:
        mount("-t", "tmpfs", "-o", "mode=0755", "pulsecache", private)
        for path, handle in kept.items():
            if path.is_relative_to(private):
                path.mkdir(parents=True, exist_ok=True)
                mount("--no-canonicalize", "--bind", f"/proc/self/fd/{handle}", str(path), handle=handle)
    for handle in kept.values():
        os.close(handle)
    mount("--bind", str(folder / "log"), "/var/log")
    settings = Path("/run/pulsecache-settings")
    settings.mkdir()
    for name, value in KERNEL_SETTINGS.items():
        setting = Path("/proc/sys", name)
        if setting.exists() and setting.read_text().strip() != value:
            wanted = settings / name.replace("/", ".")
            wanted.write_text(f"{value}\n")
            mount("--bind", str(wanted), str(setting))
    for name, value in NETWORK_SETTINGS.items():
        setting = Path("/proc/sys/net", name)
        if setting.exists():
            setting.write_text(value)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def mount(*arguments: str, handle: int | None = None) -> None:
    subprocess.run(["mount", "--no-mtab", *arguments], check=True, pass_fds=[] if handle is None else [handle])


def main(folder: Path, cache: Path) -> None:
    prepare(folder, [folder, cache])
    (folder / "prepared").touch()
    Supervisor(folder).run()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
