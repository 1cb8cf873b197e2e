"""The wall clock is stepped by an hour, for the real daemon and its mtr-packets alike, in the middle of traces."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from http.client import HTTPConnection
from itertools import pairwise
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest

from faults.clock import COMPILER, WallClock
from faults.service import Answer, Service, await_ready, serve, until
from netsim import Lab, judge
from tracerouted.http.read import read_trace
from tracerouted.model import Outcome, RetryReason, StopReason, Trace

HOUR_S = 3600
#: Promise: a deadline is met so exactly whatever the clock does.
EXACT_S = 1.0
#: When, after the traces were begun, the clock is stepped.
STEP_AFTER_S = 0.7
HEARTBEAT_S = 0.5
PER_MINUTE = 20
#: Nothing here answers, and nothing says so.
NOWHERE = {"ipv4": "44.2.77.1", "ipv6": "2a10:44:2077::1"}

pytestmark = [
    pytest.mark.skipif(shutil.which(COMPILER) is None, reason="needs a C compiler for the clock to be stepped"),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: a binary with a file capability ignores LD_PRELOAD"),
    pytest.mark.timeout(180),
]


class Case(NamedTuple):
    """A trace that is under way when the clock steps; `stop` is given where the scenario tells no truth."""

    target: str
    family: str
    protocol: str
    fields: Mapping[str, Any] = MappingProxyType({})
    stop: StopReason | None = None


SLOWLY = {"probes": 4, "interval_ms": 400}
CASES = (
    Case("high-rtt", "ipv4", "icmp"),
    Case("high-rtt", "ipv6", "tcp"),
    Case("very-late", "ipv4", "udp", {"timeout_ms": 5000}),
    Case("very-late", "ipv6", "icmp", {"timeout_ms": 5000}),
    Case("silent-middle", "ipv4", "icmp", SLOWLY),
    Case("silent-middle", "ipv6", "tcp", SLOWLY),
    Case("five-silent", "ipv4", "udp", SLOWLY),
    Case("silent-end", "ipv4", "tcp"),
    Case("silent-end", "ipv6", "icmp"),
    Case("lossy-middle", "ipv4", "icmp", SLOWLY),
    Case("plain", "ipv4", "tcp", SLOWLY),
    Case("plain", "ipv6", "icmp", SLOWLY),
    Case("ecmp", "ipv4", "udp", SLOWLY),
    Case("host-unreachable", "ipv4", "udp", SLOWLY),
    Case("nowhere", "ipv4", "icmp", {"deadline_ms": 3000, "timeout_ms": 10_000}, StopReason.DEADLINE),
    Case("nowhere", "ipv6", "tcp", {"deadline_ms": 2000, "timeout_ms": 10_000}, StopReason.DEADLINE),
)


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> WallClock:
    return WallClock(tmp_path_factory.mktemp("clock"))


@pytest.fixture(scope="module")
def service(internet: Lab, clock: WallClock) -> Iterator[Service]:
    """A daemon that lives by the clock, as do its mtr-packets."""
    with serve(
        environment=clock.environment,
        mtr_packet=clock.mtr_packet,
        heartbeat_s=str(HEARTBEAT_S),
        create_per_minute=str(PER_MINUTE),
        trusted_proxies="127.0.0.1",
        traces_per_prefix="50",
    ) as service:
        await_ready(service)
        yield service


def date(service: Service) -> float:
    """The daemon's wall clock, by its Date field."""
    return parsedate_to_datetime(service.ask("GET", "/healthz").headers["Date"]).timestamp()


def anomalies(service: Service) -> float:
    """How many RTTs and timeouts the daemon has not believed because the clock stepped."""
    told = service.ask("GET", "/metrics").body.decode()
    return sum(float(line.split()[-1]) for line in told.splitlines() if "clock_anomalies" in line and line[0] != "#")


def test_the_clock_can_be_stepped(lab: Lab, clock: WallClock, service: Service) -> None:
    """The step is real: the daemon's Date shows it, and an mtr-packet's own RTT across it is absurd."""
    clock.set(0)
    command = f"7 send-probe ip-4 {lab.address('high-rtt', 'ipv4')} local-ip-4 44.0.0.2 ttl 64 timeout 9\n"
    before = date(service)
    with subprocess.Popen([clock.mtr_packet], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as mtr_packet:
        assert mtr_packet.stdin is not None
        assert mtr_packet.stdout is not None
        mtr_packet.stdin.write(command)
        mtr_packet.stdin.flush()
        time.sleep(0.5)
        clock.set(-HOUR_S)
        rtt_us = int(mtr_packet.stdout.readline().split()[-1])
        mtr_packet.stdin.close()
    after = date(service)
    clock.set(0)
    assert not 0 <= rtt_us < 60_000_000
    assert -HOUR_S - 1 <= after - before <= -HOUR_S + 60


class Traced(NamedTuple):
    """A case's trace, when it was asked for and when it was had, by this process's monotonic clock."""

    case: Case
    trace: Trace | Answer
    begun: float
    ended: float


def trace_all(service: Service, lab: Lab) -> tuple[list[threading.Thread], list[Traced]]:
    """Begin all cases side by side, each as a client of its own; the list fills as they end."""
    done: list[Traced] = []

    def run(number: int, case: Case) -> None:
        address = NOWHERE[case.family] if case.target == "nowhere" else lab.address(case.target, case.family)
        begun = time.monotonic()
        request = {"target": address, "protocol": case.protocol, "resolve_names": False, **case.fields}
        client = f"198.51.100.{number}"
        answer = service.ask("POST", "/traces", request, timeout=60, Prefer="wait=40", X_Forwarded_For=client)
        trace = read_trace(answer.body) if answer.status in (201, 202) else answer
        done.append(Traced(case, trace, begun, time.monotonic()))

    threads = [threading.Thread(target=run, args=(each), daemon=True) for each in enumerate(CASES, 1)]
    for thread in threads:
        thread.start()
    return threads, done


def complaints(traced: Traced, lab: Lab, stepped: float) -> Iterator[str]:
    """What is wrong with a trace across a step that was made at `stepped`."""
    case, trace, begun, ended = traced
    if isinstance(trace, Answer):
        yield f"refused: {trace}"
        return
    assert trace.started_at is not None
    assert trace.finished_at is not None
    assert trace.expires_at is not None
    probes = [probe for hop in trace.hops for probe in hop.probes]
    took = trace.finished_at - trace.created_at
    if not took <= trace.request.deadline_ms / 1000 + EXACT_S:
        yield f"took {took:.2f} s, its deadline is {trace.request.deadline_ms} ms"
    if case.stop is StopReason.DEADLINE and took < trace.request.deadline_ms / 1000:
        yield f"took {took:.2f} s, short of its deadline"
    if abs(took - (ended - begun)) > EXACT_S:
        yield f"says it took {took:.2f} s, but took {ended - begun:.2f} s"
    times = [trace.created_at, trace.started_at, *(probe.sent_at for probe in probes)]
    if trace.created_at > trace.started_at or max(times) > trace.finished_at or min(times) < trace.created_at:
        yield f"its times are out of order: {times} {trace.finished_at}"
    if abs(trace.expires_at - trace.finished_at - HOUR_S) > EXACT_S:
        yield f"is kept {trace.expires_at - trace.finished_at:.2f} s"
    last = trace.created_at + stepped - begun + 0.5
    for probe in probes:
        if probe.error == RetryReason.CLOCK and probe.sent_at > last:
            yield f"an RTT was withheld after the step: {probe}"
        if probe.outcome is Outcome.ERROR:
            yield f"a probe was given up: {probe.error}"
        if probe.rtt_us is not None and not 0 <= probe.rtt_us <= (ended - begun) * 1e6:
            yield f"an RTT of {probe.rtt_us} us"
    if case.stop is not None:
        if trace.stop_reason is not case.stop:
            yield f"stopped because of {trace.stop_reason}"
        return
    truth = lab.truth(case.target, case.family, case.protocol)
    if trace.stop_reason is not truth.stop_reason:
        yield f"stopped because of {trace.stop_reason}, the truth is {truth.stop_reason}"
    dealt = lab.dealt(case.target, case.family, case.protocol)
    yield from judge(trace, truth, dealt, rtt_tolerance_us=1_000_000, troubled=True)


def comments(service: Service, trace_id: str, heard: list[float]) -> threading.Thread:
    """Follow a trace's events to their end; `heard` gets the time of each comment."""

    def follow() -> None:
        connection = HTTPConnection("127.0.0.1", service.port, timeout=30)
        connection.request("GET", f"/traces/{trace_id}/events", headers={"Accept": "text/event-stream"})
        stream = connection.getresponse()
        while line := stream.readline():
            if line.startswith(b":"):
                heard.append(time.monotonic())
        connection.close()

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("step", [HOUR_S, -HOUR_S], ids=["ahead", "back"])
def test_an_hour_in_the_middle_of_traces(
    lab: Lab, clock: WallClock, service: Service, step: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Deadlines are met within a second, no RTT and no loss is made up, times are in order, streams go on, results
    stay, and quotas neither fill up nor run dry."""
    clock.set(0)
    await_ready(service)
    before = anomalies(service)
    spender = f"203.0.113.{1 if step > 0 else 2}"

    def create() -> Answer:
        request = {"target": lab.address("dns", "ipv4"), "probes": 1, "resolve_names": False}
        return service.ask("POST", "/traces", request, X_Forwarded_For=spender)

    kept, *_ = [create() for _ in range(PER_MINUTE)]
    slow = {"target": NOWHERE["ipv4"], "deadline_ms": 8000, "timeout_ms": 10_000, "resolve_names": False}
    watched = service.ask("POST", "/traces", slow, X_Forwarded_For="203.0.113.9").headers["Location"]
    heard: list[float] = []
    stream = comments(service, watched.rsplit("/", 1)[1], heard)
    assert until(lambda: len(heard) >= 2, 10) is not None

    threads, done = trace_all(service, lab)
    time.sleep(STEP_AFTER_S)
    refused_before = create()
    clock.set(step)
    stepped = time.monotonic()
    refused_after = create()
    result = service.ask("GET", kept.headers["Location"])
    for thread in threads:
        thread.join(60)
    stream.join(30)
    spans = [later - earlier for earlier, later in pairwise(heard)]
    withheld = sum(p.error == RetryReason.CLOCK for each in done for h in each.trace.hops for p in h.probes)
    lateness = [
        each.trace.finished_at - each.trace.created_at - each.trace.request.deadline_ms / 1000
        for each in done
        if each.case.stop is StopReason.DEADLINE
    ]
    disbelieved = anomalies(service) - before
    with capsys.disabled():
        sys.stdout.write(
            f"\nclock {step:+d} s: {len(done)} traces, {disbelieved:g} RTTs and timeouts not believed,"
            f" {withheld} RTTs withheld, deadlines met within {max(map(abs, lateness)):.3f} s, comments"
            f" {max(spans):.2f} s apart\n"
        )
    found = {"-".join(each.case[:3]): list(wrong) for each in done if (wrong := list(complaints(each, lab, stepped)))}
    assert {} == found
    assert len(CASES) == len(done)
    assert disbelieved > 0
    assert heard[-1] > stepped + 3
    assert max(spans) < HEARTBEAT_S + 2 * EXACT_S
    for refused in (refused_before, refused_after):
        assert 429 == refused.status
        assert 1 <= int(refused.headers["Retry-After"]) <= 60 / PER_MINUTE
    assert until(lambda: create().status == 202, 60 / PER_MINUTE + 3, 0.3) is not None
    assert 200 == result.status
    max_age = re.search(r"max-age=(\d+)", result.headers["Cache-Control"])
    assert max_age is not None
    assert HOUR_S - 60 <= int(max_age[1]) <= HOUR_S
    assert [] == [line for line in service.log() if "failure" in line or line["level"] == "error"]
    await_ready(service)
