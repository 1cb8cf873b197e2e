"""Other tracers on their own command lines: run over many targets, timed, and their routes read.

Wall time is that of the process, from start to exit. Each is asked for one probe per hop, without names.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .grounds import Ground
from .routes import Route
from .subjects import WITHIN_S, Subject, SubjectFailed

PEERS = Path(__file__).parent / ".peers"
TWISTED_MTR = "twisted-mtr==3.2.0"

Run = Callable[[Ground, Sequence[str]], dict[str, Any]]


def scamper(ground: Ground, targets: Sequence[str]) -> dict[str, Any]:
    """scamper at its highest rate, one attempt per hop, waiting a second for each (its least)."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        listed, out = Path(folder, "targets"), Path(folder, "out")
        listed.write_text("".join(f"{target}\n" for target in targets))
        trace = "trace -P icmp-paris -q 1 -w 1"
        command = ["scamper", "-p", "10000", "-O", "json", "-o", str(out), "-c", trace, "-f", str(listed)]
        wall = _timed(ground, command)
        documents = [json.loads(text) for text in out.read_text().splitlines()]
    return {"wall_s": wall, "routes": {d["dst"]: _by_ttl(d) for d in documents if d["type"] == "trace"}}


def _by_ttl(document: dict[str, Any]) -> Route:
    at = {hop["probe_ttl"]: hop["addr"] for hop in document.get("hops", ())}
    return tuple(at.get(ttl) for ttl in range(1, max(at, default=0) + 1))


def traceroute(ground: Ground, targets: Sequence[str]) -> dict[str, Any]:
    """traceroute(8) with ICMP, 16 probes at once, one process per target, 100 at a time."""
    return _each(ground, targets, "traceroute -I -N 16 -n -q 1", _classic)


def _classic(text: str) -> Route:
    found = []
    for hop in text.splitlines()[1:]:
        word = hop.split()[1]
        found.append(None if word == "*" else word)
    return tuple(found)


def mtr(ground: Ground, targets: Sequence[str], at_once: int = 100) -> dict[str, Any]:
    """mtr(8) with one cycle, one process per target, 100 at a time; it waits more than it works."""
    return _each(ground, targets, "mtr --json -c 1 -n", _hubs, at_once)


def _hubs(text: str) -> Route:
    hubs = json.loads(text)["report"]["hubs"]
    return tuple(None if hub["host"] == "???" else hub["host"] for hub in hubs)


def _each(
    ground: Ground, targets: Sequence[str], tool: str, read: Callable[[str], Route], at_once: int = 100
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        script = f'exec {tool} "$0" > "{folder}/$0" 2>/dev/null'
        wall = _timed(ground, ["xargs", "-P", str(at_once), "-n", "1", "sh", "-c", script], "\n".join(targets))
        routes = {}
        for target in targets:
            text = Path(folder, target).read_text()
            routes[target] = read(text) if text else ()
    return {"wall_s": wall, "routes": routes}


def _timed(ground: Ground, command: Sequence[str], text: str = "") -> float:
    """Seconds it took. Raises `SubjectFailed` where it hung, or could not run at all."""
    began = time.perf_counter()
    with ground.popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            process.communicate(text, timeout=WITHIN_S)
        except BaseException as problem:
            os.killpg(process.pid, signal.SIGKILL)
            if isinstance(problem, subprocess.TimeoutExpired):
                raise SubjectFailed(f"{command[0]} hung") from problem
            raise
    wall = time.perf_counter() - began
    # xargs(1) says 123 where one of its commands failed: that target has no route then, which counts.
    if process.returncode not in (0, 123):
        raise SubjectFailed(f"{command[0]} ended with {process.returncode}")
    return wall


def available() -> dict[str, Run]:
    """The command line peers that are installed."""
    return {run.__name__: run for run in (scamper, traceroute, mtr) if shutil.which(run.__name__)}


def twisted_mtr(ground: Ground, targets: Sequence[str], cap_s: float, patched: bool = False) -> dict[str, Any]:
    """The twisted-mtr package, for `cap_s` seconds at most; with its reading of lines put right if `patched`."""
    with Subject(ground, "twisted_mtr", patched=patched) as theirs:
        return theirs(targets=list(targets), cap_s=cap_s)


def twisted_mtr_path() -> Path | None:
    """Where twisted-mtr is installed, by itself; None where it is not."""
    folder = PEERS / "twisted-mtr"
    return folder if (folder / "twisted_mtr").is_dir() else None


def install_twisted_mtr() -> None:
    """Install twisted-mtr if it is not there; says what failed."""
    if twisted_mtr_path() is None:
        folder = str(PEERS / "twisted-mtr")
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder, TWISTED_MTR]
        done = subprocess.run(pip, check=False, capture_output=True, text=True)
        if done.returncode:
            print(f"{TWISTED_MTR} is left out; it could not be installed:\n{done.stderr.strip()}", flush=True)
