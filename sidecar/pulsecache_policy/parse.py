"""From a document (what YAML or JSON gave) to a `CachePolicy`, or to every error that it has.

This parser and the schema of the CRD say the same; `tests/crd` holds them against each other. Rules that look at
one rule of the policy are in `rules`, what is allowed but unwise in `advice`.
"""

from __future__ import annotations

from dataclasses import replace

from pulsecache_policy import grammar
from pulsecache_policy.advice import warnings
from pulsecache_policy.document import Errors, Fields, Text, integer_of, text_of
from pulsecache_policy.errors import InvalidPolicy
from pulsecache_policy.model import (
    API_GROUP,
    API_VERSION,
    KIND,
    CachePolicy,
    Consumer,
    Heartbeat,
    Mode,
    Origin,
    RolloutStrategy,
    Staleness,
    TargetRef,
    WhenExceeded,
    Writers,
)
from pulsecache_policy.rules import read_rules, write_rules

__all__ = ["parse_policy", "warnings"]

_DNS_LABEL = Text(grammar.DNS_LABEL, 'lower-case letters, digits and "-"', grammar.NAME_MAX_LENGTH)
_POLICY_NAME = Text(grammar.DNS_SUBDOMAIN, 'lower-case letters, digits, "-" and "."', grammar.POLICY_NAME_MAX_LENGTH)
_SERVICE = Text(
    grammar.SERVICE_NAME,
    'the name of a Service: a lower-case letter, then those, digits and "-"',
    grammar.NAME_MAX_LENGTH,
)
_KIND = Text("Service", "Service: nothing else has pods behind a port")
_UPSTREAM = Text(grammar.UPSTREAM, "http://host or http://host:port, in lower case and without a path")
_ENV = Text(grammar.ENV_NAME, "the name of an environment variable")
_LABEL_KEY = Text(grammar.LABEL_KEY, "the key of a label", grammar.LABEL_KEY_MAX_LENGTH)
_LABEL_VALUE = Text(grammar.LABEL_VALUE, "the value of a label", grammar.NAME_MAX_LENGTH)

_METADATA = (
    "annotations",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "labels",
    "managedFields",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
)
"""What else an object's metadata may have: none of it matters here."""


def parse_policy(document: object, *, default_namespace: str = "default") -> CachePolicy:
    """The policy that a whole CachePolicy object describes. Raises InvalidPolicy with every error and its path."""
    errors = Errors()
    root = Fields.of(document, "", errors)
    policy = None if root is None else _policy(root, default_namespace)
    if errors.found or policy is None:
        raise InvalidPolicy(tuple(errors.found))
    return policy


def _policy(root: Fields, default_namespace: str) -> CachePolicy | None:
    errors = root.errors
    if root.take("apiVersion", required=True) not in (None, f"{API_GROUP}/{API_VERSION}"):
        errors.add("apiVersion", f"must be {API_GROUP}/{API_VERSION}")
    if root.take("kind", required=True) not in (None, KIND):
        errors.add("kind", f"must be {KIND}")
    root.take("status")
    metadata = root.fields("metadata", required=True)
    base = CachePolicy(name="", namespace=default_namespace, placement=TargetRef(name=""), dataset="")
    if metadata is not None:
        base = replace(
            base,
            name=metadata.text("name", _POLICY_NAME, required=True) or "",
            namespace=metadata.text("namespace", _DNS_LABEL) or default_namespace,
            generation=integer_of(metadata.take("generation")) or 0,
            uid=str(metadata.take("uid") or ""),
            created=str(metadata.take("creationTimestamp") or ""),
        )
        for other in _METADATA:
            metadata.take(other)
        metadata.close()
    spec = root.fields("spec", required=True)
    root.close()
    return None if spec is None else _spec(spec, base)


def _spec(spec: Fields, base: CachePolicy) -> CachePolicy | None:
    """`base` has what the metadata say, and the defaults."""
    placement = _placement(spec)
    dataset = spec.text("dataset", _POLICY_NAME) or base.name
    mode = spec.choice("mode", Mode) or base.mode
    rollout = base.rollout
    if (section := spec.fields("rollout")) is not None:
        rollout = section.choice("strategy", RolloutStrategy) or rollout
        section.close()
    memory, redis = _store(spec, base.memory_max_bytes)
    origin = _origin(spec)
    staleness = _staleness(spec)
    reads = read_rules(spec)
    writes = write_rules(spec, reads)
    spec.close()
    if placement is None:
        return None
    return replace(
        base,
        placement=placement,
        dataset=f"{base.namespace}/{dataset}",
        mode=mode,
        rollout=rollout,
        memory_max_bytes=memory,
        redis=redis,
        origin=origin,
        staleness=staleness,
        reads=reads.rules,
        writes=writes,
    )


def _placement(spec: Fields) -> TargetRef | Consumer | None:
    target = spec.fields("targetRef")
    consumer = spec.fields("consumer")
    if spec.has("targetRef") == spec.has("consumer"):
        spec.errors.add(
            spec.path,
            "exactly one of targetRef (in front of a Service's pods) and consumer (next to its clients) is required",
        )
    placed: TargetRef | Consumer | None = None
    if target is not None:
        target.text("kind", _KIND)
        service = target.text("name", _SERVICE, required=True)
        section = target.text("sectionName", _DNS_LABEL)
        target.close()
        placed = None if service is None else TargetRef(name=service, section_name=section)
    if consumer is not None:
        labels = _labels(consumer)
        upstream = consumer.text("upstream", _UPSTREAM, required=True)
        env = consumer.texts("env", _ENV, most=grammar.MAX_NAMES, least=1, required=True)
        consumer.close()
        placed = None if upstream is None else Consumer(match_labels=labels, upstream=upstream, env=env)
    return placed


def _labels(consumer: Fields) -> tuple[tuple[str, str], ...]:
    selector = consumer.fields("selector", required=True)
    if selector is None:
        return ()
    labels = selector.fields("matchLabels", required=True)
    selector.close()
    if labels is None:
        return ()
    names = sorted(labels.names())
    if not 1 <= len(names) <= grammar.MAX_LABELS:
        labels.errors.add(
            labels.path, f"must have between 1 and {grammar.MAX_LABELS} labels, or it would select every pod"
        )
    found: list[tuple[str, str]] = []
    for name in names:
        if (problem := _LABEL_KEY(name)) is not None:
            labels.errors.add(labels.path, problem)
        value = text_of(labels.take(name), _LABEL_VALUE, f"{labels.path}[{name}]", labels.errors)
        found.append((name, value or ""))
    return tuple(found)


def _store(spec: Fields, max_bytes: int) -> tuple[int, bool]:
    store = spec.fields("store")
    if store is None:
        return max_bytes, False
    if (memory := store.fields("memory")) is not None:
        max_bytes = memory.size("maxBytes", grammar.MEMORY_BYTES) or max_bytes
        memory.close()
    redis = store.fields("redis")
    if redis is not None:
        redis.close()
    store.close()
    return max_bytes, redis is not None


def _origin(spec: Fields) -> Origin:
    section = spec.fields("origin")
    if section is None:
        return Origin()
    default = Origin()
    found = Origin(
        max_concurrency=section.integer("maxConcurrency", grammar.MAX_CONCURRENCY) or default.max_concurrency,
        timeout_s=section.seconds("timeout", grammar.ORIGIN_TIMEOUT_MS) or default.timeout_s,
    )
    section.close()
    return found


def _staleness(spec: Fields) -> Staleness:
    section = spec.fields("staleness")
    if section is None:
        return Staleness()
    default = Staleness()
    found = Staleness(
        max_s=section.seconds("max", grammar.STALENESS_MAX_MS) or default.max_s,
        when_exceeded=section.choice("whenExceeded", WhenExceeded) or default.when_exceeded,
        writers=section.choice("writers", Writers) or default.writers,
        heartbeat=_heartbeat(section),
        settle_s=section.seconds("settle", grammar.SETTLE_MS) or default.settle_s,
    )
    section.close()
    if found.heartbeat.interval_s >= found.max_s:
        section.errors.add(
            section.at("heartbeat.interval"),
            f"{found.heartbeat.interval_s:g}s must be shorter than max, {found.max_s:g}s:"
            " no answer could ever be confirmed in time",
        )
    return found


def _heartbeat(staleness: Fields) -> Heartbeat:
    section = staleness.fields("heartbeat")
    if section is None:
        return Heartbeat()
    default = Heartbeat()
    found = Heartbeat(
        interval_s=section.seconds("interval", grammar.HEARTBEAT_INTERVAL_MS) or default.interval_s,
        failure_threshold=section.integer("failureThreshold", grammar.FAILURE_THRESHOLD) or default.failure_threshold,
    )
    section.close()
    return found
