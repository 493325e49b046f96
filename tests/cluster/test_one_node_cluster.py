"""The whole cluster on this machine: it comes up, works, mends itself, and leaves without a trace."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from onenode import images
from onenode.console import ClusterError
from onenode.lifecycle import Cluster
from onenode.loading import OneNode
from onenode.process import Process, wait_for
from onenode.settings import Settings, cache_folder, settings

from traces import Traces

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

NAME = "pulsecache-test"
SUBNET = "10.199.0.248/30"
CLI = Path(__file__).resolve().parents[2] / "cluster" / "cluster.py"
WARM_START_S = 20.0


@pytest.fixture(scope="module")
def own_settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A cluster beside the one that a developer may have running."""
    folder = tmp_path_factory.mktemp("cluster")
    return settings(NAME, folder / NAME, SUBNET)


@pytest.fixture(scope="module")
def before(own_settings: Settings) -> Traces:
    Cluster(own_settings).down()
    return Traces.now(NAME)


@pytest.fixture(scope="module")
def cluster(own_settings: Settings, before: Traces) -> Iterator[Cluster]:
    """A running cluster."""
    cluster = Cluster(own_settings)
    cluster.up()
    yield cluster
    cluster.down()


@pytest.fixture
def fresh(own_settings: Settings) -> Iterator[Cluster]:
    """A cluster that does not run yet."""
    cluster = Cluster(own_settings)
    cluster.down()
    yield cluster
    cluster.down()


def eventually(what: str, check: Callable[[], bool], timeout_s: float = 60.0) -> None:
    wait_for(what, check, timeout_s=timeout_s, problem=lambda: None)


def pid_of(cluster: Cluster, service: str) -> int | None:
    return next(status.pid for status in cluster.services() if status.name == service)


def kill(pid: int) -> None:
    process = Process.of(pid)
    assert process is not None
    os.kill(pid, signal.SIGKILL)
    assert process.wait(10.0)


def kubectl(cluster: Cluster, *arguments: str, stdin: dict[str, object] | None = None) -> str:
    return cluster.plane.kubectl(*arguments, stdin=json.dumps(stdin) if stdin else None)


POD_SECURITY = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
CONTAINER_SECURITY = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


def pod_with_native_sidecar() -> dict[str, object]:
    sidecar = {
        "name": "sidecar",
        "image": images.reference("shop"),
        "imagePullPolicy": "Never",
        "restartPolicy": "Always",
        "command": ["python3", "-m", "http.server", "8000", "--directory", "/opt/pulsecache/shop"],
        "startupProbe": {"tcpSocket": {"port": 8000}, "periodSeconds": 1, "failureThreshold": 30},
        "securityContext": CONTAINER_SECURITY,
    }
    app = {**sidecar, "name": "app", "command": ["sleep", "3600"], "ports": [{"name": "http", "containerPort": 8000}]}
    del app["restartPolicy"], app["startupProbe"]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "pair", "namespace": "default", "labels": {"app": "pair"}},
        "spec": {
            "securityContext": POD_SECURITY,
            "terminationGracePeriodSeconds": 1,
            "initContainers": [sidecar],
            "containers": [app],
        },
    }


SERVICE: dict[str, object] = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "pair", "namespace": "default"},
    "spec": {"selector": {"app": "pair"}, "ports": [{"port": 80, "targetPort": "http"}]},
}


@pytest.fixture(scope="module")
def pair(cluster: Cluster) -> None:
    """A pod of two containers, one of them a native sidecar, and its Service."""
    archive = images.build(["shop"], cache_folder())["shop"]
    OneNode(cluster.settings).load(images.reference("shop"), archive)
    kubectl(cluster, "apply", "--filename=-", stdin=pod_with_native_sidecar())
    kubectl(cluster, "apply", "--filename=-", stdin=SERVICE)
    kubectl(cluster, "wait", "--for=condition=Ready", "pod/pair", "--timeout=50s")


def test_node_and_dns_are_ready(cluster: Cluster) -> None:
    assert cluster.ready()
    assert all(status.pid and status.starts == 1 for status in cluster.services())


def test_up_of_a_running_cluster_changes_nothing(cluster: Cluster) -> None:
    pids = [status.pid for status in cluster.services()]
    cluster.up()
    assert [status.pid for status in cluster.services()] == pids


def test_the_machine_keeps_its_kernel_settings(cluster: Cluster, before: Traces) -> None:
    assert Traces.now(NAME).settings == before.settings


def test_pods_are_not_mounted_on_the_machine(cluster: Cluster, before: Traces, pair: None) -> None:
    assert Traces.now(NAME).mounts == before.mounts


def test_a_pod_with_a_native_sidecar_becomes_ready(cluster: Cluster, pair: None) -> None:
    statuses = json.loads(kubectl(cluster, "get", "pod/pair", "--output=json"))["status"]
    assert statuses["initContainerStatuses"][0]["state"]["running"]
    assert statuses["containerStatuses"][0]["ready"]


def test_a_pod_resolves_services_and_reaches_them(cluster: Cluster, pair: None) -> None:
    program = (
        "import socket, urllib.request\n"
        "print(socket.gethostbyname('kubernetes.default'))\n"
        "print(urllib.request.urlopen('http://pair.default.svc/', timeout=5).status)\n"
    )
    lines = kubectl(cluster, "exec", "pair", "--container=app", "--", "python3", "-c", program).split()
    assert lines == ["10.96.0.1", "200"]


def test_the_machine_reaches_services_by_name_with_exec(cluster: Cluster, pair: None) -> None:
    program = "import urllib.request; print(urllib.request.urlopen('http://pair.default.svc/', timeout=5).status)"
    done = cli(cluster, "exec", "--", sys.executable, "-c", program)
    assert done.stdout.strip() == "200", done.stderr


def test_a_claim_gets_a_volume_that_outlives_its_pod(cluster: Cluster, pair: None) -> None:
    claim: dict[str, object] = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "claim", "namespace": "default"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    kubectl(cluster, "apply", "--filename=-", stdin=claim)
    for command, expected in (("echo kept >/data/note; cat /data/note", "kept"), ("cat /data/note", "kept")):
        container = {
            "name": "app",
            "image": images.reference("shop"),
            "imagePullPolicy": "Never",
            "command": ["sh", "-c", command],
            "volumeMounts": [{"name": "data", "mountPath": "/data"}],
            "securityContext": CONTAINER_SECURITY,
        }
        pod: dict[str, object] = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "claimant", "namespace": "default"},
            "spec": {
                "restartPolicy": "Never",
                "securityContext": POD_SECURITY,
                "containers": [container],
                "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "claim"}}],
            },
        }
        kubectl(cluster, "apply", "--filename=-", stdin=pod)
        kubectl(cluster, "wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/claimant", "--timeout=50s")
        assert kubectl(cluster, "logs", "claimant").strip() == expected
        kubectl(cluster, "delete", "pod/claimant", "--wait=true")


@pytest.mark.parametrize("service", ["kube-scheduler", "kubelet", "containerd", "etcd"])
def test_a_killed_part_is_started_again(cluster: Cluster, pair: None, service: str) -> None:
    killed = pid_of(cluster, service)
    assert killed is not None
    kill(killed)
    eventually(f"new {service}", lambda: pid_of(cluster, service) not in (None, killed))
    cluster.up()
    assert cluster.ready()
    kubectl(cluster, "wait", "--for=condition=Ready", "pod/pair", "--timeout=50s")


def test_status_tells_what_runs(cluster: Cluster) -> None:
    cluster.up()
    done = cli(cluster, "status")
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == "Ready"


def test_down_leaves_nothing(cluster: Cluster, pair: None, before: Traces) -> None:
    cluster.down()
    assert Traces.now(NAME).left_since(before) == {}
    assert not cluster.settings.directory.exists()
    assert cli(cluster, "status").returncode == 1


def test_down_without_a_cluster_does_nothing(own_settings: Settings, before: Traces) -> None:
    Cluster(own_settings).down()
    assert Traces.now(NAME).left_since(before) == {}


def test_a_warm_start_is_ready_in_time(fresh: Cluster, before: Traces) -> None:
    # the promise is made for a machine that has nothing else to do
    others = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    started = time.monotonic()
    fresh.up()
    assert time.monotonic() - started < WARM_START_S * others


@pytest.mark.parametrize("victim", ["supervisor", "its first process", "containerd", "kubelet and containerd"])
def test_down_after_a_kill_leaves_nothing(fresh: Cluster, before: Traces, victim: str) -> None:
    fresh.up()
    holder = fresh.running()
    match victim:
        case "supervisor":
            kill(holder.pid)
        case "its first process":
            kill(holder.children()[0])
        case "containerd":
            kill(pid_of(fresh, "containerd") or 0)
        case _:
            kill(pid_of(fresh, "kubelet") or 0)
            kill(pid_of(fresh, "containerd") or 0)
    fresh.down()
    assert Traces.now(NAME).left_since(before) == {}
    assert not fresh.settings.directory.exists()


@pytest.mark.parametrize("when", ["node.pid", "prepared", "services/etcd.json", "services/kubelet.json", "kubeconfig"])
def test_a_start_killed_half_way_is_cleaned_up(fresh: Cluster, before: Traces, when: str) -> None:
    with starting(fresh) as process:
        eventually(f"{when} of the start", (fresh.settings.directory / when).exists)
        process.kill()
    fresh.down()
    assert Traces.now(NAME).left_since(before) == {}
    assert not fresh.settings.directory.exists()


def test_a_start_killed_half_way_is_started_anew(fresh: Cluster, before: Traces) -> None:
    with starting(fresh) as process:
        eventually("first services", (fresh.settings.directory / "services/etcd.json").exists)
        process.kill()
    fresh.up()
    assert fresh.ready()
    fresh.down()
    assert Traces.now(NAME).left_since(before) == {}


def test_an_interrupted_start_cleans_up_itself(fresh: Cluster, before: Traces) -> None:
    with starting(fresh) as process:
        eventually("first services", (fresh.settings.directory / "services/etcd.json").exists)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    assert Traces.now(NAME).left_since(before) == {}
    assert not fresh.settings.directory.exists()


def test_two_starts_at_once_give_one_cluster(fresh: Cluster, before: Traces) -> None:
    with starting(fresh) as one, starting(fresh) as other:
        assert one.wait(120) == 0
        assert other.wait(120) == 0
    assert all(status.starts == 1 for status in fresh.services())
    fresh.down()
    assert Traces.now(NAME).left_since(before) == {}


def test_a_cluster_may_live_below_a_folder_that_its_node_does_not_see(before: Traces) -> None:
    with tempfile.TemporaryDirectory(dir="/var/lib", prefix="pulsecache-") as folder:
        cluster = Cluster(settings(NAME, Path(folder) / "deep" / "run", SUBNET))
        try:
            cluster.up()
            assert cluster.ready()
        finally:
            cluster.down()
    assert Traces.now(NAME).left_since(before) == {}


def test_a_subnet_in_use_is_refused(fresh: Cluster, before: Traces, tmp_path: Path) -> None:
    fresh.up()
    other = Cluster(settings("pulsecache-other", tmp_path / "other", SUBNET))
    try:
        with pytest.raises(ClusterError, match="PULSECACHE_CLUSTER_SUBNET"):
            other.up()
    finally:
        other.down()
        fresh.down()
    assert Traces.now(NAME).left_since(before) == {}


def cli(cluster: Cluster, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        cli_command(cluster, command, *arguments), capture_output=True, text=True, timeout=60, check=False
    )


def cli_command(cluster: Cluster, command: str, *arguments: str) -> list[str]:
    of = cluster.settings
    options = ["--name", of.name, "--dir", str(of.directory), "--subnet", str(of.subnet)]
    return [sys.executable, str(CLI), command, *options, *arguments]


@contextlib.contextmanager
def starting(cluster: Cluster) -> Iterator[subprocess.Popen[bytes]]:
    """A `cluster.py up` of its own."""
    with subprocess.Popen(cli_command(cluster, "up"), stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
