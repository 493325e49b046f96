"""The node's own branch of the control groups, of version 1 or 2: what is in it is ours, as the kernel knows.

The node's processes are in `BRANCH/system`, pods in `BRANCH/kubepods`. With version 1 there is a branch in each
hierarchy, because the kubelet wants its root in all of them.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from pathlib import Path

from onenode.console import ClusterError

ROOT = Path("/sys/fs/cgroup")
NEEDED = {"cpu", "cpuset", "memory", "pids"}
"""the controllers without which the kubelet does not start"""


class Branch:
    """`name` (a relative path) below the root of each hierarchy."""

    def __init__(self, name: str, root: Path = ROOT) -> None:
        self._name = name
        self._root = root

    @property
    def unified(self) -> bool:
        return (self._root / "cgroup.controllers").exists()

    def hierarchies(self) -> list[Path]:
        if not self._root.is_dir():
            return []
        if self.unified:
            return [self._root]
        found = [path for path in sorted(self._root.iterdir()) if (path / "cgroup.procs").exists()]
        # cpu and cpuacct are often two names of one hierarchy
        return list({path.resolve(): path.resolve() for path in found}.values())

    def missing_controllers(self) -> set[str]:
        if self.unified:
            return NEEDED - set((self._root / "cgroup.controllers").read_text().split())
        return NEEDED - {path.name for path in self._root.iterdir() if (path / "cgroup.procs").exists()}

    def create(self) -> Path:
        """Make the branch; returns the `cgroup.procs` into which the node's first process writes itself."""
        try:
            if self.unified:
                self._make_room()
            for hierarchy in self.hierarchies():
                self._create_in(hierarchy)
        except OSError as error:
            raise ClusterError(
                f"cannot make control groups below {self._root}: {error}; in a container it has to be privileged"
            ) from error
        system = self._tracking() / self._name / "system"
        system.mkdir(exist_ok=True)
        return system / "cgroup.procs"

    def remove(self, timeout_s: float = 20.0) -> None:
        """End what still runs in the branch and remove it. Raises ClusterError when something cannot be ended."""
        deadline = time.monotonic() + timeout_s
        top = Path(self._name).parts[0]
        for hierarchy in self.hierarchies():
            branch = hierarchy / self._name
            while branch.exists() and not _try_remove(branch):
                if time.monotonic() > deadline:
                    raise ClusterError(f"{branch} cannot be removed; it holds the processes {_members(branch)}")
                for pid in _members(branch):
                    _kill(pid)
                time.sleep(0.02)
            if (hierarchy / top).exists():
                _try_remove_folder(hierarchy / top)  # shared by clusters: the last one removes it

    def exists(self) -> bool:
        return any((hierarchy / self._name).exists() for hierarchy in self.hierarchies())

    def _tracking(self) -> Path:
        hierarchies = self.hierarchies()
        return next((path for path in hierarchies if path.name == "pids"), hierarchies[0])

    def _make_room(self) -> None:
        """In a container's own namespace of groups the processes are in its root, where none may be above controllers.

        They move to a group beside ours, as every nested container engine does it. The machine's real root is exempt.
        """
        try:
            _pass_on_controllers(self._root)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            init = self._root / "init"
            init.mkdir(exist_ok=True)
            for pid in (self._root / "cgroup.procs").read_text().split():
                with contextlib.suppress(ProcessLookupError):
                    (init / "cgroup.procs").write_text(pid)
            _pass_on_controllers(self._root)

    def _create_in(self, hierarchy: Path) -> None:
        path = hierarchy
        for part in Path(self._name).parts:
            if self.unified:
                _pass_on_controllers(path)
            path /= part
            path.mkdir(exist_ok=True)
            for inherited in ("cpuset.cpus", "cpuset.mems"):
                setting = path / inherited
                # version 1: a new cpuset is empty, and no process may enter it
                if not self.unified and setting.exists() and not setting.read_text().strip():
                    setting.write_text((path.parent / inherited).read_text())


def _pass_on_controllers(group: Path) -> None:
    """Version 2: let the groups below have every controller that this one has."""
    available = (group / "cgroup.controllers").read_text().split()
    if available:
        (group / "cgroup.subtree_control").write_text(" ".join(f"+{controller}" for controller in available))


def _try_remove(branch: Path) -> bool:
    """Remove a group and all groups in it, deepest first; whether it is gone."""
    return all(_try_remove_folder(Path(folder)) for folder, _, _ in os.walk(branch, topdown=False))


def _try_remove_folder(folder: Path) -> bool:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:  # processes or groups are still in it
        return False
    return True


def _members(branch: Path) -> list[int]:
    pids: list[int] = []
    for folder, _, _ in os.walk(branch):
        try:
            pids += [int(pid) for pid in Path(folder, "cgroup.procs").read_text().split()]
        except OSError:  # gone meanwhile
            continue
    return [pid for pid in pids if pid > 0]


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
