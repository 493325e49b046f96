"""Which pods get a sidecar, and why the others do not."""

from __future__ import annotations

from typing import Any

import pytest

from pods import CONFIG, client_side, namespace, pod, server_side, service
from pulsecache_operator.inject import Redirect, TakeOver, inject
from pulsecache_operator.selection import Inject, Reason, Skip, conflicts, placement_problem, plan_for, selects


def decide(given: dict[str, Any], *policies: Any, services: Any = None, where: Any = None) -> Any:
    return plan_for(
        given,
        where or namespace(),
        policies,
        [service()] if services is None else services,
        own_namespace="pulsecache-system",
    )


def container(*ports: dict[str, Any], name: str = "app", **more: Any) -> dict[str, Any]:
    return {"name": name, "ports": list(ports), **more}


HTTP = {"name": "http", "containerPort": 8080}


# --- who is selected --------------------------------------------------------------------------------------------


def test_the_selector_of_the_service_decides() -> None:
    decision = decide(pod(), server_side())
    assert decision.refusals == ()
    assert decision.plan.binds == (
        TakeOver(policy="products", container="app", port="http", app_port=8080, data_port=15080, alias="pulse-app"),
    )
    other = pod()
    other["metadata"]["labels"] = {"app": "other"}
    assert decide(other, server_side()).reason is Reason.NO_POLICY


def test_every_label_of_the_selector_must_match() -> None:
    services = [service(selector={"app": "products", "tier": "front"})]
    assert decide(pod(), server_side(), services=services).reason is Reason.NO_POLICY


def test_a_consumer_says_its_pods_itself() -> None:
    decision = decide(pod(), client_side("catalog", "A_URL", "B_URL"))
    assert decision.plan.binds == (
        Redirect(policy="catalog", upstream="http://catalog.shop.svc", env=("A_URL", "B_URL"), data_port=15180),
    )
    assert decide(pod(), client_side(labels={"app": "storefront"})).reason is Reason.NO_POLICY


def test_policies_and_services_of_other_namespaces_do_not_count() -> None:
    assert decide(pod(), server_side(namespace="other")).reason is Reason.NO_POLICY
    foreign = service()
    foreign["metadata"]["namespace"] = "other"
    assert decide(pod(), server_side(), services=[foreign]).reason is Reason.SERVICE_MISSING


def test_the_namespace_of_the_review_counts_and_not_what_the_pod_says() -> None:
    given = pod()
    given["metadata"]["namespace"] = "elsewhere"
    assert isinstance(decide(given, server_side()), Inject)


def test_selects_tells_it_of_one_policy_for_running_pods_too() -> None:
    running = pod()
    running["metadata"]["namespace"] = "shop"
    decision = decide(running, server_side())
    for given in (running, inject(running, decision.plan, CONFIG)):
        assert selects(server_side(), given, [service()])
        assert selects(client_side(), given, [])
        assert not selects(client_side(namespace="other"), given, [])
        assert not selects(server_side(), given, [])
    assert selects(server_side(), pod(), [service()], namespace="shop")


# --- pods that are left alone -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "change"),
    [
        (Reason.OPTED_OUT, lambda p: p["metadata"]["labels"].update({"pulsecache.dev/inject": "false"})),
        (Reason.HOST_NETWORK, lambda p: p["spec"].update(hostNetwork=True)),
        (Reason.MIRROR_POD, lambda p: p["metadata"].update(annotations={"kubernetes.io/config.mirror": "x"})),
        (Reason.WINDOWS, lambda p: p["spec"].update(os={"name": "windows"})),
        (Reason.WINDOWS, lambda p: p["spec"].update(nodeSelector={"kubernetes.io/os": "windows"})),
        (Reason.ADMIN_PORT_TAKEN, lambda p: p["spec"]["containers"].append(container({"containerPort": 15090}))),
        (Reason.NAME_TAKEN, lambda p: p["spec"]["containers"].append(container(name="pulsecache"))),
        (Reason.NAME_TAKEN, lambda p: p["spec"].update(initContainers=[container(name="pulsecache")])),
        (Reason.NAME_TAKEN, lambda p: p["spec"].update(volumes=[{"name": "pulsecache-data"}])),
        (Reason.MALFORMED_STATUS, lambda p: p["metadata"].update(annotations={"pulsecache.dev/status": "{}"})),
        (Reason.HOST_PORT, lambda p: p["spec"]["containers"][0]["ports"][0].update(hostPort=80)),
        (Reason.PORT_NAME_MISSING_ON_CONTAINER, lambda p: p["spec"]["containers"][0].pop("ports")),
        (
            Reason.PORT_NAME_MISSING_ON_CONTAINER,
            lambda p: p["spec"]["containers"][0]["ports"][0].update(protocol="UDP"),
        ),
    ],
)
def test_a_pod_that_policies_cannot_have(reason: Reason, change: Any) -> None:
    given = pod()
    change(given)
    decision = decide(given, server_side())
    assert isinstance(decision, Skip)
    assert decision.reason is reason
    assert decision.message


@pytest.mark.parametrize(
    ("reason", "where"),
    [
        (Reason.OPTED_OUT, namespace(**{"pulsecache.dev__inject": "false"})),
        (Reason.KUBE_SYSTEM, namespace("kube-system")),
        (Reason.OWN_NAMESPACE, namespace("pulsecache-system")),
    ],
)
def test_a_namespace_that_is_left_alone(reason: Reason, where: dict[str, Any]) -> None:
    name = where["metadata"]["name"]
    decision = decide(pod(), client_side(namespace=name), where=where)
    assert decision.reason is reason
    assert decision.selected_by == ("catalog",)


def test_other_values_of_the_label_do_not_opt_out() -> None:
    given = pod()
    given["metadata"]["labels"]["pulsecache.dev/inject"] = "true"
    assert isinstance(decide(given, server_side()), Inject)


def test_that_a_pod_is_left_alone_is_no_news_where_no_policy_wants_it() -> None:
    decision = decide(pod(hostNetwork=True, containers=[container({"containerPort": 15090})]))
    assert decision == Skip(reason=Reason.NO_POLICY, message="no policy selects the pod")


# --- ports and names of a pod -----------------------------------------------------------------------------------


def test_numbers_and_names_that_the_app_uses_are_gone_around() -> None:
    app = container(
        HTTP,
        {"name": "pulse-app", "containerPort": 15080},
        {"containerPort": 7, "hostPort": 15081},
        readinessProbe={"httpGet": {"port": 15082}},
        livenessProbe={"httpGet": {"port": "pulse-app-1"}},
    )
    (bind,) = decide(pod(containers=[app]), server_side()).plan.binds
    assert (bind.data_port, bind.alias) == (15083, "pulse-app-2")


def test_the_admin_port_is_never_given_away() -> None:
    taken = [{"containerPort": number} for number in range(15080, 15090)]
    (bind,) = decide(pod(containers=[container(HTTP, *taken)]), server_side()).plan.binds
    assert bind.data_port == 15091


def test_no_port_is_free() -> None:
    taken = [{"containerPort": number} for number in range(15080, 15280) if number != 15090]
    given = pod(containers=[container(HTTP, *taken)])
    assert decide(given, server_side()).reason is Reason.NO_FREE_PORT
    assert decide(given, client_side()).reason is Reason.NO_FREE_PORT


def test_the_first_container_that_declares_the_name_counts_and_init_containers_come_last() -> None:
    native = container({"name": "http", "containerPort": 1}, name="native", restartPolicy="Always")
    plain = container({"name": "http", "containerPort": 2}, name="plain")
    first, second = container(name="first"), container({"name": "http", "containerPort": 3}, name="second")
    third = container({"name": "http", "containerPort": 4}, name="third")

    def found(**spec: Any) -> Any:
        decision = decide(pod(**spec), server_side())
        return decision.plan.binds[0].container if isinstance(decision, Inject) else decision.reason

    assert found(containers=[first, second, third], initContainers=[plain, native]) == "second"
    assert found(containers=[first], initContainers=[plain, native]) == "native"
    assert found(containers=[first], initContainers=[plain]) is Reason.PORT_NAME_MISSING_ON_CONTAINER


def test_a_refused_policy_does_not_keep_the_others_out() -> None:
    decision = decide(pod(containers=[container()]), server_side(), client_side())
    assert [bind.policy for bind in decision.plan.binds] == ["catalog"]
    assert [(r.policy, r.reason) for r in decision.refusals] == [("products", Reason.PORT_NAME_MISSING_ON_CONTAINER)]


# --- two that claim the same ------------------------------------------------------------------------------------


OLD, YOUNG = "2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z"


@pytest.mark.parametrize(
    ("winner", "loser"),
    [
        (server_side("z", created=OLD), server_side("a", created=YOUNG)),
        (server_side("a", created=OLD), server_side("b", created=OLD)),
        (server_side("z", created=OLD), server_side("a")),
        (client_side("z", "A", "B", created=OLD), client_side("a", "C", "B", created=YOUNG)),
    ],
    ids=["the older wins", "then the name", "no date is the youngest", "one variable of two"],
)
def test_of_two_that_claim_the_same_one_has_no_effect(winner: Any, loser: Any) -> None:
    for policies in ([winner, loser], [loser, winner]):
        decision = decide(pod(), *policies)
        assert [bind.policy for bind in decision.plan.binds] == [winner.name]
        assert [(r.policy, r.reason) for r in decision.refusals] == [(loser.name, Reason.CONFLICTING)]
        found = conflicts(policies, [service()])
        assert list(found) == [loser.key]
        assert found[loser.key].winner == winner.key
        assert winner.name in found[loser.key].message


def test_the_third_is_free_where_the_second_is_not_in_force() -> None:
    policies = [
        client_side("a", "A", created="2026-01-01T00:00:00Z"),
        client_side("b", "A", "B", created="2026-01-02T00:00:00Z"),
        client_side("c", "B", created="2026-01-03T00:00:00Z"),
    ]
    assert list(conflicts(policies, [])) == ["shop/b"]
    assert [bind.policy for bind in decide(pod(), *policies).plan.binds] == ["a", "c"]


def test_different_ports_variables_pods_and_namespaces_do_not_conflict() -> None:
    services = [
        service(
            "products", {"name": "http", "port": 80, "targetPort": "http"}, {"name": "x", "port": 81, "targetPort": "x"}
        ),
        service("other", selector={"app": "other"}),
    ]
    policies = [
        server_side("a"),
        server_side("b", port="x"),
        server_side("c", "other"),
        server_side("d", namespace="elsewhere"),
        client_side("e", "A"),
        client_side("f", "B"),
        client_side("g", "A", labels={"app": "other"}),
    ]
    assert conflicts(policies, services) == {}


def test_two_services_in_front_of_the_same_pods_conflict_when_all_pods_are_common() -> None:
    wide, narrow = service("wide"), service("narrow", selector={"app": "products", "tier": "front"})
    old, young = server_side("old", "wide", created=OLD), server_side("young", "narrow", created=YOUNG)
    assert list(conflicts([old, young], [wide, narrow])) == ["shop/young"]
    # The other way round some pods are the young one's alone: it is in force on those.
    old, young = server_side("old", "narrow", created=OLD), server_side("young", "wide", created=YOUNG)
    assert conflicts([old, young], [wide, narrow]) == {}
    both = pod()
    both["metadata"]["labels"]["tier"] = "front"
    assert [b.policy for b in decide(both, old, young, services=[wide, narrow]).plan.binds] == ["old"]
    assert [b.policy for b in decide(pod(), old, young, services=[wide, narrow]).plan.binds] == ["young"]


def test_one_that_can_be_placed_nowhere_claims_nothing() -> None:
    broken = server_side("a", port="no-such-port", created=OLD)
    assert conflicts([broken, server_side("b", created=YOUNG)], [service()]) == {}


# --- policies that can be placed nowhere ------------------------------------------------------------------------


def port(**fields: Any) -> dict[str, Any]:
    return {"name": "http", "port": 80, "protocol": "TCP", "targetPort": "http"} | fields


@pytest.mark.parametrize(
    ("reason", "services", "fix"),
    [
        (Reason.SERVICE_MISSING, [], "Create the Service products in namespace shop"),
        (Reason.SERVICE_WITHOUT_SELECTOR, [service(selector={})], "use spec.consumer"),
        (Reason.SERVICE_WITHOUT_SELECTOR, [service(type="ExternalName")], "use spec.consumer"),
        (Reason.NO_SUCH_PORT, [service("products", port(name="web"))], "sectionName"),
        (Reason.PORT_NOT_TCP, [service("products", port(protocol="UDP"))], "TCP"),
        (Reason.NUMERIC_TARGET_PORT, [service("products", port(targetPort=8080))], "Give containerPort 8080 a name"),
        (
            Reason.NUMERIC_TARGET_PORT,
            [service("products", {"name": "http", "port": 80})],
            "Give containerPort 80 a name",
        ),
    ],
)
def test_the_problem_of_a_policy_says_what_to_do(reason: Reason, services: Any, fix: str) -> None:
    problem = placement_problem(server_side(), services)
    assert problem is not None
    assert problem.reason is reason
    assert fix in problem.fix
    assert decide(pod(), server_side(), services=services).reason in (reason, Reason.NO_POLICY)


@pytest.mark.parametrize(
    "protocol",
    ["https", "HTTPS", "tls", "h2c", "http2", "grpc", "kubernetes.io/h2c", "kubernetes.io/wss", "redis", "x.y/z"],
)
def test_a_port_that_does_not_speak_http_1_in_clear_cannot_be_cached(protocol: str) -> None:
    services = [service("products", port(appProtocol=protocol))]
    problem = placement_problem(server_side(), services)
    assert problem is not None
    assert problem.reason is Reason.PORT_NOT_HTTP
    assert protocol in problem.message
    assert decide(pod(), server_side(), services=services).reason is Reason.PORT_NOT_HTTP


@pytest.mark.parametrize("protocol", [None, "", "http", "HTTP", "kubernetes.io/ws"])
def test_a_port_that_may_speak_http_is_taken(protocol: str | None) -> None:
    services = [service("products", port(appProtocol=protocol))]
    assert placement_problem(server_side(), services) is None
    assert isinstance(decide(pod(), server_side(), services=services), Inject)


def test_the_name_of_the_port_may_be_left_out_where_there_is_one_port_alone() -> None:
    unnamed = {"port": 80, "targetPort": "http"}
    assert placement_problem(server_side(port=None), [service("products", unnamed)]) is None
    problem = placement_problem(server_side(port=None), [service("products", port(), port(name="b"))])
    assert problem is not None
    assert problem.reason is Reason.PORT_NOT_NAMED
    assert "http, b" in problem.message


def test_a_name_that_leaves_no_room_for_the_name_of_its_config_map() -> None:
    assert placement_problem(client_side("a" * 242), []) is None
    problem = placement_problem(client_side("a" * 243), [])
    assert problem is not None
    assert problem.reason is Reason.NAME_TOO_LONG
    assert decide(pod(), client_side("a" * 243)).reason is Reason.NAME_TOO_LONG


def test_a_missing_service_may_be_anybodys_and_is_told_of_only_when_nothing_else_is() -> None:
    lost = server_side("lost", "nowhere")
    assert decide(pod(), lost).reason is Reason.SERVICE_MISSING
    assert decide(pod(), lost).selected_by == ()
    assert decide(pod(hostNetwork=True), lost, server_side()).reason is Reason.HOST_NETWORK
    decision = decide(pod(), lost, server_side())
    assert [bind.policy for bind in decision.plan.binds] == ["products"]
