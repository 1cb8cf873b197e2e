"""Pictures of a run, drawn as plain SVG from its JSON: `python -m bench.plots FILE.json FOLDER`.

`bars.svg` has the times of one trace and of five hundred beside those of the peers, `growth.svg` how cost grows. They
have no background, and middle tones that stand out from a light page (4:1) as from a dark one.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

from attrs import frozen

from .record import Record
from .table import Figure, Runs, shown

WIDTH = 760
OURS, THEIRS = "#2f7fc1", "#8b929c"
STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#727a84}.title{font-weight:600}"
    ".line{stroke:#8b929c;stroke-opacity:.45}.spread{stroke:#727a84;stroke-width:1.5}"
)


@frozen
class Scale:
    """A logarithmic axis over whole decades, from `low` to `high` on the picture."""

    least: int
    most: int
    low: float
    high: float

    @classmethod
    def over(cls, values: Iterable[float], low: float, high: float) -> Scale:
        """The axis that holds these values."""
        kept = [math.log10(value) for value in values if value > 0]
        least = math.floor(min(kept))
        return cls(least, max(math.ceil(max(kept)), least + 1), low, high)

    def __call__(self, value: float) -> float:
        place = math.log10(max(value, 10.0**self.least))
        return self.low + (place - self.least) / (self.most - self.least) * (self.high - self.low)

    def ticks(self) -> Iterator[tuple[float, str]]:
        """Where the decades are, and what they are called."""
        for power in range(self.least, self.most + 1):
            yield self(10.0**power), shown(10.0**power)


def _text(x: float, y: float, words: str, anchor: str = "start", kind: str = "") -> str:
    named = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{named}>{escape(words)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, kind: str = "line") -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def _picture(height: float, words: str, parts: Iterable[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}"'
        f' height="{height:.0f}" role="img"><title>{escape(words)}</title><style>{STYLE}</style>'
    )
    return "\n".join((head, *parts, "</svg>\n"))


# --- bars ------------------------------------------------------------------------------------------------------


@frozen
class Bar:
    """One subject: its name, what it gave, and whether it is ours."""

    name: str
    runs: Runs
    own: bool


def _bars_of(record: Record) -> Iterator[tuple[str, str, list[Bar]]]:
    """The groups of bars: title, unit, bars."""
    for row, words in (("many", "ten routers that answer"), ("many-silent", "ten routers, two of them silent")):
        figures = [figure for figure in record.row(row).values() if figure.unit == "s"]
        if figures:
            library, served, *_ = figures
            yield (
                f"{library.name.partition(',')[0]}: {words}",
                "s",
                [
                    Bar("tracerouted, library", library.ours, True),
                    Bar("tracerouted, HTTP", served.ours, True),
                    *_theirs(library),
                ],
            )
    for figure in record.row("one").values():
        if figure.peers:
            yield f"one trace: {figure.name}", "ms", [Bar("tracerouted", figure.ours, True), *_theirs(figure)]


def _theirs(figure: Figure) -> list[Bar]:
    return [Bar(name, runs, False) for name, runs in figure.peers.items()]


def bars(record: Record) -> str:
    """Times of ours and of the peers. A hollow bar is a peer none of whose rounds was right."""
    left, right, step = 190.0, WIDTH - 175.0, 24.0
    parts: list[str] = []
    y = 0.0
    for title, unit, group in _bars_of(record):
        parts.append(_text(0, y + 18, title, kind="title"))
        top, y = y + 28, y + 28 + step * len(group)
        scale = Scale.over((sample for bar in group for sample in bar.runs.samples), left, right)
        for place, bar in enumerate(group):
            parts += _bar(bar, scale, top + step * place, unit)
        for x, words in scale.ticks():
            parts += [_line(x, top, x, y + 4), _text(x, y + 18, words, "middle")]
        parts.append(_text(right + 34, y + 18, f"{unit}, logarithmic"))
        y += 36
    return _picture(y, "Times of tracerouted and of other tracers", parts)


def _bar(bar: Bar, scale: Scale, y: float, unit: str) -> Iterator[str]:
    runs, colour = bar.runs, OURS if bar.own else THEIRS
    right = runs.counted
    value = runs.value if right is None else right
    end, middle = scale(value), y + 10
    paint = f'fill="{colour}"' if right is not None else f'fill="none" stroke="{colour}" stroke-dasharray="3 2"'
    yield _text(scale.low - 8, y + 15, bar.name, "end")
    yield f'<rect x="{scale.low:.1f}" y="{y + 3:.1f}" width="{end - scale.low:.1f}" height="15" {paint}/>'
    least, most = scale(min(runs.samples)), scale(max(runs.samples))
    if len(runs.samples) > 1:
        yield _line(least, middle, most, middle, "spread")
        yield from (_line(x, middle - 3, x, middle + 3, "spread") for x in (least, most))
    words = f"{shown(value)} {unit}"
    if right is None:
        words += f", {max(runs.right)} of {runs.of} right" if runs.of > 1 else ", wrong"
    yield _text(max(end, most) + 7, y + 15, words)


# --- curves ----------------------------------------------------------------------------------------------------

CURVES = (
    ("running", "per 11-hop trace", "traces running at once"),
    ("probes", "per probe, with HTTP", "probes per hop"),
    ("streams", "per event", "followers of one trace"),
)


def growth(record: Record) -> str:
    """Processor time per trace, probe and event, against how many there are."""
    gap, height, top = 24.0, 190.0, 48.0
    each = (WIDTH - gap * (len(CURVES) - 1)) / len(CURVES)
    parts = []
    for place, (name, title, below) in enumerate(CURVES):
        points = record.curve(name)
        if points:
            left = place * (each + gap)
            parts += _curve(points, title, below, left + 44, left + each - 20, top, top + height)
    return _picture(top + height + 44, "Processor time, and how it grows", parts)


def _curve(
    points: Sequence[Figure], title: str, below: str, left: float, right: float, top: float, bottom: float
) -> Iterator[str]:
    ats = [point.at or 0.0 for point in points]
    across = Scale.over(ats, left, right)
    up = Scale.over((sample for point in points for sample in point.ours.samples), bottom, top)
    yield _text(left - 40, 16, title, kind="title")
    yield _text(left - 40, 34, f"{points[0].unit} of processor time")
    for x, words in across.ticks():
        yield _line(x, top, x, bottom)
        yield _text(x, bottom + 17, words, "middle")
    for y, words in up.ticks():
        yield _line(left, y, right, y)
        yield _text(left - 6, y + 4, words, "end")
    yield _text((left + right) / 2, bottom + 36, below, "middle")
    places = [(across(at), up(point.ours.value)) for at, point in zip(ats, points, strict=True)]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    yield f'<polyline points="{path}" fill="none" stroke="{OURS}" stroke-width="2"/>'
    for (x, y), point in zip(places, points, strict=True):
        yield _line(x, up(min(point.ours.samples)), x, up(max(point.ours.samples)), "spread")
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{OURS}"/>'


# --- files -----------------------------------------------------------------------------------------------------


def pictures(record: Record) -> dict[str, str]:
    """The pictures by file name."""
    return {"bars.svg": bars(record), "growth.svg": growth(record)}


def main(arguments: list[str]) -> int:
    """Draw a run into a folder."""
    if len(arguments) != 2:
        print("python -m bench.plots FILE.json FOLDER")
        return 2
    folder = Path(arguments[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, picture in pictures(Record.load(Path(arguments[0]))).items():
        (folder / name).write_text(picture)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
