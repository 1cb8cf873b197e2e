"""What a trace has told so far: which facts stand at which hop, how many answers and losses they add up to.

Every fact of the trace machine goes out through here, so that what was told can be taken back. Pure.
"""

from __future__ import annotations

from collections.abc import Callable

from ..model import Fact, FlowCut, HopRateLimited, HopRetracted, Outcome, ProbeSent, ProbeSettled
from .flow import MOST_TTL, Cell, Flow, InFlight

_new = tuple.__new__  # there is one fact or more per probe, and a class costs three times as much


class Ledger:
    """The facts of one trace, told to `emit` in order."""

    def __init__(self, emit: Callable[[Fact], None]) -> None:
        self._emit = emit
        self._received = [0] * (MOST_TTL + 1)
        self._lost = [0] * (MOST_TTL + 1)
        self._rate_limited: set[int] = set()
        #: how many probes are told as lost, and as answered
        self.lost = 0
        self.received = 0

    def sent(self, probe: InFlight) -> None:
        """A probe left."""
        self._emit(_new(ProbeSent, (probe.number, probe.ttl, probe.flow.number, probe.wall_sent_at)))

    def publish(self, cell: Cell, fact: ProbeSettled) -> None:
        """What became of a probe, at the hop where it counts."""
        cell.facts = (*cell.facts, fact)
        self._count(cell, fact.outcome, 1)
        self._emit(fact)

    def tell(self, cell: Cell, fact: ProbeSettled) -> None:
        """The same, and what follows from it for the losses."""
        self.publish(cell, fact)
        self._review(cell)

    def restore(self, cell: Cell, fact: ProbeSettled) -> None:
        """A probe was told as lost, and a late answer says otherwise."""
        self._count(cell, Outcome.TIMEOUT, -1)
        cell.facts = tuple(known for known in cell.facts if known.number != fact.number)
        self.tell(cell, fact._replace(ttl=cell.ttl))

    def retract(self, cell: Cell) -> None:
        """Nothing of what was told of this cell holds."""
        for fact in cell.facts:
            self._count(cell, fact.outcome, -1)
        cell.facts = ()
        self._emit(HopRetracted(cell.ttl, cell.flow.number))

    def cut(self, flow: Flow, last: int) -> None:
        """Nothing above `last` is part of the flow."""
        self._emit(FlowCut(flow.number, last))
        for cell in flow.cells[last + 1 :]:
            if cell is not None and cell.facts:
                self.retract(cell)

    def _review(self, cell: Cell) -> None:
        """Loss at a hop that a later hop shows at most half of is the hop's own reluctance, not the path's. Looked at
        again once all probes of a cell are judged."""
        if not (self.lost or self._rate_limited) or cell.judged < cell.issued:
            return
        best = 1.0
        for ttl in range(MOST_TTL, 0, -1):
            received, lost = self._received[ttl], self._lost[ttl]
            if not received:
                continue
            loss = lost / (received + lost)
            if (loss > 0 and 2 * best <= loss) is not (ttl in self._rate_limited):
                self._rate_limited ^= {ttl}
                self._emit(HopRateLimited(ttl, ttl in self._rate_limited))
            best = min(best, loss)

    def _count(self, cell: Cell, outcome: Outcome, change: int) -> None:
        if outcome is Outcome.TIMEOUT:
            self._lost[cell.ttl] += change
            self.lost += change
        elif outcome is not Outcome.ERROR:
            self._received[cell.ttl] += change
            self.received += change
