"""The edge of the real daemon over real sockets: what clients can take from it, all together."""

from __future__ import annotations

import json
import os
import resource
import select
import selectors
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from corpus import LAST, Case, exchange, judge, read_cases
from fake_http import parse_answer
from netsim import Lab
from serving import Daemon, serving

MIB = 2**20
GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST /traces HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
#: Far more than anything here takes; reached only by a service that hangs.
PATIENCE_S = 60

STREAMS = 1000


@pytest.fixture(scope="module")
def daemon(internet: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon with its default limits, shared; nothing it is asked here is worth a warning."""
    with serving(tmp_path_factory.mktemp("daemon"), request_deadline_s="60") as daemon:
        yield daemon
        assert [] == daemon.warnings


def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition."""
    due = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < due
        time.sleep(0.02)


def ended(client: socket.socket) -> bool:
    """Whether the server has closed a connection that was sent nothing more."""
    client.setblocking(False)
    try:
        return client.recv(65_536) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


def served(client: socket.socket) -> bool:
    """Whether a request on this connection is answered."""
    client.settimeout(30)
    try:
        client.sendall(GET)
        return client.recv(65_536).startswith(b"HTTP/1.1 200 OK\r\n")
    except ConnectionError:
        return False


# --- the corpus ---


@pytest.mark.parametrize("case", [case for case in read_cases() if case.stands_alone], ids=lambda case: case.id)
def test_corpus(daemon: Daemon, case: Case) -> None:
    """What holds for the parts holds for the whole; see `test_corpus`."""
    with daemon.connect() as client:
        client.setblocking(False)
        judge(case, exchange(client, case.data + LAST, lambda: select.select([client], [], [], 0.2)))


# --- size ---


@pytest.mark.parametrize("path", [b"/traces", b"/nope"])
@pytest.mark.parametrize("framing", [b"Content-Length: 1073741824\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n"])
def test_a_gigabyte(daemon: Daemon, path: bytes, framing: bytes) -> None:
    """A body of 1 GB is 413, costs the daemon at most 1 MB of memory while it comes, and no file."""
    piece = bytes(MIB) if b"Length" in framing else b"100000\r\n" + bytes(MIB) + b"\r\n"
    head = b"POST %b HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n%b" % (path, framing)
    daemon.ask(head.replace(b"1073741824", b"16385") + piece[:20_000])  # what is used once and kept
    daemon.settle()
    before, deleted = daemon.rss, daemon.deleted
    most = 0
    with daemon.connect() as client:
        client.sendall(head)
        for number in range(1024):
            client.sendall(piece)
            if number % 64 == 0:
                most = max(most, daemon.rss)
                assert deleted == daemon.deleted
        answer, rest = parse_answer(client.recv(65_536), "POST")
    assert (413, "too-large", b"") == (answer.status, answer.type, rest)
    assert most - before <= MIB
    assert {"log", "tmp"} == {file.name for file in daemon.folder.iterdir()}
    assert [] == [*(daemon.folder / "tmp").iterdir()]


# --- numbers ---


def test_floods_of_pipelined_requests(daemon: Daemon) -> None:
    """20,000 pipelined requests have the answers a connection may have, and others are served meanwhile."""
    with ExitStack() as stack:
        floods = [stack.enter_context(daemon.connect()) for _ in range(4)]
        for flood in floods:
            flood.setblocking(False)
        unsent = dict.fromkeys(floods, GET * 20_000)
        received = dict.fromkeys(floods, b"")
        going = set(floods)
        others = 0
        while going:
            for flood in [*going]:
                with suppress(BlockingIOError, ConnectionError):
                    unsent[flood] = unsent[flood][flood.send(unsent[flood]) :]
                with suppress(BlockingIOError):
                    piece = flood.recv(65_536)
                    received[flood] += piece
                    if not piece:
                        going.discard(flood)
            with daemon.connect() as other:
                others += served(other)
    assert others > 4
    for answers in received.values():
        assert 1000 == answers.count(b"HTTP/1.1 200 OK\r\n")
        assert 1 == answers.count(b"Connection: close")


def test_ten_thousand_idle_connections(internet: Lab, tmp_path: Path) -> None:
    """Past the cap connections are closed at once and cost nothing, said once in the log; the others are served."""
    with serving(tmp_path, max_connections="100") as daemon, ExitStack() as stack:
        at_rest = daemon.descriptors
        clients = [stack.enter_context(daemon.connect()) for _ in range(100)]
        until(lambda: daemon.descriptors == at_rest + 100)
        assert all(served(client) for client in clients)
        before, most = daemon.rss, 0
        for number in range(10_000):
            with daemon.connect() as refused, suppress(ConnectionError):
                assert b"" == refused.recv(1)
            if number % 500 == 0:
                most = max(most, daemon.descriptors)
        assert most <= at_rest + 101
        assert daemon.rss - before <= MIB
        assert all(served(client) for client in clients)
        clients[0].close()
        until(lambda: daemon.descriptors == at_rest + 99)
        with daemon.connect() as newcomer:
            assert served(newcomer)
        assert ["TRACEROUTED_MAX_CONNECTIONS"] == [line.get("setting") for line in daemon.warnings]


# --- time ---

PLACES = {
    "nothing": b"",
    "a request line": b"GET /hea",
    "fields": b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: ",
    "a folded field": b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: a\r\n ",
    "a body": POST + b"Content-Length: 10000\r\n\r\n{",
    "a body that is too large": POST + b"Content-Length: 100000\r\n\r\n{",
    "a chunk's size": POST + b"Transfer-Encoding: chunked\r\n\r\n0",
    "a chunk's extension": POST + b"Transfer-Encoding: chunked\r\n\r\n1;",
    "a chunk": POST + b"Transfer-Encoding: chunked\r\n\r\n3000\r\n",
    "a trailer": POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: ",
    "a second request line": GET + b"GET /hea",
    "a second body": GET + POST + b"Content-Length: 10000\r\n\r\n{",
}


def test_slowloris(internet: Lab, tmp_path: Path) -> None:
    """Wherever in a request bytes begin to trickle, its time is up at the deadline: 408, and soon closed for good."""
    with serving(tmp_path, request_deadline_s="1") as daemon, ExitStack() as stack:
        at_rest = daemon.descriptors
        clients = {place: stack.enter_context(daemon.connect()) for place in PLACES}
        received = dict.fromkeys(PLACES, b"")
        for place, client in clients.items():
            client.sendall(PLACES[place])
            client.settimeout(0.001)
        until(lambda: daemon.descriptors == at_rest + len(PLACES))
        due = time.monotonic() + PATIENCE_S
        while daemon.descriptors > at_rest:
            assert time.monotonic() < due
            for place, client in clients.items():
                with suppress(OSError):
                    received[place] += client.recv(65_536)
                if place != "nothing":
                    with suppress(OSError):
                        client.send(b"0")
            time.sleep(0.05)
    statuses = {place: [int(part[:3]) for part in data.split(b"HTTP/1.1 ")[1:]] for place, data in received.items()}
    expected = {place: [200, 408] if place.startswith("a second") else [408] for place in PLACES}
    assert {**expected, "nothing": [], "a body that is too large": [413]} == statuses


# --- file descriptors ---


def nofile(pid: int) -> tuple[int, int]:
    return resource.prlimit(pid, resource.RLIMIT_NOFILE)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_the_limit_is_raised(internet: Lab, tmp_path: Path) -> None:
    """A soft limit too low for all connections is raised as far as they need; mtr-packet is held to 1,024."""
    with serving(tmp_path, descriptors=(256, 4096), max_connections="2000") as daemon:
        soft, hard = nofile(daemon.process.pid)
        assert 2000 < soft < 4096 == hard
        probers = children(daemon.process.pid)
        assert 2 == len(probers)
        assert [(1024, 1024)] * 2 == [nofile(prober) for prober in probers]
        assert [] == daemon.warnings


def test_a_limit_that_cannot_be_raised(internet: Lab, tmp_path: Path) -> None:
    """Where the connections cannot fit, fewer are taken, and the log names the setting and both numbers."""
    with serving(tmp_path, descriptors=(256, 300)) as daemon, ExitStack() as stack:
        (warning,) = daemon.warnings
        assert ("TRACEROUTED_MAX_CONNECTIONS", 1000, 300, 150) == tuple(
            warning[name] for name in ("setting", "asked", "allowed", "most")
        )
        clients = [stack.enter_context(daemon.connect()) for _ in range(400)]
        assert 150 == sum(served(client) for client in clients)
        assert daemon.ready() is False  # all places are taken
        assert daemon.descriptors < 300


def test_descriptors_run_out(internet: Lab, tmp_path: Path) -> None:
    """With no descriptor left, who is connected is served, nobody waits in vain, nothing spins or floods the log, and
    a prober that dies then is there again when it is over, as is all else."""
    with serving(tmp_path) as daemon, ExitStack() as stack:
        at_rest, limits = daemon.descriptors, nofile(daemon.process.pid)
        resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE, (at_rest + 10, limits[1]))
        clients = [stack.enter_context(daemon.connect()) for _ in range(100)]
        answered = [client for client in clients if served(client)]
        assert 5 <= len(answered) <= 10
        os.kill(children(daemon.process.pid)[0], signal.SIGKILL)
        used = daemon.cpu_s
        time.sleep(1)
        assert daemon.cpu_s - used < 0.5
        assert all(served(client) for client in answered)
        assert len(daemon.log) < 20
        for client in clients:
            client.close()
        until(daemon.ready)
        until(lambda: daemon.descriptors == at_rest)


# --- streams ---


class Followers:
    """Readers of one trace's events: how many of them saw its end."""

    def __init__(self, daemon: Daemon, path: bytes, number: int) -> None:
        self.ended = 0
        self._selector = selectors.DefaultSelector()
        for _ in range(number):
            client = daemon.connect()
            client.sendall(
                b"GET %b HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\nConnection: close\r\n\r\n" % path
            )
            client.setblocking(False)
            self._selector.register(client, selectors.EVENT_READ, bytearray())

    def read(self) -> bool:
        """Read what there is; whether anybody is still connected."""
        for key, _ in self._selector.select(0.1):
            client = key.fileobj
            assert isinstance(client, socket.socket)
            if piece := client.recv(262_144):
                key.data[:] = key.data[-11:] + piece
                self.ended += b"\nevent: end\n" in key.data
            else:
                self._selector.unregister(client)
                client.close()
        return bool(self._selector.get_map())


@pytest.mark.timeout(240)
def test_stalled_streams(lab: Lab, tmp_path: Path) -> None:
    """A thousand followers cost at most 64 MB; the tenth of them that reads nothing is dropped, and only it."""
    stalled_number = STREAMS // 10
    settings = {
        "max_streams": str(STREAMS),
        "max_connections": str(STREAMS + 10),
        "stream_stalled_s": "2",
        "stream_behind_bytes": "128KiB",
        "allow_targets": "44.0.0.0/8",
        "probes_per_second": "100000",
        "target_probes_per_second": "100000",
    }
    with serving(tmp_path, **settings) as daemon, ExitStack() as stack:
        body = json.dumps(
            {"target": lab.address("plain", "ipv4"), "probes": 30, "interval_ms": 250, "resolve_names": False}
        ).encode()
        made = daemon.ask(POST + b"Connection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        path = parse_answer(made, "POST")[0].json["links"]["events"].encode()
        before = daemon.rss
        stalled = []
        for _ in range(stalled_number):
            client = stack.enter_context(daemon.connect(receive_buffer=4096))
            client.sendall(b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % path)
            stalled.append(client)
        followers = Followers(daemon, path, STREAMS - stalled_number)
        most = 0
        while followers.read():
            most = max(most, daemon.rss)
        until(lambda: len([line for line in daemon.log if "dropped a stream" in line["message"]]) >= stalled_number)
        assert most - before <= 64_000_000
        assert STREAMS - stalled_number == followers.ended
        assert stalled_number == len([line for line in daemon.log if "dropped a stream" in line["message"]])
        assert [] == daemon.warnings
