"""What the machine must have, and how to get it: everything missing is named at once."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from onenode.console import ClusterError

CNI_FOLDERS = ("/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni")
SYSTEM_FOLDERS = ("/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/local/bin", "/usr/bin", "/bin")

# tool -> (Debian package, Fedora package)
PACKAGES = {
    "go": ("golang-go", "golang"),
    "containerd": ("containerd", "containerd"),
    "ctr": ("containerd", "containerd"),
    "runc": ("runc", "runc"),
    "cni-plugins": ("containernetworking-plugins", "containernetworking-plugins"),
    "ip": ("iproute2", "iproute"),
    "iptables": ("iptables", "iptables-nft"),
    "conntrack": ("conntrack", "conntrack-tools"),
    "ethtool": ("ethtool", "ethtool"),
    "socat": ("socat", "socat"),
    "unshare": ("util-linux", "util-linux"),
    "nsenter": ("util-linux", "util-linux-core"),
    "setpriv": ("util-linux", "util-linux-core"),
    "mount": ("mount", "util-linux"),
    "buildah": ("buildah", "buildah"),
    "mmdebstrap": ("mmdebstrap", "mmdebstrap"),
    "gcc": ("gcc libc6-dev", "gcc glibc-static"),
}
NOTES = {"go": "Go must be at least as new as cluster/go/*/go.mod say; older distributions: https://go.dev/dl/"}

NODE = (
    "containerd",
    "ctr",
    "runc",
    "cni-plugins",
    "ip",
    "iptables",
    "conntrack",
    "ethtool",
    "socat",
    "unshare",
    "nsenter",
    "setpriv",
    "mount",
)


def find(tool: str) -> Path | None:
    """The tool's path (for `cni-plugins` the folder that has them), also where PATH lacks the system folders."""
    if tool == "cni-plugins":
        return next((Path(folder) for folder in CNI_FOLDERS if Path(folder, "bridge").exists()), None)
    search = os.pathsep.join([os.environ.get("PATH", ""), *SYSTEM_FOLDERS])
    found = shutil.which(tool, path=search)
    return Path(found) if found else None


def missing_message(missing: list[str]) -> str:
    """The words for tools that are not there, with the commands that install them."""
    lines = [f"missing on this machine: {', '.join(missing)}"]
    for title, column, command in (("Debian, Ubuntu", 0, "apt-get install"), ("Fedora", 1, "dnf install")):
        packages = sorted({package for tool in missing for package in PACKAGES[tool][column].split()})
        lines.append(f"  {title}: {command} {' '.join(packages)}")
    lines += [f"  {NOTES[tool]}" for tool in missing if tool in NOTES]
    return "\n".join(lines)


def require(tools: Iterable[str]) -> None:
    """Raises ClusterError that names every missing tool."""
    missing = [tool for tool in tools if find(tool) is None]
    if missing:
        raise ClusterError(missing_message(missing))
