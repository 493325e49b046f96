"""Installed, upgraded and removed on a real API server, and admitted under the strictest Pod Security Standard.

The server has no node and no controller: what pods do is shown by the end-to-end tests.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from apiserver import ApiServer, api_server, kubectl
from helm import CHART, NAMESPACE, ROOT, Document, Helm

pytestmark = pytest.mark.api

SHOP = ROOT / "examples" / "shop" / "manifests"
WORKLOADS = {"Deployment", "StatefulSet", "DaemonSet"}


@pytest.fixture(scope="module")
def server() -> Iterator[ApiServer]:
    """Its own: a webhook that nobody serves would slow other tests' pods down."""
    with api_server() as started:
        yield started


def ask(server: ApiServer, *arguments: str, stdin: str | None = None) -> str:
    done = kubectl(server, *arguments, stdin=stdin)
    assert done.returncode == 0, done.stderr
    return done.stdout


def get(server: ApiServer, *arguments: str) -> Any:
    return json.loads(ask(server, "get", *arguments, "-o", "json"))


def install(helm: Helm, server: ApiServer, *arguments: str, release: str = "pulsecache") -> str:
    return helm.run(
        *("upgrade", "--install", release, str(CHART), "--namespace", NAMESPACE, "--create-namespace", *arguments),
        kubeconfig=server.kubeconfig,
    )


def uninstall(helm: Helm, server: ApiServer, release: str = "pulsecache") -> str:
    return helm.run("uninstall", release, "--namespace", NAMESPACE, kubeconfig=server.kubeconfig)


def secret(server: ApiServer) -> dict[str, str]:
    data = get(server, "secret", "pulsecache-redis-server", "-n", NAMESPACE)["data"]
    return {name: base64.b64decode(value).decode() for name, value in data.items()}


def test_install_upgrade_and_uninstall(helm: Helm, server: ApiServer) -> None:
    notes = install(helm, server)
    assert "kubectl apply -f - <<'EOF'" in notes
    assert "pulsecache.dev/inject=false" in notes

    made = secret(server)
    assert len(made["operator-password"]) == len(made["sidecar-password"]) == 40
    assert made["operator-password"] != made["sidecar-password"]
    assert made["sidecar-password"] in made["sidecar-url"]
    assert made["sidecar-password"] not in made["users.acl"]

    # as the controller does, once it has a certificate
    ca = base64.b64encode(b"-----BEGIN CERTIFICATE-----").decode()
    patch = [{"op": "add", "path": "/webhooks/0/clientConfig/caBundle", "value": ca}]
    name = "apulsecache-injector"
    ask(server, "patch", "mutatingwebhookconfiguration", name, "--type=json", f"--patch={json.dumps(patch)}")

    install(helm, server, "--set", "injector.replicas=3", "--set", "webhook.timeoutSeconds=2")
    assert get(server, "deployment", "pulsecache-injector", "-n", NAMESPACE)["spec"]["replicas"] == 3
    assert secret(server) == made, "an upgrade keeps the passwords"
    (hook,) = get(server, "mutatingwebhookconfiguration", name)["webhooks"]
    assert hook["clientConfig"]["caBundle"] == ca, "an upgrade keeps what the controller wrote"
    assert hook["timeoutSeconds"] == 2

    said = uninstall(helm, server)
    assert "cachepolicies.pulsecache.dev" in said, "helm says what it left behind"
    assert get(server, "crd", "cachepolicies.pulsecache.dev")
    remaining = get(server, "all,secret,configmap,clusterrole,clusterrolebinding,mutatingwebhookconfiguration", "-A")
    ours = [d["metadata"]["name"] for d in remaining["items"] if "pulsecache" in d["metadata"]["name"]]
    assert ours == []

    # the CRD that stayed is taken over, not fought about
    install(helm, server)
    uninstall(helm, server)


@pytest.mark.parametrize("case", ["everything", "external-redis", "no-redis"])
def test_the_api_server_takes_every_kind_of_installation(
    helm: Helm, server: ApiServer, case: str, tmp_path: Path
) -> None:
    values = yaml.safe_load((CHART / "ci" / f"{case}-values.yaml").read_text())
    # the kinds of the Prometheus Operator are not known here
    for monitor in ("podMonitor", "serviceMonitor", "prometheusRule"):
        values.pop(monitor, None)
    if "dashboards" in values:
        values["dashboards"].pop("namespace")
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    try:
        install(helm, server, "--values", str(file))
    finally:
        uninstall(helm, server)


# --- Pod Security ----------------------------------------------------------------------------------------------


def pods_of(documents: list[Document]) -> list[Document]:
    """A pod of each workload, with nothing that only a running cluster has."""
    pods = []
    for document in documents:
        if document["kind"] not in WORKLOADS:
            continue
        spec = dict(document["spec"]["template"]["spec"], serviceAccountName="default")
        for claim in document["spec"].get("volumeClaimTemplates", []):
            reference = {"persistentVolumeClaim": {"claimName": claim["metadata"]["name"]}}
            spec["volumes"] = [*spec["volumes"], {"name": claim["metadata"]["name"], **reference}]
        metadata = dict(document["spec"]["template"]["metadata"], name=document["metadata"]["name"])
        pods.append({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    return pods


@pytest.fixture(scope="module")
def restricted(server: ApiServer) -> str:
    """A namespace that admits only what the standard `restricted` allows."""
    name = "strict"
    levels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": levels}}
    ask(server, "apply", "-f", "-", stdin=json.dumps(namespace))
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": name}}
    ask(server, "apply", "-f", "-", stdin=json.dumps(account))
    return name


def refused(server: ApiServer, namespace: str, pods: list[Document]) -> list[str]:
    said = []
    for pod in pods:
        command = ("create", "-n", namespace, "--dry-run=server", "--validate=strict", "-f", "-")
        done = kubectl(server, *command, stdin=json.dumps(pod))
        if done.returncode or "Warning" in done.stderr:
            said.append(f"{pod['metadata']['name']}: {done.stderr}")
    return said


def test_the_namespace_of_these_tests_is_strict(server: ApiServer, restricted: str) -> None:
    plain = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "plain"}}
    spec = {"containers": [{"name": "plain", "image": "plain"}]}
    assert len(refused(server, restricted, [{**plain, "spec": spec}])) == 1


@pytest.mark.parametrize("case", ["default", "everything", "external-redis"])
def test_every_pod_of_the_chart_is_admitted_by_the_strictest_standard(
    helm: Helm, server: ApiServer, restricted: str, case: str
) -> None:
    values = yaml.safe_load((CHART / "ci" / f"{case}-values.yaml").read_text())
    # a priority class is looked up, and this server has none of its own yet
    for component in ("controller", "injector"):
        values.setdefault(component, {})["priorityClassName"] = ""
    pods = pods_of(helm.render(values))
    assert len(pods) >= 2
    assert refused(server, restricted, pods) == []


# --- the example shop ------------------------------------------------------------------------------------------


def documents_of(folder: Path) -> list[Document]:
    return [d for path in sorted(folder.glob("*.yaml")) for d in yaml.safe_load_all(path.read_text()) if d]


def test_every_pod_of_the_shop_is_admitted_by_the_strictest_standard(server: ApiServer, restricted: str) -> None:
    pods = pods_of(documents_of(SHOP))
    assert {pod["metadata"]["name"] for pod in pods} == {"postgres", "products", "storefront", "prometheus"}
    assert refused(server, restricted, pods) == []


def test_the_shop_and_its_policies_can_be_applied(server: ApiServer) -> None:
    ask(server, "apply", "-f", str(ROOT / "crds"))
    ask(server, "wait", "--for=condition=Established", "crd/cachepolicies.pulsecache.dev", "--timeout=20s")
    ask(server, "apply", "-f", str(SHOP / "00-namespace.yaml"))
    for folder in (SHOP, SHOP / "policies"):
        done = kubectl(server, "apply", "--dry-run=server", "--validate=strict", "-f", str(folder))
        assert done.returncode == 0, done.stderr
        assert "Warning" not in done.stderr
