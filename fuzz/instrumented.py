"""`python -m fuzz.instrumented TARGET [LIBFUZZER ARGUMENT...]`: the process that fuzzes."""

from __future__ import annotations

import importlib
import shlex
import sys

import atheris

from . import TARGETS

if __name__ == "__main__":
    name, *rest = sys.argv[1:]
    with atheris.instrument_imports(include=[f"fuzz.{name}", *TARGETS[name].instrumented]):
        run = importlib.import_module(f"fuzz.{name}").run
    # libFuzzer starts itself again by this name, through a shell, when it merges.
    program = shlex.join([sys.executable, "-m", "fuzz.instrumented", name])
    atheris.Setup([program, *rest], run)
    atheris.Fuzz()
