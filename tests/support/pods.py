"""Pods, and worlds of policies and Services around them: by hand for examples, by hypothesis for properties.

What is generated is what an API server may hand to a webhook: accepted in principle, strange in every way that
injection could trip over (taken names and numbers, references to ports that nobody declares, variables given twice,
empty lists beside absent ones, budgets of the pod as a whole).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from pulsecache_operator.inject import SidecarConfig
from pulsecache_operator.selection import Decision, plan_for
from pulsecache_policy.model import CachePolicy, Consumer, TargetRef

NAMESPACE = "shop"
CONFIG = SidecarConfig(
    image="registry.example/pulsecache-sidecar:1",
    pull_policy="IfNotPresent",
    resources={"requests": {"cpu": "50m", "memory": "96Mi"}, "limits": {"memory": "256Mi"}},
    redis_secret="pulsecache-redis",
    version="0.1.0",
)

Json = dict[str, Any]


# --- by hand ----------------------------------------------------------------------------------------------------


def pod(**spec: Any) -> Json:
    """A pod of the Deployment `products`, as its ReplicaSet asks for it."""
    containers = [
        {
            "name": "app",
            "image": "products:1",
            "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
            "readinessProbe": {"httpGet": {"path": "/ready", "port": "http"}},
        }
    ]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"generateName": "products-5d8f-", "labels": {"app": "products"}},
        "spec": {"containers": containers} | spec,
    }


def service(name: str = "products", *ports: Json, selector: Json | None = None, **spec: Any) -> Json:
    return {
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "selector": {"app": "products"} if selector is None else selector,
            "ports": list(ports) or [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": "http"}],
        }
        | spec,
    }


def server_side(
    name: str = "products", target: str = "products", port: str | None = "http", **more: Any
) -> CachePolicy:
    placement = TargetRef(name=target, section_name=port)
    return _policy(name, placement, more)


def client_side(name: str = "catalog", *env: str, labels: Json | None = None, **more: Any) -> CachePolicy:
    match = tuple((labels or {"app": "products"}).items())
    consumer = Consumer(match_labels=match, upstream=f"http://{name}.shop.svc", env=env or ("CATALOG_URL",))
    return _policy(name, consumer, more)


def _policy(name: str, placement: TargetRef | Consumer, more: Json) -> CachePolicy:
    fields: Json = {"namespace": NAMESPACE, "dataset": f"{NAMESPACE}/{name}", "uid": f"uid-{name}"} | more
    return CachePolicy(name=name, placement=placement, **fields)


def namespace(name: str = NAMESPACE, **labels: str) -> Json:
    return {"metadata": {"name": name, "labels": {key.replace("__", "/"): value for key, value in labels.items()}}}


# --- generated --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class World:
    pod: Json
    policies: list[CachePolicy]
    services: list[Json]

    def decide(self, given: Json | None = None, policies: list[CachePolicy] | None = None) -> Decision:
        return plan_for(
            given or self.pod,
            namespace(),
            self.policies if policies is None else policies,
            self.services,
            own_namespace="pulsecache-system",
        )


PORT_NAMES = st.sampled_from(["http", "http", "web", "metrics", "pulse-app", "pulse-app-1"])
NUMBERS = st.sampled_from([80, 8080, 8081, 9090, 15080, 15081, 15180, 65535])
ENV_NAMES = st.sampled_from(["CATALOG_URL", "CATALOG_URL", "PRODUCTS_URL", "PATH_OF_APP", "PORT"])
LABELS = st.fixed_dictionaries({"app": st.just("products")}, optional={"tier": st.sampled_from(["front", "back"])})


def _optional(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Json]:
    return st.fixed_dictionaries({}, optional=fields)


HANDLERS = st.one_of(
    st.builds(
        lambda port, more: {"httpGet": {"port": port} | more},
        st.one_of(PORT_NAMES, NUMBERS),
        _optional(path=st.just("/healthy"), scheme=st.sampled_from(["HTTP", "HTTPS"])),
    ),
    st.builds(lambda port: {"tcpSocket": {"port": port}}, st.one_of(PORT_NAMES, NUMBERS)),
    st.just({"exec": {"command": ["true"]}}),
)
PROBES = st.one_of(HANDLERS, st.builds(lambda port: {"grpc": {"port": port}}, NUMBERS))
ENV = st.builds(
    lambda name, value: {"name": name} | value,
    ENV_NAMES,
    st.one_of(
        st.just({}),
        st.sampled_from([{"value": "http://catalog"}, {"value": "http://127.0.0.1:15180"}, {"value": "$(PORT)/x"}]),
        st.just({"valueFrom": {"configMapKeyRef": {"name": "urls", "key": "catalog", "optional": True}}}),
    ),
)


@st.composite
def _ports(draw: st.DrawFn) -> list[Json]:
    names = draw(st.lists(st.one_of(st.none(), PORT_NAMES), max_size=4, unique_by=lambda n: n or object()))
    ports = []
    for name in names:
        port: Json = {"containerPort": draw(NUMBERS)}
        if name:
            port["name"] = name
        if protocol := draw(st.sampled_from([None, "TCP", "TCP", "TCP", "UDP"])):
            port["protocol"] = protocol
        ports.append(port)
    return ports


def _secured(restricted: bool) -> Json:
    if not restricted:
        return {}
    return {
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 1000,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        }
    }


@st.composite
def _container(draw: st.DrawFn, name: str, restricted: bool, role: str) -> Json:
    container: Json = {"name": name, "image": f"{name}:1"} | _secured(restricted)
    container |= draw(
        _optional(
            ports=_ports(),
            env=st.lists(ENV, max_size=4),
            args=st.just(["--port", "http", "$(PORT)"]),
            resources=st.sampled_from([{}, {"requests": {"cpu": "10m"}}, {"limits": {"memory": "64Mi"}}]),
        )
    )
    if role == "native":
        container["restartPolicy"] = "Always"
    if role != "init":
        container |= draw(_optional(livenessProbe=PROBES, readinessProbe=PROBES, startupProbe=PROBES))
        # Pod Security knows the `host` field of handlers alone, which none of these has.
        container |= draw(_optional(lifecycle=_optional(postStart=HANDLERS, preStop=HANDLERS)))
    return container


@st.composite
def pods(draw: st.DrawFn, *, restricted: bool = False) -> Json:
    names: list[str] = [
        "app",
        *draw(st.lists(st.sampled_from(["helper", "metrics", "proxy"]), max_size=2, unique=True)),
    ]
    spec: Json = {"containers": [draw(_container(name, restricted, "app")) for name in names]}
    if draw(st.booleans()):
        # The one container that most worlds are about.
        spec["containers"][0]["ports"] = [{"name": "http", "containerPort": 8080}]
    initial = draw(st.lists(st.sampled_from(["init", "native", "migrate"]), max_size=2, unique=True))
    if initial or draw(st.booleans()):
        spec["initContainers"] = [
            draw(_container(name, restricted, "native" if name == "native" else "init")) for name in initial
        ]
    volumes = [{"name": "scratch", "emptyDir": {}}, {"name": "settings", "configMap": {"name": "settings"}}]
    spec |= draw(
        _optional(
            volumes=st.lists(st.sampled_from(volumes), max_size=2, unique_by=lambda volume: str(volume["name"])),
            securityContext=st.sampled_from([{}, {"runAsNonRoot": True, "fsGroup": 2000}]),
            terminationGracePeriodSeconds=st.just(10),
            restartPolicy=st.sampled_from(["Always", "OnFailure", "Never"]),
            shareProcessNamespace=st.just(True),
            os=st.just({"name": "linux"}),
            resources=st.sampled_from(
                [
                    {},
                    {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1", "memory": "1Gi"}},
                    {"limits": {"cpu": "1500m", "memory": "2G"}},
                    {"requests": {"cpu": "0.5"}, "limits": {"memory": "1Gi"}},
                ]
            ),
        )
    )
    metadata: Json = {"generateName": "products-"} | draw(
        _optional(
            annotations=st.sampled_from([{}, {"prometheus.io/port": "8080"}, {"a/b~c": "~/x"}]),
            namespace=st.just(NAMESPACE),
        )
    )
    labels = draw(LABELS)
    if draw(st.integers(0, 9)) == 0:
        labels["pulsecache.dev/injected"] = draw(st.sampled_from(["true", "copied", ""]))
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata | {"labels": labels}, "spec": spec}


@st.composite
def _policies(draw: st.DrawFn) -> list[CachePolicy]:
    policies = []
    for name in draw(st.lists(st.sampled_from(["alpha", "beta", "gamma", "delta"]), unique=True, max_size=4)):
        created = draw(st.sampled_from(["", "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"]))
        if draw(st.booleans()):
            target = draw(st.sampled_from(["products", "products", "other"]))
            policies.append(server_side(name, target, draw(st.sampled_from(["http", "web"])), created=created))
        else:
            env = draw(st.lists(ENV_NAMES, min_size=1, max_size=2, unique=True))
            labels = draw(st.sampled_from([{"app": "products"}, {"tier": "front"}]))
            policies.append(client_side(name, *env, labels=labels, created=created))
    return policies


@st.composite
def worlds(draw: st.DrawFn, *, restricted: bool = False) -> World:
    ports = [
        {"name": "http", "port": 80, "targetPort": draw(st.sampled_from(["http", "http", "web", 8080]))},
        {"name": "web", "port": 81, "targetPort": draw(PORT_NAMES)},
    ]
    other = [{"name": "http", "port": 80, "targetPort": "web"}]
    policies = draw(_policies())
    if draw(st.integers(0, 3)):
        policies.append(server_side("products", "products", "http", created="2025-01-01T00:00:00Z"))
    return World(
        pod=draw(pods(restricted=restricted)),
        policies=policies,
        services=[service("products", *ports), service("other", *other, selector=draw(LABELS))],
    )
