"""One review and its answer."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings

from pods import CONFIG, World, client_side, pod, server_side, service, worlds
from pulsecache_operator.inject import inject, status_of
from pulsecache_operator.injector.review import Answer, MalformedReview, answer, question, refrain
from pulsecache_operator.selection import Reason
from webhook import Known, patched, review

KNOWN = Known([server_side()], [service()])


def ask(document: dict[str, Any], known: Known = KNOWN) -> Answer:
    return answer(question(document), known, CONFIG, "pulsecache-system")


def test_a_pod_that_a_policy_selects_gets_the_sidecar() -> None:
    given = ask(review(pod()))
    assert (given.result, given.reason, given.news) == ("injected", "", ())
    after = patched(pod(), given.review)
    assert after["spec"]["initContainers"][0]["name"] == "pulsecache"
    response = given.review["response"]
    assert response["uid"] == "u-1"
    assert response["auditAnnotations"] == {"decision": "injected"}
    assert "warnings" not in response


def test_a_pod_that_no_policy_selects_is_none_of_our_business() -> None:
    other = pod()
    other["metadata"]["labels"] = {"app": "other"}
    given = ask(review(other))
    assert (given.result, given.reason, given.news) == ("skipped", "no-policy", ())
    assert given.review["response"] == {
        "uid": "u-1",
        "allowed": True,
        "auditAnnotations": {"decision": "skipped no-policy"},
    }


def test_asked_a_second_time_we_change_nothing() -> None:
    once = patched(pod(), ask(review(pod())).review)
    again = ask(review(once))
    assert (again.result, again.reason) == ("injected", "unchanged")
    assert "patch" not in again.review["response"]


def test_a_mesh_that_takes_our_admin_port_after_us_gets_it_and_the_sidecar_goes() -> None:
    """Istio's proxy binds 15090: asked again after Istio, we take back what we did, and the pod starts."""
    injected = patched(pod(), ask(review(pod())).review)
    proxy = {"name": "istio-proxy", "restartPolicy": "Always", "ports": [{"containerPort": 15090}]}
    injected["spec"]["initContainers"].insert(0, proxy)
    given = ask(review(injected))
    assert (given.result, given.reason) == ("skipped", "admin-port-taken")
    after = patched(injected, given.review)
    assert after["spec"]["initContainers"] == [proxy]
    assert after["spec"]["containers"] == pod()["spec"]["containers"]
    assert "container istio-proxy declares port 15090" in given.news[0].message


def test_a_copied_pod_whose_policy_is_gone_is_stripped() -> None:
    injected = patched(pod(), ask(review(pod())).review)
    given = ask(review(injected), Known())
    assert (given.result, given.reason) == ("skipped", "no-policy")
    assert patched(injected, given.review) == pod()


def test_a_pod_with_an_annotation_that_is_not_ours_is_left_alone() -> None:
    strange = pod()
    strange["metadata"]["annotations"] = {"pulsecache.dev/status": "{}"}
    given = ask(review(strange))
    assert (given.result, given.reason) == ("skipped", "malformed-status")
    assert "patch" not in given.review["response"]
    assert "annotation" in given.review["response"]["warnings"][0]


def test_who_creates_the_pod_is_warned_and_the_owner_gets_the_news() -> None:
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "products-5d8f", "uid": "rs", "controller": True}
    given_pod = pod(hostNetwork=True)
    given_pod["metadata"]["ownerReferences"] = [{"kind": "Other", "controller": False}, owner]
    given = ask(review(given_pod))
    (news,) = given.news
    assert (news.namespace, news.owner, news.policy, news.policy_uid) == ("shop", owner, "products", "uid-products")
    assert news.reason is Reason.HOST_NETWORK
    assert "policy products has no effect on this pod: the pod uses the node's network" in str(given.review)


def test_a_dry_run_has_no_side_effects_and_the_same_answer() -> None:
    wet, dry = ask(review(pod(hostNetwork=True))), ask(review(pod(hostNetwork=True), dryRun=True))
    assert dry.review == wet.review
    assert wet.news != ()
    assert dry.news == ()
    assert ask(review(pod(), dryRun=True)).review == ask(review(pod())).review


def test_of_a_policy_that_has_no_part_in_an_injection_there_is_news_too() -> None:
    known = Known([server_side(), server_side("younger", created="")], [service()])
    given = ask(review(pod()), known)
    assert given.result == "injected"
    assert [(news.policy, news.reason) for news in given.news] == [("younger", Reason.CONFLICTING)]


def test_a_service_that_is_missing_is_no_news_of_every_pod_beside_it() -> None:
    given = ask(review(pod()), Known([server_side("lost", "nowhere")], []))
    assert (given.result, given.reason, given.news) == ("skipped", "service-missing", ())
    assert "warnings" not in given.review["response"]


def test_the_namespace_decides_even_though_the_pod_names_none() -> None:
    assert ask(review(pod(), where="elsewhere")).reason == "no-policy"
    out = Known([server_side()], [service()], {"pulsecache.dev/inject": "false"})
    assert ask(review(pod()), out).reason == "opted-out"


@pytest.mark.parametrize(
    "change",
    [
        {"operation": "UPDATE"},
        {"operation": "DELETE", "object": None},
        {"kind": {"group": "apps", "version": "v1", "kind": "Deployment"}},
        {"subResource": "ephemeralcontainers"},
    ],
)
def test_what_is_no_new_pod_is_allowed_as_it_is(change: dict[str, Any]) -> None:
    given = ask(review(pod(), **change))
    assert (given.result, given.reason) == ("skipped", "not-a-new-pod")
    assert given.review["response"] == {"uid": "u-1", "allowed": True}


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {},
        {"apiVersion": "admission.k8s.io/v1beta1", "request": {"uid": "x"}},
        {"apiVersion": "admission.k8s.io/v1"},
        {"apiVersion": "admission.k8s.io/v1", "request": {}},
        {"apiVersion": "admission.k8s.io/v1", "request": {"uid": 7}},
    ],
)
def test_what_is_no_review_is_refused(document: Any) -> None:
    with pytest.raises(MalformedReview):
        question(document)


def test_where_something_went_wrong_the_pod_is_allowed_with_a_warning() -> None:
    given = refrain("u-7", "KeyError")
    assert (given.result, given.reason) == ("error", "KeyError")
    assert given.review["response"]["allowed"] is True
    assert "patch" not in given.review["response"]
    assert "without a sidecar" in given.review["response"]["warnings"][0]


def test_a_long_story_is_cut_for_the_warning() -> None:
    policy = client_side("c", "A" * 400, created="")
    older = client_side("b", "A" * 400, created="2026-01-01T00:00:00Z")
    (warning,) = ask(review(pod()), Known([policy, older])).review["response"]["warnings"]
    assert len(warning) == 250


@settings(max_examples=40)
@given(worlds())
def test_the_answer_to_any_pod_is_the_decision_carried_out(world: World) -> None:
    before = copy.deepcopy(world.pod)
    given = ask(review(world.pod), Known(world.policies, world.services))
    after = patched(world.pod, given.review)
    assert world.pod == before
    assert given.result in ("injected", "skipped")
    if given.result == "injected":
        decision = world.decide()
        assert after == inject(world.pod, decision.plan, CONFIG)  # type: ignore[union-attr]  # it is an Inject
        assert status_of(after) is not None
    else:
        assert after == world.pod
