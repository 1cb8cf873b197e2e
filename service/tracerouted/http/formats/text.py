"""The layout of traceroute(8): a header, then a line per hop.

    traceroute to example.net (192.0.2.9), 30 hops max, 64 byte packets
     1  r1.example.net (192.0.2.1)  0.512 ms  0.498 ms  0.601 ms
     2  * * *
     3  198.51.100.1 (198.51.100.1)  9.004 ms 198.51.100.5 (198.51.100.5)  9.114 ms *
     4  192.0.2.9 (192.0.2.9)  20.001 ms !H *  20.480 ms !H

An address is printed when it differs from the one before it on the line. `!H` marks an unreachable (which code it had
is not known). Where the clock made a round-trip time a lie there is `? ms`. Probes still in flight are left out, and
so are those that never left; a hop with only such probes is `!E`. A trace that failed, or was stopped before it was
done, says so in a last line.
"""

from __future__ import annotations

from ...model import Hop, Outcome, Probe, Responder, Status, Target, Trace, TraceRequest

_SILENT = (Outcome.TIMEOUT,)
_UNTOLD = (Outcome.PENDING, Outcome.ERROR)


def render(trace: Trace) -> bytes:
    """The whole trace as it stands."""
    lines = [] if trace.target is None else [header(trace.request, trace.target)]
    lines += [hop_line(hop) for hop in trace.hops]
    return "".join([*lines, footer(trace)]).encode()


def header(request: TraceRequest, target: Target) -> str:
    """The first line."""
    return (
        f"traceroute to {target.host} ({target.address}), {request.max_ttl} hops max, {request.size} byte packets\n"
    )


def hop_line(hop: Hop) -> str:
    """One hop's line; "" while nothing is known of it."""
    names = {responder.address: _name(responder) for responder in hop.responders}
    parts: list[str] = []
    last: str | None = None
    for probe in hop.probes:
        if probe.outcome in _UNTOLD:
            continue
        if probe.address is None or probe.outcome in _SILENT:
            parts.append(" *")
            continue
        if probe.address != last:
            last = probe.address
            parts.append(f" {names.get(last, last)} ({last})")
        parts.append(_answer(probe))
    if not parts:
        if not any(probe.outcome is Outcome.ERROR for probe in hop.probes):
            return ""
        parts.append(" !E")
    return f"{hop.ttl:2d} {''.join(parts)}\n"


def footer(trace: Trace) -> str:
    """A last line for a trace that failed or was stopped; "" for any other."""
    if trace.status in (Status.FAILED, Status.CANCELLED):
        why = trace.error or trace.stop_reason or trace.status
        return f"traceroute: {trace.request.target}: {why}\n"
    return ""


def _name(responder: Responder) -> str:
    return responder.hostname or responder.address


def _answer(probe: Probe) -> str:
    rtt = "?" if probe.rtt_us is None else f"{probe.rtt_us / 1000:.3f}"
    return f"  {rtt} ms !H" if probe.outcome is Outcome.UNREACHABLE else f"  {rtt} ms"
