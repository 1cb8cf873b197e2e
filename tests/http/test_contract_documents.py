"""`openapi.yaml` says what the service tells: whatever the model can hold, its documents are as the schemas say."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract_checks import CONTRACT, SCHEMAS, check, component, event_schemas, parsed
from tracerouted import model
from tracerouted.http import problems
from tracerouted.http.formats import FORMATS
from tracerouted.http.wire import encode_event, encode_page, encode_trace
from tracerouted.jobs.engine import Page
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
    TraceRequest,
)

times = st.floats(0, 4e9)
rtts = st.none() | st.integers(0, 10**8)
figures = st.none() | st.floats(0, 1e8)
words = st.none() | st.text(max_size=20)
addresses = st.ip_addresses().map(str)
maybe_address = st.none() | addresses
flows = st.integers(1, 64)
labels = st.builds(MplsLabel, st.integers(0, 2**20 - 1), st.integers(0, 7), st.integers(0, 1), st.integers(0, 255))
probes = st.builds(
    Probe, flows, times, st.sampled_from(Outcome), maybe_address, rtts, st.lists(labels, max_size=3).map(tuple), words
)
responders = st.lists(
    st.builds(
        Responder,
        addresses,
        words,
        st.none() | st.builds(Asn, st.integers(0, 2**32 - 1), words),
        st.lists(flows, max_size=3).map(tuple),
        st.integers(0),
    ),
    max_size=2,
).map(tuple)
counts = st.integers(0, 6400)
stats = st.builds(HopStats, counts, counts, counts, st.none() | st.floats(0, 100), *[figures] * 6)
ttls = st.integers(1, 64)
hops = st.builds(Hop, ttls, responders, st.lists(probes, max_size=3).map(tuple), stats, st.booleans())
targets = st.builds(
    Target, st.text(max_size=20), addresses, st.sampled_from(Family), st.lists(addresses, max_size=2).map(tuple)
)
requests = st.builds(
    TraceRequest,
    target=st.just("example.net"),
    family=st.none() | st.sampled_from(Family),
    protocol=st.sampled_from(Protocol),
    size=st.integers(48, 1500),
)
traces = st.builds(
    Trace,
    id=st.from_regex(r"[A-Za-z0-9_-]{22}", fullmatch=True),
    status=st.sampled_from(Status),
    stop_reason=st.none() | st.sampled_from(StopReason),
    reached=st.booleans(),
    revision=st.integers(0, 10**9),
    created_at=times,
    started_at=st.none() | times,
    finished_at=st.none() | times,
    expires_at=st.none() | times,
    request=requests,
    target=st.none() | targets,
    source_address=maybe_address,
    path_id=st.none() | st.text("0123456789abcdef", min_size=16, max_size=16),
    hops=st.lists(hops, max_size=2).map(tuple),
    paths=st.lists(
        st.builds(Path, flows, st.text(max_size=16), st.lists(maybe_address, max_size=3).map(tuple)), max_size=2
    ).map(tuple),
    error=words,
)
revisions = st.integers(0, 10**9)
events = st.one_of(
    st.builds(
        StatusEvent,
        revisions,
        st.sampled_from(Status),
        st.none() | st.sampled_from(StopReason),
        st.none() | targets,
        maybe_address,
    ),
    st.builds(HopEvent, revisions, ttls, responders, stats, st.booleans(), st.none() | probes),
    st.builds(EndEvent, revisions, traces),
)


@given(traces)
def test_traces(trace: Trace) -> None:
    """Whatever trace there may be, its document is as the contract says."""
    check(component("Trace"), json.loads(encode_trace(trace)))


@given(st.lists(traces, max_size=2).map(tuple), st.none() | st.just("AAAAAAAAAAI"))
def test_pages(shown: tuple[Trace, ...], cursor: str | None) -> None:
    """A page of the list is as the contract says."""
    check(component("TraceList"), json.loads(encode_page(Page(shown, cursor))))


@given(traces, st.sampled_from(["mtr", "atlas"]))
def test_foreign_formats(trace: Trace, name: str) -> None:
    """What is made for readers of mtr and RIPE Atlas is as the contract says."""
    content = CONTRACT["paths"]["/traces/{trace_id}"]["get"]["responses"]["200"]["content"]
    chosen = FORMATS[name]
    if name == "atlas" and trace.request.protocol is Protocol.SCTP:  # which they have no word for
        with pytest.raises(problems.ProblemError):
            chosen.render(trace)
    else:
        check(content[chosen.media_type]["schema"], json.loads(chosen.render(trace)))


@given(events)
def test_events(event: model.TraceEvent) -> None:
    """Every event is as the contract says, and its data too."""
    fields = parsed(encode_event(event).decode().removesuffix("\n\n"))
    check(component("Event"), fields)
    check(event_schemas()[fields["event"]], json.loads(fields["data"]))


ALL_REQUIRED = [
    name
    for name, schema in SCHEMAS.items()
    if schema.get("type") == "object"
    and name not in ("TraceRequest", "Families", "Problem", "NotReadyProblem", "MtrHub", "AtlasPacket")
]


@pytest.mark.parametrize("name", ALL_REQUIRED)
def test_nothing_more_and_nothing_less(name: str) -> None:
    """Every member of an answer is always there, and there are no others."""
    schema = SCHEMAS[name]
    assert schema["additionalProperties"] is False
    assert sorted(schema["required"]) == sorted(schema["properties"])
