"""What the metrics count: each figure against what happened."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.names import dns

from fake_prober import straight
from metrics_world import TARGET, World
from tracerouted.durations import Durations
from tracerouted.metrics import FAULTS
from tracerouted.model import Asn, Family, TraceRequest
from tracerouted.naming.describer import Describer


@pytest.fixture
def world() -> World:
    """A service that has done nothing yet."""
    return World()


# --- the parts ------------------------------------------------------------------------------------------------------


def test_durations() -> None:
    """A duration counts in the first bucket whose bound is not below it, and in all above; the last is infinite."""
    durations = Durations((0.1, 1.0))
    for seconds in (0.05, 0.1, 0.100001, 1.0, 7.0):
        durations.add(seconds)
    assert [(0.1, 2), (1.0, 4), (float("inf"), 5)] == list(durations.cumulative())
    assert 8.250001 == pytest.approx(durations.total_s)
    other = Durations((0.1, 1.0))
    other.add(0.5)
    assert [(0.1, 2), (1.0, 5), (float("inf"), 6)] == list((durations + other).cumulative())
    assert 8.750001 == pytest.approx((durations + other).total_s)


# --- traces and probes ----------------------------------------------------------------------------------------------


def test_traces_by_end(world: World) -> None:
    """Every trace is counted once, by how and why it ended, its protocol and its family."""
    world.trace()
    world.trace(protocol="tcp")
    world.trace("2606:4700::1")
    world.trace("example.net")
    expected = {
        ("completed", "reached", "icmp", "ipv4"): 1,
        ("completed", "reached", "tcp", "ipv4"): 1,
        ("completed", "reached", "icmp", "ipv6"): 1,
        ("failed", "error", "icmp", "none"): 1,
    }
    names = ("status", "stop_reason", "protocol", "family")
    assert expected == {
        labels: world.value("traces_ended_total", **dict(zip(names, labels, strict=True))) for labels in expected
    }
    assert 4 == sum(value for name, value in world.samples().items() if name.startswith("tracerouted_traces_ended"))


def test_cancelled_traces(world: World) -> None:
    """A trace deleted while it runs counts as cancelled; deleting a finished one counts nothing."""
    finished = world.trace()
    running = world.engine.submit(TraceRequest(target=TARGET.format(2))).id
    world.engine.cancel(running)
    world.engine.cancel(finished)
    labels = {"protocol": "icmp", "family": "ipv4"}
    assert 1 == world.value("traces_ended_total", status="cancelled", stop_reason="cancelled", **labels)
    assert 1 == world.value("traces_ended_total", status="completed", stop_reason="reached", **labels)


def test_durations_of_traces(world: World) -> None:
    """What a trace took is in its histogram; one that never ran is in none."""
    world.trace()
    world.trace("example.net")
    labels = {"protocol": "icmp", "family": "ipv4"}
    assert 1 == world.value("trace_duration_seconds_count", **labels)
    assert 0 < (world.value("trace_duration_seconds_sum", **labels) or 0) < 1
    assert 1 == world.value("trace_duration_seconds_bucket", le="+Inf", **labels)
    assert 1 == sum(v for name, v in world.samples().items() if "trace_duration_seconds_count" in name)


def test_states(world: World) -> None:
    """Running, queued and kept traces are counted as they are now, beside their limits."""
    world.trace()
    world.look_up = lambda host, family: Deferred()
    world.engine.submit(TraceRequest(target=TARGET.format(2)))
    world.engine.submit(TraceRequest(target="example.net"))
    assert (1, 1, 1) == tuple(world.value("traces", state=state) for state in ("running", "queued", "kept"))
    limits = tuple(world.value("traces_limit", state=state) for state in ("running", "queued", "kept"))
    assert (500, 2000, 10_000) == limits


def test_probes() -> None:
    """Probes sent are those the prober got; what was answered and lost is what the finished trace shows."""
    line = straight(6)
    world = World(lambda kind, ttl, port, earlier: None if ttl == 3 else line(kind, ttl, port, earlier))
    trace = world.engine.get(world.trace(probes=3, seconds=15))
    received, lost = (sum(getattr(hop.stats, what) for hop in trace.hops) for what in ("received", "lost"))
    assert (15, 3) == (received, lost)
    assert len(world.probers[Family.IPV4].sent) == world.value("probes_sent_total", family="ipv4")
    assert received == world.value("probes_answered_total", family="ipv4")
    assert lost == world.value("probes_lost_total", family="ipv4")
    assert 0 == world.value("probes_sent_total", family="ipv6") == world.value("probes_lost_total", family="ipv6")


def test_slots(world: World) -> None:
    """Slots in use are the probes unanswered now; a prober that is not ready has none to use."""
    world.engine.submit(TraceRequest(target=TARGET.format(1), resolve_names=False))
    world.net.advance(0.001)
    assert 0 < len(world.probers[Family.IPV4].in_flight) == world.value("probe_slots_used", family="ipv4")
    assert 1000 == world.value("probe_slots", family="ipv4")
    world.probers[Family.IPV4].unready = "it isn't started"
    assert 0 == world.value("probe_slots", family="ipv4")


def test_probers(world: World) -> None:
    """Readiness, restarts, replays, stolen replies and faults are those of each family's prober."""
    prober = world.probers[Family.IPV6]
    prober.counters.update(restarts=3, died=7, stolen=2, **dict.fromkeys(FAULTS, 5))
    prober.breaker_open = True
    prober.unready = "it died too often"
    for name, value in (
        ("ready", 0),
        ("prober_breaker_open", 1),
        ("prober_restarts_total", 3),
        ("probes_replayed_total", 7),
        ("probes_stolen_total", 2),
    ):
        assert value == world.value(name, family="ipv6"), name
        assert (1 if name == "ready" else 0) == world.value(name, family="ipv4"), name
    assert dict.fromkeys(FAULTS, 5) == {
        fault: world.value("prober_faults_total", family="ipv6", fault=fault) for fault in FAULTS
    }
    assert 1 == world.value("mtr_packet_info", family="ipv4", version="0.95")
    assert world.value("mtr_packet_info", family="ipv6", version="0.95") is None


# --- names ----------------------------------------------------------------------------------------------------------


def test_target_lookups(world: World) -> None:
    """Look-ups of targets are counted by what became of them."""
    world.trace("missing.example.net")
    world.look_up = lambda host, family: succeed(())
    world.trace("empty.example.net")
    world.look_up = lambda host, family: Deferred()
    world.trace("silent.example.net", seconds=6)
    for outcome in ("no_such_name", "no_address", "no_answer"):
        assert 1 == world.value("target_lookups_total", outcome=outcome)
    assert world.value("target_lookups_total", outcome="found") is None


def test_dns_questions(world: World) -> None:
    """Questions to name servers are counted by type and by what became of them; those under way show."""
    world.tracer.dns.ask("example.net", dns.PTR).addErrback(lambda failure: None)
    asked = world.tracer.names.hostname("203.0.114.1")
    assert 1 == world.value("lookups", kind="hostname", state="running")
    world.net.run(5)
    assert asked.called
    assert 2 == world.value("dns_questions_total", type="PTR", outcome="no_answer")
    assert 0 == world.value("lookups", kind="hostname", state="running")
    asked = world.tracer.asn_zones.asn("203.0.114.1").addErrback(lambda failure: None)
    asked.cancel()
    world.tracer.asn_zones.stop()
    assert 1 == world.value("dns_questions_total", type="TXT", outcome="given_up")


def test_asn_file(world: World) -> None:
    """The age and the errors of a file of AS numbers show where there is one, and only there."""
    assert 1_690_000_000 == world.value("asn_file_built_timestamp_seconds")
    assert 2 == world.value("asn_file_errors_total")
    world.tracer.asn_file = world.tracer.asn_zones = None
    assert world.value("asn_file_built_timestamp_seconds") is None
    assert world.value("lookups", kind="asn", state="running") is None


def test_asn_is_part_of_a_hop(world: World) -> None:
    """An AS number that is found while a trace runs, or soon after, is part of its hop."""
    world.tracer.asn_zones = None
    world.engine._describer = Describer(asn=lambda address: succeed(Asn(64500, "EXAMPLE")))
    trace = world.engine.get(world.trace(lookup_asn=True))
    assert {Asn(64500, "EXAMPLE")} == {responder.asn for hop in trace.hops for responder in hop.responders}


# --- HTTP -----------------------------------------------------------------------------------------------------------


def test_requests(world: World) -> None:
    """Answers are counted by the pattern their path matched and their status, and timed by pattern."""
    trace_id = world.trace()
    for _ in range(3):
        tag = world.service.get(f"/traces/{trace_id}").headers["etag"]
    world.service.get(f"/traces/{trace_id}", If_None_Match=tag)
    world.service.get("/traces/nothing")
    route = {"method": "GET", "route": "/traces/{trace_id}"}
    for status, count in (("200", 3), ("304", 1), ("404", 1)):
        assert count == world.value("http_requests_total", status=status, **route)
    assert 5 == world.value("http_request_duration_seconds_count", **route)
    # There before the first of them, or the first would be no increase.
    assert 0 == world.value("http_requests_total", status="500", **route)


def test_unrouted_requests(world: World) -> None:
    """Paths and methods nobody serves, and what cannot be read, are one route without a method."""
    for path in ("/a", "/b", "/traces/x/y", "/%ff"):
        world.service.get(path)
    world.service.ask("BREW", "/traces")
    world.service.ask("PUT", "/traces")
    connection = world.service.connect()
    connection.send(b"nonsense\r\n\r\n")
    connection = world.service.connect()
    connection.send(b"POST /traces HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n")
    assert 413 == connection.answer().status
    none = {"method": "none", "route": "none"}
    for status, count in (("404", 3), ("400", 2), ("405", 2), ("413", 1)):
        assert count == world.value("http_requests_total", status=status, **none)
    assert 8 == sum(v for name, v in world.samples().items() if "requests_total" in name and 'route="none"' in name)
    assert world.value("http_request_duration_seconds_count", **none) is None


def test_latency(world: World) -> None:
    """A request is timed from its last byte to the first of its answer, by the service's clock."""
    world.look_up = lambda host, family: Deferred()
    trace_id = world.engine.submit(TraceRequest(target="example.net")).id
    waiting = world.service.connect()
    waiting.request("GET", f"/traces/{trace_id}", {"Prefer": "wait=3"})
    world.net.run(3)
    assert 200 == waiting.answer().status
    route = {"method": "GET", "route": "/traces/{trace_id}"}
    assert 1 == world.value("http_requests_total", status="200", **route)
    assert 0 == world.value("http_request_duration_seconds_count", **route)
    slow = world.service.connect()
    slow.send(b"GET /healthz HTTP/1.1\r\n")
    world.net.run(2)
    slow.send(b"Host: localhost\r\n\r\n")
    assert 0 == world.value("http_request_duration_seconds_sum", method="GET", route="/healthz")


def test_streams() -> None:
    """Streams open, begun, and dropped for a reader who reads nothing, are counted."""
    world = World(streams=7, stream_stalled_s=2)
    world.look_up = lambda host, family: Deferred()
    trace_id = world.engine.submit(TraceRequest(target="example.net", deadline_ms=300_000)).id
    reader, stalled = world.service.connect(), world.service.connect()
    for connection in (reader, stalled):
        connection.request("GET", f"/traces/{trace_id}/events")
    world.net.run(1)
    assert (2, 2) == (world.value("streams_open"), world.value("streams_opened_total"))
    stalled.transport.producer.pauseProducing()
    world.net.run(2.1)
    stalled.settle()
    assert (1, 2, 7) == tuple(world.value(name) for name in ("streams_open", "streams_opened_total", "streams_limit"))
    assert 1 == world.value("streams_dropped_total", reason="stalled")
    assert 0 == world.value("streams_dropped_total", reason="behind")
    reader.leave()
    assert 0 == world.value("streams_open")
    assert 1 == sum(v for name, v in world.samples().items() if "streams_dropped_total" in name)


def test_streams_far_behind() -> None:
    """A stream dropped because too much is unread is counted as that."""
    world = World(stream_behind_bytes=1)
    looked_up: Deferred[Any] = Deferred()
    world.look_up = lambda host, family: looked_up
    trace_id = world.engine.submit(TraceRequest(target="example.net")).id
    reader = world.service.connect()
    reader.request("GET", f"/traces/{trace_id}/events")
    world.net.run(0.1)
    reader.transport.producer.pauseProducing()
    looked_up.callback((ip_address(TARGET.format(1)),))
    world.net.run(0.1)
    assert reader.transport.aborted
    assert 1 == world.value("streams_dropped_total", reason="behind")


def test_connections(world: World) -> None:
    """Connections open are counted, the one that asks included."""
    others = [world.service.connect() for _ in range(3)]
    assert 4 == world.value("http_connections")
    for connection in others:
        connection.leave()
    assert 1 == world.value("http_connections")
    assert 1000 == world.value("http_connections_limit")
