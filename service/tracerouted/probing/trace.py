"""The trace machine: what to send next, what an answer means, when it is over.

Pure: no reactor, no clock, no sockets. Whoever drives it asks `next_probe` when it has room to send, hands answers to
`on_reply`, calls `advance` when `wake_at` has come, and finds what happened in the facts given to `emit`.

How it traces. The first pass sends one probe to each TTL, at least a millisecond apart, far enough ahead of the
answers that an answering path costs one RTT instead of the sum of all; a scout with TTL 64 learns early whether the
target answers at all and how far away it is. The end (the target, or who says it cannot be reached) stops anything
above it, and what its responder says to higher TTLs counts at the end. Further probes to a TTL keep `interval_ms`
apart, and slower in the unknown zone beyond the last router. How long a silent probe is waited for follows what else
is known: its own hop's RTT, a later hop's, the scout's; `timeout_ms` at most. A probe is called lost only when the
prober has proved that everything answered by then has been delivered (`proven`), so neither a stopped child process
nor a busy event loop can invent loss.

Sources: traceroute(8) (waiting by neighbours), trippy and scamper (window, gap), RFC 4950 (MPLS),
Augustin et al. 2006 (loops, flows).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush

from ..model import (
    Fact,
    FlowCut,
    HopRateLimited,
    HopRetracted,
    Outcome,
    ProbeSent,
    ProbeSettled,
    Reply,
    ReplyKind,
    RetryReason,
    StopReason,
    TraceRequest,
)
from .flow import MOST_TTL, Cell, End, Flow, InFlight

PACE_S = 0.001
SCOUT_TTL = 64
SCOUT_AFTER = 2
WINDOW = 16
WINDOW_AHEAD = 6
LEAST_WAIT_S = 0.2
LEAST_WAIT_BY_NEIGHBOUR_S = 0.3
LEAST_STALL_S = 0.1
LEAST_GAP_PACE_S = 0.2
NEVER = float("inf")

#: How often a probe is sent again for each reason before it ends as an error; without limit where not named.
MOST_RETRIES = {RetryReason.DIED: 1, RetryReason.STOLEN: 2, RetryReason.BARE_NO_ROUTE: 8}

#: So many errors with not one probe judged end the trace: nothing leaves this host.
MOST_ERRORS = 3

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
    `impatience` is given where the prober gives up on ordinary probes sooner than the request's timeout, in seconds:
    TCP sends again after one. The scout is sent patiently, and shows whether the others have to be, too.
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
        impatience: float | None = None,
    ) -> None:
        self.finished: StopReason | None = None
        self.error: str | None = None
        self.wants_proof = False
        self._probes = request.probes
        self._max_ttl = request.max_ttl
        self._gap_limit = request.gap_limit
        self._interval = request.interval_ms / 1000
        self._timeout = request.timeout_ms / 1000
        self._address = address
        self._emit = emit
        self._deadline = deadline
        self._wall_offset = wall_offset
        self._expected = expected_length
        self._impatience = impatience if impatience is not None and impatience < self._timeout else None
        self._undecided: list[InFlight] = []
        self._pace_at = now
        self._issued = 0
        self._errors = 0
        self._resend: deque[InFlight] = deque()
        self._due: list[tuple[float, int, Cell]] = []
        self._order = 0
        self._next_slot = [now] * (MOST_TTL + 1)
        self._last_sent = [-NEVER] * (MOST_TTL + 1)
        self._waiting: dict[int, InFlight] = {}
        self._next_check = NEVER
        self._largest_rtt = 0.0
        self._received = [0] * (MOST_TTL + 1)
        self._lost = [0] * (MOST_TTL + 1)
        self._rate_limited: set[int] = set()
        # A max_ttl inside the first window asks not to go near the target: no scout then.
        self._scout_due = request.max_ttl >= WINDOW
        self._scout_rtt: float | None = None
        self._flows = [
            Flow(i + 1, None if source_port is None else source_port + i, request.first_ttl)
            for i in range(request.flows)
        ]
        for flow in self._flows:
            flow.news_at = now
            self._extend(flow, now)

    # --- sending ---------------------------------------------------------------------------------------------

    def next_probe(self, now: float) -> InFlight | None:
        """The probe to send now, already counted as sent; None if nothing is due (see `wake_at`)."""
        if self.finished or now < self._pace_at:
            return None
        probe = self._take_resend() or self._take_scout() or self._take_due(now)
        if probe is None:
            return None
        # A late timer may catch up two probes: the pace is about bursts, not about exact spacing.
        self._pace_at = max(self._pace_at, now - 2 * PACE_S) + PACE_S
        probe.sent_at = now
        probe.wall_sent_at = round(now + self._wall_offset, 3)
        if not self._waiting:
            self._next_check = NEVER
        self._waiting[probe.number] = probe
        self._next_check = min(self._next_check, now + min(LEAST_WAIT_S, self._timeout))
        if probe.cell is not None:
            self._emit(ProbeSent(probe.number, probe.ttl, probe.flow.number, probe.wall_sent_at))
        return probe

    def _take_resend(self) -> InFlight | None:
        while self._resend:
            probe = self._resend.popleft()
            if not self._is_void(probe):
                return probe
        return None

    def _take_scout(self) -> InFlight | None:
        if not self._scout_due or self._issued < min(SCOUT_AFTER, len(self._due) + self._issued):
            return None
        self._scout_due = False
        flow = self._flows[0]
        if flow.end is not None:
            return None
        self._issued += 1
        return InFlight(self._issued, SCOUT_TTL, flow, None, patient=True)

    def _take_due(self, now: float) -> InFlight | None:
        while self._due and self._due[0][0] <= now:
            due, _, cell = heappop(self._due)
            flow = cell.flow
            if cell.due != due:
                continue
            cell.due = None
            if flow.done or cell.issued >= self._probes or (flow.end is not None and cell.ttl > flow.end.ttl):
                continue
            free = self._last_sent[cell.ttl] + self._interval
            if free > now:  # another flow's probe left late
                self._schedule(cell, free)
                continue
            self._last_sent[cell.ttl] = now
            if not cell.issued:
                flow.news_at = now
            self._issued += 1
            cell.issued += 1
            cell.last_sent = now
            if cell.issued < self._probes:
                self._schedule_repeat(cell, now)
            return InFlight(self._issued, cell.ttl, flow, cell, patient=self._far())
        return None

    def _schedule_repeat(self, cell: Cell, now: float) -> None:
        if cell.ttl <= cell.flow.front:
            self._schedule(cell, self._slot(cell.ttl, max(now, cell.last_sent + self._interval)))
        else:
            gap_pace = max(LEAST_GAP_PACE_S, self._interval, 1.5 * self._largest_rtt)
            self._schedule(cell, max(now, cell.last_sent + gap_pace))

    def _slot(self, ttl: int, earliest: float) -> float:
        """Reserve the next time at which any flow may probe this TTL."""
        due = max(earliest, self._next_slot[ttl])
        self._next_slot[ttl] = due + self._interval
        return due

    def _schedule(self, cell: Cell, due: float) -> None:
        cell.due = due
        self._order += 1
        heappush(self._due, (due, self._order, cell))

    def _extend(self, flow: Flow, now: float) -> None:
        """Schedule first-pass probes as far ahead as what is known allows."""
        if flow.end is not None:
            return
        ahead = flow.highest_router + WINDOW_AHEAD
        if self._expected is None:
            limit = max(flow.first_ttl - 1 + WINDOW, ahead)
        elif flow.highest_router < self._expected:
            limit = self._expected
        else:
            limit = ahead
        limit = min(self._max_ttl, max(limit, flow.stall_limit))
        while flow.scheduled < limit:
            flow.scheduled += 1
            cell = Cell(flow, flow.scheduled)
            flow.cells[flow.scheduled] = cell
            self._schedule(cell, self._slot(cell.ttl, now))

    # --- time ------------------------------------------------------------------------------------------------

    def wake_at(self) -> float:
        """When `next_probe` or `advance` may next have something to do."""
        if self.finished:
            return NEVER
        while self._due and self._due[0][2].due != self._due[0][0]:
            heappop(self._due)
        wake = self._deadline
        if self._resend:
            wake = min(wake, self._pace_at)
        elif self._due:
            wake = min(wake, max(self._due[0][0], self._pace_at))
        if self._waiting:
            wake = min(wake, self._next_check)
        for flow in self._flows:
            if flow.done:
                continue
            if flow.end is not None:
                wake = min(wake, flow.hold_until or NEVER)
            elif self._stall_limit(flow) > flow.scheduled:
                wake = min(wake, self._stalls_at(flow))
        return wake

    def advance(self, now: float, proven: float) -> None:
        """Let time pass: the deadline, stalled windows, and waits that are over.

        `proven`: everything answered by then has been handed to `on_reply`. `wants_proof` says that a later
        proof is needed before silence can be called loss.
        """
        if self.finished:
            return
        if now >= self._deadline:
            self.stop(StopReason.DEADLINE)
            return
        for flow in self._flows:
            if flow.done:
                continue
            if flow.end is not None:
                if flow.hold_until and now >= flow.hold_until:
                    flow.hold_until = 0.0
                    self._finish_if_done(flow, now)
            elif now >= self._stalls_at(flow):
                limit = self._stall_limit(flow)
                if limit > flow.scheduled:
                    self._expected = None
                    flow.stall_limit = limit
                    flow.news_at = now
                    self._extend(flow, now)
        if self._waiting and (now >= self._next_check or self.wants_proof):
            self.wants_proof = False
            for probe in self._overdue(now, proven):
                if not self.finished:
                    del self._waiting[probe.number]
                    self._judge_lost(probe, now)

    def _stalls_at(self, flow: Flow) -> float:
        return flow.news_at + max(LEAST_STALL_S, 1.5 * self._largest_rtt)

    def _stall_limit(self, flow: Flow) -> int:
        """How far a stalled first pass may go: over the gap, and as far as it takes if the target is there."""
        limit = flow.highest_router + self._gap_limit
        if self._scout_rtt is not None:
            limit = max(limit, flow.scheduled + self._gap_limit)
        return min(self._max_ttl, limit)

    def _overdue(self, now: float, proven: float) -> list[InFlight]:
        overdue = []
        following = NEVER
        least = min(LEAST_WAIT_S, self._timeout)
        for probe in self._waiting.values():  # in the order they were sent
            if probe.sent_at + least > now:
                following = min(following, probe.sent_at + least)
                break
            due = probe.sent_at + self._wait(probe)
            if due > now:
                following = min(following, due)
            elif proven >= due:
                overdue.append(probe)
            else:
                self.wants_proof = True
        self._next_check = following
        overdue.sort(key=lambda probe: probe.ttl)
        return overdue

    def _wait(self, probe: InFlight) -> float:
        """How long this probe's answer is waited for, in seconds."""
        cell = probe.cell
        if cell is not None and cell.answers:
            wait = max(3 * cell.rtt_max, LEAST_WAIT_S)
        else:
            neighbour = probe.flow.later_rtt(probe.ttl)
            if neighbour is None:
                neighbour = self._scout_rtt
            wait = self._timeout if neighbour is None else max(3 * neighbour, LEAST_WAIT_BY_NEIGHBOUR_S)
        return min(wait, self._timeout)

    # --- answers ---------------------------------------------------------------------------------------------

    def on_reply(self, probe: InFlight, reply: Reply, now: float) -> None:
        """What the prober says about a probe it was given. Answers after the end are nobody's business."""
        if self.finished:
            return
        self._waiting.pop(probe.number, None)
        if self._is_void(probe):
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

    def _is_void(self, probe: InFlight) -> bool:
        """Whether nobody waits for it any more: its cell was begun anew, or its flow has ended without it."""
        if probe.cell is None:
            return False
        return probe.flow.cells[probe.ttl] is not probe.cell or (probe.flow.done is not None and not probe.judged)

    def _on_timeout(self, probe: InFlight, now: float) -> None:
        """The prober gave up on a probe; if it did so too soon, it goes out again with more patience."""
        if probe.cell is None:
            self._decide(now)
        elif self._impatience is None or probe.patient or probe.judged:
            self._judge_lost(probe, now)
        elif self._far():
            probe.patient = True
            self._resend.append(probe)
        elif any(other.cell is None for other in self._waiting.values()):
            self._undecided.append(probe)
        else:
            self._judge_lost(probe, now)

    def _far(self) -> bool:
        """Whether something is so far away that ordinary probes are given up too soon."""
        return self._impatience is not None and self._largest_rtt > 0.7 * self._impatience

    def _decide(self, now: float) -> None:
        """The scout's fate is known: so is what to do with the probes given up meanwhile."""
        undecided, self._undecided = self._undecided, []
        for probe in undecided:
            if not self._is_void(probe):
                self._on_timeout(probe, now)

    def _retry(self, probe: InFlight, reply: Reply, now: float) -> None:
        if probe.judged or (probe.flow.end is not None and probe.ttl > probe.flow.end.ttl):
            return
        reason = RetryReason(reply.error or RetryReason.DIED)
        retries = probe.retries = probe.retries or {}
        retries[reason] = retries.get(reason, 0) + 1
        if retries[reason] > MOST_RETRIES.get(reason, NEVER):
            self._judge_error(probe, reason, now)
        else:
            self._resend.append(probe)

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
        self._largest_rtt = max(self._largest_rtt, rtt)
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
        if probe.cell is None:
            if from_target:
                self._scout_rtt = rtt
                self._shorten_waits(now)
                self._on_ender(probe, fact, now)
            self._decide(now)
            return
        if flow.end is not None and probe.ttl > flow.end.ttl and self._disproves(flow.end, outcome, from_target):
            self._drop_end(flow, probe, now)
        if flow.end is not None and probe.ttl > flow.end.ttl:
            if ends:
                self._on_ender(probe, fact, now)
            return
        cell = probe.cell
        if not cell.answers:
            flow.news_at = now
            self._shorten_waits(now)
        cell.answers += 1
        cell.rtt_max = max(cell.rtt_max, rtt)
        self._settle(probe, fact)
        if ends:
            self._on_ender(probe, fact, now)
        elif probe.ttl > flow.highest_router:
            self._on_farther_router(flow, probe.ttl, now)
        if outcome is Outcome.TTL_EXPIRED and flow.end is None and not self._target_answers(flow):
            loop = flow.loop_ttl()
            if loop is not None:
                self._set_end(flow, End(loop, StopReason.LOOP, None, firm=False), now)
        self._finish_if_done(flow, now)

    def _shorten_waits(self, now: float) -> None:
        """An answer nobody had before may shorten the wait for others: look at them again."""
        if self._waiting:
            oldest = next(iter(self._waiting.values()))
            self._next_check = min(self._next_check, max(now, oldest.sent_at + min(LEAST_WAIT_S, self._timeout)))

    def _on_farther_router(self, flow: Flow, ttl: int, now: float) -> None:
        before = flow.front
        flow.highest_router = ttl
        self._quicken(flow, before, now)
        self._extend(flow, now)

    def _quicken(self, flow: Flow, before: int, now: float) -> None:
        """Cells that turned out to be on the way get their probes at full pace."""
        for ttl in range(before + 1, flow.front + 1):
            cell = flow.cells[ttl]
            if cell is not None and cell.issued and cell.due is not None:
                self._schedule_repeat(cell, now)

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
        """An answer that may mark the flow's end, from its hop or (beyond a known end) from above it."""
        flow, end = probe.flow, probe.flow.end
        flow.enders.append((probe, fact))
        if end is not None and probe.ttl > end.ttl:
            self._count_at_end(flow, end, probe, fact)
        elif probe.cell is not None and (end is None or probe.ttl < end.ttl):
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
        self._finish_if_done(flow, now)

    def _target_answers(self, flow: Flow) -> bool:
        return self._scout_rtt is not None or any(fact.outcome is Outcome.REPLY for _, fact in flow.enders)

    def _set_end(self, flow: Flow, end: End, now: float) -> None:
        before = flow.front
        flow.end = end
        self._cut(flow, end.ttl)
        for probe, fact in flow.enders:
            if probe.ttl > end.ttl:
                self._count_at_end(flow, end, probe, fact)
        self._quicken(flow, before, now)
        cell = flow.cells[end.ttl]
        if cell is not None and self._under_way_above(flow, end.ttl):
            if not end.firm and end.reason is not StopReason.LOOP:
                # An answer from beyond would disprove this end: give those under way the time of a neighbour.
                flow.hold_until = now + max(3 * cell.rtt_max, LEAST_WAIT_BY_NEIGHBOUR_S)
            if cell.due is not None:
                # What the end says to these counts here: leave it time to.
                self._schedule(cell, max(cell.due, now + self._interval))
        if end.reason is StopReason.REACHED and self._expected is None:
            self._expected = end.ttl  # the other flows are likely as long

    def _count_at_end(self, flow: Flow, end: End, probe: InFlight, fact: ProbeSettled) -> None:
        cell = flow.cells[end.ttl]
        if cell is None or fact.address != end.address or cell.issued >= self._probes:
            return
        cell.issued += 1
        cell.judged += 1
        cell.answers += 1
        self._publish(cell, fact._replace(ttl=end.ttl))
        self._review_rate_limits(cell)

    def _drop_end(self, flow: Flow, probe: InFlight, now: float) -> None:
        """The end was none: go on from there. `probe` brought the news and keeps its place."""
        end = flow.end
        assert end is not None
        flow.disproved.add(end.ttl)
        flow.end = None
        self._expected = None
        cell = flow.cells[end.ttl]
        if cell is not None:
            from_above = {other.number for other, _ in flow.enders if other.ttl > end.ttl}
            own = [fact for fact in cell.facts if fact.number not in from_above]
            taken = len(cell.facts) - len(own)
            if taken:
                self._retract(cell)
                cell.issued -= taken
                cell.judged -= taken
                cell.answers -= taken
                for fact in own:
                    self._publish(cell, fact)
                self._schedule_repeat(cell, now)
        flow.enders = [(other, fact) for other, fact in flow.enders if other.ttl <= end.ttl]
        last = flow.scheduled
        flow.scheduled = end.ttl
        for ttl in range(end.ttl + 1, last + 1):
            flow.scheduled = ttl
            fresh = Cell(flow, ttl)
            flow.cells[ttl] = fresh
            if ttl == probe.ttl:
                fresh.issued = 1
                fresh.last_sent = probe.sent_at
                probe.cell = fresh
                probe.judged = False
                if self._probes > 1:
                    self._schedule_repeat(fresh, now)
            else:
                self._schedule(fresh, self._slot(ttl, now))
        self._extend(flow, now)

    # --- judging ---------------------------------------------------------------------------------------------

    def _judge_lost(self, probe: InFlight, now: float) -> None:
        if probe.cell is None:
            self._decide(now)
            return
        if probe.judged:
            return
        self._judge(probe, Outcome.TIMEOUT, None, now)

    def _judge_error(self, probe: InFlight, error: str | None, now: float) -> None:
        if probe.cell is None or probe.judged:
            return
        self._errors += 1
        self.error = f"a probe could not be sent: {error}"
        self._judge(probe, Outcome.ERROR, error, now)
        if self._errors >= MOST_ERRORS and not any(self._received) and not any(self._lost):
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
        self._settle(probe, fact)
        self._finish_if_done(probe.flow, now)

    def _settle(self, probe: InFlight, fact: ProbeSettled) -> None:
        cell, flow = probe.cell, probe.flow
        assert cell is not None
        if flow.end is not None and probe.ttl > flow.end.ttl:
            return  # nothing above the end is anybody's loss
        if probe.judged:  # called lost before: a late answer restores it
            self._count(cell, Outcome.TIMEOUT, -1)
            cell.facts = [known for known in cell.facts if known.number != probe.number]
        else:
            probe.judged = True
            cell.judged += 1
        self._publish(cell, fact)
        self._review_rate_limits(cell)

    def _publish(self, cell: Cell, fact: ProbeSettled) -> None:
        cell.facts.append(fact)
        self._count(cell, fact.outcome, 1)
        self._emit(fact)

    def _count(self, cell: Cell, outcome: Outcome, change: int) -> None:
        if outcome is Outcome.TIMEOUT:
            self._lost[cell.ttl] += change
        elif outcome is not Outcome.ERROR:
            self._received[cell.ttl] += change

    def _review_rate_limits(self, cell: Cell) -> None:
        """Loss at a hop that a later hop shows at most half of is the hop's own reluctance, not the path's."""
        if not any(self._lost) or cell.judged < cell.issued:
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

    def _under_way_above(self, flow: Flow, last: int) -> bool:
        return any(
            probe.flow is flow and probe.cell is not None and probe.ttl > last for probe in self._waiting.values()
        )

    def _cut(self, flow: Flow, last: int) -> None:
        """Nothing above `last` is part of the flow."""
        self._emit(FlowCut(flow.number, last))
        for ttl in range(last + 1, flow.scheduled + 1):
            cell = flow.cells[ttl]
            if cell is not None and cell.facts:
                self._retract(cell)

    def _retract(self, cell: Cell) -> None:
        for fact in cell.facts:
            self._count(cell, fact.outcome, -1)
        cell.facts = []
        self._emit(HopRetracted(cell.ttl, cell.flow.number))

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
            if complete_below <= flow.end.ttl:
                return None
            held = now < flow.hold_until and self._under_way_above(flow, flow.end.ttl)
            return None if held else flow.end.reason
        silent = complete_below - 1 - flow.highest_router
        over = complete_below > self._max_ttl
        if not over and (silent < self._gap_limit or self._scout_rtt is not None):
            return None
        if silent and self._errors and flow.only_errors(flow.highest_router + 1, complete_below):
            return StopReason.ERROR
        if over:
            return StopReason.MAX_TTL
        self._cut(flow, flow.highest_router + self._gap_limit)
        return StopReason.GAP_LIMIT

    def stop(self, reason: StopReason) -> None:
        """End the trace now, for a reason from outside if need be; what is known stays."""
        if self.finished is None:
            self.finished = reason
            if reason is not StopReason.ERROR:
                self.error = None
            self._waiting.clear()
            self._resend.clear()
            self._undecided.clear()
            self._due.clear()

    @property
    def length(self) -> int | None:
        """The number of hops to the target, once it was reached."""
        lengths = [f.end.ttl for f in self._flows if f.end is not None and f.end.reason is StopReason.REACHED]
        return max(lengths) if lengths else None
