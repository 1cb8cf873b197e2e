"""The real mtr-packet in the simulated internet: every scenario, protocol and family, judged against the truth."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from netsim import Lab, available, judge, load
from netsim.truth import truth_of
from tracer_worker import TracerWorker

#: mtr-packet 0.95 cannot keep an IPv6 UDP flow constant, so the engine refuses it.
IMPOSSIBLE = {("ipv6", "udp")}


def cases() -> Iterator[tuple[str, str, str]]:
    """Every target that has a truth, in every family and protocol it has one for."""
    for path in available():
        scenario = load(path)
        for target in scenario.targets:
            for family in ("ipv4", "ipv6"):
                for protocol in ("icmp", "udp", "tcp"):
                    try:
                        truth_of(scenario, target, family, protocol)
                    except KeyError:
                        continue
                    if (family, protocol) not in IMPOSSIBLE:
                        yield target.name, family, protocol


CASES = list(cases())


@pytest.fixture(scope="module")
def tracer(internet: Lab) -> Iterator[TracerWorker]:
    """One tracer for all scenarios; it starts inside the simulated internet."""
    with TracerWorker() as worker:
        assert {"ipv4": True, "ipv6": True} == worker.ready
        yield worker


def fields(lab: Lab, target: str, family: str, protocol: str, **more: Any) -> dict[str, Any]:
    """A request for one case."""
    return {"target": lab.address(target, family), "protocol": protocol, **more}


@pytest.mark.parametrize(("target", "family", "protocol"), CASES, ids=["-".join(case) for case in CASES])
def test_alone(lab: Lab, tracer: TracerWorker, target: str, family: str, protocol: str) -> None:
    """A trace alone is true: who is where, how it ends, what was lost, how long it took."""
    trace = tracer.trace(**fields(lab, target, family, protocol))
    assert [] == judge(trace, lab.truth(target, family, protocol), lab.dealt(target, family, protocol))


@pytest.mark.parametrize("probes", [1, 3])
def test_all_at_once(lab: Lab, tracer: TracerWorker, probes: int) -> None:
    """All scenarios traced at once are as true as alone: nothing of one shows in another."""
    requests = [fields(lab, *case, probes=probes) for case in CASES]
    complaints = {}
    for case, trace in zip(CASES, tracer.trace_all(requests), strict=True):
        wrong = judge(trace, lab.truth(*case), lab.dealt(*case), rtt_tolerance_us=500_000)
        if wrong:
            complaints["-".join(case)] = wrong
    assert {} == complaints
