"""The one wire between the machine and the node: a veth pair, its far end in the node's network namespace.

The kernel removes the pair with the namespace. No address is translated and nothing is forwarded: the node reaches
nothing but this machine.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

from onenode.command import output
from onenode.console import ClusterError
from onenode.process import wait_for
from onenode.settings import CLUSTER_DOMAIN, DNS_ADDRESS, Settings
from onenode.tools import find


def interface(settings: Settings) -> str:
    """The machine's end; an interface's name has at most 15 characters."""
    return f"pulse{hashlib.sha256(settings.name.encode()).hexdigest()[:8]}"


def connect(settings: Settings, pid: int) -> None:
    """Lay the wire to the network namespace of process `pid`. Raises ClusterError."""
    _refuse_used_subnet(settings)
    name, prefix = interface(settings), settings.subnet.prefixlen
    _ip("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", str(pid))
    _ip("address", "add", f"{settings.host_address}/{prefix}", "dev", name)
    _ip("link", "set", name, "up")
    inside = ["nsenter", f"--net=/proc/{pid}/ns/net", str(find("ip"))]
    for arguments in (
        ["address", "add", f"{settings.node_address}/{prefix}", "dev", "eth0"],
        ["link", "set", "eth0", "up"],
        ["route", "add", "default", "via", settings.host_address],
    ):
        output([*inside, *arguments])


def inside(settings: Settings, pid: int, command: Sequence[str]) -> list[str]:
    """The command line that runs `command` in the network of process `pid`, with the cluster's DNS."""
    resolve = settings.directory / "resolv-inside.conf"
    resolve.write_text(f"search svc.{CLUSTER_DOMAIN} {CLUSTER_DOMAIN}\nnameserver {DNS_ADDRESS}\noptions ndots:4\n")
    script = 'mount --bind "$0" /etc/resolv.conf && exec "$@"'
    # a mount namespace, so that nobody else sees that resolv.conf
    return [
        *(str(find("nsenter")), f"--net=/proc/{pid}/ns/net"),
        *(str(find("unshare")), "--mount", "sh", "-c", script, str(resolve), *command),
    ]


def disconnect(settings: Settings) -> None:
    """Remove the wire, if there is one."""
    name = interface(settings)
    if not exists(name):
        return
    # the kernel may be about to remove it with the namespace
    subprocess.run([str(find("ip")), "link", "delete", name], capture_output=True, check=False)
    wait_for(f"removal of {name}", lambda: not exists(name), timeout_s=20.0, problem=lambda: None)


def exists(name: str) -> bool:
    return Path("/sys/class/net", name).exists()


def _refuse_used_subnet(settings: Settings) -> None:
    for link in json.loads(_ip("-json", "address", "show")):
        for address in link.get("addr_info", []):
            if address.get("local") in (settings.host_address, settings.node_address):
                raise ClusterError(
                    f"{address['local']} is an address of {link['ifname']} already: choose another network for the "
                    "cluster by PULSECACHE_CLUSTER_SUBNET, for example 10.199.0.4/30"
                )


def _ip(*arguments: str) -> str:
    return output([str(find("ip")), *arguments])
