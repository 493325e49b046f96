"""Which rule a request belongs to: the first of the policy whose method and path template match.

Rules live in one small tree of segments per method, so a request costs a few look-ups however many rules there are.
The key of an answer is `key`'s affair, the forms of a path are `paths`'.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from pulsecache_policy.model import CachePolicy, Match, ReadRule, TargetRef, WriteRule
from pulsecache_policy.paths import normalise_path, path_tag, resource
from pulsecache_policy.template import Literal, PathTemplate, expand

__all__ = ["CompiledPolicy", "ReadMatch", "WriteMatch", "normalise_path", "path_tag", "resource"]


@dataclass(frozen=True, slots=True)
class ReadMatch:
    rule: ReadRule
    params: Mapping[str, str]
    """Values of the template's names, in the form of `paths.resource`."""
    path: str
    """The request's path in normal form."""
    revision: str
    """Changes with everything that changes what an entry of the rule means: entries of another one are not found."""
    tags: tuple[str, ...]
    """The rule's tags and, last, the path tag: `paths.resource` of the path, which starts with "/"."""


@dataclass(frozen=True, slots=True)
class WriteMatch:
    rule: WriteRule
    params: Mapping[str, str]
    path: str
    tags: tuple[str, ...]
    """What the rule invalidates and, last, the path tag."""
    read: ReadMatch | None
    """The read rule that this write refreshes (or, pending, shows itself in), if a GET of this path would use it."""


@dataclass(slots=True)
class _Node:
    literals: dict[str, _Node] = field(default_factory=dict)
    parameter: _Node | None = None
    end: int | None = None
    """The first rule that ends here."""
    rest: int | None = None
    """The first rule whose `{name*}` starts here."""
    lowest: int = 0
    """The first rule of the whole subtree: no need to descend for a later one than what was found."""


@dataclass(frozen=True, slots=True)
class CompiledPolicy:
    policy: CachePolicy
    _read_templates: tuple[PathTemplate, ...]
    _write_templates: tuple[PathTemplate, ...]
    _revisions: tuple[str, ...]
    _reads: Mapping[str, _Node]
    _writes: Mapping[str, _Node]

    @classmethod
    def compile(cls, policy: CachePolicy) -> CompiledPolicy:
        reads = tuple(PathTemplate.compile(rule.match.path) for rule in policy.reads)
        writes = tuple(PathTemplate.compile(rule.match.path) for rule in policy.writes)
        return cls(
            policy=policy,
            _read_templates=reads,
            _write_templates=writes,
            _revisions=tuple(_revision(policy, rule) for rule in policy.reads),
            _reads=_trees((rule.match for rule in policy.reads), reads),
            _writes=_trees((rule.match for rule in policy.writes), writes),
        )

    def match_read(self, method: str, path: str) -> ReadMatch | None:
        """`path` is as it was sent. HEAD belongs to the rules for GET."""
        tree = self._reads.get("GET" if method == "HEAD" else method)
        if tree is None:
            return None
        normal = normalise_path(path)
        return None if normal is None else self._read(tree, normal, resource(normal))

    def match_write(self, method: str, path: str) -> WriteMatch | None:
        """`path` is as it was sent. Where there is no rule, the write changes at least `path_tag(path)`."""
        tree = self._writes.get(method)
        if tree is None:
            return None
        normal = normalise_path(path)
        if normal is None:
            return None
        subject = resource(normal)
        parts = subject.split("/")[1:]
        index = _first(tree, parts)
        if index is None:
            return None
        rule = self.policy.writes[index]
        params = self._write_templates[index].match_segments(parts)
        assert params is not None, f"tree and template of {rule.name} disagree about {subject}"
        return WriteMatch(
            rule=rule,
            params=params,
            path=normal,
            tags=(*(expand(tag, params) for tag in rule.invalidates), subject),
            read=self._refreshed(rule, normal, subject),
        )

    def _read(self, tree: _Node, normal: str, subject: str) -> ReadMatch | None:
        parts = subject.split("/")[1:]
        index = _first(tree, parts)
        if index is None:
            return None
        rule = self.policy.reads[index]
        params = self._read_templates[index].match_segments(parts)
        assert params is not None, f"tree and template of {rule.name} disagree about {subject}"
        return ReadMatch(
            rule=rule,
            params=params,
            path=normal,
            revision=self._revisions[index],
            tags=(*(expand(tag, params) for tag in rule.tags), subject),
        )

    def _refreshed(self, rule: WriteRule, normal: str, subject: str) -> ReadMatch | None:
        if rule.write_through is not None:
            name: str | None = rule.write_through.read
        else:
            name = rule.write_behind.read if rule.write_behind is not None else None
        tree = self._reads.get("GET")
        if name is None or tree is None:
            return None
        found = self._read(tree, normal, subject)
        return found if found is not None and found.rule.name == name else None


def _revision(policy: CachePolicy, rule: ReadRule) -> str:
    meaning = ["1", policy.key, type(policy.placement).__name__, _origin(policy), asdict(rule)]
    return hashlib.sha256(json.dumps(meaning, sort_keys=True).encode()).hexdigest()[:16]


def _origin(policy: CachePolicy) -> list[str]:
    """Where the answers come from: those of another origin are other answers."""
    match policy.placement:
        case TargetRef(name=name, section_name=section):
            return [name, section or ""]
        case consumer:
            return [consumer.upstream]


def _trees(matches: Iterable[Match], templates: Sequence[PathTemplate]) -> dict[str, _Node]:
    trees: dict[str, _Node] = {}
    for index, (match, template) in enumerate(zip(matches, templates, strict=True)):
        for method in match.methods:
            _insert(trees.setdefault(method, _Node(lowest=index)), template, index)
    return trees


def _insert(node: _Node, template: PathTemplate, index: int) -> None:
    """Rules come in order, so whoever is there first stays: in `end`, in `rest`, and in `lowest` of new nodes."""
    for segment in template.segments:
        if isinstance(segment, Literal):
            node = node.literals.setdefault(segment.text, _Node(lowest=index))
        else:
            node.parameter = node.parameter or _Node(lowest=index)
            node = node.parameter
    if template.rest is not None:
        node.rest = index if node.rest is None else node.rest
    else:
        node.end = index if node.end is None else node.end


def _first(tree: _Node, parts: Sequence[str]) -> int | None:
    """The first rule that matches the segments."""
    best: int | None = None
    open_nodes = [(tree, 0)]
    while open_nodes:
        node, depth = open_nodes.pop()
        if best is not None and node.lowest >= best:
            continue
        if depth == len(parts):
            found = node.end
        else:
            part = parts[depth]
            found = node.rest if part or depth + 1 < len(parts) else None
            if part and node.parameter is not None:
                open_nodes.append((node.parameter, depth + 1))
            if (literal := node.literals.get(part)) is not None:
                open_nodes.append((literal, depth + 1))
        if found is not None and (best is None or found < best):
            best = found
    return best
