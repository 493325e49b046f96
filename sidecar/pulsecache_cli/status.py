"""`pulsecache status`: the policies of the cluster, what they do, and what hinders them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pulsecache_cli.kubectl import Kubectl
from pulsecache_cli.output import plain, print_json, print_table

RESOURCE = "cachepolicies.pulsecache.dev"
HEADER = ("NAMESPACE", "NAME", "READY", "MODE", "MAX", "STATE", "PODS", "INJECTED", "IN SYNC", "REASON")


def run(kubectl: Kubectl, *, name: str | None, namespace: str | None, all_namespaces: bool, as_json: bool) -> int:
    """Exit code 0 whatever the status says; it is told, not judged. Raises CommandFailed."""
    scope = ["--all-namespaces"] if all_namespaces else [f"--namespace={namespace}"] if namespace else []
    found = kubectl.get(RESOURCE, *([name] if name else []), *scope)
    policies = found.get("items", []) if name is None else [found]
    if as_json:
        print_json([_summary(policy) for policy in policies])
    elif name is not None:
        _print_one(policies[0])
    elif policies:
        print_table(HEADER, [list(_summary(policy).values())[: len(HEADER)] for policy in policies])
    else:
        print("No CachePolicy here; --all-namespaces looks everywhere.")
    return 0


def _summary(policy: Mapping[str, Any]) -> dict[str, Any]:
    """In the order of HEADER, and then what does not fit into a line."""
    metadata, spec, status = (policy.get(part) or {} for part in ("metadata", "spec", "status"))
    pods, staleness = status.get("pods") or {}, status.get("staleness") or {}
    conditions = status.get("conditions") or []
    ready: Mapping[str, Any] = next((condition for condition in conditions if condition.get("type") == "Ready"), {})
    current = status.get("observedGeneration") == metadata.get("generation")
    return {
        "namespace": metadata.get("namespace"),
        "name": metadata.get("name"),
        "ready": ready.get("status", "Unknown") if current else "Unknown",
        "mode": spec.get("mode"),
        "max": (spec.get("staleness") or {}).get("max"),
        "state": staleness.get("state"),
        "pods": pods.get("selected"),
        "injected": pods.get("injected"),
        "inSync": pods.get("inSync"),
        "reason": ready.get("reason") if current else "NotObserved",
        "message": ready.get("message") if current else "The controller has not looked at this generation yet.",
        "since": staleness.get("since"),
        "lostPublishers": staleness.get("lostPublishers"),
        "conditions": conditions,
    }


def _print_one(policy: Mapping[str, Any]) -> None:
    summary = _summary(policy)
    count = {name: summary[name] if summary[name] is not None else "?" for name in ("pods", "injected", "inSync")}
    print(plain(f"{summary['namespace']}/{summary['name']}: {summary['reason'] or 'no status'}"))
    if summary["message"]:
        print(plain(f"  {summary['message']}"))
    print(plain(f"  mode {summary['mode']}, at most {summary['max']} stale"))
    print(f"  {count['pods']} pods selected, {count['injected']} injected, {count['inSync']} in sync")
    if summary["state"]:
        since = f" since {summary['since']}" if summary["since"] else ""
        lost = f", {summary['lostPublishers']} publishers lost" if summary["lostPublishers"] else ""
        print(plain(f"  staleness {summary['state']}{since}{lost}"))
    if summary["conditions"]:
        print()
        print_table(
            ("CONDITION", "STATUS", "REASON", "MESSAGE"),
            [[one.get(key) for key in ("type", "status", "reason", "message")] for one in summary["conditions"]],
        )
