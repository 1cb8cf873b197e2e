"""What became of all traces, counted when each ends."""

from __future__ import annotations

from collections import Counter

from attrs import define, field

from ..durations import Durations
from ..model import Family, Protocol, Status, StopReason
from ..probing.trace import TraceMachine

BOUNDS_S = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


@define(eq=False)
class Tally:
    """Traces by end (the family None where the target was never resolved); how long those that ran did, in seconds,
    and the probes judged in them. Only ever grows."""

    ended: Counter[tuple[Status, StopReason, Protocol, Family | None]] = field(factory=Counter, init=False)
    durations: dict[tuple[Protocol, Family], Durations] = field(factory=dict, init=False)
    answered: Counter[Family] = field(factory=Counter, init=False)
    lost: Counter[Family] = field(factory=Counter, init=False)

    def ran(self, protocol: Protocol, family: Family, seconds: float, machine: TraceMachine) -> None:
        """A trace that ran has ended."""
        durations = self.durations.get((protocol, family))
        if durations is None:
            durations = self.durations[protocol, family] = Durations(BOUNDS_S)
        durations.add(seconds)
        answered, lost = machine.judged
        self.answered[family] += answered
        self.lost[family] += lost
