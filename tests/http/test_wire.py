"""The model as JSON: shapes, key order, numbers and times."""

from __future__ import annotations

import json
from typing import Any

import pytest
from twisted.internet.task import Clock

from fake_engine import EPOCH, FakeEngine, hop_of, probe_of
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
    Protocol,
    Responder,
    Status,
    StatusEvent,
    StopReason,
    Target,
    Trace,
    TraceRequest,
)

STATS = HopStats(2, 1, 1, 50.0, 512.0, 512.4444, 512.0, 512.0, None, None)
PROBE = probe_of("192.0.2.1", 512, sent_at=EPOCH + 0.0004, mpls=(MplsLabel(100001, 1, 1, 254),))
HOP = Hop(
    1,
    (Responder("192.0.2.1", "r1.example.net", Asn(64500, "EXAMPLE"), (1,), 1),),
    (PROBE, probe_of(None)),
    STATS,
    True,
)
TARGET = Target("example.net", "192.0.2.9", Family.IPV4, ("192.0.2.9", "192.0.2.10"))


def trace(**changes: Any) -> Trace:
    given: dict[str, Any] = {
        "id": "abc",
        "status": Status.COMPLETED,
        "stop_reason": StopReason.REACHED,
        "reached": True,
        "revision": 17,
        "created_at": EPOCH,
        "started_at": EPOCH + 0.001,
        "finished_at": EPOCH + 1.9996,
        "expires_at": None,
        "request": TraceRequest(target="example.net"),
        "target": TARGET,
        "source_address": "198.51.100.7",
        "path_id": "9f2c",
        "hops": (HOP,),
        "paths": (Path(1, "9f2c", ("192.0.2.1", None)),),
        "error": None,
    }
    return Trace(**{**given, **changes})


EXPECTED_HOP = {
    "ttl": 1,
    "responders": [
        {
            "address": "192.0.2.1",
            "hostname": "r1.example.net",
            "asn": {"number": 64500, "name": "EXAMPLE"},
            "flows": [1],
            "received": 1,
        }
    ],
    "probes": [
        {
            "flow": 1,
            "sent_at": "2023-11-14T22:13:20.000Z",
            "outcome": "ttl_expired",
            "address": "192.0.2.1",
            "rtt_ms": 0.512,
            "mpls": [{"label": 100001, "tc": 1, "s": 1, "ttl": 254}],
            "error": None,
        },
        {
            "flow": 1,
            "sent_at": "2023-11-14T22:13:20.250Z",
            "outcome": "timeout",
            "address": None,
            "rtt_ms": None,
            "mpls": [],
            "error": None,
        },
    ],
    "stats": {
        "sent": 2,
        "received": 1,
        "lost": 1,
        "loss_pct": 50.0,
        "min_ms": 0.512,
        "avg_ms": 0.512,
        "median_ms": 0.512,
        "max_ms": 0.512,
        "stddev_ms": None,
        "jitter_ms": None,
    },
    "rate_limited": True,
}

EXPECTED = {
    "id": "abc",
    "status": "completed",
    "stop_reason": "reached",
    "reached": True,
    "revision": 17,
    "created_at": "2023-11-14T22:13:20.000Z",
    "started_at": "2023-11-14T22:13:20.001Z",
    "finished_at": "2023-11-14T22:13:22.000Z",
    "expires_at": None,
    "request": {
        "target": "example.net",
        "family": "any",
        "protocol": "icmp",
        "port": None,
        "source_port": None,
        "flows": 1,
        "first_ttl": 1,
        "max_ttl": 30,
        "probes": 3,
        "interval_ms": 50,
        "timeout_ms": 2000,
        "deadline_ms": 60000,
        "gap_limit": 8,
        "size": 64,
        "tos": 0,
        "resolve_names": True,
        "lookup_asn": False,
    },
    "target": {
        "host": "example.net",
        "address": "192.0.2.9",
        "family": "ipv4",
        "addresses": ["192.0.2.9", "192.0.2.10"],
    },
    "source_address": "198.51.100.7",
    "hop_count": 1,
    "path_id": "9f2c",
    "hops": [EXPECTED_HOP],
    "paths": [{"flow": 1, "path_id": "9f2c", "addresses": ["192.0.2.1", None]}],
    "error": None,
    "links": {"self": "/traces/abc", "events": "/traces/abc/events"},
}


def in_order(document: Any) -> str:
    """JSON with the keys in the order they have."""
    return json.dumps(document)


def test_a_trace() -> None:
    """A trace has the contract's fields, in the contract's order."""
    assert in_order(EXPECTED) == in_order(json.loads(encode_trace(trace())))


@pytest.mark.parametrize(
    ("protocol", "port", "expected"),
    [
        (Protocol.ICMP, None, None),
        (Protocol.UDP, None, 32434),
        (Protocol.TCP, None, 80),
        (Protocol.SCTP, None, 80),
        (Protocol.TCP, 443, 443),
    ],
)
def test_the_port_shown_is_the_port_used(protocol: Protocol, port: int | None, expected: int | None) -> None:
    """A request shows its protocol's default port, and none with icmp."""
    shown = json.loads(encode_trace(trace(request=TraceRequest(target="x", protocol=protocol, port=port))))
    assert expected == shown["request"]["port"]


def test_a_queued_trace_has_nulls() -> None:
    """What is not known yet is null."""
    fresh = trace(
        status=Status.QUEUED,
        stop_reason=None,
        reached=False,
        started_at=None,
        finished_at=None,
        target=None,
        source_address=None,
        path_id=None,
        hops=(),
        paths=(),
    )
    shown = json.loads(encode_trace(fresh))
    nulls = ["stop_reason", "started_at", "finished_at", "expires_at", "target", "source_address", "path_id", "error"]
    assert nulls == [name for name, value in shown.items() if value is None]
    assert (0, [], []) == (shown["hop_count"], shown["hops"], shown["paths"])


@pytest.mark.parametrize(
    ("us", "expected"), [(1, b"0.001"), (512, b"0.512"), (20001, b"20.001"), (123456789, b"123456.789")]
)
def test_rtts_have_at_most_three_decimals(us: int, expected: bytes) -> None:
    """Microseconds leave as exact milliseconds."""
    shown = encode_trace(trace(hops=(hop_of(1, (probe_of("192.0.2.1", us),)),)))
    assert b'"rtt_ms":' + expected + b"," in shown


def test_figures_are_rounded_to_three_decimals() -> None:
    """Statistics are rounded, not cut."""
    stats = HopStats(3, 3, 0, 100 / 3, 0.9996, 1000.4999, 1000.5, 1.0e9 / 3, 2 / 3, 0.0)
    shown = json.loads(encode_trace(trace(hops=(Hop(1, (), (), stats, False),))))["hops"][0]["stats"]
    expected = {"min_ms": 0.001, "avg_ms": 1.0, "median_ms": 1.0, "max_ms": 333333.333, "stddev_ms": 0.001}
    assert expected | {"jitter_ms": 0.0, "loss_pct": 33.333} == {
        k: shown[k] for k in [*expected, "jitter_ms", "loss_pct"]
    }


def test_a_page_leaves_out_the_hops() -> None:
    """A list shows traces without hops and paths, and the cursor of what follows."""
    shown = json.loads(encode_page(Page((trace(),), "next")))
    summary = {name: value for name, value in EXPECTED.items() if name not in ("hops", "paths")}
    assert in_order({"traces": [summary], "next_cursor": "next"}) == in_order(shown)


def frame(data: bytes) -> tuple[bytes, bytes, Any]:
    """The id, event and data of one complete frame."""
    assert data.endswith(b"\n\n")
    names, values = zip(*(line.split(b": ", 1) for line in data[:-2].split(b"\n")), strict=True)
    assert (b"id", b"event", b"data") == names
    return values[0], values[1], json.loads(values[2])


def test_a_status_event() -> None:
    """A status event has four fields."""
    data = encode_event(StatusEvent(2, Status.RUNNING, None, TARGET, "198.51.100.7"))
    expected = {
        "status": "running",
        "stop_reason": None,
        "target": EXPECTED["target"],
        "source_address": "198.51.100.7",
    }
    number, name, shown = frame(data)
    assert (b"2", b"status", in_order(expected)) == (number, name, in_order(shown))


@pytest.mark.parametrize("probe", [PROBE, None])
def test_a_hop_event(probe: Any) -> None:
    """A hop event is the hop without its probes, and the probe that changed it, null when none did."""
    data = encode_event(HopEvent(3, 1, HOP.responders, STATS, True, probe))
    expected = {name: EXPECTED_HOP[name] for name in ("ttl", "responders", "stats", "rate_limited")}
    expected["probe"] = None if probe is None else EXPECTED_HOP["probes"][0]
    number, name, shown = frame(data)
    assert (b"3", b"hop", in_order(expected)) == (number, name, in_order(shown))


def test_an_end_event() -> None:
    """The end event is the whole trace."""
    number, name, shown = frame(encode_event(EndEvent(17, trace())))
    assert (b"17", b"end", in_order(EXPECTED)) == (number, name, in_order(shown))


def test_a_line_break_in_a_name_does_not_break_the_frame() -> None:
    """No text can end a frame early."""
    responder = Responder("192.0.2.1", "a\n\nevent: end\r\x85\u2028", None, (1,), 1)
    _, _, shown = frame(encode_event(HopEvent(3, 1, (responder,), STATS, False, None)))
    assert responder.hostname == shown["responders"][0]["hostname"]


def test_outcomes_and_errors_are_words() -> None:
    """A probe that never left says why."""
    probe = probe_of(None, outcome=Outcome.ERROR, error="permission-denied")
    shown = json.loads(encode_trace(trace(hops=(hop_of(1, (probe,)),))))["hops"][0]["probes"][0]
    assert ("error", "permission-denied") == (shown["outcome"], shown["error"])


def test_the_fake_engine_counts_revisions() -> None:
    """The fake the other tests stand on numbers its events without a gap."""
    clock = Clock()
    engine = FakeEngine(clock)
    made = engine.submit(TraceRequest(target="example.net"))
    engine.start(made.id)
    engine.probe(made.id, 1, probe_of("192.0.2.1", 1))
    engine.finish(made.id)
    assert [1, 2, 3, 4, 5] == [event.revision for event in engine.follow(made.id, lambda: None).take()]
