"""Up, down and status of the whole cluster.

`up` has three cases. Nothing runs: what an interrupted start or a crash left is removed, and a new cluster is started.
A start was interrupted half-way: the same. A complete cluster runs: its supervisor starts dead parts by itself, so
`up` waits until all is ready. A cluster keeps nothing from one life to the next.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from onenode import addons, folder, network, node, supervisor, system_images, tools
from onenode.build import Binaries
from onenode.cgroup import Branch
from onenode.console import ClusterError, say
from onenode.controlplane import ControlPlane
from onenode.loading import OneNode
from onenode.locking import exclusive
from onenode.process import Process, spawn, tail, wait_for
from onenode.settings import API_PORT, NODE_NAME, Settings

READY_S = 90.0
# pods reach the API server by this group; kubeadm would have bound it
ADMINISTRATORS = "kubeadm:cluster-admins"
SERVICES = (
    "etcd",
    "kube-apiserver",
    "containerd",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
)


@dataclass(frozen=True)
class ServiceStatus:
    """One service of the node; `pid` is the machine's, None while it does not run."""

    name: str
    pid: int | None
    starts: int


class Cluster:
    """One cluster, running or not."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.binaries = Binaries(settings.cache)
        directory = settings.directory
        self.plane = ControlPlane(
            directory, self.binaries, settings.node_address, API_PORT, 2379, 2380, settings.node_address
        )
        self._node = node.Node(settings, self.plane)
        self._branch = Branch(settings.cgroup)
        self._record = directory / "node.pid"
        self._complete = directory / "complete"

    def up(self) -> None:
        """Return when the node and DNS are ready. Raises ClusterError."""
        tools.require(tools.NODE)
        require_root()
        self.binaries.ensure()
        archives = system_images.ensure(self.binaries, self.settings.cache)
        if missing := self._branch.missing_controllers():
            raise ClusterError(f"the kernel offers no control groups of {', '.join(sorted(missing))} here")
        with self._locked():
            if self.supervisor() is None or not self._complete.exists():
                self._remove()
                try:
                    self._start(archives)
                except KeyboardInterrupt:
                    self._remove()
                    raise
            self._wait_ready()

    def down(self) -> None:
        """End and remove all of it. Without a cluster it does nothing."""
        wire = network.interface(self.settings)
        if self.settings.directory.exists() or self._branch.exists() or network.exists(wire):
            require_root()
            with self._locked():
                self._remove()

    def supervisor(self) -> Process | None:
        """The process that holds the node's namespaces, if it runs."""
        return Process.recorded(self._record)

    def running(self) -> Process:
        """Like `supervisor`. Raises ClusterError when no cluster runs."""
        process = self.supervisor()
        if process is None:
            raise ClusterError("no cluster runs: start it by `make cluster-up`")
        return process

    def environment(self) -> dict[str, str]:
        """What makes kubectl and helm of a shell those of the cluster."""
        path = os.pathsep.join([self.binaries.search_path(), os.environ.get("PATH", os.defpath)])
        return {"PATH": path, "KUBECONFIG": str(self.settings.kubeconfig)}

    def ready(self) -> bool:
        """Whether the API server answers and says that the node and DNS are ready."""
        if self.supervisor() is None or not self._complete.exists() or not self.plane.ready():
            return False
        return all(
            self.plane.kubectl(
                *("get", thing, "--namespace=kube-system", "--output"),
                f"jsonpath={{.status.conditions[?(@.type=='{condition}')].status}}",
            )
            == "True"
            for thing, condition in ((f"node/{NODE_NAME}", "Ready"), ("deployment/coredns", "Available"))
        )

    def services(self) -> list[ServiceStatus]:
        """What the supervisor says about its services."""
        outer = self.supervisor()
        if outer is None:
            return []
        try:
            report = json.loads((self.settings.directory / "services.report").read_text())
        except FileNotFoundError:
            report = {}
        machine = {_innermost_pid(child): child for init in outer.children() for child in _children(init)}
        found = []
        for name in SERVICES:
            service = report.get(name, {"pid": None, "starts": 0})
            found.append(ServiceStatus(name, machine.get(service["pid"]), service["starts"]))
        return found

    def _start(self, archives: dict[str, Path]) -> None:
        settings, directory = self.settings, self.settings.directory
        say("starting etcd, the API server and containerd")
        folder.claim(directory)
        (directory / "services").mkdir()
        (directory / "log").mkdir()
        self.plane.credentials()
        self._node.write_configuration()
        holder = self._start_namespaces()
        network.connect(settings, holder.pid)
        self._run_services(
            holder,
            {
                "etcd": self.plane.etcd(),
                "kube-apiserver": self.plane.apiserver(),
                "containerd": self._node.containerd(),
            },
        )
        self._wait(holder, "API server", self.plane.ready, log="kube-apiserver")
        self._prepare_api()
        self._run_services(
            holder,
            {
                "kube-controller-manager": self.plane.controller_manager(),
                "kube-scheduler": self.plane.scheduler(),
                "kubelet": self._node.kubelet(),
                "kube-proxy": self._node.kube_proxy(),
            },
        )
        say("the API server answers; starting the node")
        self._wait(holder, "containerd", settings.containerd_socket.exists, log="containerd")
        for image, archive in archives.items():
            OneNode(settings).load(image, archive)
        self.plane.kubectl("apply", "--filename=-", stdin=json.dumps(addons.manifests(directory / "volumes")))
        settings.kubeconfig.touch(mode=0o600)
        settings.kubeconfig.write_text(self.plane.kubeconfig("super-admin").read_text())
        if "SUDO_UID" in os.environ:
            os.chown(settings.kubeconfig, int(os.environ["SUDO_UID"]), int(os.environ["SUDO_GID"]))
        self._complete.touch()

    def _start_namespaces(self) -> Process:
        """A first process in namespaces of its own, and everything that ends with it."""
        directory = self.settings.directory
        log = directory / "log" / "supervisor.log"
        holder = spawn(
            [
                str(tools.find("unshare")),
                *("--fork", "--pid", "--mount", "--net", "--mount-proc", "--propagation=private", "--kill-child"),
                *(sys.executable, "-I", supervisor.__file__, str(directory), str(self.settings.cache)),
            ],
            record=self._record,
            log=log,
            environment={"PATH": ":".join(tools.SYSTEM_FOLDERS), "HOME": str(directory)},
            cgroup_procs=self._branch.create(),
        )
        self._wait(holder, "namespaces of the node", (directory / "prepared").exists, log="supervisor")
        return holder

    def _run_services(self, holder: Process, services: dict[str, list[str]]) -> None:
        directory = self.settings.directory
        for name, argv in services.items():
            description = directory / "services" / f"{name}.json"
            partial = description.with_suffix(".partial")
            partial.write_text(json.dumps({"argv": argv, "log": str(directory / "log" / f"{name}.log")}))
            partial.replace(description)
        for pid in holder.children():
            os.kill(pid, signal.SIGHUP)

    def _prepare_api(self) -> None:
        binding = {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": ADMINISTRATORS},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": ADMINISTRATORS}],
        }
        self.plane.kubectl("apply", "--filename=-", stdin=json.dumps(binding))
        for number in range(addons.VOLUMES):
            volume = self.settings.directory / "volumes" / str(number)
            volume.mkdir(exist_ok=True)
            volume.chmod(0o777)  # a hostPath volume is not given to the pod's group

    def _wait_ready(self) -> None:
        holder = self.running()
        try:
            self._wait(holder, "API server", self.plane.ready, log="kube-apiserver")
            for what, arguments in (
                ("node", ("--for=condition=Ready", f"node/{NODE_NAME}")),
                ("CoreDNS", ("--namespace=kube-system", "--for=condition=Available", "deployment/coredns")),
                ("default ServiceAccount", ("--for=create", "serviceaccount/default")),
            ):
                self.plane.kubectl("wait", f"--timeout={READY_S:.0f}s", *arguments, timeout_s=READY_S + 10)
                say(f"{what} is ready")
        except ClusterError as error:
            raise ClusterError(
                f"{error}\nlogs are in {self.settings.directory / 'log'}; `make cluster-down cluster-up` starts anew"
            ) from error

    def _wait(self, holder: Process, what: str, check: Callable[[], bool], *, log: str) -> None:
        path = self.settings.directory / "log" / f"{log}.log"

        def problem() -> str | None:
            return None if holder.alive() else f"the node ended:\n{tail(path.with_name('supervisor.log'))}"

        try:
            wait_for(what, check, timeout_s=READY_S, problem=problem)
        except ClusterError as error:
            raise ClusterError(f"{error}\n{tail(path)}") from error

    def _remove(self) -> None:
        # the kernel ends whatever lives in the process namespace, and unmounts what is mounted there, with its holder
        if holder := self.supervisor():
            say("ending the cluster's processes")
            holder.end(0)
        self._branch.remove()
        network.disconnect(self.settings)
        folder.remove(self.settings.directory)

    def _locked(self) -> AbstractContextManager[None]:
        """One `up` or `down` of a cluster at a time."""
        directory = self.settings.directory
        return exclusive(directory.parent / f".{directory.name}.lock", "another up or down of this cluster")


def require_root() -> None:
    """Raises ClusterError."""
    if os.geteuid() != 0:
        raise ClusterError(
            "a cluster needs root, for its namespaces, mounts and control groups: run it with sudo (`build` and "
            "`apiserver` need none), or use a cluster that you have"
        )


def _children(pid: int) -> list[int]:
    process = Process.of(pid)
    return process.children() if process else []


def _innermost_pid(pid: int) -> int | None:
    """The pid that a process has in the innermost of its process namespaces."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return next(int(line.split()[-1]) for line in status.splitlines() if line.startswith("NSpid:"))
