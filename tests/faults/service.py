"""The real daemon as a process of its own, as somebody sees it who may look at its children and its log."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from daemon_process import launched
from tracerouted.http.read import read_trace
from tracerouted.model import Trace

START_S = 20.0


class Answer(NamedTuple):
    """An HTTP answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Service:
    """A running daemon; see `serve`."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.process = process
        self.port = port
        self._log = log

    # --- HTTP --------------------------------------------------------------------------------------------------

    def ask(self, method: str, path: str, body: Any = None, *, timeout: float = 30, **headers: str) -> Answer:
        """One request on a connection of its own. `body` is sent as JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            data = None if body is None else json.dumps(body).encode()
            connection.request(method, path, data, fields | ({"Content-Type": "application/json"} if data else {}))
            answer = connection.getresponse()
            return Answer(answer.status, dict(answer.getheaders()), answer.read())
        finally:
            connection.close()

    def trace(self, wait_s: int = 30, **fields: Any) -> Trace | Answer:
        """A trace, waited for at most so long; the answer, if it is refused."""
        request = {"resolve_names": False, **fields}
        answer = self.ask("POST", "/traces", request, timeout=wait_s + 30, Prefer=f"wait={wait_s}")
        return read_trace(answer.body) if answer.status in (201, 202) else answer

    def ready(self) -> dict[str, bool]:
        """Per family, whether it can be traced."""
        families = json.loads(self.ask("GET", "/readyz").body)["families"]
        return {family: each["ready"] for family, each in families.items()}

    # --- the process -------------------------------------------------------------------------------------------

    def children(self) -> list[int]:
        """The process ids of its mtr-packets, those that are dead and not yet reaped left out."""
        found = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(pid) for pid in found if _lives(pid)]

    def signal(self, number: signal.Signals) -> int:
        """Send a signal to all its mtr-packets; to how many."""
        pids = self.children()
        for pid in pids:
            os.kill(pid, number)
        return len(pids)

    def log(self) -> list[dict[str, Any]]:
        """What it has logged so far."""
        lines = self._log.read_text(errors="replace").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]


def _lives(pid: str) -> bool:
    """Whether this is an mtr-packet that lives (proc(5), /proc/pid/stat)."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().split()
    except OSError:
        return False
    return words[1] == "(mtr-packet)" and words[2] != "Z"


def until(condition: Callable[[], Any], within: float, step: float = 0.02) -> float | None:
    """Wait for a condition: how many seconds it took, None if it did not come in time."""
    begun = time.monotonic()
    while not condition():
        if time.monotonic() - begun > within:
            return None
        time.sleep(step)
    return time.monotonic() - begun


@contextmanager
def serve(
    command: Sequence[str] = (), *, environment: Mapping[str, str] | None = None, **settings: str
) -> Iterator[Service]:
    """`tracerouted serve`, run by `command` if given; it need not become ready. It is gone at the end."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "log")
        with (
            path.open("wb") as log,
            launched(log, command=command, environment=environment, **settings) as (process, port),
        ):
            yield Service(process, port, path)


def await_ready(service: Service, within: float = START_S) -> float:
    """Wait until every family can be traced: how long it took. Fails with the log if it does not come."""

    def ready() -> bool:
        try:
            return all(service.ready().values())
        except OSError:
            return False

    took = until(ready, within)
    assert took is not None, f"not ready within {within:g} s: {service.log()[-5:]}"
    return took
