"""How long a trace waits for an answer, and when silence may be called loss.

The wait follows what else is known, as in traceroute(8): an answer from the same hop before, else from the nearest
later hop, else from the scout; the request's timeout bounds it. A wait that is over is loss only once the prober has
proved that everything answered by then has been delivered. Pure: time is an argument.
"""

from __future__ import annotations

from .agenda import NEVER, Agenda
from .flow import Cell, Flow, InFlight

LEAST_WAIT_S = 0.2
LEAST_WAIT_BY_NEIGHBOUR_S = 0.3


class Patience:
    """The probes of one trace that are waited for. `timeout` bounds each wait, in seconds."""

    def __init__(self, agenda: Agenda, timeout: float) -> None:
        self._agenda = agenda
        self._timeout = timeout
        self._least = min(LEAST_WAIT_S, timeout)
        self._waiting: dict[int, InFlight] = {}
        self._check_at = NEVER
        #: whether a wait is over that only a later proof can turn into loss
        self.wants_proof = False

    def begin(self, probe: InFlight, now: float) -> None:
        """A probe was sent."""
        if not self._waiting:
            self._check_at = now + self._least
        self._waiting[probe.number] = probe

    def end(self, probe: InFlight) -> None:
        """Something is known of a probe."""
        self._waiting.pop(probe.number, None)

    def shorten(self, now: float) -> None:
        """An answer nobody had before may shorten the wait for others: look at them again."""
        if self._waiting:
            oldest = next(iter(self._waiting.values()))
            self._check_at = min(self._check_at, max(now, oldest.sent_at + self._least))

    def overdue(self, now: float, proven: float, lag: float) -> list[InFlight]:
        """The probes whose wait is over and proven to be, in the order of their TTLs; they are waited for no more.

        `lag` is how much later than they were sent they may have left, in seconds.
        """
        if not self._waiting or (now < self._check_at and not self.wants_proof):
            return []
        self.wants_proof = False
        overdue = []
        check_at = NEVER
        for probe in self._waiting.values():  # in the order they were sent
            if probe.sent_at + self._least > now:
                check_at = min(check_at, probe.sent_at + self._least)
                break
            due = probe.sent_at + self._wait(probe) + lag
            if due > now:
                check_at = min(check_at, due)
            elif proven >= due:
                overdue.append(probe)
            else:
                self.wants_proof = True
        self._check_at = check_at
        for probe in overdue:
            del self._waiting[probe.number]
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
                neighbour = self._agenda.scout_rtt
            if neighbour is None:
                wait = self._timeout
            elif probe.extra:  # only the end itself could answer it, from as far away
                wait = max(1.5 * neighbour, LEAST_WAIT_S)
            else:
                wait = max(3 * neighbour, LEAST_WAIT_BY_NEIGHBOUR_S)
        return min(wait, self._timeout)

    def waits_for(self, probe: InFlight) -> bool:
        """Whether a probe is still waited for."""
        return probe.number in self._waiting

    def is_over(self, probe: InFlight, now: float) -> bool:
        """Whether a probe that the prober gave up on was waited for long enough."""
        return now >= probe.sent_at + self._wait(probe)

    def extras(self, cell: Cell) -> list[InFlight]:
        """The extra probes to a hop that are still under way."""
        return [probe for probe in self._waiting.values() if probe.cell is cell and probe.extra]

    def for_scout(self) -> bool:
        """Whether the scout is still under way."""
        return any(probe.cell is None for probe in self._waiting.values())

    def above(self, flow: Flow, ttl: int) -> bool:
        """Whether probes of a flow to TTLs above `ttl` are still under way."""
        return any(
            probe.flow is flow and probe.cell is not None and probe.ttl > ttl for probe in self._waiting.values()
        )

    def wake_at(self) -> float:
        """When a wait may be over."""
        return self._check_at if self._waiting else NEVER

    def clear(self) -> None:
        """Nothing is waited for any more."""
        self._waiting.clear()
