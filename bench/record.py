"""A run as one JSON document, which the table, the plots and docs/performance.md are all made from.

    {
      "schema": 1,
      "at": "2026-01-31T12:00:00Z",       when it began, UTC
      "seconds": 900.1,                   how long it took
      "tiny": false,                      whether the sizes were cut down; then the figures mean nothing
      "revision": {"commit": "...", "changed": false},   of the checkout; `changed`: with uncommitted changes
      "machine": {
        "processor": "...", "cores": 2, "memory_mib": 7900, "kernel": "Linux 6.1.0", "python": "3.11.2",
        "packages": {"twisted": "26.4.0", ...},          Python packages
        "programs": {"scamper": "20211212", "mtr": null, ...}    null: not installed
      },
      "rows": [
        {
          "name": "many", "summary": "...", "seconds": 63.2,
          "load": [0.1, 1.9],             load average of one minute before and after the row
          "error": null,                  the traceback's last line where the row broke; figures are those before it
          "figures": [
            {
              "name": "library", "unit": "s",
              "ours": {"samples": [0.5, 0.6], "right": [500, 500], "of": 500},   one of each per round;
                                          `right`: true answers, of `of`; empty where nothing was to be judged
              "peers": {"scamper": {...as ours...}},
              "against": "scamper",       the ratio is ours to this peer; "" for no ratio
              "target": {"most": 1.0, "least": null},    of the ratio where `against`, else of the value; or null
              "note": "...",
              "curve": "", "at": null,    a point of a growth curve: its name and place
              "judged": {"value": 0.55, "peers": {"scamper": 0.7}, "ratio": 0.79, "verdict": "met"}
                                          what `table.Figure` makes of the rest: medians (null: no right round)
            }
          ]
        }
      ]
    }

A change that takes something away or gives it another meaning raises `SCHEMA`.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from attrs import evolve, field, frozen

from .peers import TWISTED_MTR, twisted_mtr_path
from .table import Figure

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
LATEST = RESULTS / "latest.json"
SCHEMA = 1
PACKAGES = ("attrs", "klein", "msgspec", "twisted", "werkzeug")
#: Programs, and how each is asked for its version: an option, or what it is to read.
PROGRAMS = {
    "mtr-packet": "1 check-support feature version\n",
    "scamper": "-v",
    "traceroute": "--version",
    "mtr": "--version",
}


@frozen
class RowRecord:
    """What one row gave."""

    name: str
    summary: str
    seconds: float
    load: tuple[float, float]
    error: str | None
    figures: tuple[Figure, ...]


@frozen(kw_only=True)
class Record:
    """What one run gave; see the module for the fields."""

    at: str = field(factory=lambda: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
    seconds: float = 0.0
    tiny: bool = False
    revision: dict[str, Any] = field(factory=lambda: revision())
    machine: dict[str, Any] = field(factory=lambda: machine())
    rows: tuple[RowRecord, ...] = ()

    def with_rows(self, rows: tuple[RowRecord, ...], seconds: float) -> Record:
        """This run, done."""
        return evolve(self, rows=rows, seconds=seconds)

    def row(self, name: str) -> dict[str, Figure]:
        """A row's figures by name; {} where it did not run."""
        return {figure.name: figure for row in self.rows if row.name == name for figure in row.figures}

    def curve(self, name: str) -> list[Figure]:
        """The points of a growth curve, in order."""
        points = [figure for row in self.rows for figure in row.figures if figure.curve == name]
        return sorted(points, key=lambda point: point.at or 0.0)

    def store(self, path: Path) -> None:
        """Write it, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [{**_fields(row), "figures": [figure.document() for figure in row.figures]} for row in self.rows]
        text = json.dumps({"schema": SCHEMA, **_fields(self), "rows": rows}, indent=1)
        partial = path.with_suffix(".partial")
        partial.write_text(text + "\n")
        partial.replace(path)

    @classmethod
    def load(cls, path: Path) -> Record:
        """What `store` wrote. Raises ValueError for another schema."""
        document = json.loads(path.read_text())
        if document.pop("schema", None) != SCHEMA:
            raise ValueError(f"{path} is not a run of schema {SCHEMA}")
        rows = []
        for row in document.pop("rows"):
            figures = tuple(Figure.load(figure) for figure in row.pop("figures"))
            rows.append(RowRecord(**{**row, "load": tuple(row["load"])}, figures=figures))
        return cls(**document, rows=tuple(rows))


def _fields(record: Any) -> dict[str, Any]:
    return {attribute.name: getattr(record, attribute.name) for attribute in record.__attrs_attrs__}


def revision() -> dict[str, Any]:
    def git(*words: str) -> str:
        try:
            command = ["git", "-c", "safe.directory=*", *words]
            return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
        except FileNotFoundError:
            return ""

    commit = git("rev-parse", "--short=12", "HEAD")
    return {"commit": commit or None, "changed": bool(git("status", "--porcelain"))}


def machine() -> dict[str, Any]:
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "processor": found[1] if found else platform.machine(),
        "cores": os.cpu_count(),
        "memory_mib": pages >> 20,
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in PACKAGES},
        "programs": {name: _version(name, asked) for name, asked in PROGRAMS.items()} | _twisted_mtr(),
    }


def _version(name: str, asked: str) -> str | None:
    program = shutil.which(name)
    if program is None:
        return None
    command, text = ([program, asked], "") if asked.startswith("-") else ([program], asked)
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    found = re.search(r"\d+\.?\d[\w.]*", done.stdout + done.stderr)
    return found[0] if found else "unknown"


def _twisted_mtr() -> dict[str, str | None]:
    name, _, version = TWISTED_MTR.partition("==")
    return {name: version if twisted_mtr_path() else None}
