"""Raw bytes at the edge: framing, limits, time."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fake_http import Connection, Service, finished_trace, json_body

GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST /traces HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
BODY = b'{"target": "example.net"}'


def send(service: Service, data: bytes) -> Connection:
    connection = service.connect()
    connection.send(data)
    return connection


def errors_in(log: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event for event in log if event["log_level"].name in ("warn", "error", "critical")]


# --- framing ---

SMUGGLING = {
    "length and chunked": POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + GET,
    "chunked and length": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + GET,
    "two lengths": POST + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}" + GET,
    "two different lengths": POST + b"Content-Length: 2\r\nContent-Length: 40\r\n\r\n{}" + GET,
    "a list of lengths": POST + b"Content-Length: 2, 2\r\n\r\n{}" + GET,
    "signed length": POST + b"Content-Length: +2\r\n\r\n{}" + GET,
    "negative length": POST + b"Content-Length: -1\r\n\r\n" + GET,
    "hexadecimal length": POST + b"Content-Length: 0x2\r\n\r\n{}" + GET,
    "empty length": POST + b"Content-Length:\r\n\r\n" + GET,
    "length of 19 digits": POST + b"Content-Length: " + b"0" * 18 + b"2\r\n\r\n{}" + GET,
    "length of 5,000 digits": POST + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n" + GET,
    "length with a space before the colon": POST + b"Content-Length : 2\r\n\r\n{}" + GET,
    "an unknown coding": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + GET,
    "the identity coding": POST + b"Transfer-Encoding: identity\r\nContent-Length: 2\r\n\r\n{}" + GET,
    "two codings": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + GET,
    "chunked twice": POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + GET,
    "a chunk size that is no number": POST + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n{}\r\n0\r\n\r\n" + GET,
    "a signed chunk size": POST + b"Transfer-Encoding: chunked\r\n\r\n+2\r\n{}\r\n0\r\n\r\n" + GET,
    "a chunk longer than its size": POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{}\r\n0\r\n\r\n" + GET,
    "an endless chunk size": POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"0" * 2000,
    "a bare line feed in a field": POST + b"X: a\nContent-Length: 2\r\n\r\n" + GET,
    "a bare carriage return in a field": POST + b"X: a\rb\r\n\r\n" + GET,
    "a NUL in a field": POST + b"X: a\x00b\r\n\r\n" + GET,
    "a field without a colon": POST + b"nonsense\r\n\r\n" + GET,
    "a field name with a space": POST + b"X Y: a\r\n\r\n" + GET,
    "a folded first field": b"GET /healthz HTTP/1.1\r\n Host: localhost\r\n\r\n" + GET,
    "a line of nonsense": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n" + GET,
    "no version": b"GET /healthz\r\n\r\n" + GET,
    "version 0.9": b"GET /healthz HTTP/0.9\r\n\r\n" + GET,
    "version 2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + GET,
    "a method that is none": b"G@T /healthz HTTP/1.1\r\n\r\n" + GET,
    "a space in the target": b"GET /health z HTTP/1.1\r\nHost: a\r\n\r\n" + GET,
    "a tab in the target": b"GET /health\tz HTTP/1.1\r\nHost: a\r\n\r\n" + GET,
    "long headers": b"GET /healthz HTTP/1.1\r\nHost: a\r\n"
    + b"X: "
    + b"y" * 8000
    + b"\r\nZ: "
    + b"y" * 9000
    + b"\r\n\r\n",
    "one long header": b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 20_000,
    "a long request line": b"GET /" + b"y" * 20_000,
    "many headers": b"GET /healthz HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 600 + b"\r\n" + GET,
}


@pytest.mark.parametrize("name", SMUGGLING)
@pytest.mark.parametrize("step", [1_000_000, 7])
def test_framing_nobody_can_be_sure_of(service: Service, log: list[dict[str, Any]], name: str, step: int) -> None:
    """Doubtful framing is one 400 problem, however it arrives; nothing behind it is taken for a request."""
    connection = service.connect()
    data = SMUGGLING[name]
    for start in range(0, len(data), step):
        connection.send(data[start : start + step])
    answer = connection.answer()
    assert (400, "malformed") == (answer.status, answer.type)
    assert "application/problem+json" == answer.headers["content-type"]
    assert "close" == answer.headers["connection"]
    assert connection.closed
    assert [] == service.engine.submitted
    assert [] == errors_in(log)


def test_a_good_chunked_body(service: Service) -> None:
    """A chunked body is as good as one with a length, and the connection stays usable."""
    chunks = b"".join(b"%x;ext=1\r\n%b\r\n" % (1, BODY[i : i + 1]) for i in range(len(BODY)))
    connection = send(
        service, POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\nTrailer: x\r\n\r\n" + GET
    )
    assert [202, 200] == [answer.status for answer in connection.answers()]


def test_pipelined_requests(service: Service) -> None:
    """Requests on one connection are answered in order, also while one waits."""
    trace_id = service.post({"target": "example.net"}).json["id"]
    waiting = f"GET /traces/{trace_id} HTTP/1.1\r\nHost: a\r\nPrefer: wait=5\r\n\r\n".encode()
    connection = send(service, GET + waiting + GET)
    assert 1 == len(connection.answers())
    service.engine.finish(trace_id)
    assert [{"status": "ok"}, trace_id, {"status": "ok"}] == [a.json.get("id", a.json) for a in connection.answers()]


def test_expect_continue(service: Service) -> None:
    """Who asks first is told to go on, unless the body is too large anyway."""
    expecting = POST + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n"
    assert b"HTTP/1.1 100 Continue\r\n\r\n" == send(service, expecting % 100).received
    assert 413 == send(service, expecting % 100_000).answer().status


# --- Host and path ---


@pytest.mark.parametrize(
    "host",
    [
        b"localhost",
        b"LOCALHOST:8080",
        b"a.example.",
        b"a_b.example:80",
        b"192.0.2.1:80",
        b"[::1]",
        b"[2001:db8::1]:8080",
        b"x" * 63,
    ],
)
def test_hosts(service: Service, host: bytes) -> None:
    """Names, addresses and ports are fine."""
    assert 200 == send(service, b"GET /healthz HTTP/1.1\r\nHost: %b\r\n\r\n" % host).answer().status


@pytest.mark.parametrize(
    "fields",
    [
        b"",
        b"Host: a\r\nHost: a\r\n",
        b"Host: a\r\nHost: b\r\n",
        b"Host:\r\n",
        b"Host: a..b\r\n",
        b"Host: " + b"x" * 300 + b"\r\n",
        b"Host: " + b"x" * 64 + b".example\r\n",
        b"Host: " + b"abcdefgh." * 40 + b"\r\n",
        b"Host: a b\r\n",
        b"Host: a/b\r\n",
        b"Host: user@a\r\n",
        b"Host: a:b\r\n",
        b"Host: a:1234567\r\n",
        b"Host: [::1\r\n",
        b"Host: [x]\r\n",
        b"Host: \xc3\xbc.example\r\n",
        b"Host: <script>\r\n",
    ],
)
def test_bad_hosts(service: Service, log: list[dict[str, Any]], fields: bytes) -> None:
    """No Host, two, or one that is no host is 400, quietly."""
    answer = send(service, b"GET /healthz HTTP/1.1\r\n%b\r\n" % fields).answer()
    assert (400, "malformed", "/healthz") == (answer.status, answer.type, answer.json["instance"])
    assert [] == errors_in(log)


def test_http_1_0(service: Service) -> None:
    """HTTP/1.0 needs no Host and closes; two are wrong there too."""
    connection = send(service, b"GET /healthz HTTP/1.0\r\n\r\n")
    assert 200 == connection.answer().status
    assert connection.closed
    assert 400 == send(service, b"GET /healthz HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n").answer().status


def test_the_absolute_form(service: Service) -> None:
    """A target with its origin is routed by its path (RFC 9112 section 3.2.2); its host is checked as well."""
    form = b"GET %b HTTP/1.1\r\nHost: other\r\n\r\n"
    assert 200 == send(service, form % b"http://localhost:8080/healthz").answer().status
    assert 404 == send(service, form % b"HTTP://localhost").answer().status
    assert 400 == send(service, form % b"http://a..b/healthz").answer().status


PATHS = {
    b"/%ff": 400,
    b"/traces/%c3%28": 400,
    b"/traces/%00": 400,
    b"/traces/a%0d%0aSet-Cookie:%20x": 400,
    b"/traces/%7f": 400,
    b"/traces/\x80": 400,
    b"healthz": 400,
    b"*": 400,
    b"ftp://localhost/healthz": 400,
    b"/traces/%": 404,
    b"/traces/%zz": 404,
    b"/traces/%C3%BC": 404,
    b"/traces/a%2fb": 404,
    b"//healthz": 404,
    b"/traces//x": 404,
    b"/healthz/": 404,
    b"/../healthz": 404,
    b"/traces/..%2f..%2fetc%2fpasswd": 404,
    b"/<script>alert(1)</script>": 404,
    b"/" + b"x" * 10_000: 404,
    b"/%2f/healthz": 404,
    b"/" + b"/" * 5000: 404,
}


@pytest.mark.parametrize(("path", "status"), PATHS.items(), ids=[repr(p)[:30] for p in PATHS])
def test_paths(service: Service, log: list[dict[str, Any]], path: bytes, status: int) -> None:
    """A path that can't be read is 400, one that leads nowhere 404: both problems, both quiet, never a redirect."""
    answer = send(service, b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % path).answer()
    assert status == answer.status
    assert answer.type in ("malformed", "not-found")
    assert [] == errors_in(log)


def test_options_of_the_server(service: Service) -> None:
    """OPTIONS * is answered; another method on * is not."""
    answer = send(service, b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").answer()
    assert (204, b"") == (answer.status, answer.body)


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


@pytest.mark.parametrize(("size", "status"), [(16_384, 202), (16_385, 413)])
@pytest.mark.parametrize("chunked", [True, False])
def test_exactly_16_kib(service: Service, size: int, status: int, chunked: bool) -> None:
    """A body of 16 KiB is taken, one byte more isn't, however it is framed."""
    body = BODY + b" " * (size - len(BODY))
    if chunked:
        half = len(body) // 2
        framed = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:half], body[half:]))
        data = POST + b"Transfer-Encoding: chunked\r\n\r\n" + framed + b"0\r\n\r\n"
    else:
        data = POST + b"Content-Length: %d\r\n\r\n" % len(body) + body
    assert status == send(service, data).answer().status
    assert (status == 202) == bool(service.engine.submitted)


def test_two_faults_at_once(service: Service, log: list[dict[str, Any]]) -> None:
    """A body that is too large and malformed has one answer, the first."""
    body = b"4001\r\n" + b" " * 0x4001 + b"\r\nxyz\r\n"
    connection = send(service, POST + b"Transfer-Encoding: chunked\r\n\r\n" + body)
    assert 413 == connection.answer().status
    assert [] == errors_in(log)


@pytest.mark.usefixtures("no_files")
def test_a_body_that_is_not_asked_for(service: Service) -> None:
    """A small body on a GET is read past."""
    connection = send(service, b"GET /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc" + GET)
    assert [200, 200] == [answer.status for answer in connection.answers()]


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


# --- numbers ---


def test_too_many_connections(make_service: Callable[..., Service], log: list[dict[str, Any]]) -> None:
    """Connections past the limit are closed at once, said once in the log; a place given up can be taken."""
    service = make_service(connections=2)
    first, second = service.connect(), service.connect()
    assert service.connect().refused
    assert service.connect().refused
    assert ["TRACEROUTED_MAX_CONNECTIONS"] == [event["setting"] for event in errors_in(log)]
    first.leave()
    third = service.connect()
    assert not third.refused
    third.send(GET)
    second.send(GET)
    assert (200, 200) == (third.answer().status, second.answer().status)


def test_too_many_requests_on_a_connection(make_service: Callable[..., Service]) -> None:
    """The last request allowed says so and closes; of a flood of pipelined ones no more is answered."""
    service = make_service(requests_per_connection=3)
    connection = send(service, GET * 20_000)
    answers = connection.answers()
    assert [None, None, "close"] == [answer.headers.get("connection") for answer in answers]
    assert connection.closed


def test_connection_close_is_kept(service: Service) -> None:
    """A client that asks to close is told so, and what it sends afterwards is dropped."""
    closing = GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    connection = send(service, closing + GET)
    assert "close" == connection.answer().headers["connection"]
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
