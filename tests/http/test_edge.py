"""The edge of a connection: order, size, time, numbers. What one request means is in the corpus (test_corpus)."""

from __future__ import annotations

import gc
import re
import socket
import tempfile
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corpus import exchange
from fake_engine import probe_of
from fake_http import Connection, Service, finished_trace, json_body, parse_answer, warnings_in

GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST /traces HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
BODY = b'{"target": "example.net"}'


def send(service: Service, data: bytes) -> Connection:
    connection = service.connect()
    connection.send(data)
    return connection


# --- order ---


def test_pipelined_requests(service: Service) -> None:
    """Requests on one connection are answered in order, also while one waits."""
    trace_id = service.post({"target": "example.net"}).json["id"]
    waiting = f"GET /traces/{trace_id} HTTP/1.1\r\nHost: a\r\nPrefer: wait=5\r\n\r\n".encode()
    connection = send(service, GET + waiting + GET)
    assert 1 == len(connection.answers())
    service.engine.finish(trace_id)
    assert [{"status": "ok"}, trace_id, {"status": "ok"}] == [a.json.get("id", a.json) for a in connection.answers()]


# --- size ---


@pytest.fixture
def no_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any temporary file fails the test."""

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a temporary file was opened")

    for name in ("TemporaryFile", "NamedTemporaryFile", "SpooledTemporaryFile", "mkstemp"):
        monkeypatch.setattr(tempfile, name, refuse)


@pytest.mark.parametrize("path", [b"/traces", b"/nope"])
@pytest.mark.usefixtures("no_files")
def test_a_gigabyte_by_length(service: Service, path: bytes) -> None:
    """A body announced as too large is 413 before it comes; what still comes is dropped; no handler runs."""
    connection = send(service, b"POST %b HTTP/1.1\r\nHost: a\r\nContent-Length: 1073741824\r\n\r\n" % path)
    answer = connection.answer()
    assert (413, "too-large", path.decode()) == (answer.status, answer.type, answer.json["instance"])
    assert "TRACEROUTED_MAX_BODY_BYTES" in answer.json["detail"]
    assert connection.transport.half_closed
    chunk = bytes(65_536)
    for _ in range(16_384):
        connection.send(chunk)
    assert connection.protocol._buffer == b""
    assert [] == connection.protocol._dataBuffer
    assert answer == connection.answer()
    assert [] == service.engine.submitted


@pytest.mark.parametrize("path", [b"/traces", b"/nope"])
@pytest.mark.usefixtures("no_files")
def test_a_gigabyte_in_chunks(service: Service, path: bytes) -> None:
    """An endless chunked body is 413 as soon as it is too large, and nothing of it is kept."""
    connection = send(
        service,
        b"POST %b HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n" % path,
    )
    chunk = b"10000\r\n" + bytes(65_536) + b"\r\n"
    for _ in range(16_384):
        connection.send(chunk)
    connection.send(b"0\r\n\r\n" + GET)
    assert (413, "too-large") == (connection.answer().status, connection.answer().type)
    (request,) = connection.protocol.requests
    assert request.content.getbuffer().nbytes <= 16_384
    assert [] == service.engine.submitted


# --- time ---


@pytest.mark.parametrize("start", [b"", b"GET /healthz HTTP/1.1\r\n", POST + b"Content-Length: 100\r\n\r\n"])
def test_slowloris(service: Service, start: bytes) -> None:
    """A byte now and then keeps no connection alive: 10 s for the whole request, then 408, then closed for good."""
    connection = send(service, start)
    for _ in range(9):
        service.clock.advance(1)
        connection.send(b"x")
    assert b"" == connection.received
    service.clock.pump([1, 1])
    assert (408, "about:blank") == (connection.answer().status, connection.answer().json["type"])
    assert "TRACEROUTED_REQUEST_DEADLINE_S" in connection.answer().json["detail"]
    for _ in range(11):
        connection.send(b"x")
        service.clock.advance(1)
    assert connection.transport.aborted
    connection.settle()
    assert set() == service.site.connections
    assert [] == service.clock.getDelayedCalls()


def test_slowloris_on_the_second_request(service: Service) -> None:
    """The deadline holds for every request of a connection, also for one begun together with the last."""
    connection = send(service, GET + b"GET /he")
    for _ in range(11):
        service.clock.advance(1)
        connection.send(b"x")
    assert [200, 408] == [answer.status for answer in connection.answers()]


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("start", [b"GET /he", b"GET / HTTP/1.1\r\n", POST + b"Content-Length: 100\r\n\r\n{"])
def test_a_second_request_that_stops_short(service: Service, start: bytes, together: bool) -> None:
    """A second request has the same deadline, whether or not it began together with the first."""
    connection = service.connect()
    for data in [GET + start] if together else [GET, start]:
        connection.send(data)
    service.clock.pump([1] * 11)
    assert [200, 408] == [answer.status for answer in connection.answers()]


def test_a_second_request_that_waits(service: Service) -> None:
    """A whole second request has no deadline for its answer, though it began together with the first."""
    service.post({"target": "example.net"})
    connection = send(service, GET + b"GET /traces/trace001 HTTP/1.1\r\nHost: a\r\nPrefer: wait=60\r\n\r\n")
    service.clock.pump([1] * 60)
    assert [200, 200] == [answer.status for answer in connection.answers()]


def test_an_idle_connection(service: Service) -> None:
    """A new connection that sends nothing is closed after 10 s, one between requests after 60, without words."""
    fresh, used = service.connect(), send(service, GET)
    service.clock.pump([1] * 11)
    assert (True, False) == (fresh.closed, used.closed)
    service.clock.pump([1] * 50)
    assert used.closed
    assert (b"", 200) == (fresh.received, used.answer().status)


def test_a_waiting_request_has_no_deadline(service: Service) -> None:
    """The deadline is for the request, not for its answer."""
    connection = service.connect()
    connection.request("POST", "/traces", *json_body({"target": "example.net"}, {"Prefer": "wait=60"}))
    service.clock.pump([1] * 59)
    assert not connection.closed
    service.clock.advance(1)
    assert 202 == connection.answer().status


def test_an_answer_nobody_reads(service: Service) -> None:
    """A client that never takes its answer is cut off in the end."""
    connection = service.connect()
    connection.transport.reading = False
    connection.send(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    assert connection.closed
    service.clock.pump([1] * 61)
    assert connection.transport.aborted


# --- a client that asks for more than it reads ---


def large(service: Service) -> tuple[bytes, bytes]:
    """A path, and the content there is at it: more than a megabyte."""
    files = re.search(rb'"(docs/[0-9a-f]+/)', service.get("/docs").body)
    assert files
    path = b"/" + files[1] + b"swagger-ui-bundle.js"
    return path, service.get(path.decode()).body


def test_a_large_answer_nobody_reads(service: Service) -> None:
    """Of a large answer no more is copied than a client takes: whole if it takes it in time, else cut off."""
    path, content = large(service)
    request = b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % path
    reader, other = service.connect(), service.connect()
    for connection in (reader, other):
        connection.transport.reading = False
        connection.send(request + GET)
    while reader.transport.paused:
        assert len(reader.transport.unread) < 200_000
        service.clock.advance(10)
        reader.transport.take()
    reader.transport.take()
    assert [content, b'{"status":"ok"}'] == [answer.body for answer in reader.answers()]
    assert other.transport.aborted
    assert len(other.transport.unread) < 200_000
    assert b"" == service.ask("HEAD", path.decode()).body


def test_a_large_answer_that_is_the_last(service: Service) -> None:
    """After it the client is listened to, if only to hear it close."""
    path, content = large(service)
    connection = service.connect()
    connection.transport.reading = False
    connection.send(b"GET %b HTTP/1.0\r\n\r\n" % path + GET)
    while connection.transport.paused:
        connection.transport.take()
    connection.transport.take()
    assert content == connection.answer().body
    assert (True, "producing") == (connection.transport.half_closed, connection.transport.producerState)


def test_a_large_answer_whose_client_left(service: Service, log: list[dict[str, Any]]) -> None:
    """A client may leave in the middle of a large answer."""
    path, _ = large(service)
    connection = service.connect()
    connection.transport.reading = False
    connection.send(b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % path)
    connection.leave()
    assert [] == warnings_in(log)


def test_pipelined_requests_nobody_reads_the_answers_of(service: Service) -> None:
    """Requests wait, unread, until the answers before them are taken; then all are answered, in order."""
    connection = service.connect()
    connection.transport.reading = False
    started = b"GET /nope%d HTTP/1.1\r\nHost: a\r\n\r\n"
    connection.send(b"".join(started % n for n in range(900)))
    assert len(connection.transport.unread) < 100_000
    assert "paused" == connection.transport.producerState
    service.clock.advance(30)  # nobody is late who is not listened to
    while connection.transport.unread:
        connection.transport.take()
    assert [f"/nope{n}" for n in range(900)] == [answer.json["instance"] for answer in connection.answers()]
    assert "producing" == connection.transport.producerState


def test_what_comes_behind_a_stream_nobody_reads(service: Service) -> None:
    """A client that reads nothing of a stream is not read from either: what it sends piles up with it."""
    service.post({"target": "example.net"})
    connection = service.connect()
    connection.transport.reading = False
    connection.request("GET", "/traces/trace001/events")
    for n in range(1000):
        service.engine.probe("trace001", 1, probe_of("192.0.2.1", n + 1), keep=1)
    service.clock.advance(0)
    assert "paused" == connection.transport.producerState
    connection.transport.reading = True
    while connection.transport.paused:
        connection.transport.take()
    assert "producing" == connection.transport.producerState
    connection.send(GET * 1000)
    assert "paused" == connection.transport.producerState
    service.engine.finish("trace001")
    service.clock.pump([0] * 50)
    assert 1001 == len([None for answer in connection.answers() if answer.status == 200]) + 1


# --- a client that sends no more ---


@pytest.fixture
def connect(service: Service, reactor: Any) -> Iterator[Callable[..., Callable[[], bytes]]]:
    """Send bytes over TCP and end; a function tells what has come back up to the server's end."""
    port = reactor.listenTCP(0, service.site, interface="127.0.0.1")
    with ExitStack() as stack:
        stack.callback(port.stopListening)

        def connect(data: bytes) -> Callable[[], bytes]:
            client = stack.enter_context(socket.create_connection(("127.0.0.1", port.getHost().port)))
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            client.setblocking(False)
            return lambda: exchange(client, b"", lambda: reactor.iterate(0))

        yield connect


def test_a_half_closed_connection(service: Service, connect: Callable[..., Callable[[], bytes]]) -> None:
    """Who sends requests and closes its sending side still gets their answers, however large, and then the end."""
    path, content = large(service)
    received = connect(GET + b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % path + GET)()
    first, rest = parse_answer(received, "GET")
    second, rest = parse_answer(rest, "GET")
    third, rest = parse_answer(rest, "GET")
    assert (200, content, first.body, b"") == (first.status, second.body, third.body, rest)
    assert set() == service.site.connections


@pytest.mark.parametrize(
    "request_line", [b"GET /traces/trace001/events", b"GET /traces/trace001", b"POST /traces", b"GET /heal"]
)
def test_a_client_that_left(
    service: Service, connect: Callable[..., Callable[[], bytes]], log: list[dict[str, Any]], request_line: bytes
) -> None:
    """A stream, an answer that waits, and half a request end with the client; what it began goes on."""
    service.post({"target": "example.net"})
    fields = b"Host: a\r\nPrefer: wait=60\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(BODY)
    whole = request_line + b" HTTP/1.1\r\n" + fields + BODY
    received = connect(request_line if request_line.endswith(b"heal") else whole)()
    assert not received.endswith(b"\r\n0\r\n\r\n")
    assert (0, set()) == (service.site.streams.open, service.site.connections)
    assert {"queued"} == {str(job.trace.status) for job in service.engine.jobs.values()}
    assert (2 if b"POST" in request_line else 1) == len(service.engine.jobs)
    assert [] == warnings_in(log)


@pytest.mark.parametrize(
    "data",
    [
        GET,
        GET + b"GET /he",
        POST + b"Content-Length: x\r\n\r\n",
        b"GET /traces/trace001/events HTTP/1.0\r\n\r\n",
    ],
)
def test_what_remains_of_a_connection(
    service: Service, connect: Callable[..., Callable[[], bytes]], data: bytes
) -> None:
    """Nothing: its memory is free at once, not when somebody looks for cycles, which is seldom."""
    service.post({"target": "example.net"})
    left: list[weakref.ref[Any]] = []
    opened = service.site.opened
    service.site.opened = lambda channel: (left.append(weakref.ref(channel)), opened(channel))
    gc.collect()
    gc.disable()
    try:
        connect(data)()
        assert [None] == [channel() for channel in left]
    finally:
        gc.enable()


# --- numbers ---


def test_too_many_connections(make_service: Callable[..., Service], log: list[dict[str, Any]]) -> None:
    """Connections past the limit are closed at once, said once a minute in the log; a place given up can be taken."""
    service = make_service(connections=2)
    first, second = service.connect(), service.connect()
    assert service.connect().refused
    first.leave()
    third = service.connect()
    assert not third.refused
    service.clock.advance(5)
    assert service.connect().refused
    assert ["TRACEROUTED_MAX_CONNECTIONS"] == [event["setting"] for event in warnings_in(log)]
    third.send(GET)
    second.send(GET)
    assert (200, 200) == (third.answer().status, second.answer().status)
    service.clock.advance(55)
    assert service.connect().refused
    assert 2 == len(warnings_in(log))


def test_too_many_requests_on_a_connection(make_service: Callable[..., Service]) -> None:
    """The last request allowed says so and closes; of a flood of pipelined ones no more is answered."""
    service = make_service(requests_per_connection=3)
    connection = send(service, GET * 20_000)
    answers = connection.answers()
    assert [None, None, "close"] == [answer.headers.get("connection") for answer in answers]
    assert connection.closed


def test_draining(service: Service) -> None:
    """Draining closes idle connections, answers what is under way, and keeps no connection open after that."""
    trace_id = service.post({"target": "example.net"}).json["id"]
    idle, fresh, waiting, half = send(service, GET), service.connect(), service.connect(), send(service, GET[:20])
    waiting.request("GET", f"/traces/{trace_id}", {"Prefer": "wait=5"})
    service.site.drain()
    assert (True, True, False, False) == (idle.closed, fresh.closed, waiting.closed, half.closed)
    service.engine.finish(trace_id)
    half.send(GET[20:])
    assert (200, 200) == (waiting.answer().status, half.answer().status)
    assert "close" == half.answer().headers["connection"]
    assert waiting.closed
    assert half.closed


# --- anything ---

tokens = st.sampled_from(
    [
        *(b"GET ", b"POST ", b"/traces", b"/traces/trace001", b"/events", b"?format=text", b"?limit=1"),
        *(b" HTTP/1.1\r\n", b"Host: a\r\n", b"Content-Length: 25\r\n", b"Transfer-Encoding: chunked\r\n"),
        *(b"\r\n", b"\r\n\r\n", b"Content-Type: application/json\r\n", b"19\r\n", b"0\r\n\r\n", b"%00", b"\xff"),
        *(b"\x00", b"Accept: text/plain\r\n", b"Prefer: wait=1\r\n", b"Last-Event-ID: 1\r\n", BODY, GET),
        *(b'If-None-Match: "x"\r\n', b"Expect: 100-continue\r\n", b"GET /traces/trace001 HTTP/1.1\r\nHost: a\r\n"),
        POST,
    ]
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.lists(tokens | st.binary(max_size=10), max_size=25).map(b"".join), cut=st.integers(1, 50))
def test_any_bytes(make_service: Callable[..., Service], data: bytes, cut: int) -> None:
    """No bytes bring a 500, an exception, or an answer that is no HTTP; every refusal is a problem document."""
    service = make_service()
    finished_trace(service)
    connection = service.connect()
    for start in range(0, len(data), cut):
        connection.send(data[start : start + cut])
    service.clock.pump([1] * 30)
    received = connection.received.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"")
    connection.transport.clear()
    connection.transport.io.write(received)
    for answer in connection.answers():
        assert answer.status != 500
        if answer.status >= 400:
            assert "application/problem+json" == answer.headers["content-type"]
    connection.leave()
    assert set() == service.site.connections
