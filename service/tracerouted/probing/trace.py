"""The trace machine: what an answer means, where a path ends, when the trace is over.

Pure: no reactor, no clock, no sockets. Whoever drives it asks `next_probe` when it has room to send, hands answers to
`on_reply`, calls `advance` when `wake_at` has come, and finds what happened in the facts given to `emit`.

How it traces. The first pass sends one probe to each TTL, at least a millisecond apart, far enough ahead of the
answers that an answering path costs one RTT instead of the sum of all; a scout with TTL 64 learns early whether the
target answers at all and how far away it is. The end (the target, or who says it cannot be reached) stops anything
above it, and what its responder says to higher TTLs counts at the end. Further probes to a TTL keep `interval_ms`
apart, and slower in the unknown zone beyond the last router. What to send is `agenda`'s business, how long to wait
for an answer `patience`'s: neither a stopped child process nor a busy event loop can invent loss.

Sources: traceroute(8) (waiting by neighbours), trippy and scamper (window, gap), RFC 4950 (MPLS),
Augustin et al. 2006 (loops, flows).
"""

from __future__ import annotations

from collections.abc import Callable

from ..model import (
    Fact,
    Outcome,
    ProbeSettled,
    Protocol,
    Reply,
    ReplyKind,
    RetryReason,
    StopReason,
    TraceRequest,
)
from .agenda import NEVER, Agenda
from .flow import MOST_TTL, Cell, End, Flow, InFlight
from .ledger import Ledger
from .patience import LEAST_WAIT_BY_NEIGHBOUR_S, Patience
from .prober import SHORT_WAIT_S, SOCKET_PROTOCOLS

#: How often a probe is sent again for each reason before it ends as an error; without limit where not named.
#: Replies are stolen in series: two processes that send TCP probes in step use the same source ports.
MOST_RETRIES = {RetryReason.DIED: 1, RetryReason.CLOCK: 3, RetryReason.STOLEN: 5, RetryReason.BARE_NO_ROUTE: 8}

#: So many errors with not one probe judged end the trace: nothing leaves this host.
MOST_ERRORS = 3

#: A silent hop just before the end is tried so often before it is believed to be no end itself.
LEAST_TRIES = 4

#: Something farther than this share of what an impatient prober waits shows that it gives up too soon.
FAR = 0.7

_PRECEDENCE = (
    StopReason.REACHED,
    StopReason.UNREACHABLE,
    StopReason.LOOP,
    StopReason.GAP_LIMIT,
    StopReason.MAX_TTL,
    StopReason.ERROR,
)


class TraceMachine:
    """One trace. Times given and returned are monotonic seconds; `wall_offset` makes Unix time of them.

    `source_port` is the first flow's; `expected_length` the remembered number of hops to the target's prefix.
    `short_wait` is how long the prober waits for ordinary probes, in seconds; for patient ones it waits as long as
    the request says. Where patient probes have a price (TCP sends again after a second) all but the scout are
    ordinary, elsewhere they are when places are scarce; unless something turns out to be far away.
    """

    def __init__(
        self,
        request: TraceRequest,
        address: str,
        emit: Callable[[Fact], None],
        *,
        now: float,
        deadline: float,
        wall_offset: float = 0.0,
        source_port: int | None = None,
        expected_length: int | None = None,
        short_wait: float = SHORT_WAIT_S,
    ) -> None:
        self.finished: StopReason | None = None
        self.error: str | None = None
        self._probes = request.probes
        self._max_ttl = request.max_ttl
        self._gap_limit = request.gap_limit
        self._interval = request.interval_ms / 1000
        self._address = address
        self._ledger = Ledger(emit)
        self._deadline = deadline
        self._wall_offset = wall_offset
        timeout = request.timeout_ms / 1000
        # mtr-packet may read a router's port unreachable off a TCP socket and take it for the target's reset.
        self._replies_may_be_routers = request.protocol is Protocol.TCP
        self._short_wait = short_wait if short_wait < timeout else NEVER
        self._patience_costs = request.protocol in SOCKET_PROTOCOLS
        self._undecided: list[InFlight] = []
        self._scout_failed = False
        self._errors = 0
        self._flows = [
            Flow(i + 1, None if source_port is None else source_port + i, request.first_ttl)
            for i in range(request.flows)
        ]
        self._agenda = Agenda(request, self._flows, now, expected_length)
        self._patience = Patience(self._agenda, timeout)

    # --- sending and time ------------------------------------------------------------------------------------

    def next_probe(self, now: float, crowded: bool = False) -> InFlight | None:
        """The probe to send now, already counted as sent; None if nothing is due (see `wake_at`).

        `crowded` says that places with the prober are scarce.
        """
        if self.finished:
            return None
        probe = self._agenda.next(now, self._far() or not (crowded or self._patience_costs))
        if probe is None:
            return None
        probe.sent_at = now
        probe.wall_sent_at = round(now + self._wall_offset, 3)
        self._patience.begin(probe, now)
        if probe.flow.end is not None and probe.cell is not None and probe.ttl > probe.flow.end.ttl:
            self._hold(probe.flow, probe.flow.end, now)
        if probe.extra and probe.flow.end is not None:
            self._doubtful(probe.flow, probe.flow.end, now)
        elif probe.cell is not None:
            self._ledger.sent(probe)
        return probe

    @property
    def in_first_pass(self) -> bool:
        """Whether TTLs are still to be asked for the first time."""
        return self._agenda.in_first_pass

    @property
    def wants_proof(self) -> bool:
        """Whether a later proof is needed before some silence can be called loss."""
        return self._patience.wants_proof and not self.finished

    def wake_at(self) -> float:
        """When `next_probe` or `advance` may next have something to do."""
        if self.finished:
            return NEVER
        wake = min(self._deadline, self._agenda.wake_at(), self._patience.wake_at())
        for flow in self._flows:
            if flow.hold_until and not flow.done:
                wake = min(wake, flow.hold_until)
        return wake

    def advance(self, now: float, proven: float) -> None:
        """Let time pass: the deadline, stalled windows, and waits that are over.

        `proven`: everything answered by then has been handed to `on_reply`.
        """
        if self.finished:
            return
        if now >= self._deadline:
            self.stop(StopReason.DEADLINE)
            return
        for flow in self._flows:
            if flow.hold_until and now >= flow.hold_until:
                flow.hold_until = 0.0
                self._finish_if_done(flow, now)
            elif flow.asked >= flow.limit and now >= self._agenda.stalls_at(flow):
                self._agenda.unstall(flow, now)
        for probe in self._patience.overdue(now, proven):
            if not self.finished:
                self._judge_lost(probe, now)

    # --- answers ---------------------------------------------------------------------------------------------

    def on_late(self, probe: InFlight, now: float) -> None:
        """A probe has left only now, not when `next_probe` gave it: its answer is waited for from now on."""
        probe.sent_at = now

    def on_reply(self, probe: InFlight, reply: Reply, now: float) -> None:
        """What the prober says about a probe it was given. Answers after the end are nobody's business."""
        if self.finished:
            return
        self._patience.end(probe)
        if probe.void:
            return
        kind = reply.kind
        if kind is ReplyKind.RETRY:
            self._retry(probe, reply, now)
        elif kind is ReplyKind.TIMEOUT:
            self._on_timeout(probe, now)
        elif kind is ReplyKind.ERROR:
            self._judge_error(probe, reply.error, now)
        else:
            self._on_answer(probe, reply, now)

    def _on_timeout(self, probe: InFlight, now: float) -> None:
        """The prober gave up on a probe; if it did so too soon, it goes out again with more patience."""
        if probe.cell is None or probe.patient or probe.judged or self._patience.is_over(probe, now):
            self._judge_lost(probe, now)
        elif self._far():
            probe.patient = True
            self._agenda.again(probe)
        elif self._patience.for_scout():
            self._undecided.append(probe)
        else:
            self._judge_lost(probe, now)

    def _far(self) -> bool:
        """Whether something is so far away that ordinary probes are given up too soon, or might be."""
        return self._scout_failed or self._agenda.largest_rtt > FAR * self._short_wait

    def _decide(self, now: float) -> None:
        """The scout's fate is known: so is what to do with the probes given up meanwhile. The time since then was no
        waiting."""
        undecided, self._undecided = self._undecided, []
        for probe in undecided:
            if probe.void:
                continue
            if self._far():
                probe.patient = True
                self._agenda.again(probe)
            else:
                self._judge_lost(probe, now)

    def _retry(self, probe: InFlight, reply: Reply, now: float) -> None:
        end = probe.flow.end
        if probe.judged:
            return
        if end is not None and end.firm and probe.ttl > end.ttl:
            self._give_back(probe.flow, end, probe, now)
            return
        reason = RetryReason(reply.error or RetryReason.DIED)
        retries = probe.retries = probe.retries or {}
        retries[reason] = retries.get(reason, 0) + 1
        if retries[reason] > MOST_RETRIES.get(reason, NEVER):
            self._judge_error(probe, reason, now)
        else:
            self._agenda.again(probe)

    def _on_answer(self, probe: InFlight, reply: Reply, now: float) -> None:
        flow, address = probe.flow, reply.address
        from_target = address == self._address
        if reply.kind is ReplyKind.TTL_EXPIRED:
            outcome = Outcome.TTL_EXPIRED
        elif reply.kind is ReplyKind.REPLY and from_target:
            outcome = Outcome.REPLY
        else:
            # A "reply" from elsewhere is a rejection in the target's place (mtr#234).
            outcome = Outcome.UNREACHABLE
        rtt = now - probe.sent_at if reply.rtt_us is None else reply.rtt_us / 1e6
        if rtt > self._agenda.largest_rtt:
            self._agenda.largest_rtt = rtt
        fact = ProbeSettled(
            probe.number,
            probe.ttl,
            flow.number,
            probe.wall_sent_at,
            outcome,
            address,
            reply.rtt_us,
            reply.mpls,
            reply.error,
        )
        ends = from_target or outcome is not Outcome.TTL_EXPIRED
        if self._replies_may_be_routers:
            if outcome is Outcome.REPLY and flow.rejected_at <= probe.ttl:
                self._retry(probe, Reply(ReplyKind.RETRY, error=RetryReason.BARE_NO_ROUTE), now)
                return
            if outcome is Outcome.UNREACHABLE and probe.ttl < flow.rejected_at:
                flow.rejected_at = probe.ttl
                self._take_back_replies(flow, now)
        if probe.cell is None:
            if from_target:
                self._agenda.scout_rtt = rtt
                self._patience.shorten(now)
            self._decide(now)
            return
        if probe.cell.first is probe:
            probe.cell.fate = fact
        flow.target_replied |= outcome is Outcome.REPLY
        if flow.end is not None and probe.ttl > flow.end.ttl and self._disproves(flow.end, outcome, from_target):
            self._drop_end(flow, probe, now)
        if flow.end is not None and probe.ttl > flow.end.ttl:
            self._beyond_end(flow, flow.end, probe, fact, now)
            return
        cell = probe.cell
        cell.doubted = False
        if cell.extras:
            self._admit_extras(probe, cell)
        if not cell.answers:
            flow.news_at = now
            self._patience.shorten(now)
        cell.answers += 1
        cell.rtt_max = max(cell.rtt_max, rtt)
        self._settle(probe, fact, now)
        if ends:
            self._on_ender(probe, fact, now)
        elif probe.ttl > flow.highest_router:
            self._on_farther_router(flow, probe.ttl, now)
        if outcome is Outcome.TTL_EXPIRED and flow.end is None and not self._target_answers(flow):
            loop = flow.loop_ttl()
            if loop is not None:
                self._set_end(flow, End(loop, StopReason.LOOP, None, firm=False), now)
        self._finish_if_done(flow, now)

    def _take_back_replies(self, flow: Flow, now: float) -> None:
        """A router rejects: what looked like the target's replies, from there on, was its doing. Ask again."""
        flow.target_replied = False
        for asked in flow.cells:
            if asked is not None and asked.fate is not None and asked.fate.outcome is Outcome.REPLY:
                asked.fate = None
        self._agenda.scout_rtt = None
        if flow.end is None or not flow.end.firm or flow.end.ttl < flow.rejected_at:
            return
        self._undo_end(flow, flow.end, lambda fact: fact.outcome is not Outcome.REPLY, now)

    def _on_farther_router(self, flow: Flow, ttl: int, now: float) -> None:
        before = flow.front
        flow.highest_router = ttl
        if self._probes > 1:
            self._agenda.quicken(flow, before, now)
        self._agenda.extend(flow)

    # --- the end ---------------------------------------------------------------------------------------------

    @staticmethod
    def _disproves(end: End, outcome: Outcome, from_target: bool) -> bool:
        """Whether an answer from beyond `end` shows that it was none: a router's, or the target's own reply."""
        if end.firm or end.reason is StopReason.LOOP:
            return False
        if outcome is Outcome.TTL_EXPIRED:
            return not from_target
        return outcome is Outcome.REPLY and end.reason is not StopReason.REACHED

    def _on_ender(self, probe: InFlight, fact: ProbeSettled, now: float) -> None:
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
            self._set_end(flow, End(probe.ttl, reason, fact.address, firm), now)

    def _target_answers(self, flow: Flow) -> bool:
        return self._agenda.scout_rtt is not None or flow.target_replied

    def _set_end(self, flow: Flow, end: End, now: float) -> None:
        before = flow.front
        flow.end = end
        self._ledger.cut(flow, end.ttl)
        self._claim(flow, end)
        self._agenda.quicken(flow, before, now)
        if self._patience.above(flow, end.ttl):
            self._hold(flow, end, now)
        self._doubtful(flow, end, now)
        if end.reason is StopReason.REACHED and self._agenda.expected is None:
            self._agenda.expected = end.ttl  # the other flows are likely as long

    # --- beyond the end: probes that went too far are the end's samples -----------------------------------------

    def _claim(self, flow: Flow, end: End) -> None:
        """Let the probes that went too far count at the end, in the order of their TTLs and whether they are answered
        or not: to count only the answered would hide loss."""
        flow.claimed.clear()
        flow.counted.clear()
        cell = flow.cells[end.ttl]
        if cell is None or end.reason is StopReason.LOOP:
            return
        for beyond in flow.cells[end.ttl + 1 : flow.asked + 1]:
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
                self._count_at_end(flow, cell, fate)

    def _beyond_end(self, flow: Flow, end: End, probe: InFlight, fact: ProbeSettled, now: float) -> None:
        """What became of a probe to a TTL above the end."""
        cell = flow.cells[end.ttl]
        if cell is None:
            return
        lost = fact.outcome is Outcome.TIMEOUT
        probe.judged = True
        if probe.number in flow.claimed and (lost or fact.address == end.address):
            flow.claimed.discard(probe.number)
            self._count_at_end(flow, cell, fact)
        elif probe.number in flow.counted and not lost and fact.address == end.address:
            self._restored(cell, fact)
        else:
            self._give_back(flow, end, probe, now)
        self._finish_if_done(flow, now)

    def _count_at_end(self, flow: Flow, cell: Cell, fact: ProbeSettled) -> None:
        flow.counted.add(fact.number)
        cell.judged += 1
        cell.answers += fact.outcome is not Outcome.TIMEOUT
        self._ledger.publish(cell, fact._replace(ttl=cell.ttl))
        self._ledger.review(cell)

    def _give_back(self, flow: Flow, end: End, probe: InFlight, now: float) -> None:
        """A probe that was to count at the end will not: the end gets one of its own."""
        cell = flow.cells[end.ttl]
        if cell is not None and probe.number in flow.claimed:
            flow.claimed.discard(probe.number)
            cell.issued -= 1
            self._agenda.repeat(cell, now)

    def _drop_end(self, flow: Flow, probe: InFlight, now: float) -> None:
        """The end was none: go on from there. `probe` brought the news and keeps its place."""
        end = flow.end
        assert end is not None
        flow.disproved.add(end.ttl)
        self._undo_end(flow, end, lambda fact: True, now)
        adopted = flow.cells[probe.ttl] = probe.cell = Cell(flow, probe.ttl, 1, last_sent=probe.sent_at, first=probe)
        probe.judged = False
        if self._probes > 1:
            self._agenda.repeat(adopted, now)

    def _undo_end(self, flow: Flow, end: End, holds: Callable[[ProbeSettled], bool], now: float) -> None:
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
        flow.asked = end.ttl
        self._ledger.cut(flow, end.ttl)  # what was under way beyond is void
        self._agenda.extend(flow)

    # --- judging ---------------------------------------------------------------------------------------------

    def _judge_lost(self, probe: InFlight, now: float) -> None:
        if probe.cell is None:
            self._decide(now)
            return
        if probe.judged:
            return
        self._judge(probe, Outcome.TIMEOUT, None, now)

    def _admit_extras(self, probe: InFlight, cell: Cell) -> None:
        """A doubted hop has answered: its extra probes count, the lost ones and those still under way."""
        cell.extras = 0
        if probe.extra:
            probe.extra = probe.judged = False
            cell.issued += 1
        for other in self._patience.extras(cell):
            other.extra = False
            cell.issued += 1
        for fact in cell.withheld:
            if fact.number != probe.number:
                cell.issued += 1
                cell.judged += 1
                self._ledger.publish(cell, fact)
        cell.withheld = []

    def _judge_error(self, probe: InFlight, error: str | None, now: float) -> None:
        if probe.judged:
            return
        if probe.cell is None:
            self._scout_failed = True
            self._decide(now)
            return
        self._errors += 1
        self.error = f"a probe could not be sent: {error}"
        self._judge(probe, Outcome.ERROR, error, now)
        if self._errors >= MOST_ERRORS and not self._ledger.lost and not self._ledger.received:
            self.stop(StopReason.ERROR)

    def _judge(self, probe: InFlight, outcome: Outcome, error: str | None, now: float) -> None:
        fact = ProbeSettled(
            probe.number,
            probe.ttl,
            probe.flow.number,
            probe.wall_sent_at,
            outcome,
            None,
            None,
            (),
            error,
        )
        if probe.cell is not None and outcome is Outcome.ERROR:
            probe.cell.errors += 1
        if probe.extra and probe.cell is not None:
            probe.judged = True
            if outcome is Outcome.TIMEOUT:
                probe.cell.withheld.append(fact)
        else:
            if probe.cell is not None and probe.cell.first is probe:
                probe.cell.fate = fact
            self._settle(probe, fact, now)
        self._finish_if_done(probe.flow, now)

    def _settle(self, probe: InFlight, fact: ProbeSettled, now: float) -> None:
        cell, flow = probe.cell, probe.flow
        assert cell is not None
        if flow.end is not None and probe.ttl > flow.end.ttl:
            self._beyond_end(flow, flow.end, probe, fact, now)
            return
        if probe.judged:
            self._restored(cell, fact)
            return
        probe.judged = True
        cell.judged += 1
        self._ledger.publish(cell, fact)
        self._ledger.review(cell)

    def _restored(self, cell: Cell, fact: ProbeSettled) -> None:
        self._ledger.restore(cell, fact._replace(ttl=cell.ttl))
        self._ledger.review(cell)

    # --- the whole -------------------------------------------------------------------------------------------

    def _finish_if_done(self, flow: Flow, now: float) -> None:
        if self.finished or flow.done:
            return
        flow.done = self._flow_end(flow, now)
        if flow.done and all(other.done for other in self._flows):
            reasons = {other.done for other in self._flows}
            self.stop(next(reason for reason in _PRECEDENCE if reason in reasons))

    def _flow_end(self, flow: Flow, now: float) -> StopReason | None:
        complete_below = flow.advance(self._probes)
        if flow.end is not None:
            if complete_below <= flow.end.ttl or self._doubtful(flow, flow.end, now):
                return None
            return None if self._held(flow, flow.end, now) else flow.end.reason
        silent = complete_below - 1 - flow.highest_router
        over = complete_below > self._max_ttl
        if not over and (silent < self._gap_limit or self._agenda.scout_rtt is not None):
            return None
        if silent and self._errors and flow.only_errors(flow.highest_router + 1, complete_below):
            return StopReason.ERROR
        if over:
            return StopReason.MAX_TTL
        self._ledger.cut(flow, flow.highest_router + self._gap_limit)
        return StopReason.GAP_LIMIT

    @staticmethod
    def _hold(flow: Flow, end: End, now: float) -> None:
        """An answer from beyond would disprove this end: give what is under way there the time of a neighbour."""
        cell = flow.cells[end.ttl]
        flow.hold_until = now + max(3 * cell.rtt_max if cell is not None else 0.0, LEAST_WAIT_BY_NEIGHBOUR_S)

    def _held(self, flow: Flow, end: End, now: float) -> bool:
        """Whether something under way could still disprove the end, and has not had its time."""
        if end.firm or end.reason is StopReason.LOOP:
            return False
        if flow.asked < self._agenda.reach(flow) or self._agenda.above(flow, end.ttl):
            return True
        return now < flow.hold_until and self._patience.above(flow, end.ttl)

    def _doubtful(self, flow: Flow, end: End, now: float) -> bool:
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

    def stop(self, reason: StopReason) -> None:
        """End the trace now, for a reason from outside if need be; what is known stays."""
        if self.finished is None:
            self.finished = reason
            if reason is not StopReason.ERROR:
                self.error = None
            self._agenda.clear()
            self._patience.clear()
            self._undecided.clear()

    @property
    def judged(self) -> tuple[int, int]:
        """How many probes were answered, and how many lost."""
        return self._ledger.received, self._ledger.lost

    @property
    def length(self) -> int | None:
        """The number of hops to the target, once it was reached."""
        lengths = [f.end.ttl for f in self._flows if f.end is not None and f.end.reason is StopReason.REACHED]
        return max(lengths) if lengths else None
