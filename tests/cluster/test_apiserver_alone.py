"""etcd and kube-apiserver without a node: what `make test-api` stands on."""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from onenode import apiserver as alone
from onenode.console import ClusterError
from onenode.process import Process
from onenode.settings import cache_folder

from apiserver import ApiServer, api_server, kubectl

pytestmark = pytest.mark.api


def processes_of(directory: Path) -> list[Process]:
    found = [Process.recorded(directory / f"{part}.pid") for part in alone.PARTS]
    return [process for process in found if process is not None]


def test_the_administrator_may_do_everything(apiserver: ApiServer) -> None:
    assert kubectl(apiserver, "auth", "can-i", "*", "*", "--all-namespaces").stdout.strip() == "yes"


def test_certificate_and_key_suffice_without_kubeconfig(apiserver: ApiServer) -> None:
    context = ssl.create_default_context(cafile=str(apiserver.ca))
    context.load_cert_chain(apiserver.certificate, apiserver.key)
    with urllib.request.urlopen(f"{apiserver.url}/version", context=context, timeout=5) as response:
        assert json.load(response)["minor"] == "34"


def test_a_pod_is_accepted_without_a_service_account_controller(apiserver: ApiServer) -> None:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "alone", "namespace": "default"},
        "spec": {"containers": [{"name": "app", "image": "app"}]},
    }
    done = kubectl(apiserver, "create", "--filename=-", stdin=json.dumps(pod))
    assert done.returncode == 0, done.stderr


def test_two_run_side_by_side_and_leave_nothing() -> None:
    with api_server() as one, api_server() as other:
        assert one.url != other.url
        folders = [server.ca.parent.parent for server in (one, other)]
        processes = [process for folder in folders for process in processes_of(folder)]
        assert len(processes) == 4
    assert not any(process.alive() for process in processes)
    assert not any(folder.exists() for folder in folders)


def test_up_twice_is_the_same_server_and_a_killed_part_is_replaced(tmp_path: Path) -> None:
    directory = tmp_path / "server"
    try:
        first = alone.up(directory, cache_folder(), with_parent=True)
        assert alone.up(directory, cache_folder(), with_parent=True) == first
        etcd = Process.recorded(directory / "etcd.pid")
        assert etcd is not None
        os.kill(etcd.pid, signal.SIGKILL)
        assert etcd.wait(10.0)
        again = alone.up(directory, cache_folder(), with_parent=True)
        assert kubectl(again, "get", "namespaces").returncode == 0
        assert len(processes_of(directory)) == 2
    finally:
        alone.down(directory)
    assert not directory.exists()


def test_it_dies_with_the_test_process(tmp_path: Path) -> None:
    directory = tmp_path / "server"
    program = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from onenode import apiserver\n"
        "from onenode.settings import cache_folder\n"
        "apiserver.up(Path(sys.argv[1]), cache_folder(), with_parent=True)\n"
        "print('up', flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(directory)],
        cwd=Path(alone.__file__).parents[1],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "up\n"
        processes = processes_of(directory)
        assert len(processes) == 2
        owner.kill()
    assert all(process.wait(10.0) for process in processes)
    alone.down(directory)


def test_a_folder_that_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(ClusterError, match="holds files that are not a cluster's"):
        alone.up(tmp_path, cache_folder())
    alone.down(tmp_path)
    assert (tmp_path / "letter.txt").read_text() == "dear"
