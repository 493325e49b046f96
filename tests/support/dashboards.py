"""The PromQL of the dashboards, with Grafana's variables filled in, so that it can be given to a Prometheus.

for query in queries(): ... query.dashboard, query.panel, query.expression
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[2] / "charts" / "pulsecache" / "dashboards"

DEFAULTS = {"namespace": ".*", "policy": ".*", "__rate_interval": "1m", "__range": "1h", "__interval": "15s"}
"""As Grafana fills them in when "All" is chosen."""

_VARIABLE = re.compile(r"\$\{?(\w+)(?::\w+)?\}?")
_LABEL_VALUES = re.compile(r"label_values\((?:(?P<series>.+),\s*)?(?P<label>\w+)\)")


class UnknownVariable(Exception):
    """An expression uses a variable that the dashboard does not have and Grafana does not give."""


@dataclass(frozen=True, slots=True)
class Query:
    dashboard: str
    panel: str
    expression: str
    """Without variables. Gives a vector."""

    def __str__(self) -> str:
        return f"{self.dashboard}: {self.panel}: {self.expression}"


def dashboards() -> dict[str, dict[str, Any]]:
    """Every dashboard by the name of its file."""
    return {path.name: json.loads(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.json"))}


def queries(variables: Mapping[str, str] | None = None) -> list[Query]:
    """All expressions of all panels, and those behind the variables. `variables` go over the defaults.

    Raises UnknownVariable.
    """
    filled = {**DEFAULTS, **(variables or {})}
    found = []
    for name, dashboard in dashboards().items():
        for panel in panels(dashboard):
            for target in panel.get("targets", []):
                found.append(Query(name, panel["title"], _fill(target["expr"], filled)))
        for variable in dashboard["templating"]["list"]:
            if variable["type"] == "query":
                match = _LABEL_VALUES.fullmatch(variable["query"]["query"])
                assert match is not None, f"{name}: variable {variable['name']}: not label_values(series, label)"
                series = _fill(match["series"], filled)
                expression = f"count by ({match['label']}) ({series})"
                found.append(Query(name, f"variable {variable['name']}", expression))
    return found


def panels(dashboard: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The panels, also those inside of collapsed rows."""
    for panel in dashboard["panels"]:
        yield panel
        yield from panel.get("panels", [])


def metrics(expression: str) -> set[str]:
    """The names of our metrics in an expression, without what a histogram or counter puts behind them."""
    names = re.findall(r"\bpulsecache_\w+", expression)
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in names}


def _fill(text: str, variables: Mapping[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        try:
            return variables[match[1]]
        except KeyError:
            raise UnknownVariable(f"${match[1]} in {text!r}") from None

    return _VARIABLE.sub(value, text)
