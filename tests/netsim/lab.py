"""The simulated internet as a test or a script sees it: start it, run things in it, ask it what happened."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from . import namespace
from .scenario import Scenario, available, load
from .truth import Truth, truth_of

Source = str | Path | Mapping[str, Any]

#: The control socket of the simulator a process was started in, for `Lab.attach`.
CONTROL = "NETSIM_CONTROL"


class LabError(Exception):
    """The simulator did not start, or refused a call."""


class Lab:
    """A running simulator. Use `start` or `attach`; it is a context manager that stops it."""

    def __init__(
        self, scenarios: Sequence[Scenario], control: str, process: subprocess.Popen[str] | None, private: bool
    ) -> None:
        self._scenarios = {scenario.name: scenario for scenario in scenarios}
        self.control = control
        self._process = process
        self._private = private
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(control)
        self._socket.settimeout(30)
        self._lock = threading.Lock()
        self._reader = self._socket.makefile("rb")

    # --- life ------------------------------------------------------------------------------------------------

    @classmethod
    def start(cls, scenarios: Sequence[Source] | None = None, *, private: bool = False) -> Self:
        """Start a simulator with these scenarios (files, names or documents; None: all that come with it).

        It runs in the calling process's network namespace, which must be one made by `namespace.isolate`; with
        `private` in one of its own, which only `popen`, `run` and `inside` reach (root needed). One per namespace.
        Raises `NamespaceUnavailable`, `LabError`, `ScenarioError`.
        """
        if not private and os.environ.get(namespace.ISOLATED) != namespace.current():
            raise LabError("this process is not in a network namespace of its own: call netsim.namespace.isolate()")
        sources = list(available() if scenarios is None else scenarios)
        loaded = [load(source) for source in sources]
        # The simulator removes its socket itself, so nothing is left behind when this process is killed.
        control = f"{tempfile.gettempdir()}/netsim-{secrets.token_hex(8)}.sock"
        documents = [str(source) if not isinstance(source, Mapping) else dict(source) for source in sources]
        process = subprocess.Popen(
            [sys.executable, "-m", "netsim", "serve", control, *(["--private"] if private else [])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
            start_new_session=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(json.dumps(documents) + "\n")
        process.stdin.flush()
        if process.stdout.readline() != "ready\n":
            process.kill()
            said = process.stderr.read().strip()
            process.communicate()
            last = said.splitlines()[-1] if said else "it said nothing"
            kind = namespace.NamespaceUnavailable if "NamespaceUnavailable" in last else LabError
            raise kind(f"the simulator did not start: {last}")
        return cls(loaded, control, process, private)

    @classmethod
    def attach(cls, control: str | None = None) -> Self:
        """Talk to a simulator somebody else runs: by default that of `python -m netsim run`.

        Scenarios' truths are known for those that come with the simulator.
        """
        return cls([load(name) for name in available()], control or os.environ[CONTROL], None, False)

    def stop(self) -> None:
        """End the simulator and with it the device and all routes through it."""
        self._reader.close()
        self._socket.close()
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            for stream in (self._process.stdout, self._process.stderr):
                if stream is not None:
                    stream.close()
            self._process = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    # --- running things in it --------------------------------------------------------------------------------

    @property
    def pid(self) -> int:
        """The simulator's process id."""
        assert self._process is not None
        return self._process.pid

    def popen(self, command: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """`subprocess.Popen` within the simulated internet."""
        environment = {**(options.pop("env", None) or os.environ), CONTROL: self.control}
        if self._private:
            pid = self.pid
            options["preexec_fn"] = lambda: namespace.enter(pid)
        return subprocess.Popen(command, env=environment, **options)

    def run(
        self, command: Sequence[str], *, timeout: float = 60.0, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run a command within the simulated internet; its output is captured as text."""
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
        given = options.pop("input", None)
        if given is not None:
            options["stdin"] = subprocess.PIPE
        with self.popen(command, **options) as process:
            try:
                out, err = process.communicate(given, timeout)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                raise
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Put the calling thread (and what it starts or opens meanwhile) within the simulated internet."""
        if not self._private:
            yield
            return
        with namespace.inside(self.pid):
            yield

    # --- asking and changing ---------------------------------------------------------------------------------

    def call(self, do: str, **arguments: Any) -> Any:
        """One control call; see `netsim.simulator.Control`. Raises `LabError`."""
        with self._lock:
            self._socket.sendall(json.dumps({"do": do, **arguments}).encode() + b"\n")
            answer = json.loads(self._reader.readline())
        if "error" in answer:
            raise LabError(answer["error"])
        return answer["ok"]

    def counters(self, target: str | None = None) -> dict[str, Any]:
        """What arrived: {"targets": {name: {family: {protocol: {ttl: cell}}}}, "stray": {address: n}, ...}."""
        counted: dict[str, Any] = self.call("counters", target=target)
        return counted

    def dealt(self, target: str, family: str, protocol: str) -> dict[int, dict[str, int]]:
        """The cells of one target, family and protocol by TTL, for `judge`."""
        cells = self.counters(target)["targets"][target].get(family, {}).get(protocol, {})
        return {int(ttl): cell for ttl, cell in cells.items()}

    def reset(self, target: str | None = None) -> None:
        """Count from zero and start loss patterns, rate limits and phases anew."""
        self.call("reset", target=target)

    def pause(self, target: str | None = None) -> None:
        """Stop answering, for one target or all."""
        self.call("pause", target=target)

    def resume(self, target: str | None = None) -> None:
        """Answer again."""
        self.call("pause", target=target, paused=False)

    def change(self, target: str, **fields: Any) -> None:
        """Change a target's fields while it runs, as in a scenario document: `lab.change("plain", path=[1, 2])`."""
        self.call("change", target=target, fields=fields)

    def load(self, document: Mapping[str, Any]) -> Scenario:
        """Add a scenario, or replace the one of that name."""
        scenario = load(document)
        self.call("load", document=dict(document))
        self._scenarios[scenario.name] = scenario
        return scenario

    def unload(self, name: str) -> None:
        """Take a scenario away."""
        self.call("unload", name=name)
        self._scenarios.pop(name, None)

    # --- truth -----------------------------------------------------------------------------------------------

    @property
    def scenarios(self) -> tuple[Scenario, ...]:
        """The loaded scenarios."""
        return tuple(self._scenarios.values())

    def targets(self) -> list[str]:
        """The names of all targets."""
        return [target.name for scenario in self._scenarios.values() for target in scenario.targets]

    def address(self, target: str, family: str) -> str:
        """A target's address."""
        scenario, spec = self._find(target)
        return scenario.address(family, spec.at, spec)

    def truth(self, target: str, family: str, protocol: str, *, mixed: bool | None = None) -> Truth:
        """What a trace to this target must say; see `netsim.truth`. Raises KeyError where the scenario is silent.

        `mixed` says whether probes of one flow may part; None: as the protocol and the scenario make it.
        """
        scenario, spec = self._find(target)
        return truth_of(scenario, spec, family, protocol, mixed)

    def _find(self, target: str) -> tuple[Scenario, Any]:
        for scenario in self._scenarios.values():
            for spec in scenario.targets:
                if spec.name == target:
                    return scenario, spec
        raise KeyError(target)
