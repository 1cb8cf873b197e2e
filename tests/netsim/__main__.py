"""The simulated internet from a shell: `python -m netsim run SCENARIO... -- COMMAND...`.

`run` makes a fresh network namespace with the simulated internet up and runs the command in it; the exit code is the
command's. `list` shows the scenarios that come with it, `measure` how fast and exact it is. `serve` is the simulator
itself, started by `Lab.start`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys

from . import namespace
from .lab import Lab, LabError
from .measure import measure
from .scenario import ScenarioError, available, load
from .simulator import serve


def main(arguments: list[str]) -> int:
    """Run one subcommand; the exit code."""
    command: list[str] = []
    if "--" in arguments:
        at = arguments.index("--")
        arguments, command = arguments[:at], arguments[at + 1 :]
    parser = argparse.ArgumentParser(prog="python -m netsim", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="do", required=True)
    run = commands.add_parser("run", help="run a command in a simulated internet: run SCENARIO... -- COMMAND...")
    run.add_argument("scenario", nargs="*", help="TOML files or bundled names; none: all bundled ones")
    commands.add_parser("list", help="list the bundled scenarios and their targets")
    commands.add_parser("measure", help="tell how fast and how exact the simulator is here")
    server = commands.add_parser("serve", help="be the simulator in the present namespace")
    server.add_argument("control", help="the control socket to listen on")
    server.add_argument("--private", action="store_true", help="in a namespace of its own")
    options = parser.parse_args(arguments)
    try:
        if options.do == "serve":
            if options.private:
                os.environ.pop(namespace.ISOLATED, None)
                namespace.isolate()
            documents = json.loads(sys.stdin.readline())
            serve([load(document) for document in documents], options.control)
            return 0
        if options.do == "list":
            return _list()
        if options.do == "measure":
            namespace.isolate()
            measure(lambda line: sys.stdout.write(line + "\n"))
            return 0
        if not command:
            parser.error("no command: put it after --")
        namespace.isolate()
        with Lab.start(options.scenario or None) as lab:
            return lab.popen(command).wait()
    except (namespace.NamespaceUnavailable, LabError, ScenarioError) as problem:
        sys.stderr.write(f"{type(problem).__name__}: {problem}\n")
        return 1


def _list() -> int:
    for name in available():
        scenario = load(name)
        sys.stdout.write(f"{name}: {scenario.summary}\n")
        for target in scenario.targets:
            addresses = " ".join(scenario.address(family, target.at, target) for family in scenario.networks)
            sys.stdout.write(f"  {target.name:24} {addresses}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
