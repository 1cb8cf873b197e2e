"""What is built on the metrics: promtool, the alert rules, the dashboard and the document ask for what there is."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse
from ruamel.yaml import YAML

from metrics_world import busy

PROJECT = Path(__file__).parent.parent
RULES = PROJECT / "deploy" / "prometheus" / "alerts.yml"
RULE_TESTS = PROJECT / "deploy" / "prometheus" / "alerts_test.yml"
SCRAPE = PROJECT / "deploy" / "prometheus" / "prometheus.yml"
DASHBOARD = PROJECT / "deploy" / "grafana" / "tracerouted.json"
DOCUMENT = PROJECT / "docs" / "metrics.md"

needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")


def assert_promtool(*arguments: str, stdin: str | None = None) -> None:
    ended = subprocess.run(["promtool", *arguments], input=stdin, capture_output=True, text=True, timeout=60)
    assert (0, "") == (ended.returncode, ended.stderr), ended.stdout


@needs_promtool
def test_promtool_on_a_scrape() -> None:
    """promtool has nothing to say of a scrape in which every metric has samples."""
    assert_promtool("check", "metrics", stdin=busy().text())


@needs_promtool
def test_promtool_on_the_rules() -> None:
    """The alert rules, the example configuration and the rules' own tests pass promtool."""
    assert_promtool("check", "rules", str(RULES))
    assert_promtool("check", "config", str(SCRAPE))
    ended = subprocess.run(["promtool", "test", "rules", str(RULE_TESTS)], capture_output=True, text=True, timeout=60)
    assert 0 == ended.returncode, ended.stdout + ended.stderr


def rules() -> list[dict[str, Any]]:
    return [rule for group in YAML(typ="safe").load(RULES.read_text())["groups"] for rule in group["rules"]]


def test_every_alert_is_tested() -> None:
    """Each alert has a test in which it fires and one in which it does not, and says what to do."""
    cases = [
        case for test in YAML(typ="safe").load(RULE_TESTS.read_text())["tests"] for case in test["alert_rule_test"]
    ]
    fires = {case["alertname"] for case in cases if case.get("exp_alerts")}
    rests = {case["alertname"] for case in cases if not case.get("exp_alerts")}
    alerts = {rule["alert"] for rule in rules()}
    assert alerts == fires == rests
    for rule in rules():
        assert {"summary", "description"} == set(rule["annotations"])
        assert rule["labels"]["severity"] in ("critical", "warning")


def expressions() -> dict[str, str]:
    """Every query of the dashboard's panels and variables, and of the rules."""
    found = {rule["alert"]: rule["expr"] for rule in rules()}
    dashboard = json.loads(DASHBOARD.read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            found[f"{panel['title']} {target['refId']}"] = target["expr"]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            found[variable["name"]] = variable["query"]["query"]
    return found


#: What Prometheus itself adds to every target.
ADDED_NAMES, ADDED_LABELS = {"up"}, {"job", "instance"}


def test_queries_ask_for_what_there_is() -> None:
    """Every metric, and every label of it, in a rule or on the dashboard is in the exposition."""
    there: dict[str, set[str]] = {}
    for family in parse(busy().text()):
        for sample in family.samples:
            there.setdefault(sample.name, set()).update(sample.labels)
    assert {"tracerouted_ready", "tracerouted_http_request_duration_seconds_bucket"} <= set(there)
    asked = expressions()
    assert len(asked) > 30
    for where, expression in asked.items():
        names = set(re.findall(r"\b(?:tracerouted|process)_\w+|\bup\b", expression)) - ADDED_NAMES
        assert names <= set(there), where
        for name, selector in re.findall(r"\b((?:tracerouted|process)_\w+)\{([^}]*)\}", expression):
            labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", selector))
            assert labels <= there[name] | ADDED_LABELS, where
        grouped = {word for by in re.findall(r"\bby\s*\(([^)]*)\)", expression) for word in re.findall(r"\w+", by)}
        assert grouped <= set().union(*(there[name] for name in names)) | ADDED_LABELS, where


@needs_promtool
def test_promtool_on_the_dashboard(tmp_path: Path) -> None:
    """Every query of the dashboard is PromQL."""
    filled = {
        name: re.sub(r"\$__rate_interval|\$__interval", "5m", expression).replace("$", "x")
        for name, expression in expressions().items()
        if not expression.startswith("label_values(")
    }
    recorded = [
        {"record": f"query:{number}", "expr": expression} for number, expression in enumerate(filled.values())
    ]
    path = tmp_path / "rules.json"  # JSON is YAML
    path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": recorded}]}))
    assert_promtool("check", "rules", str(path))


def test_the_dashboard_shows_everything() -> None:
    """Every metric of the service is on the dashboard; panels have titles, ids of their own and do not overlap."""
    dashboard = json.loads(DASHBOARD.read_text())
    shown = " ".join(target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ()))
    names = {family.name for family in parse(busy().text()) if family.name.startswith("tracerouted_")}
    assert [] == sorted(name for name in names if name.removesuffix("_total") not in shown)
    assert all(panel["title"] for panel in dashboard["panels"])
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells


def test_the_document_lists_everything() -> None:
    """docs/metrics.md names each metric of the service, with its labels, and no other."""
    there = {}
    for family in parse(busy().text()):
        if family.name.startswith("tracerouted_"):
            labels = {label for sample in family.samples for label in sample.labels} - {"le"}
            name = family.name + ("_total" if family.type == "counter" else "")
            there[name] = labels
    rows = re.findall(r"^\| `(tracerouted_\w+)` \| ([^|]*) \|", DOCUMENT.read_text(), flags=re.M)
    assert there == {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in rows}
