"""The document of `mtr --json`, held against mtr itself."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest
from attrs import evolve
from twisted.internet.task import Clock

from fake_engine import EPOCH, FakeEngine, hop_of, probe_of
from netsim import Lab
from tracer_worker import TracerWorker
from tracerouted.http.formats.mtr import render
from tracerouted.model import Asn, Hop, Outcome, Protocol, Trace, TraceRequest

R1, R2 = "192.0.2.1", "198.51.100.1"


def trace_of(*hops: Hop, **fields: Any) -> Trace:
    """A trace with these hops; `fields` are those of the request."""
    engine = FakeEngine(Clock())
    made = engine.submit(TraceRequest(target="example.net", **fields))
    engine.start(made.id)
    return evolve(engine.get(made.id), hops=hops)


def hubs_of(trace: Trace) -> list[dict[str, Any]]:
    return json.loads(render(trace))["report"]["hubs"]  # type: ignore[no-any-return]


def shape(document: Any) -> Any:
    """Keys in their order and types, of all members."""
    match document:
        case dict():
            return [(name, shape(value)) for name, value in document.items()]
        case list():
            return [shape(value) for value in document]
    return type(document).__name__


def test_the_document() -> None:
    """Key for key what mtr prints, with its indentation."""
    hop = hop_of(1, (probe_of(R1, 512), probe_of(None), probe_of(R1, 598)), {R1: "r1.example.net"})
    expected = {
        "report": {
            "mtr": {
                "src": "198.51.100.7",
                "dst": "example.net",
                "tos": 32,
                "tests": 3,
                "psize": "100",
                "bitpattern": "0x00",
            },
            "hubs": [
                {
                    "count": 1,
                    "host": "r1.example.net",
                    "Loss%": 33.333,
                    "Snt": 3,
                    "Last": 0.598,
                    "Avg": 0.555,
                    "Best": 0.512,
                    "Wrst": 0.598,
                    "StDev": 0.0,
                }
            ],
        }
    }
    rendered = render(trace_of(hop, tos=32, size=100)).decode()
    assert json.dumps(expected, indent=4) + "\n" == rendered


@pytest.mark.parametrize(
    "hop",
    [
        hop_of(2, (probe_of(None), probe_of(None))),
        hop_of(2, (probe_of(None, outcome=Outcome.PENDING),)),
        hop_of(2, (probe_of(None, outcome=Outcome.ERROR),)),
    ],
    ids=["silent", "pending", "never left"],
)
def test_a_hop_nobody_answered_at(hop: Hop) -> None:
    """An unknown host is "???", and all its times are 0.0."""
    (hub,) = hubs_of(trace_of(hop))
    assert "???" == hub["host"]
    assert [0.0] * 5 == [hub[name] for name in ("Last", "Avg", "Best", "Wrst", "StDev")]
    assert (100.0 if hop.stats.lost else 0.0) == hub["Loss%"]
    assert hop.stats.sent == hub["Snt"]


def test_the_last_answer_counts() -> None:
    """Of several responders the hub names the one that answered last, whose time is Last."""
    early = probe_of(R2, 900_000, sent_at=EPOCH)
    late = probe_of(R1, 1000, sent_at=EPOCH + 0.5)
    (hub,) = hubs_of(trace_of(hop_of(1, (early, late))))
    assert (R2, 900.0) == (hub["host"], hub["Last"])


def test_asn() -> None:
    """Where AS numbers were asked for, the host is followed by one, or by AS???."""
    known = hop_of(1, (probe_of(R1, 512),))
    known = evolve(known, responders=(evolve(known.responders[0], asn=Asn(64500, "EXAMPLE")),))
    hops = (known, hop_of(2, (probe_of(R2, 512),)), hop_of(3, (probe_of(None),)))
    hubs = hubs_of(trace_of(*hops, lookup_asn=True))
    assert ["AS64500", "AS???", "AS???"] == [hub["ASN"] for hub in hubs]
    assert ["count", "host", "ASN", "Loss%"] == list(hubs[0])[:4]
    assert not any("ASN" in hub for hub in hubs_of(trace_of(*hops)))


def test_several_flows_count_together() -> None:
    """`tests` is what every hop was sent, in all flows."""
    document = json.loads(render(trace_of(protocol=Protocol.UDP, flows=4, probes=2)))
    assert 8 == document["report"]["mtr"]["tests"]


def test_a_hidden_source() -> None:
    """A source address that is not shown is unknown, as a string."""
    document = json.loads(render(evolve(trace_of(), source_address=None)))
    assert "???" == document["report"]["mtr"]["src"]


@pytest.mark.skipif(shutil.which("mtr") is None, reason="mtr is not installed")
def test_like_mtr_itself(lab: Lab) -> None:
    """For the same routes: the same keys, order and types as mtr's, the same hosts and counts, and times near its."""
    names = ["plain", "silent-middle", "lossy-middle", "mpls"]
    with TracerWorker() as worker:
        for name in names:
            address = lab.address(name, "ipv4")
            lab.reset()
            theirs = json.loads(lab.run(["mtr", "-n", "--json", "-c", "3", "-i", "0.2", address]).stdout)
            lab.reset()
            trace = worker.trace(target=address, interval_ms=200)
            ours = json.loads(render(trace))
            assert shape(theirs) == shape(ours)
            assert {**theirs["report"]["mtr"], "src": ""} == {**ours["report"]["mtr"], "src": ""}
            for their, our in zip(theirs["report"]["hubs"], ours["report"]["hubs"], strict=True):
                for same in ("count", "host", "Loss%", "Snt"):
                    assert their[same] == our[same], (name, their, our)
                # The simulated routes take 2 ms per hop; a busy machine adds to it, to the fastest answer the least.
                takes = 2.0 * our["count"] if our["Best"] else 0.0
                assert all(takes - 0.5 <= hub["Best"] <= takes + 200 for hub in (their, our)), (name, their, our)
                assert our["Best"] <= our["Avg"] <= our["Wrst"]
                assert our["Best"] <= our["Last"] <= our["Wrst"]
