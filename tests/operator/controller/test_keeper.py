"""Publishers of a dataset: who is fenced, when an old epoch is over, and what replicas without a sidecar mean."""

from __future__ import annotations

from typing import Any

import pytest

from controller_view import KEEPER, injected, namespace, parsed, pod_document, policy_document, service
from pulsecache_operator.controller.keeper import (
    GAP_S,
    Cover,
    Dataset,
    Fence,
    Members,
    Memo,
    Replicas,
    datasets,
    decide,
    doubtful,
    observed,
    replicas,
)
from pulsecache_operator.controller.rollout import Surroundings
from pulsecache_policy.hub_scripts import OLD_EPOCH, UNCOVERED

SETTLE_S, SILENCE_S = 30.0, 3.0
A, B, C = (f"{letter * 8}-0000-0000-0000-000000000000" for letter in "abc")


def publisher(uid: str, start: str = "1") -> str:
    return f"{uid}.{start}"


class World:
    """A hub and its pods; `look` each second, as the controller does, and carry out what it decides."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.epoch = "e1"
        self.beats: dict[str, int] = {}
        self.alive: set[str] = set()
        self.there: set[str] = set()
        self.publishing: set[str] = set()
        self.bare: set[str] = set()
        self.watch_is_behind = False
        self.memo = Memo()
        self.done: list[tuple[float, Fence | Cover]] = []
        self.lists = 0

    def pod(self, uid: str, *, start: str = "1", joins: bool = True) -> str:
        self.there.add(uid)
        self.publishing.add(uid)
        name = publisher(uid, start)
        if joins:
            self.beats[name] = 0
            self.alive.add(name)
        return name

    def gone(self, uid: str, *, process: bool = True) -> None:
        self.there.discard(uid)
        self.publishing.discard(uid)
        if process:
            self.alive -= {name for name in self.alive if name.startswith(uid)}

    def look(self) -> tuple[Fence | Cover, ...]:
        for name in self.alive & set(self.beats):
            self.beats[name] += 1
        members = Members(epoch=self.epoch, beats=dict(self.beats))
        fresh = Replicas(there=frozenset(self.there), publishing=frozenset(self.publishing), bare=frozenset(self.bare))
        nothing = Replicas(there=frozenset(), publishing=frozenset(), bare=frozenset())
        known = nothing if self.watch_is_behind else fresh
        memo = observed(self.memo, members, self.now)
        asked = doubtful(memo, members, silence_s=SILENCE_S, now=self.now)
        self.lists += asked
        decision = decide(
            memo, members, known, fresh if asked else None, settle_s=SETTLE_S, silence_s=SILENCE_S, now=self.now
        )
        self.memo = decision.memo
        for action in decision.actions:
            self.done.append((self.now - 1000.0, action))
            match action:
                case Fence(name, beats) if beats is None or self.beats.get(name) == beats:
                    self.beats.pop(name, None)
                case Cover(True):
                    self.beats.pop(UNCOVERED, None)
                case Cover(False):
                    self.beats[UNCOVERED] = 0
        return decision.actions

    def looks(self, seconds: int) -> list[tuple[float, Fence | Cover]]:
        """What was done in this time, and when (since the beginning)."""
        before = len(self.done)
        for _ in range(seconds):
            self.look()
            self.now += 1
        return self.done[before:]


@pytest.fixture
def world() -> World:
    return World()


class TestFencing:
    def test_nobody_is_touched_while_all_beat_and_no_pods_are_listed(self, world: World) -> None:
        world.pod(A)
        world.pod(B)
        assert world.looks(300) == []
        assert world.lists == 0

    def test_one_whose_pod_is_gone_is_fenced_when_its_writes_have_settled(self, world: World) -> None:
        world.pod(A)
        world.pod(B)
        world.looks(10)
        world.gone(A)
        (at, action), *rest = world.looks(60)
        assert action == Fence(publisher(A), 10)
        assert 10 + SETTLE_S < at <= 10 + SETTLE_S + SILENCE_S + 2
        assert rest == []

    def test_a_silent_one_whose_pod_is_there_is_left_alone_for_ever(self, world: World) -> None:
        """It may be cut off from Redis and still forward writes: the watermark waits."""
        world.pod(A)
        world.alive.clear()
        assert world.looks(3600) == []

    def test_one_that_beats_is_alive_whatever_the_api_server_says(self, world: World) -> None:
        """Its object was deleted by force while its node was cut off."""
        world.pod(A)
        world.gone(A, process=False)
        assert world.looks(600) == []

    def test_one_that_beats_again_has_not_ended(self, world: World) -> None:
        name = world.pod(A)
        world.looks(5)
        world.gone(A)
        world.looks(20)
        world.alive.add(name)
        world.looks(2)
        world.alive.clear()
        began = world.now - 1000.0
        (at, _), *_ = world.looks(60)
        assert at > began + SETTLE_S

    def test_of_two_processes_of_one_pod_the_silent_one_has_ended(self, world: World) -> None:
        world.pod(A)
        world.looks(5)
        world.alive.clear()
        world.pod(A, start="2")
        (_, action), *rest = world.looks(60)
        assert action == Fence(publisher(A), 5)
        assert rest == []

    def test_a_controller_that_is_new_finds_out_which_of_two_has_ended(self, world: World) -> None:
        world.beats[publisher(A)] = 77
        world.pod(A, start="2")
        (_, action), *rest = world.looks(60)
        assert action == Fence(publisher(A), 77)
        assert rest == []

    def test_two_silent_processes_of_one_pod_are_both_left_alone(self, world: World) -> None:
        world.pod(A)
        world.pod(A, start="2")
        world.alive.clear()
        assert world.looks(600) == []

    def test_a_program_outside_of_the_cluster_is_not_judged(self, world: World) -> None:
        world.beats["laptop.1"] = 3
        world.beats["job.with.dots.1"] = 3
        assert world.looks(600) == []
        assert world.lists == 0

    def test_a_watch_that_is_behind_costs_nobody_his_place(self, world: World) -> None:
        world.watch_is_behind = True
        world.pod(A)
        world.alive.clear()
        assert world.looks(600) == []


class TestOldEpoch:
    def test_it_ends_when_all_have_joined_and_settled(self, world: World) -> None:
        world.beats[OLD_EPOCH] = 0
        world.pod(A)
        world.pod(B, joins=False)
        assert world.looks(600) == [], "b may still forward writes of which the hub knows nothing"
        world.pod(B)
        (at, action), *rest = world.looks(60)
        assert action == Fence(OLD_EPOCH, None)
        assert at == 600 + SETTLE_S
        assert rest == []

    def test_one_that_has_not_joined_may_be_gone_instead(self, world: World) -> None:
        world.beats[OLD_EPOCH] = 0
        world.pod(A, joins=False)
        world.looks(100)
        world.gone(A)
        (at, action), *_ = world.looks(60)
        assert (at, action) == (100 + SETTLE_S, Fence(OLD_EPOCH, None))

    def test_one_who_comes_meanwhile_lets_the_waiting_begin_anew(self, world: World) -> None:
        world.beats[OLD_EPOCH] = 0
        world.pod(A)
        world.looks(25)
        world.pod(B, joins=False)
        world.looks(3)
        world.pod(B)
        (at, _), *_ = world.looks(60)
        assert at == 28 + SETTLE_S

    def test_another_epoch_begins_all_anew(self, world: World) -> None:
        world.beats[OLD_EPOCH] = 0
        world.pod(A)
        world.looks(25)
        world.epoch = "e2"
        world.beats = {OLD_EPOCH: 0, publisher(A): 0}
        (at, _), *_ = world.looks(60)
        assert at == 25 + SETTLE_S

    def test_who_has_not_looked_for_a_while_begins_anew(self, world: World) -> None:
        world.beats[OLD_EPOCH] = 0
        world.pod(A)
        world.looks(25)
        world.now += GAP_S + 1
        began = world.now - 1000.0
        (at, _), *_ = world.looks(60)
        assert at == began + SETTLE_S

    def test_who_has_joined_and_died_is_fenced_for_himself(self, world: World) -> None:
        world.beats[OLD_EPOCH] = 0
        world.pod(A)
        world.looks(2)
        world.gone(A)
        actions = [action for _, action in world.looks(120)]
        assert actions == [Fence(OLD_EPOCH, None), Fence(publisher(A), 2)]


class TestUncovered:
    def test_a_replica_without_a_sidecar_is_told_of_at_once(self, world: World) -> None:
        world.pod(A)
        world.bare.add(B)
        assert world.look() == (Cover(False),)
        assert world.looks(600) == []

    def test_it_counts_until_its_writes_have_settled(self, world: World) -> None:
        world.pod(A)
        world.bare.add(B)
        world.looks(100)
        world.bare.clear()
        (at, action), *rest = world.looks(60)
        assert (at, action) == (100 + SETTLE_S, Cover(True))
        assert rest == []

    def test_another_one_lets_the_waiting_begin_anew(self, world: World) -> None:
        world.bare.add(B)
        world.looks(10)
        world.bare.clear()
        world.looks(20)
        world.bare.add(C)
        world.looks(1)
        world.bare.clear()
        (at, _), *_ = world.looks(60)
        assert at == 31 + SETTLE_S

    def test_it_is_told_before_an_old_epoch_ends(self, world: World) -> None:
        world.beats[OLD_EPOCH] = 0
        world.pod(A)
        world.looks(int(SETTLE_S))
        world.bare.add(B)
        assert world.look() == (Cover(False), Fence(OLD_EPOCH, None))

    def test_a_watch_that_is_behind_does_not_cover_anybody(self, world: World) -> None:
        world.watch_is_behind = True
        world.beats[UNCOVERED] = 0
        world.bare.add(B)
        assert world.looks(600) == []


class TestReplicas:
    POLICIES = parsed(policy_document(staleness={"max": "5s", "settle": "40s"}))

    def of(self, *pods: dict[str, Any]) -> Replicas:
        around = Surroundings(
            namespace=namespace(), policies=self.POLICIES, services=(service(),), own_namespace="pulsecache"
        )
        dataset = Dataset(name="shop/products", policies=self.POLICIES)
        return replicas(dataset, map(KEEPER.pod, pods), around)

    def sidecar(self, name: str, state: str = "running", **more: Any) -> dict[str, Any]:
        pod = injected(pod_document(name, **more), self.POLICIES, [service()])
        pod["status"]["initContainerStatuses"] = [{"name": "pulsecache", "state": {state: {}}}]
        return pod

    def test_a_pod_with_a_sidecar_publishes_also_on_its_way_out(self) -> None:
        found = self.of(self.sidecar("a"), self.sidecar("b", deleted=True))
        assert found.publishing == found.there == {"uid-of-a", "uid-of-b"}
        assert found.bare == frozenset()

    def test_a_pod_whose_sidecar_does_not_run_does_not(self) -> None:
        found = self.of(self.sidecar("a", "terminated"), self.sidecar("b", "waiting"))
        assert found.publishing == found.there == found.bare == frozenset()

    def test_a_pod_that_has_not_begun_is_not_waited_for(self) -> None:
        found = self.of(self.sidecar("a", phase="Pending"))
        assert found.publishing == frozenset()
        assert found.there == {"uid-of-a"}

    def test_what_has_ended_is_gone(self) -> None:
        found = self.of(self.sidecar("a", phase="Succeeded"), pod_document("b", phase="Failed"))
        assert found == Replicas(there=frozenset(), publishing=frozenset(), bare=frozenset())

    def test_a_ready_pod_without_a_sidecar_is_bare(self) -> None:
        starting = pod_document("c")
        starting["status"]["conditions"] = [{"type": "Ready", "status": "False"}]
        opted_out = pod_document("d", labels={"pulsecache.dev/inject": "false"})
        leaving = pod_document("e", deleted=True)
        found = self.of(pod_document("a"), pod_document("b", app="other"), starting, opted_out, leaving)
        assert found.bare == {"uid-of-a", "uid-of-d", "uid-of-e"}


def test_datasets_are_those_that_live_in_redis() -> None:
    consumer = {"selector": {"matchLabels": {"app": "x"}}, "upstream": "http://x", "env": ["X"]}
    settings = {"max": "5s", "settle": "40s", "heartbeat": {"interval": "2s", "failureThreshold": 4}}
    policies = parsed(
        policy_document(staleness=settings),
        policy_document("storefront", consumer=consumer, dataset="products"),
        policy_document("local", store={"memory": {}}),
    )
    (dataset,) = datasets(policies).values()
    assert dataset.name == "shop/products"
    assert [policy.name for policy in dataset.policies] == ["products", "storefront"]
    assert dataset.publishing == {"shop/products"}, "a consumer without writes joins nobody"
    assert dataset.settle_s == pytest.approx(40 * 1.02)
    assert dataset.silence_s == pytest.approx(8 * 1.02)
