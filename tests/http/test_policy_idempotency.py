"""Idempotency-Key: a POST sent again answers with the trace of the first."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock

from fake_engine import FakeEngine, probe_of
from fake_http import Service, json_body
from tracerouted.http import Policy
from tracerouted.http.idempotency import MOST_KEY_LENGTH, CreatedTraces, idempotency_key
from tracerouted.http.problems import ProblemError
from tracerouted.http.quota import Quota
from tracerouted.jobs.engine import Busy
from tracerouted.model import TraceRequest

BODY = {"target": "example.net"}
KEY = {"Idempotency_Key": '"8e03978e"'}


# --- the field ---


@pytest.mark.parametrize(
    ("field", "key"), [('"a"', b"a"), (' "a b" ', b"a b"), (r'"\"\\"', b'"\\'), ('"' + "a" * 255 + '"', b"a" * 255)]
)
def test_key(field: str, key: bytes) -> None:
    """A string in quotes, in which quotes and backslashes are escaped."""
    assert key == idempotency_key(field.encode())


@pytest.mark.parametrize(
    "field", ["", "a", '""', '"a', '"a"b"', '"a", "b"', r'"\a"', '"\t"', '"\xe9"', "?1", '"' + "a" * 256 + '"']
)
def test_no_key(service: Service, field: str) -> None:
    """Anything else is 400, and no trace is made."""
    answer = service.post(BODY, Idempotency_Key=field)
    assert (400, "malformed") == (answer.status, answer.type)
    assert "Idempotency-Key" in answer.json["detail"]
    assert [] == service.engine.submitted


@given(st.one_of(st.binary(), st.binary().map(lambda inner: b'"' + inner + b'"')))
def test_no_field_breaks_the_reader(field: bytes) -> None:
    """Any bytes are a key or the one problem."""
    with suppress(ProblemError):
        assert 1 <= len(idempotency_key(field)) <= MOST_KEY_LENGTH


@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=MOST_KEY_LENGTH))
def test_every_string_is_a_key(text: str) -> None:
    """Every printable ASCII string, written as RFC 9651 has it, is read back."""
    written = text.replace("\\", "\\\\").replace('"', '\\"')
    assert text.encode() == idempotency_key(f'"{written}"'.encode())


# --- the same trace ---


def test_the_same_trace(service: Service) -> None:
    """Sent again, the first trace is answered with: 202 while it runs, 201 once it has ended."""
    first = service.post(BODY, **KEY)
    again = service.post(BODY, **KEY)
    assert (202, 202) == (first.status, again.status)
    assert "/traces/trace001" == first.headers["location"] == again.headers["location"]
    assert first.json == again.json
    service.engine.finish("trace001")
    ended = service.post(BODY, **KEY)
    assert (201, "/traces/trace001", "completed") == (ended.status, ended.headers["location"], ended.json["status"])
    assert 1 == len(service.engine.submitted)


@pytest.mark.parametrize(
    "other",
    [
        {"probes": 3, "target": "EXAMPLE.net."},
        {"target": "example.net", "protocol": "icmp", "max_ttl": 30.0, "family": "any"},
    ],
)
def test_what_a_body_means_counts(service: Service, other: dict[str, Any]) -> None:
    """Order, spelling and defaults written out make no other request."""
    service.post(BODY, **KEY)
    assert "/traces/trace001" == service.post(other, **KEY).headers["location"]


def test_the_request_a_trace_shows_is_the_same(service: Service) -> None:
    """What a trace shows as its request, its default port filled in, is the request it was made by."""
    plain = {"target": "example.net", "protocol": "udp"}
    shown = service.post(plain, **KEY).json["request"]
    assert shown["port"]
    for same in (shown, plain):
        assert "/traces/trace001" == service.post(same, **KEY).headers["location"]


def test_another_body(service: Service) -> None:
    """Another request under the same key is 422 and makes nothing."""
    service.post(BODY, **KEY)
    answer = service.post({**BODY, "probes": 2}, **KEY)
    assert (422, "invalid-request") == (answer.status, answer.type)
    assert "Idempotency-Key" in answer.json["detail"]
    assert 1 == len(service.engine.submitted)


def test_another_key(service: Service) -> None:
    """Another key, or none, is another trace."""
    for headers in (KEY, {"Idempotency_Key": '"other"'}, {}, {}):
        service.post(BODY, **headers)
    assert 4 == len(service.engine.submitted)


def test_another_client(service: Service) -> None:
    """A key is its client's own."""
    service.post(BODY, **KEY)
    service.peer = IPv4Address("TCP", "192.0.2.78", 40000)
    assert "/traces/trace002" == service.post(BODY, **KEY).headers["location"]


def test_a_refusal_is_not_kept(service: Service) -> None:
    """A request that made no trace may be sent again with its key; one that did is answered even when busy."""
    service.engine.refuse = Busy("full", 7)
    assert 503 == service.post(BODY, **KEY).status
    service.engine.refuse = None
    assert 202 == service.post(BODY, **KEY).status
    service.engine.refuse = Busy("full", 7)
    assert 202 == service.post(BODY, **KEY).status


def test_no_quota_is_spent(make_service: Callable[..., Service]) -> None:
    """What is sent again costs nothing, and is answered when the quota is spent."""
    service = make_service(lambda clock: Policy(quota=Quota(1, clock)))
    assert [202, 202, 202] == [service.post(BODY, **KEY).status for _ in range(3)]
    assert 429 == service.post(BODY).status
    assert 202 == service.post(BODY, **KEY).status


def test_waiting_again(service: Service) -> None:
    """`Prefer: wait` waits for the trace of the first request."""
    service.post(BODY, **KEY)
    connection = service.connect()
    connection.request("POST", "/traces", *json_body(BODY, {**KEY, "Prefer": "wait=5"}))
    assert b"" == connection.received
    service.engine.finish("trace001")
    answer = connection.answer()
    assert (201, "/traces/trace001", "wait=5") == (
        answer.status,
        answer.headers["location"],
        answer.headers["preference-applied"],
    )


@pytest.mark.parametrize("accept", ["text/event-stream", "text/plain"])
@pytest.mark.parametrize("ended", [False, True])
def test_streaming_again(service: Service, accept: str, ended: bool) -> None:
    """A stream asked for again is the same trace's from its beginning, also when that has ended."""
    streams = []
    for _ in range(2):
        connection = service.connect()
        connection.request("POST", "/traces", *json_body(BODY, {**KEY, "Accept": accept}))
        if not streams:
            service.engine.start("trace001")
            service.engine.probe("trace001", 1, probe_of("192.0.2.9", 512))
        if ended != bool(streams):
            service.engine.finish("trace001")
        streams.append(connection)
    service.clock.pump([0, 0, 0])
    first, second = (connection.answer() for connection in streams)
    assert (200, "/traces/trace001") == (first.status, first.headers["location"])
    assert (first.headers, first.body) == (second.headers, second.body)
    assert first.body
    assert 1 == len(service.engine.submitted)


# --- how long ---


def test_a_key_goes_with_its_trace(service: Service) -> None:
    """Once the trace is deleted or expired its key makes a new one, of any request."""
    service.post(BODY, **KEY)
    service.ask("DELETE", "/traces/trace001")
    assert "/traces/trace002" == service.post({**BODY, "probes": 2}, **KEY).headers["location"]
    assert "/traces/trace002" == service.post({**BODY, "probes": 2}, **KEY).headers["location"]


def test_the_table_is_bounded() -> None:
    """The oldest keys go first; those whose traces are gone go by themselves."""
    engine = FakeEngine(Clock())
    created = CreatedTraces(engine, most=3)
    request = TraceRequest(target="example.net")

    def create(key: bytes) -> str:
        trace_id = engine.submit(request).id
        created.remember("a", key, request, trace_id)
        return trace_id

    ids = [create(b"%d" % n) for n in range(5)]
    assert 3 == len(created)
    assert [None, None, *ids[2:]] == [created.find("a", b"%d" % n, request) for n in range(5)]
    for trace_id in ids[2:]:
        engine.cancel(trace_id)
    create(b"last")
    assert 1 == len(created)
