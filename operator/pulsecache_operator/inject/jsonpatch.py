"""The JSON patch (RFC 6902) between two documents: only what changed, so that other webhooks' work is not in it.

Lists are paired by a common beginning and a common end (by `name` for objects that have one, as containers, ports and
volumes do), and only the middle is replaced element by element. That is not the shortest patch of all lists, but a
correct one of any, and the shortest for what injection does: an element put first, appended, or changed in place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def patch(before: Any, after: Any) -> list[dict[str, Any]]:
    """The operations that turn `before` into `after`; empty when they are equal as JSON."""
    operations: list[dict[str, Any]] = []
    _diff("", before, after, operations)
    return operations


def _diff(path: str, before: Any, after: Any, operations: list[dict[str, Any]]) -> None:
    if before is after:
        return
    if isinstance(before, dict) and isinstance(after, dict):
        _diff_objects(path, before, after, operations)
    elif isinstance(before, list) and isinstance(after, list):
        _diff_lists(path, before, after, operations)
    # True == 1 == 1.0 in Python, and they are three values in JSON.
    elif type(before) is not type(after) or before != after:
        operations.append({"op": "replace", "path": path, "value": after})


def _diff_objects(path: str, before: dict[str, Any], after: dict[str, Any], operations: list[dict[str, Any]]) -> None:
    for key, value in before.items():
        if key not in after:
            operations.append({"op": "remove", "path": f"{path}/{_escaped(key)}"})
        else:
            _diff(f"{path}/{_escaped(key)}", value, after[key], operations)
    for key, value in after.items():
        if key not in before:
            operations.append({"op": "add", "path": f"{path}/{_escaped(key)}", "value": value})


def _diff_lists(path: str, before: Sequence[Any], after: Sequence[Any], operations: list[dict[str, Any]]) -> None:
    shorter = min(len(before), len(after))
    head = 0
    while head < shorter and _paired(before[head], after[head]):
        head += 1
    tail = 0
    while tail < shorter - head and _paired(before[-1 - tail], after[-1 - tail]):
        tail += 1
    for index in range(head):
        _diff(f"{path}/{index}", before[index], after[index], operations)
    for index in range(len(before) - tail - 1, head - 1, -1):
        operations.append({"op": "remove", "path": f"{path}/{index}"})
    for index in range(head, len(after) - tail):
        operations.append({"op": "add", "path": f"{path}/{index}", "value": after[index]})
    for index in range(tail, 0, -1):
        # By now the list has the length of `after`.
        _diff(f"{path}/{len(after) - index}", before[-index], after[-index], operations)


def _paired(before: Any, after: Any) -> bool:
    """Whether two elements are the same thing, perhaps changed."""
    if isinstance(before, dict) and isinstance(after, dict):
        name = before.get("name")
        other = after.get("name")
        return type(name) is type(other) and bool(name == other)
    if isinstance(before, list) or isinstance(after, list):
        return isinstance(before, list) and isinstance(after, list)
    return type(before) is type(after) and bool(before == after)


def _escaped(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1") if "~" in key or "/" in key else key
