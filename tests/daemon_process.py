"""The real daemon as a process of its own: `tracerouted serve`, with all its rooms and the real mtr-packet.

    with daemon(max_running="2") as service:
        answer = service.post({"target": "44.1.1.100"}, Prefer="wait=10")

It has a process group of its own, so that a test can send what a terminal sends.
"""

from __future__ import annotations

import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import IO, Any

from attrs import define, field

from fake_http import Answer, json_body

START_S = 20
STOP_S = 30
ANSWER_S = 60


def free_port() -> int:
    """A TCP port nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def until(condition: Callable[[], bool], what: str, seconds: float = 30) -> None:
    """Wait for a condition, and fail when it does not come."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.02)


@define(eq=False)
class Daemon:
    """A running daemon and a client's connection to it."""

    process: subprocess.Popen[bytes]
    port: int
    _log: Any
    _connection: HTTPConnection = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._connection = self.connect()

    @property
    def page(self) -> str:
        """The address of its page."""
        return f"http://127.0.0.1:{self.port}/"

    @property
    def children(self) -> list[int]:
        """The process ids of its children."""
        pid = self.process.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    @property
    def log(self) -> list[dict[str, Any]]:
        """The lines it has logged."""
        text = Path(self._log.name).read_text(errors="replace")
        return [json.loads(line) for line in text.splitlines() if line.startswith("{")]

    # --- asking ---

    def connect(self) -> HTTPConnection:
        """A connection of one's own; it begins with the first request."""
        return HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_S)

    def begin(self, document: Any, **headers: str) -> HTTPConnection:
        """Post a request on a connection of its own, whose answer is read later."""
        connection = self.connect()
        fields, body = json_body(document, headers)
        connection.request("POST", "/traces", body, fields)
        return connection

    def ask(self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes | None = None) -> Answer:
        """One request and its whole answer."""
        self._connection.request(method, path, body, headers or {})
        response = self._connection.getresponse()
        fields = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, fields, response.read())

    def get(self, path: str) -> Answer:
        """As every client does, ask again where the connection was closed while it was idle."""
        for _ in range(3):
            with suppress(ConnectionError):
                return self.ask("GET", path)
            self._connection.close()
        return self.ask("GET", path)

    def post(self, document: Any, **headers: str) -> Answer:
        return self.ask("POST", "/traces", *json_body(document, headers))

    def finished(self, ids: list[str]) -> list[dict[str, Any]]:
        """The traces of these ids, each waited for."""
        return [self.ask("GET", f"/traces/{trace_id}", {"Prefer": "wait=60"}).json for trace_id in ids]

    def close(self) -> None:
        """Give up its own connection."""
        self._connection.close()

    # --- life ---

    def await_ready(self) -> None:
        """Wait until it can trace over both families."""
        end = time.monotonic() + START_S
        while time.monotonic() < end and self.process.poll() is None:
            with suppress(OSError):
                if all(family["ready"] for family in self.get("/readyz").json["families"].values()):
                    return
            self._connection.close()
            time.sleep(0.05)
        raise AssertionError(f"the daemon did not become ready: {self.log[-10:]}")


@contextmanager
def launched(
    log: IO[bytes],
    *,
    command: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    descriptors: tuple[int, int] | None = None,
    **settings: str,
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """`tracerouted serve` with these settings (by field name) and no others, and the port it listens on. It need not
    become ready; it is gone at the end.

    It writes to `log`, is run by `command` if given, in `folder`, with so many descriptors (soft and hard limit).
    """
    port = free_port()
    clean = {name: text for name, text in os.environ.items() if not name.startswith("TRACEROUTED_")}
    given = {"listen": f"127.0.0.1:{port}", "shutdown_s": "1", **settings}
    variables = {f"TRACEROUTED_{name.upper()}": value for name, value in given.items()}
    process = subprocess.Popen(
        [*command, sys.executable, "-m", "tracerouted", "serve"],
        env=clean | variables | dict(environment or {}),
        cwd=folder,
        stdout=log,
        stderr=log,
        process_group=0,
        preexec_fn=None if descriptors is None else lambda: resource.setrlimit(resource.RLIMIT_NOFILE, descriptors),
    )
    try:
        yield process, port
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def daemon(**settings: str) -> Iterator[Daemon]:
    """A daemon with these settings (by field name) and no others, ready to trace."""
    with tempfile.NamedTemporaryFile() as log, launched(log, **settings) as (process, port):  # type: ignore[arg-type]
        service = Daemon(process, port, log)
        try:
            service.await_ready()
            yield service
        finally:
            service.close()
