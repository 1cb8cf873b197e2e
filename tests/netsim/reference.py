"""The plainest tracer there is: all TTLs at once through one mtr-packet, in rounds, with no cleverness.

It shows what mtr-packet sees of the simulated internet, as a `Trace` that `judge` can compare with the truth. It is
slow and impolite, and stops by the simplest reading of what it got.
"""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterable, Sequence
from ipaddress import ip_address
from itertools import pairwise

from attrs import frozen

from tracerouted.model import (
    Family,
    Hop,
    HopStats,
    MplsLabel,
    Outcome,
    Path,
    Probe,
    Protocol,
    Responder,
    Status,
    StopReason,
    Target,
    Trace,
    TraceRequest,
)

from .namespace import SOURCES

WORDS = {"reply": Outcome.REPLY, "ttl-expired": Outcome.TTL_EXPIRED, "no-route": Outcome.UNREACHABLE}


@frozen(kw_only=True)
class Plan:
    """What to send: `extra` is appended to each command; `pause_s` is waited between commands."""

    address: str
    family: str
    protocol: str
    max_ttl: int
    rounds: int = 1
    timeout_s: int = 1
    extra: str = ""
    pause_s: float = 0.001


def send(plan: Plan) -> list[tuple[int, Probe]]:
    """The outcome of every probe of the plan, as (TTL, probe).

    What is sent again: a TCP probe whose bare `no-route` is a race inside mtr-packet, and a probe that was given an
    answer of the other family, which belongs to another process's probe.
    """
    version = Family(plan.family).version
    source = SOURCES[0 if version == 4 else 1]
    command = (
        f"send-probe ip-{version} {plan.address} local-ip-{version} {source} protocol {plan.protocol} "
        f"timeout {plan.timeout_s} {plan.extra}"
    )
    wanted = [ttl for _ in range(plan.rounds) for ttl in range(1, plan.max_ttl + 1)]
    settled: list[tuple[int, Probe]] = []
    for _ in range(6):
        replies = list(zip(wanted, _exchange([f"{command} ttl {ttl}" for ttl in wanted], plan), strict=True))
        settled += [(ttl, _probe(words, plan.address)) for ttl, words in replies if not _void(words, version)]
        wanted = [ttl for ttl, words in replies if _void(words, version)]
        if not wanted:
            break
    return settled


def _void(words: list[str], version: int) -> bool:
    return words[1:] == ["no-route"] or (len(words) > 2 and words[2] == f"ip-{10 - version}")


def _exchange(commands: Sequence[str], plan: Plan) -> list[list[str]]:
    # Its input stays open to the end: at end of file mtr-packet spins, and that loses its race for TCP answers.
    with subprocess.Popen(["mtr-packet"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        found: dict[int, list[str]] = {}
        killer = threading.Timer(plan.timeout_s + 20, process.kill)
        killer.start()
        for token, command in enumerate(commands, 1):
            process.stdin.write(f"{token} {command}\n")
            process.stdin.flush()
            time.sleep(plan.pause_s)
        while len(found) < len(commands):
            words = process.stdout.readline().split()
            if not words:
                break
            found[int(words[0])] = words
        killer.cancel()
        process.stdin.close()
    return [found[token] for token in range(1, len(commands) + 1)]


def _probe(words: list[str], target: str) -> Probe:
    outcome, address, rtt, mpls, error = Outcome.TIMEOUT, None, None, "", None
    if len(words) >= 6 and words[1] in WORDS:
        outcome, address, rtt = WORDS[words[1]], words[3], int(words[5])
        mpls = words[7] if len(words) > 7 else ""
        if ip_address(address).is_unspecified:
            outcome, address, rtt, error = Outcome.ERROR, None, None, " ".join(words[1:])
        elif outcome is Outcome.REPLY and address != target:
            outcome = Outcome.UNREACHABLE
    elif words[1:] == ["unexpected-error", "errno", "104"]:
        outcome, address = Outcome.REPLY, target
    elif words[1] != "no-reply":
        outcome, error = Outcome.ERROR, " ".join(words[1:])
    numbers = [int(number) for number in mpls.split(",")] if mpls else []
    labels = tuple(MplsLabel(*numbers[at : at + 4]) for at in range(0, len(numbers), 4))
    return Probe(flow=1, sent_at=0.0, outcome=outcome, address=address, rtt_us=rtt, mpls=labels, error=error)


def trace(plan: Plan, gap_limit: int = 4) -> Trace:
    """The plan's probes as a finished trace."""
    probes: dict[int, list[Probe]] = {ttl: [] for ttl in range(1, plan.max_ttl + 1)}
    for ttl, probe in send(plan):
        probes[ttl].append(probe)
    last, stop = _end(probes, plan, gap_limit)
    hops = tuple(hop_of(ttl, probes[ttl]) for ttl in range(1, last + 1))
    return trace_of(plan, hops, stop)


def _end(probes: dict[int, list[Probe]], plan: Plan, gap_limit: int) -> tuple[int, StopReason]:
    seen = {ttl: {p.address for p in at if p.address} for ttl, at in probes.items()}
    outcomes = {ttl: {p.outcome for p in at} for ttl, at in probes.items()}
    expired = [t for t in probes if Outcome.TTL_EXPIRED in outcomes[t] and plan.address not in seen[t]]
    furthest = max(expired, default=0)
    for ttl in probes:
        if plan.address in seen[ttl]:
            return ttl, StopReason.REACHED
        if Outcome.UNREACHABLE in outcomes[ttl] and ttl > furthest:
            return ttl, StopReason.UNREACHABLE
    if plan.max_ttl - furthest >= gap_limit:
        return furthest + gap_limit, StopReason.GAP_LIMIT
    firsts = [next(iter(sorted(at)), None) for at in seen.values()]
    if any(a != b and firsts.count(a) > 2 and a is not None for a, b in pairwise(firsts)):
        return plan.max_ttl, StopReason.LOOP
    return plan.max_ttl, StopReason.MAX_TTL


def hop_of(ttl: int, probes: Iterable[Probe], rate_limited: bool = False) -> Hop:
    """A hop with the responders and statistics of its probes."""
    shown = tuple(probes)
    answered = [p for p in shown if p.address is not None]
    rtts = sorted(p.rtt_us for p in answered if p.rtt_us is not None)
    lost = sum(p.outcome is Outcome.TIMEOUT for p in shown)
    sent = len(answered) + lost
    stats = HopStats(
        sent=sent,
        received=len(answered),
        lost=lost,
        loss_pct=100 * lost / sent if sent else None,
        min_us=rtts[0] if rtts else None,
        avg_us=sum(rtts) / len(rtts) if rtts else None,
        median_us=rtts[len(rtts) // 2] if rtts else None,
        max_us=rtts[-1] if rtts else None,
        stddev_us=None,
        jitter_us=None,
    )
    responders = tuple(
        Responder(
            address=address, hostname=None, asn=None, flows=(1,), received=sum(p.address == address for p in answered)
        )
        for address in dict.fromkeys(p.address for p in answered if p.address)
    )
    return Hop(ttl=ttl, responders=responders, probes=shown, stats=stats, rate_limited=rate_limited)


def trace_of(plan: Plan, hops: tuple[Hop, ...], stop: StopReason) -> Trace:
    """A completed trace with one flow."""
    family = Family(plan.family)
    addresses = tuple(hop.responders[0].address if hop.responders else None for hop in hops)
    return Trace(
        id="reference",
        status=Status.COMPLETED,
        stop_reason=stop,
        reached=stop is StopReason.REACHED,
        revision=1,
        created_at=0.0,
        started_at=0.0,
        finished_at=0.0,
        expires_at=None,
        request=TraceRequest(
            target=plan.address,
            family=family,
            protocol=Protocol(plan.protocol),
            probes=plan.rounds,
            max_ttl=plan.max_ttl,
        ),
        target=Target(host=plan.address, address=plan.address, family=family, addresses=(plan.address,)),
        source_address=str(SOURCES[0 if family is Family.IPV4 else 1]),
        path_id=None,
        hops=hops,
        paths=(Path(flow=1, path_id="", addresses=addresses),),
        error=None,
    )
