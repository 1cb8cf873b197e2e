"""What of a trace is shown: its events, folded."""

from __future__ import annotations

from attrs import Factory, define, field

from ..model import (
    EndEvent,
    Hop,
    HopEvent,
    HopStats,
    Outcome,
    Probe,
    Responder,
    StatusEvent,
    Target,
    Trace,
    TraceEvent,
    TraceRequest,
)

_NOTHING = HopStats(0, 0, 0, None, None, None, None, None, None, None)


@define
class ShownHop:
    """One hop. `last_us` is the RTT of the latest answer; `refusing` are the responders that said unreachable."""

    ttl: int
    responders: tuple[Responder, ...] = ()
    stats: HopStats = _NOTHING
    rate_limited: bool = False
    last_us: int | None = None
    refusing: set[str] = Factory(set)
    errors: int = 0

    def take(self, probe: Probe) -> None:
        """Count one judged probe."""
        if probe.outcome is Outcome.ERROR:
            self.errors += 1
        if probe.address is not None:
            self.last_us = probe.rtt_us
            if probe.outcome is Outcome.UNREACHABLE:
                self.refusing.add(probe.address)

    @classmethod
    def of(cls, hop: Hop) -> ShownHop:
        """A hop of a finished trace."""
        shown = cls(hop.ttl, hop.responders, hop.stats, hop.rate_limited)
        for probe in sorted(hop.probes, key=lambda probe: probe.sent_at + (probe.rtt_us or 0) / 1e6):
            shown.take(probe)
        return shown


@define
class Board:
    """A trace as it is shown: where it goes, and its hops by TTL. `trace` is there once it has ended."""

    request: TraceRequest
    target: Target | None = None
    source_address: str | None = None
    trace: Trace | None = None
    _hops: dict[int, ShownHop] = field(factory=dict, init=False)

    def take(self, event: TraceEvent) -> None:
        """Take the next event into account."""
        match event:
            case StatusEvent():
                self.target = event.target or self.target
                self.source_address = event.source_address or self.source_address
            case HopEvent():
                self._take_hop(event)
            case EndEvent(trace=trace):
                self.trace, self.target, self.source_address = trace, trace.target, trace.source_address
                self._hops = {hop.ttl: ShownHop.of(hop) for hop in trace.hops}

    def _take_hop(self, event: HopEvent) -> None:
        hop = self._hops.setdefault(event.ttl, ShownHop(event.ttl))
        hop.responders, hop.stats, hop.rate_limited = event.responders, event.stats, event.rate_limited
        if event.probe is not None:
            hop.take(event.probe)
        elif not event.responders and not event.stats.sent:
            del self._hops[event.ttl]  # retracted

    @property
    def hops(self) -> list[ShownHop]:
        """The hops from the first TTL to the last one known, without gaps."""
        ttls = range(self.request.first_ttl, max(self._hops, default=0) + 1)
        return [self._hops.get(ttl) or ShownHop(ttl) for ttl in ttls]

    def settled(self, hop: ShownHop) -> bool:
        """Whether all probes of a hop have been judged."""
        return hop.stats.sent + hop.errors >= self.request.probes * self.request.flows
