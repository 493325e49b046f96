"""What the chart makes of its values: compared with what was looked at and found good, and held against rules."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from helm import CHART, NAMESPACE, ROOT, Document, Helm, HelmError, find
from pulsecache_operator import settings
from pulsecache_operator.controller.preflight import needs
from pulsecache_operator.settings import Settings

pytestmark = pytest.mark.api  # needs helm, which is built beside the API server

CASES = sorted(path.name.removesuffix("-values.yaml") for path in (CHART / "ci").glob("*-values.yaml"))
SNAPSHOTS = Path(__file__).parent / "snapshots"
TOO_LONG = ("templates/crds.yaml", "templates/dashboards.yaml")
"""Not in the snapshots: copies of files that have tests of their own."""


def values_of(case: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((CHART / "ci" / f"{case}-values.yaml").read_text())
    return loaded


@pytest.fixture(scope="module", params=CASES)
def rendered(request: pytest.FixtureRequest, helm: Helm) -> list[Document]:
    return helm.render(values_of(request.param))


def workloads(documents: list[Document]) -> list[Document]:
    return [d for d in documents if d["kind"] in ("Deployment", "StatefulSet")]


@pytest.mark.parametrize("case", CASES)
def test_helm_lint_is_content(helm: Helm, case: str) -> None:
    helm.run("lint", "--strict", str(CHART), f"--values={CHART / 'ci' / f'{case}-values.yaml'}")


@pytest.mark.parametrize("case", CASES)
def test_rendering_equals_the_snapshot(helm: Helm, case: str) -> None:
    """After a wanted change: UPDATE_SNAPSHOTS=1, and look at the difference."""
    text = helm.template(values_of(case))
    parts = text.removeprefix("---\n").split("\n---\n")
    kept = [part for part in parts if not any(f"# Source: pulsecache/{name}" in part for name in TOO_LONG)]
    text = "\n---\n".join(part.strip("\n") for part in kept) + "\n"
    snapshot = SNAPSHOTS / f"{case}.yaml"
    if os.environ.get("UPDATE_SNAPSHOTS"):
        snapshot.parent.mkdir(exist_ok=True)
        snapshot.write_text(text)
    assert text == snapshot.read_text(), "UPDATE_SNAPSHOTS=1 writes it anew"


# --- the webhook -----------------------------------------------------------------------------------------------


def webhook(documents: list[Document]) -> tuple[str, Document]:
    (found,) = (d for d in documents if d["kind"] == "MutatingWebhookConfiguration")
    (hook,) = found["webhooks"]
    return found["metadata"]["name"], hook


@pytest.mark.parametrize("release", ["pulsecache", "zz", "cache", "z" * 53])
def test_webhook_is_called_before_those_of_meshes(helm: Helm, release: str) -> None:
    name, _ = webhook(helm.render(release=release))
    others = ["istio-sidecar-injector", "istio-revision-tag-default", "linkerd-proxy-injector-webhook-config"]
    assert sorted([*others, name])[0] == name


def test_webhook_of_a_release_called_pulsecache_has_the_documented_name(helm: Helm) -> None:
    assert webhook(helm.render())[0] == "apulsecache-injector"


def test_there_is_no_ca_bundle_in_any_manifest(helm: Helm) -> None:
    """The controller writes it; one in the manifest would undo that, or differ for ever."""
    for case in CASES:
        assert "caBundle" not in "".join(
            line for line in helm.template(values_of(case)).splitlines() if not line.startswith("#")
        )


def test_webhook_leaves_the_system_itself_and_those_who_opted_out_alone(rendered: list[Document]) -> None:
    _, hook = webhook(rendered)
    opted_out = {"key": "pulsecache.dev/inject", "operator": "NotIn", "values": ["false"]}
    assert opted_out in hook["objectSelector"]["matchExpressions"]
    assert opted_out in hook["namespaceSelector"]["matchExpressions"]
    (names,) = (
        e["values"] for e in hook["namespaceSelector"]["matchExpressions"] if e["key"] == "kubernetes.io/metadata.name"
    )
    assert {"kube-system", "kube-public", "kube-node-lease", NAMESPACE} <= set(names)
    assert len(names) == len(set(names))


def test_webhook_answers_fast_or_not_at_all(helm: Helm) -> None:
    _, hook = webhook(helm.render())
    assert (hook["failurePolicy"], hook["timeoutSeconds"], hook["reinvocationPolicy"]) == ("Ignore", 3, "IfNeeded")
    assert hook["matchPolicy"] == "Equivalent"
    assert hook["clientConfig"]["service"] == {
        "name": "pulsecache-injector",
        "namespace": NAMESPACE,
        "path": "/inject",
        "port": 443,
    }


# --- rights ----------------------------------------------------------------------------------------------------

READ_ONLY = {"get", "list", "watch"}


def rules(documents: list[Document], *kinds: str) -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{d['kind']} {d['metadata']['name']}", rule) for d in documents if d["kind"] in kinds for rule in d["rules"]
    ]


def test_no_rule_has_a_wildcard(rendered: list[Document]) -> None:
    for name, rule in rules(rendered, "ClusterRole", "Role"):
        for field in ("apiGroups", "resources", "verbs"):
            assert not any("*" in value for value in rule[field]), name
        assert "nonResourceURLs" not in rule, name


def test_secrets_are_only_reached_by_name(rendered: list[Document]) -> None:
    """Except `create`, which RBAC cannot bind to a name."""
    for name, rule in rules(rendered, "ClusterRole", "Role"):
        if "secrets" in rule["resources"]:
            assert rule["verbs"] == ["create"] or rule.get("resourceNames"), name
            assert rule["resources"] == ["secrets"], name


def test_only_the_own_webhook_configuration_may_be_changed(rendered: list[Document]) -> None:
    expected, _ = webhook(rendered)
    found = [r for _, r in rules(rendered, "ClusterRole", "Role") if "mutatingwebhookconfigurations" in r["resources"]]
    assert [r["resourceNames"] for r in found] == [[expected]]
    assert not {"create", "delete", "update"} & {verb for r in found for verb in r["verbs"]}


def test_pods_are_never_written(rendered: list[Document]) -> None:
    for name, rule in rules(rendered, "ClusterRole", "Role"):
        if "pods" in rule["resources"]:
            assert set(rule["verbs"]) <= READ_ONLY, name
        assert not {"pods/exec", "pods/proxy", "pods/log", "nodes/proxy"} & set(rule["resources"]), name


def test_the_injector_writes_nothing_but_events(rendered: list[Document]) -> None:
    for name, rule in rules(rendered, "ClusterRole", "Role"):
        if name.endswith("-injector") and set(rule["verbs"]) - READ_ONLY:
            assert rule["resources"] == ["events"], name


def test_without_redis_the_controller_may_make_no_secrets_elsewhere(helm: Helm) -> None:
    documents = helm.render(values_of("no-redis"))
    assert not [rule for _, rule in rules(documents, "ClusterRole") if "secrets" in rule["resources"]]


Right = tuple[str, str, str, str, str]
"""verb, API group, resource, namespace ("" is all), name ("" is every)"""


def rights(documents: list[Document], program: str) -> set[Right]:
    """What the roles of a program grant, one by one."""
    return {
        (verb, group, resource, document["metadata"].get("namespace", ""), name)
        for document in documents
        if document["kind"] in ("ClusterRole", "Role") and document["metadata"]["name"].endswith(f"-{program}")
        for rule in document["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
        for name in rule.get("resourceNames", [""])
    }


def test_the_controller_may_do_what_it_asks_for_and_nothing_else(rendered: list[Document]) -> None:
    """It asks the API server at its start whether it may do all that it does: the same list."""
    wanted = {
        (verb, need.kind.group, "/".join(filter(None, (need.kind.plural, need.subresource))), need.namespace, need.name)
        for need in needs(settings_of(rendered, "controller"))
        for verb in need.verbs
    }
    granted = rights(rendered, "controller")
    # without a cluster the settings of an existing Secret are not known
    granted_by_redis = {right for right in granted if right[2] == "secrets" and not right[3]}
    assert wanted - granted == set()
    assert granted - wanted - (set() if "pulsecache-redis" in str(wanted) else granted_by_redis) == set()


def test_the_injector_may_watch_and_write_events(rendered: list[Document]) -> None:
    see = ("list", "watch")
    watched = [("pulsecache.dev", "cachepolicies"), ("", "services"), ("", "namespaces")]
    secret = settings_of(rendered, "injector").tls_secret
    assert rights(rendered, "injector") == {
        *((verb, group, resource, "", "") for group, resource in watched for verb in see),
        *((verb, "", "secrets", NAMESPACE, secret) for verb in see),
        ("create", "", "events", "", ""),
    }


def test_every_binding_binds_an_account_that_a_pod_runs_as(rendered: list[Document]) -> None:
    accounts = {d["metadata"]["name"] for d in rendered if d["kind"] == "ServiceAccount"}
    used = {d["spec"]["template"]["spec"].get("serviceAccountName") for d in workloads(rendered)} - {None}
    bound = {
        (s["name"], s["namespace"])
        for d in rendered
        if d["kind"].endswith("Binding")
        for s in d["subjects"]
        if s["kind"] == "ServiceAccount"
    }
    assert accounts == used == {name for name, _ in bound}
    assert {namespace for _, namespace in bound} == {NAMESPACE}
    roles = {(d["kind"], d["metadata"]["name"]) for d in rendered if d["kind"].endswith("Role")}
    assert {(d["roleRef"]["kind"], d["roleRef"]["name"]) for d in rendered if d["kind"].endswith("Binding")} <= roles


# --- the programs get what they understand ---------------------------------------------------------------------


def environment(container: dict[str, Any], secrets: dict[str, dict[str, str]]) -> dict[str, str]:
    """As the kubelet would make it."""
    result = {}
    for variable in container["env"]:
        if "value" in variable:
            result[variable["name"]] = variable["value"]
        elif "fieldRef" in variable["valueFrom"]:
            assert variable["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.namespace"
            result[variable["name"]] = NAMESPACE
        else:
            reference = variable["valueFrom"]["secretKeyRef"]
            if reference["name"] in secrets:
                result[variable["name"]] = secrets[reference["name"]][reference["key"]]
    return result


def container_of(documents: list[Document], program: str) -> dict[str, Any]:
    (found,) = (d for d in documents if d["kind"] == "Deployment" and d["metadata"]["name"].endswith(f"-{program}"))
    (container,) = found["spec"]["template"]["spec"]["containers"]
    assert isinstance(container, dict)
    return container


def settings_of(documents: list[Document], program: str) -> Settings:
    """What the program itself makes of what it is given."""
    container = container_of(documents, program)
    secrets = {d["metadata"]["name"]: d["stringData"] for d in documents if d["kind"] == "Secret"}
    command, read = settings.parse(container["args"], environment(container, secrets))
    assert command == program
    return read


@pytest.mark.parametrize("program", ["controller", "injector"])
def test_settings_are_understood_by_the_program(rendered: list[Document], program: str) -> None:
    read = settings_of(rendered, program)
    ports = {p["name"]: p["containerPort"] for p in container_of(rendered, program)["ports"]}
    hook_name, hook = webhook(rendered)
    assert read.namespace == NAMESPACE
    assert read.health_listen.port == ports["metrics"]
    if program == "injector":
        assert read.webhook_listen.port == ports["webhook"]
    else:
        assert read.webhook_configuration == hook_name
        assert read.webhook_service == hook["clientConfig"]["service"]["name"]


def test_every_variable_is_in_the_table_of_the_architecture(rendered: list[Document]) -> None:
    documented = set(re.findall(r"^\| `(PULSECACHE_\w+)`", (ROOT / "docs" / "architecture.md").read_text(), re.M))
    assert documented
    for deployment in workloads(rendered):
        for container in deployment["spec"]["template"]["spec"]["containers"]:
            names = {v["name"] for v in container.get("env", []) if v["name"].startswith("PULSECACHE_")}
            assert names <= documented


# --- what belongs together finds each other --------------------------------------------------------------------


def matches(selector: dict[str, str], labels: dict[str, str]) -> bool:
    return selector.items() <= labels.items()


def test_services_budgets_and_policies_select_pods_and_ports_that_exist(rendered: list[Document]) -> None:
    pods = [d["spec"]["template"] for d in workloads(rendered)]
    for document in rendered:
        kind, name, spec = document["kind"], document["metadata"]["name"], document.get("spec", {})
        if kind == "Service":
            chosen = [p for p in pods if matches(spec["selector"], p["metadata"]["labels"])]
            assert chosen, name
            for pod in chosen:
                ports = {p["name"] for c in pod["spec"]["containers"] for p in c["ports"]}
                assert {p["targetPort"] for p in spec["ports"]} <= ports, name
        elif kind == "PodDisruptionBudget":
            assert [p for p in pods if matches(spec["selector"]["matchLabels"], p["metadata"]["labels"])], name
        elif kind == "NetworkPolicy":
            assert [p for p in pods if matches(spec["podSelector"]["matchLabels"], p["metadata"]["labels"])], name
        elif kind in ("Deployment", "StatefulSet"):
            assert matches(spec["selector"]["matchLabels"], spec["template"]["metadata"]["labels"]), name


def test_no_two_workloads_select_the_same_pods(rendered: list[Document]) -> None:
    for one in workloads(rendered):
        for other in workloads(rendered):
            labels = other["spec"]["template"]["metadata"]["labels"]
            assert matches(one["spec"]["selector"]["matchLabels"], labels) == (one is other)


def test_what_selectors_use_does_not_change_with_the_version(rendered: list[Document]) -> None:
    for workload in workloads(rendered):
        assert set(workload["spec"]["selector"]["matchLabels"]) == {
            "app.kubernetes.io/name",
            "app.kubernetes.io/instance",
            "app.kubernetes.io/component",
        }


@pytest.mark.parametrize(
    "release", ["x", "with.dots.in-it", "pulsecache-of-the-platform-team-with-a-long-name", "a" * 53]
)
def test_names_are_short_enough_and_unique(helm: Helm, release: str) -> None:
    documents = helm.render(values_of("everything"), release=release)
    names = [(d["kind"], d["metadata"].get("namespace"), d["metadata"]["name"]) for d in documents]
    assert len(names) == len(set(names))
    for kind, _, name in names:
        assert kind == "CustomResourceDefinition" or re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", name), name


def test_common_labels_are_on_everything(helm: Helm) -> None:
    for document in helm.render({"commonLabels": {"team": "platform"}} | {"dashboards": {"enabled": True}}):
        assert document["metadata"]["labels"]["team"] == "platform", document["metadata"]["name"]
    for workload in workloads(helm.render({"commonLabels": {"team": "platform"}})):
        assert workload["spec"]["template"]["metadata"]["labels"]["team"] == "platform"


def test_one_value_moves_every_image_to_a_mirror(helm: Helm) -> None:
    documents = helm.render({"image": {"registry": "mirror.example/cache/"}})
    images = [c["image"] for d in workloads(documents) for c in d["spec"]["template"]["spec"]["containers"]]
    images += [
        v["value"]
        for d in workloads(documents)
        for c in d["spec"]["template"]["spec"]["containers"]
        for v in c["env"]
        if v["name"] == "PULSECACHE_SIDECAR_IMAGE"
    ]
    assert len(images) == 5
    assert all(image.startswith("mirror.example/cache/") and "//" not in image for image in images)


def test_a_digest_wins_over_the_tag(helm: Helm) -> None:
    digest = "sha256:" + "ab" * 32
    documents = helm.render({"redis": {"image": {"digest": digest, "tag": "7.2"}}})
    (container,) = find(documents, "StatefulSet", "pulsecache-redis")["spec"]["template"]["spec"]["containers"]
    assert container["image"] == f"redis@{digest}"


# --- Redis -----------------------------------------------------------------------------------------------------


def test_a_change_of_a_password_restarts_redis(helm: Helm) -> None:
    def checksum(password: str) -> str:
        documents = helm.render({"redis": {"auth": {"operatorPassword": password, "sidecarPassword": "s" * 16}}})
        template = find(documents, "StatefulSet", "pulsecache-redis")["spec"]["template"]
        found: str = template["metadata"]["annotations"]["checksum/configuration"]
        return found

    assert checksum("a" * 16) == checksum("a" * 16)
    assert checksum("a" * 16) != checksum("b" * 16)


def test_an_existing_secret_makes_renderings_equal(helm: Helm) -> None:
    assert helm.template(values_of("gitops")) == helm.template(values_of("gitops"))
    documents = helm.render(values_of("gitops"))
    assert not [d for d in documents if d["kind"] == "Secret"]
    text = yaml.safe_dump_all(documents)
    assert text.count("redis-of-pulsecache") == 4  # two URLs, the probe's password, the users


def test_external_redis_of_one_url_serves_both(helm: Helm) -> None:
    url = "redis://user:password@redis.example:6379/1"
    documents = helm.render({"redis": {"enabled": False}, "externalRedis": {"operatorUrl": url}})
    secret = find(documents, "Secret", "pulsecache-redis-external")
    assert secret["stringData"] == {"operator-url": url, "sidecar-url": url}


def test_external_redis_by_an_existing_secret_brings_no_secret(helm: Helm) -> None:
    documents = helm.render({"redis": {"enabled": False}, "externalRedis": {"existingSecret": "mine"}})
    assert not [d for d in documents if d["kind"] == "Secret"]
    (container,) = find(documents, "Deployment", "pulsecache-controller")["spec"]["template"]["spec"]["containers"]
    references = {v["name"]: v["valueFrom"]["secretKeyRef"] for v in container["env"] if "REDIS_URL" in v["name"]}
    assert references == {
        "PULSECACHE_REDIS_URL": {"name": "mine", "key": "operator-url"},
        "PULSECACHE_SIDECAR_REDIS_URL": {"name": "mine", "key": "sidecar-url"},
    }


# --- values ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"replicas": 3}, "additional properties 'replicas' not allowed"),
        ({"injector": {"replica": 3}}, "additional properties 'replica' not allowed"),
        ({"injector": {"replicas": 0}}, "minimum"),
        ({"injector": {"replicas": "2"}}, "want integer"),
        ({"controller": {"replicas": 3}}, "maximum"),
        ({"image": {"pullPolicy": "Sometimes"}}, "value must be one of"),
        ({"sidecar": {"image": {"digest": "sha256:123"}}}, "does not match pattern"),
        ({"sidecar": {"image": {"registry": "mirror.example"}}}, "additional properties 'registry' not allowed"),
        ({"sidecar": {"resources": {"request": {}}}}, "additional properties 'request' not allowed"),
        ({"webhook": {"failurePolicy": "ignore"}}, "value must be one of"),
        ({"webhook": {"timeoutSeconds": 31}}, "maximum"),
        ({"redis": {"auth": {"sidecarPassword": "short"}}}, "does not match pattern"),
        ({"redis": {"auth": {"sidecarPassword": "with@sign-in-the-middle"}}}, "does not match pattern"),
        ({"redis": {"maxmemoryPolicy": "allkeys-lru"}}, "value must be one of"),
        ({"redis": {"maxmemory": "192Mi"}}, "does not match pattern"),
        ({"externalRedis": {"operatorUrl": "http://redis.example"}}, "does not match pattern"),
        ({"operator": {"logFormat": "text"}}, "value must be one of"),
        ({"podMonitor": {"interval": 15}}, "want string"),
        ({"commonLabels": {"a": 1}}, "want string"),
        ({"controller": {"extraEnv": [{"value": "x"}]}}, "missing property 'name'"),
        ({"fullnameOverride": "Not_A_Name"}, "does not match pattern"),
        ({"crds": {"keep": "yes"}}, "want boolean"),
    ],
)
def test_a_value_that_means_nothing_is_refused(helm: Helm, values: dict[str, Any], said: str) -> None:
    with pytest.raises(HelmError) as refused:
        helm.template(values)
    assert said in str(refused.value)


def test_a_values_file_for_a_parent_chart_may_have_globals(helm: Helm) -> None:
    assert helm.render({"global": {"anything": True}})


# --- the CRD ---------------------------------------------------------------------------------------------------


def test_the_crd_is_the_source_with_labels_and_the_mark_to_keep_it(helm: Helm) -> None:
    (source,) = (yaml.safe_load(path.read_text()) for path in (ROOT / "crds").glob("*.yaml"))
    made = find(helm.render(), "CustomResourceDefinition", "cachepolicies.pulsecache.dev")
    assert made["metadata"]["annotations"].pop("helm.sh/resource-policy") == "keep"
    assert made["metadata"].pop("labels")
    made["metadata"]["annotations"] or made["metadata"].pop("annotations")
    assert made == source


@pytest.mark.parametrize(("case", "there", "kept"), [("gitops", True, False), ("no-redis", False, False)])
def test_the_crd_may_be_left_out_or_let_go(helm: Helm, case: str, there: bool, kept: bool) -> None:
    found = [d for d in helm.render(values_of(case)) if d["kind"] == "CustomResourceDefinition"]
    assert bool(found) == there
    assert any("helm.sh/resource-policy" in d["metadata"].get("annotations", {}) for d in found) == kept


# --- monitoring ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("pod_ip", "address"), [("10.1.2.3", "10.1.2.3:15090"), ("fd00::7", "[fd00::7]:15090")])
def test_pod_monitor_finds_a_port_that_nobody_declared(helm: Helm, pod_ip: str, address: str) -> None:
    monitor = find(helm.render({"podMonitor": {"enabled": True}}), "PodMonitor", "pulsecache-sidecars")
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert not {"port", "portNumber", "targetPort"} & set(endpoint)
    found = pod_ip
    for step in endpoint["relabelings"]:
        match = re.fullmatch(step["regex"], pod_ip)
        if step["action"] == "replace" and match:
            found = re.sub(r"\$(\d)", r"\\\1", step["replacement"])
            found = match.expand(found)
    assert found == address


def test_service_monitor_selects_the_metrics_service_and_keeps_its_labels(helm: Helm) -> None:
    documents = helm.render({"serviceMonitor": {"enabled": True}})
    spec = find(documents, "ServiceMonitor", "pulsecache")["spec"]
    chosen = [
        d
        for d in documents
        if d["kind"] == "Service" and matches(spec["selector"]["matchLabels"], d["metadata"]["labels"])
    ]
    assert [d["metadata"]["name"] for d in chosen] == ["pulsecache-metrics"]
    # pulsecache_pods has a label `namespace` of its own
    assert all(endpoint["honorLabels"] for endpoint in spec["endpoints"])


def test_monitors_are_only_there_when_asked_for(helm: Helm) -> None:
    """Their CRDs may not be."""
    assert not [d for d in helm.render() if d["apiVersion"].startswith("monitoring.coreos.com/")]


def test_dashboards_are_found_by_the_sidecar_of_grafana(helm: Helm) -> None:
    documents = helm.render({"dashboards": {"enabled": True}})
    found = [d for d in documents if d["metadata"]["labels"].get("grafana_dashboard") == "1"]
    files = {path.name: path.read_text() for path in (CHART / "dashboards").glob("*.json")}
    assert {name.removeprefix("pulsecache-"): text for d in found for name, text in d["data"].items()} == files
