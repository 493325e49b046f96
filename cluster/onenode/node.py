"""Configuration and command lines of what makes a machine a node: containerd, CNI, kubelet, kube-proxy.

Like `controlplane` it starts nothing. Files go to the cluster's folder; paths below /run and /var/lib are the node's
private ones (see `supervisor`).
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from onenode.command import output
from onenode.controlplane import ControlPlane
from onenode.settings import CLUSTER_DOMAIN, DNS_ADDRESS, NODE_NAME, POD_SUBNET, Settings
from onenode.tools import find

PAUSE_IMAGE = "docker.io/pulsecache/pause:dev"

CONTAINERD = """\
version = 2
root = "{directory}/containerd"
state = "/run/containerd"
oom_score = 0
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.internal.v1.opt",
]

[grpc]
address = "{socket}"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{pause}"
# without CAP_SYS_RESOURCE a container's score cannot be lowered, and no sandbox would start
restrict_oom_score_adj = true

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{cni_plugins}"
conf_dir = "{directory}/cni"

[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "{snapshotter}"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
"""


class Node:
    """The node of one cluster."""

    def __init__(self, settings: Settings, plane: ControlPlane) -> None:
        self._settings = settings
        self._plane = plane
        self._directory = settings.directory

    def write_configuration(self) -> None:
        for folder in ("cni", "containerd", "kubelet", "log/pods", "log/containers", "volumes"):
            (self._directory / folder).mkdir(mode=0o700, parents=True, exist_ok=True)
        (self._directory / "containerd.toml").write_text(
            CONTAINERD.format(
                directory=self._directory,
                socket=self._settings.containerd_socket,
                pause=PAUSE_IMAGE,
                cni_plugins=find("cni-plugins"),
                snapshotter=self.snapshotter(),
            )
        )
        self._write_json("cni/10-bridge.conflist", self._cni())
        # nothing outside of the cluster can be resolved, and nothing outside can be reached
        (self._directory / "resolv.conf").write_text("options timeout:1\n")
        self._write_json("kubelet.json", self._kubelet())
        self._write_json("kube-proxy.json", self._kube_proxy())
        self._write_proxy_kubeconfig()

    def containerd(self) -> list[str]:
        return [str(find("containerd")), "--config", str(self._directory / "containerd.toml")]

    def kubelet(self) -> list[str]:
        return [
            str(self._plane.binaries.path("kubelet")),
            f"--config={self._directory / 'kubelet.json'}",
            f"--kubeconfig={self._plane.kubeconfig('kubelet')}",
            f"--root-dir={self._directory / 'kubelet'}",
            f"--hostname-override={NODE_NAME}",
            f"--node-ip={self._settings.node_address}",
        ]

    def kube_proxy(self) -> list[str]:
        return [
            str(self._plane.binaries.path("kube-proxy")),
            f"--config={self._directory / 'kube-proxy.json'}",
            f"--hostname-override={NODE_NAME}",
        ]

    def snapshotter(self) -> str:
        """`overlayfs` where the cluster's folder can be the upper layer of an overlay, else the slow `native`."""
        chosen = self._directory / "snapshotter"
        if not chosen.exists():
            chosen.write_text("overlayfs" if _overlay_works(self._directory) else "native")
        return chosen.read_text()

    def _write_json(self, name: str, document: Mapping[str, object]) -> None:
        (self._directory / name).write_text(json.dumps(document, indent=1))

    def _write_proxy_kubeconfig(self) -> None:
        conf = self._plane.kubeconfig("kube-proxy")
        if conf.exists():
            return
        command = [str(self._plane.binaries.path("kubeadm")), "kubeconfig", "user", "--client-name=system:kube-proxy"]
        text = output([*command, f"--config={self._directory / 'kubeadm.yaml'}"])
        conf.touch(mode=0o600)
        conf.write_text(text)

    def _cni(self) -> dict[str, object]:
        return {
            "cniVersion": "0.4.0",
            "name": "pods",
            "plugins": [
                {
                    "type": "bridge",
                    "bridge": "cni0",
                    "isGateway": True,
                    "hairpinMode": True,
                    "ipam": {
                        "type": "host-local",
                        "ranges": [[{"subnet": POD_SUBNET}]],
                        "routes": [{"dst": "0.0.0.0/0"}],
                        "dataDir": "/run/cni",
                    },
                },
                {"type": "portmap", "capabilities": {"portMappings": True}},
            ],
        }

    def _kubelet(self) -> dict[str, object]:
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": self._settings.node_address,
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(self._plane.ca)},
            },
            "authorization": {"mode": "Webhook"},
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{self._settings.cgroup}",
            "clusterDNS": [DNS_ADDRESS],
            "clusterDomain": CLUSTER_DOMAIN,
            "containerRuntimeEndpoint": f"unix://{self._settings.containerd_socket}",
            "enforceNodeAllocatable": [],
            # the disk is the machine's, and images came from files: nothing may be evicted or collected
            "evictionHard": {"memory.available": "50Mi", "nodefs.available": "0%", "imagefs.available": "0%"},
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
            "failSwapOn": False,
            "failCgroupV1": False,
            "healthzBindAddress": "127.0.0.1",
            "podLogsDir": "/var/log/pods",
            "resolvConf": str(self._directory / "resolv.conf"),
            "volumePluginDir": "/run/kubelet-volume-plugins",
        }

    def _kube_proxy(self) -> dict[str, object]:
        return {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "clientConnection": {"kubeconfig": str(self._plane.kubeconfig("kube-proxy"))},
            "clusterCIDR": POD_SUBNET,
            # these settings have no namespace: leave the machine's alone
            "conntrack": {"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
            "metricsBindAddress": "127.0.0.1:10249",
            "mode": "iptables",
        }


def _overlay_works(directory: Path) -> bool:
    with tempfile.TemporaryDirectory(dir=directory, prefix="overlay-") as folder:
        lower, upper, work, merged = (Path(folder, name) for name in ("lower", "upper", "work", "merged"))
        for path in (lower, upper, work, merged):
            path.mkdir()
        options = f"lowerdir={lower},upperdir={upper},workdir={work}"
        # in a mount namespace of its own, which takes the mount with it
        command = ["unshare", "--mount", "mount", "-t", "overlay", "-o", options, "overlay", str(merged)]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
