"""YAML files with several documents: their values as the API server would get them, and where each field stands.

A field that is there twice is an error here, as in kubectl; dates stay text. What the documents mean is not known here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import yaml


@dataclass(frozen=True, slots=True)
class BadYaml(Exception):
    line: int
    reason: str


@dataclass(frozen=True, slots=True)
class Document:
    value: object
    _node: yaml.Node

    def line(self, path: str) -> int:
        """Line of the field that a path such as `spec.reads[0].name` names, or of the nearest that is there."""
        node, line = self._node, self._node.start_mark.line
        for name, index in re.findall(r"([^.\[\]]+)|\[([^\]]*)\]", path):
            step = name or index
            if isinstance(node, yaml.MappingNode):
                found = next(((key, value) for key, value in node.value if key.value == step), None)
                if found is None:
                    break
                line, node = found[0].start_mark.line, found[1]
            elif isinstance(node, yaml.SequenceNode) and step.isdecimal() and int(step) < len(node.value):
                node = node.value[int(step)]
                line = node.start_mark.line
            else:
                break
        return int(line) + 1


def documents(text: str) -> Iterator[Document]:
    """The documents of a file, without empty ones. Raises BadYaml; what came before is good."""
    try:
        loader = _Loader(text)
        while loader.check_node():
            node = loader.get_node()
            value = None if node is None else loader.construct_document(node)
            if node is not None and value is not None:
                yield Document(value, node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        reason = ", ".join(part for part in (error.context, error.problem) if part)
        raise BadYaml(mark.line + 1 if mark else 1, f"is no YAML: {reason}") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise BadYaml(1, f"is no YAML: {' '.join(str(error).split()) or type(error).__name__}") from error


class _Loader(yaml.SafeLoader):
    """YAML as Kubernetes reads it: no dates, no numbers to the base of 60."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[object, object]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f'the field "{key.value}" is there twice', key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern)
        for tag, pattern in resolvers
        if tag not in ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int",
    re.compile(r"^[-+]?(0b[01_]+|0x[0-9a-fA-F_]+|0[0-7_]+|0|[1-9][0-9_]*)$"),
    list("-+0123456789"),
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^([-+]?([0-9][0-9_]*\.[0-9_]*|\.[0-9]+)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$"),
    list("-+0123456789."),
)
