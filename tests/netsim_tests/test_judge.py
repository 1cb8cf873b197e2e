"""The judge: content with true traces, and with no others."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve

from netsim import Expected, Truth, judge, load, truth_of
from netsim.reference import Plan, hop_of, trace_of
from tracerouted.model import Hop, MplsLabel, Outcome, Path, Probe, Status, StopReason, Trace


def truth(name: str, target: str | None = None, protocol: str = "icmp") -> Truth:
    """The truth of a bundled scenario's target, in IPv4."""
    scenario = load(name)
    spec = next(t for t in scenario.targets if target in (None, t.name))
    return truth_of(scenario, spec, "ipv4", protocol)


def probe_of(known: Expected, late_us: int = 300) -> Probe:
    """What a prober would see of a hop."""
    silent = known.address is None
    return Probe(
        flow=1,
        sent_at=0.0,
        outcome=Outcome.TIMEOUT if silent else known.outcome,
        address=known.address,
        rtt_us=None if silent else known.rtt_us + late_us,
        mpls=known.mpls,
        error=None,
    )


def true_trace(told: Truth, way: int = 0, length: int | None = None, rounds: int = 3) -> Trace:
    """A trace that is true, `rounds` probes per hop, loss by the scenario's patterns."""
    hops = []
    for ttl in range(1, (length or len(told.ways[way])) + 1):
        known = told.at(way, ttl)
        assert known is not None
        verdicts = known.lose.verdicts() if known.lose else iter([False] * rounds)
        probes = [probe_of(known) for _ in range(rounds)]
        lost = evolve(probes[0], outcome=Outcome.TIMEOUT, address=None, rtt_us=None, mpls=())
        hops.append(hop_of(ttl, [lost if next(verdicts) else probe for probe in probes]))
    plan = Plan(address=told.address, family="ipv4", protocol=told.protocol, max_ttl=30, rounds=rounds)
    return trace_of(plan, tuple(hops), told.stop_reason)


def with_hop(trace: Trace, ttl: int, *probes: Probe, **fields: Any) -> Trace:
    """The trace with another hop at a TTL."""
    hop = evolve(hop_of(ttl, probes or trace.hops[ttl - 1].probes), **fields)
    hops: tuple[Hop, ...] = (*trace.hops[: ttl - 1], hop, *trace.hops[ttl:])
    addresses = tuple(h.responders[0].address if h.responders else None for h in hops)
    return evolve(trace, hops=hops, paths=(Path(flow=1, path_id="", addresses=addresses),))


@pytest.mark.parametrize(
    ("name", "length"),
    [
        ("plain", None),
        ("lossy_middle", None),
        ("silent_middle", None),
        ("silent_end", 9),
        ("mpls", None),
        ("host_unreachable", None),
        ("loop", 8),
        ("long_path", None),
        ("high_rtt", None),
    ],
)
def test_true_traces_have_no_complaints(name: str, length: int | None) -> None:
    """A hand-made trace that says what the scenario says is true."""
    told = truth(name)
    assert [] == judge(true_trace(told, length=length), told)


def test_any_way_of_a_split_path_is_true() -> None:
    """A flow may go each of the ways there are."""
    told = truth("ecmp", protocol="udp")
    for way in range(4):
        assert [] == judge(true_trace(told, way), told)


def test_a_mixture_of_ways_is_no_way() -> None:
    """A flow that seems to jump between ways is wrong, though each router is a real one; mixed probes may."""
    told = truth("ecmp", protocol="udp")
    first, other = true_trace(told, 0), told.at(3, 4)
    assert other is not None
    jumped = with_hop(first, 4, *[probe_of(other)] * 3)
    assert any("goes no way there is" in complaint for complaint in judge(jumped, told))
    assert [] == judge(jumped, evolve(told, mixed=True))


def known(ttl: int) -> Expected:
    """What is at a TTL of the plain scenario."""
    found = truth("plain").at(0, ttl)
    assert found is not None
    return found


GOOD = true_trace(truth("plain"))
LOST = Probe(flow=1, sent_at=0.0, outcome=Outcome.TIMEOUT, address=None, rtt_us=None, mpls=(), error=None)
HOP3 = probe_of(known(3))


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        (evolve(GOOD, status=Status.FAILED), "not completed"),
        (evolve(GOOD, stop_reason=StopReason.MAX_TTL), "stopped because"),
        (evolve(GOOD, reached=False), "reached is False"),
        (evolve(GOOD, target=None), "the target is"),
        (evolve(GOOD, hops=GOOD.hops[:-1], paths=()), "ends at TTL 10"),
        (evolve(GOOD, hops=(*GOOD.hops, hop_of(12, GOOD.hops[-1].probes)), paths=()), "ends at TTL 12"),
        (evolve(GOOD, hops=(GOOD.hops[0], *GOOD.hops[2:]), paths=()), "hops' TTLs"),
        (with_hop(GOOD, 3, *[evolve(HOP3, address="44.1.1.4")] * 3), "the truth is 44.1.1.3"),
        (with_hop(GOOD, 3, HOP3, HOP3, evolve(HOP3, address="44.9.9.9")), "44.9.9.9 answered"),
        (with_hop(GOOD, 3, *[evolve(HOP3, outcome=Outcome.REPLY)] * 3), "answered reply"),
        (with_hop(GOOD, 3, *[evolve(HOP3, mpls=(MplsLabel(1, 0, 1, 1),))] * 3), "labels"),
        (with_hop(GOOD, 3, *[evolve(HOP3, rtt_us=5_900)] * 3), "before it can"),
        (with_hop(GOOD, 3, *[evolve(HOP3, rtt_us=256_001)] * 3), "smallest RTT"),
        (with_hop(GOOD, 3, *[evolve(HOP3, rtt_us=None)] * 3), "without an RTT"),
        (with_hop(GOOD, 3, HOP3, HOP3, LOST), "1 lost of 3, the pattern loses 0"),
        (with_hop(GOOD, 3, *[LOST] * 3), "3 lost of 3"),
        (with_hop(GOOD, 3, HOP3, evolve(LOST, outcome=Outcome.PENDING)), "pending"),
        (with_hop(GOOD, 3, HOP3, evolve(LOST, outcome=Outcome.ERROR, error="x")), "as an error: x"),
        (with_hop(GOOD, 3, stats=evolve(GOOD.hops[2].stats, received=2, sent=2)), "stats say"),
        (with_hop(GOOD, 3, stats=evolve(GOOD.hops[2].stats, max_us=1.0)), "stats say RTTs"),
        (with_hop(GOOD, 3, responders=()), "responders are"),
        (evolve(GOOD, paths=(Path(1, "", (None,) * 11),)), "the path of flow 1 says None"),
    ],
)
def test_wrong_traces_are_found_out(wrong: Trace, word: str) -> None:
    """Each thing that can be wrong is complained about, in words that say what."""
    complaints = judge(wrong, truth("plain"))
    assert any(word in complaint for complaint in complaints), complaints


def test_loss_must_be_what_the_simulator_dealt() -> None:
    """With the simulator's counters at hand, one probe too many or too few lost is wrong."""
    told = truth("lossy_path")
    trace = with_hop(true_trace(told), 3, *[probe_of(e) for e in [told.ways[0][2]] * 2], LOST)
    cell = {"received": 3, "answered": 3, "lost": 0, "limited": 0, "silent": 0}
    dealt = dict.fromkeys(range(1, 8), cell)
    right = {**dealt, 3: {**cell, "answered": 2, "lost": 1}}
    assert [] == judge(trace, told, right)
    assert ["TTL 3: 1 lost of 3, the simulator lost 0 of 3"] == judge(trace, told, dealt)
    more = {**right, 5: {**cell, "answered": 2}}
    assert ["TTL 5: 3 received, the simulator answered 2"] == judge(trace, told, more)


def test_loss_patterns_are_judged_without_counters() -> None:
    """Where the scenario loses every third answer, losing none of three is wrong."""
    told = truth("lossy_middle")
    lossless = with_hop(true_trace(told), 3, *[probe_of(told.ways[0][2])] * 3)
    assert ["TTL 3: 0 lost of 3, the pattern loses 1"] == judge(lossless, told)


def test_rate_limited_hops_must_be_flagged() -> None:
    """A hop that loses because it limits itself must say so, and only when it lost anything."""
    told = truth("rate_limited")
    trace = true_trace(told)
    assert [] == judge(trace, told)
    limited = with_hop(trace, 3, probe_of(told.ways[0][2]), LOST)
    assert ["TTL 3: rate_limited is False with 1 lost"] == judge(limited, told)
    assert [] == judge(with_hop(limited, 3, rate_limited=True), told)
    assert ["TTL 2: rate_limited is True with 0 lost"] == judge(with_hop(trace, 2, rate_limited=True), told)
