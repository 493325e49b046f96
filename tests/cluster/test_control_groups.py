"""The branch of control groups of a cluster, of version 1 and 2, made in the kernel of this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from onenode.cgroup import Branch
from onenode.process import Process, spawn

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not Path("/sys/fs/cgroup").exists(), reason="no control groups here"),
]

NAME = "pulsecache-branch-test/one"


@pytest.fixture
def branch() -> Iterator[Branch]:
    branch = Branch(NAME)
    branch.remove()
    yield branch
    branch.remove()


def test_a_process_enters_and_is_ended_with_the_branch(branch: Branch, tmp_path: Path) -> None:
    procs = branch.create()
    process = spawn(["sleep", "60"], record=tmp_path / "pid", log=tmp_path / "log", cgroup_procs=procs)
    while Process.recorded(tmp_path / "pid") is None:
        assert process.alive()
    assert str(process.pid) in procs.read_text().split()
    branch.remove()
    assert process.wait(10)
    assert not branch.exists()


def test_groups_below_are_removed_too_and_those_beside_stay(branch: Branch) -> None:
    other = Branch("pulsecache-branch-test/other")
    branch.create()
    other.create()
    for hierarchy in branch.hierarchies():
        (hierarchy / NAME / "kubepods" / "pod").mkdir(parents=True)
    branch.remove()
    assert not branch.exists()
    assert other.exists()
    other.remove()
    assert not any((hierarchy / "pulsecache-branch-test").exists() for hierarchy in branch.hierarchies())


def test_create_and_remove_may_be_repeated(branch: Branch) -> None:
    assert branch.create() == branch.create()
    branch.remove()
    branch.remove()


# In a namespace of groups as a container has it: its root holds processes, and controllers may not be passed on there.
CONTAINER = """
import os, subprocess, sys
from pathlib import Path
from onenode.cgroup import Branch

root = Path(sys.argv[1])
subprocess.run(["mount", "-t", "cgroup2", "none", str(root)], check=True)
assert str(os.getpid()) in (root / "cgroup.procs").read_text().split()
branch = Branch("pulsecache/one", root)
assert branch.unified
procs = branch.create()
controllers = (root / "cgroup.controllers").read_text().split()
assert controllers, "the test needs a controller"
assert (root / "pulsecache/one/cgroup.controllers").read_text().split() == controllers
assert str(os.getpid()) in (root / "init/cgroup.procs").read_text().split()
branch.remove()
assert not (root / "pulsecache").exists()
print("done")
"""


def unified() -> Path | None:
    """The hierarchy of version 2, beside those of version 1 or alone."""
    for path in (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified")):
        controllers = path / "cgroup.controllers"
        if controllers.exists() and controllers.read_text().split():
            return path
    return None


@pytest.mark.skipif(unified() is None, reason="no control groups of version 2 with a controller here")
def test_in_a_container_with_version_2_processes_make_room(tmp_path: Path) -> None:
    root = unified()
    assert root is not None
    passed_on = (root / "cgroup.subtree_control").read_text()
    controller = (root / "cgroup.controllers").read_text().split()[0]
    (root / "cgroup.subtree_control").write_text(f"+{controller}")
    group = root / "pulsecache-container-test"
    group.mkdir()
    script = 'echo $$ >"$0/cgroup.procs" && exec "$@"'
    command = ["unshare", "--cgroup", "--mount", sys.executable, "-c", CONTAINER, str(tmp_path)]
    try:
        done = subprocess.run(
            ["sh", "-c", script, str(group), *command],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2] / "cluster")},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.stdout == "done\n", done.stderr
    finally:
        for folder, _, _ in os.walk(group, topdown=False):
            Path(folder).rmdir()
        if controller not in passed_on:
            (root / "cgroup.subtree_control").write_text(f"-{controller}")
