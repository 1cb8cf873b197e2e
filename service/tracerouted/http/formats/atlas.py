"""A RIPE Atlas traceroute result (firmware 5080), as their parser `ripe.atlas.sagan` reads it.

    [{"fw": 5080, "type": "traceroute", "msm_id": 0, "prb_id": 0, "timestamp", "endtime", "af", "dst_name",
      "dst_addr", "src_addr", "from", "proto": "ICMP", "size", "paris_id",
      "result": [{"hop": 1, "result": [{"from": "192.0.2.1", "rtt": 0.512}, {"x": "*"}]}]}]

It is no measurement of theirs: `msm_id` and `prb_id` are 0. `size` is the payload without IP and transport headers,
as theirs is. `paris_id` is 1 where all probes were of one UDP flow, else 0. A reply's own size and TTL are not known
and left out; so is which code an unreachable had: `err` is always "H". An RTT of 0 would count as no reply: the least
is 0.001 ms. A label stack (RFC 4950) is an object of class 1 and type 1 under `icmpext`. A probe that never left is
`{"error": ...}`; probes still in flight, and hops with nothing else, are left out. What went wrong with a name that
did not resolve is in `dnserr`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from ...model import Family, Outcome, Probe, Protocol, Trace
from ..problems import NOT_ACCEPTABLE, ProblemError

FIRMWARE = 5080

_PROTOCOLS = {Protocol.ICMP: "ICMP", Protocol.UDP: "UDP", Protocol.TCP: "TCP"}

_IP_HEADER = {Family.IPV4: 20, Family.IPV6: 40}
_TRANSPORT_HEADER = {Protocol.ICMP: 8, Protocol.UDP: 8, Protocol.TCP: 20}


def render(trace: Trace) -> bytes:
    """The whole trace as it stands. Raises `ProblemError` (406) for a protocol RIPE Atlas does not know."""
    protocol = trace.request.protocol
    if protocol not in _PROTOCOLS:
        raise ProblemError(NOT_ACCEPTABLE, f"RIPE Atlas has no {protocol}; ask for another format")
    return msgspec.json.encode([dict(_result(trace))])


def _result(trace: Trace) -> Iterator[tuple[str, Any]]:
    request, target = trace.request, trace.target
    family = target.family if target else request.family
    yield "fw", FIRMWARE
    yield "type", "traceroute"
    yield "msm_id", 0
    yield "prb_id", 0
    yield "timestamp", int(trace.started_at or trace.created_at)
    if trace.finished_at is not None:
        yield "endtime", int(trace.finished_at)
    if family is not None:
        yield "af", family.version
    yield "dst_name", request.target
    if target is not None:
        yield "dst_addr", target.address
    elif trace.error is not None:
        yield "dnserr", trace.error
    if trace.source_address is not None:
        yield "src_addr", trace.source_address
        yield "from", trace.source_address
    yield "proto", _PROTOCOLS[request.protocol]
    if family is not None:
        yield "size", max(0, request.size - _IP_HEADER[family] - _TRANSPORT_HEADER[request.protocol])
    yield "paris_id", int(request.protocol is Protocol.UDP and request.flows == 1)
    hops = ((hop.ttl, [_packet(probe) for probe in hop.probes if _told(probe)]) for hop in trace.hops)
    yield "result", [{"hop": ttl, "result": packets} for ttl, packets in hops if packets]


def _told(probe: Probe) -> bool:
    return probe.outcome is not Outcome.PENDING


def _packet(probe: Probe) -> dict[str, Any]:
    if probe.outcome is Outcome.ERROR:
        return {"error": probe.error or "the probe could not be sent"}
    if probe.address is None:
        return {"x": "*"}
    packet: dict[str, Any] = {"from": probe.address}
    if probe.rtt_us is not None:
        packet["rtt"] = max(1, probe.rtt_us) / 1000
    if probe.outcome is Outcome.UNREACHABLE:
        packet["err"] = "H"
    if probe.mpls:
        stack = [{"label": label, "exp": tc, "s": s, "ttl": ttl} for label, tc, s, ttl in probe.mpls]
        packet["icmpext"] = {"version": 2, "rfc4884": 0, "obj": [{"class": 1, "type": 1, "mpls": stack}]}
    return packet
