"""Programs that are measured, or that measure from the outside, each in a process of its own.

Each reads one job per line of standard input (JSON) and answers each with one line of JSON on standard output, the
first line being `{"ready": true}`. `Subject` is the handle of such a process.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from ..grounds import ROOT, Ground


class SubjectFailed(Exception):
    """A subject ended, or answered with an error."""


class Subject:
    """A running subject: `with Subject(ground, "library", probes_per_second=10) as ours: ours(do="trace", ...)`."""

    def __init__(self, ground: Ground, name: str, **settings: Any) -> None:
        self._name = name
        self.process: subprocess.Popen[str] = ground.popen(
            [sys.executable, "-m", f"{__name__}.{name}", json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        self.facts = self._answer()

    def __call__(self, **job: Any) -> dict[str, Any]:
        """Do a job; what it answers."""
        self.ask(**job)
        return self.answer()

    def ask(self, **job: Any) -> None:
        """Begin a job; `answer` waits for it."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """The answer to the oldest job not yet answered."""
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        text = self.process.stdout.readline()
        answer: dict[str, Any] = json.loads(text) if text else {"error": f"it ended with {self.process.wait()}"}
        if "error" in answer:
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


def rss(pid: int) -> int:
    """Resident bytes of a process (proc(5), VmRSS)."""
    for text in Path(f"/proc/{pid}/status").read_text().splitlines():
        if text.startswith("VmRSS:"):
            return int(text.split()[1]) * 1024
    return 0


def children(pid: int) -> list[int]:
    """The child processes of a process."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def cpu_s(pid: int) -> float:
    """Processor seconds a process has used, user and system (proc(5), stat)."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / 100


def raw_drops(pid: int) -> int:
    """Packets the kernel dropped because a raw socket in this process's network namespace was full (proc(5))."""
    return sum(int(text.split()[-1]) for text in Path(f"/proc/{pid}/net/raw").read_text().splitlines()[1:])


def arguments() -> Mapping[str, Any]:
    """The settings a subject was started with."""
    settings: Mapping[str, Any] = json.loads(sys.argv[1])
    return settings
