"""The planner: what is to be written for a policy, from what is known of it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from controller_view import (
    WALL,
    condition,
    injected,
    parsed,
    pod_document,
    policy_document,
    service,
    stored,
    view,
    workload,
)
from pulsecache_operator.controller.plan import Plan, plan
from pulsecache_operator.controller.status import Report, State
from pulsecache_policy import bundle

POLICY = policy_document()
INVALID = policy_document(generation=2, reads=[{"name": "product", "match": {"methods": ["GET"], "path": "products"}}])


def in_force(document: dict[str, Any] = POLICY) -> dict[str, Any]:
    return stored(plan(view(document)))


def sidecars(count: int, document: dict[str, Any] = POLICY) -> list[dict[str, Any]]:
    return [injected(pod_document(f"p{i}"), parsed(document), [service()]) for i in range(count)]


def reports(count: int, document: dict[str, Any] = POLICY, **changes: Any) -> dict[str, Report]:
    content = bundle.decode(bundle.encode(document, generation=document["metadata"]["generation"]))
    said: dict[str, Any] = {"generation": content.generation, "sha256": content.sha256} | changes
    return {f"uid-of-p{i}": Report(**said) for i in range(count)}


def ready(made: Plan) -> tuple[str, str]:
    return condition(made, "Ready")["status"], condition(made, "Ready")["reason"]


class TestTheConfigMap:
    def test_a_valid_policy_gets_one_with_its_bundle(self) -> None:
        made = plan(view(POLICY)).carried.apply
        assert made is not None
        assert made["metadata"]["name"] == "pulsecache-products"
        assert made["metadata"]["namespace"] == "shop"
        assert made["metadata"]["annotations"]["pulsecache.dev/generation"] == "1"
        content = bundle.decode(made["data"]["bundle.json"])
        assert content.policy() == parsed(POLICY)[0]
        assert made["metadata"]["annotations"]["pulsecache.dev/sha256"] == content.sha256
        assert "ownerReferences" not in made["metadata"]

    def test_it_is_written_once(self) -> None:
        assert plan(view(POLICY, config_map=in_force())).carried.apply is None

    def test_a_new_generation_replaces_it(self) -> None:
        edited = policy_document(generation=2, mode="Bypass")
        made = plan(view(edited, config_map=in_force())).carried
        assert made.apply is not None
        assert made.content is not None
        assert made.content.generation == 2

    def test_one_that_was_edited_by_hand_is_put_right(self) -> None:
        existing = in_force()
        existing["data"]["bundle.json"] = existing["data"]["bundle.json"].replace("product", "tampered", 1)
        assert plan(view(POLICY, config_map=existing)).carried.apply is not None

    def test_a_bad_policy_never_replaces_a_good_one(self) -> None:
        made = plan(view(INVALID, config_map=in_force()))
        assert made.carried.apply is None
        assert made.carried.content is not None
        assert made.carried.content.generation == 1
        assert condition(made, "Accepted")["reason"] == "Invalid"
        assert "spec.reads[0].match.path" in condition(made, "Accepted")["message"]
        assert ready(made) == ("False", "Invalid")

    def test_a_bad_policy_alone_makes_none(self) -> None:
        made = plan(view(INVALID))
        assert made.carried.apply is None
        assert made.carried.content is None
        assert ready(made) == ("False", "Invalid")

    def test_one_of_somebody_else_is_left_alone(self) -> None:
        foreign = {"metadata": {"name": "pulsecache-products", "namespace": "shop", "uid": "x"}, "data": {"a": "b"}}
        made = plan(view(POLICY, config_map=foreign))
        assert made.carried.apply is None
        assert made.carried.content is None
        assert ready(made) == ("False", "ConfigMapTaken")

    def test_a_policy_that_comes_back_replaces_its_tombstone(self) -> None:
        tombstone = stored(plan(view(None, config_map=in_force())))
        made = plan(view(policy_document(uid="another"), config_map=tombstone)).carried.apply
        assert made is not None
        assert not bundle.decode(made["data"]["bundle.json"]).tombstone
        assert "pulsecache.dev/policy-deleted-at" not in made["metadata"]["annotations"]


class TestTheTombstone:
    def test_it_takes_the_place_of_a_deleted_policy(self) -> None:
        made = plan(view(None, config_map=in_force(policy_document(generation=7))))
        assert made.carried.apply is not None
        content = bundle.decode(made.carried.apply["data"]["bundle.json"])
        assert content.tombstone
        assert content.generation == 7, "an older one would change nothing in a sidecar"
        assert made.carried.again_s == 600
        assert made.status is None

    def test_it_stays_ten_minutes_and_then_goes(self) -> None:
        existing = stored(plan(view(None, config_map=in_force())), uid="the-uid")
        before = plan(view(None, config_map=existing, wall=WALL + timedelta(minutes=9))).carried
        assert (before.apply, before.delete, before.again_s) == (None, None, 60)
        assert before.content is not None
        after = plan(view(None, config_map=existing, wall=WALL + timedelta(minutes=10))).carried
        assert after.delete == "the-uid"

    @pytest.mark.parametrize("date", ["", "yesterday", "2026-01-01T12:00:00", "2099-01-01T00:00:00Z"])
    def test_a_date_that_makes_no_sense_begins_anew(self, date: str) -> None:
        existing = stored(plan(view(None, config_map=in_force())))
        existing["metadata"]["annotations"]["pulsecache.dev/policy-deleted-at"] = date
        made = plan(view(None, config_map=existing)).carried
        assert made.apply is not None
        assert made.apply["metadata"]["annotations"]["pulsecache.dev/policy-deleted-at"] == "2026-01-01T12:00:00Z"

    def test_content_that_cannot_be_read_is_buried_all_the_same(self) -> None:
        existing = in_force(policy_document(generation=3))
        existing["data"]["bundle.json"] = "{"
        made = plan(view(None, config_map=existing)).carried
        assert made.content is not None
        assert (made.content.tombstone, made.content.generation) == (True, 3)

    def test_a_foreign_configmap_is_not_buried(self) -> None:
        foreign = {"metadata": {"name": "pulsecache-products", "namespace": "shop", "uid": "x"}}
        assert plan(view(None, config_map=foreign)) == Plan()

    def test_nothing_is_nothing(self) -> None:
        assert plan(view(None)) == Plan()


class TestPlacement:
    @pytest.mark.parametrize(
        ("services", "reason", "fix"),
        [
            ([], "ServiceMissing", "Create the Service products"),
            ([service(target_port=8080)], "NumericTargetPort", "Give containerPort 8080 a name"),
            ([service(appProtocol="https")], "UnsupportedProtocol", "appProtocol"),
            ([service(appProtocol="kubernetes.io/h2c")], "UnsupportedProtocol", "appProtocol"),
            ([service(protocol="UDP")], "UnsupportedProtocol", "TCP"),
            ([service(name="products") | {"spec": {"ports": []}}], "ServiceWithoutSelector", "selector"),
        ],
    )
    def test_what_cannot_be_taken_over_is_told_with_the_fix(self, services: Any, reason: str, fix: str) -> None:
        made = plan(view(POLICY, services=services))
        assert condition(made, "Placed")["reason"] == reason
        assert fix in condition(made, "Placed")["message"]
        assert ready(made) == ("False", reason)
        assert condition(made, "Injected")["status"] == "Unknown"
        assert [h.reason for h in made.happenings] == ["Accepted", reason]

    def test_of_two_policies_on_one_port_the_younger_is_told(self) -> None:
        younger = policy_document("zproducts")
        younger["metadata"]["creationTimestamp"] = "2026-01-02T00:00:00Z"
        made = plan(view(younger, others=[POLICY]))
        assert ready(made) == ("False", "Conflict")
        assert "the older policy products" in condition(made, "Placed")["message"].lower()
        assert ready(plan(view(POLICY, others=[younger]))) == ("True", "NoPods")


class TestStatus:
    def test_without_pods_all_is_well(self) -> None:
        made = plan(view(POLICY))
        assert ready(made) == ("True", "NoPods")
        assert made.status is not None
        assert made.status["pods"] == {"selected": 0, "injected": 0, "inSync": 0}
        assert made.status["observedGeneration"] == 1

    def test_all_pods_run_it(self) -> None:
        made = plan(view(POLICY, pods=sidecars(3), reports=reports(3)))
        assert made.status is not None
        assert made.status["pods"] == {"selected": 3, "injected": 3, "inSync": 3}
        assert ready(made) == ("True", "InSync")

    def test_sidecars_that_run_an_older_generation(self) -> None:
        edited = policy_document(generation=2)
        made = plan(view(edited, pods=sidecars(3), reports=reports(2, edited) | {"uid-of-p2": Report(generation=1)}))
        assert ready(made) == ("False", "Outdated")
        assert "2 of 3" in condition(made, "InSync")["message"]

    def test_a_sidecar_that_refuses_the_policy_says_why(self) -> None:
        said = reports(2) | {"uid-of-p2": Report(generation=1, error="file products.json: not JSON")}
        made = plan(view(POLICY, pods=sidecars(3), reports=said))
        assert ready(made) == ("False", "Rejected")
        assert "not JSON" in condition(made, "InSync")["message"]

    def test_the_same_generation_of_another_life_is_not_in_sync(self) -> None:
        """Deleted and created again, a policy begins with generation 1 anew."""
        made = plan(view(POLICY, pods=sidecars(1), reports=reports(1, sha256="of the one before")))
        assert ready(made) == ("False", "Outdated")

    def test_who_cannot_be_asked_is_unknown(self) -> None:
        assert ready(plan(view(POLICY, pods=sidecars(1), reports=None))) == ("Unknown", "NotReported")
        assert ready(plan(view(POLICY, pods=sidecars(1), reports={}))) == ("False", "NotReported")

    def test_a_pod_that_does_not_run_yet_is_not_waited_for(self) -> None:
        pending = injected(pod_document("p9", phase="Pending"), parsed(POLICY), [service()])
        made = plan(view(POLICY, pods=[*sidecars(2), pending], reports=reports(2)))
        assert made.status is not None
        assert made.status["pods"] == {"selected": 3, "injected": 3, "inSync": 2}
        assert ready(made) == ("True", "InSync")

    def test_pods_that_are_over_do_not_count(self) -> None:
        pods = [*sidecars(1), pod_document("x", phase="Succeeded"), pod_document("y", deleted=True)]
        made = plan(view(POLICY, pods=pods, reports=reports(1)))
        assert made.status is not None
        assert made.status["pods"]["selected"] == 1

    def test_pods_of_others_do_not_count(self) -> None:
        made = plan(view(POLICY, pods=[pod_document("x", app="storefront")]))
        assert made.status is not None
        assert made.status["pods"]["selected"] == 0

    def test_pods_that_are_to_be_left_alone_are_told_by_reason(self) -> None:
        pods = [
            *sidecars(1),
            pod_document("out", labels={"pulsecache.dev/inject": "false"}),
            pod_document("host", hostNetwork=True),
        ]
        made = plan(view(POLICY, pods=pods, reports=reports(1)))
        assert ready(made) == ("True", "InSync")
        assert "Left alone: 1 (host-network), 1 (opted-out)." in condition(made, "Injected")["message"]

    def test_where_all_are_left_alone_the_policy_does_nothing(self) -> None:
        made = plan(view(POLICY, pods=[pod_document("a")], namespace_labels={"pulsecache.dev/inject": "false"}))
        assert ready(made) == ("False", "PodsLeftAlone")

    def test_invalid_policies_are_still_counted_by_the_last_good_one(self) -> None:
        made = plan(view(INVALID, config_map=in_force(), pods=sidecars(2), reports=reports(2)))
        assert made.status is not None
        assert made.status["pods"] == {"selected": 2, "injected": 2, "inSync": 2}

    def test_warnings_are_told(self) -> None:
        made = plan(view(policy_document(staleness={"max": "5s", "writers": "All"}, store={"memory": {}})))
        assert condition(made, "Accepted")["reason"] == "ValidWithWarnings"
        assert "spec.staleness.writers" in condition(made, "Accepted")["message"]

    def test_nothing_is_written_when_nothing_has_changed(self) -> None:
        first = plan(view(POLICY, pods=sidecars(2), reports=reports(2)))
        assert first.status is not None
        later = WALL + timedelta(hours=1)
        again = plan(view(POLICY, pods=sidecars(2), reports=reports(2), status=first.status, wall=later, now=4600.0))
        assert again.status is None
        assert again.happenings == ()

    def test_conditions_in_another_order_are_no_change(self) -> None:
        first = plan(view(POLICY)).status
        assert first is not None
        shuffled = first | {"conditions": first["conditions"][::-1]}
        assert plan(view(POLICY, status=shuffled)).status is None

    def test_the_time_of_a_transition_moves_only_with_the_status(self) -> None:
        first = plan(view(POLICY, pods=sidecars(2), reports=reports(1)))
        assert first.status is not None
        later = WALL + timedelta(hours=1)
        second = plan(view(POLICY, pods=sidecars(3), reports=reports(1), status=first.status, wall=later))
        assert second.status is not None
        assert condition(second, "InSync")["message"] != condition(first, "InSync")["message"]
        assert condition(second, "InSync")["lastTransitionTime"] == "2026-01-01T12:00:00Z"
        third = plan(view(POLICY, pods=sidecars(3), reports=reports(3), status=second.status, wall=later))
        assert condition(third, "InSync")["lastTransitionTime"] == "2026-01-01T13:00:00Z"
        assert condition(third, "Accepted")["lastTransitionTime"] == "2026-01-01T12:00:00Z"

    def test_no_message_grows_without_bound(self) -> None:
        reads = [{"name": f"r{i}", "match": {"methods": ["GET"], "path": "x" * 50}} for i in range(60)]
        made = plan(view(policy_document(reads=reads)))
        assert len(condition(made, "Accepted")["message"]) == 1024


class TestStaleness:
    def test_the_worst_state_wins(self) -> None:
        said = {
            "uid-of-p0": Report(generation=1, state=State.CONFIRMED, since="2026-01-01T00:00:00Z"),
            "uid-of-p1": Report(generation=1, state=State.EXCEEDED, since="2026-01-01T11:00:00.250+01:00"),
            "uid-of-p2": Report(generation=1, state=State.UNCONFIRMED, since="2026-01-01T09:00:00Z", lost_publishers=1),
        }
        made = plan(view(POLICY, pods=sidecars(3), reports=said))
        assert made.status is not None
        assert made.status["staleness"] == {"state": "Exceeded", "since": "2026-01-01T10:00:00Z", "lostPublishers": 1}

    def test_since_stays_as_long_as_the_state(self) -> None:
        first = plan(
            view(POLICY, pods=sidecars(1), reports=reports(1, state=State.CONFIRMED, since="2026-01-01T00:00:00Z"))
        )
        assert first.status is not None
        said = reports(2, state=State.CONFIRMED, since="2026-01-01T11:59:00Z")
        second = plan(view(POLICY, pods=sidecars(2), reports=said, status=first.status))
        assert second.status is not None
        assert second.status["staleness"]["since"] == "2026-01-01T00:00:00Z"

    def test_nonsense_of_a_sidecar_does_not_reach_the_status(self) -> None:
        made = plan(view(POLICY, pods=sidecars(1), reports=reports(1, state=State.CONFIRMED, since="noon")))
        assert made.status is not None
        assert made.status["staleness"] == {"state": "Confirmed", "lostPublishers": 0}

    def test_nobody_has_told(self) -> None:
        made = plan(view(POLICY, pods=sidecars(1), reports=reports(1)))
        assert made.status is not None
        assert "staleness" not in made.status

    def test_reports_of_pods_that_are_gone_do_not_count(self) -> None:
        said = reports(1, state=State.CONFIRMED) | {"uid-of-old": Report(generation=1, state=State.EXCEEDED)}
        made = plan(view(POLICY, pods=sidecars(1), reports=said))
        assert made.status is not None
        assert made.status["staleness"]["state"] == "Confirmed"

    def test_events_tell_of_turns(self) -> None:
        def turn(state: State, before: Plan) -> Plan:
            assert before.status is not None
            said = reports(1, state=state)
            return plan(view(POLICY, pods=sidecars(1), reports=said, status=before.status))

        first = plan(view(POLICY, pods=sidecars(1), reports=reports(1, state=State.CONFIRMED)))
        assert [h.reason for h in first.happenings] == ["Accepted"], "good from the start is no news"
        exceeded = turn(State.EXCEEDED, first)
        assert [(h.type, h.reason) for h in exceeded.happenings] == [("Warning", "StalenessExceeded")]
        confirmed = turn(State.CONFIRMED, exceeded)
        assert [(h.type, h.reason) for h in confirmed.happenings] == [("Normal", "StalenessConfirmed")]


class TestEvents:
    def test_each_generation_is_accepted_once(self) -> None:
        first = plan(view(POLICY))
        assert first.status is not None
        assert [(h.type, h.reason) for h in first.happenings] == [("Normal", "Accepted")]
        assert plan(view(POLICY, pods=sidecars(1), status=first.status)).happenings == ()
        second = plan(view(policy_document(generation=2), status=first.status))
        assert [h.reason for h in second.happenings] == ["Accepted"]

    def test_a_bad_one_is_told_with_its_paths(self) -> None:
        first = plan(view(POLICY))
        assert first.status is not None
        (told,) = plan(view(INVALID, status=first.status)).happenings
        assert (told.type, told.reason) == ("Warning", "Invalid")
        assert "spec.reads[0].match.path" in told.message

    def test_missing_sidecars_are_told_with_the_command(self) -> None:
        manual = policy_document(rollout={"strategy": "None"})
        made = plan(view(manual, pods=[pod_document("a")], workloads=[workload()]))
        assert [h.reason for h in made.happenings] == ["Accepted", "PodsNotInjected"]
        assert "kubectl -n shop rollout restart deployment/products" in made.happenings[1].message
