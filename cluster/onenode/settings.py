"""Where things are, from flags and the environment."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path

from onenode.console import ClusterError

SERVICE_SUBNET = "10.96.0.0/16"
API_SERVICE_ADDRESS = "10.96.0.1"
DNS_ADDRESS = "10.96.0.10"
POD_SUBNET = "10.244.0.0/24"
CLUSTER_DOMAIN = "cluster.local"
NODE_NAME = "pulsecache-node"
API_PORT = 6443


def cache_folder() -> Path:
    """What is expensive to make and safe to delete: binaries and images."""
    if given := os.environ.get("PULSECACHE_CACHE"):
        return Path(given).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "pulsecache"


@dataclass(frozen=True)
class Settings:
    """One cluster: several may run on a machine when name, folder and subnet differ."""

    name: str
    directory: Path
    cache: Path
    subnet: ipaddress.IPv4Network

    @property
    def host_address(self) -> str:
        return str(self.subnet[1])

    @property
    def node_address(self) -> str:
        return str(self.subnet[2])

    @property
    def kubeconfig(self) -> Path:
        return self.directory / "kubeconfig"

    @property
    def cgroup(self) -> str:
        return f"pulsecache/{self.name}"

    @property
    def containerd_socket(self) -> Path:
        return self.directory / "containerd.sock"


def settings(name: str | None = None, directory: Path | None = None, subnet: str | None = None) -> Settings:
    """The settings of a cluster; what is None comes from the environment, else from the defaults."""
    cache = cache_folder()
    name = name or os.environ.get("PULSECACHE_CLUSTER_NAME") or "pulsecache"
    if not name.replace("-", "").isalnum() or not name.isascii() or len(name) > 40:
        raise ClusterError(f"cluster name {name!r}: use at most 40 letters, digits and dashes")
    chosen = directory or Path(os.environ.get("PULSECACHE_CLUSTER_DIR") or cache / "cluster" / "run")
    text = subnet or os.environ.get("PULSECACHE_CLUSTER_SUBNET") or "10.199.0.0/30"
    try:
        network = ipaddress.IPv4Network(text)
    except ValueError as error:
        raise ClusterError(f"subnet {text!r} between host and node: {error}") from error
    if network.prefixlen > 30:
        raise ClusterError(f"subnet {text!r} between host and node: has to hold two addresses (/30 or wider)")
    chosen = chosen.absolute()
    # a Unix socket's path has at most 107 bytes; ours are in this folder
    if len(os.fsencode(chosen)) > 80:
        raise ClusterError(f"{chosen}: too long for the sockets in it; choose a shorter one by PULSECACHE_CLUSTER_DIR")
    return Settings(name, chosen, cache, network)
