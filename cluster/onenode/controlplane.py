"""Certificates and command lines of etcd, kube-apiserver, kube-controller-manager and kube-scheduler.

It starts nothing: a node's supervisor (`supervisor`) or a test (`apiserver`) runs what is described here.
"""

from __future__ import annotations

import base64
import http.client
import json
import re
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from onenode.build import Binaries
from onenode.command import output, without_proxies
from onenode.console import ClusterError
from onenode.settings import CLUSTER_DOMAIN, NODE_NAME, POD_SUBNET, SERVICE_SUBNET


@dataclass(frozen=True)
class ControlPlane:
    """Where one control plane keeps its files and listens."""

    directory: Path
    binaries: Binaries
    api_address: str
    api_port: int
    etcd_port: int
    etcd_peer_port: int
    advertise_address: str
    """What the Service `kubernetes` leads to. Has to be no loopback address, though nobody has to have it."""

    @property
    def pki(self) -> Path:
        return self.directory / "pki"

    @property
    def ca(self) -> Path:
        return self.pki / "ca.crt"

    @property
    def url(self) -> str:
        return f"https://{self.api_address}:{self.api_port}"

    def kubeconfig(self, component: str) -> Path:
        """The kubeconfig of a component, or of `super-admin`, whose group no RBAC can lock out."""
        return self.directory / "conf" / f"{component}.conf"

    def credentials(self) -> None:
        """Make certificates, keys and kubeconfigs; what is already there stays. Raises ClusterError."""
        config = self.directory / "kubeadm.yaml"
        # YAML 1.2 contains JSON; two documents in one file
        config.write_text("\n---\n".join(json.dumps(document, indent=1) for document in self._kubeadm_documents()))
        kubeadm = self.binaries.path("kubeadm")
        for phase in (["certs", "all"], ["kubeconfig", "all", "--kubeconfig-dir", str(self.directory / "conf")]):
            output([kubeadm, "init", "phase", *phase, "--config", config])

    def client_certificate(self) -> tuple[Path, Path]:
        """Certificate and key of the administrator as files, for clients that read no kubeconfig."""
        text = self.kubeconfig("super-admin").read_text()
        paths = (self.pki / "super-admin.crt", self.pki / "super-admin.key")
        for path, field in zip(paths, ("client-certificate-data", "client-key-data"), strict=True):
            match = re.search(rf"^\s*{field}: (\S+)$", text, re.M)
            if match is None:
                raise ClusterError(f"{self.kubeconfig('super-admin')} has no {field}")
            path.touch(mode=0o600)
            path.write_bytes(base64.b64decode(match[1]))
        return paths

    def etcd(self) -> list[str]:
        pki = self.pki / "etcd"
        client = f"https://127.0.0.1:{self.etcd_port}"
        peer = f"https://127.0.0.1:{self.etcd_peer_port}"
        return [
            str(self.binaries.path("etcd")),
            f"--name={NODE_NAME}",
            f"--data-dir={self.directory / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster={NODE_NAME}={peer}",
            f"--cert-file={pki / 'server.crt'}",
            f"--key-file={pki / 'server.key'}",
            f"--trusted-ca-file={pki / 'ca.crt'}",
            "--client-cert-auth",
            f"--peer-cert-file={pki / 'peer.crt'}",
            f"--peer-key-file={pki / 'peer.key'}",
            f"--peer-trusted-ca-file={pki / 'ca.crt'}",
            "--peer-client-cert-auth",
            # a throw-away cluster need not survive a power cut
            "--unsafe-no-fsync",
            "--log-level=warn",
        ]

    def apiserver(self, *extra: str) -> list[str]:
        pki = self.pki
        return [
            str(self.binaries.path("kube-apiserver")),
            f"--bind-address={self.api_address}",
            f"--secure-port={self.api_port}",
            f"--advertise-address={self.advertise_address}",
            f"--etcd-servers=https://127.0.0.1:{self.etcd_port}",
            f"--etcd-cafile={pki / 'etcd' / 'ca.crt'}",
            f"--etcd-certfile={pki / 'apiserver-etcd-client.crt'}",
            f"--etcd-keyfile={pki / 'apiserver-etcd-client.key'}",
            f"--tls-cert-file={pki / 'apiserver.crt'}",
            f"--tls-private-key-file={pki / 'apiserver.key'}",
            f"--client-ca-file={self.ca}",
            f"--kubelet-client-certificate={pki / 'apiserver-kubelet-client.crt'}",
            f"--kubelet-client-key={pki / 'apiserver-kubelet-client.key'}",
            "--kubelet-preferred-address-types=InternalIP",
            f"--proxy-client-cert-file={pki / 'front-proxy-client.crt'}",
            f"--proxy-client-key-file={pki / 'front-proxy-client.key'}",
            f"--requestheader-client-ca-file={pki / 'front-proxy-ca.crt'}",
            "--requestheader-allowed-names=front-proxy-client",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-username-headers=X-Remote-User",
            f"--service-account-issuer=https://kubernetes.default.svc.{CLUSTER_DOMAIN}",
            f"--service-account-key-file={pki / 'sa.pub'}",
            f"--service-account-signing-key-file={pki / 'sa.key'}",
            f"--service-cluster-ip-range={SERVICE_SUBNET}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged=true",
            "--profiling=false",
            *extra,
        ]

    def controller_manager(self) -> list[str]:
        conf = self.kubeconfig("controller-manager")
        return [
            str(self.binaries.path("kube-controller-manager")),
            f"--kubeconfig={conf}",
            f"--authentication-kubeconfig={conf}",
            f"--authorization-kubeconfig={conf}",
            "--bind-address=127.0.0.1",
            f"--client-ca-file={self.ca}",
            f"--cluster-signing-cert-file={self.ca}",
            f"--cluster-signing-key-file={self.pki / 'ca.key'}",
            f"--root-ca-file={self.ca}",
            f"--service-account-private-key-file={self.pki / 'sa.key'}",
            "--use-service-account-credentials",
            "--allocate-node-cidrs",
            f"--cluster-cidr={POD_SUBNET}",
            f"--service-cluster-ip-range={SERVICE_SUBNET}",
            "--leader-elect=false",
            "--profiling=false",
        ]

    def scheduler(self) -> list[str]:
        conf = self.kubeconfig("scheduler")
        return [
            str(self.binaries.path("kube-scheduler")),
            f"--kubeconfig={conf}",
            f"--authentication-kubeconfig={conf}",
            f"--authorization-kubeconfig={conf}",
            "--bind-address=127.0.0.1",
            "--leader-elect=false",
            "--profiling=false",
        ]

    def ready(self, path: str = "/readyz") -> bool:
        """Whether the API server says so. Anyone may ask that."""
        context = ssl.create_default_context(cafile=str(self.ca))
        # a proxy of the environment is not meant for addresses of this machine
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )
        try:
            with opener.open(self.url + path, timeout=2.0) as response:
                return bool(response.status == 200)
        except urllib.error.HTTPError as error:
            error.close()
            return False
        except (OSError, http.client.HTTPException):
            return False

    def kubectl(self, *arguments: str, stdin: str | None = None, timeout_s: float = 60.0) -> str:
        """Run kubectl as administrator and return its output. Raises ClusterError with its words."""
        command: list[str | Path] = [
            self.binaries.path("kubectl"),
            f"--kubeconfig={self.kubeconfig('super-admin')}",
            *arguments,
        ]
        return output(command, stdin=stdin, timeout_s=timeout_s, environment=without_proxies())

    def _kubeadm_documents(self) -> tuple[dict[str, object], dict[str, object]]:
        version = "kubeadm.k8s.io/v1beta4"
        init: dict[str, object] = {
            "apiVersion": version,
            "kind": "InitConfiguration",
            "localAPIEndpoint": {"advertiseAddress": self.advertise_address, "bindPort": self.api_port},
            "nodeRegistration": {"name": NODE_NAME, "criSocket": "unix:///run/containerd.sock"},
        }
        cluster: dict[str, object] = {
            "apiVersion": version,
            "kind": "ClusterConfiguration",
            "kubernetesVersion": self.binaries.kubernetes_version(),
            "encryptionAlgorithm": "ECDSA-P256",
            "certificatesDir": str(self.pki),
            "controlPlaneEndpoint": f"{self.api_address}:{self.api_port}",
            "networking": {"serviceSubnet": SERVICE_SUBNET, "podSubnet": POD_SUBNET, "dnsDomain": CLUSTER_DOMAIN},
            "apiServer": {"certSANs": [self.api_address, "127.0.0.1", "localhost"]},
        }
        return init, cluster
