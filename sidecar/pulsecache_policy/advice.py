"""What a valid policy says that its author may not have meant."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pulsecache_policy.errors import PolicyError
from pulsecache_policy.model import CachePolicy, Match, Writers
from pulsecache_policy.template import PathTemplate, placeholders


def warnings(policy: CachePolicy) -> tuple[PolicyError, ...]:
    return (*_staleness(policy), *_unheard(policy), *_shadowed(policy), *_dead_tags(policy))


def _staleness(policy: CachePolicy) -> Iterator[PolicyError]:
    staleness = policy.staleness
    path = "spec.staleness.max"
    if staleness.writers is Writers.ALL and policy.writes and staleness.max_s < staleness.settle_s:
        yield PolicyError(
            path,
            f"{staleness.max_s:g}s is below settle, {staleness.settle_s:g}s: after a write whose outcome is unknown,"
            f" what it touches is not answered from the cache for up to {staleness.settle_s:g}s",
        )
    if staleness.heartbeat.interval_s * staleness.heartbeat.failure_threshold >= staleness.max_s:
        yield PolicyError(
            path,
            f"{staleness.max_s:g}s is over before {staleness.heartbeat.failure_threshold} heartbeats are missed:"
            " the state goes to Exceeded without a warning before",
        )
    if staleness.writers is Writers.UNKNOWN:
        for index, rule in enumerate(policy.reads):
            if rule.ttl.duration_s is not None and rule.ttl.duration_s > staleness.max_s:
                yield PolicyError(
                    f"spec.reads[{index}].ttl.duration",
                    f"{rule.ttl.duration_s:g}s is above staleness.max, {staleness.max_s:g}s: with writers Unknown the"
                    " bound is the age of the answer, so max decides",
                )


def _unheard(policy: CachePolicy) -> Iterator[PolicyError]:
    if policy.staleness.writers is Writers.ALL and not policy.redis:
        yield PolicyError(
            "spec.staleness.writers",
            "All without store.redis: changes of other replicas are not heard, so the bound is the age of the answer",
        )


def _shadowed(policy: CachePolicy) -> Iterator[PolicyError]:
    yield from _hidden("spec.reads", [(rule.name, rule.match) for rule in policy.reads])
    yield from _hidden("spec.writes", [(rule.name, rule.match) for rule in policy.writes])


def _hidden(path: str, rules: Sequence[tuple[str, Match]]) -> Iterator[PolicyError]:
    templates = [PathTemplate.compile(match.path) for _, match in rules]
    for index, (_, match) in enumerate(rules):
        for earlier in range(index):
            name, before = rules[earlier]
            if set(match.methods) <= set(before.methods) and templates[earlier].covers(templates[index]):
                yield PolicyError(f"{path}[{index}].match", f'is never reached: "{name}" matches all of it before')
                break


def _dead_tags(policy: CachePolicy) -> Iterator[PolicyError]:
    """Another policy of the same dataset may carry the tag, so only a policy with a dataset of its own is told."""
    if policy.dataset != policy.key or not policy.reads:
        return
    carried = {_shape(tag) for rule in policy.reads for tag in rule.tags}
    for index, rule in enumerate(policy.writes):
        for place, tag in enumerate(rule.invalidates):
            if not any(_meets(_shape(tag), shape) for shape in carried):
                yield PolicyError(f"spec.writes[{index}].invalidates[{place}]", f'no read rule carries the tag "{tag}"')


def _shape(tag: str) -> str:
    for name in placeholders(tag):
        tag = tag.replace(f"{{{name}}}", "{}")
    return tag


def _meets(one: str, other: str) -> bool:
    """Whether two shapes may expand to the same tag, as far as the text before the first placeholder tells."""
    head, sign, _ = one.partition("{}")
    other_head, other_sign, _ = other.partition("{}")
    if sign and other_sign:
        return head.startswith(other_head) or other_head.startswith(head)
    if sign:
        return other.startswith(head)
    return one.startswith(other_head) if other_sign else one == other
