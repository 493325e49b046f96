"""Rolling workloads: when pods lack what they ought to have, once for each wish, and never against another tool."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from controller_view import condition, injected, parsed, pod_document, policy_document, service, view, workload
from pulsecache_operator.controller.api import DAEMON_SET, STATEFUL_SET, Kind
from pulsecache_operator.controller.facts import Workload
from pulsecache_operator.controller.plan import Plan, plan
from pulsecache_operator.controller.rollout import HEAL_EVERY_S, SETTLE_S, Verdict, written

POLICY = policy_document()
SERVICES = [service()]


def plain(count: int = 1, **more: Any) -> list[dict[str, Any]]:
    return [pod_document(f"p{i}", **more) for i in range(count)]


def with_sidecar(count: int = 1, *documents: dict[str, Any], **more: Any) -> list[dict[str, Any]]:
    policies = parsed(*(documents or (POLICY,)))
    return [injected(pod, policies, SERVICES) for pod in plain(count, **more)]


class Cluster:
    """Carries plans out, as the executor would, with time that only passes when told to."""

    def __init__(self, document: dict[str, Any] = POLICY, **more: Any) -> None:
        self.document = document
        self.more = more
        self.now = 1000.0
        self.memos: dict[str, Any] = {}
        self.pods: Sequence[dict[str, Any]] = plain()
        self.workloads: list[Workload] = [workload()]
        self.injection_problem: str | None = None

    def look(self) -> Plan:
        made = plan(
            view(
                self.document,
                pods=self.pods,
                workloads=self.workloads,
                memos=self.memos,
                now=self.now,
                injection_problem=self.injection_problem,
                **self.more,
            )
        )
        self.memos |= made.memos
        return made

    def verdict(self) -> Verdict:
        (found,) = self.look().workloads
        return found.verdict

    def settle(self) -> None:
        self.look()
        self.now += SETTLE_S

    def roll(self, *, comes_back: bool = True) -> str:
        """The roll-out that is due, as if it had been written."""
        (found,) = self.look().workloads
        assert found.verdict is Verdict.ROLL
        assert found.workload is not None
        assert found.mark is not None
        self.memos[found.workload.uid] = written(self.memos[found.workload.uid], found.mark)
        if comes_back:
            self.workloads = [workload(mark=found.mark)]
        return found.mark


def test_pods_of_before_the_policy_are_rolled_after_a_moment() -> None:
    cluster = Cluster()
    (first,) = cluster.look().workloads
    assert (first.verdict, first.again_s) == (Verdict.SETTLING, SETTLE_S)
    cluster.now += SETTLE_S
    made = cluster.look()
    assert made.workloads[0].verdict is Verdict.ROLL
    assert not made.workloads[0].heals
    assert condition(made, "Injected")["reason"] == "RollingOut"
    assert "deployment/products" in condition(made, "Injected")["message"]


def test_a_workload_is_rolled_once_for_a_wish() -> None:
    cluster = Cluster()
    cluster.settle()
    cluster.roll()
    assert cluster.verdict() is Verdict.ROLLING
    cluster.now += 3600
    assert cluster.verdict() is Verdict.ROLLING, "old pods may take their time (a paused Deployment, OnDelete)"


def test_nothing_is_written_twice_while_the_watch_is_late() -> None:
    cluster = Cluster()
    cluster.settle()
    cluster.roll(comes_back=False)
    cluster.now += 60
    assert cluster.verdict() is Verdict.ROLLING


def test_injected_pods_are_never_disturbed() -> None:
    cluster = Cluster()
    cluster.pods = with_sidecar(3)
    cluster.settle()
    made = cluster.look()
    assert made.workloads == ()
    assert condition(made, "Injected")["status"] == "True"


def test_a_workload_without_pods_needs_nothing() -> None:
    cluster = Cluster()
    cluster.pods = []
    cluster.settle()
    assert cluster.look().workloads == ()


def test_rules_and_numbers_roll_nobody() -> None:
    cluster = Cluster(policy_document(generation=2, mode="Bypass", staleness={"max": "30s"}, store={}))
    cluster.pods = with_sidecar(2)
    cluster.settle()
    assert cluster.look().workloads == ()


def test_another_port_is_another_wish() -> None:
    edited = policy_document(generation=2, targetRef={"name": "products", "sectionName": "admin"})
    with_two = service()
    with_two["spec"]["ports"].append({"name": "admin", "port": 81, "targetPort": "admin"})
    ports = [{"name": "http", "containerPort": 8080}, {"name": "admin", "containerPort": 8081}]
    containers = [{"name": "app", "image": "app:1", "ports": ports}]
    pod = injected(pod_document("p0", containers=containers), parsed(POLICY), [with_two])
    template = workload()
    template.template["spec"]["containers"][0]["ports"].append(ports[1])
    made = plan(view(edited, pods=[pod], workloads=[template], services=[with_two]))
    template.template["spec"]["containers"][0]["ports"].pop()
    assert [w.verdict for w in made.workloads] == [Verdict.SETTLING]
    assert made.counts.injected == 1
    assert "as an older version" in condition(made, "Injected")["message"]


def test_deleting_another_policy_rolls_nobody_though_ports_move() -> None:
    consumer = policy_document(
        "catalog",
        consumer={
            "selector": {"matchLabels": {"app": "products"}},
            "upstream": "http://catalog",
            "env": ["CATALOG_URL"],
        },
    )
    other = policy_document(
        "afirst",
        consumer={"selector": {"matchLabels": {"app": "products"}}, "upstream": "http://first", "env": ["FIRST_URL"]},
    )
    cluster = Cluster(consumer)
    cluster.pods = with_sidecar(2, other, consumer)
    assert "127.0.0.1:15181" in str(cluster.pods[0]["metadata"]["annotations"])
    cluster.settle()
    assert cluster.look().workloads == ()


def test_another_variable_is_another_wish() -> None:
    def consumer(*env: str) -> dict[str, Any]:
        return policy_document(
            "catalog",
            consumer={"selector": {"matchLabels": {"app": "products"}}, "upstream": "http://catalog", "env": list(env)},
        )

    cluster = Cluster(consumer("CATALOG_URL", "OTHER_URL"))
    cluster.pods = with_sidecar(2, consumer("CATALOG_URL"))
    cluster.settle()
    assert cluster.verdict() is Verdict.ROLL


def test_two_policies_roll_a_workload_together() -> None:
    other = policy_document(
        "catalog",
        consumer={
            "selector": {"matchLabels": {"app": "products"}},
            "upstream": "http://catalog",
            "env": ["CATALOG_URL"],
        },
    )
    one, two = Cluster(POLICY, others=[other]), Cluster(other, others=[POLICY])
    one.settle()
    mark = one.roll()
    two.workloads = [workload(mark=mark)]
    two.settle()
    assert two.verdict() is Verdict.ROLLING


def test_nobody_is_rolled_while_the_injector_is_away() -> None:
    cluster = Cluster()
    cluster.injection_problem = "no injector is Ready"
    cluster.settle()
    made = cluster.look()
    assert made.workloads[0].verdict is Verdict.INJECTOR_NOT_READY
    assert condition(made, "Injected")["reason"] == "InjectorNotReady"
    assert "no injector is Ready" in condition(made, "Injected")["message"]
    cluster.injection_problem = None
    assert cluster.verdict() is Verdict.ROLL


def test_pods_that_came_while_the_injector_was_away_are_healed_at_once_the_first_time() -> None:
    cluster = Cluster()
    cluster.pods = [*with_sidecar(2), pod_document("late")]
    cluster.settle()
    assert cluster.verdict() is Verdict.ROLL


def test_a_roll_out_into_nothing_is_repeated_at_most_each_ten_minutes() -> None:
    cluster = Cluster()
    cluster.settle()
    mark = cluster.roll()
    cluster.look()
    cluster.pods = plain(2, mark=mark)
    made = cluster.look()
    assert made.workloads[0].verdict is Verdict.MISSED
    assert made.workloads[0].again_s == HEAL_EVERY_S
    assert condition(made, "Injected")["reason"] == "PodsNotInjected"
    assert "kubectl -n shop rollout restart deployment/products" in condition(made, "Injected")["message"]
    cluster.now += HEAL_EVERY_S - 1
    assert cluster.verdict() is Verdict.MISSED
    cluster.now += 1
    (healing,) = cluster.look().workloads
    assert healing.heals
    second = cluster.roll()
    assert second == f"{mark}-1"
    cluster.pods = plain(2, mark=second)
    assert cluster.verdict() is Verdict.MISSED
    cluster.now += HEAL_EVERY_S
    assert cluster.roll() == f"{mark}-2"


def test_a_new_controller_waits_before_it_heals_what_another_has_rolled() -> None:
    before = Cluster()
    before.settle()
    mark = before.roll()
    after = Cluster()
    after.workloads = [workload(mark=mark)]
    after.pods = plain(2, mark=mark)
    assert after.verdict() is Verdict.MISSED
    after.now += HEAL_EVERY_S
    assert after.verdict() is Verdict.ROLL


def test_a_mark_that_another_tool_takes_away_is_not_written_again() -> None:
    cluster = Cluster()
    cluster.settle()
    cluster.roll()
    cluster.look()
    cluster.workloads = [workload()]
    cluster.now += 7200
    made = cluster.look()
    assert made.workloads[0].verdict is Verdict.REVERTED
    assert "took the roll-out mark out of deployment/products" in condition(made, "Injected")["message"]
    assert condition(made, "Injected")["reason"] == "PodsNotInjected"


def test_going_back_and_forth_between_two_wishes_is_followed() -> None:
    cluster = Cluster()
    cluster.settle()
    first = cluster.roll()
    cluster.look()
    cluster.document = policy_document(
        "products",
        generation=2,
        consumer={"selector": {"matchLabels": {"app": "products"}}, "upstream": "http://x", "env": ["X"]},
    )
    cluster.settle()
    assert cluster.roll() != first
    cluster.look()
    cluster.document = policy_document(generation=3)
    cluster.settle()
    assert cluster.roll() == first


def test_people_who_roll_themselves_get_the_command() -> None:
    cluster = Cluster(policy_document(rollout={"strategy": "None"}))
    cluster.settle()
    made = cluster.look()
    assert made.workloads[0].verdict is Verdict.MANUAL
    assert condition(made, "Injected")["reason"] == "PodsNotInjected"
    assert "kubectl -n shop rollout restart deployment/products" in condition(made, "Injected")["message"]


def test_an_invalid_policy_rolls_nobody() -> None:
    cluster = Cluster(policy_document(reads=[{"name": "x", "match": {"methods": ["GET"], "path": "nope"}}]))
    cluster.settle()
    assert cluster.look().workloads == ()


def test_a_policy_that_cannot_be_placed_rolls_nobody() -> None:
    cluster = Cluster(services=[service(target_port=8080)])
    cluster.settle()
    assert cluster.look().workloads == ()


@pytest.mark.parametrize("kind", [STATEFUL_SET, DAEMON_SET])
def test_statefulsets_and_daemonsets_own_their_pods_directly(kind: Kind) -> None:
    cluster = Cluster()
    cluster.workloads = [workload(kind=kind), workload()]
    owner = {"kind": kind.kind, "name": "products", "uid": f"{kind.kind}-products", "controller": True}
    cluster.pods = plain(2, owner=owner)
    cluster.settle()
    (found,) = cluster.look().workloads
    assert found.verdict is Verdict.ROLL
    assert found.workload is not None
    assert found.workload.kind is kind


def test_pods_that_nobody_rolls_are_told() -> None:
    cluster = Cluster()
    cluster.pods = plain(2, owner={"kind": "Job", "name": "x", "uid": "job", "controller": True})
    cluster.settle()
    made = cluster.look()
    assert made.workloads[0].verdict is Verdict.NOT_OURS
    assert "2 belong to nothing that could be rolled" in condition(made, "Injected")["message"]


def test_a_deployment_whose_name_is_the_beginning_of_anothers_is_not_mistaken() -> None:
    cluster = Cluster()
    owner = {"kind": "ReplicaSet", "name": "products-canary-first", "uid": "rs", "controller": True}
    cluster.pods = plain(1, owner=owner)
    cluster.settle()
    assert cluster.verdict() is Verdict.NOT_OURS


def test_a_sidecar_that_an_old_webhook_made_plain_does_not_count() -> None:
    (pod,) = with_sidecar(1)
    del pod["spec"]["initContainers"][0]["restartPolicy"]
    cluster = Cluster()
    cluster.pods = [pod]
    cluster.settle()
    assert cluster.verdict() is Verdict.ROLL


def test_many_workloads_are_named_by_a_few() -> None:
    owners = [f"w{i}" for i in range(8)]
    pods, workloads = [], []
    for name in owners:
        found = workload("products")
        workloads.append(Workload(found.kind, found.namespace, name, name, found.template))
        owner = {"kind": "ReplicaSet", "name": f"{name}-first", "uid": "rs", "controller": True}
        pods.append(pod_document(name, owner=owner))
    made = plan(view(POLICY, pods=pods, workloads=workloads))
    assert "deployment/w4 and 3 more" in condition(made, "Injected")["message"]
