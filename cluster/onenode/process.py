"""Start a process so that it can be found again, and end just that one.

A process writes its own record (boot, pid, start time) before it becomes what it is meant to be, so that there is no
moment at which it runs and is not recorded, whatever happens to us. A record whose boot or start time differs from
what runs under that pid now is about a process that is gone: nothing is ever ended by name.
"""

from __future__ import annotations

import contextlib
import os
import select
import shlex
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from onenode.command import with_us, without_proxies
from onenode.console import ClusterError

RECORD_SCRIPT = (
    "IFS= read -r boot </proc/sys/kernel/random/boot_id && IFS= read -r stat </proc/$$/stat "
    '&& printf "%s\\n%s\\n" "$boot" "$stat" >"$0" && exec "$@"'
)


def _stat(text: str) -> tuple[int, str, int]:
    """(pid, state, start time) of a line of /proc/PID/stat; the command in it may hold spaces and parentheses."""
    head, _, tail = text.rpartition(")")
    fields = tail.split()
    return int(head.split(" ", 1)[0]), fields[0], int(fields[19])


@dataclass(frozen=True)
class Process:
    """A process by pid and start time (clock ticks since boot)."""

    pid: int
    start: int

    @classmethod
    def of(cls, pid: int) -> Process | None:
        """The process that has this pid now, unless it has ended."""
        try:
            _, state, start = _stat(Path(f"/proc/{pid}/stat").read_text(errors="replace"))
        except (FileNotFoundError, ProcessLookupError):
            return None
        return None if state in "ZX" else cls(pid, start)

    @classmethod
    def recorded(cls, record: Path) -> Process | None:
        """The process of a record, if it still runs. A record cut short was written by one that never started."""
        try:
            boot, stat = record.read_text(errors="replace").splitlines()
            pid, _, start = _stat(stat)
        except (FileNotFoundError, ValueError, IndexError):
            return None
        if boot != Path("/proc/sys/kernel/random/boot_id").read_text().strip():
            return None
        process = cls(pid, start)
        return process if process.alive() else None

    def alive(self) -> bool:
        return Process.of(self.pid) == self

    def wait(self, timeout_s: float) -> bool:
        """Whether it has ended, after waiting at most this long."""
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return True
        try:
            return not self.alive() or bool(select.select([handle], [], [], timeout_s)[0])
        finally:
            os.close(handle)

    def children(self) -> list[int]:
        # not /proc/PID/task/PID/children, which leaves some out while others end
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                text = stat.read_text(errors="replace")
                if int(text.rpartition(")")[2].split()[1]) == self.pid:
                    found.append(int(stat.parent.name))
        return found if self.alive() else []

    def end(self, grace_s: float = 5.0) -> None:
        """SIGTERM, then after `grace_s` SIGKILL; returns when it is gone. Raises ClusterError if it cannot be ended."""
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return
        try:
            # only now, with a handle on whoever has the pid, does the comparison hold for what follows
            if not self.alive():
                return
            for number, wait_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, 20.0)):
                if wait_s <= 0:
                    continue
                signal.pidfd_send_signal(handle, number)
                if select.select([handle], [], [], wait_s)[0]:
                    return
            raise ClusterError(f"process {self.pid} does not end, not even by SIGKILL")
        except ProcessLookupError:
            return
        finally:
            os.close(handle)
            _reap(self.pid)


def _reap(pid: int) -> None:
    with contextlib.suppress(ChildProcessError):  # another process's child is not ours to reap
        os.waitpid(pid, os.WNOHANG)


def spawn(
    arguments: Sequence[str | Path],
    *,
    record: Path,
    log: Path,
    with_parent: bool = False,
    environment: Mapping[str, str] | None = None,
    cgroup_procs: Path | None = None,
) -> Process:
    """Start a process in a session of its own, output to `log` (appended).

    `with_parent`: the kernel kills it when the calling *thread* ends, however it ends.
    `cgroup_procs`: the control group that it enters first.
    """
    command = [str(argument) for argument in arguments]
    enter = f"echo $$ >{shlex.quote(str(cgroup_procs))} && " if cgroup_procs else ""
    wrapped = ["sh", "-c", enter + RECORD_SCRIPT, str(record), *command]
    if with_parent:
        wrapped = with_us(wrapped)
    record.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    pid = os.posix_spawnp(
        wrapped[0],
        wrapped,
        environment if environment is not None else without_proxies(),
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), flags, 0o644),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
        setsigmask=[],
    )
    # our child keeps its entry until we ask, also if it has ended already: the caller notices, and the log says why
    return Process(*_stat(Path(f"/proc/{pid}/stat").read_text(errors="replace"))[::2])


def tail(log: Path, lines: int = 15) -> str:
    """The end of a log, to be shown with an error."""
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
    except FileNotFoundError:
        return f"({log} is empty)"


def wait_for(what: str, check: Callable[[], bool], *, timeout_s: float, problem: Callable[[], str | None]) -> None:
    """Poll `check` until it is true. Raises ClusterError with what `problem` finds, or when time is up."""
    deadline = time.monotonic() + timeout_s
    while not check():
        if (found := problem()) is not None:
            raise ClusterError(f"{what}: {found}")
        if time.monotonic() > deadline:
            raise ClusterError(f"{what}: not within {timeout_s:.0f} s")
        time.sleep(0.05)
