"""The wheel: complete, and able to serve a trace from where it is installed."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

PROJECT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel built from this checkout, without asking a package index."""
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, PROJECT)
    (built,) = folder.glob("tracerouted-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of a fresh virtual environment with the wheel; dependencies come from this one's."""
    folder = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    pip("--python", python, "install", "--no-deps", "--no-index", wheel)
    (packages,) = folder.glob("lib/python*/site-packages")
    # A folder named in a .pth file is searched last, and its own .pth files (the checkout's) are not read.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin"


def pip(*arguments: str | Path) -> None:
    done = subprocess.run([sys.executable, "-m", "pip", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def serving(program: Path, **variables: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A service on a free port of loopback, and that port; killed afterwards if it still runs."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    clean = {name: text for name, text in os.environ.items() if not name.startswith("TRACEROUTED_")}
    process = subprocess.Popen(
        [program, "serve", "--listen", f"127.0.0.1:{port}", "--allow-targets", "127.0.0.0/8"],
        env=clean | variables,
        stderr=subprocess.PIPE,
        text=True,
        cwd="/",
    )
    try:
        yield process, port
    finally:
        process.kill()
        process.communicate()


def ask(port: int, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        content = None if body is None else json.dumps(body)
        connection.request(method, path, content, {"Content-Type": "application/json", **headers})
        response = connection.getresponse()
        return response.status, json.loads(response.read() or "null")
    finally:
        connection.close()


def until_ready(process: subprocess.Popen[str], port: int) -> None:
    """Ask until the service can trace; how long that takes is bounded by the test's own time limit."""
    while process.poll() is None:
        try:
            if ask(port, "GET", "/readyz")[0] == 200:
                return
        except ConnectionRefusedError:
            pass
        time.sleep(0.05)
    pytest.fail(process.communicate()[1])


def test_everything_is_in_the_wheel(wheel: Path) -> None:
    """Each file of the package is in it, data files included, and nothing else is."""
    source = PROJECT / "service"
    expected = {
        str(path.relative_to(source))
        for path in (source / "tracerouted").rglob("*")
        if path.is_file() and path.suffix != ".pyc" and "__pycache__" not in path.parts
    }

    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}

    assert names == expected


def test_version(installed: Path) -> None:
    """The installed program and the module run are the same."""
    program = subprocess.run([installed / "tracerouted", "--version"], capture_output=True, text=True, cwd="/")
    module = subprocess.run(
        [installed / "python", "-m", "tracerouted", "--version"], capture_output=True, text=True, cwd="/"
    )

    assert program.stdout.startswith("tracerouted ")
    assert program.stdout == module.stdout
    assert program.returncode == module.returncode == 0


@pytest.mark.skipif(shutil.which("mtr-packet") is None, reason="mtr-packet is not installed")
class TestServing:
    """The installed program with the real mtr-packet, over loopback."""

    def test_a_trace(self, installed: Path) -> None:
        """POST with Prefer: wait answers 201 with the finished trace of loopback, by the code of the wheel."""
        where = "import tracerouted.cli; print(tracerouted.cli.__file__)"
        found = subprocess.run([installed / "python", "-c", where], capture_output=True, text=True, cwd="/").stdout
        assert found.startswith(str(installed.parent))

        with serving(installed / "tracerouted") as (process, port):
            until_ready(process, port)
            status, trace = ask(port, "POST", "/traces", {"target": "127.0.0.1"}, Prefer="wait=10")

        assert status == 201
        assert (trace["status"], trace["stop_reason"], trace["reached"]) == ("completed", "reached", True)
        assert [hop["responders"][0]["address"] for hop in trace["hops"]] == ["127.0.0.1"]

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_signal_ends_it_in_order(self, installed: Path, number: signal.Signals) -> None:
        """After a signal: exit status 0, every log line an object, none of them a failure, no child left."""
        with serving(installed / "tracerouted") as (process, port):
            until_ready(process, port)
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            process.send_signal(number)
            log = [json.loads(line) for line in process.communicate(timeout=60)[1].splitlines()]

        assert process.returncode == 0
        assert f"stopping after {number.name}" in [line["message"] for line in log]
        assert not [line for line in log if "failure" in line or line["level"] == "error"]
        assert children
        assert not [child for child in children if Path(f"/proc/{child}").exists()]

    def test_a_running_trace_is_ended_by_a_drain(self, installed: Path) -> None:
        """A client waiting for a trace that would take a minute gets its answer while the service stops."""
        patient = {"target": "127.0.0.2", "probes": 100, "interval_ms": 10_000}
        with serving(installed / "tracerouted", TRACEROUTED_SHUTDOWN_S="1") as (process, port):
            until_ready(process, port)
            _, trace = ask(port, "POST", "/traces", patient)
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            connection.request("GET", trace["links"]["self"], headers={"Prefer": "wait=60"})
            ask(port, "GET", "/healthz")  # answered in the turn that has read the request above, or a later one
            process.terminate()
            ended = json.loads(connection.getresponse().read())
            connection.close()
            process.communicate(timeout=60)

        assert process.returncode == 0
        assert (ended["status"], ended["stop_reason"]) == ("cancelled", "cancelled")

    def test_its_health_check(self, installed: Path) -> None:
        """`tracerouted healthcheck` passes while the service runs and fails afterwards."""
        program = installed / "tracerouted"
        with serving(program) as (process, port):
            until_ready(process, port)
            words = [program, "healthcheck", "--listen", f"127.0.0.1:{port}"]
            alive = subprocess.run(words, capture_output=True, text=True)
            process.terminate()
            process.wait(60)
            gone = subprocess.run(words, capture_output=True, text=True)

        assert (alive.returncode, alive.stdout) == (0, f"http://127.0.0.1:{port}/healthz: 200\n")
        assert gone.returncode == 1
