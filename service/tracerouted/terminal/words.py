"""How a trace ended, in one plain sentence; and text made safe to show."""

from __future__ import annotations

from ..model import Hop, Outcome, Responder, Status, StopReason, Trace


def plain(text: str) -> str:
    """`text` with "?" for everything that is not printable ASCII.

    Names and error texts come from strangers; control characters among them would be commands to the terminal.
    """
    return "".join(character if " " <= character <= "~" else "?" for character in text)


def without_controls(text: str) -> str:
    """`text` with "?" for control characters (C0 and C1, DEL) other than the line feed."""
    return "".join(
        "?" if (character < " " and character != "\n") or "\x7f" <= character <= "\x9f" else character
        for character in text
    )


def named(responder: Responder) -> str:
    """A responder's name and address, or its address alone."""
    if responder.hostname is None:
        return plain(responder.address)
    return plain(f"{responder.hostname} ({responder.address})")


def ending(trace: Trace) -> str:
    """How the trace ended, as one sentence."""
    if trace.status is Status.FAILED:
        return f"Failed: {plain(trace.error or 'no reason is known')}."
    answering = [hop for hop in trace.hops if hop.responders]
    match trace.stop_reason:
        case StopReason.REACHED:
            return _reached(trace)
        case StopReason.UNREACHABLE:
            return _refused(answering)
        case StopReason.GAP_LIMIT:
            return f"Not reached: {_silence(answering)}."
        case StopReason.MAX_TTL:
            return f"Not reached within {trace.request.max_ttl} hops: {_silence(answering)}."
        case StopReason.LOOP:
            return f"Not reached: the route goes in circles{_circle(answering)}."
        case StopReason.DEADLINE:
            return f"Not reached: the {trace.request.deadline_ms / 1000:g} s for the whole trace are over."
        case StopReason.CANCELLED:
            return "Cancelled."
    return f"Ended: {plain(trace.error or trace.stop_reason or trace.status)}."


def _reached(trace: Trace) -> str:
    address = trace.target.address if trace.target else trace.request.target
    own = [hop for hop in trace.hops if any(each.address == address for each in hop.responders)]
    where = f"Reached {plain(address)}"
    if not own:
        return f"{where}."
    hop = own[-1]
    took = "" if hop.stats.avg_us is None else f", in {hop.stats.avg_us / 1000:.2f} ms on average"
    return f"{where} at hop {hop.ttl}{took}."


def _refused(answering: list[Hop]) -> str:
    for hop in reversed(answering):
        for probe in reversed(hop.probes):
            if probe.outcome is Outcome.UNREACHABLE:
                by = next(each for each in hop.responders if each.address == probe.address)
                return f"Not reached: blocked at hop {hop.ttl} by {named(by)}, which says the target is unreachable."
    return "Not reached: the target is unreachable."


def _silence(answering: list[Hop]) -> str:
    if not answering:
        return "nothing on the way answered"
    last = answering[-1]
    return f"silent beyond hop {last.ttl}, {named(last.responders[0])}"


def _circle(answering: list[Hop]) -> str:
    seen: dict[str, int] = {}
    for hop in answering:
        address = hop.responders[0].address
        if address in seen and hop.ttl - seen[address] > 1:
            return f": {plain(address)} is both hop {seen[address]} and hop {hop.ttl}"
        seen.setdefault(address, hop.ttl)
    return ""
