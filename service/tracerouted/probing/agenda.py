"""What a trace has to send, and when: the first pass, the scout, further probes per hop, probes sent again.

Pure: time is an argument. `trace` tells it what became known.
"""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush

from ..model import StopReason, TraceRequest
from .flow import MOST_TTL, Cell, Flow, InFlight

NEVER = float("inf")

PACE_S = 0.0005
#: A late timer may catch up so many probes: the pace is about bursts, not about exact spacing.
CATCH_UP = 2
SCOUT_TTL = 64
SCOUT_AFTER = 2
WINDOW = 16
WINDOW_AHEAD = 6
LEAST_STALL_S = 0.1
LEAST_GAP_PACE_S = 0.2


class Agenda:
    """The probes of one trace that are still to be sent. `expected` is the remembered length of the path."""

    def __init__(self, request: TraceRequest, flows: list[Flow], now: float, expected: int | None) -> None:
        self._flows = flows
        self._probes = request.probes
        self._max_ttl = request.max_ttl
        self._gap_limit = request.gap_limit
        self._interval = request.interval_ms / 1000
        self._pace_at = now
        self._issued = 0
        self._again: deque[InFlight] = deque()
        self._repeats: list[tuple[float, int, Cell]] = []
        self._order = 0
        #: per TTL and for all flows: when it was last probed, and from when on nobody has reserved it
        self._sent_at = [-NEVER] * (MOST_TTL + 1)
        self._free_at = [now] * (MOST_TTL + 1)
        # A max_ttl inside the first window asks not to go near the target: no scout then.
        self._scout_due = request.max_ttl >= WINDOW
        self.expected = expected
        #: the largest RTT of the trace so far, and the target's by the scout (seconds)
        self.largest_rtt = 0.0
        self.scout_rtt: float | None = None
        for flow in flows:
            flow.news_at = now
            flow.far = min(expected or 0, request.max_ttl)
            self.extend(flow)

    # --- what to send ------------------------------------------------------------------------------------------

    def next(self, now: float, patient: bool) -> InFlight | None:
        """The probe to send now, None if nothing is due. `patient` is for those that do not have to be."""
        if now < self._pace_at:
            return None
        probe = None
        if self._again:
            probe = self._take_again()
        if probe is None and self._scout_due:
            probe = self._take_scout()
        if probe is None:
            probe = self._take_first(now, patient)
        if probe is None and self._repeats:
            probe = self._take_repeat(now, patient)
        if probe is not None:
            self._pace_at = max(self._pace_at, now - CATCH_UP * PACE_S) + PACE_S
        return probe

    def _take_again(self) -> InFlight | None:
        while self._again:
            probe = self._again.popleft()
            flow, end = probe.flow, probe.flow.end
            wanted = end is None or not end.firm or probe.ttl <= end.ttl or probe.number in flow.claimed
            if wanted and not probe.void:
                return probe
        return None

    def _take_scout(self) -> InFlight | None:
        flow = self._flows[0]
        if self._issued < SCOUT_AFTER and self.next_ttl(flow):
            return None
        self._scout_due = False
        if flow.end is not None:
            return None
        self._issued += 1
        return InFlight(self._issued, SCOUT_TTL, flow, None)

    def _take_first(self, now: float, patient: bool) -> InFlight | None:
        for flow in self._flows:
            ttl = self.next_ttl(flow)
            if not ttl or flow.done or self._free_at[ttl] > now:
                continue
            if flow.far > flow.asked:
                flow.far -= 1
            else:
                flow.asked = ttl
            flow.top = max(flow.top, ttl)
            flow.news_at = now
            cell = flow.cells[ttl] = Cell(flow, ttl)
            return self._issue(cell, now, patient)
        return None

    def _take_repeat(self, now: float, patient: bool) -> InFlight | None:
        repeats = self._repeats
        while repeats and repeats[0][0] <= now:
            due, _, cell = heappop(repeats)
            flow = cell.flow
            if cell.due != due:
                continue
            cell.due = None
            if flow.done or flow.cells[cell.ttl] is not cell or (flow.end is not None and cell.ttl > flow.end.ttl):
                continue
            if cell.issued >= self._probes and not cell.doubted:
                continue
            free_at = self._sent_at[cell.ttl] + self._interval
            if free_at > now:  # another flow's probe left late
                self._schedule(cell, free_at)
                continue
            return self._issue(cell, now, patient)
        return None

    def _issue(self, cell: Cell, now: float, patient: bool) -> InFlight:
        ttl = cell.ttl
        self._issued += 1
        cell.last_sent = self._sent_at[ttl] = now
        if self._free_at[ttl] < now + self._interval:
            self._free_at[ttl] = now + self._interval
        if cell.issued >= self._probes:
            cell.doubted = False
            cell.extras += 1
            return InFlight(self._issued, ttl, cell.flow, cell, patient, extra=True)
        probe = InFlight(self._issued, ttl, cell.flow, cell, patient)
        cell.first = cell.first or probe
        cell.issued += 1
        if cell.issued < self._probes:
            self.repeat(cell, now)
        return probe

    def again(self, probe: InFlight) -> None:
        """A probe has to be sent again, before all others."""
        self._again.append(probe)

    def doubt(self, cell: Cell, now: float) -> None:
        """Send one probe more to a hop than was asked for."""
        cell.doubted = True
        self.repeat(cell, now)

    def above(self, flow: Flow, ttl: int) -> bool:
        """Whether probes of a flow to TTLs above `ttl` have to be sent again."""
        return any(probe.flow is flow and probe.cell is not None and probe.ttl > ttl for probe in self._again)

    # --- further probes per hop ------------------------------------------------------------------------------------

    def repeat(self, cell: Cell, now: float, least: float = 0.0) -> None:
        """Schedule the next probe to a hop, no sooner than `least`: at the request's interval where the hop is known
        to be on the way, more slowly in the unknown zone beyond the last router."""
        ttl = cell.ttl
        if ttl <= cell.flow.front:
            due = max(now, least, cell.last_sent + self._interval)
            if len(self._flows) > 1:
                due = max(due, self._free_at[ttl])
                self._free_at[ttl] = due + self._interval
        else:
            due = max(now, least, cell.last_sent + max(LEAST_GAP_PACE_S, self._interval, 1.5 * self.largest_rtt))
        self._schedule(cell, due)

    def _schedule(self, cell: Cell, due: float) -> None:
        cell.due = due
        self._order += 1
        heappush(self._repeats, (due, self._order, cell))

    def quicken(self, flow: Flow, before: int, now: float) -> None:
        """Cells that turned out to be on the way get their probes at full pace."""
        for ttl in range(before + 1, flow.front + 1):
            cell = flow.cells[ttl]
            if cell is not None and cell.issued and cell.due is not None:
                self.repeat(cell, now)

    # --- how far the first pass goes -------------------------------------------------------------------------------

    def extend(self, flow: Flow) -> None:
        """Let the first pass go as far ahead as what is known allows."""
        if flow.end is not None:
            return
        ahead = flow.highest_router + WINDOW_AHEAD
        if self.expected is None:
            limit = max(flow.first_ttl - 1 + WINDOW, ahead)
        elif flow.highest_router < self.expected:
            limit = self.expected
        else:
            limit = ahead
        flow.limit = max(flow.limit, min(self._max_ttl, max(limit, flow.stall_limit)))

    def reach(self, flow: Flow) -> int:
        """How far the first pass goes now: to the end, since what lies before it may have been forgotten with an end
        that was disproved; one TTL beyond if a router there could still disprove it."""
        end = flow.end
        if end is None:
            return flow.limit
        return end.ttl if end.firm or end.reason is StopReason.LOOP else min(self._max_ttl, end.ttl + 1)

    def next_ttl(self, flow: Flow) -> int:
        """The TTL the first pass asks next; 0 when it has come as far as it may.

        It goes up from the first TTL, but down a path whose length is remembered: what takes longest leaves first.
        """
        if flow.far > flow.asked:
            return flow.far
        limit = flow.limit if flow.end is None else self.reach(flow)
        ttl = flow.asked + 1
        while ttl <= limit and (cell := flow.cells[ttl]) is not None and cell.issued:
            flow.asked = ttl  # on the way down, or before an end that was disproved
            ttl += 1
        return ttl if ttl <= limit else 0

    @property
    def in_first_pass(self) -> bool:
        """Whether TTLs are still to be asked for the first time."""
        for flow in self._flows:  # noqa: SIM110  # asked at every probe: a generator would cost as much as the rest
            if flow.done is None and self.next_ttl(flow):
                return True
        return False

    def stalls_at(self, flow: Flow) -> float:
        """When a first pass that has come to its limit without an end may go on; `NEVER` if it may not."""
        if flow.done or flow.end is not None or self._stall_limit(flow) <= flow.limit:
            return NEVER
        return flow.news_at + max(LEAST_STALL_S, 1.5 * self.largest_rtt)

    def unstall(self, flow: Flow, now: float) -> None:
        """Let a stalled first pass go on."""
        flow.stall_limit = self._stall_limit(flow)
        flow.news_at = now
        self.expected = None
        self.extend(flow)

    def _stall_limit(self, flow: Flow) -> int:
        """How far a stalled first pass may go: over the gap, and as far as it takes if the target is there."""
        limit = flow.highest_router + self._gap_limit
        if self.scout_rtt is not None:
            limit = max(limit, flow.limit + self._gap_limit)
        return min(self._max_ttl, limit)

    # --- when ------------------------------------------------------------------------------------------------------

    def wakes_at(self) -> tuple[float, float]:
        """When something is due to be sent; and when that is, or a stalled first pass may go on."""
        repeats = self._repeats
        while repeats and repeats[0][2].due != repeats[0][0]:
            heappop(repeats)
        due = repeats[0][0] if repeats else NEVER
        if self._again or self._scout_due:
            due = 0.0
        stalls = NEVER
        for flow in self._flows:
            if flow.done:
                continue
            if ttl := self.next_ttl(flow):
                due = min(due, self._free_at[ttl])
            elif flow.end is None:
                stalls = min(stalls, self.stalls_at(flow))
        due = max(due, self._pace_at)
        return due, min(stalls, due)

    def clear(self) -> None:
        """Nothing more is to be sent."""
        self._again.clear()
        self._repeats.clear()
