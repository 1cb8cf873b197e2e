"""Where the flows of a trace end: whose word is taken for it, what counts there, and how it is taken back. Pure.

The end of a flow is the target's own reply: a firm end. Anything else that looks like one (an unreachable, a time
exceeded from the target's address, a loop) holds only until a router answers from beyond, which is given a chance to.
Probes that went past an end before it was known are its samples.
"""

from __future__ import annotations

from collections.abc import Callable

from ..model import Outcome, ProbeSettled, StopReason, TraceRequest
from .agenda import Agenda
from .flow import MOST_TTL, Cell, End, Flow, InFlight
from .ledger import Ledger
from .patience import LEAST_WAIT_BY_NEIGHBOUR_S, Patience

#: A silent hop just before the end is tried so often before it is believed to be no end itself.
LEAST_TRIES = 4


class Ends:
    """The ends of one trace's flows. `address` is the target's."""

    def __init__(
        self, request: TraceRequest, address: str, agenda: Agenda, patience: Patience, ledger: Ledger
    ) -> None:
        self._address = address
        self._probes = request.probes
        self._max_ttl = request.max_ttl
        self._gap_limit = request.gap_limit
        self._agenda = agenda
        self._patience = patience
        self._ledger = ledger

    # --- found -----------------------------------------------------------------------------------------------

    def may_be(self, probe: InFlight, fact: ProbeSettled, now: float) -> None:
        """An answer that may mark the flow's end."""
        flow, end = probe.flow, probe.flow.end
        if end is not None and probe.ttl >= end.ttl:
            return
        from_target = fact.address == self._address
        reason = StopReason.REACHED if from_target else StopReason.UNREACHABLE
        firm = fact.outcome is Outcome.REPLY
        trusted = firm or (
            probe.ttl not in flow.disproved
            and flow.highest_router <= probe.ttl
            and (from_target or not self._target_answers(flow))
        )
        if trusted:
            self._set(flow, End(probe.ttl, reason, fact.address, firm), now)

    def look_for_loop(self, flow: Flow, now: float) -> None:
        """A router has answered: end the flow if that closes a loop. Where the target answers there is none."""
        if flow.end is None and not self._target_answers(flow):
            loop = flow.loop_ttl()
            if loop is not None:
                self._set(flow, End(loop, StopReason.LOOP, None, firm=False), now)

    def _target_answers(self, flow: Flow) -> bool:
        return self._agenda.scout_rtt is not None or flow.target_replied

    def _set(self, flow: Flow, end: End, now: float) -> None:
        before = flow.front
        flow.end = end
        self._ledger.cut(flow, end.ttl)
        self._claim(flow, end)
        self._agenda.quicken(flow, before, now)
        if self._patience.above(flow, end.ttl):
            self.hold(flow, end, now)
        self.doubtful(flow, end, now)
        if end.reason is StopReason.REACHED and self._agenda.expected is None:
            self._agenda.expected = end.ttl  # the other flows are likely as long

    # --- beyond: probes that went too far are the end's samples ------------------------------------------------

    def _claim(self, flow: Flow, end: End) -> None:
        """Let the probes that went too far count at the end, in the order of their TTLs and whether they are answered
        or not: to count only the answered would hide loss."""
        flow.claimed.clear()
        flow.counted.clear()
        cell = flow.cells[end.ttl]
        if cell is None or end.reason is StopReason.LOOP:
            return
        for beyond in flow.cells[end.ttl + 1 : flow.top + 1]:
            if cell.issued >= self._probes:
                break
            if beyond is None or beyond.first is None:
                continue
            fate = beyond.fate
            if fate is None:
                if self._patience.waits_for(beyond.first):
                    flow.claimed.add(beyond.first.number)
                    cell.issued += 1
            elif fate.outcome is Outcome.TIMEOUT or fate.address == end.address:
                cell.issued += 1
                self._count(flow, cell, fate)

    def settle_beyond(self, flow: Flow, end: End, probe: InFlight, fact: ProbeSettled, now: float) -> None:
        """What became of a probe to a TTL above the end."""
        cell = flow.cells[end.ttl]
        if cell is None:
            return
        lost = fact.outcome is Outcome.TIMEOUT
        probe.judged = True
        if probe.number in flow.claimed and (lost or fact.address == end.address):
            flow.claimed.discard(probe.number)
            self._count(flow, cell, fact)
        elif probe.number in flow.counted and not lost and fact.address == end.address:
            self._ledger.restore(cell, fact)
        else:
            self.give_back(flow, end, probe, now)

    def _count(self, flow: Flow, cell: Cell, fact: ProbeSettled) -> None:
        flow.counted.add(fact.number)
        cell.judged += 1
        cell.answers += fact.outcome is not Outcome.TIMEOUT
        self._ledger.tell(cell, fact._replace(ttl=cell.ttl))

    def give_back(self, flow: Flow, end: End, probe: InFlight, now: float) -> None:
        """A probe that was to count at the end will not: the end gets one of its own."""
        cell = flow.cells[end.ttl]
        if cell is not None and probe.number in flow.claimed:
            flow.claimed.discard(probe.number)
            cell.issued -= 1
            self._agenda.repeat(cell, now)

    # --- taken back ------------------------------------------------------------------------------------------

    @staticmethod
    def disproved(end: End, outcome: Outcome, from_target: bool) -> bool:
        """Whether an answer from beyond `end` shows that it was none: a router's, or the target's own reply."""
        if end.firm or end.reason is StopReason.LOOP:
            return False
        if outcome is Outcome.TTL_EXPIRED:
            return not from_target
        return outcome is Outcome.REPLY and end.reason is not StopReason.REACHED

    def drop(self, flow: Flow, end: End, probe: InFlight, now: float) -> None:
        """The end was none: go on from there. `probe` brought the news and keeps its place."""
        flow.disproved.add(end.ttl)
        self._undo(flow, end, lambda fact: True, now)
        adopted = flow.cells[probe.ttl] = probe.cell = Cell(flow, probe.ttl, 1, last_sent=probe.sent_at, first=probe)
        flow.top = probe.ttl
        probe.judged = False
        if self._probes > 1:
            self._agenda.repeat(adopted, now)

    def take_back_replies(self, flow: Flow, now: float) -> None:
        """A router rejects: what looked like the target's replies, from there on, was its doing. Ask again."""
        flow.target_replied = False
        for asked in flow.cells:
            if asked is not None and asked.fate is not None and asked.fate.outcome is Outcome.REPLY:
                asked.fate = None
        self._agenda.scout_rtt = None
        if flow.end is not None and flow.end.firm and flow.end.ttl >= flow.rejected_at:
            self._undo(flow, flow.end, lambda fact: fact.outcome is not Outcome.REPLY, now)

    def _undo(self, flow: Flow, end: End, holds: Callable[[ProbeSettled], bool], now: float) -> None:
        """Take a flow back to where its end was not known. Of what was told there, what came from beyond does not
        hold, nor what `holds` denies; it is asked again, like everything beyond."""
        flow.end = None
        flow.hold_until = 0.0
        self._agenda.expected = None
        cell = flow.cells[end.ttl]
        if cell is not None:
            left = [fact for fact in cell.facts if fact.number not in flow.counted and holds(fact)]
            gone = [fact for fact in cell.facts if fact not in left]
            if gone:
                self._ledger.retract(cell)
                for fact in left:
                    self._ledger.publish(cell, fact)
            cell.issued -= len(gone) + len(flow.claimed)
            cell.judged -= len(gone)
            cell.answers -= sum(fact.address is not None for fact in gone)
            if cell.issued < self._probes and cell.due is None:
                self._agenda.repeat(cell, now)
        flow.claimed.clear()
        flow.counted.clear()
        flow.cells[end.ttl + 1 :] = [None] * (MOST_TTL - end.ttl)
        flow.asked = min(flow.asked, end.ttl)
        flow.complete_below = min(flow.complete_below, end.ttl)
        flow.top = end.ttl
        self._ledger.cut(flow, end.ttl)  # what was under way beyond is void
        self._agenda.extend(flow)

    # --- come to -----------------------------------------------------------------------------------------------

    def reason(self, flow: Flow, now: float) -> StopReason | None:
        """Why a flow is done; None while it is not."""
        complete_below = flow.advance(self._probes)
        end = flow.end
        if end is not None:
            if complete_below <= end.ttl or self.doubtful(flow, end, now):
                return None
            return None if self._held(flow, end, now) else end.reason
        silent = complete_below - 1 - flow.highest_router
        over = complete_below > self._max_ttl
        if not over and (silent < self._gap_limit or self._agenda.scout_rtt is not None):
            return None
        if silent and flow.only_errors(flow.highest_router + 1, complete_below):
            return StopReason.ERROR
        if over:
            return StopReason.MAX_TTL
        self._ledger.cut(flow, flow.highest_router + self._gap_limit)
        return StopReason.GAP_LIMIT

    @staticmethod
    def hold(flow: Flow, end: End, now: float) -> None:
        """An answer from beyond would disprove this end: give what is under way there the time of a neighbour."""
        cell = flow.cells[end.ttl]
        flow.hold_until = now + max(3 * cell.rtt_max if cell is not None else 0.0, LEAST_WAIT_BY_NEIGHBOUR_S)

    def _held(self, flow: Flow, end: End, now: float) -> bool:
        """Whether something under way could still disprove the end, and has not had its time."""
        if end.firm or end.reason is StopReason.LOOP:
            return False
        if self._agenda.next_ttl(flow) or self._agenda.above(flow, end.ttl):
            return True
        return now < flow.hold_until and self._patience.above(flow, end.ttl)

    def doubtful(self, flow: Flow, end: End, now: float) -> bool:
        """Whether the end may be one TTL lower, hidden by loss: the silent hop before it is tried again first."""
        if end.reason is StopReason.LOOP or end.ttl <= flow.first_ttl:
            return False
        cell = flow.cells[end.ttl - 1]
        if cell is None or cell.answers or cell.issued < self._probes:
            return False
        # Probes that never left, or died with their prober, were no tries; but there is an end to that as well.
        tries = cell.issued + cell.extras - min(cell.errors, LEAST_TRIES)
        if not cell.doubted and tries < LEAST_TRIES:
            self._agenda.doubt(cell, now)
        return cell.doubted or bool(self._patience.extras(cell))
