"""The command line: help, errors, health, and a process's life from start to drain."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from attrs import fields
from click.testing import CliRunner
from twisted.internet.selectreactor import SelectReactor

from tracerouted import cli
from tracerouted.settings import Address, Settings

BIN = Path(sys.executable).parent / "tracerouted"

# A service that takes SLOW seconds to stop, so that a drain can be watched.
STUB = """
import os, sys
from twisted.application import internet, service
from twisted.internet import protocol, task
from tracerouted import cli
from tracerouted.settings import Settings

class Slow(service.Service):
    def __init__(self, reactor):
        self.reactor = reactor
    def stopService(self):
        print("stopping", flush=True)
        return task.deferLater(self.reactor, float(os.environ["SLOW"]), print, "stopped", flush=True)

def make_service(settings, reactor):
    if "BROKEN" in os.environ:
        raise RuntimeError("a wire is loose")
    both = service.MultiService()
    Slow(reactor).setServiceParent(both)
    for host, port in settings.listen:
        internet.TCPServer(port, protocol.Factory(), interface=host, reactor=reactor).setServiceParent(both)
    reactor.callWhenRunning(print, "started", flush=True)
    return both

from tracerouted.logs import start_logging
cli.STOP_GRACE_S = 0.1
start_logging("info", sys.stderr)
sys.exit(cli.run(Settings.load({}, os.environ), make_service))
"""


def environment(**variables: str) -> dict[str, str]:
    clean = {name: text for name, text in os.environ.items() if not name.startswith("TRACEROUTED_")}
    return clean | variables


def invoke(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([BIN, *arguments], env=environment(**variables), capture_output=True, text=True, timeout=60)


@contextmanager
def stub(**variables: str) -> Iterator[subprocess.Popen[str]]:
    defaults = {"SLOW": "0", "TRACEROUTED_LISTEN": "127.0.0.1:0"}
    process = subprocess.Popen(
        [sys.executable, "-c", STUB],
        env=environment(**(defaults | variables)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def said(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == f"{word}\n"


def log_of(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in process.communicate(timeout=60)[1].splitlines()]


def test_help_shows_every_setting() -> None:
    """`serve --help` names each option with its variable and default."""
    words = " ".join(CliRunner().invoke(cli.commands, ["serve", "--help"], terminal_width=500).output.split())

    for attribute in fields(Settings):
        assert f"--{attribute.name.replace('_', '-')} {attribute.metadata['metavar']} " in words
        default = attribute.metadata["default"] or "none"
        assert f"[TRACEROUTED_{attribute.name.upper()}; default: {default}]" in words


def test_version() -> None:
    """`--version` is one line."""
    done = invoke("--version")

    assert (done.returncode, done.stdout) == (0, "tracerouted 0.1.0\n")


@pytest.mark.parametrize("arguments", [[], ["--max-running"]])
def test_a_command_is_needed(arguments: list[str]) -> None:
    """Without a command the exit status is 2 and the way on is shown."""
    done = invoke(*arguments)

    assert done.returncode == 2
    assert done.stdout == ""
    assert "tracerouted" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "variables", "line"),
    [
        (["--max-running", "x"], {}, "--max-running='x': write a whole number from 1 to 100000"),
        (
            [],
            {"TRACEROUTED_LOG_LEVEL": "loud"},
            "TRACEROUTED_LOG_LEVEL='loud': write one of debug, info, warn, error",
        ),
        (["--max-kept", "1", "--max-kept", "2"], {}, "--max-kept is given more than once; write it once"),
        (["--no-such"], {}, "No such option '--no-such'."),
        (["--max-kept"], {}, "Option '--max-kept' requires an argument."),
    ],
)
def test_wrong_usage(arguments: list[str], variables: dict[str, str], line: str) -> None:
    """A wrong option or variable: exit status 2 and one line saying what to write."""
    done = invoke("serve", *arguments, **variables)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"tracerouted: {line}\n"


def test_lists_are_repeatable() -> None:
    """A list option may be given several times, and each time hold several."""
    options = {"listen": ("127.0.0.1:1,127.0.0.1:2", "[::1]:3"), "dns_servers": ()}

    settings = cli.load_settings(options, {"TRACEROUTED_DNS_SERVERS": "192.0.2.1"})

    assert settings.listen == (Address("127.0.0.1", 1), Address("127.0.0.1", 2), Address("::1", 3))
    assert settings.dns_servers == (Address("192.0.2.1", 53),)


def test_wildcards_are_asked_on_loopback() -> None:
    """The health check of a service listening everywhere asks loopback of the same family."""
    asked = [cli.reachable(Address(host, 80)).host for host in ("0.0.0.0", "::", "192.0.2.1", "2001:db8::1")]

    assert asked == ["127.0.0.1", "::1", "192.0.2.1", "2001:db8::1"]


@contextmanager
def http_server(status: int) -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/healthz" else 404)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize(("status", "expected"), [(200, 0), (503, 1)])
def test_healthcheck(status: int, expected: int) -> None:
    """Exit status 0 for a healthy service, 1 for one that says it is not; one line either way."""
    with http_server(status) as port:
        done = invoke("healthcheck", TRACEROUTED_LISTEN=f"0.0.0.0:{port}")

    assert done.returncode == expected
    assert done.stdout + done.stderr == f"http://127.0.0.1:{port}/healthz: {status}\n"


def test_healthcheck_without_a_service() -> None:
    """Nobody listening, or somebody who speaks no HTTP: exit status 1 and one line."""
    with socket.socket() as free, socket.create_server(("127.0.0.1", 0)) as rude:
        free.bind(("127.0.0.1", 0))
        nobody = invoke("healthcheck", "--listen", f"127.0.0.1:{free.getsockname()[1]}")

        def shout() -> None:
            connection, _ = rude.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"220 mail.example.net\r\n")

        thread = threading.Thread(target=shout)
        thread.start()
        wrong = invoke("healthcheck", "--listen", f"127.0.0.1:{rude.getsockname()[1]}")
        thread.join()

    for done in (nobody, wrong):
        assert done.returncode == 1
        assert done.stdout == ""
        assert len(done.stderr.splitlines()) == 1


def test_timers_follow_the_monotonic_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step of the wall clock moves no timer: due times are read from the monotonic clock, and only from it."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    reactor = SelectReactor()
    fired: list[str] = []
    try:
        cli.use_monotonic_clock(reactor)
        call = reactor.callLater(60, fired.append, "due")

        assert call.getTime() == 1060.0
        monkeypatch.setattr(time, "time", lambda: 9e9)
        now[0] = 1059.9
        reactor.runUntilCurrent()
        assert fired == []
        now[0] = 1060.0
        reactor.runUntilCurrent()
        assert fired == ["due"]
    finally:
        reactor.disconnectAll()
        for reader in reactor._internalReaders.copy():
            reactor.removeReader(reader)
            reader.connectionLost(None)


def test_a_signal_handler_shows_nothing_of_the_service() -> None:
    """Looking at the handlers, as Twisted does before each spawn, costs the same however much is going on."""

    class Huge:
        def __repr__(self) -> str:
            raise AssertionError("all of a busy daemon was put into words")

    process = cli._Process(SelectReactor(), Settings())
    process._service = Huge()
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        process.catch_signals()
        assert process._on_signal == signal.getsignal(signal.SIGTERM) == signal.getsignal(signal.SIGINT)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert "Huge" not in repr(cli._Task(Huge())._on_signal)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains(number: signal.Signals) -> None:
    """SIGTERM and SIGINT stop the service, wait for it, and end with exit status 0."""
    with stub(SLOW="0.2") as process:
        said(process, "started")
        process.send_signal(number)
        said(process, "stopping")
        said(process, "stopped")

        log = log_of(process)
        assert process.returncode == 0
        assert [line["message"] for line in log] == [f"stopping after {number.name}"]


def test_a_second_signal_ends_at_once() -> None:
    """Whoever asks twice does not wait for the drain."""
    with stub(SLOW="600", TRACEROUTED_SHUTDOWN_S="600") as process:
        said(process, "started")
        process.send_signal(signal.SIGINT)
        said(process, "stopping")
        process.send_signal(signal.SIGINT)

        assert process.wait(30) == 128 + signal.SIGINT


def test_a_drain_is_bounded() -> None:
    """A service that does not stop is left after the time set, with exit status 1 and the reason."""
    with stub(SLOW="600", TRACEROUTED_SHUTDOWN_S="0.1") as process:
        said(process, "started")
        process.terminate()
        said(process, "stopping")

        log = log_of(process)
        assert process.returncode == 1
        assert (log[-1]["level"], log[-1]["message"]) == ("error", "not stopped within 0.2 s; leaving")


@pytest.mark.parametrize(
    ("host", "reason"), [("127.0.0.1", "Address already in use"), ("192.0.2.1", "Cannot assign requested address")]
)
def test_an_address_that_cannot_be_had(host: str, reason: str) -> None:
    """A port in use, or an address of another host: one line and exit status 1."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with stub(TRACEROUTED_LISTEN=f"{host}:{port}") as process:
            (line,) = log_of(process)

    assert process.returncode == 1
    assert line["level"] == "error"
    assert line["message"] == f"cannot listen on {host}:{port}: {reason}; choose another address with --listen"
    assert "failure" not in line


def test_a_service_that_cannot_be_made() -> None:
    """An unforeseen error at the start is one line with its traceback, and exit status 1."""
    with stub(BROKEN="1") as process:
        (line,) = log_of(process)

    assert process.returncode == 1
    assert line["message"] == "cannot start"
    assert "a wire is loose" in line["failure"]
