"""CachePolicies as objects of a real API server: names, columns, status, and what kubectl says of bad ones."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from apiserver import ApiServer, kubectl
from policy_cases import SERVER_SIDE, changed

pytestmark = pytest.mark.api

ROOT = Path(__file__).parents[2]
CRD = ROOT / "crds" / "cachepolicies.pulsecache.dev.yaml"
EXAMPLES = sorted((ROOT / "examples" / "policies").glob("*.yaml"))
NAMESPACE = "crd-objects"
SINCE = "2026-01-01T00:00:00Z"


class Cluster:
    def __init__(self, server: ApiServer) -> None:
        self._server = server

    def run(self, *arguments: str, document: object = None) -> subprocess.CompletedProcess[str]:
        stdin = None if document is None else json.dumps(document)
        return kubectl(self._server, *arguments, f"--namespace={NAMESPACE}", stdin=stdin)

    def must(self, *arguments: str, document: object = None) -> str:
        done = self.run(*arguments, document=document)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def policy(self, name: str = "products") -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.must("get", "pcp", name, "--output=json"))
        return found

    def patch_status(self, status: dict[str, Any]) -> subprocess.CompletedProcess[str]:
        patch = json.dumps({"status": status})
        return self.run("patch", "pcp/products", "--subresource=status", "--type=merge", f"--patch={patch}")


def condition(kind: str, status: str = "True", **more: Any) -> dict[str, Any]:
    return {"type": kind, "status": status, "reason": "Why", "message": "", "lastTransitionTime": SINCE, **more}


PRODUCTS = changed(SERVER_SIDE, {"metadata.namespace": NAMESPACE})


@pytest.fixture
def cluster(apiserver: ApiServer) -> Iterator[Cluster]:
    cluster = Cluster(apiserver)
    cluster.must("apply", "--server-side", "-f", str(CRD))
    cluster.must("wait", "--for=condition=Established", "crd/cachepolicies.pulsecache.dev")
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    kubectl(apiserver, "apply", "--server-side", "-f", "-", stdin=json.dumps(namespace))
    cluster.must("create", "-f", "-", document=PRODUCTS)
    yield cluster
    cluster.must("delete", "pcp", "--all")


def test_it_goes_by_its_short_name_and_category(cluster: Cluster) -> None:
    assert cluster.must("get", "pcp", "-o", "name") == "cachepolicy.pulsecache.dev/products\n"
    assert cluster.must("get", "pulsecache", "-o", "name") == "cachepolicy.pulsecache.dev/products\n"


def test_the_columns_tell_what_matters(cluster: Cluster) -> None:
    status = {
        "conditions": [condition("Ready", reason="InSync")],
        "pods": {"selected": 6, "injected": 5, "inSync": 4},
        "staleness": {"state": "Confirmed", "since": SINCE, "lostPublishers": 0},
    }
    assert cluster.patch_status(status).returncode == 0
    header, line = (row.split() for row in cluster.must("get", "pcp").splitlines())
    assert header == ["NAME", "READY", "MODE", "MAX", "STATE", "PODS", "INJECTED", "AGE"]
    assert line[:-1] == ["products", "True", "Serve", "5s", "Confirmed", "6", "5"]
    assert cluster.must("get", "pcp", "-o", "wide").splitlines()[0].split() == [
        *("NAME", "READY", "MODE", "MAX", "STATE", "PODS", "INJECTED", "IN", "SYNC", "REASON", "AGE")
    ]


def test_status_does_not_touch_the_generation_and_spec_does(cluster: Cluster) -> None:
    assert cluster.policy()["metadata"]["generation"] == 1
    assert cluster.patch_status({"observedGeneration": 1}).returncode == 0
    assert cluster.policy()["metadata"]["generation"] == 1
    cluster.must("patch", "pcp/products", "--type=merge", '--patch={"spec":{"mode":"Bypass"},"status":{"pods":{}}}')
    policy = cluster.policy()
    assert policy["metadata"]["generation"] == 2
    assert policy["status"] == {"observedGeneration": 1}


def test_conditions_are_merged_by_type(cluster: Cluster) -> None:
    def apply(manager: str, kind: str) -> None:
        metadata = {"name": "products", "namespace": NAMESPACE}
        document = {**{key: PRODUCTS[key] for key in ("apiVersion", "kind")}, "metadata": metadata}
        document["status"] = {"conditions": [condition(kind)]}
        command = ("apply", "--server-side", f"--field-manager={manager}", "--subresource=status", "-f", "-")
        cluster.must(*command, document=document)

    apply("one", "Ready")
    apply("two", "Injected")
    assert {one["type"] for one in cluster.policy()["status"]["conditions"]} == {"Ready", "Injected"}


@pytest.mark.parametrize(
    "status",
    [
        {"conditions": [condition("Ready", status="true")]},
        {"conditions": [condition("Ready"), condition("Ready")]},
        {"conditions": [{"type": "Ready", "status": "True"}]},
        {"pods": {"selected": -1}},
        {"staleness": {"state": "Fresh"}},
        {"staleness": {"since": "yesterday"}},
    ],
)
def test_a_bad_status_is_refused(cluster: Cluster, status: dict[str, Any]) -> None:
    assert "is invalid" in cluster.patch_status(status).stderr


def test_kubectl_names_the_field(cluster: Cluster) -> None:
    unknown = cluster.run("apply", "-f", "-", document=changed(PRODUCTS, {"spec.reads[0].ttl.seconds": 1}))
    assert 'unknown field "spec.reads[0].ttl.seconds"' in unknown.stderr
    interval = cluster.run("apply", "-f", "-", document=changed(PRODUCTS, {"spec.staleness.heartbeat.interval": "9s"}))
    assert "spec.staleness.heartbeat.interval: Invalid value" in interval.stderr
    assert "the interval of the heartbeat, 9s, must be shorter than max, 5s" in interval.stderr


def test_an_applied_policy_shows_no_difference(cluster: Cluster) -> None:
    """What defaults add is not taken for a change by those who compare."""
    cluster.must("apply", "--server-side", "--force-conflicts", "-f", "-", document=PRODUCTS)
    difference = cluster.run("diff", "--server-side", "--force-conflicts", "-f", "-", document=PRODUCTS)
    assert (difference.returncode, difference.stdout) == (0, "")


def test_explain_knows_every_field(cluster: Cluster) -> None:
    assert "How long an answer is fresh." in cluster.must("explain", "pcp.spec.reads.ttl")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_the_examples_are_accepted(cluster: Cluster, path: Path) -> None:
    for document in yaml.safe_load_all(path.read_text()):
        moved = changed(document, {"metadata.namespace": NAMESPACE, "metadata.name": f"example-{path.stem}"})
        cluster.must("create", "--validate=strict", "-f", "-", document=moved)
