"""The dashboards are what Grafana takes, and speak of metrics that exist."""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from dashboards import DEFAULTS, FOLDER, dashboards, metrics, panels, queries

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "charts" / "pulsecache" / "files" / "rules.yaml"
ALL = sorted(dashboards().items())


def documented() -> set[str]:
    """The metrics of docs/architecture.md."""
    text = (ROOT / "docs" / "architecture.md").read_text().partition("\n## Metrics\n")[2].partition("\n## ")[0]
    return set(re.findall(r"`(pulsecache_\w+)", text))


def promtool(*arguments: str, cwd: Path | None = None) -> str:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is missing: install the package prometheus")
    done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=30, check=False, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(("name", "dashboard"), ALL)
def test_dashboard_has_a_fixed_identity(name: str, dashboard: dict[str, Any]) -> None:
    assert dashboard["uid"] == f"pulsecache-{name.removesuffix('.json')}"
    assert dashboard["title"].startswith("Pulsecache ")
    assert "id" not in dashboard, "an id belongs to one Grafana"
    assert dashboard["tags"] == ["pulsecache"]


def test_dashboards_do_not_overwrite_each_other() -> None:
    assert len({dashboard["uid"] for _, dashboard in ALL}) == len({d["title"] for _, d in ALL}) == len(ALL) >= 2


@pytest.mark.parametrize(("name", "dashboard"), ALL)
def test_every_panel_asks_the_chosen_data_source(name: str, dashboard: dict[str, Any]) -> None:
    chosen = {"type": "prometheus", "uid": "$datasource"}
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    assert list(variables) == ["datasource", "namespace", "policy"]
    assert variables["datasource"]["type"] == "datasource"
    for panel in panels(dashboard):
        if panel["type"] != "row":
            assert panel["datasource"] == chosen, panel["title"]
            assert panel["targets"], panel["title"]
            assert all(target["datasource"] == chosen for target in panel["targets"]), panel["title"]
            assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"]), panel["title"]


@pytest.mark.parametrize(("name", "dashboard"), ALL)
def test_panels_have_names_and_do_not_lie_upon_each_other(name: str, dashboard: dict[str, Any]) -> None:
    shown = list(panels(dashboard))
    assert len({panel["id"] for panel in shown}) == len({panel["title"] for panel in shown}) == len(shown)
    boxes = [panel["gridPos"] for panel in shown]
    assert all(box["x"] + box["w"] <= 24 for box in boxes)
    for one, other in itertools.combinations(boxes, 2):
        apart_x = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        apart_y = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert apart_x or apart_y, (one, other)


def test_only_documented_metrics_are_used() -> None:
    known = documented()
    assert "pulsecache_requests_total" in known
    for query in queries():
        assert metrics(query.expression), query
        assert metrics(query.expression) <= known, query


def test_every_documented_metric_is_on_a_dashboard() -> None:
    assert documented() == {name for query in queries() for name in metrics(query.expression)}


def test_prometheus_can_parse_every_expression(tmp_path: Path) -> None:
    rules = [{"record": f"r{i}", "expr": query.expression} for i, query in enumerate(queries())]
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboards", "rules": rules}]}))
    assert f"{len(rules)} rules found" in promtool("check", "rules", str(file))


def test_variables_of_expressions_are_the_dashboards_own_or_grafanas() -> None:
    used = {name for path in FOLDER.glob("*.json") for name in re.findall(r"\$(\w+)", path.read_text())}
    assert used <= {"datasource", "__all", *DEFAULTS}


# --- alerts ----------------------------------------------------------------------------------------------------


def test_alerts_use_documented_metrics_and_tell_what_to_do() -> None:
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        for rule in group["rules"]:
            assert set() < metrics(rule["expr"]) <= documented(), rule["alert"]
            assert rule["labels"]["severity"] in ("warning", "critical")
            assert all(rule["annotations"][name] for name in ("summary", "description"))
            assert rule["for"]


def test_prometheus_takes_the_alerts() -> None:
    promtool("check", "rules", str(RULES))


def test_alerts_fire_when_they_should_and_only_then(tmp_path: Path) -> None:
    shutil.copy(RULES, tmp_path / "rules.yaml")
    shutil.copy(Path(__file__).parent / "alerts.test.yaml", tmp_path / "alerts.test.yaml")
    promtool("test", "rules", "alerts.test.yaml", cwd=tmp_path)


def test_every_alert_has_a_test() -> None:
    alerts = {r["alert"] for group in yaml.safe_load(RULES.read_text())["groups"] for r in group["rules"]}
    tested = yaml.safe_load((Path(__file__).parent / "alerts.test.yaml").read_text())
    fired = {
        check["alertname"] for test in tested["tests"] for check in test["alert_rule_test"] if check.get("exp_alerts")
    }
    assert fired == alerts
