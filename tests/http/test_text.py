"""The text of traceroute(8), read back with the parser other people use."""

from __future__ import annotations

from typing import Any

import jc
import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from fake_engine import FakeEngine, hop_of, probe_of
from tracerouted.http.formats.text import hop_line, render
from tracerouted.model import Family, Hop, Outcome, Probe, Status, StopReason, Target, Trace, TraceRequest

R1, R2, TARGET = "192.0.2.1", "198.51.100.1", "192.0.2.9"


def trace_of(*hops: Hop, **changes: Any) -> Trace:
    """A finished trace with these hops."""
    engine = FakeEngine(Clock())
    made = engine.submit(TraceRequest(target="example.net"))
    engine.start(made.id)
    engine.finish(made.id)
    return evolve(engine.get(made.id), hops=hops, **changes)


def parsed(trace: Trace) -> dict[str, Any]:
    return jc.parse("traceroute", render(trace).decode(), quiet=True)


def test_the_layout() -> None:
    """Header, two-column numbers, a name once per responder, stars and marks."""
    trace = trace_of(
        hop_of(1, (probe_of(R1, 512), probe_of(R1, 498), probe_of(R1, 601)), {R1: "r1.example.net"}),
        hop_of(2, (probe_of(None), probe_of(None), probe_of(None))),
        hop_of(3, (probe_of(R2, 9004), probe_of("198.51.100.5", 9114), probe_of(None))),
        hop_of(
            10,
            (
                probe_of(TARGET, 20001, Outcome.UNREACHABLE),
                probe_of(None),
                probe_of(TARGET, 20480, Outcome.UNREACHABLE),
            ),
        ),
    )
    expected = (
        "traceroute to example.net (192.0.2.9), 30 hops max, 64 byte packets\n"
        " 1  r1.example.net (192.0.2.1)  0.512 ms  0.498 ms  0.601 ms\n"
        " 2  * * *\n"
        " 3  198.51.100.1 (198.51.100.1)  9.004 ms 198.51.100.5 (198.51.100.5)  9.114 ms *\n"
        "10  192.0.2.9 (192.0.2.9)  20.001 ms !H *  20.480 ms !H\n"
    )
    assert expected == render(trace).decode()


def test_jc_reads_it() -> None:
    """`jc --traceroute` finds destination, hops, names, addresses, RTTs and marks."""
    trace = trace_of(
        hop_of(1, (probe_of(R1, 512), probe_of(R1, 498)), {R1: "r1.example.net"}),
        hop_of(2, (probe_of(None), probe_of(None))),
        hop_of(3, (probe_of(R2, 9004), probe_of("198.51.100.5", 9114, Outcome.UNREACHABLE))),
    )
    read = parsed(trace)
    assert ("example.net", TARGET, 30, 64) == tuple(
        read[name] for name in ("destination_name", "destination_ip", "max_hops", "data_bytes")
    )
    assert [1, 2, 3] == [hop["hop"] for hop in read["hops"]]
    shown = [[(p["name"], p["ip"], p["rtt"], p["annotation"]) for p in hop["probes"]] for hop in read["hops"]]
    assert [("r1.example.net", R1, 0.512, None), ("r1.example.net", R1, 0.498, None)] == shown[0]
    assert [(R2, R2, 9.004, None), ("198.51.100.5", "198.51.100.5", 9.114, "!H")] == shown[2]


def test_jc_reads_ipv6() -> None:
    """IPv6 routes are read as well."""
    trace = trace_of(
        hop_of(1, (probe_of("2001:db8::1", 512),)),
        target=Target("example.net", "2001:db8::9", Family.IPV6, ("2001:db8::9",)),
    )
    read = parsed(trace)
    assert "2001:db8::9" == read["destination_ip"]
    assert [("2001:db8::1", 0.512)] == [(p["ip"], p["rtt"]) for p in read["hops"][0]["probes"]]


@pytest.mark.parametrize(
    ("probes", "expected"),
    [
        ((probe_of(R1, None),), f" 1  {R1} ({R1})  ? ms\n"),
        ((probe_of(None, outcome=Outcome.PENDING),), ""),
        ((probe_of(None, outcome=Outcome.PENDING), probe_of(R1, 1000)), f" 1  {R1} ({R1})  1.000 ms\n"),
        ((probe_of(None, outcome=Outcome.ERROR, error="permission-denied"),), " 1  !E\n"),
        ((probe_of(None, outcome=Outcome.ERROR), probe_of(None)), " 1  *\n"),
        ((), ""),
    ],
)
def test_what_has_no_place_in_the_layout(probes: tuple[Probe, ...], expected: str) -> None:
    """A pending or failed probe is never a star, and an RTT nobody knows is no number."""
    assert expected == hop_line(hop_of(1, probes))


def test_why_it_stopped() -> None:
    """A failed or cancelled trace says so last, and a parser is not confused by it."""
    hops = (hop_of(1, (probe_of(R1, 512),)),)
    failed = trace_of(
        *hops, status=Status.FAILED, stop_reason=StopReason.ERROR, error="network is down", reached=False
    )
    assert render(failed).decode().endswith("traceroute: example.net: network is down\n")
    assert 1 == len(parsed(failed)["hops"])
    unresolved = trace_of(status=Status.FAILED, target=None, error="the name does not resolve", reached=False)
    assert b"traceroute: example.net: the name does not resolve\n" == render(unresolved)
    cancelled = trace_of(*hops, status=Status.CANCELLED, stop_reason=StopReason.CANCELLED, reached=False)
    assert render(cancelled).decode().endswith("traceroute: example.net: cancelled\n")


answers = st.tuples(st.sampled_from([R1, R2, TARGET]), st.integers(1, 10_000_000))


@given(st.lists(st.lists(answers | st.none(), min_size=1, max_size=4), min_size=1, max_size=12))
def test_jc_finds_every_answer(route: list[list[tuple[str, int] | None]]) -> None:
    """Whatever answered, jc reads the same addresses and times, hop by hop."""
    hops = [
        hop_of(ttl, tuple(probe_of(None) if answer is None else probe_of(*answer) for answer in hop))
        for ttl, hop in enumerate(route, 1)
    ]
    read = parsed(trace_of(*hops))
    expected = [[(a[0], a[1] / 1000) for a in hop if a is not None] for hop in route]
    found = [[(p["ip"], p["rtt"]) for p in hop["probes"] if p["rtt"] is not None] for hop in read["hops"]]
    assert expected == found
