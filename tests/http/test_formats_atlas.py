"""RIPE Atlas results, read by RIPE's own parser with malformations raising."""

from __future__ import annotations

import json
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from ripe.atlas.sagan import Result, TracerouteResult
from twisted.internet.task import Clock

from fake_engine import EPOCH, FakeEngine, hop_of, probe_of
from fake_http import Service
from netsim import Lab
from tracer_worker import TracerWorker
from tracerouted.http.formats.atlas import render
from tracerouted.http.problems import ProblemError
from tracerouted.model import Family, Hop, MplsLabel, Outcome, Protocol, Status, StopReason, Trace, TraceRequest

R1, R2, TARGET = "192.0.2.1", "198.51.100.1", "192.0.2.9"


def trace_of(*hops: Hop, address: str = TARGET, **fields: Any) -> Trace:
    """A finished trace with these hops; `fields` are those of the request."""
    clock = Clock()
    engine = FakeEngine(clock)
    made = engine.submit(TraceRequest(target="example.net", **fields))
    engine.start(made.id, address)
    clock.advance(2.5)
    engine.finish(made.id)
    return evolve(engine.get(made.id), hops=hops)


def read(trace: Trace) -> TracerouteResult:
    """What their parser makes of the one element."""
    (element,) = json.loads(render(trace))
    result = Result.get(element, on_malformation=Result.ACTION_FAIL, on_error=Result.ACTION_IGNORE)
    assert isinstance(result, TracerouteResult)
    assert not result.is_malformed
    return result


def test_the_document() -> None:
    """One element, with the keys of firmware 5080."""
    label = MplsLabel(300016, 5, 1, 254)
    trace = trace_of(
        hop_of(1, (probe_of(R1, 512, mpls=(label,)), probe_of(None))),
        hop_of(2, (probe_of(R2, 0, Outcome.UNREACHABLE), probe_of(None, outcome=Outcome.ERROR, error="denied"))),
    )
    icmpext = {
        "version": 2,
        "rfc4884": 0,
        "obj": [{"class": 1, "type": 1, "mpls": [{"label": 300016, "exp": 5, "s": 1, "ttl": 254}]}],
    }
    expected = {
        "fw": 5080,
        "type": "traceroute",
        "msm_id": 0,
        "prb_id": 0,
        "timestamp": int(EPOCH),
        "endtime": int(EPOCH + 2.5),
        "af": 4,
        "dst_name": "example.net",
        "dst_addr": TARGET,
        "src_addr": "198.51.100.7",
        "from": "198.51.100.7",
        "proto": "ICMP",
        "size": 36,
        "paris_id": 0,
        "result": [
            {"hop": 1, "result": [{"from": R1, "rtt": 0.512, "icmpext": icmpext}, {"x": "*"}]},
            {"hop": 2, "result": [{"from": R2, "rtt": 0.001, "err": "H"}, {"error": "denied"}]},
        ],
    }
    assert [expected] == json.loads(render(trace))
    assert list(expected) == list(json.loads(render(trace))[0])


def test_sagan_reads_it() -> None:
    """Protocol, addresses, hops, RTTs, unreachables and label stacks are found; silence is silence."""
    label = MplsLabel(24017, 3, 0, 1)
    result = read(
        trace_of(
            hop_of(1, (probe_of(R1, 512, mpls=(label,)), probe_of(None))),
            hop_of(2, (probe_of(None), probe_of(None))),
            hop_of(3, (probe_of(R2, 9004, Outcome.UNREACHABLE),)),
            hop_of(4, (probe_of(TARGET, 20001, Outcome.REPLY),)),
        )
    )
    assert (4, "ICMP", TARGET, "198.51.100.7") == (
        result.af,
        result.protocol,
        result.destination_address,
        result.source_address,
    )
    assert int(EPOCH + 2.5) == result.end_time_timestamp
    assert [[R1, None], [None, None], [R2], [TARGET]] == result.ip_path
    assert [0.512, None] == [packet.rtt for packet in result.hops[0].packets]
    assert [{"label": 24017, "exp": 3, "s": 0, "ttl": 1}] == (
        result.hops[0].packets[0].icmp_header.objects[0]["mpls"]
    )
    assert "Destination unreachable" == result.hops[2].packets[0].error_message
    assert result.destination_ip_responded
    assert result.is_success


@pytest.mark.parametrize(
    ("protocol", "address", "size", "expected"),
    [
        (Protocol.ICMP, "2001:db8::9", 64, ("ICMP", 6, 16)),
        (Protocol.UDP, TARGET, 64, ("UDP", 4, 36)),
        (Protocol.TCP, TARGET, 64, ("TCP", 4, 24)),
        (Protocol.TCP, "2001:db8::9", 48, ("TCP", 6, 0)),
    ],
)
def test_protocols(protocol: Protocol, address: str, size: int, expected: tuple[str, int, int]) -> None:
    """Protocols are in upper case; the size is the payload's."""
    result = read(trace_of(protocol=protocol, address=address, size=size))
    assert expected == (result.protocol, result.af, result.size)


@pytest.mark.parametrize(("flows", "paris_id"), [(1, 1), (4, 0)])
def test_paris(flows: int, paris_id: int) -> None:
    """One UDP flow is a Paris traceroute; several are none."""
    assert paris_id == read(trace_of(protocol=Protocol.UDP, flows=flows)).paris_id


def test_sctp_has_no_equivalent() -> None:
    """A protocol RIPE Atlas does not know is 406."""
    with pytest.raises(ProblemError) as refused:
        render(trace_of(protocol=Protocol.SCTP))
    assert 406 == refused.value.kind.status


def test_a_name_that_did_not_resolve() -> None:
    """A trace without a target reads as a DNS error, not as a malformed result."""
    trace = evolve(
        trace_of(),
        target=None,
        source_address=None,
        status=Status.FAILED,
        stop_reason=StopReason.ERROR,
        error="example.net does not exist",
    )
    result = read(trace)
    assert (True, "example.net does not exist") == (result.is_error, result.error_message)


def test_what_is_not_told() -> None:
    """Probes in flight are left out, and hops with nothing else; an unknown RTT is no number."""
    pending = probe_of(None, outcome=Outcome.PENDING)
    trace = trace_of(hop_of(1, (probe_of(R1, None), pending)), hop_of(2, (pending,)))
    assert [{"hop": 1, "result": [{"from": R1}]}] == json.loads(render(trace))[0]["result"]
    assert [[R1]] == read(trace).ip_path


answers = st.tuples(st.sampled_from([R1, R2, TARGET]), st.integers(0, 10_000_000))


@given(st.lists(st.lists(answers | st.none(), min_size=1, max_size=4), min_size=1, max_size=12))
def test_sagan_finds_every_answer(route: list[list[tuple[str, int] | None]]) -> None:
    """Whatever answered, their parser reads the same addresses and times, hop by hop."""
    result = read(
        trace_of(
            *(
                hop_of(ttl, tuple(probe_of(None) if answer is None else probe_of(*answer) for answer in hop))
                for ttl, hop in enumerate(route, 1)
            )
        )
    )
    expected = [[(None, None) if a is None else (a[0], max(1, a[1]) / 1000) for a in hop] for hop in route]
    assert expected == [[(packet.origin, packet.rtt) for packet in hop.packets] for hop in result.hops]


@pytest.mark.parametrize("name", ["plain", "silent-middle", "mpls", "host-unreachable", "admin-prohibited", "ecmp"])
@pytest.mark.parametrize("family", list(Family))
def test_real_traces(lab: Lab, name: str, family: Family) -> None:
    """Traces of the simulated internet are read as what they found, MPLS and unreachables included."""
    with TracerWorker() as worker:
        trace = worker.trace(target=lab.address(name, family), probes=2)
    result = read(trace)
    assert [hop.ttl for hop in trace.hops] == [hop.index for hop in result.hops]
    assert [[probe.address for probe in hop.probes] for hop in trace.hops] == result.ip_path
    assert trace.reached == result.is_success == result.destination_ip_responded
    found = [[packet.is_error for packet in hop.packets] for hop in result.hops]
    assert [[probe.outcome is Outcome.UNREACHABLE for probe in hop.probes] for hop in trace.hops] == found
    stacks = [
        [
            tuple(map(tuple, (label.values() for label in packet.icmp_header.objects[0]["mpls"])))
            for packet in hop.packets
        ]
        for hop in result.hops
        if hop.packets[0].icmp_header
    ]
    assert [
        [tuple(map(tuple, probe.mpls)) for probe in hop.probes] for hop in trace.hops if hop.probes[0].mpls
    ] == stacks
    assert (name == "mpls") == bool(stacks)


@pytest.mark.parametrize(("name", "first"), [("mtr", b'{\n    "report"'), ("atlas", b'[{"fw":5080,')])
def test_asked_for(service: Service, name: str, first: bytes) -> None:
    """A format is had by its name and by its media type; JSON stays what anything gets."""
    service.engine.submit(TraceRequest(target="example.net"))
    path, media_type = "/traces/trace001", f"application/vnd.tracerouted.{name}+json"
    by_name = service.ask("GET", f"{path}?format={name}")
    by_type = service.ask("GET", path, {"Accept": media_type})
    assert [(200, media_type)] * 2 == [(each.status, each.headers["content-type"]) for each in (by_name, by_type)]
    assert by_name.body == by_type.body
    assert by_name.body.startswith(first)
    for anything in ("*/*", "application/*", f"{media_type};q=0.5, application/json"):
        assert "application/json" == service.ask("GET", path, {"Accept": anything}).headers["content-type"]


def test_refused_over_http(service: Service) -> None:
    """A protocol without an equivalent is a problem document, and leaves no validator behind."""
    service.engine.submit(TraceRequest(target="example.net", protocol=Protocol.SCTP))
    answer = service.ask("GET", "/traces/trace001?format=atlas")
    assert (406, "not-acceptable") == (answer.status, answer.type)
    assert "etag" not in answer.headers
    assert 200 == service.ask("GET", "/traces/trace001?format=mtr").status
