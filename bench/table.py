"""What rows measure: figures, what they are held to, and how a terminal shows them.

A `Figure` is one line: what our subject gave (`Runs`), what its peers gave in the same run, and the bound. Truth
comes before speed: a peer's rounds with a wrong answer don't count, a peer without a right round is no peer, and ours
is never "met" with a wrong answer in any round.
"""

from __future__ import annotations

import statistics
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from attrs import asdict, field, frozen


@frozen
class Target:
    """What a figure is held to: `most` or `least`, of the ratio where there is one, else of the value."""

    most: float | None = None
    least: float | None = None

    def met(self, value: float) -> bool:
        """Whether a value keeps to it."""
        return (self.most is None or value <= self.most) and (self.least is None or value >= self.least)

    def __str__(self) -> str:
        return f"<= {shown(self.most)}" if self.most is not None else f">= {shown(self.least or 0.0)}"


@frozen
class Runs:
    """What one subject gave, round by round, and how many of its `of` answers in each round were `right`.

    Without `right` there was nothing to judge: the answers were checked on the way, or are no answers.
    """

    samples: tuple[float, ...] = field(converter=tuple)
    right: tuple[int, ...] = field(default=(), converter=tuple)
    of: int = 0

    @property
    def true(self) -> bool:
        """Whether every answer of every round was right."""
        return all(count == self.of for count in self.right)

    @property
    def value(self) -> float:
        """The median of all rounds."""
        return statistics.median(self.samples)

    @property
    def counted(self) -> float | None:
        """The median of the rounds whose answers were all right; None without one."""
        right = self.right or (self.of,) * len(self.samples)
        good = [sample for sample, count in zip(self.samples, right, strict=True) if count == self.of]
        return statistics.median(good) if good else None


@frozen
class Figure:
    """One line of the table. The ratio is ours to the peer named in `against`.

    `curve` and `at` make it a point of a growth curve. `note` says what else matters.
    """

    name: str
    unit: str
    ours: Runs
    peers: Mapping[str, Runs] = field(factory=dict)
    against: str = ""
    target: Target | None = None
    note: str = ""
    curve: str = ""
    at: float | None = None

    @property
    def ratio(self) -> float | None:
        """Ours to the peer's right rounds; None without such a peer."""
        base = self.peers[self.against].counted if self.against in self.peers else None
        return self.ours.value / base if base else None

    @property
    def verdict(self) -> str:
        """`met`, `NOT MET`, `WRONG` (ours told an untruth), `no peer` (nothing to compare with); "" if unheld."""
        if not self.ours.true:
            return "WRONG"
        if self.target is None:
            return ""
        value = self.ratio if self.against else self.ours.value
        if value is None:
            return "no peer"
        return "met" if self.target.met(value) else "NOT MET"

    def document(self) -> dict[str, Any]:
        """As JSON: the fields, and under `judged` what follows from them."""
        judged = {
            "value": self.ours.value,
            "peers": {name: runs.counted for name, runs in self.peers.items()},
            "ratio": self.ratio,
            "verdict": self.verdict,
        }
        return {**asdict(self), "judged": judged}

    @classmethod
    def load(cls, document: Mapping[str, Any]) -> Figure:
        """What `document` gave."""
        values = {name: value for name, value in document.items() if name != "judged"}
        values["ours"] = Runs(**values["ours"])
        values["peers"] = {name: Runs(**runs) for name, runs in values["peers"].items()}
        values["target"] = Target(**values["target"]) if values["target"] else None
        return cls(**values)


def quantile(samples: Sequence[float], share: float) -> float:
    """The smallest sample that at least `share` of all samples do not exceed."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def shown(value: float) -> str:
    """A number with three significant digits, without exponents."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value else "0"


# --- rows ------------------------------------------------------------------------------------------------------


@frozen
class Plan:
    """How much is run. `tiny` is for seeing that a row runs to its end; its figures mean nothing."""

    tiny: bool = False
    most_rounds: int = 99

    def rounds(self, usual: int) -> int:
        """How many rounds, where `usual` are usual."""
        return 1 if self.tiny else min(usual, self.most_rounds)

    def size(self, usual: Any, tiny: Any) -> Any:
        """How many or how much of something."""
        return tiny if self.tiny else usual


def in_turn(subjects: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[Any]]:
    """Run all subjects once, then all again, `rounds` times; what each returned, in order."""
    results: dict[str, list[Any]] = {name: [] for name in subjects}
    for _ in range(rounds):
        for name, run in subjects.items():
            results[name].append(run())
    return results


Row = Callable[[Plan], Iterator[Figure]]


@frozen
class Registry:
    """The rows by name, in the order they were registered."""

    rows: dict[str, Row] = field(factory=dict)

    def __call__(self, name: str) -> Callable[[Row], Row]:
        """Register a row: `@row("name")` over a generator of figures; its docstring's first line describes it."""

        def register(run: Row) -> Row:
            assert name not in self.rows
            self.rows[name] = run
            return run

        return register


row = Registry()


def summary(run: Row) -> str:
    """The first line of a row's docstring."""
    return (run.__doc__ or "").splitlines()[0]


# --- the table on a terminal -----------------------------------------------------------------------------------

WIDTH = 118
_WIDTHS = (36, 8, 8, 27, 15, 9, 7)
HEAD = ("what", "ours", "unit", "peers", "ratio", "target", "")


def peer_texts(figure: Figure) -> list[str]:
    """Each peer with its value, or with how many of its answers were right at most."""
    texts = []
    for name, runs in figure.peers.items():
        value = runs.counted
        texts.append(f"{name} {shown(value)}" if value is not None else f"{name} {max(runs.right)}/{runs.of} right")
    return texts


def ratio_text(figure: Figure) -> str:
    """The ratio and what it is to."""
    return "" if figure.ratio is None else f"{shown(figure.ratio)} x {figure.against}"


def lines(figure: Figure) -> Iterator[str]:
    """A figure as lines of at most `WIDTH` characters: cells that are too long go on below."""
    target = "" if figure.target is None else str(figure.target)
    cells = (
        _wrapped(figure.name, _WIDTHS[0]),
        [shown(figure.ours.value)],
        [figure.unit],
        [part for text in peer_texts(figure) for part in _wrapped(text, _WIDTHS[3])],
        _wrapped(ratio_text(figure), _WIDTHS[4]),
        [target],
        [figure.verdict],
    )
    for place in range(max(map(len, cells))):
        yield _line(tuple(cell[place] if place < len(cell) else "" for cell in cells))
    if figure.note:
        yield from (f"      {part}" for part in _wrapped(figure.note, WIDTH - 6))


def _line(cells: Sequence[str]) -> str:
    what, ours, *others = (
        cell.rjust(width) if place == 1 else cell.ljust(width)
        for place, (cell, width) in enumerate(zip(cells, _WIDTHS, strict=True))
    )
    return "  " + " ".join((what, ours, *others)).rstrip()


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width) or [""]


def heading() -> str:
    """The head of the table."""
    return f"{_line(HEAD)}\n{'-' * WIDTH}"
