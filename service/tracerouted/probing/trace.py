"""The trace machine: what an answer means, where a path ends, when the trace is over.

Pure: no reactor, no clock, no sockets. Whoever drives it asks `next_probe` when it has room to send, hands answers to
`on_reply`, calls `advance` when `wake_at` has come, and finds what happened in the facts given to `emit`.

How it traces. The first pass sends one probe to each TTL, half a millisecond apart, far enough ahead of the
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
from .ending import Ends
from .flow import Cell, Flow, InFlight
from .ledger import Ledger
from .patience import Patience
from .prober import SHORT_WAIT_S, SOCKET_PROTOCOLS

#: How often a probe is sent again for each reason before it ends as an error; without limit where not named.
#: Replies are stolen in series: two processes that send TCP probes in step use the same source ports.
MOST_RETRIES = {RetryReason.DIED: 1, RetryReason.CLOCK: 3, RetryReason.STOLEN: 5, RetryReason.BARE_NO_ROUTE: 8}

#: So many errors with not one probe judged end the trace: nothing leaves this host.
MOST_ERRORS = 3

#: Something farther than this share of what an impatient prober waits shows that it gives up too soon.
FAR = 0.7

_new = tuple.__new__  # there is one fact or more per probe, and a class costs three times as much

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
        #: from when on there is something to send, by the last `wake_at`
        self.sends_at = NEVER
        self._probes = request.probes
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
        self._ends = Ends(request, address, self._agenda, self._patience, self._ledger)

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
        end = probe.flow.end
        if end is not None and probe.cell is not None and probe.ttl > end.ttl:
            self._ends.hold(probe.flow, end, now)
        if probe.extra and end is not None:
            self._ends.doubtful(probe.flow, end, now)
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
        self.sends_at, wake = self._agenda.wakes_at()
        wake = min(wake, self._deadline, self._patience.wake_at())
        for flow in self._flows:
            if flow.hold_until and not flow.done:
                wake = min(wake, flow.hold_until)
        return wake

    def advance(self, now: float, proven: float, lag: float = 0.0) -> None:
        """Let time pass: the deadline, stalled windows, and waits that are over.

        `proven`: everything answered by then has been handed to `on_reply`; `lag`: how late probes may have left.
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
        for probe in self._patience.overdue(now, proven, lag):
            if not self.finished:
                self._judge_lost(probe, now)

    # --- answers ---------------------------------------------------------------------------------------------

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
            self._ends.give_back(probe.flow, end, probe, now)
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
        fact = _new(
            ProbeSettled,
            (
                probe.number,
                probe.ttl,
                flow.number,
                probe.wall_sent_at,
                outcome,
                address,
                reply.rtt_us,
                reply.mpls,
                reply.error,
            ),
        )
        ends = from_target or outcome is not Outcome.TTL_EXPIRED
        if self._replies_may_be_routers:
            if outcome is Outcome.REPLY and flow.rejected_at <= probe.ttl:
                self._retry(probe, Reply(ReplyKind.RETRY, error=RetryReason.BARE_NO_ROUTE), now)
                return
            if outcome is Outcome.UNREACHABLE and probe.ttl < flow.rejected_at:
                flow.rejected_at = probe.ttl
                self._ends.take_back_replies(flow, now)
        if probe.cell is None:
            if from_target:
                self._agenda.scout_rtt = rtt
                self._patience.shorten(now)
            self._decide(now)
            return
        if probe.cell.first is probe:
            probe.cell.fate = fact
        if outcome is Outcome.REPLY:
            flow.target_replied = True
        end = flow.end
        if end is not None and probe.ttl > end.ttl:
            if not self._ends.disproved(end, outcome, from_target):
                self._ends.settle_beyond(flow, end, probe, fact, now)
                self._finish_if_done(flow, now)
                return
            self._ends.drop(flow, end, probe, now)
        cell = probe.cell
        cell.doubted = False
        if cell.extras:
            self._admit_extras(probe, cell)
        if not cell.answers:
            flow.news_at = now
            self._patience.shorten(now)
        cell.answers += 1
        if rtt > cell.rtt_max:
            cell.rtt_max = rtt
        self._tell(probe, cell, fact)
        if ends:
            self._ends.may_be(probe, fact, now)
        elif probe.ttl > flow.highest_router:
            self._on_farther_router(flow, probe.ttl, now)
        if outcome is Outcome.TTL_EXPIRED:
            self._ends.look_for_loop(flow, now)
        self._finish_if_done(flow, now)

    def _on_farther_router(self, flow: Flow, ttl: int, now: float) -> None:
        before = flow.front
        flow.highest_router = ttl
        if self._probes > 1:
            self._agenda.quicken(flow, before, now)
        if flow.end is None:
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
        cell.flow.complete_below = min(cell.flow.complete_below, cell.ttl)
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
        cell.withheld = ()

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
                probe.cell.withheld = (*probe.cell.withheld, fact)
        else:
            if probe.cell is not None and probe.cell.first is probe:
                probe.cell.fate = fact
            self._settle(probe, fact, now)
        self._finish_if_done(probe.flow, now)

    def _settle(self, probe: InFlight, fact: ProbeSettled, now: float) -> None:
        cell, flow = probe.cell, probe.flow
        assert cell is not None
        if flow.end is not None and probe.ttl > flow.end.ttl:
            self._ends.settle_beyond(flow, flow.end, probe, fact, now)
            return
        self._tell(probe, cell, fact)

    def _tell(self, probe: InFlight, cell: Cell, fact: ProbeSettled) -> None:
        """Say what became of a probe, at its own hop."""
        if probe.judged:
            self._ledger.restore(cell, fact)
            return
        probe.judged = True
        cell.judged += 1
        self._ledger.tell(cell, fact)

    # --- the whole -------------------------------------------------------------------------------------------

    def _finish_if_done(self, flow: Flow, now: float) -> None:
        if self.finished or flow.done:
            return
        flow.done = self._ends.reason(flow, now)
        if flow.done is not None and all(other.done for other in self._flows):
            reasons = {other.done for other in self._flows}
            self.stop(next(reason for reason in _PRECEDENCE if reason in reasons))

    def stop(self, reason: StopReason) -> None:
        """End the trace now, for a reason from outside if need be; what is known stays."""
        if self.finished is None:
            self.finished = reason
            if reason is not StopReason.ERROR:
                self.error = None
            self._agenda.clear()
            self._patience.clear()
            self._undecided.clear()

    def let_go(self) -> None:
        """Free what is known of the hops, which refers to itself; for a machine that has finished."""
        for flow in self._flows:
            for cell in flow.cells:
                if cell is not None:
                    cell.first = None
            flow.cells.clear()

    @property
    def judged(self) -> tuple[int, int]:
        """How many probes were answered, and how many lost."""
        return self._ledger.received, self._ledger.lost

    @property
    def length(self) -> int | None:
        """The number of hops to the target, once it was reached."""
        lengths = [f.end.ttl for f in self._flows if f.end is not None and f.end.reason is StopReason.REACHED]
        return max(lengths) if lengths else None
