"""Processes of containers on a node that is this machine, to be killed, stopped and resumed like any process."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any


def processes(pod: dict[str, Any], container: str) -> list[int]:
    """Pids, on this machine, of a pod's container; the oldest first."""
    status = pod["status"]
    statuses = [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]
    found = next(s for s in statuses if s["name"] == container)
    identity = found["containerID"].rpartition("/")[2]
    pids = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                if identity in (folder / "cgroup").read_text():
                    pids.append(int(folder.name))
            except OSError:
                """It ended while we looked."""
    return sorted(pids)


def send(pod: dict[str, Any], container: str, number: signal.Signals) -> None:
    pids = processes(pod, container)
    assert pids, f"container {container} of {pod['metadata']['name']} has no process"
    for pid in pids:
        os.kill(pid, number)


def restarts(pod: dict[str, Any]) -> int:
    status = pod["status"]
    both = [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]
    return sum(int(s["restartCount"]) for s in both)
