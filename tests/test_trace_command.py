"""`tracerouted trace`: its options, what it shows, how it ends; in pipes and on a terminal."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyte
import pytest
from attrs import evolve, fields
from click.testing import CliRunner
from twisted.internet.task import Clock

from daemon_process import free_port
from fake_engine import FakeEngine, hop_of, probe_of
from netsim import Lab
from tracerouted import cli
from tracerouted.model import (
    Asn,
    EndEvent,
    Family,
    Hop,
    Outcome,
    Protocol,
    Status,
    StopReason,
    Trace,
    TraceEvent,
    TraceRequest,
)
from tracerouted.terminal.board import Board
from tracerouted.terminal.options import MEANINGS, read_request
from tracerouted.terminal.screen import Lines, LiveTable, Whole
from tracerouted.terminal.table import table
from tracerouted.terminal.words import ending, plain
from web.daemon import Proxy, daemon

BIN = str(Path(sys.executable).parent / "tracerouted")
R1, R2, TARGET = "192.0.2.1", "198.51.100.1", "192.0.2.9"
CONTROLS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")


class Scripted:
    """A trace driven by hand, and the board it is shown on."""

    def __init__(self, **request: Any) -> None:
        self.engine = FakeEngine(Clock())
        made = self.engine.submit(TraceRequest(target="example.net", **request))
        self.id, self.board = made.id, Board(made.request)
        self._follower = self.engine.follow(self.id, lambda: None)
        self.start = lambda: self.engine.start(self.id)

    def probe(self, ttl: int, *answers: str | None, rtt: int = 2000, outcome: Outcome = Outcome.TTL_EXPIRED) -> None:
        """Answers at a hop, None being silence."""
        self.engine.probe(
            self.id, ttl, *(probe_of(None) if a is None else probe_of(a, rtt * ttl, outcome) for a in answers)
        )

    def finish(self, **how: Any) -> None:
        self.engine.finish(self.id, **how)

    def take(self) -> list[TraceEvent]:
        """Bring the board up to date."""
        events = self._follower.take()
        for event in events:
            self.board.take(event)
        return events


def trace_of(*hops: Hop, **changes: Any) -> Trace:
    scripted = Scripted()
    scripted.start()
    scripted.finish()
    return evolve(scripted.engine.get(scripted.id), hops=hops, **changes)


# --- options -------------------------------------------------------------------------------------------------


def given(*arguments: str) -> tuple[TraceRequest, dict[str, Any]]:
    """The request that arguments make."""
    context = cli.commands.commands["trace"].make_context("trace", list(arguments))
    return read_request(context.params.pop("target"), context.params)


def test_every_field_has_an_option() -> None:
    """Options are made from the request's fields, with their defaults and limits."""
    words = " ".join(CliRunner().invoke(cli.commands, ["trace", "--help"], terminal_width=500).output.split())
    names = [attribute.name for attribute in fields(TraceRequest) if attribute.name != "target"]
    assert sorted(MEANINGS) == sorted(names)
    for attribute in fields(TraceRequest):
        if attribute.name in MEANINGS:
            assert f"--{attribute.name.replace('_', '-')} " in words
            bounds = attribute.metadata.get("range")
            if bounds:
                assert f"[{bounds.least}<=x<={bounds.most}]" in words
                assert attribute.default is None or f"[default: {attribute.default}]" in words


def test_what_is_given() -> None:
    """Only what was written is given; the model fills in the rest."""
    assert (TraceRequest(target="example.net"), {}) == given("Example.NET.")
    request, fields_given = given("-6", "-q", "5", "-n", "-P", "tcp", "-p", "443", "example.net")
    assert (
        TraceRequest(
            target="example.net",
            family=Family.IPV6,
            probes=5,
            resolve_names=False,
            protocol=Protocol.TCP,
            port=443,
        )
        == request
    )
    assert {"family", "probes", "resolve_names", "protocol", "port"} == set(fields_given)
    assert {"family": None} == given("--family", "any", "example.net")[1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "Missing argument 'TARGET'"),
        (["127.1"], "TARGET ends in a number"),
        (["--probes", "0", "a.example"], "'--probes'"),
        (["--protocol", "gre", "a.example"], "'gre' is not one of 'icmp', 'udp', 'tcp', 'sctp'"),
        (["--port", "80", "a.example"], "--port icmp has no ports"),
        (["--first-ttl", "9", "--max-ttl", "8", "a.example"], "--first-ttl must not be above max_ttl"),
        (["--server", "example.net:80", "a.example"], "--server 'example.net:80' is not the address of a service"),
    ],
)
def test_wrong_usage(arguments: list[str], words: str) -> None:
    """What cannot be asked for is one line on standard error, and exit status 2."""
    done = run("trace", *arguments)
    assert (2, "") == (done.returncode, done.stdout)
    assert words in done.stderr
    assert 1 == len(done.stderr.splitlines())


def test_the_server_variable_is_no_setting() -> None:
    """`serve` does not warn about the variables of `trace`."""
    variables = {"TRACEROUTED_SERVER": "http://h", "TRACEROUTED_API_KEY": "k", "TRACEROUTED_SERVE": "x"}
    process = subprocess.Popen(
        [BIN, "serve", "--listen", "127.0.0.1:0"],
        env=environment() | variables,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    lines = [json.loads(process.stderr.readline())]
    process.terminate()
    lines += map(json.loads, process.communicate(timeout=60)[1].splitlines())
    warned = [line["variable"] for line in lines if "variable" in line]
    assert ["TRACEROUTED_SERVE"] == warned


# --- the table -----------------------------------------------------------------------------------------------


def test_the_table() -> None:
    """Title, heads, and a line per hop; silent hops and gaps are there."""
    scripted = Scripted()
    scripted.start()
    scripted.probe(1, R1, R1, None)
    scripted.probe(3, None)
    scripted.take()
    assert [
        "example.net (192.0.2.9) from 198.51.100.7, icmp, 64 bytes",
        "Hop Responder                                   Loss Sent   Last    Avg   Best  Worst  StDev Jitter",
        "  1 192.0.2.1                                    33%    3   2.00   2.00   2.00   2.00",
        "  2",
        "  3 *                                           100%    1",
    ] == table(scripted.board, 99)


def test_several_responders() -> None:
    """Each further responder has a line; all say how many of the answers were theirs."""
    scripted = Scripted()
    scripted.start()
    scripted.probe(1, R1, R2, R1)
    scripted.take()
    first, second = table(scripted.board, 100)[2:]
    assert first.startswith("  1 192.0.2.1 [2 of 3] ")
    assert "    198.51.100.1 [1 of 3]" == second


@pytest.mark.parametrize("width", [*range(1, 30), 40, 60, 79, 80, 100, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    """Names are cut and columns left out, whatever the width; figures are never cut."""
    scripted = Scripted()
    scripted.start()
    scripted.engine.jobs[scripted.id].names[R1] = "a-very-long-name-indeed.with-many.labels.example.net"
    scripted.probe(1, R1, R2, "2001:db8:1111:2222:3333:4444:5555:6666")
    scripted.take()
    lines = table(scripted.board, width)
    if width >= 30:
        assert max(map(len, lines)) <= width
        assert re.search(r"\d%", lines[2])
    if width >= 60:
        assert "~" in lines[2] or "example.net (192.0.2.1)" in lines[2]


def test_notes() -> None:
    """AS numbers, refusals and rate limits stand behind the name; the address gives way to them first."""
    hop = hop_of(1, (probe_of(R1, 512, Outcome.UNREACHABLE),), {R1: "r1.example.net"})
    responder = evolve(hop.responders[0], asn=Asn(64500, "EXAMPLE"))
    scripted = Scripted()
    scripted.start()
    scripted.finish()
    scripted.take()
    end = evolve(scripted.engine.get(scripted.id), hops=(evolve(hop, responders=(responder,), rate_limited=True),))
    scripted.board.take(EndEvent(99, end))
    notes = "[AS64500, says unreachable, limits its answers]"
    assert f"  1 r1.example.net (192.0.2.1) {notes} " in table(scripted.board, None)[2]
    assert f"  1 r1.example.net {notes} " in table(scripted.board, 125)[2]


def test_a_retracted_hop() -> None:
    """A hop that is taken back is shown no more."""
    scripted = Scripted()
    scripted.start()
    scripted.probe(1, R1)
    scripted.probe(2, R2)
    (*_, last) = scripted.take()
    empty = hop_of(2, ())
    scripted.board.take(evolve(last, responders=(), stats=empty.stats, probe=None))
    assert [1] == [hop.ttl for hop in scripted.board.hops]


def test_hostile_names() -> None:
    """No name, target or error text brings a control character, or anything invisible, to the screen."""
    hostile = "a\x1b[2J\x9b1m\r\n\u202eb\x00\x7f\u00e9"
    scripted = Scripted()
    scripted.start()
    scripted.engine.jobs[scripted.id].names[R1] = hostile
    scripted.probe(1, R1, outcome=Outcome.UNREACHABLE)
    scripted.finish(stop_reason=StopReason.UNREACHABLE)
    scripted.take()
    trace = scripted.board.trace
    assert trace is not None
    target = trace.target
    assert target is not None
    scripted.board.target = evolve(target, host=hostile)
    shown = [*table(scripted.board, 120), *table(scripted.board, None), ending(trace)]
    shown.append(ending(evolve(trace, status=Status.FAILED, error=hostile)))
    assert all(" " <= character <= "~" for line in shown for character in line)
    assert "a?[2J?1m???b???" == plain(hostile)


@pytest.mark.parametrize(
    ("trace", "sentence"),
    [
        (
            trace_of(hop_of(1, (probe_of(R1, 512),)), hop_of(2, (probe_of(TARGET, 1534, Outcome.REPLY),))),
            "Reached 192.0.2.9 at hop 2, in 1.53 ms on average.",
        ),
        (trace_of(), "Reached 192.0.2.9."),
        (
            trace_of(
                hop_of(1, (probe_of(R1, 512, Outcome.UNREACHABLE),), {R1: "r1.example.net"}),
                stop_reason=StopReason.UNREACHABLE,
            ),
            "Not reached: blocked at hop 1 by r1.example.net (192.0.2.1), which says the target is unreachable.",
        ),
        (trace_of(stop_reason=StopReason.UNREACHABLE), "Not reached: the target is unreachable."),
        (
            trace_of(hop_of(1, (probe_of(R1, 512),)), hop_of(2, (probe_of(None),)), stop_reason=StopReason.GAP_LIMIT),
            "Not reached: silent beyond hop 1, 192.0.2.1.",
        ),
        (trace_of(stop_reason=StopReason.GAP_LIMIT), "Not reached: nothing on the way answered."),
        (
            trace_of(hop_of(1, (probe_of(R1, 512),)), stop_reason=StopReason.MAX_TTL),
            "Not reached within 30 hops: silent beyond hop 1, 192.0.2.1.",
        ),
        (
            trace_of(
                *(hop_of(ttl, (probe_of(R1 if ttl % 2 else R2, 512),)) for ttl in range(1, 5)),
                stop_reason=StopReason.LOOP,
            ),
            "Not reached: the route goes in circles: 192.0.2.1 is both hop 1 and hop 3.",
        ),
        (trace_of(stop_reason=StopReason.DEADLINE), "Not reached: the 60 s for the whole trace are over."),
        (trace_of(stop_reason=StopReason.CANCELLED), "Cancelled."),
        (trace_of(status=Status.FAILED, error="no such name"), "Failed: no such name."),
    ],
)
def test_the_last_line(trace: Trace, sentence: str) -> None:
    """How it ended, in plain words."""
    assert sentence == ending(trace)


# --- on a screen ---------------------------------------------------------------------------------------------


class Screen(io.StringIO):
    """A terminal emulator behind a stream; `writes` holds what was written at a time."""

    def __init__(self, columns: int, rows: int) -> None:
        super().__init__()
        self.screen = pyte.HistoryScreen(columns, rows, history=1000)
        self.screen.set_mode(pyte.modes.LNM)
        self._feed = pyte.Stream(self.screen).feed
        self.writes: list[str] = []

    def write(self, text: str) -> int:
        self.writes.append(text)
        self._feed(text)
        return len(text)

    def size(self) -> tuple[int, int]:
        return self.screen.columns, self.screen.lines

    @property
    def lines(self) -> list[str]:
        """Everything, what was scrolled away first."""
        gone = [
            "".join(line[column].data for column in range(self.screen.columns)).rstrip()
            for line in self.screen.history.top
        ]
        return [line for line in (*gone, *(text.rstrip() for text in self.screen.display)) if line]


def test_redrawn_in_place() -> None:
    """Whatever changes, the screen holds the table once, and each drawing is one write, ten in a second at most."""
    clock, screen, scripted = Clock(), Screen(100, 24), Scripted()
    view = LiveTable(screen, clock, screen.size)
    scripted.start()
    for ttl in range(1, 8):
        for _ in range(3):
            scripted.probe(ttl, f"192.0.2.{ttl}")
            scripted.take()
            view.changed(scripted.board)
            clock.advance(0.02)
    clock.advance(0.1)
    assert [line.rstrip() for line in table(scripted.board, 99)] == screen.lines
    assert len(screen.writes) <= 7
    # Lines are written over, never blanked first.
    assert not any("\x1b[2J" in text or "\x1b[2K" in text for text in screen.writes)
    scripted.finish()
    scripted.take()
    assert scripted.board.trace is not None
    view.ended(scripted.board, scripted.board.trace)
    assert "Reached 192.0.2.9." == screen.lines[-1]
    assert 10 == len(screen.lines)
    assert [] == clock.getDelayedCalls()


def test_taller_than_the_terminal() -> None:
    """A table that does not fit shows its last lines while it runs, and all of it at the end."""
    clock, screen, scripted = Clock(), Screen(100, 8), Scripted()
    view = LiveTable(screen, clock, screen.size)
    scripted.start()
    for ttl in range(1, 21):
        scripted.probe(ttl, f"192.0.2.{ttl + 20}")
        scripted.take()
        view.changed(scripted.board)
        clock.advance(0.1)
    assert 7 == len(screen.lines)
    assert "Hop" == screen.lines[1].split()[0]
    assert [str(ttl) for ttl in range(16, 21)] == [line.split()[0] for line in screen.lines[2:]]
    scripted.finish()
    scripted.take()
    assert scripted.board.trace is not None
    view.ended(scripted.board, scripted.board.trace)
    assert [str(ttl) for ttl in range(1, 21)] == [line.split()[0] for line in screen.lines[2:-1]]


def test_left_early() -> None:
    """What is known when a trace is left stays, with the reason below."""
    clock, screen, scripted = Clock(), Screen(100, 24), Scripted()
    view = LiveTable(screen, clock, screen.size)
    scripted.start()
    scripted.probe(1, R1)
    scripted.take()
    view.changed(scripted.board)
    view.left(scripted.board, "Interrupted.")
    assert "Interrupted." == screen.lines[-1]
    assert 4 == len(screen.lines)
    assert [] == clock.getDelayedCalls()


def test_lines_in_a_pipe() -> None:
    """Each hop is written once, when it and all before it are settled; nothing moves the cursor."""
    out, scripted = io.StringIO(), Scripted(probes=2)
    view = Lines(out)
    scripted.start()

    def step() -> list[str]:
        scripted.take()
        view.changed(scripted.board)
        return [line.split()[0] for line in out.getvalue().splitlines()]

    assert ["example.net", "Hop"] == step()
    scripted.probe(2, R2, R2)
    scripted.probe(1, R1)
    assert ["example.net", "Hop"] == step()
    scripted.probe(1, None)
    assert ["example.net", "Hop", "1", "2"] == step()
    scripted.probe(3, TARGET)
    assert ["example.net", "Hop", "1", "2"] == step()
    scripted.finish()
    scripted.take()
    assert scripted.board.trace is not None
    view.ended(scripted.board, scripted.board.trace)
    assert ["example.net", "Hop", "1", "2", "3", "Reached"] == step()
    assert not CONTROLS.search(out.getvalue())


def test_documents_on_a_terminal() -> None:
    """A document goes into a pipe as it is; on a terminal its control characters are shown as "?"."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    scripted = Scripted()
    scripted.start()
    trace = scripted.engine.get(scripted.id)
    pipe, terminal = io.StringIO(), Terminal()
    for out in (pipe, terminal):
        Whole(out, lambda trace: "{\n\x9b\x7f\u00e9}".encode()).ended(scripted.board, trace)
    assert "{\n\x9b\x7f\u00e9}\n" == pipe.getvalue()
    assert "{\n??\u00e9}\n" == terminal.getvalue()


# --- the program ---------------------------------------------------------------------------------------------


def environment(**variables: str) -> dict[str, str]:
    clean = {name: text for name, text in os.environ.items() if not name.startswith("TRACEROUTED_")}
    return {**clean, "TERM": "xterm", **variables}


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BIN, *arguments], env=environment(**variables), capture_output=True, text=True, timeout=60, check=False
    )


def hops_of(text: str) -> list[list[str]]:
    """TTL and responder of each line of a table."""
    return [line.split()[:2] for line in text.splitlines() if re.match(r" *\d+ \S", line)]


@contextmanager
def on_terminal(
    *arguments: str, columns: int = 100, rows: int = 30
) -> Iterator[Callable[[Callable[[str], bool]], str]]:
    """The program on a terminal: `until` reads until the screen is as wanted, or the program ends, and gives it."""
    process, descriptor = pty.fork()
    if process == 0:
        os.execve(BIN, [BIN, *arguments], environment())
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    screen = pyte.Screen(columns, rows)
    stream = pyte.ByteStream(screen)

    def until(wanted: Callable[[str], bool]) -> str:
        end = time.monotonic() + 30
        while time.monotonic() < end:
            shown = "\n".join(line.rstrip() for line in screen.display).rstrip()
            if wanted(shown):
                return shown
            if select.select([descriptor], [], [], 0.2)[0]:
                try:
                    data = os.read(descriptor, 65_536)
                except OSError:
                    break
                stream.feed(data)
        return "\n".join(line.rstrip() for line in screen.display).rstrip()

    until.send = lambda data: os.write(descriptor, data)  # type: ignore[attr-defined]
    until.status = lambda: os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])  # type: ignore[attr-defined]
    try:
        yield until
    finally:
        os.close(descriptor)


def test_here(lab: Lab) -> None:
    """Without a service this host traces: the true hops, the sentence, and 0 for reached."""
    done = run("trace", "--no-resolve-names", "-q", "1", lab.address("plain", "ipv4"))
    assert (0, "") == (done.returncode, done.stderr)
    route = [hop.address for hop in lab.truth("plain", "ipv4", "icmp").ways[0]]
    assert [[str(ttl), address] for ttl, address in enumerate(route, 1)] == hops_of(done.stdout)
    assert done.stdout.splitlines()[-1].startswith(f"Reached {route[-1]} at hop {len(route)}, in ")


def test_not_reached(lab: Lab) -> None:
    """A target that is blocked is 1, with who blocks it; so is a name that does not exist."""
    done = run("trace", "-6", "--no-resolve-names", "-q", "1", lab.address("admin-prohibited", "ipv6"))
    assert 1 == done.returncode
    blocking = lab.truth("admin-prohibited", "ipv6", "icmp").ways[0][-1].address
    assert f"by {blocking}, which says the target is unreachable." in done.stdout.splitlines()[-1]
    servers = lab.address("dns", "ipv4")
    done = run("trace", "nosuch.demo.test", "--dns-servers", servers)
    assert 1 == done.returncode
    assert done.stdout.startswith("Failed: ")


@pytest.mark.parametrize("output", ["--json", "--text", "--mtr", "--atlas"])
def test_documents(lab: Lab, output: str) -> None:
    """Each format prints its document and nothing else."""
    address = lab.address("plain", "ipv4")
    done = run("trace", output, "--no-resolve-names", "-q", "1", address)
    assert (0, "") == (done.returncode, done.stderr)
    if output == "--text":
        assert done.stdout.startswith(f"traceroute to {address} ({address}), 30 hops max, 64 byte packets\n 1  ")
        return
    document = json.loads(done.stdout)
    hops = {
        "--json": lambda: document["hops"],
        "--mtr": lambda: document["report"]["hubs"],
        "--atlas": lambda: document[0]["result"],
    }
    assert 11 == len(hops[output]())


def test_private_targets(lab: Lab) -> None:
    """Somebody at a shell may trace private addresses; what is no host's address is refused with 3."""
    assert 0 == run("trace", "-q", "1", "127.0.0.1").returncode
    done = run("trace", "0.0.0.0")
    assert (3, "") == (done.returncode, done.stdout)
    assert "never a target" in done.stderr


def test_a_service(lab: Lab) -> None:
    """With a service, it traces: the same table, its refusals are 3, and nobody there is 4."""
    with daemon() as service:
        address = lab.address("plain", "ipv4")
        done = run("trace", "--no-resolve-names", "-q", "1", address, TRACEROUTED_SERVER=service)
        assert (0, "") == (done.returncode, done.stderr)
        assert 11 == len(hops_of(done.stdout))
        done = run("trace", "--server", service, "10.0.0.1")
        assert (3, "") == (done.returncode, done.stdout)
        assert "TRACEROUTED_ALLOW_TARGETS" in done.stderr
        assert 1 == len(done.stderr.splitlines())
    done = run("trace", "--server", f"http://127.0.0.1:{free_port()}", address)
    assert (4, "") == (done.returncode, done.stdout)
    assert 1 == len(done.stderr.splitlines())


def test_a_connection_that_breaks(lab: Lab) -> None:
    """A dropped connection is taken up again: the table is whole, and every probe is counted once."""
    with daemon() as service:
        proxy = Proxy(service)
        seen = [0]

        def watch(piece: bytes) -> None:
            seen[0] += piece.count(b"event: hop")
            if proxy.cuts < 3 and seen[0] > 8 * (proxy.cuts + 1):
                proxy.cut()

        proxy.watch = watch
        done = run("trace", "--server", proxy.address, "--no-resolve-names", "-q", "5", lab.address("plain", "ipv4"))
        proxy.close()
    assert 3 <= proxy.cuts
    assert (0, "") == (done.returncode, done.stderr)
    lines = [line.split() for line in done.stdout.splitlines()[2:-1]]
    assert [["0%", "5"]] * 11 == [line[2:4] for line in lines]


def test_a_killed_service(lab: Lab) -> None:
    """A service that is killed and forgets the trace: what is known is shown, and the exit status is 4."""
    port = free_port()

    def serve() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [BIN, "serve"], env=environment(TRACEROUTED_LISTEN=f"127.0.0.1:{port}"), stderr=subprocess.DEVNULL
        )

    first = serve()
    second = None
    try:
        for _ in range(20):  # until it listens, and is ready
            done = run("trace", "--server", f"http://127.0.0.1:{port}", "-q", "1", lab.address("plain", "ipv4"))
            if done.returncode == 0:
                break
        with on_terminal(
            "trace", "--server", f"http://127.0.0.1:{port}", "-q", "9", lab.address("silent-end", "ipv4")
        ) as until:
            until(lambda shown: "44.1.4.5 " in shown)
            first.kill()
            first.wait()
            second = serve()
            shown = until(lambda shown: "tracerouted:" in shown)
            assert 4 == until.status()  # type: ignore[attr-defined]
        assert "The service, or the trace there, was lost." in shown
        assert "no trace has this id" in shown
    finally:
        for process in filter(None, (first, second)):
            process.kill()
            process.wait()


def test_live(lab: Lab) -> None:
    """On a terminal there is one table, changing in place, with its sentence at the end."""
    with on_terminal("trace", "-q", "4", "--no-resolve-names", lab.address("lossy-middle", "ipv4")) as until:
        shown = until(lambda shown: "eached" in shown)
        assert 0 == until.status()  # type: ignore[attr-defined]
    lines = shown.splitlines()
    assert 10 == len(lines)
    assert [str(ttl) for ttl in range(1, 8)] == [line.split()[0] for line in lines[2:9]]
    assert "Reached" == lines[-1].split()[0]


def test_ctrl_c(lab: Lab) -> None:
    """Ctrl-C leaves at once with 130, what is known stays, and no mtr-packet is left."""
    with on_terminal("trace", "-q", "50", "--no-resolve-names", lab.address("silent-end", "ipv4")) as until:
        until(lambda shown: "44.1.4.3" in shown)
        until.send(b"\x03")  # type: ignore[attr-defined]
        shown = until(lambda shown: "Interrupted." in shown)
        assert 130 == until.status()  # type: ignore[attr-defined]
    assert "44.1.4.3" in shown


def test_ctrl_c_before_anything(lab: Lab) -> None:
    """Ctrl-C while mtr-packet is still being tested is an interruption, not a fault of mtr-packet."""
    with on_terminal("trace", lab.address("plain", "ipv4")) as until:
        until(lambda shown: "starting" in shown)
        until.send(b"\x03")  # type: ignore[attr-defined]
        shown = until(lambda shown: False)
        assert 130 == until.status()  # type: ignore[attr-defined]
    assert "Interrupted." == shown.splitlines()[-1]


def test_ctrl_c_cancels_at_the_service(lab: Lab) -> None:
    """A trace at a service is cancelled there too."""
    with daemon() as service:
        process = subprocess.Popen(
            [BIN, "trace", "--server", service, "-q", "50", lab.address("silent-end", "ipv4")],
            env=environment(),
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.stdout.read().splitlines()[-1] == "Interrupted."
        assert 130 == process.wait(30)
        process.stdout.close()

        with urllib.request.urlopen(f"{service}traces") as answer:
            assert [] == json.load(answer)["traces"]


def test_a_reader_that_leaves(lab: Lab) -> None:
    """`| head -1` ends the trace quietly."""
    script = f"{BIN} trace -q 1 {lab.address('plain', 'ipv4')} | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], env=environment(), capture_output=True, text=True, timeout=60)
    assert "" == done.stderr
    assert done.stdout.splitlines()[-1] in ("141", "0")


# --- completion ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str) -> None:
    """Each shell gets a script that asks this program."""
    done = run("completion", shell)
    assert 0 == done.returncode
    assert f"_TRACEROUTED_COMPLETE={shell}_complete" in done.stdout


def test_completion_in_bash() -> None:
    """bash completes commands, options and values with it."""
    script = f"""
        eval "$({BIN} completion bash)"
        complete_it() {{
            COMPREPLY=(); COMP_WORDS=("$@"); COMP_CWORD=$(( $# - 1 ))
            _tracerouted_completion {BIN}; echo "${{COMPREPLY[@]}}"
        }}
        complete_it {BIN} tr
        complete_it {BIN} trace --prot
        complete_it {BIN} trace --protocol ""
    """
    done = subprocess.run(["bash", "-c", script], env=environment(), capture_output=True, text=True, timeout=60)
    assert ["trace", "--protocol", "icmp udp tcp sctp"] == done.stdout.splitlines()
