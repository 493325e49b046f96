"""The rules of a policy: `spec.reads` and `spec.writes`, each by itself and against each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pulsecache_policy import grammar
from pulsecache_policy.document import Errors, Fields, Form, Text, integer_of, one_of
from pulsecache_policy.model import (
    Journal,
    JournalType,
    KeySpec,
    Match,
    Principal,
    PrincipalType,
    QueryKey,
    QueryMode,
    ReadRule,
    RepresentationSource,
    Ttl,
    TtlSource,
    WhenFull,
    WriteBehind,
    WriteRule,
    WriteStrategy,
    WriteThrough,
)
from pulsecache_policy.template import PathTemplate, check_tag, placeholders

_NAME = Text(grammar.DNS_LABEL, 'lower-case letters, digits and "-"', grammar.NAME_MAX_LENGTH)
_HEADER = Text(grammar.FIELD_NAME, "the name of a header field", grammar.NAME_MAX_LENGTH)
_PRINCIPAL = Text(grammar.FIELD_NAME, "the name of a header field or a cookie", grammar.NAME_MAX_LENGTH)
_QUERY_NAME = Text(grammar.QUERY_NAME, "the name of a query parameter as it is in the URL", grammar.NAME_MAX_LENGTH)
_READ_METHOD = Text("|".join(grammar.READ_METHODS), one_of(grammar.READ_METHODS))
_WRITE_METHOD = Text("|".join(grammar.WRITE_METHODS), one_of(grammar.WRITE_METHODS))


@dataclass(frozen=True, slots=True)
class ReadRules:
    rules: tuple[ReadRule, ...]
    names: frozenset[str]
    """Names of all rules, also of those that have errors: a reference to one of them is not a second error."""


def read_rules(spec: Fields) -> ReadRules:
    found: list[ReadRule] = []
    names: dict[str, str] = {}
    for path, item in spec.items("reads", most=grammar.MAX_RULES):
        rule = Fields.of(item, path, spec.errors)
        if rule is None:
            continue
        name = _rule_name(rule, names)
        match, template = _match(rule, _READ_METHOD, len(grammar.READ_METHODS), default=("GET",))
        ttl = _ttl(rule)
        key = _key(rule)
        tags = _tags(rule, "tags", template)
        rule.close()
        if name is not None and match is not None:
            if "GET" not in match.methods:
                rule.errors.add(rule.at("match.methods"), "must have GET: HEAD is answered from what a GET stored")
            found.append(ReadRule(name=name, match=match, ttl=ttl, key=key, tags=tags))
    return ReadRules(tuple(found), frozenset(names))


def write_rules(spec: Fields, reads: ReadRules) -> tuple[WriteRule, ...]:
    found: list[WriteRule] = []
    names: dict[str, str] = {}
    for path, item in spec.items("writes", most=grammar.MAX_RULES):
        rule = Fields.of(item, path, spec.errors)
        if rule is None:
            continue
        name = _rule_name(rule, names)
        match, template = _match(rule, _WRITE_METHOD, len(grammar.WRITE_METHODS))
        strategy = rule.choice("strategy", WriteStrategy, required=True)
        through = _write_through(rule)
        behind = _write_behind(rule)
        invalidates = _tags(rule, "invalidates", template)
        rule.close()
        if strategy is not None:
            _check_section(rule, "writeThrough", strategy, WriteStrategy.WRITE_THROUGH)
            _check_section(rule, "writeBehind", strategy, WriteStrategy.WRITE_BEHIND)
        if through is not None:
            _check_refreshed(rule.at("writeThrough.read"), through.read, match, reads, rule.errors)
            if match is not None and through.source is RepresentationSource.REQUEST_BODY:
                _check_body(rule.at("writeThrough.from"), "RequestBody", match, ("PUT", "DELETE"), rule.errors)
        if behind is not None and behind.read is not None:
            _check_refreshed(rule.at("writeBehind.read"), behind.read, match, reads, rule.errors)
            if match is not None:
                _check_body(rule.at("writeBehind.read"), "showing the pending value", match, ("PUT",), rule.errors)
        if name is not None and match is not None and strategy is not None:
            found.append(
                WriteRule(
                    name=name,
                    match=match,
                    strategy=strategy,
                    write_through=through,
                    write_behind=behind,
                    invalidates=invalidates,
                )
            )
    return tuple(found)


def _rule_name(rule: Fields, names: dict[str, str]) -> str | None:
    name = rule.text("name", _NAME, required=True)
    if name is None:
        return None
    if name in names:
        rule.errors.add(rule.at("name"), f'"{name}" is already the name of {names[name]}')
    names.setdefault(name, rule.path)
    return name


def _match(
    rule: Fields, method: Form, most: int, default: tuple[str, ...] | None = None
) -> tuple[Match | None, PathTemplate | None]:
    section = rule.fields("match", required=True)
    if section is None:
        return None, None
    methods = section.texts("methods", method, most=most, least=1, required=default is None)
    if not section.has("methods"):
        methods = default or ()
    path = section.text("path", _path_problem, required=True)
    section.close()
    if path is None:
        return None, None
    return (Match(methods=methods, path=path) if methods else None), PathTemplate.compile(path)


def _path_problem(text: str) -> str | None:
    try:
        PathTemplate.compile(text)
    except ValueError as error:
        return str(error)
    return None


def _tags(rule: Fields, field: str, template: PathTemplate | None) -> tuple[str, ...]:
    def problem(tag: str) -> str | None:
        try:
            check_tag(tag)
        except ValueError as error:
            return str(error)
        unknown = [] if template is None else [name for name in placeholders(tag) if name not in template.names]
        return f'"{{{unknown[0]}}}" is no name of the path {template.text}' if template and unknown else None

    return rule.texts(field, problem, most=grammar.MAX_TAGS)


def _ttl(rule: Fields) -> Ttl:
    section = rule.fields("ttl")
    if section is None:
        return Ttl()
    source = section.choice("source", TtlSource)
    duration = section.seconds("duration", grammar.TTL_MS)
    section.close()
    source_known = source is not None or not section.has("source")
    source = source or TtlSource.ORIGIN
    if source_known and (source is not TtlSource.ORIGIN) != section.has("duration"):
        if section.has("duration"):
            section.errors.add(section.at("duration"), "has no effect with source Origin: use OriginFirst or Policy")
        else:
            section.errors.add(section.at("duration"), f"is required with source {source}")
    return Ttl(source=source, duration_s=duration)


def _key(rule: Fields) -> KeySpec:
    section = rule.fields("key")
    if section is None:
        return KeySpec()
    query = _query(section)
    headers = section.texts("headers", _header_problem, most=grammar.MAX_HEADERS)
    principal = _principal(section)
    section.close()
    return KeySpec(query=query, headers=tuple(dict.fromkeys(map(str.lower, headers))), principal=principal)


def _header_problem(name: str) -> str | None:
    if name.lower() in grammar.CREDENTIAL_FIELDS:
        return f"{name} names a principal: use key.principal"
    return _HEADER(name)


def _query(key: Fields) -> QueryKey:
    section = key.fields("query")
    if section is None:
        return QueryKey()
    mode = section.choice("mode", QueryMode)
    names = section.texts("names", _QUERY_NAME, most=grammar.MAX_NAMES)
    section.close()
    mode_known = mode is not None or not section.has("mode")
    mode = mode or QueryMode.ALL
    listed = mode in (QueryMode.ONLY, QueryMode.EXCEPT)
    given = section.take("names")
    if mode_known and listed and not given:
        section.errors.add(section.at("names"), f"is required with mode {mode}")
    elif mode_known and not listed and given:
        section.errors.add(section.at("names"), f"has no effect with mode {mode}: use Only or Except")
    return QueryKey(mode=mode, names=names)


def _principal(key: Fields) -> Principal | None:
    section = key.fields("principal")
    if section is None:
        return None
    kind = section.choice("type", PrincipalType, required=True)
    name = section.text("name", _PRINCIPAL, required=True)
    section.close()
    if kind is None or name is None:
        return None
    return Principal(type=kind, name=name.lower() if kind is PrincipalType.HEADER else name)


def _write_through(rule: Fields) -> WriteThrough | None:
    section = rule.fields("writeThrough")
    if section is None:
        return None
    read = section.text("read", _NAME, required=True)
    source = section.choice("from", RepresentationSource) or RepresentationSource.RESPONSE_BODY
    section.close()
    return None if read is None else WriteThrough(read=read, source=source)


def _write_behind(rule: Fields) -> WriteBehind | None:
    section = rule.fields("writeBehind")
    if section is None:
        return None
    default = WriteBehind()
    journal = default.journal
    if (kept := section.fields("journal")) is not None:
        journal = Journal(
            type=kept.choice("type", JournalType) or journal.type,
            max_entries=kept.integer("maxEntries", grammar.JOURNAL_ENTRIES) or journal.max_entries,
        )
        kept.close()
    status = section.take("status")
    if status is not None and integer_of(status) not in grammar.PENDING_STATUSES:
        section.errors.add(section.at("status"), f"must be {one_of(tuple(map(str, grammar.PENDING_STATUSES)))}")
    when_full = section.choice("whenFull", WhenFull) or default.when_full
    read = section.text("read", _NAME)
    section.close()
    return WriteBehind(journal=journal, status=integer_of(status) or default.status, when_full=when_full, read=read)


def _check_section(rule: Fields, name: str, strategy: WriteStrategy, of: WriteStrategy) -> None:
    if strategy is of and not rule.has(name):
        rule.errors.add(rule.at(name), f"is required with strategy {of}")
    elif strategy is not of and rule.has(name):
        rule.errors.add(rule.at(name), f"has no effect with strategy {strategy}")


def _check_refreshed(path: str, read: str, match: Match | None, reads: ReadRules, errors: Errors) -> None:
    """A write can only compute the key of an entry that depends on nothing but the path that both rules share."""
    if read not in reads.names:
        errors.add(path, f'there is no read rule "{read}"')
        return
    rule = _named(reads.rules, read)
    if rule is None:
        return
    if rule.key.headers or rule.key.principal is not None:
        errors.add(
            path, f'the read rule "{read}" keys on headers or a principal: a write cannot know whose entry to refresh'
        )
    if match is not None and rule.match.path != match.path:
        errors.add(
            path, f'the read rule "{read}" has the path {rule.match.path}, this one {match.path}: they must be equal'
        )


def _named(rules: Sequence[ReadRule], name: str) -> ReadRule | None:
    return next((rule for rule in rules if rule.name == name), None)


def _check_body(path: str, what: str, match: Match, allowed: tuple[str, ...], errors: Errors) -> None:
    """Only the body of a PUT is the new representation (RFC 9110 section 9.3.4)."""
    wrong = [method for method in match.methods if method not in allowed]
    if wrong:
        errors.add(
            path, f"{what} does not go with {', '.join(wrong)}: only the body of a PUT is the new representation"
        )
