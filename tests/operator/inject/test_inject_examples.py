"""What injection makes of a few pods, whole, to be read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pods import CONFIG, client_side, namespace, pod, server_side, service
from pulsecache_operator.inject import InjectionPlan, MalformedStatus, SidecarConfig, inject, status_of, strip
from pulsecache_operator.selection import Inject, plan_for

STATUS = "pulsecache.dev/status"


def injected(pod: dict[str, Any], *policies: Any, config: SidecarConfig = CONFIG) -> dict[str, Any]:
    return inject(pod, plan(pod, *policies), config)


def plan(pod: dict[str, Any], *policies: Any) -> InjectionPlan:
    decision = plan_for(pod, namespace(), policies, [service()])
    assert isinstance(decision, Inject), decision
    return decision.plan


def test_server_side() -> None:
    after = injected(pod(), server_side())
    status = json.loads(after["metadata"]["annotations"].pop(STATUS))
    assert status.pop("digest")
    assert status == {
        "format": 1,
        "version": "0.1.0",
        "image": "registry.example/pulsecache-sidecar:1",
        "policies": ["shop/products"],
        "binds": ["products=*:15080,http://$(PULSECACHE_POD_IP):8080"],
        "undo": {
            "absent": ["metadata.annotations", "spec.initContainers", "spec.volumes"],
            "label": None,
            "ports": [["app", "http", 8080, 15080, "pulse-app"]],
            "env": [],
            "noEnv": [],
            "resources": None,
        },
    }
    probe = {"periodSeconds": 1, "timeoutSeconds": 1, "successThreshold": 1, "failureThreshold": 30}
    live = {"httpGet": {"path": "/-/livez", "port": 15090, "scheme": "HTTP"}}
    ready = {"httpGet": {"path": "/-/readyz", "port": 15090, "scheme": "HTTP"}}
    assert after == {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": "products-5d8f-",
            "labels": {"app": "products", "pulsecache.dev/injected": "true"},
            "annotations": {},
        },
        "spec": {
            "initContainers": [
                {
                    "name": "pulsecache",
                    "image": "registry.example/pulsecache-sidecar:1",
                    "imagePullPolicy": "IfNotPresent",
                    "restartPolicy": "Always",
                    "args": [
                        *("run", "--policies", "/etc/pulsecache/policies"),
                        *("--admin", "*:15090", "--data", "/var/lib/pulsecache"),
                        *("--bind", "products=*:15080,http://$(PULSECACHE_POD_IP):8080"),
                    ],
                    "env": [
                        field("PULSECACHE_POD_NAME", "metadata.name"),
                        field("PULSECACHE_POD_NAMESPACE", "metadata.namespace"),
                        field("PULSECACHE_POD_UID", "metadata.uid"),
                        field("PULSECACHE_POD_IP", "status.podIP"),
                        {
                            "name": "PULSECACHE_REDIS_URL",
                            "valueFrom": {"secretKeyRef": {"name": "pulsecache-redis", "key": "url", "optional": True}},
                        },
                    ],
                    "resources": {"requests": {"cpu": "50m", "memory": "96Mi"}, "limits": {"memory": "256Mi"}},
                    "startupProbe": live | probe,
                    "livenessProbe": live | probe | {"periodSeconds": 10, "timeoutSeconds": 3, "failureThreshold": 3},
                    "readinessProbe": ready | probe | {"periodSeconds": 5, "timeoutSeconds": 2, "failureThreshold": 3},
                    "volumeMounts": [
                        {"name": "pulsecache-policies", "mountPath": "/etc/pulsecache/policies", "readOnly": True},
                        {"name": "pulsecache-data", "mountPath": "/var/lib/pulsecache"},
                    ],
                    "securityContext": {
                        "runAsNonRoot": True,
                        "runAsUser": 65532,
                        "runAsGroup": 65532,
                        "allowPrivilegeEscalation": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]},
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "terminationMessagePath": "/dev/termination-log",
                    "terminationMessagePolicy": "FallbackToLogsOnError",
                }
            ],
            "containers": [
                {
                    "name": "app",
                    "image": "products:1",
                    "ports": [
                        {"name": "http", "containerPort": 15080, "protocol": "TCP"},
                        {"name": "pulse-app", "containerPort": 8080, "protocol": "TCP"},
                    ],
                    "readinessProbe": {"httpGet": {"path": "/ready", "port": "pulse-app"}},
                }
            ],
            "volumes": [
                {
                    "name": "pulsecache-policies",
                    "projected": {
                        "sources": [
                            {
                                "configMap": {
                                    "name": "pulsecache-products",
                                    "items": [{"key": "bundle.json", "path": "products.json"}],
                                    "optional": True,
                                }
                            }
                        ],
                        "defaultMode": 420,
                    },
                },
                {"name": "pulsecache-data", "emptyDir": {}},
            ],
        },
    }


def field(variable: str, path: str) -> dict[str, Any]:
    return {"name": variable, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}}


def test_client_side_sets_the_variable_in_place_and_in_every_container() -> None:
    url = {"name": "CATALOG_URL", "value": "http://127.0.0.1:15180"}
    containers = [
        {
            "name": "app",
            "env": [
                {"name": "HOST", "value": "a"},
                {"name": "CATALOG_URL", "valueFrom": {"configMapKeyRef": {"name": "urls", "key": "catalog"}}},
                {"name": "ITEMS_URL", "value": "$(CATALOG_URL)/items"},
            ],
        },
        {"name": "helper"},
    ]
    before = pod(containers=containers, initContainers=[{"name": "wait", "env": [{"name": "CATALOG_URL"}]}])
    after = injected(before, client_side("catalog", "CATALOG_URL"))
    app, helper = after["spec"]["containers"]
    assert app["env"] == [containers[0]["env"][0], url, containers[0]["env"][2]]
    assert helper["env"] == [url]
    # An init container asks the origin itself: it must not hang should somebody put it before the sidecar.
    assert after["spec"]["initContainers"][1] == before["spec"]["initContainers"][0]
    assert after["spec"]["initContainers"][0]["args"][-2:] == [
        "--bind",
        "catalog=127.0.0.1:15180,http://catalog.shop.svc",
    ]
    assert strip(after) == before


def test_several_policies_are_one_sidecar_with_several_binds_the_oldest_first() -> None:
    before = pod()
    before["spec"]["containers"][0]["ports"].append({"name": "admin", "containerPort": 9000})
    services = [service(), service("admin", {"name": "http", "port": 80, "targetPort": "admin"})]
    policies = [
        server_side("young", "admin", created="2026-03-01T00:00:00Z"),
        client_side("middle", created="2026-02-01T00:00:00Z"),
        server_side("old", created="2026-01-01T00:00:00Z"),
    ]
    decision = plan_for(before, namespace(), policies, services)
    assert isinstance(decision, Inject)
    after = inject(before, decision.plan, CONFIG)
    assert [c["name"] for c in after["spec"]["initContainers"]] == ["pulsecache"]
    assert status_of(after).binds == (  # type: ignore[union-attr]  # it is there
        "old=*:15080,http://$(PULSECACHE_POD_IP):8080",
        "middle=127.0.0.1:15180,http://middle.shop.svc",
        "young=*:15081,http://$(PULSECACHE_POD_IP):9000",
    )
    assert after["spec"]["containers"][0]["ports"] == [
        {"name": "http", "containerPort": 15080, "protocol": "TCP"},
        {"name": "admin", "containerPort": 15081},
        {"name": "pulse-app", "containerPort": 8080, "protocol": "TCP"},
        {"name": "pulse-app-1", "containerPort": 9000},
    ]
    sources = after["spec"]["volumes"][0]["projected"]["sources"]
    assert [s["configMap"]["name"] for s in sources] == ["pulsecache-old", "pulsecache-middle", "pulsecache-young"]


def test_hooks_follow_the_app_and_so_does_a_native_sidecar_that_declares_the_port() -> None:
    front = {
        "name": "front",
        "restartPolicy": "Always",
        "ports": [{"name": "http", "containerPort": 8443}],
        "startupProbe": {"tcpSocket": {"port": "http"}},
        "livenessProbe": {"httpGet": {"port": 8443}},
        "lifecycle": {
            "postStart": {"httpGet": {"port": "http", "path": "/warm"}},
            "preStop": {"tcpSocket": {"port": "http"}},
        },
    }
    before = pod(containers=[{"name": "app", "readinessProbe": {"httpGet": {"port": "http"}}}], initContainers=[front])
    after = injected(before, server_side())
    ours, theirs = after["spec"]["initContainers"]
    assert ours["name"] == "pulsecache"
    assert theirs["ports"][0] == {"name": "http", "containerPort": 15080}
    assert theirs["startupProbe"]["tcpSocket"]["port"] == "pulse-app"
    assert theirs["livenessProbe"]["httpGet"]["port"] == 8443
    assert theirs["lifecycle"]["postStart"]["httpGet"]["port"] == "pulse-app"
    assert theirs["lifecycle"]["preStop"]["tcpSocket"]["port"] == "pulse-app"
    # The kubelet looks for a probe's port in the same container: this one never was about `front`.
    assert after["spec"]["containers"] == before["spec"]["containers"]
    assert strip(after) == before


def test_the_budget_of_a_pod_as_a_whole_grows_by_what_the_sidecar_needs() -> None:
    budget = {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1", "memory": "1Gi"}}
    before = pod(resources=budget)
    after = injected(before, server_side())
    mi = 1024 * 1024
    assert after["spec"]["resources"] == {
        "requests": {"cpu": "1050m", "memory": str((1024 + 96) * mi)},
        "limits": {"cpu": "1050m", "memory": str((1024 + 256) * mi)},
    }
    assert strip(after) == before


# --- what others do to an injected pod --------------------------------------------------------------------------


def test_what_a_mesh_does_after_us_is_left_as_it_is() -> None:
    before = pod()
    wish = plan(before, server_side())
    meshed = inject(before, wish, CONFIG)
    meshed["spec"]["initContainers"].insert(0, {"name": "istio-proxy", "restartPolicy": "Always"})
    meshed["spec"]["initContainers"][1]["readinessProbe"] = {"httpGet": {"path": "/app-health", "port": 15020}}
    meshed["spec"]["volumes"].append({"name": "istio-token"})
    assert inject(meshed, wish, CONFIG) == meshed
    stripped = strip(meshed)
    assert [c["name"] for c in stripped["spec"]["initContainers"]] == ["istio-proxy"]
    assert stripped["spec"]["containers"] == before["spec"]["containers"]
    assert stripped["spec"]["volumes"] == [{"name": "istio-token"}]


@pytest.mark.parametrize(
    "harm",
    [
        lambda spec: spec["initContainers"][0].pop("restartPolicy"),
        lambda spec: spec["initContainers"].clear(),
        lambda spec: spec["volumes"].pop(),
        lambda spec: spec["containers"][0]["ports"].pop(),
        lambda spec: spec["containers"][0]["ports"][0].update(containerPort=8080),
        lambda spec: spec["containers"][0]["env"].clear(),
        lambda spec: spec["containers"][0].pop("env"),
    ],
    ids=["restartPolicy", "container", "volume", "alias", "port", "variable", "variables"],
)
def test_what_an_old_webhook_breaks_is_mended_when_we_are_asked_again(harm: Any) -> None:
    """A webhook that does not know a field drops it: without `restartPolicy` the pod would never start."""
    wish = plan(pod(), server_side(), client_side())
    good = inject(pod(), wish, CONFIG)
    broken = inject(pod(), wish, CONFIG)
    harm(broken["spec"])
    mended = inject(broken, wish, CONFIG)
    assert mended["spec"]["initContainers"] == good["spec"]["initContainers"]
    assert {v["name"] for v in mended["spec"]["volumes"]} == {"pulsecache-policies", "pulsecache-data"}
    assert sorted(mended["spec"]["containers"][0]["ports"], key=str) == sorted(
        good["spec"]["containers"][0]["ports"], key=str
    )
    assert mended["spec"]["containers"][0]["env"] == good["spec"]["containers"][0]["env"]


def test_a_new_image_is_put_in_place_of_the_old_one() -> None:
    wish = plan(pod(), server_side())
    newer = SidecarConfig(
        image="registry.example/pulsecache-sidecar:2",
        pull_policy="Always",
        resources=CONFIG.resources,
        redis_secret="pulsecache-redis",
        version="0.2.0",
    )
    assert inject(inject(pod(), wish, CONFIG), wish, newer) == inject(pod(), wish, newer)


@pytest.mark.parametrize(
    "text", ["", "{}", "no JSON", "[]", '{"format":2}', "null", '{"format":1,"undo":{}}', "[" * 9999]
)
def test_an_annotation_that_we_did_not_write_is_malformed_and_the_pod_untouched(text: str) -> None:
    strange = pod()
    strange["metadata"]["annotations"] = {STATUS: text}
    wish = plan(pod(), server_side())
    for act in (strip, status_of, lambda given: inject(given, wish, CONFIG)):
        with pytest.raises(MalformedStatus, match=r"pulsecache\.dev/status"):
            act(strange)


def test_what_does_not_fit_into_the_annotations_is_refused() -> None:
    before = pod()
    before["spec"]["containers"][0]["env"] = [{"name": "CATALOG_URL", "value": "x" * 300_000}]
    with pytest.raises(ValueError, match="does not fit"):
        injected(before, client_side("catalog", "CATALOG_URL"))


def test_a_plan_for_another_pod_is_refused() -> None:
    wish = plan(pod(), server_side())
    with pytest.raises(ValueError, match="no container app with a port http"):
        inject(pod(containers=[{"name": "app"}]), wish, CONFIG)
    other = [{"name": "app", "ports": [{"name": "http", "containerPort": 9999}]}]
    with pytest.raises(ValueError, match="is not 8080"):
        inject(pod(containers=other), wish, CONFIG)
