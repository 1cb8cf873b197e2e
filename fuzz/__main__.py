"""`python -m fuzz [TARGET...] [--seconds S]`: look for inputs that break a promise, guided by coverage.

Each target gets S seconds in a process of its own, starting from its kept corpus. What it found is then reduced to
the fewest inputs that reach as much and replaces the corpus; an input that breaks something is put into `crashes/`
and the exit code is 1. `tests/test_fuzz.py` runs the corpus without any of this. Wants the `fuzz` extra (atheris).
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from . import CORPUS, CRASHES, HERE, TARGETS

#: An input that takes longer is a finding.
_MOST_S = 10
#: Of the reduced corpus the smallest inputs are kept.
_MOST_KEPT = 60


def main(arguments: list[str]) -> int:
    """Fuzz the targets named (all without names); the exit code."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("target", nargs="*", help=f"any of {', '.join(TARGETS)}; none: all")
    parser.add_argument("--seconds", type=int, default=600, help="how long each is fuzzed")
    options = parser.parse_args(arguments)
    if unknown := set(options.target) - set(TARGETS):
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    results = [fuzz(name, options.seconds) for name in options.target or TARGETS]
    return 0 if all(results) else 1


def fuzz(name: str, seconds: int) -> bool:
    """Fuzz one target and renew its corpus; whether nothing broke."""
    print(f"\n{name}: {seconds} s", flush=True)
    CRASHES.mkdir(exist_ok=True)
    kept = CORPUS / name
    kept.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        grown, reduced = Path(folder, "grown"), Path(folder, "reduced")
        grown.mkdir()
        reduced.mkdir()
        whole = libfuzzer(name, f"-max_total_time={seconds}", "-print_final_stats=1", grown, kept)
        if whole and libfuzzer(name, "-set_cover_merge=1", reduced, kept, grown):
            shutil.rmtree(kept)
            kept.mkdir()
            for path in sorted(reduced.iterdir(), key=lambda path: path.stat().st_size)[:_MOST_KEPT]:
                shutil.copy(path, kept)
            print(f"{name}: nothing broke; {len(list(kept.iterdir()))} inputs kept", flush=True)
            return True
    print(f"{name}: see {CRASHES}", flush=True)
    return False


def libfuzzer(name: str, *options: str | Path) -> bool:
    """Run libFuzzer on a target; whether it ended well."""
    limits = (f"-max_len={TARGETS[name].most_bytes}", f"-timeout={_MOST_S}", f"-artifact_prefix={CRASHES}/{name}-")
    command = [sys.executable, "-m", "fuzz.instrumented", name]
    return subprocess.run([*command, *limits, *map(str, options)], cwd=HERE.parent, check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
