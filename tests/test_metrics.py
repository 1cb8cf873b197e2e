"""Metrics: what is counted, what is said of it, and that the rules and the dashboard ask for what there is."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse
from ruamel.yaml import YAML
from twisted.internet.defer import Deferred, fail, succeed
from twisted.names import dns

from fake_http import Service
from fake_prober import FakeProber, pump, straight
from naming.scripted_dns import VirtualNetwork, silent
from tracerouted.durations import Durations
from tracerouted.http import HttpLimits, make_site
from tracerouted.http.wire import encode_event
from tracerouted.jobs.memory import EngineLimits, MemoryEngine
from tracerouted.metrics import FAULTS, add_metrics
from tracerouted.model import Asn, Family, TraceRequest
from tracerouted.naming.asn import AsnZones
from tracerouted.naming.describer import Directory
from tracerouted.naming.dnsclient import DnsClient
from tracerouted.naming.errors import NoSuchName
from tracerouted.naming.forward import Resolver
from tracerouted.naming.policy import TargetPolicy
from tracerouted.naming.reverse import ReverseNames
from tracerouted.probing.scheduler import ProbeLimits, Scheduler
from tracerouted.settings import Settings

PROJECT = Path(__file__).parent.parent
RULES = PROJECT / "deploy" / "prometheus" / "alerts.yml"
RULE_TESTS = PROJECT / "deploy" / "prometheus" / "alerts_test.yml"
SCRAPE = PROJECT / "deploy" / "prometheus" / "prometheus.yml"
DASHBOARD = PROJECT / "deploy" / "grafana" / "tracerouted.json"
DOCUMENT = PROJECT / "docs" / "metrics.md"
TARGET = "203.0.114.{}"
SERVER = ("192.0.2.53", 53)
OPENMETRICS = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"

needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")


class CountingProber(FakeProber):
    """A prober with the counters of a real one."""

    breaker_open = False

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.counters: Counter[str] = Counter()


class World:
    """A service over fake probers: all rooms real but the probers, on one virtual clock."""

    def __init__(self, network: Any = None, **limits: Any) -> None:
        self.net = clock = VirtualNetwork()
        self.net.servers[SERVER] = silent
        settings = Settings(asn_dns=True)
        scheduler = Scheduler(clock, ProbeLimits(probes_per_second=1e6, probes_burst=1e6))
        self.probers = {family: CountingProber(clock, network or straight(), family) for family in Family}
        for prober in self.probers.values():
            prober.listener = scheduler
            scheduler.add_prober(prober)
        client = DnsClient(clock, clock, lambda: (SERVER,))
        self.look_up: Any = lambda host, family: fail(NoSuchName(f"there is no name {host}"))
        resolver = Resolver(clock, lambda host, family: self.look_up(host, family))
        names, zones = ReverseNames(clock, client), AsnZones(clock, client)
        self.engine = MemoryEngine(
            clock,
            lambda: 1_700_000_000 + clock.seconds(),
            scheduler,
            self.probers,
            TargetPolicy(),
            resolver.resolve,
            Directory(names.hostname, zones.asn),
            lambda target: "192.0.2.1" if "." in target else "2001:db8::1",
            EngineLimits(),
            encode_event,
        )
        self.tracer: Any = SimpleNamespace(
            settings=settings,
            engine=self.engine,
            scheduler=scheduler,
            probers=self.probers,
            dns=client,
            resolver=resolver,
            names=names,
            asn_zones=zones,
            asn_file=SimpleNamespace(built_at=1_690_000_000, errors=2),
        )
        site = make_site(
            self.engine, clock=clock, wall=lambda: 1_700_000_000 + clock.seconds(), limits=HttpLimits(**limits)
        )
        add_metrics(self.tracer, site)
        self.service = Service(site, self.engine, clock)

    def trace(self, target: str = TARGET.format(1), seconds: float = 5, **fields: Any) -> str:
        """Run a trace to its end."""
        request = TraceRequest(target=target, **{"probes": 1, "resolve_names": False, **fields})
        trace_id = self.engine.submit(request).id
        pump(self.net, seconds, 0.002)
        return trace_id

    def text(self, **headers: str) -> str:
        return self.service.get("/metrics", **headers).body.decode()

    def samples(self) -> dict[str, float]:
        """Each sample as it is written, labels included."""
        lines = [line for line in self.text().splitlines() if not line.startswith("#")]
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}

    def value(self, name: str, **labels: str) -> float | None:
        """The sample of a name and exactly these labels; None where there is none."""
        for family in parse(self.text()):
            for sample in family.samples:
                if sample.name == f"tracerouted_{name}" and sample.labels == labels:
                    return sample.value
        return None


@pytest.fixture
def world() -> World:
    return World()


def busy() -> World:
    """A world in which every metric has at least one sample."""
    world = World()
    for family, target in (("ipv4", TARGET.format(1)), ("ipv6", "2606:4700::1")):
        for protocol in ("icmp", "tcp", "udp"):
            world.trace(target, protocol=protocol)
        assert family in world.text()
    world.trace("example.net", resolve_names=True, lookup_asn=True)
    trace_id = world.trace(resolve_names=True, lookup_asn=True, seconds=10)
    for path in ("/", f"/traces/{trace_id}", f"/traces/{trace_id}/events", "/traces", "/healthz", "/readyz"):
        world.service.get(path)
    return world


# --- the parts ---------------------------------------------------------------------------------------------------


def test_durations() -> None:
    """A duration counts in the first bucket whose bound is not below it, and in all above; the last is infinite."""
    durations = Durations((0.1, 1.0))
    for seconds in (0.05, 0.1, 0.100001, 1.0, 7.0):
        durations.add(seconds)
    assert [(0.1, 2), (1.0, 4), (float("inf"), 5)] == list(durations.cumulative())
    assert 8.250001 == pytest.approx(durations.total_s)


# --- traces and probes -------------------------------------------------------------------------------------------


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


# --- names -------------------------------------------------------------------------------------------------------


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


# --- HTTP --------------------------------------------------------------------------------------------------------


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


def test_connections(world: World) -> None:
    """Connections open are counted, the one that asks included."""
    others = [world.service.connect() for _ in range(3)]
    assert 4 == world.value("http_connections")
    for connection in others:
        connection.leave()
    assert 1 == world.value("http_connections")
    assert 1000 == world.value("http_connections_limit")


# --- the exposition ----------------------------------------------------------------------------------------------


def test_formats(world: World) -> None:
    """Text is the default; Prometheus's own Accept gets OpenMetrics, which its strict parser reads; both say the
    same."""
    world.trace()
    world.text()
    plain, open_metrics = world.service.get("/metrics"), world.service.get("/metrics", Accept=OPENMETRICS)
    assert "text/plain; version=0.0.4; charset=utf-8" == plain.headers["content-type"]
    assert "application/openmetrics-text; version=1.0.0; charset=utf-8" == open_metrics.headers["content-type"]
    assert "no-store" == plain.headers["cache-control"]
    assert open_metrics.body.endswith(b"# EOF\n")
    one = {sample.name for family in parse(plain.body.decode()) for sample in family.samples}
    other = {sample.name for family in parse_openmetrics(open_metrics.body.decode()) for sample in family.samples}
    assert one == other
    assert 406 == world.service.get("/metrics", Accept="image/png").status
    assert b"" == world.service.ask("HEAD", "/metrics").body
    assert 405 == world.service.ask("POST", "/metrics").status


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("*/*", "text/plain"),
        ("text/*", "text/plain"),
        ("text/plain;version=0.0.4;q=0.9, application/openmetrics-text;q=0.1", "text/plain"),
        ("application/openmetrics-text; version=0.0.1", "application/openmetrics-text"),
        (
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=1.0.0;q=0.4",
            "application/openmetrics-text",
        ),
    ],
)
def test_accept(world: World, accept: str, expected: str) -> None:
    """The format is the one Accept likes best, whatever version it names."""
    assert expected == world.service.get("/metrics", Accept=accept).headers["content-type"].partition(";")[0]


def test_no_target_in_any_label() -> None:
    """Neither an address, a name, a path nor an id of a trace is anywhere in the exposition."""
    world = busy()
    ids = [trace.id for trace in world.engine.list(limit=100).traces]
    text = world.text()
    assert len(ids) > 5
    for word in ("203.0.114", "2606", "example", "192.0.2", "2001:db8", "10.0.0", *ids):
        assert word not in text
    labels = {label for family in parse(text) for sample in family.samples for label in sample.labels}
    assert labels <= {
        *("status", "stop_reason", "protocol", "family", "state", "fault", "method", "route", "le", "reason"),
        *("type", "outcome", "kind", "version", "python_version", "twisted_version"),
    }


def test_a_scrape_stays_small() -> None:
    """A scrape has some hundred lines, however much there was to do."""
    world = busy()
    before = world.text()
    for number in range(30):
        trace_id = world.trace(TARGET.format(number), seconds=1)
        world.service.get(f"/traces/{trace_id}")
    assert len(before.splitlines()) == len(world.text().splitlines()) < 500
    assert len(before) < 60_000


def test_two_services(world: World) -> None:
    """Two services in one process count for themselves."""
    other = World()
    world.trace()
    assert other.value("probes_sent_total", family="ipv4") == 0
    assert (world.value("probes_sent_total", family="ipv4") or 0) > 0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def daemon(tmp_path: Path) -> Any:
    """Start the real service with some settings; its base address. Everything is stopped at the end."""
    processes = []

    def start(**variables: str) -> str:
        port = free_port()
        environ = {"PATH": os.environ["PATH"], "TRACEROUTED_LISTEN": f"127.0.0.1:{port}", **variables}
        command = [str(Path(sys.executable).parent / "tracerouted"), "serve"]
        log = open(tmp_path / f"{port}.log", "wb")  # noqa: SIM115
        processes.append(subprocess.Popen(command, env=environ, stdout=log, stderr=log))
        log.close()
        for _ in range(200):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5).close()
            except OSError:
                assert processes[-1].poll() is None, (tmp_path / f"{port}.log").read_text()
                time.sleep(0.05)
            else:
                break
        return f"http://127.0.0.1:{port}"

    yield start
    for process in processes:
        process.kill()
        process.wait()


def test_the_daemon_serves_metrics(daemon: Any) -> None:
    """The daemon's own scrape has the build, the process and the families; promtool finds nothing to say of it."""
    text = urllib.request.urlopen(f"{daemon()}/metrics", timeout=10).read().decode()
    names = {family.name for family in parse(text)}
    assert {"tracerouted_build_info", "tracerouted_ready", "process_resident_memory_bytes"} <= names
    if shutil.which("promtool"):
        assert_promtool("check", "metrics", stdin=text)


def test_metrics_can_be_withheld(daemon: Any) -> None:
    """With TRACEROUTED_METRICS=false there is no /metrics."""
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"{daemon(TRACEROUTED_METRICS='false')}/metrics", timeout=10)


def test_a_file_of_as_numbers_that_cannot_be_used() -> None:
    """A missing file of AS numbers ends the start with one line that names the setting and the reason."""
    command = [str(Path(sys.executable).parent / "tracerouted"), "serve", "--asn-mmdb", "/nonexistent.mmdb"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert 1 == ended.returncode
    (line,) = map(json.loads, ended.stderr.splitlines())
    assert "TRACEROUTED_ASN_MMDB='/nonexistent.mmdb': No such file or directory" in line["message"]


def test_asking_for_asn_is_the_default_where_there_is_a_source(daemon: Any) -> None:
    """With a source of AS numbers, a request that does not say asks for them; without one it does not."""
    for variables, expected in (({"TRACEROUTED_ASN_DNS": "true"}, True), ({}, False)):
        base = daemon(TRACEROUTED_ALLOW_TARGETS="127.0.0.0/8", TRACEROUTED_DNS_SERVERS="127.0.0.1:9", **variables)
        body = b'{"target": "127.0.0.1", "resolve_names": false}'
        request = urllib.request.Request(f"{base}/traces", body, {"Content-Type": "application/json"})
        for _ in range(100):
            try:
                trace = json.load(urllib.request.urlopen(request, timeout=10))
                break
            except urllib.error.HTTPError as refused:
                if json.load(refused)["type"] != "/problems/not-ready":
                    raise
                time.sleep(0.1)
        else:
            pytest.skip("mtr-packet is not able to trace here")
        assert expected is trace["request"]["lookup_asn"]


# --- promtool, the rules, the dashboard, the document ------------------------------------------------------------


def assert_promtool(*arguments: str, stdin: str | None = None) -> None:
    ended = subprocess.run(["promtool", *arguments], input=stdin, capture_output=True, text=True, timeout=60)
    assert (0, "") == (ended.returncode, ended.stderr), ended.stdout


@needs_promtool
def test_promtool_on_a_scrape() -> None:
    """promtool has nothing to say of a scrape in which every metric has samples."""
    assert_promtool("check", "metrics", stdin=busy().text())


@needs_promtool
def test_promtool_on_the_rules() -> None:
    """The alert rules, the example configuration and the rules' own tests pass promtool."""
    assert_promtool("check", "rules", str(RULES))
    assert_promtool("check", "config", str(SCRAPE))
    ended = subprocess.run(["promtool", "test", "rules", str(RULE_TESTS)], capture_output=True, text=True, timeout=60)
    assert 0 == ended.returncode, ended.stdout + ended.stderr


def rules() -> list[dict[str, Any]]:
    return [rule for group in YAML(typ="safe").load(RULES.read_text())["groups"] for rule in group["rules"]]


def test_every_alert_is_tested() -> None:
    """Each alert has a test in which it fires and one in which it does not, and says what to do."""
    cases = [
        case for test in YAML(typ="safe").load(RULE_TESTS.read_text())["tests"] for case in test["alert_rule_test"]
    ]
    fires = {case["alertname"] for case in cases if case.get("exp_alerts")}
    rests = {case["alertname"] for case in cases if not case.get("exp_alerts")}
    alerts = {rule["alert"] for rule in rules()}
    assert alerts == fires == rests
    for rule in rules():
        assert {"summary", "description"} == set(rule["annotations"])
        assert rule["labels"]["severity"] in ("critical", "warning")


def expressions() -> dict[str, str]:
    """Every query of the dashboard's panels and variables, and of the rules."""
    found = {rule["alert"]: rule["expr"] for rule in rules()}
    dashboard = json.loads(DASHBOARD.read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            found[f"{panel['title']} {target['refId']}"] = target["expr"]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            found[variable["name"]] = variable["query"]["query"]
    return found


#: What Prometheus itself adds to every target.
ADDED_NAMES, ADDED_LABELS = {"up"}, {"job", "instance"}


def test_queries_ask_for_what_there_is() -> None:
    """Every metric, and every label of it, in a rule or on the dashboard is in the exposition."""
    there: dict[str, set[str]] = {}
    for family in parse(busy().text()):
        for sample in family.samples:
            there.setdefault(sample.name, set()).update(sample.labels)
    assert {"tracerouted_ready", "tracerouted_http_request_duration_seconds_bucket"} <= set(there)
    asked = expressions()
    assert len(asked) > 30
    for where, expression in asked.items():
        names = set(re.findall(r"\b(?:tracerouted|process)_\w+|\bup\b", expression)) - ADDED_NAMES
        assert names <= set(there), where
        for name, selector in re.findall(r"\b((?:tracerouted|process)_\w+)\{([^}]*)\}", expression):
            labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", selector))
            assert labels <= there[name] | ADDED_LABELS, where
        grouped = {word for by in re.findall(r"\bby\s*\(([^)]*)\)", expression) for word in re.findall(r"\w+", by)}
        assert grouped <= set().union(*(there[name] for name in names)) | ADDED_LABELS, where


@needs_promtool
def test_promtool_on_the_dashboard(tmp_path: Path) -> None:
    """Every query of the dashboard is PromQL."""
    filled = {
        name: re.sub(r"\$__rate_interval|\$__interval", "5m", expression).replace("$", "x")
        for name, expression in expressions().items()
        if not expression.startswith("label_values(")
    }
    recorded = [
        {"record": f"query:{number}", "expr": expression} for number, expression in enumerate(filled.values())
    ]
    path = tmp_path / "rules.json"  # JSON is YAML
    path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": recorded}]}))
    assert_promtool("check", "rules", str(path))


def test_the_dashboard_shows_everything() -> None:
    """Every metric of the service is on the dashboard; panels have titles, ids of their own and do not overlap."""
    dashboard = json.loads(DASHBOARD.read_text())
    shown = " ".join(target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ()))
    names = {family.name for family in parse(busy().text()) if family.name.startswith("tracerouted_")}
    assert [] == sorted(name for name in names if name.removesuffix("_total") not in shown)
    assert all(panel["title"] for panel in dashboard["panels"])
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells


def test_the_document_lists_everything() -> None:
    """docs/metrics.md names each metric of the service, with its labels, and no other."""
    there = {}
    for family in parse(busy().text()):
        if family.name.startswith("tracerouted_"):
            labels = {label for sample in family.samples for label in sample.labels} - {"le"}
            name = family.name + ("_total" if family.type == "counter" else "")
            there[name] = labels
    rows = re.findall(r"^\| `(tracerouted_\w+)` \| ([^|]*) \|", DOCUMENT.read_text(), flags=re.M)
    assert there == {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in rows}


def test_asn_is_part_of_a_hop(world: World) -> None:
    """An AS number that is found while a trace runs, or soon after, is part of its hop."""
    world.tracer.asn_zones = None
    world.engine._describer = Directory(asn=lambda address: succeed(Asn(64500, "EXAMPLE")))
    trace = world.engine.get(world.trace(lookup_asn=True))
    assert {Asn(64500, "EXAMPLE")} == {responder.asn for hop in trace.hops for responder in hop.responders}
