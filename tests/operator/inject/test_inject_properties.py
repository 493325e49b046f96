"""What holds for injection into any pod, whatever policies are around it."""

from __future__ import annotations

import copy
from typing import Any

import jsonpatch
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

from pods import CONFIG, World, worlds
from pulsecache_operator.inject import inject, patch, status_of, strip
from pulsecache_operator.inject.names import CONTAINER
from pulsecache_operator.selection import Inject, Skip

FEWER = settings(max_examples=40)


def plan_of(world: World) -> Any:
    decision = world.decide()
    event(decision.reason if isinstance(decision, Skip) else f"inject, {len(decision.plan.binds)} binds")
    assume(isinstance(decision, Inject))
    assert isinstance(decision, Inject)
    return decision.plan


@given(worlds())
def test_injecting_twice_is_injecting_once(world: World) -> None:
    plan = plan_of(world)
    once = inject(world.pod, plan, CONFIG)
    assert inject(once, plan, CONFIG) == once


@given(worlds())
def test_stripping_gives_the_pod_back_as_it_was(world: World) -> None:
    plan = plan_of(world)
    assert strip(inject(world.pod, plan, CONFIG)) == world.pod


@FEWER
@given(worlds())
def test_a_pod_that_was_not_injected_is_stripped_to_itself(world: World) -> None:
    assert strip(world.pod) == world.pod


@FEWER
@given(worlds())
def test_nobody_changes_what_was_handed_in(world: World) -> None:
    before = copy.deepcopy(world.pod)
    plan = plan_of(world)
    after = inject(world.pod, plan, CONFIG)
    assert world.pod == before
    snapshot = copy.deepcopy(after)
    strip(after)
    world.decide(after)
    patch(world.pod, after)
    assert after == snapshot
    # nor do the two share anything that a later change could reach
    _scribble(after)
    assert world.pod == before


@FEWER
@given(worlds())
def test_the_patch_leads_from_one_to_the_other_and_back(world: World) -> None:
    plan = plan_of(world)
    after = inject(world.pod, plan, CONFIG)
    assert jsonpatch.apply_patch(world.pod, patch(world.pod, after)) == after
    assert jsonpatch.apply_patch(after, patch(after, world.pod)) == world.pod


@FEWER
@given(worlds())
def test_the_decision_is_the_same_for_a_pod_that_is_injected_already(world: World) -> None:
    plan = plan_of(world)
    assert world.decide(inject(world.pod, plan, CONFIG)) == world.decide()


@FEWER
@given(worlds(), st.data())
def test_injecting_a_changed_plan_is_injecting_it_into_the_stripped_pod(world: World, data: st.DataObject) -> None:
    plan = plan_of(world)
    fewer = data.draw(st.lists(st.sampled_from(world.policies), min_size=1, unique_by=lambda policy: policy.name))
    changed = world.decide(policies=fewer)
    assume(isinstance(changed, Inject))
    assert isinstance(changed, Inject)
    injected = inject(world.pod, plan, CONFIG)
    assert inject(injected, changed.plan, CONFIG) == inject(world.pod, changed.plan, CONFIG)


@FEWER
@given(worlds())
def test_the_sidecar_is_the_first_init_container_and_stays_there(world: World) -> None:
    plan = plan_of(world)
    spec = inject(world.pod, plan, CONFIG)["spec"]
    assert [c["name"] for c in spec["initContainers"]].index(CONTAINER) == 0
    assert spec["initContainers"][0]["restartPolicy"] == "Always"
    assert spec["initContainers"][1:] or not world.pod["spec"].get("initContainers")


@FEWER
@given(worlds())
def test_every_bind_leads_to_a_port_or_a_variable_of_the_pod(world: World) -> None:
    plan = plan_of(world)
    after = inject(world.pod, plan, CONFIG)
    status = status_of(after)
    assert status is not None
    assert status.binds == tuple(bind.bind for bind in plan.binds)
    assert len({bind.data_port for bind in plan.binds}) == len(plan.binds)
    text = str(after["spec"]["containers"]) + str(after["spec"]["initContainers"][1:])
    for bind in plan.binds:
        assert str(bind.data_port) in text


@given(worlds())
def test_probes_and_hooks_reach_what_they_reached_before(world: World) -> None:
    """Names are resolved as the kubelet does: among the ports of the same container."""
    plan = plan_of(world)
    after = inject(world.pod, plan, CONFIG)
    assert _reached(after) == _reached(world.pod)


def _reached(pod: dict[str, Any]) -> list[tuple[Any, ...]]:
    reached = []
    for container in pod["spec"]["containers"] + (pod["spec"].get("initContainers") or []):
        if container["name"] == CONTAINER:
            continue
        numbers = {port["name"]: port["containerPort"] for port in container.get("ports", []) if "name" in port}
        hooks = container.get("lifecycle", {})
        for kind in ("livenessProbe", "readinessProbe", "startupProbe", "postStart", "preStop"):
            for how, action in (container.get(kind) or hooks.get(kind) or {}).items():
                if how in ("httpGet", "tcpSocket"):
                    port = action["port"]
                    known = port if isinstance(port, int) else numbers.get(port, f"unknown {port}")
                    reached.append((container["name"], kind, how, known))
    return reached


def _scribble(value: Any) -> None:
    for child in list(value.values()) if isinstance(value, dict) else list(value):
        if isinstance(child, dict | list):
            _scribble(child)
    value.clear()
