"""Documents and events back to the model."""

from __future__ import annotations

import json
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from tracerouted.http.read import EventReader, Unreadable, read_trace
from tracerouted.http.wire import encode_event, encode_trace
from tracerouted.model import (
    Asn,
    EndEvent,
    Family,
    Hop,
    HopEvent,
    HopStats,
    MplsLabel,
    Outcome,
    Path,
    Probe,
    Protocol,
    Responder,
    Status,
    StatusEvent,
    StopReason,
    Target,
    Trace,
    TraceEvent,
    TraceRequest,
)

MOST = 1_000_000

counts = st.integers(0, 10_000)
times = st.integers(0, 4_000_000_000_000).map(lambda ms: ms / 1000)
addresses = st.ip_addresses().map(str)
texts = st.text(max_size=20)
figures = st.none() | st.integers(0, 20_000_000).map(float)
targets = st.builds(Target, texts, addresses, st.sampled_from(Family), st.lists(addresses, max_size=3).map(tuple))
labels = st.builds(MplsLabel, counts, counts, counts, counts)
probes = st.builds(
    Probe,
    counts,
    times,
    st.sampled_from(Outcome),
    st.none() | addresses,
    st.none() | st.integers(0, 20_000_000),
    st.lists(labels, max_size=3).map(tuple),
    st.none() | texts,
)
asns = st.builds(Asn, counts, st.none() | texts)
responders = st.builds(
    Responder, addresses, st.none() | texts, st.none() | asns, st.lists(counts, max_size=3).map(tuple), counts
)
responder_lists = st.lists(responders, max_size=3).map(tuple)
losses = st.none() | st.integers(0, 100_000).map(lambda thousandths: thousandths / 1000)
stats = st.builds(HopStats, counts, counts, counts, losses, *[figures] * 6)
hops = st.builds(Hop, counts, responder_lists, st.lists(probes, max_size=3).map(tuple), stats, st.booleans())
paths = st.builds(Path, counts, texts, st.lists(st.none() | addresses, max_size=3).map(tuple))
requests = st.builds(
    TraceRequest,
    target=texts,
    family=st.none() | st.sampled_from(Family),
    protocol=st.just(Protocol.UDP),
    port=st.integers(1, 32999),
    source_port=st.none() | st.integers(1024, 32900),
    flows=st.integers(1, 64),
    probes=st.integers(1, 100),
    size=st.integers(48, 1500),
    resolve_names=st.booleans(),
    lookup_asn=st.booleans(),
) | st.builds(TraceRequest, target=texts, first_ttl=st.integers(1, 5), max_ttl=st.integers(5, 64))
stop_reasons = st.none() | st.sampled_from(StopReason)
traces = st.builds(
    Trace,
    id=texts,
    status=st.sampled_from(Status),
    stop_reason=stop_reasons,
    reached=st.booleans(),
    revision=counts,
    created_at=times,
    started_at=st.none() | times,
    finished_at=st.none() | times,
    expires_at=st.none() | times,
    request=requests,
    target=st.none() | targets,
    source_address=st.none() | addresses,
    path_id=st.none() | texts,
    hops=st.lists(hops, max_size=3).map(tuple),
    paths=st.lists(paths, max_size=2).map(tuple),
    error=st.none() | texts,
)
events = st.one_of(
    st.builds(StatusEvent, counts, st.sampled_from(Status), stop_reasons, st.none() | targets, st.none() | addresses),
    st.builds(HopEvent, counts, counts, responder_lists, stats, st.booleans(), st.none() | probes),
    st.builds(EndEvent, counts, traces),
)

PLAIN = Trace(
    id="abc",
    status=Status.QUEUED,
    stop_reason=None,
    reached=False,
    revision=1,
    created_at=1.5,
    started_at=None,
    finished_at=None,
    expires_at=None,
    request=TraceRequest(target="example.net"),
    target=None,
    source_address=None,
    path_id=None,
    hops=(),
    paths=(),
    error=None,
)


@given(traces)
def test_a_trace_there_and_back(trace: Trace) -> None:
    """What was encoded is read as the same value, and encoded again as the same bytes."""
    encoded = encode_trace(trace)
    assert trace == read_trace(encoded)
    assert encoded == encode_trace(read_trace(encoded))


def test_finer_than_the_document() -> None:
    """Figures finer than a microsecond are lost once: the document read back is encoded as the same bytes."""
    fine = HopStats(3, 3, 0, 100 / 3, 1.0, 512.4567, 512.5, 600.0, 0.00049, 1 / 3)
    encoded = encode_trace(evolve(PLAIN, hops=(Hop(1, (), (), fine, False),)))
    assert encoded == encode_trace(read_trace(encoded))


def test_the_port_comes_back_filled_in() -> None:
    """A request without a port is read with the one that was used."""
    trace = evolve(PLAIN, request=TraceRequest(target="example.net", protocol=Protocol.TCP))
    assert 80 == read_trace(encode_trace(trace)).request.port


@given(st.lists(events, max_size=4), st.data())
def test_a_stream_in_any_pieces(given_events: list[TraceEvent], data: Any) -> None:
    """A stream cut anywhere gives the events it was made of."""
    stream = b"retry: 2000\n\n" + b":\n\n".join(map(encode_event, given_events))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    reader = EventReader(MOST)
    found = [
        event
        for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)
        for event in reader.feed(stream[start:end])
    ]
    # An end event's revision is its id in the stream, whatever its trace says.
    assert given_events == found


def test_what_else_a_stream_may_hold() -> None:
    """Comments, carriage returns, unknown fields and events, and events without an id are passed over."""
    status = json.dumps({"status": "running", "stop_reason": None, "target": None, "source_address": None})
    stream = (
        ": hello\r\nfield\r\nwhat: ever\r\nid: 3\r\nevent: news\r\ndata: {}\r\n\r\n"
        f"id: 4\r\nevent:status\r\ndata:{status}\r\n\r\n"
        f"id: x\nevent: status\ndata: {status}\n\n"
        "id: 6\nevent: status\n\n"
    )
    found = list(EventReader(MOST).feed(stream.encode()))
    assert [StatusEvent(4, Status.RUNNING, None, None, None)] == found


@pytest.mark.parametrize("piece", [b"x" * 101, b"data: x\n" * 20])
def test_an_event_without_end(piece: bytes) -> None:
    """What an event may hold is bounded, on one line or on many."""
    with pytest.raises(Unreadable):
        list(EventReader(100).feed(piece))


def test_a_newer_service() -> None:
    """Members that are not known are ignored."""
    document = json.loads(encode_trace(PLAIN)) | {"colour": "blue"}
    assert PLAIN == read_trace(json.dumps(document).encode())


@pytest.mark.parametrize(
    "wrong",
    [{"status": "odd"}, {"revision": "1"}, {"revision": True}, {"hops": [1]}, {"created_at": "now"}, {"id": None}],
)
def test_a_wrong_member(wrong: dict[str, Any]) -> None:
    """A member of another kind makes the document unreadable."""
    document = json.loads(encode_trace(PLAIN)) | wrong
    with pytest.raises(Unreadable):
        read_trace(json.dumps(document).encode())


@given(st.binary() | st.recursive(st.none() | st.integers() | texts, st.lists).map(lambda j: json.dumps(j).encode()))
def test_nonsense(body: bytes) -> None:
    """Nothing but Unreadable comes of what is no trace."""
    with pytest.raises(Unreadable):
        read_trace(body)
