"""The real daemon and the real mtr-packet in the simulated internet, while its mtr-packets are killed and stopped.

For a minute of steady load every mtr-packet is killed each 200 ms and stopped each 2 s. What the daemon then says of
a path is held against the simulator's own truth and counters.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections import Counter
from itertools import cycle
from typing import Any

import pytest

from faults.service import START_S, Answer, Service, await_ready, serve, until
from netsim import Lab, judge
from test_scenarios import CASES
from tracerouted.model import Outcome, Trace

CHAOS_S = 60.0
KILL_EVERY_S = 0.2
STOP_EVERY_S = 2.0
DEADLINE_S = 5.0
#: Promises: terminal so long after the deadline at the latest; ready so soon after the last kill; a stopped process
#: is noticed within a heartbeat (1 s), patience with its answer (2 s) and the watchdog's round (0.5 s).
LATE_S, READY_S, NOTICED_S = 2.0, 1.0, 3.5
#: What a busy machine may add to them: where a self-test takes longer than a kill is away, the next start waits, for
#: five seconds at most.
NOISE_S = 8.0
#: Where the kernel tells a busy mtr-packet of a router's port unreachable on every TCP socket before it reads the
#: ICMP message, nothing tells it from the target's reset (see docs/architecture.md).
UNTELLABLE = ("router-port-unreachable", "tcp")
#: The families and protocols each target has a truth for. Two traces to one target would be counted together.
WAYS = {
    target: [case[1:] for case in CASES if case[0] == target and (target, case[2]) != UNTELLABLE]
    for target, _, _ in CASES
}


class Load:
    """One thread for each target, which traces it over and over in every way there is, and judges each trace."""

    def __init__(self, service: Service, lab: Lab) -> None:
        self.service, self.lab = service, lab
        self.stopping = threading.Event()
        self.complaints: list[str] = []
        self.seen: Counter[str] = Counter()
        self.latest_s = 0.0
        self._threads = [
            threading.Thread(target=self._trace_all, args=(target, ways), daemon=True)
            for target, ways in WAYS.items()
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Begin no more traces, and wait for those under way."""
        self.stopping.set()
        end = time.monotonic() + DEADLINE_S + LATE_S + 30
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        self.complaints += [f"{thread.name} hangs" for thread in self._threads if thread.is_alive()]

    def _trace_all(self, target: str, ways: list[tuple[str, str]]) -> None:
        for family, protocol in cycle(ways):
            if self.stopping.is_set():
                return
            try:
                self._trace(target, family, protocol)
            except Exception as failure:
                self.complaints.append(f"{target} {family} {protocol}: {failure!r}")
                return

    def _trace(self, target: str, family: str, protocol: str) -> None:
        lab = self.lab
        lab.reset(target)
        begun = time.monotonic()
        deadline_ms = round(DEADLINE_S * 1000)
        trace = self.service.trace(
            target=lab.address(target, family), protocol=protocol, probes=2, deadline_ms=deadline_ms
        )
        took = time.monotonic() - begun
        where = f"{target} {family} {protocol}"
        if isinstance(trace, Answer):
            self.seen["refused"] += 1
            if trace.status != 503 or not 1 <= int(trace.headers.get("Retry-After", 0)) <= 60:
                self.complaints.append(f"{where}: {trace}")
            self.stopping.wait(0.1)
            return
        self.seen["accepted"] += 1
        self.seen[str(trace.stop_reason)] += 1
        self.seen["probes"] += sum(len(hop.probes) for hop in trace.hops)
        self.seen["probes given up"] += sum(p.outcome is Outcome.ERROR for hop in trace.hops for p in hop.probes)
        late = (trace.finished_at or 0.0) - trace.created_at - DEADLINE_S
        self.latest_s = max(self.latest_s, late)
        if not trace.status.terminal or late > LATE_S or took > DEADLINE_S + LATE_S + NOISE_S:
            self.complaints.append(f"{where} is {trace.status} after {took:.2f} s, {late:.2f} s past its deadline")
        wrong = judge(
            trace,
            lab.truth(target, family, protocol),
            lab.dealt(target, family, protocol),
            rtt_tolerance_us=2_000_000,
            troubled=True,
        )
        if wrong:
            late_us = lab.call("figures")["lateness"]["most_us"]
            self.complaints.append(f"{where}: {wrong} [{shown(trace)}; the simulator was {late_us} us late at most]")


def shown(trace: Trace) -> str:
    """A trace in few words."""

    def probe(each: Any) -> str:
        error = f"/{each.error}" if each.error else ""
        return f"{each.sent_at - trace.created_at:.3f}:{each.address or each.outcome}{error}"

    def hop(each: Any) -> str:
        return "|".join(map(probe, each.probes))

    end = (trace.finished_at or 0.0) - trace.created_at
    return f"{trace.created_at:.3f}: {' '.join(map(hop, trace.hops))} {end:.3f}:{trace.stop_reason}"


@pytest.mark.timeout(240)
def test_killed_and_stopped_for_a_minute(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    """Every trace ends in time, no hop and no loss is made up, and it can trace again within a second of the end."""
    with serve(traces_per_prefix="100", log_level="info") as service:
        await_ready(service)
        load = Load(service, lab)
        load.start()
        begun = time.monotonic()
        kills = stops = 0
        for tick in range(round(CHAOS_S / KILL_EVERY_S)):
            time.sleep(max(0.0, begun + tick * KILL_EVERY_S - time.monotonic()))
            kills += service.signal(signal.SIGKILL)
            if tick % round(STOP_EVERY_S / KILL_EVERY_S) == 5:
                time.sleep(KILL_EVERY_S / 2)
                stops += service.signal(signal.SIGSTOP)
        kills += service.signal(signal.SIGKILL)
        ready = await_ready(service)
        killed = dict(load.seen)
        time.sleep(1)
        stopped = set(service.children())
        stops += service.signal(signal.SIGSTOP)
        noticed = until(lambda: not stopped & set(service.children()) and all(service.ready().values()), START_S)
        load.stop()
        log = service.log()
        failures = [line for line in log if line["level"] in ("error", "critical") or "failure" in line]
    after = "never" if noticed is None else f"{noticed:.2f} s after"
    with capsys.disabled():
        figures = ", ".join(f"{number} {what}" for what, number in sorted(killed.items()))
        sys.stdout.write(
            f"\nchaos: {kills} kills and {stops} stops in {CHAOS_S:g} s: {figures}; latest end {load.latest_s:+.2f} s"
            f" from its deadline; ready {ready:.2f} s after the last kill, {after} being stopped\n"
        )
    assert [] == load.complaints
    assert [] == failures
    assert load.seen["reached"] > 20
    assert ready <= READY_S + NOISE_S
    assert noticed is not None
    assert noticed <= NOTICED_S + READY_S + NOISE_S
