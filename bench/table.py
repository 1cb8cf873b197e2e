"""What a row measured: figures, their targets, and how they are shown and stored."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from attrs import asdict, field, frozen

RESULTS = Path(__file__).parent / "results"


@frozen
class Target:
    """What a figure is held to: `most` or `least` is the bound, in the figure's unit."""

    most: float | None = None
    least: float | None = None

    def met(self, value: float) -> bool:
        """Whether a value keeps to it."""
        return (self.most is None or value <= self.most) and (self.least is None or value >= self.least)

    def __str__(self) -> str:
        return f"<= {shown(self.most)}" if self.most is not None else f">= {shown(self.least or 0.0)}"


@frozen
class Figure:
    """One line of the table: a measured value (the median of `samples`), against what, held to what.

    `ratio` is to the subject named in `against`; `note` says what else matters, such as how many routes were exact.
    """

    row: str
    name: str
    unit: str
    value: float
    samples: tuple[float, ...] = ()
    ratio: float | None = None
    against: str = ""
    target: Target | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without a target. A target of a ratio is on the ratio."""
        if self.target is None:
            return None
        return self.target.met(self.value if self.ratio is None else self.ratio)


def median(samples: list[float]) -> float:
    """The median, of at least one sample."""
    return statistics.median(samples)


def quantile(samples: list[float], share: float) -> float:
    """The smallest sample that at least `share` of all samples do not exceed."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def shown(value: float) -> str:
    """A number with three significant digits, without exponents."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value else "0"


def in_turn(subjects: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[Any]]:
    """Run all subjects once, then all again, `rounds` times; what each returned, in order."""
    results: dict[str, list[Any]] = {name: [] for name in subjects}
    for _ in range(rounds):
        for name, run in subjects.items():
            results[name].append(run())
    return results


Row = Callable[[], Iterator[Figure]]


@frozen
class Registry:
    """The rows by name, in the order they were registered."""

    rows: dict[str, Row] = field(factory=dict)

    def __call__(self, name: str) -> Callable[[Row], Row]:
        """Register a row: `@row("name")` over a generator of figures."""

        def register(run: Row) -> Row:
            assert name not in self.rows
            self.rows[name] = run
            return run

        return register


row = Registry()


def line(figure: Figure) -> str:
    """A figure as a line of the table."""
    spread = ""
    if len(figure.samples) > 1:
        spread = f"[{shown(min(figure.samples))} .. {shown(max(figure.samples))}]"
    ratio = "" if figure.ratio is None else f"{figure.ratio:.2f} x {figure.against}"
    target = "" if figure.target is None else str(figure.target)
    verdict = {None: "", True: "met", False: "NOT MET"}[figure.met]
    value = f"{shown(figure.value)} {figure.unit}"
    return f"{figure.name:44} {value:>16} {spread:22} {ratio:24} {target:>10} {verdict:8} {figure.note}".rstrip()


def store(name: str, figures: list[Figure]) -> Path:
    """Write a row's figures to `results/`, with where and when they were taken."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    document = {
        "row": name,
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "processors": os.cpu_count(),
        "load": os.getloadavg(),
        "figures": [{**asdict(figure), "met": figure.met} for figure in figures],
    }
    path.write_text(json.dumps(document, indent=1) + "\n")
    return path
