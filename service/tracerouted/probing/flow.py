"""One flow's way to the target: what has been asked at each TTL, what is known, where it ends.

Pure bookkeeping without time: `agenda` decides when to ask, `trace` what an answer means.
"""

from __future__ import annotations

from attrs import Factory, define, field

from ..model import Outcome, ProbeSettled, StopReason

MOST_TTL = 64


@define(eq=False)
class Cell:
    """One TTL of one flow. Times are monotonic seconds; `due` is when the next probe may leave (None: no more)."""

    flow: Flow
    ttl: int
    issued: int = 0
    judged: int = 0
    answers: int = 0
    errors: int = 0
    rtt_max: float = 0.0
    last_sent: float = 0.0
    due: float | None = None
    #: the first probe, and what became of it, wherever it counts
    first: InFlight | None = None
    fate: ProbeSettled | None = None
    #: probes beyond the request's, sent because the hop before the end stayed silent: the end may be here
    extras: int = 0
    doubted: bool = False
    #: extra probes that were lost: told only if another one shows that they should be
    withheld: tuple[ProbeSettled, ...] = ()
    #: what has been published here, so that it can be published again after a retraction
    facts: tuple[ProbeSettled, ...] = ()


@define(eq=False)
class InFlight:
    """A probe on its way. `cell` is None for the scout. `judged`: already called lost; an answer restores it.

    `sent_at` is monotonic, `wall_sent_at` Unix seconds, rounded to what is shown. A `patient` probe is one the prober
    waits for as long as the request says; others it may give up on sooner. An `extra` one is beyond the request's.
    """

    number: int
    ttl: int
    flow: Flow
    cell: Cell | None
    patient: bool = True
    sent_at: float = 0.0
    wall_sent_at: float = 0.0
    judged: bool = False
    extra: bool = False
    retries: dict[str, int] | None = None

    @property
    def void(self) -> bool:
        """Whether nobody waits for it any more: its cell was begun anew, or its flow has ended without it."""
        if self.cell is None:
            return False
        return self.flow.cells[self.ttl] is not self.cell or (self.flow.done is not None and not self.judged)


@define
class End:
    """Where a flow ends: the TTL, why, and the responder whose answers to higher TTLs count here (None: nobody's).

    A firm end is the target's own reply. Any other is dropped again if a router answers from beyond it.
    """

    ttl: int
    reason: StopReason
    address: str | None
    firm: bool


@define(eq=False)
class Flow:
    """The state of one flow. `number` counts from 1; `source_port` is None where the protocol has none."""

    number: int
    source_port: int | None
    first_ttl: int
    cells: list[Cell | None] = field(init=False)
    #: the first pass has come this far, and may go on to `limit`
    asked: int = field(init=False)
    limit: int = field(init=False)
    #: while above `asked`: the first pass comes down a path of remembered length, and is at this TTL
    far: int = 0
    #: the highest TTL asked
    top: int = 0
    #: highest TTL at which a router answered
    highest_router: int = field(init=False)
    #: every TTL below is complete: all its probes sent and judged
    complete_below: int = field(init=False)
    end: End | None = None
    done: StopReason | None = None
    #: ends that turned out wrong are not believed again at the same TTL
    disproved: set[int] = Factory(set)
    #: whether the target has replied to any TTL
    target_replied: bool = False
    #: probes to TTLs above the end, by number: those under way that will count at the end, and those that do
    claimed: set[int] = Factory(set)
    counted: set[int] = Factory(set)
    #: when the first pass last moved or somebody new answered (monotonic)
    news_at: float = 0.0
    stall_limit: int = 0
    #: the lowest TTL from which a router rejects
    rejected_at: int = MOST_TTL + 1
    #: an end that could still be disproved waits until then (monotonic) for the probes under way above it; 0: no
    hold_until: float = 0.0

    def __attrs_post_init__(self) -> None:
        self.cells = [None] * (MOST_TTL + 1)
        self.asked = self.limit = self.highest_router = self.first_ttl - 1
        self.complete_below = self.first_ttl

    @property
    def front(self) -> int:
        """TTLs up to here are known to be on the way, and get their probes at full pace."""
        return self.end.ttl if self.end else self.highest_router

    def advance(self, probes: int) -> int:
        """Move `complete_below` past complete TTLs and return it."""
        ttl = self.complete_below
        cells = self.cells
        while ttl <= MOST_TTL:
            cell = cells[ttl]
            if cell is None or cell.issued < probes or cell.judged < cell.issued:
                break
            ttl += 1
        self.complete_below = ttl
        return ttl

    def later_rtt(self, ttl: int) -> float | None:
        """The largest RTT (seconds) of the nearest later TTL that answered, None if none did."""
        for later in range(ttl + 1, self.top + 1):
            cell = self.cells[later]
            if cell is not None and cell.answers:
                return cell.rtt_max
        return None

    def only_errors(self, first: int, end: int) -> bool:
        """Whether the TTLs from `first` up to (not including) `end` have nothing but probes that never left."""
        cells = [cell for cell in self.cells[first:end] if cell is not None]
        return all(fact.outcome is Outcome.ERROR for cell in cells for fact in cell.facts)

    def loop_ttl(self) -> int | None:
        """The TTL at which some router is met for the third time, each time after a different one: a loop gone
        round twice. The same router at adjacent TTLs, or with only silence between, is no loop."""
        previous = None
        met: dict[str, int] = {}
        for ttl in range(self.first_ttl, self.highest_router + 1):
            cell = self.cells[ttl]
            facts = cell.facts if cell is not None else ()
            address = next((fact.address for fact in facts if fact.address is not None), None)
            if address is None or address == previous:
                continue
            previous = address
            met[address] = met.get(address, 0) + 1
            if met[address] == 3:
                return ttl
        return None
