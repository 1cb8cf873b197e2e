"""SECURITY.md and docs/operating.md keep their word: they name what there is, and explain all that may be met."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from attrs import fields
from ruamel.yaml import YAML

from tracerouted.settings import Settings, variable

ROOT = Path(__file__).parents[1]
OPERATING = ROOT / "docs" / "operating.md"
PAGES = [ROOT / "SECURITY.md", OPERATING]
ALERTS = ROOT / "deploy" / "prometheus" / "alerts.yml"

SETTINGS = {variable(attribute) for attribute in fields(Settings)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_settings_are_settings(page: Path) -> None:
    """Every setting the page names, in full or without its prefix, is one; and the values it shows can be used."""
    text = page.read_text()
    named = {
        f"TRACEROUTED_{name}" for name in re.findall(r"(?:TRACEROUTED_|`(?!TRACEROUTED_))([A-Z]+(?:_[A-Z]+)+)", text)
    }

    assert named
    assert named <= SETTINGS
    for name, value in re.findall(r"(TRACEROUTED_[A-Z_]+)=([^\s`]+)", text):
        Settings.load({}, {name: value})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_files_are_there(page: Path) -> None:
    """Every file of the repository the page names exists."""
    named = re.findall(r"\b(?:deploy|docs)/[\w.-]+(?:/[\w.-]+)*\w", page.read_text())

    assert named
    assert [] == [name for name in named if not (ROOT / name).exists()]


def test_every_alert_is_explained() -> None:
    """The page says where to look for each alert there is, and for no other."""
    alerts = {rule["alert"] for group in YAML(typ="safe").load(ALERTS)["groups"] for rule in group["rules"]}

    assert alerts == set(re.findall(r"`(Tracerouted\w+)`", OPERATING.read_text()))


def warnings() -> set[str]:
    """The text of every log line that the service writes at level warn or error."""
    found = set()
    for path in (ROOT / "service").rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text())):
            if isinstance(call, ast.Call) and call.args and isinstance(call.args[0], ast.Constant):
                written = ast.unparse(call.func)
                if re.fullmatch(r"(?:.*\.)?_?log(?:\.(?:warn|error|critical))?", written):
                    found.add(call.args[0].value)
    return found


def test_every_warning_is_explained() -> None:
    """Each line at level warn or error that can be in the log is in the page's table as the source has it, or its
    beginning and …"""
    rows = re.findall(r"^\| (`.+?`) \|", OPERATING.read_text(), re.MULTILINE)
    explained = {message for row in rows for message in re.findall(r"`([^`]*{[^`]*)`", row)}
    known = warnings()

    def matches(message: str, line: str) -> bool:
        return line == message or (message.endswith("…") and line.startswith(message[:-1]))

    assert len(known) > 10
    assert [] == [line for line in known if not any(matches(message, line) for message in explained)]
    assert [] == [message for message in explained if not any(matches(message, line) for line in known)]
