"""Facts folded into what a reader sees. Pure and deterministic: the same facts always give the same trace.

A hop is shown once one of its probes has been judged; the probes still on their way are shown with it, as pending.
"""

from __future__ import annotations

from hashlib import sha256

from attrs import Factory, define, field

from ..model import (
    Asn,
    Fact,
    FlowCut,
    Hop,
    HopEvent,
    HopRateLimited,
    HopRetracted,
    Outcome,
    Path,
    Probe,
    ProbeSent,
    ProbeSettled,
    Responder,
    Status,
    StatusChanged,
    StatusEvent,
    StopReason,
    Target,
    Trace,
    TraceRequest,
)
from ..probing.statistics import RttStatistics


@define(eq=False)
class _HopState:
    probes: dict[int, ProbeSent | ProbeSettled] = Factory(dict)
    judged: int = 0
    #: per address, how many answers per flow; in the order of first answers
    responders: dict[str, dict[int, int]] = Factory(dict)
    statistics: RttStatistics = Factory(RttStatistics)
    rate_limited: bool = False

    def add(self, fact: ProbeSettled) -> None:
        # In the order of judgement: packing forgets when judged probes were sent.
        self.probes.pop(fact.number, None)
        self.probes[fact.number] = fact
        self.judged += 1
        if fact.outcome is Outcome.TIMEOUT:
            self.statistics.loss()
        elif fact.address is not None:
            self.statistics.answer(fact.rtt_us)
            flows = self.responders.setdefault(fact.address, {})
            flows[fact.flow] = flows.get(fact.flow, 0) + 1

    def rebuild(self, probes: list[ProbeSent | ProbeSettled]) -> None:
        self.probes, self.judged, self.responders = {}, 0, {}
        self.statistics = RttStatistics()
        for fact in probes:
            if isinstance(fact, ProbeSettled):
                self.add(fact)
            else:
                self.probes[fact.number] = fact


def _probe(fact: ProbeSent | ProbeSettled) -> Probe:
    if isinstance(fact, ProbeSent):
        return Probe(fact.flow, fact.sent_at, Outcome.PENDING, None, None, (), None)
    return Probe(fact.flow, fact.sent_at, fact.outcome, fact.address, fact.rtt_us, fact.mpls, fact.error)


def path_id(first_ttl: int, addresses: tuple[str | None, ...]) -> str:
    """A name for a path: a hash over its addresses per TTL and nothing else."""
    text = ",".join(f"{ttl}={address or '*'}" for ttl, address in enumerate(addresses, first_ttl))
    return sha256(text.encode()).hexdigest()[:16]


@define(eq=False)
class Fold:
    """The state that facts add up to."""

    id: str
    request: TraceRequest
    owner: str | None = None
    revision: int = 0
    status: Status = Status.QUEUED
    stop_reason: StopReason | None = None
    target: Target | None = None
    source_address: str | None = None
    error: str | None = None
    created_at: float = 0.0
    started_at: float | None = None
    finished_at: float | None = None
    _hops: dict[int, _HopState] = field(init=False, factory=dict)
    _described: dict[str, tuple[str | None, Asn | None]] = field(init=False, factory=dict)

    def apply(self, fact: Fact) -> None:
        """Take one more fact into account."""
        if isinstance(fact, ProbeSent):
            self._hop(fact.ttl).probes.setdefault(fact.number, fact)
            return
        if isinstance(fact, FlowCut):
            self._cut(fact)
            return
        self.revision += 1
        if isinstance(fact, ProbeSettled):
            self._settle(fact)
        elif isinstance(fact, StatusChanged):
            self._change(fact)
        elif isinstance(fact, HopRateLimited):
            self._hop(fact.ttl).rate_limited = fact.rate_limited
        elif isinstance(fact, HopRetracted):
            hop = self._hop(fact.ttl)
            hop.rebuild([probe for probe in hop.probes.values() if probe.flow != fact.flow])
        else:
            hostname, asn = self._described.get(fact.address, (None, None))
            self._described[fact.address] = (fact.hostname or hostname, fact.asn or asn)

    def _settle(self, fact: ProbeSettled) -> None:
        hop = self._hop(fact.ttl)
        if isinstance(hop.probes.get(fact.number), ProbeSettled):
            hop.rebuild([fact if probe.number == fact.number else probe for probe in hop.probes.values()])
        else:
            hop.add(fact)

    def _cut(self, cut: FlowCut) -> None:
        for ttl, hop in self._hops.items():
            if ttl > cut.last_ttl:
                for number, probe in list(hop.probes.items()):
                    if type(probe) is ProbeSent and probe.flow == cut.flow:
                        del hop.probes[number]

    def _change(self, fact: StatusChanged) -> None:
        if not self.created_at:
            self.created_at = fact.at
        if fact.status is Status.RUNNING and self.started_at is None:
            self.started_at = fact.at
        if fact.status.terminal and self.finished_at is None:
            self.finished_at = fact.at
        self.status = fact.status
        self.stop_reason = fact.stop_reason or self.stop_reason
        self.target = fact.target or self.target
        self.source_address = fact.source_address or self.source_address
        self.error = fact.error or self.error

    def _hop(self, ttl: int) -> _HopState:
        hop = self._hops.get(ttl)
        if hop is None:
            hop = self._hops[ttl] = _HopState()
        return hop

    def event(self, fact: Fact) -> StatusEvent | HopEvent | None:
        """What a follower is told of `fact`, which must be the one just applied; None if it changed no revision."""
        if isinstance(fact, ProbeSent | FlowCut):
            return None
        if isinstance(fact, StatusChanged):
            return StatusEvent(self.revision, self.status, self.stop_reason, self.target, self.source_address)
        hop = self._hop(fact.ttl)
        return HopEvent(
            self.revision,
            fact.ttl,
            self._responders(hop),
            hop.statistics.snapshot(),
            hop.rate_limited,
            _probe(fact) if isinstance(fact, ProbeSettled) else None,
        )

    def _responders(self, hop: _HopState) -> tuple[Responder, ...]:
        return tuple(
            Responder(address, *self._described.get(address, (None, None)), tuple(sorted(flows)), sum(flows.values()))
            for address, flows in hop.responders.items()
        )

    def trace(self, expires_at: float | None) -> Trace:
        """The whole trace as it stands."""
        shown = [ttl for ttl, hop in self._hops.items() if hop.judged]
        ttls = range(self.request.first_ttl, max(shown, default=0) + 1)
        hops = []
        for ttl in ttls:
            hop = self._hop(ttl)
            probes = tuple(_probe(hop.probes[number]) for number in sorted(hop.probes))
            hops.append(Hop(ttl, self._responders(hop), probes, hop.statistics.snapshot(), hop.rate_limited))
        paths = self._paths(tuple(hops))
        return Trace(
            id=self.id,
            status=self.status,
            stop_reason=self.stop_reason,
            reached=self.stop_reason is StopReason.REACHED,
            revision=self.revision,
            created_at=self.created_at,
            started_at=self.started_at,
            finished_at=self.finished_at,
            expires_at=expires_at,
            request=self.request,
            target=self.target,
            source_address=self.source_address,
            path_id=self._path_id(paths),
            hops=tuple(hops),
            paths=paths,
            error=self.error,
        )

    def _paths(self, hops: tuple[Hop, ...]) -> tuple[Path, ...]:
        paths = []
        for flow in range(1, self.request.flows + 1) if hops else ():
            addresses: list[str | None] = []
            length = 0
            for index, hop in enumerate(hops, 1):
                probes = [probe for probe in hop.probes if probe.flow == flow]
                length = index if probes else length
                addresses.append(next((p.address for p in probes if p.address is not None), None))
            way = tuple(addresses[:length])
            paths.append(Path(flow, path_id(self.request.first_ttl, way), way))
        return tuple(paths)

    @staticmethod
    def _path_id(paths: tuple[Path, ...]) -> str | None:
        """One flow's path id; of several flows, a name for the set of their paths."""
        ids = sorted({path.path_id for path in paths})
        if len(ids) > 1:
            return sha256(",".join(ids).encode()).hexdigest()[:16]
        return ids[0] if ids else None
