"""The real daemon as a child process, and what can be seen of it from outside."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from attrs import frozen

from daemon_process import launched

START_S = 30


@frozen
class Daemon:
    """A running `tracerouted serve`."""

    process: subprocess.Popen[bytes]
    port: int
    #: its working directory and its TMPDIR
    folder: Path

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def rss(self) -> int:
        """Bytes of memory it has."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.findall(r"VmRSS:\s+([0-9]+) kB", status)[0]) * 1024

    @property
    def descriptors(self) -> int:
        """How many files it has open."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    @property
    def deleted(self) -> list[str]:
        """The open files that have no name any more, as temporary files have none."""
        names = [os.readlink(file) for file in Path(f"/proc/{self.process.pid}/fd").iterdir()]
        return [name for name in names if name.endswith("(deleted)")]

    def settle(self) -> None:
        """Wait until it opens and closes nothing more."""
        counts = [0]
        while len(counts) < 6 or len({*counts[-5:]}) > 1:
            time.sleep(0.02)
            counts.append(self.descriptors)

    @property
    def cpu_s(self) -> float:
        """Seconds of processor time it has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def log(self) -> list[dict[str, Any]]:
        """What it has logged."""
        return [json.loads(line) for line in (self.folder / "log").read_text().splitlines()]

    @property
    def warnings(self) -> list[dict[str, Any]]:
        """What of it an operator has to look at."""
        return [line for line in self.log if line["level"] not in ("debug", "info") or "failure" in line]

    def connect(self, receive_buffer: int | None = None) -> socket.socket:
        """A new connection; `receive_buffer` bytes are kept by the kernel of what is not read."""
        client = socket.socket()
        if receive_buffer is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        client.settimeout(30)
        client.connect(("127.0.0.1", self.port))
        return client

    def ask(self, data: bytes) -> bytes:
        """All that comes back on a connection of its own."""
        with self.connect() as client:
            client.sendall(data)
            return b"".join(iter(lambda: client.recv(65_536), b""))

    def ready(self) -> bool:
        """Whether it can trace, over both families."""
        with suppress(OSError), urllib.request.urlopen(f"{self.address}/readyz", timeout=5) as answer:
            return all(family["ready"] for family in json.load(answer)["families"].values())
        return False


@contextmanager
def serving(folder: Path, **options: Any) -> Iterator[Daemon]:
    """The daemon, ready, with the options and settings of `launched`. Everything it writes is in `folder`."""
    (folder / "tmp").mkdir()
    temporary = {"TMPDIR": str(folder / "tmp")}
    with (
        (folder / "log").open("wb") as log,
        launched(log, environment=temporary, folder=folder, **options) as (process, port),
    ):
        daemon = Daemon(process, port, folder)
        due = time.monotonic() + START_S
        while not daemon.ready():
            assert process.poll() is None, daemon.log
            assert time.monotonic() < due, daemon.log
            time.sleep(0.05)
        daemon.settle()
        yield daemon
        assert process.poll() is None, daemon.log
