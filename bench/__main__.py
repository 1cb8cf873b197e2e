"""`python -m bench [NAME...]`: run rows, print the table, store the figures.

The exit code is 0 when every row ran, whatever it found, and 1 when one broke.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable
from pathlib import Path

from . import profile, rows
from .peers import install_twisted_mtr
from .record import LATEST, RESULTS, Record, RowRecord
from .subjects import PROFILE
from .table import Figure, Plan, heading, lines, row, summary


def run_row(name: str, plan: Plan) -> RowRecord:
    """Run one row to its end, or to where it breaks."""
    run = row.rows[name]
    figures: list[Figure] = []
    error = None
    load, began = os.getloadavg()[0], time.monotonic()
    try:
        figures.extend(run(plan))
    except Exception as problem:
        traceback.print_exc()
        error = f"{type(problem).__name__}: {problem}"
    seconds = time.monotonic() - began
    return RowRecord(name, summary(run), seconds, (load, os.getloadavg()[0]), error, tuple(figures))


def table(record: Record) -> Iterable[str]:
    """The run as the lines of a table."""
    yield heading()
    for done in record.rows:
        yield f"{done.name}: {done.summary}"
        for figure in done.figures:
            yield from lines(figure)
        if done.error:
            yield f"  BROKEN: {done.error}"


def main(arguments: list[str]) -> int:
    """Run the rows named (all without names); the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure, against peers, in one run.")
    parser.add_argument("name", nargs="*", help="rows to run: names, or what names start with; none: all")
    parser.add_argument("--list", action="store_true", help="list the rows")
    parser.add_argument("--rounds", type=int, default=Plan().most_rounds, metavar="N", help="N rounds each at most")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where the figures go; without: to bench/results")
    parser.add_argument("--tiny", action="store_true", help="see that rows run; the figures mean nothing")
    parser.add_argument("--profile", action="store_true", help="show where our processes' time goes, one round each")
    options = parser.parse_args(arguments)
    begun = tuple(name for name in options.name if name not in row.rows)
    wanted = [name for name in row.rows if not options.name or name in options.name or name.startswith(begun)]
    if options.list or not wanted or options.rounds < 1:
        for name, run in row.rows.items():
            print(f"{name:15} {summary(run)}")
        return 0 if options.list else 2
    if os.geteuid() != 0:
        print("the benchmarks make network namespaces: run them as root")
        return 2
    if options.profile:
        return _profile(wanted, Plan(options.tiny, 1))
    if not options.tiny:
        install_twisted_mtr()
    record, broken = _measure(wanted, Plan(options.tiny, options.rounds))
    for path in [options.out] if options.out else [RESULTS / f"{record.at.replace(':', '')}.json", LATEST]:
        record.store(path)
        print(path)
    print("\n" + "\n".join(table(record)))
    return 1 if broken else 0


def _measure(wanted: list[str], plan: Plan) -> tuple[Record, bool]:
    machine = Record(tiny=plan.tiny)
    for name, version in machine.machine["programs"].items():
        if version is None:
            print(f"{name} is not installed: it is left out")
    began = time.monotonic()
    done = []
    for name in wanted:
        print(f"{name}: {summary(row.rows[name])} ...", end=" ", flush=True)
        done.append(run_row(name, plan))
        print(f"{done[-1].seconds:.0f} s{', BROKEN' if done[-1].error else ''}", flush=True)
    seconds = round(time.monotonic() - began, 1)
    return machine.with_rows(tuple(done), seconds), any(record.error for record in done)


def _profile(wanted: list[str], plan: Plan) -> int:
    broken = False
    for name in wanted:
        with tempfile.TemporaryDirectory(prefix="bench-profile-") as folder:
            os.environ[PROFILE] = folder
            try:
                broken |= run_row(name, plan).error is not None
            finally:
                del os.environ[PROFILE]
            text = profile.summary(Path(folder))
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"profile-{name}.txt"
        path.write_text(text)
        print(f"{text}\n{path}")
    return 1 if broken else 0


if __name__ == "__main__":
    assert rows
    sys.exit(main(sys.argv[1:]))
