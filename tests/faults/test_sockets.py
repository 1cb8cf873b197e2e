"""Thousands of TCP probes wanted at once, each of which is a socket in the real mtr-packet."""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import suppress

import pytest

from faults.service import Answer, await_ready, serve
from netsim import Lab, judge
from tracerouted.model import Trace

TRACES, PROBES = 40, 10
MOST_SOCKETS = 500
#: Six routers answer, the target and the seven TTLs beyond it do not: 14 TTLs are to be asked by each trace. All
#: are so far away that they are waited for as long as was asked, holding their sockets.
WANTED = TRACES * PROBES * 14
TIMEOUT_S, DEADLINE_S = 4, 14
SCENARIO = {
    "name": "silent-tcp",
    "ipv4": "44.160.0.0/16",
    "ipv6": "2a10:44a0::/32",
    "routers": {str(number): {"rtt": 800.0} for number in range(1, 7)},
    "targets": [
        {
            "name": "silent-tcp",
            "count": TRACES,
            "at": 100,
            "path": [1, 2, 3, 4, 5, 6],
            "tcp": "silent",
            "echo": False,
            "udp": "silent",
            "truth": [{"stop": "gap_limit", "hops": ["1 2 3 4 5 6"], "repeat": "*"}],
        }
    ],
}


def sockets(pid: int) -> int:
    """How many sockets a process has open."""
    found = 0
    with suppress(OSError):
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                found += os.readlink(entry.path).startswith("socket:")
    return found


@pytest.mark.timeout(150)
def test_five_thousand_tcp_probes(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    """No child dies, no more than 500 probes are sockets at a time, and what every trace says is true."""
    scenario = lab.load(SCENARIO)
    traces: dict[str, Trace | Answer] = {}
    try:
        with serve(traces_per_prefix="100", probes_per_second="20000", target_probes_per_second="2000") as service:
            await_ready(service)
            children = service.children()
            idle = {pid: sockets(pid) for pid in children}

            def trace(target: str) -> None:
                address = lab.address(target, "ipv4")
                traces[target] = service.trace(
                    target=address,
                    protocol="tcp",
                    probes=PROBES,
                    timeout_ms=1000 * TIMEOUT_S,
                    deadline_ms=1000 * DEADLINE_S,
                )

            targets = [target.name for target in scenario.targets]
            threads = [threading.Thread(target=trace, args=(target,), daemon=True) for target in targets]
            for thread in threads:
                thread.start()
            most, begun = 0, time.monotonic()
            while any(thread.is_alive() for thread in threads) and time.monotonic() - begun < 90:
                most = max(most, *(sockets(pid) - idle[pid] for pid in children))
                time.sleep(0.005)
            took = time.monotonic() - begun
            assert children == service.children()
        assert TRACES == len(traces)
        wrong = {}
        sent = 0
        for target, ended in traces.items():
            assert isinstance(ended, Trace), ended
            sent += sum(len(hop.probes) for hop in ended.hops)
            dealt = lab.dealt(target, "ipv4", "tcp")
            truth = lab.truth(target, "ipv4", "tcp")
            if complaints := judge(ended, truth, dealt, rtt_tolerance_us=1_000_000, troubled=True):
                wrong[target] = complaints
            if {probe.error for hop in ended.hops for probe in hop.probes} != {None}:
                wrong[target] = [*wrong.get(target, []), "a probe failed"]
    finally:
        lab.unload("silent-tcp")
    with capsys.disabled():
        sys.stdout.write(
            f"\ntcp: {WANTED} probes wanted, {sent} sent in {took:.1f} s, at most {most} sockets in flight\n"
        )
    assert {} == wrong
    assert WANTED >= 5000
    assert 0.8 * MOST_SOCKETS <= most <= MOST_SOCKETS
