"""When a publisher may be fenced, an old epoch released, and replicas without a sidecar told of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from pulsecache_operator.controller.datasets import Memory, Verdict, View, doubtful, judge, lost
from pulsecache_operator.inject.names import STATUS_ANNOTATION
from pulsecache_operator.inject.status import InjectionStatus
from pulsecache_policy.hub_scripts import OLD_EPOCH, UNCOVERED

SETTLE_S = 30.0
SILENCE_S = 3.0


def pod(uid: str, *, running: bool = True, policy: str = "products") -> dict[str, Any]:
    status = InjectionStatus(version="1", image="i", policies=(f"shop/{policy}",), binds=(), digest="d")
    state: dict[str, Any] = {"running": {}} if running else {"terminated": {}}
    return {
        "metadata": {"uid": uid, "name": uid, "annotations": {STATUS_ANNOTATION: status.dump()}},
        "spec": {"initContainers": [{"name": "pulsecache", "restartPolicy": "Always"}]},
        "status": {"phase": "Running", "initContainerStatuses": [{"name": "pulsecache", "state": state}]},
    }


class Watcher:
    """Looks again and again, with beats that go on for those who live."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.memory = Memory()
        self.beats: dict[str, int] = {}
        self.pods: list[dict[str, Any]] = []
        self.uncovered = False
        self.epoch = "e1"

    def look(self, *, alive: tuple[str, ...] = ()) -> Verdict:
        for name in alive:
            self.beats[name] = self.beats.get(name, 0) + 1
        view = self.view()
        verdict = judge(view, self.memory)
        self.memory = verdict.memory
        return verdict

    def view(self) -> View:
        return View(
            epoch=self.epoch,
            beats=dict(self.beats),
            pods=self.pods,
            policies=frozenset({"shop/products"}),
            uncovered=self.uncovered,
            settle_s=SETTLE_S,
            silence_s=SILENCE_S,
            now=self.now,
        )

    def until(self, seconds: float, *, alive: tuple[str, ...] = ()) -> Mapping[float, Verdict]:
        """Every second of so many: what was decided when, where anything was."""
        found = {}
        for passed in range(int(seconds) + 1):
            verdict = self.look(alive=alive)
            if verdict.fence or verdict.release_old_epoch or verdict.cover is not None:
                found[float(passed)] = verdict
            self.now += 1
        return found


@pytest.fixture
def watcher() -> Watcher:
    return Watcher()


def test_nobody_is_fenced_while_all_beat(watcher: Watcher) -> None:
    watcher.pods = [pod("a"), pod("b")]
    assert watcher.until(200, alive=("a.1", "b.1")) == {}


def test_a_silent_publisher_whose_pod_runs_is_left_alone_for_ever(watcher: Watcher) -> None:
    """It may be cut off from Redis and still forward writes."""
    watcher.pods = [pod("a"), pod("b")]
    watcher.look(alive=("a.1", "b.1"))
    assert watcher.until(3600, alive=("b.1",)) == {}
    assert lost(watcher.view(), watcher.memory) == 1


@pytest.mark.parametrize("pods", [[pod("b")], [pod("a", running=False), pod("b")]], ids=["gone", "terminated"])
def test_a_dead_publisher_is_fenced_when_its_writes_have_settled(watcher: Watcher, pods: list[dict[str, Any]]) -> None:
    watcher.look(alive=("a.1", "b.1"))
    watcher.pods = pods
    decided = watcher.until(60, alive=("b.1",))
    first = min(decided)
    assert SETTLE_S < first < SETTLE_S + 2 * SILENCE_S + 2
    assert decided[first].fence == (("a.1", 1),)


def test_a_publisher_that_beats_is_alive_whatever_the_pods_say(watcher: Watcher) -> None:
    watcher.pods = []
    assert watcher.until(200, alive=("a.1",)) == {}


def test_of_two_processes_of_one_pod_the_silent_one_is_dead(watcher: Watcher) -> None:
    watcher.pods = [pod("a")]
    watcher.look(alive=("a.1",))
    decided = watcher.until(60, alive=("a.2",))
    assert decided[min(decided)].fence == (("a.1", 1),)


def test_the_wait_begins_again_when_it_beats_again(watcher: Watcher) -> None:
    watcher.look(alive=("a.1", "b.1"))
    watcher.pods = [pod("b")]
    assert watcher.until(25, alive=("b.1",)) == {}
    assert watcher.until(20, alive=("a.1", "b.1")) == {}


def test_an_old_epoch_is_released_when_all_have_joined_and_settled(watcher: Watcher) -> None:
    watcher.beats = {OLD_EPOCH: 0}
    watcher.pods = [pod("a"), pod("b")]
    assert watcher.until(100, alive=("a.1",)) == {}, "b has not joined"
    decided = watcher.until(60, alive=("a.1", "b.1"))
    first = min(decided)
    assert first > SETTLE_S
    assert decided[first].release_old_epoch


def test_a_sidecar_that_does_not_run_cannot_join_and_is_not_waited_for(watcher: Watcher) -> None:
    watcher.beats = {OLD_EPOCH: 0}
    watcher.pods = [pod("a"), pod("b", running=False), pod("c", policy="other")]
    assert any(verdict.release_old_epoch for verdict in watcher.until(60, alive=("a.1",)).values())


def test_a_new_epoch_starts_all_waiting_anew(watcher: Watcher) -> None:
    watcher.beats = {OLD_EPOCH: 0}
    watcher.pods = [pod("a")]
    watcher.until(25, alive=("a.1",))
    watcher.epoch = "e2"
    assert watcher.until(25, alive=("a.1",)) == {}


def test_replicas_without_a_sidecar_are_told_of_at_once_and_for_settle_after_their_end(watcher: Watcher) -> None:
    watcher.pods = [pod("a")]
    watcher.uncovered = True
    assert watcher.look(alive=("a.1",)).cover is False
    watcher.beats[UNCOVERED] = 0
    assert watcher.until(50, alive=("a.1",)) == {}
    watcher.uncovered = False
    decided = watcher.until(60, alive=("a.1",))
    first = min(decided)
    assert first > SETTLE_S
    assert decided[first].cover is True


def test_pods_are_listed_only_where_somebody_is_silent(watcher: Watcher) -> None:
    watcher.pods = [pod("a"), pod("b")]
    watcher.look(alive=("a.1", "b.1"))
    assert not doubtful(watcher.view(), watcher.memory)
    watcher.now += 10
    assert doubtful(watcher.view(), watcher.memory)
    watcher.look(alive=("a.1", "b.1"))
    assert not doubtful(watcher.view(), watcher.memory)
    assert doubtful(replace(watcher.view(), beats={**watcher.beats, OLD_EPOCH: 0}), watcher.memory)
