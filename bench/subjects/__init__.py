"""Programs that are measured, or that measure from the outside, each in a process of its own.

Each reads one job per line of standard input (JSON) and answers each with one line of JSON on standard output, the
first line being `{"ready": true}`. `Subject` is the handle of such a process.

With the variable `BENCH_PROFILE` our own processes (`PROFILED`, and the daemon) run under cProfile and leave their
profiles in the folder it names.
"""

from __future__ import annotations

import ctypes
import json
import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from ..grounds import ROOT, Ground

PROFILE = "BENCH_PROFILE"
PROFILED = ("library", "instant")
WITHIN_S = 300.0


class SubjectFailed(Exception):
    """A subject ended, hung, or answered with an error or nonsense: the run is broken."""


def ours(name: str, module: str, *arguments: str) -> list[str]:
    """The command that runs a module of ours, under cProfile where that is wanted."""
    folder = os.environ.get(PROFILE)
    profiler = ["-m", "cProfile", "-o", f"{folder}/{name}-{secrets.token_hex(4)}.prof"] if folder else []
    return [sys.executable, *profiler, "-m", module, *arguments]


class Subject:
    """A running subject: `with Subject(ground, "library", probes_per_second=10) as ours: ours(do="trace", ...)`.

    A job that takes longer than `WITHIN_S` is over: the subject is killed. Raises `SubjectFailed`.
    """

    def __init__(self, ground: Ground, name: str, **settings: Any) -> None:
        self._name = name
        module, text = f"{__name__}.{name}", json.dumps(settings)
        command = ours(name, module, text) if name in PROFILED else [sys.executable, "-m", module, text]
        self.process: subprocess.Popen[str] = ground.popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        self.facts = self._answer()

    def __call__(self, **job: Any) -> dict[str, Any]:
        """Do a job; what it answers."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        patience = threading.Timer(WITHIN_S, self.process.kill)
        patience.start()
        try:
            text = self.process.stdout.readline()
        finally:
            patience.cancel()
        answer: dict[str, Any] = json.loads(text) if text else {"error": f"it ended with {self.process.wait()}"}
        if "error" in answer:
            self.stop()
            raise SubjectFailed(f"{self._name}: {answer['error']}")
        return answer

    def stop(self) -> None:
        """End it."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()


def rss(pid: int, field: str = "VmRSS") -> int:
    """Resident bytes of a process (proc(5)); with "VmHWM" the most there ever were."""
    for text in Path(f"/proc/{pid}/status").read_text().splitlines():
        if text.startswith(f"{field}:"):
            return int(text.split()[1]) * 1024
    return 0


def children(pid: int) -> list[int]:
    """The child processes of a process."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def cpu_s(pid: int) -> float:
    """Processor seconds a process has used, with all its threads (clock_getcpuclockid(3))."""
    clock = ctypes.c_int()
    number = ctypes.CDLL(None).clock_getcpuclockid(pid, ctypes.byref(clock))
    if number:
        raise OSError(number, os.strerror(number))
    return time.clock_gettime(clock.value)


def raw_drops(pid: int) -> int:
    """Packets the kernel dropped because a raw socket in this process's network namespace was full (proc(5))."""
    return sum(int(text.split()[-1]) for text in Path(f"/proc/{pid}/net/raw").read_text().splitlines()[1:])


def arguments() -> Mapping[str, Any]:
    """The settings a subject was started with."""
    settings: Mapping[str, Any] = json.loads(sys.argv[1])
    return settings
