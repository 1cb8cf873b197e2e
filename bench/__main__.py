"""`python -m bench [NAME...]`: run rows, print the table, store the figures.

The exit code is 0 when every row ran, whatever it found, and 1 when one broke.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback

from . import rows
from .table import Figure, line, row, store


def main(arguments: list[str]) -> int:
    """Run the rows named (all without names); the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.splitlines()[0])
    parser.add_argument("name", nargs="*", help="rows to run: a name, or what names start with; none: all")
    parser.add_argument("--list", action="store_true", help="list the rows")
    options = parser.parse_args(arguments)
    wanted = [name for name in row.rows if not options.name or name.startswith(tuple(options.name))]
    if options.list or not wanted:
        for name, run in row.rows.items():
            print(f"{name:12} {(run.__doc__ or '').splitlines()[0]}")
        return 0 if options.list else 1
    if os.geteuid() != 0:
        print("the benchmarks make network namespaces: run them as root")
        return 1
    broken = 0
    for name in wanted:
        run = row.rows[name]
        print(f"\n{name}: {(run.__doc__ or '').splitlines()[0]}", flush=True)
        figures: list[Figure] = []
        try:
            for figure in run():
                figures.append(figure)
                print("  " + line(figure), flush=True)
        except Exception:
            traceback.print_exc()
            broken += 1
        if figures:
            store(name, figures)
    return 1 if broken else 0


if __name__ == "__main__":
    assert rows
    sys.exit(main(sys.argv[1:]))
