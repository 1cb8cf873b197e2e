"""The judge: is a finished trace true to the simulated internet it went through?

It compares a `tracerouted.model.Trace` with a `Truth`, exactly: the stop reason, who is at which TTL in which flow,
that nothing is there which should not be, outcomes, labels, round-trip times, and loss. With the simulator's own
counters (`Lab.dealt`, of this trace alone) loss is compared with what the simulator dealt; without them with the
scenario's exact patterns, and where those say nothing loss is not judged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from attrs import evolve

from tracerouted.model import Hop, Outcome, Probe, RetryReason, Status, StopReason, Trace

from .truth import Expected, Truth

ANSWERED = (Outcome.REPLY, Outcome.TTL_EXPIRED, Outcome.UNREACHABLE)

#: mtr-packet measures with the wall clock, which may be slewed by 500 ppm (adjtimex(2)) against the simulator's.
SLEW = 0.0005

Dealt = Mapping[int, Mapping[str, int]]


def judge(
    trace: Trace,
    truth: Truth,
    dealt: Dealt | None = None,
    *,
    rtt_tolerance_us: int = 250_000,
    troubled: bool = False,
) -> list[str]:
    """What is wrong with `trace`, in words; an empty list means it is true.

    No RTT may be below the simulated one, and the smallest of each hop and responder at most `rtt_tolerance_us`
    above it. The default leaves room for a machine that is busy with other things.

    A trace was `troubled` if its prober died meanwhile or the clock stepped. Then it may say less than the truth: it
    may have ended early, with probes that are errors or pending, without some RTTs, and with less loss than was
    dealt, because probes were sent again. What it does say must still be true, and of loss no more than was dealt.
    """
    if troubled:
        trace = _undisturbed(trace)
    early = troubled and trace.stop_reason in (StopReason.DEADLINE, StopReason.ERROR)
    if early and not truth.repeat and truth.stop_reason in (StopReason.REACHED, StopReason.UNREACHABLE):
        # While nothing is known of the end itself, its responder's answers to higher TTLs stay where they were asked.
        truth = evolve(truth, repeat=(truth.ways[0][-1],))
    return [
        *([] if early else _whole(trace, truth)),
        *_hops(trace, truth, dealt, rtt_tolerance_us, troubled),
        *_paths(trace, truth),
    ]


def _undisturbed(trace: Trace) -> Trace:
    """The trace without what trouble with the prober or the clock makes of single probes."""

    def told(probe: Probe) -> bool:
        interrupted = probe.outcome is Outcome.ERROR and probe.error in set(RetryReason)
        return not interrupted and probe.outcome is not Outcome.PENDING

    return evolve(trace, hops=tuple(evolve(h, probes=tuple(p for p in h.probes if told(p))) for h in trace.hops))


def _whole(trace: Trace, truth: Truth) -> Iterator[str]:
    if trace.status is not Status.COMPLETED:
        yield f"the trace is {trace.status}, not completed ({trace.error})"
    if trace.stop_reason is not truth.stop_reason:
        yield f"it stopped because of {trace.stop_reason}, the truth is {truth.stop_reason}"
    if trace.reached is not (truth.stop_reason is StopReason.REACHED):
        yield f"reached is {trace.reached}, but it stops because of {truth.stop_reason}"
    if trace.target is None or trace.target.address != truth.address:
        yield f"the target is {trace.target and trace.target.address}, the truth is {truth.address}"
    first = trace.request.first_ttl
    ttls = [hop.ttl for hop in trace.hops]
    if ttls != list(range(first, first + len(ttls))):
        yield f"the hops' TTLs are {ttls}"
    lengths = sorted({len(way) for way in truth.ways})
    last = ttls[-1] if ttls else 0
    if truth.stop_reason in (StopReason.REACHED, StopReason.UNREACHABLE):
        if last not in lengths:
            yield f"it ends at TTL {last}, the truth is {' or '.join(map(str, lengths))}"
    elif truth.stop_reason is StopReason.MAX_TTL:
        if last != trace.request.max_ttl:
            yield f"it ends at TTL {last}, not at the highest allowed, {trace.request.max_ttl}"
    elif last < lengths[0]:
        yield f"it ends at TTL {last}, before the last known hop, {lengths[0]}"


def _hops(trace: Trace, truth: Truth, dealt: Dealt | None, tolerance: int, troubled: bool) -> Iterator[str]:
    flows = {probe.flow for hop in trace.hops for probe in hop.probes}
    ways = {flow: _ways_of(trace, truth, flow) for flow in sorted(flows)}
    if not truth.mixed:
        for flow, possible in ways.items():
            if not possible:
                yield f"flow {flow} goes no way there is: {_shown(trace, flow)}"
    for hop in trace.hops:
        # A flow that goes no true way is judged hop by hop, to say where it strays.
        expected = {
            flow: [
                known
                for way in (range(len(truth.ways)) if truth.mixed or not possible else possible)
                if (known := truth.at(way, hop.ttl)) is not None
            ]
            for flow, possible in ways.items()
        }
        for complaint in [
            *_probes(hop, truth, expected, tolerance, troubled),
            *_loss(hop, truth, dealt, [e for known in expected.values() for e in known], trace, troubled),
            *_statistics(hop),
        ]:
            yield f"TTL {hop.ttl}: {complaint}"


def _ways_of(trace: Trace, truth: Truth, flow: int) -> list[int]:
    """The ways that all answers of a flow agree with."""
    answers = [
        (hop.ttl, probe.address)
        for hop in trace.hops
        for probe in hop.probes
        if probe.flow == flow and probe.outcome in ANSWERED
    ]

    def agrees(way: int) -> bool:
        return all((known := truth.at(way, ttl)) is not None and known.address == address for ttl, address in answers)

    return [way for way in range(len(truth.ways)) if agrees(way)]


def _shown(trace: Trace, flow: int) -> str:
    return " ".join(
        "|".join(sorted({p.address or "*" for p in hop.probes if p.flow == flow})) or "-" for hop in trace.hops
    )


def _probes(
    hop: Hop, truth: Truth, expected: Mapping[int, list[Expected]], tolerance: int, troubled: bool
) -> Iterator[str]:
    best: dict[str, tuple[int, int]] = {}
    for probe in hop.probes:
        if probe.outcome is Outcome.ERROR and Outcome.ERROR not in {e.outcome for e in expected[probe.flow]}:
            yield f"a probe ended as an error: {probe.error}"
        if probe.outcome is Outcome.PENDING:
            yield "a probe is still pending"
        if probe.outcome not in ANSWERED:
            continue
        known = [e for e in expected[probe.flow] if e.address == probe.address]
        if not known:
            due = sorted({e.address or "*" for e in expected[probe.flow]})
            yield f"{probe.address} answered flow {probe.flow}, the truth is {' or '.join(due) or 'nothing'}"
            continue
        if probe.outcome not in {e.outcome for e in known}:
            yield f"{probe.address} answered {probe.outcome}, the truth is {known[0].outcome}"
        if probe.mpls not in {e.mpls for e in known}:
            yield f"{probe.address} quoted labels {probe.mpls}, the truth is {known[0].mpls}"
        if probe.rtt_us is None:
            if troubled and probe.error == RetryReason.CLOCK:
                continue
            yield f"{probe.address} answered without an RTT ({probe.error})"
            continue
        least = min(e.rtt_us for e in known)
        if truth.mixed and probe.address == truth.address:
            # An answer to a higher TTL counts here, and may have come a shorter way.
            least = min(way[-1].rtt_us for way in truth.ways if way[-1].address == probe.address)
        if probe.rtt_us < int(least * (1 - SLEW)):
            yield f"{probe.address} answered after {probe.rtt_us} us, before it can have, {least} us"
        assert probe.address is not None
        most = max(e.rtt_us + e.jitter_us for e in known) + tolerance
        best[probe.address] = min(best.get(probe.address, (probe.rtt_us, most)), (probe.rtt_us, most))
    for address, (rtt, most) in best.items():
        if rtt > most:
            yield f"the smallest RTT of {address} is {rtt} us, more than {most} us"


def _loss(
    hop: Hop, truth: Truth, dealt: Dealt | None, expected: list[Expected], trace: Trace, troubled: bool
) -> Iterator[str]:
    stats = hop.stats
    if any(e.optional or e.outcome is Outcome.ERROR for e in expected):
        return
    limited = hop.ttl in truth.rate_limited and stats.lost > 0 and stats.received > 0
    if truth.rate_limited and hop.rate_limited is not limited and not troubled:
        yield f"rate_limited is {hop.rate_limited} with {stats.lost} lost"
    if dealt is not None:
        cell = dealt.get(hop.ttl, {})
        arrived = cell.get("received", 0)
        if all(e.address is None for e in expected):
            # Silence is also what is left of answers no prober can hear; probes still out when it ended are not lost.
            if stats.lost > arrived:
                yield f"{stats.lost} lost, but only {arrived} arrived at the simulator"
            return
        lost = sum(cell.get(fate, 0) for fate in ("lost", "limited", "silent"))
        # A silent hop just before the end may be tried more often than is told.
        tried = not stats.received and hop.ttl + 1 == trace.hops[-1].ttl and stats.lost <= lost <= stats.lost + 3
        last = hop.ttl == trace.hops[-1].ttl
        # Probes that went too far count at the end, answered or not.
        surplus = sum(
            c.get(fate, 0)
            for ttl, c in dealt.items()
            if last and ttl > hop.ttl
            for fate in ("lost", "limited", "silent")
        )
        if not (0 if troubled else lost) <= stats.lost <= lost + surplus and not tried:
            yield f"{stats.lost} lost of {stats.sent}, the simulator lost {lost} of {arrived}"
        most = sum(c.get("answered", 0) for ttl, c in dealt.items() if ttl == hop.ttl or (last and ttl > hop.ttl))
        if stats.received > most:
            yield f"{stats.received} received, the simulator answered {most}"
        return
    if any(e.lossy for e in expected) or troubled:
        return
    patterns = {e.lose for e in expected}
    if len(patterns) == 1:
        (pattern,) = patterns
        lost = pattern.lost_of(stats.sent) if pattern else 0
        # A silent hop just before the end may be tried more often than is told.
        tried = not stats.received and hop.ttl + 1 == trace.hops[-1].ttl and stats.lost <= lost <= stats.lost + 3
        if stats.lost != lost and not tried:
            yield f"{stats.lost} lost of {stats.sent}, the pattern loses {lost}"


def _statistics(hop: Hop) -> Iterator[str]:
    """The statistics and responders must be those of the probes shown."""
    outcomes: Counter[Outcome] = Counter(probe.outcome for probe in hop.probes)
    received = sum(outcomes[outcome] for outcome in ANSWERED)
    stats = hop.stats
    if (stats.received, stats.lost, stats.sent) != (received, outcomes[Outcome.TIMEOUT], stats.received + stats.lost):
        told = f"{stats.sent} sent, {stats.received} received, {stats.lost} lost"
        yield f"stats say {told}; the probes: {dict(outcomes)}"
    rtts = [probe.rtt_us for probe in hop.probes if probe.rtt_us is not None and probe.outcome in ANSWERED]
    figures = (min(rtts), max(rtts)) if rtts else (None, None)
    if (stats.min_us, stats.max_us) != figures:
        yield f"stats say RTTs from {stats.min_us} to {stats.max_us}; the probes {figures}"
    answers: Counter[str | None] = Counter(p.address for p in hop.probes if p.outcome in ANSWERED)
    told = {responder.address: responder.received for responder in hop.responders}
    if told != dict(answers):
        yield f"responders are {told}; the probes {dict(answers)}"


def _paths(trace: Trace, truth: Truth) -> Iterator[str]:
    """Each flow's path must be what its probes met."""
    for path in trace.paths:
        for hop, address in zip(trace.hops, path.addresses, strict=False):
            met: list[Probe] = [p for p in hop.probes if p.flow == path.flow and p.outcome in ANSWERED]
            if address not in ({p.address for p in met} or {None}):
                yield f"TTL {hop.ttl}: the path of flow {path.flow} says {address}, which its probes did not meet"
        if len(path.addresses) > len(trace.hops):
            yield f"the path of flow {path.flow} has {len(path.addresses)} hops, the trace {len(trace.hops)}"
