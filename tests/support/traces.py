"""What a cluster can leave behind on a machine, seen without asking the cluster's own code."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass, fields
from pathlib import Path

KERNEL_SETTINGS = ("vm/overcommit_memory", "kernel/panic", "kernel/panic_on_oops", "net/ipv4/ip_forward")
NAMESPACES = ("net", "mnt", "pid")


@dataclass(frozen=True)
class Traces:
    """One moment of the machine, as far as clusters could change it."""

    processes: frozenset[str]
    """command lines in which `word` occurs"""
    namespaces: frozenset[str]
    """of processes other than the machine's own"""
    mounts: frozenset[str]
    interfaces: frozenset[str]
    control_groups: frozenset[str]
    rules: str
    settings: frozenset[str]

    @classmethod
    def now(cls, word: str) -> Traces:
        return cls(
            processes=frozenset(_command_lines(word)),
            namespaces=frozenset(_namespaces(word)),
            mounts=frozenset(line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()),
            interfaces=frozenset(path.name for path in Path("/sys/class/net").iterdir()),
            control_groups=frozenset(
                folder for folder, _, _ in os.walk("/sys/fs/cgroup") if Path(folder).match("pulsecache/*")
            ),
            rules=_rules(),
            settings=frozenset(f"{name}={Path('/proc/sys', name).read_text().strip()}" for name in KERNEL_SETTINGS),
        )

    def left_since(self, before: Traces) -> dict[str, object]:
        """What is there now and was not before."""
        found: dict[str, object] = {}
        for field in fields(self):
            now, then = getattr(self, field.name), getattr(before, field.name)
            left = now - then if isinstance(now, frozenset) else now if now != then else ""
            if left:
                found[field.name] = left
        return found


def _rules() -> str:
    """The machine's packet filter, without comments, which carry the time."""
    saved = subprocess.run(["iptables-save"], capture_output=True, text=True, check=True).stdout
    return "\n".join(line for line in saved.splitlines() if not line.startswith("#"))


def _command_lines(word: str) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = process.joinpath("cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # ended meanwhile
            continue
        if word in line and process.name != str(os.getpid()):
            found.append(f"{process.name} {line}")
    return found


def _namespaces(word: str) -> list[str]:
    """Namespaces of processes whose control group or command line names the cluster."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            groups = process.joinpath("cgroup").read_text()
            if f"/{word}/" in groups or f"/{word}\n" in groups:
                found += [os.readlink(process / "ns" / kind) for kind in NAMESPACES]
        except OSError:
            continue
    return found
