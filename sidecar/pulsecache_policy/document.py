"""Reading a document of unknown shape: values come out typed, errors are collected with their paths.

As in the API server, a null is an absent field, a field that nobody asked for is an error, and one bad field does
not hide the next. What the fields mean is `parse`'s affair.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeVar

from pulsecache_policy import grammar
from pulsecache_policy.errors import PolicyError

SHOWN = 80
E = TypeVar("E", bound=StrEnum)


@dataclass(slots=True)
class Errors:
    found: list[PolicyError] = field(default_factory=list)

    def add(self, path: str, reason: str) -> None:
        self.found.append(PolicyError(path, reason))


Form = Callable[[str], str | None]
"""What a string field may hold: None, or what is wrong with this one."""


@dataclass(frozen=True, slots=True)
class Text:
    """A form that is a pattern; `expected` completes "must be ..."."""

    pattern: str
    expected: str
    max_length: int = grammar.TEXT_MAX_LENGTH

    def __call__(self, value: str) -> str | None:
        if len(value) > self.max_length:
            return grammar.too_long(value, self.max_length)
        return None if re.fullmatch(self.pattern, value) else f"{_shown(value)} must be {self.expected}"


@dataclass(slots=True)
class Fields:
    """One mapping of the document. Every reader returns None for an absent field and for a bad one, whose error is
    then noted; `close` notes the fields that nothing read."""

    path: str
    errors: Errors
    _values: dict[str, object]
    _read: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, value: object, path: str, errors: Errors) -> Fields | None:
        if not isinstance(value, Mapping):
            errors.add(path, f"must be an object, not {kind_of(value)}")
            return None
        values: dict[str, object] = {}
        for name, item in value.items():
            if isinstance(name, str):
                values[name] = item
            else:
                errors.add(path, f"the name {name!r} of a field must be a string")
        return cls(path, errors, values)

    def at(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name

    def has(self, name: str) -> bool:
        return self._values.get(name) is not None

    def names(self) -> Iterator[str]:
        return iter(self._values)

    def take(self, name: str, *, required: bool = False) -> object:
        self._read.add(name)
        value = self._values.get(name)
        if value is None and required:
            self.errors.add(self.at(name), "is required")
        return value

    def fields(self, name: str, *, required: bool = False) -> Fields | None:
        value = self.take(name, required=required)
        return None if value is None else Fields.of(value, self.at(name), self.errors)

    def items(self, name: str, *, most: int, least: int = 0, required: bool = False) -> list[tuple[str, object]]:
        """The elements of a list with their paths; empty where there is none or too many to look at."""
        value = self.take(name, required=required)
        if value is None:
            return []
        path = self.at(name)
        if not isinstance(value, list | tuple):
            self.errors.add(path, f"must be a list, not {kind_of(value)}")
            return []
        if len(value) > most:
            self.errors.add(path, f"has {len(value)} items, at most {most} are allowed")
            return []
        if len(value) < least:
            self.errors.add(path, f"must have at least {least} item{'s' if least > 1 else ''}")
        return [(f"{path}[{index}]", item) for index, item in enumerate(value)]

    def text(self, name: str, form: Form, *, required: bool = False) -> str | None:
        value = self.take(name, required=required)
        return None if value is None else text_of(value, form, self.at(name), self.errors)

    def texts(self, name: str, form: Form, *, most: int, least: int = 0, required: bool = False) -> tuple[str, ...]:
        """A list of different strings; the bad ones are left out."""
        found: list[str] = []
        for path, item in self.items(name, most=most, least=least, required=required):
            text = text_of(item, form, path, self.errors)
            if text is not None and text in found:
                self.errors.add(path, f'"{text}" is there twice')
            elif text is not None:
                found.append(text)
        return tuple(found)

    def choice(self, name: str, kind: type[E], *, required: bool = False) -> E | None:
        value = self.take(name, required=required)
        if value is None:
            return None
        for member in kind:
            if value == member.value:
                return member
        self.errors.add(self.at(name), f"{_shown(value)} must be {one_of(tuple(kind))}")
        return None

    def integer(self, name: str, bounds: grammar.Range) -> int | None:
        value = self.take(name)
        if value is None:
            return None
        number = integer_of(value)
        if number is None:
            self.errors.add(self.at(name), f"must be an integer, not {kind_of(value)}")
        elif number not in bounds:
            self.errors.add(self.at(name), f"{number} must be {bounds.text}")
            return None
        return number

    def seconds(self, name: str, bounds_ms: grammar.Range) -> float | None:
        """A duration, in seconds."""
        value = self.take(name)
        if value is None:
            return None
        number = self._measured(name, value, bounds_ms, grammar.milliseconds)
        return None if number is None else number / 1000

    def size(self, name: str, bounds: grammar.Range) -> int | None:
        """A quantity, in bytes: an integer or a string."""
        value = self.take(name)
        if value is None:
            return None
        whole = isinstance(value, int) and not isinstance(value, bool)
        return self._measured(name, str(value) if whole else value, bounds, grammar.quantity)

    def close(self) -> None:
        for name in sorted(self._values.keys() - self._read):
            self.errors.add(self.at(name), "is no field of a CachePolicy")

    def _measured(self, name: str, value: object, bounds: grammar.Range, read: Callable[[str], int]) -> int | None:
        if not isinstance(value, str):
            self.errors.add(self.at(name), f"must be a string, not {kind_of(value)}")
            return None
        try:
            number = read(value)
        except ValueError as error:
            self.errors.add(self.at(name), f"{_shown(value)} {error}")
            return None
        if number not in bounds:
            self.errors.add(self.at(name), f"{value} must be {bounds.text}")
            return None
        return number


def text_of(value: object, form: Form, path: str, errors: Errors) -> str | None:
    if not isinstance(value, str):
        errors.add(path, f"must be a string, not {kind_of(value)}")
        return None
    problem = form(value)
    if problem is not None:
        errors.add(path, problem)
        return None
    return value


def integer_of(value: object) -> int | None:
    """JSON has one kind of number: 3.0 is an integer. A boolean is none, though Python says so."""
    if isinstance(value, bool):
        return None
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) else None


def one_of(choices: tuple[str, ...]) -> str:
    return choices[0] if len(choices) == 1 else f"{', '.join(choices[:-1])} or {choices[-1]}"


def kind_of(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list() | tuple():
            return "a list"
        case Mapping():
            return "an object"
        case _:
            return f"a {type(value).__name__}"


def _shown(value: object) -> str:
    """A wrong value in its message, or the beginning of it: messages end up in conditions and events."""
    if not isinstance(value, str):
        return kind_of(value)
    return f'"{value}"' if len(value) <= SHOWN else f'"{value[:SHOWN]}..."'
