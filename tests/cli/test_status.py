"""`pulsecache status` with a real kubectl and a real API server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from apiserver import ApiServer, kubectl
from pulsecache_cli.__main__ import main

pytestmark = pytest.mark.api

ROOT = Path(__file__).parents[2]
CRD = ROOT / "crds" / "cachepolicies.pulsecache.dev.yaml"
NAMESPACE = "cli-status"
STATUS = {
    "observedGeneration": 1,
    "pods": {"selected": 3, "injected": 2, "inSync": 1},
    "staleness": {"state": "Unconfirmed", "since": "2026-01-01T00:00:00Z", "lostPublishers": 1},
    "conditions": [
        {
            "type": "Ready",
            "status": "False",
            "reason": "PodsNotInjected",
            "message": "2 of 3 pods have the sidecar.",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }
    ],
}


def must(server: ApiServer, *arguments: str, stdin: str | None = None) -> str:
    done = kubectl(server, *arguments, stdin=stdin)
    assert done.returncode == 0, done.stderr
    return done.stdout


def policy(name: str) -> str:
    return json.dumps(
        {
            "apiVersion": "pulsecache.dev/v1alpha1",
            "kind": "CachePolicy",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {"targetRef": {"name": name}},
        }
    )


@pytest.fixture
def cluster(apiserver: ApiServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    monkeypatch.setenv("KUBECONFIG", str(apiserver.kubeconfig))
    monkeypatch.setenv("PATH", str(apiserver.kubectl.parent), prepend=":")
    must(apiserver, "apply", "--server-side", "-f", str(CRD))
    must(apiserver, "wait", "--for=condition=Established", "crd/cachepolicies.pulsecache.dev")
    manifest = json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    must(apiserver, "apply", "--server-side", "-f", "-", stdin=manifest)
    yield apiserver
    must(apiserver, "delete", "pcp", "--all", f"--namespace={NAMESPACE}")


def test_no_policies(cluster: ApiServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "-n", NAMESPACE]) == 0
    assert capsys.readouterr().out == "No CachePolicy here; --all-namespaces looks everywhere.\n"


def test_a_line_for_each_policy(cluster: ApiServer, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("prices", "products"):
        must(cluster, "create", "-f", "-", stdin=policy(name))
    patch = json.dumps({"status": STATUS})
    command = ("patch", "pcp/products", f"--namespace={NAMESPACE}", "--subresource=status", "--type=merge")
    must(cluster, *command, f"--patch={patch}")
    assert main(["status", "-A"]) == 0
    header, prices, products = (line.split() for line in capsys.readouterr().out.splitlines())
    assert header == ["NAMESPACE", "NAME", "READY", "MODE", "MAX", "STATE", "PODS", "INJECTED", "IN", "SYNC", "REASON"]
    assert prices == [NAMESPACE, "prices", "Unknown", "Serve", "5s", "-", "-", "-", "-", "NotObserved"]
    assert products == [NAMESPACE, "products", "False", "Serve", "5s", "Unconfirmed", "3", "2", "1", "PodsNotInjected"]

    assert main(["status", "products", "-n", NAMESPACE]) == 0
    out = capsys.readouterr().out
    assert f"{NAMESPACE}/products: PodsNotInjected" in out
    assert "3 pods selected, 2 injected, 1 in sync" in out
    assert "staleness Unconfirmed since 2026-01-01T00:00:00Z, 1 publishers lost" in out
    assert "Ready       False    PodsNotInjected   2 of 3 pods have the sidecar." in out

    assert main(["status", "-n", NAMESPACE, "-o", "json"]) == 0
    told = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    assert told["products"]["injected"] == 2


def test_a_policy_that_is_not_there(cluster: ApiServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "nobody", "-n", NAMESPACE]) == 1
    assert '"nobody" not found' in capsys.readouterr().err
