"""What the callbacks of a `mtr.TraceRoute` get, made of a finished trace."""

from __future__ import annotations

from ..model import Outcome, StopReason
from .tracing import Job

#: mtr-packet's words for what kept a probe from leaving, as a failure callback gets them.
_WORDS = {
    "no-route": "no route to host",
    "network-down": "network is down",
    "permission-denied": "permission denied",
}


class Milliseconds(int):
    """A round-trip time in whole milliseconds, rounded; `microseconds` is what was measured."""

    microseconds: int

    def __new__(cls, microseconds: int) -> Milliseconds:
        """From microseconds."""
        self = super().__new__(cls, (microseconds + 500) // 1000)
        self.microseconds = microseconds
        return self

    def __getnewargs__(self) -> tuple[int]:
        return (self.microseconds,)


#: Hop number, responder or None, RTT or None.
Hop = tuple[int, str | None, Milliseconds | None]


def hop_list(job: Job) -> list[Hop]:
    """The hops from 1 on, those skipped or silent included."""
    hops: list[Hop] = []
    for ttl in range(1, max(job.hops, default=0) + 1):
        fact = job.hops.get(ttl)
        rtt = None if fact is None or fact.rtt_us is None else Milliseconds(fact.rtt_us)
        hops.append((ttl, None if fact is None else fact.address, rtt))
    return hops


def failed_hop(job: Job) -> int | None:
    """The hop a trace failed at; None if it has a result."""
    last = max(job.hops, default=job.request.first_ttl)
    if job.failure is not None:
        errors = (ttl for ttl, fact in job.hops.items() if fact.outcome is Outcome.ERROR)
        return min(errors, default=last)
    unreachable = job.machine is not None and job.machine.finished is StopReason.UNREACHABLE
    return last if unreachable else None


def error_text(job: Job, hop: int) -> str:
    """What happened at the hop where a trace failed."""
    fact = job.hops.get(hop)
    if fact is not None and fact.outcome is Outcome.UNREACHABLE:
        return f"failed to send-probe to {job.kind.address}: no route to host, says {fact.address}"
    if fact is not None and fact.error is not None:
        return f"failed to send-probe to {job.kind.address}: {_WORDS.get(fact.error, fact.error)}"
    return job.failure or ""


def request_words(job: Job, hop: int) -> list[str]:
    """The probe to a hop in mtr-packet's words, as twisted-mtr gives it to failure callbacks."""
    kind, version = job.kind, job.family.version
    port = [] if kind.port is None else ["port", str(kind.port)]
    return [
        "send-probe",
        *(f"local-ip-{version}", kind.source_address),
        *(f"ip-{version}", kind.address),
        *("timeout", str(kind.timeout_s)),
        *("protocol", str(kind.protocol), *port),
        *("ttl", str(hop)),
    ]
