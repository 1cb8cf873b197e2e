"""docs/performance.md from a run: `python -m bench.report FILE.json`.

The run is kept as docs/performance/run.json, its plots are drawn beside it, and every block of the document between
`<!-- bench: NAME -->` and `<!-- end -->` is written anew. So whoever reads the document reads that file.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from . import rows as _  # noqa: F401  # so that all are registered
from .plots import pictures
from .record import Record
from .table import Figure, Runs, peer_texts, ratio_text, shown
from .table import row as registered

DOCS = Path(__file__).parents[1] / "docs"
DOCUMENT = DOCS / "performance.md"
FOLDER = DOCS / "performance"
RUN = FOLDER / "run.json"
BLOCK = re.compile(r"(<!-- bench: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def _table(head: Sequence[str], rows: Iterator[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _taken(runs: Runs, unit: str) -> str:
    """The median, and the least and most of the rounds."""
    least, most = shown(min(runs.samples)), shown(max(runs.samples))
    spread = f" ({least} to {most})" if least != most else ""
    return f"{shown(runs.value)} {unit}{spread}"


def run(record: Record) -> str:
    """When, what and where."""
    machine, revision = record.machine, record.revision
    programs = ", ".join(f"{name} {version or 'missing'}" for name, version in machine["programs"].items())
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    changed = " with uncommitted changes" if revision["changed"] else ""
    load = record.rows[0].load[0]
    busy = (
        "; **others used the machine meanwhile: times and rates are worse than they should be**" if load > 1 else ""
    )
    return (
        f"- {record.at}, {record.seconds / 60:.0f} minutes, revision {revision['commit']}{changed}\n"
        f"- {machine['processor']}, {machine['cores']} cores, {machine['memory_mib']:,} MiB; {machine['kernel']}\n"
        f"- Python {machine['python']}; {packages}\n"
        f"- {programs}\n"
        f"- load average of a minute before the first row {load:.1f}{busy}\n"
    )


def targets(record: Record) -> str:
    """Every figure that is held to something."""

    def rows() -> Iterator[Sequence[str]]:
        for row in record.rows:
            for figure in row.figures:
                if figure.target is not None:
                    yield (
                        f"`{row.name}`",
                        figure.name,
                        _taken(figure.ours, figure.unit),
                        "<br>".join(peer_texts(figure)),
                        ratio_text(figure),
                        str(figure.target).replace("<", "&lt;").replace(">", "&gt;"),
                        figure.verdict,
                    )
            if row.error:
                yield f"`{row.name}`", "broke", row.error.replace("|", "/"), "", "", "", "BROKEN"

    return _table(("row", "what", "ours", "peers", "ratio", "target", ""), rows())


def others(record: Record) -> str:
    """Every figure that is held to nothing, but for points of curves."""

    def rows() -> Iterator[Sequence[str]]:
        for row in record.rows:
            for figure in row.figures:
                if figure.target is None and not figure.curve:
                    peers = "<br>".join(peer_texts(figure))
                    yield f"`{row.name}`", figure.name, _taken(figure.ours, figure.unit), peers

    return _table(("row", "what", "ours", "peers"), rows())


#: What one probe, event and request cost: words, row, the figure's name.
COSTS = (
    ("a probe: engine, scheduler and trace machine alone, `probes` 3", "code", "our code per probe, probes 3"),
    ("a probe: with driving mtr-packet, `probes` 1", "capacity", "our processor time per probe, probes 1"),
    ("a probe: with driving mtr-packet, `probes` 3", "capacity", "our processor time per probe, probes 3"),
    ("a probe: mtr-packet's own", "capacity", "mtr-packet's processor time per probe"),
    ("an 11-hop trace over HTTP, `probes` 1", "http-traces", "our processor time per trace, with HTTP"),
    ("a GET of a finished trace", "http-requests", "our processor time per GET"),
    ("a POST", "http-requests", "our processor time per POST"),
)


def costs(record: Record) -> str:
    """Processor time per probe, event and request."""

    def rows() -> Iterator[Sequence[str]]:
        for words, row, name in COSTS:
            found = record.row(row).get(name)
            if found is not None:
                yield words, _taken(found.ours, found.unit)
        for point in record.curve("streams"):
            yield f"an event for each of {point.at:,.0f} followers", _taken(point.ours, point.unit)

    return _table(("what", "processor time"), rows())


def growth(record: Record) -> str:
    """The growth curves."""

    def rows() -> Iterator[Sequence[str]]:
        for name, counted in (("running", "traces running"), ("probes", "probes per hop"), ("streams", "followers")):
            for point in record.curve(name):
                yield f"{point.at:,.0f} {counted}", _taken(point.ours, point.unit), ratio_text(point), point.verdict

    return _table(("at", "processor time of one trace, probe or event", "ratio", ""), rows())


def planning(record: Record) -> str:
    """What one instance carries, by silent share."""

    def at(curve: str, share: float | None) -> str:
        points: list[Figure] = [point for point in record.curve(f"planned {curve}") if point.at == share]
        return shown(points[0].ours.value) if points else ""

    def rows() -> Iterator[Sequence[str]]:
        for point in record.curve("planned traces"):
            columns = ("traces", "daemon", "mtr-packet", "memory")
            half = f"{point.ours.value / 2 * 5:,.0f}"
            yield f"{point.at:.0f}%", *(at(curve, point.at) for curve in columns), half, point.verdict

    half_load = "targets every 5 minutes at half load"
    head = ("silent hops", "traces per minute", "cores, daemon", "cores, mtr-packet", "MiB at most", half_load, "")
    return _table(head, rows())


BLOCKS: dict[str, Callable[[Record], str]] = {
    block.__name__: block for block in (run, targets, others, costs, growth, planning)
}


def rendered(text: str, record: Record) -> str:
    """The document with its blocks from this run. Raises KeyError for a block nobody makes."""
    return BLOCK.sub(lambda found: f"{found[1]}{BLOCKS[found[2]](record)}{found[3]}", text)


def main(arguments: list[str]) -> int:
    """Put a run into the documents."""
    if len(arguments) != 1:
        print("python -m bench.report FILE.json")
        return 2
    record = Record.load(Path(arguments[0]))
    missing = set(registered.rows) - {row.name for row in record.rows if not row.error}
    if record.tiny or missing:
        print(f"not a whole run: {'its sizes are cut down' if record.tiny else ', '.join(sorted(missing))}")
        return 1
    record.store(RUN)
    for name, picture in pictures(record).items():
        (FOLDER / name).write_text(picture)
    DOCUMENT.write_text(rendered(DOCUMENT.read_text(), record))
    print(f"{DOCUMENT} and {FOLDER}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
