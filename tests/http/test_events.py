"""Streams: server-sent events and text, their back-pressure, and every way of leaving them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from fake_engine import probe_of
from fake_http import Connection, Service, finished_trace, json_body
from tracerouted.http.events import CHUNK_BYTES, UNSENT_BYTES
from tracerouted.model import Outcome, Status, StopReason

Frames = list[tuple[int, str, Any]]


def frames(body: bytes) -> Frames:
    """The events of a stream as (id, name, data); comments and the retry field are left out."""
    assert body.endswith(b"\n\n")
    found = []
    for block in body.decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":") and line)
        if "data" in fields:
            found.append((int(fields["id"]), fields["event"], json.loads(fields["data"])))
    return found


def follow(service: Service, trace_id: str, **headers: str) -> Connection:
    connection = service.connect()
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request("GET", f"/traces/{trace_id}/events", given)
    return connection


def queued(service: Service) -> str:
    return service.post({"target": "example.net"}).json["id"]


def turn(service: Service) -> None:
    """A turn of the reactor: whoever was told to look does."""
    service.clock.advance(0)


def open_streams(service: Service) -> int:
    return sum(len(job.followers) for job in service.engine.jobs.values())


# --- what is told ---


def test_from_the_first_event_to_the_end(service: Service) -> None:
    """A stream tells every event once, in order, and closes after `end`, which is the whole trace."""
    trace_id = queued(service)
    connection = follow(service, trace_id)
    service.engine.start(trace_id)
    turn(service)
    service.engine.probe(trace_id, 1, probe_of("192.0.2.1", 512), probe_of(None))
    turn(service)
    service.engine.finish(trace_id)
    turn(service)
    answer = connection.answer()
    assert (200, "text/event-stream; charset=utf-8") == (answer.status, answer.headers["content-type"])
    assert ("no-store", "no") == (answer.headers["cache-control"], answer.headers["x-accel-buffering"])
    told = frames(answer.body)
    assert [(1, "status"), (2, "status"), (3, "hop"), (4, "hop"), (5, "status"), (6, "end")] == [
        frame[:2] for frame in told
    ]
    assert service.get(f"/traces/{trace_id}").json == told[-1][2]
    assert connection.received.endswith(b"0\r\n\r\n")
    assert 1 == answer.body.count(b"retry: 2000\n")
    assert 0 == open_streams(service)


def test_the_connection_can_be_used_again(service: Service) -> None:
    """After the end of a stream the same connection takes a next request."""
    trace_id = finished_trace(service)
    connection = follow(service, trace_id)
    connection.request("GET", "/healthz")
    assert [200, 200] == [answer.status for answer in connection.answers()]


def test_headers_go_out_before_the_first_event(service: Service) -> None:
    """A reader knows at once that it is connected."""
    connection = follow(service, queued(service), Last_Event_ID="1")
    assert connection.received.startswith(b"HTTP/1.1 200 ")
    assert [] == frames(connection.answer().body)


def test_a_late_reader(service: Service) -> None:
    """Who comes late gets all there was, in one write, and then what follows."""
    trace_id = queued(service)
    service.engine.start(trace_id)
    service.engine.probe(trace_id, 1, *[probe_of("192.0.2.1", n) for n in range(1, 6)])
    connection = follow(service, trace_id)
    assert [1, 2, 3, 4, 5, 6, 7] == [number for number, _, _ in frames(connection.answer().body)]
    service.engine.finish(trace_id)
    turn(service)
    assert [1, 2, 3, 4, 5, 6, 7, 8, 9] == [number for number, _, _ in frames(connection.answer().body)]


@pytest.mark.parametrize("last", range(1, 7))
def test_resuming(service: Service, last: int) -> None:
    """`Last-Event-ID` resumes right behind that event, in whatever state the trace is by then."""
    trace_id = queued(service)
    service.engine.start(trace_id)
    service.engine.probe(trace_id, 1, *[probe_of("192.0.2.1", n) for n in range(1, 5)])
    connection = follow(service, trace_id, Last_Event_ID=str(last))
    service.engine.finish(trace_id)
    turn(service)
    assert list(range(last + 1, 9)) == [number for number, _, _ in frames(connection.answer().body)]


def test_resuming_after_the_end(service: Service) -> None:
    """After the last event of a finished trace the answer is 204, which stops a browser's reconnecting."""
    trace_id = finished_trace(service)
    last = service.engine.get(trace_id).revision
    assert 204 == follow(service, trace_id, Last_Event_ID=str(last)).answer().status
    assert 0 == open_streams(service)
    before = follow(service, trace_id, Last_Event_ID=str(last - 1)).answer().body
    assert ["end"] == [name for _, name, _ in frames(before)]


def test_resuming_between_the_last_change_and_the_end(service: Service) -> None:
    """A trace that is done but still learns names has an end to come: who resumes gets it."""
    trace_id = queued(service)
    service.engine.start(trace_id)
    service.engine.finish(trace_id, seal=False)
    connection = follow(service, trace_id, Last_Event_ID=str(service.engine.get(trace_id).revision))
    assert connection.received.startswith(b"HTTP/1.1 200 ")
    service.engine.seal(trace_id)
    turn(service)
    assert ["end"] == [name for _, name, _ in frames(connection.answer().body)]


@pytest.mark.parametrize("last", ["", "x", "-1", "1.0", "6", "999999999999999", "9" * 5000, "1, 1"])
def test_an_id_that_was_never_told(service: Service, last: str) -> None:
    """A Last-Event-ID that isn't one of the trace's is 400: nothing would be resumed."""
    answer = follow(service, finished_trace(service), Last_Event_ID=last).answer()
    assert (400, "malformed") == (answer.status, answer.type)


def test_not_as_json(service: Service) -> None:
    """Events come as an event stream only."""
    assert 406 == follow(service, queued(service), Accept="application/json").answer().status
    assert 0 == open_streams(service)


def test_head_follows_nothing(service: Service) -> None:
    """HEAD has the fields of a stream and opens none."""
    trace_id = queued(service)
    connection = service.connect()
    connection.request("HEAD", f"/traces/{trace_id}/events")
    answer = connection.answer("HEAD")
    assert (200, "text/event-stream; charset=utf-8") == (answer.status, answer.headers["content-type"])
    assert 0 == open_streams(service)


def test_creating_as_a_stream(service: Service) -> None:
    """POST with `Accept: text/event-stream` is 200, the trace's Location, and its events."""
    connection = service.connect()
    connection.request("POST", "/traces", *json_body({"target": "example.net"}, {"Accept": "text/event-stream"}))
    service.engine.start("trace001")
    service.engine.finish("trace001")
    turn(service)
    answer = connection.answer()
    assert (200, "/traces/trace001") == (answer.status, answer.headers["location"])
    assert ["status", "status", "status", "end"] == [name for _, name, _ in frames(answer.body)]


def test_deleting_ends_streams(service: Service) -> None:
    """Who follows a trace that is deleted gets its end, and the stream closes."""
    trace_id = queued(service)
    connection = follow(service, trace_id)
    service.ask("DELETE", f"/traces/{trace_id}")
    turn(service)
    _, name, trace = frames(connection.answer().body)[-1]
    assert ("end", "cancelled") == (name, trace["status"])
    assert connection.received.endswith(b"0\r\n\r\n")
    assert 0 == open_streams(service)


# --- time ---


def test_comments(service: Service) -> None:
    """A comment goes out every 15 s, until the stream ends."""
    trace_id = queued(service)
    connection = follow(service, trace_id)
    before = connection.answer().body
    service.clock.advance(14.9)
    assert before == connection.answer().body
    service.clock.pump([0.1, 15, 15])
    assert before + b":\n\n" * 3 == connection.answer().body
    service.engine.finish(trace_id)
    turn(service)
    ended = connection.received
    service.clock.advance(60)
    assert ended == connection.received


def test_one_write_a_turn(service: Service) -> None:
    """Whatever happens in one turn leaves as one write."""
    trace_id = queued(service)
    connection = follow(service, trace_id)
    before = len(connection.received)
    service.engine.start(trace_id)
    service.engine.probe(trace_id, 1, *[probe_of("192.0.2.1", n) for n in range(1, 25)])
    assert before == len(connection.received)
    turn(service)
    chunk = connection.received[before:]
    size, _, rest = chunk.partition(b"\r\n")
    assert int(size, 16) == len(rest) - 2


# --- slow readers ---


def flood(service: Service, trace_id: str, events: int, ttl: int = 1) -> None:
    """Events of about 450 bytes each."""
    for n in range(events):
        service.engine.probe(trace_id, ttl, probe_of("192.0.2.1", n + 1), keep=1)


def stalled(service: Service) -> tuple[str, Connection]:
    """A reader that stops reading after the headers, with the transport full."""
    trace_id = queued(service)
    connection = follow(service, trace_id)
    connection.transport.reading = False
    flood(service, trace_id, 200)
    turn(service)
    turn(service)
    assert connection.transport.paused
    return trace_id, connection


def test_a_full_transport_is_not_written_to(service: Service) -> None:
    """While a reader takes nothing, nothing more is buffered for it, not even comments."""
    trace_id, connection = stalled(service)
    unread = len(connection.transport.unread)
    assert unread < CHUNK_BYTES + UNSENT_BYTES + 1000
    flood(service, trace_id, 500)
    turn(service)
    service.clock.advance(16)
    assert unread == len(connection.transport.unread)


def test_catching_up(service: Service) -> None:
    """A reader that reads again gets everything, once and in order."""
    trace_id, connection = stalled(service)
    flood(service, trace_id, 1000)
    turn(service)
    service.clock.advance(29)
    connection.transport.reading = True
    while connection.transport.paused:
        connection.transport.take()
    service.engine.finish(trace_id)
    service.clock.pump([0] * 20)
    told = frames(connection.answer().body)
    assert list(range(1, 1204)) == [number for number, _, _ in told]
    service.clock.advance(60)
    assert not connection.transport.aborted
    assert connection.received.endswith(b"0\r\n\r\n")


def test_stalled_too_long(service: Service, log: list[dict[str, Any]]) -> None:
    """A reader that takes nothing for 30 s is dropped; the log names the setting; it can resume."""
    trace_id, connection = stalled(service)
    service.clock.advance(29.9)
    assert not connection.transport.aborted
    service.clock.advance(0.1)
    assert connection.transport.aborted
    assert 0 == open_streams(service)
    assert any("TRACEROUTED_STREAM_STALLED_S" == event.get("setting") for event in log)
    connection.settle()
    assert [200, 201] == [n for n, _, _ in frames(follow(service, trace_id, Last_Event_ID="199").answer().body)]


def test_too_far_behind(service: Service, log: list[dict[str, Any]]) -> None:
    """A reader more than 1 MiB behind is dropped, no sooner."""
    trace_id, connection = stalled(service)
    size = len(service.engine.jobs[trace_id].events[-1][1])
    flood(service, trace_id, 1_048_576 // size - 200)
    turn(service)
    assert not connection.transport.aborted
    flood(service, trace_id, 400)
    turn(service)
    assert connection.transport.aborted
    assert 0 == open_streams(service)
    assert any("TRACEROUTED_STREAM_BEHIND_BYTES" == event.get("setting") for event in log)


def test_a_large_event_in_pieces(make_service: Callable[..., Service]) -> None:
    """An event larger than all buffers reaches a slow reader whole, because every piece taken is progress."""
    service = make_service(stream_behind_bytes=10_000_000)
    trace_id = queued(service)
    for ttl in range(1, 6):
        service.engine.probe(trace_id, ttl, *[probe_of("192.0.2.1", n + 1) for n in range(400)])
    service.engine.finish(trace_id)
    end = len(service.engine.jobs[trace_id].events[-1][1])
    assert end > 200_000
    last = service.engine.get(trace_id).revision - 1
    connection = service.connect()
    connection.transport.reading = False
    connection.request("GET", f"/traces/{trace_id}/events", {"Last-Event-ID": str(last)})
    pieces = 0
    while not connection.received.endswith(b"0\r\n\r\n"):
        pieces += 1
        assert len(connection.transport.unread) < CHUNK_BYTES + UNSENT_BYTES + 1000
        service.clock.advance(20)
        connection.transport.take()
    assert pieces >= 3
    assert not connection.transport.aborted
    ((_, name, _),) = frames(connection.answer().body)
    assert "end" == name


# --- leaving ---


def test_the_client_leaves(service: Service, log: list[dict[str, Any]]) -> None:
    """A client that goes away leaves nothing behind, and cancels nothing."""
    trace_id = queued(service)
    connection = follow(service, trace_id)
    assert 1 == open_streams(service)
    connection.leave()
    assert 0 == open_streams(service)
    assert [] == service.clock.getDelayedCalls()
    assert not service.engine.get(trace_id).status.terminal
    service.engine.start(trace_id)
    turn(service)
    assert [] == [event for event in log if event["log_level"].name in ("warn", "error", "critical")]


def test_a_stalled_client_leaves(service: Service) -> None:
    """The same with a full transport."""
    _, connection = stalled(service)
    connection.protocol.stopProducing()
    connection.leave()
    assert 0 == open_streams(service)
    assert [] == service.clock.getDelayedCalls()


def test_a_fault_in_the_engine(service: Service, log: list[dict[str, Any]]) -> None:
    """A bug while streaming is logged once and closes the connection, because the status is already told."""
    trace_id = queued(service)
    connection = follow(service, trace_id)
    service.engine.jobs[trace_id].events.append(("nonsense", None))
    service.engine.jobs[trace_id].followers[0].wake()
    turn(service)
    assert connection.transport.aborted
    connection.settle()
    assert 1 == len([event for event in log if "log_failure" in event])
    assert [] == service.clock.getDelayedCalls()


def test_too_many_streams(make_service: Callable[..., Service]) -> None:
    """One stream too many is 503 and names the setting; a place given up can be taken."""
    service = make_service(streams=2)
    trace_id = queued(service)
    first, _ = follow(service, trace_id), follow(service, trace_id)
    for answer in (
        follow(service, trace_id).answer(),
        service.post({"target": "example.net"}, Accept="text/event-stream"),
        service.post({"target": "example.net"}, Accept="text/plain"),
    ):
        assert (503, "busy", "5") == (answer.status, answer.type, answer.headers["retry-after"])
        assert "TRACEROUTED_MAX_STREAMS" in answer.json["detail"]
    assert 1 == len(service.engine.submitted)
    first.leave()
    assert 200 == follow(service, trace_id).answer().status


# --- text ---


def text_stream(service: Service, **request: Any) -> Connection:
    connection = service.connect()
    document = {"target": "example.net", "probes": 2, **request}
    connection.request("POST", "/traces", *json_body(document, {"Accept": "text/plain"}))
    return connection


def lines(connection: Connection) -> list[str]:
    return connection.answer().body.decode().splitlines()


HEADER = "traceroute to example.net (192.0.2.9), 30 hops max, 64 byte packets"


def test_text_as_hops_settle(service: Service) -> None:
    """A hop's line goes out once it and all hops before it are settled; the rest when the trace ends."""
    connection = text_stream(service)
    answer = connection.answer()
    assert (200, "/traces/trace001", "text/plain; charset=utf-8") == (
        answer.status,
        answer.headers["location"],
        answer.headers["content-type"],
    )
    service.engine.start("trace001")
    turn(service)
    assert [HEADER] == lines(connection)
    service.engine.probe("trace001", 2, probe_of("192.0.2.2", 2000), probe_of("192.0.2.2", 2001))
    service.engine.probe("trace001", 1, probe_of("192.0.2.1", 1000))
    turn(service)
    assert [HEADER] == lines(connection)
    service.engine.probe("trace001", 1, probe_of(None))
    turn(service)
    settled = [HEADER, " 1  192.0.2.1 (192.0.2.1)  1.000 ms *", " 2  192.0.2.2 (192.0.2.2)  2.000 ms  2.001 ms"]
    assert settled == lines(connection)
    service.engine.probe("trace001", 3, probe_of("192.0.2.9", 3000))
    turn(service)
    assert settled == lines(connection)
    service.engine.finish("trace001")
    turn(service)
    assert [*settled, " 3  192.0.2.9 (192.0.2.9)  3.000 ms"] == lines(connection)
    assert connection.received.endswith(b"0\r\n\r\n")
    assert connection.answer().body == service.get("/traces/trace001?format=text").body
    assert 0 == open_streams(service)


def test_text_waits_for_pending_probes(service: Service) -> None:
    """A hop with a probe in flight isn't settled, however many answers it had."""
    connection = text_stream(service)
    service.engine.start("trace001")
    pending = probe_of(None, outcome=Outcome.PENDING)
    service.engine.probe("trace001", 1, probe_of("192.0.2.1", 1000), pending, probe_of("192.0.2.1", 1100))
    turn(service)
    assert [HEADER] == lines(connection)


def test_text_from_the_first_ttl(service: Service) -> None:
    """Lines begin at first_ttl."""
    connection = text_stream(service, first_ttl=4)
    service.engine.start("trace001")
    service.engine.probe("trace001", 4, probe_of(None), probe_of(None))
    turn(service)
    assert " 4  * *" == lines(connection)[-1]


def test_text_of_a_name_that_does_not_resolve(service: Service) -> None:
    """A trace without a target says why."""
    connection = text_stream(service)
    service.engine.finish("trace001", Status.FAILED, StopReason.ERROR, error="the name does not resolve")
    turn(service)
    assert ["traceroute: example.net: the name does not resolve"] == lines(connection)


def test_text_of_a_deleted_trace(service: Service) -> None:
    """Deleting ends the text as well."""
    connection = text_stream(service)
    service.engine.start("trace001")
    service.ask("DELETE", "/traces/trace001")
    turn(service)
    assert [HEADER, "traceroute: example.net: cancelled"] == lines(connection)
    assert connection.received.endswith(b"0\r\n\r\n")


def test_text_client_leaves(service: Service) -> None:
    """Leaving a text stream leaves nothing behind."""
    connection = text_stream(service)
    connection.leave()
    assert 0 == open_streams(service)
    assert [] == service.clock.getDelayedCalls()
