"""Path templates and tag templates: `/products/{id}`, `/files/{path*}`, `product:{id}`.

A path template has literal segments, `{name}` for exactly one segment and, as the last, `{name*}` for the rest: one
segment or more. No regular expressions, so that two templates can be compared and matching takes one look at each
segment. A literal is written in the form that paths are compared in (`match.resource`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pulsecache_policy import grammar

_LITERAL = re.compile(grammar.PATH_LITERAL)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PLACEHOLDER = re.compile(r"[{]([A-Za-z_][A-Za-z0-9_]*)[}]")
_TAG = re.compile(grammar.TAG)


@dataclass(frozen=True, slots=True)
class Literal:
    text: str


@dataclass(frozen=True, slots=True)
class Parameter:
    name: str


@dataclass(frozen=True, slots=True)
class PathTemplate:
    text: str
    segments: tuple[Literal | Parameter, ...]
    """Without the rest."""
    rest: str | None
    """Name of the `{name*}` at the end."""

    @classmethod
    def compile(cls, text: str) -> PathTemplate:
        """Raises ValueError with the reason."""
        if len(text) > grammar.TEXT_MAX_LENGTH:
            raise ValueError(grammar.too_long(text, grammar.TEXT_MAX_LENGTH))
        if not text.startswith("/"):
            raise ValueError('must start with "/"')
        parts = text[1:].split("/")
        segments: list[Literal | Parameter] = []
        rest: str | None = None
        for index, part in enumerate(parts):
            last = index == len(parts) - 1
            if part.startswith("{") and part.endswith("*}"):
                if not last:
                    raise ValueError(f'"{part}" stands for the rest of the path: it can only be the last segment')
                rest = _name(part[1:-2], part)
            elif part.startswith("{") and part.endswith("}"):
                segments.append(Parameter(_name(part[1:-1], part)))
            else:
                segments.append(Literal(_literal(part, last=last)))
        template = cls(text, tuple(segments), rest)
        if len(template.names) > grammar.MAX_PATH_NAMES:
            raise ValueError(f"has more than {grammar.MAX_PATH_NAMES} names")
        for name in template.names:
            if template.names.count(name) > 1:
                raise ValueError(f'the name "{name}" is there twice')
        return template

    @property
    def names(self) -> tuple[str, ...]:
        named = tuple(segment.name for segment in self.segments if isinstance(segment, Parameter))
        return named if self.rest is None else (*named, self.rest)

    def match(self, path: str) -> dict[str, str] | None:
        """The values of the names, or None. `path` is in the form of `match.resource`."""
        return self.match_segments(path.split("/")[1:]) if path.startswith("/") else None

    def match_segments(self, parts: Sequence[str]) -> dict[str, str] | None:
        count = len(self.segments)
        if len(parts) != count if self.rest is None else len(parts) <= count:
            return None
        found: dict[str, str] = {}
        for segment, part in zip(self.segments, parts, strict=False):
            if isinstance(segment, Literal):
                if segment.text != part:
                    return None
            elif part:
                found[segment.name] = part
            else:
                return None
        if self.rest is not None:
            found[self.rest] = "/".join(parts[count:])
            if not found[self.rest]:
                return None
        return found

    def covers(self, other: PathTemplate) -> bool:
        """Whether each path that `other` matches is one that this one matches as well."""
        count = len(self.segments)
        if self.rest is None:
            if other.rest is not None or len(other.segments) != count:
                return False
        elif len(other.segments) + (other.rest is not None) <= count:
            return False
        return all(
            mine == theirs if isinstance(mine, Literal) else theirs != Literal("")
            for mine, theirs in zip(self.segments, other.segments, strict=False)
        ) and not (self.rest is not None and other.rest is None and other.segments[count:] == (Literal(""),))


def expand(template: str, params: Mapping[str, str]) -> str:
    """A tag template (one that `check_tag` lets through) with its names replaced by their values."""
    return template.format_map(params) if "{" in template else template


def placeholders(template: str) -> tuple[str, ...]:
    """The names that a tag template uses."""
    return tuple(_PLACEHOLDER.findall(template))


def check_tag(template: str) -> None:
    """Raises ValueError with the reason."""
    if len(template) > grammar.TEXT_MAX_LENGTH:
        raise ValueError(grammar.too_long(template, grammar.TEXT_MAX_LENGTH))
    if not _TAG.fullmatch(template):
        raise ValueError(
            f'"{template}" is no tag: it starts with a letter, a digit or "_", goes on with those and . : / @ = -,'
            " and has {name} for a value from the path"
        )
    if len(placeholders(template)) > grammar.MAX_TAG_NAMES:
        raise ValueError(f"has more than {grammar.MAX_TAG_NAMES} names")


def _name(name: str, part: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f'"{part}": a name has letters, digits and "_", and does not start with a digit')
    return name


def _literal(part: str, *, last: bool) -> str:
    if part == "" and last:
        return part
    if part == "":
        raise ValueError("has an empty segment: such a request passes through, no rule matches it")
    if part in (".", ".."):
        raise ValueError(f'has the segment "{part}": such a request passes through, no rule matches it')
    if "{" in part or "}" in part:
        raise ValueError(f'"{part}": a placeholder is a whole segment')
    if not _LITERAL.fullmatch(part):
        raise ValueError(
            f'"{part}" is not in normal form: only what a URL cannot carry as it is (blanks, %, non-ASCII) is'
            ' percent-encoded, in upper case, and there is no ";"'
        )
    return part
