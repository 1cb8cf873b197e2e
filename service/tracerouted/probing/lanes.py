"""One address family's lane: whose turn it is to send, and how much may be under way.

Turns. A trace in its first pass is served before younger ones in theirs, because a few traces that go on quickly get
more done than many that crawl in step: a silent hop gives up its place among the young as soon as a later hop
answers. All other probes go round by round (deficit round-robin with a quantum of one probe), in turn with the
first passes, so a trace of a thousand probes starves nobody.

Budgets, of all probes and again of those that cost a socket each (TCP, SCTP):

* slots: probes in flight, bounded by what mtr-packet takes; a silent probe holds its slot for whole seconds;
* young probes: sent within the last 200 ms, unanswered, and not overtaken by the answer of a later TTL of their
  trace; bounded by the replies its raw socket's buffer can hold, because replies beyond that are dropped unseen and
  would look like loss.

Lag. A probe that was sent is a line in a queue. Where the processor is scarce, here or for the prober's process, it
leaves late, and so comes its answer. An answer to a probe (or to a question) shows that all before it had left; how
late those were at most is the lag, which silence is allowed before it is called loss.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush

from attrs import Factory, define, field

from .agenda import NEVER
from .buckets import TokenBucket
from .flow import InFlight
from .prober import Prober
from .trace import TraceMachine

YOUNG_S = 0.2
SLOTS_REGAIN_S = 1.0
LAG_KEPT_S = 1.0
UNHEARD_S = 0.03  # after which a prober is asked whether what was sent has left
LEAST_SLOTS = 16
MOST_SLOTS = 10_000  # until the prober has said how many it has


@define(eq=False)
class Run:
    """A running trace's place in the scheduler. `ended` is called once, with the machine finished.

    `age` orders traces by when they were started.
    """

    age: int
    machine: TraceMachine
    lane: Lane
    prepared: object
    patient: object
    target: str
    bucket: TokenBucket
    by_socket: bool
    ended: Callable[[], None]
    #: the young probes, in the order they were sent (answered and grown-up ones leave late)
    young: deque[Sent] = Factory(deque)
    wake: float = NEVER
    queued: bool = False
    touched: bool = False


@define(eq=False)
class Budget:
    """Probes in flight of one kind, and how many of them are young."""

    young_limit: int
    slot_limit: int
    in_flight: int = 0
    young: int = 0

    def room(self) -> bool:
        return self.in_flight < self.slot_limit and self.young < self.young_limit


@define(eq=False)
class Sent:
    """What is handed to the prober with a probe, and comes back with its answer."""

    run: Run
    probe: InFlight
    at: float
    young: bool = True


@define(eq=False)
class Queue:
    """Traces with something to send: those in their first pass by age (unless not `by_age`), the others in turn."""

    by_age: bool
    _first: list[tuple[int, Run]] = field(init=False, factory=list)
    _others: deque[Run] = field(init=False, factory=deque)
    _others_turn: bool = field(init=False, default=False)

    def __bool__(self) -> bool:
        return bool(self._first or self._others)

    def push(self, run: Run) -> None:
        """A trace has something to send."""
        if self.by_age and run.machine.in_first_pass:
            heappush(self._first, (run.age, run))
        else:
            self._others.append(run)

    def pop(self) -> Run:
        """The next in turn; there must be one."""
        self._others_turn = not self._others_turn
        if self._others and (self._others_turn or not self._first):
            return self._others.popleft()
        return heappop(self._first)[1]

    def runs(self) -> list[Run]:
        """All of them, in no order."""
        return [*(run for _, run in self._first), *self._others]

    def clear(self) -> None:
        """Nobody waits any more."""
        self._first.clear()
        self._others.clear()


@define(eq=False)
class Lane:
    """One address family: its prober, its queues of traces with something to send, its budgets."""

    prober: Prober
    all: Budget
    sockets: Budget
    queue: Queue = Factory(lambda: Queue(by_age=True))
    #: in turn: with few places, asking only as far as needed counts for more than going on quickly
    socket_queue: Queue = Factory(lambda: Queue(by_age=False))
    aging: deque[Sent] = Factory(deque)
    touched: list[Run] = Factory(list)
    wanting_proof: set[Run] = Factory(set)
    died: bool = False
    sockets_turn: bool = False
    proven: float = 0.0
    paused_until: float = 0.0
    regain_at: float = NEVER
    sweep_at: float = 0.0
    sent: int = 0
    last_sent: float = 0.0
    #: the first time something was sent of which nothing shows that it has left; NEVER where all has
    unheard: float = NEVER
    #: a question is under way until then, unless it died with the process
    asked_until: float = 0.0
    lag: float = 0.0
    lag_until: float = 0.0

    def next_run(self) -> Run | None:
        """Whose turn it is to send: the two kinds in turn, so that neither waits for the other's budget."""
        if self.socket_queue and self.sockets.room() and (self.sockets_turn or not self.queue):
            self.sockets_turn = False
            return self.socket_queue.pop()
        self.sockets_turn = True
        return self.queue.pop() if self.queue else None

    def grow_old(self, now: float) -> None:
        """Probes leave the young ones after `YOUNG_S`."""
        aging = self.aging
        while aging and (not aging[0].young or aging[0].at + YOUNG_S <= now):
            self.grown(aging.popleft())

    def grown(self, sent: Sent) -> None:
        """A probe is no longer young."""
        if sent.young:
            sent.young = False
            self.all.young -= 1
            if sent.run.by_socket:
                self.sockets.young -= 1

    def overtake(self, sent: Sent) -> None:
        """A later TTL's answer is in: those sent before it to lower TTLs are likely silent, and no longer young."""
        young = sent.run.young
        while young and young[0].at <= sent.at and (not young[0].young or young[0].probe.ttl < sent.probe.ttl):
            self.grown(young.popleft())

    def regain(self, now: float) -> None:
        """Slots lost to exhaustion come back, doubling every `SLOTS_REGAIN_S`."""
        capabilities = self.prober.capabilities
        most = capabilities.slots if capabilities else LEAST_SLOTS
        while self.all.slot_limit < most and now >= self.regain_at:
            self.all.slot_limit *= 2
            self.regain_at += SLOTS_REGAIN_S
        self.all.slot_limit = min(self.all.slot_limit, most)

    @property
    def ask_at(self) -> float:
        """When to ask whether what was sent has left."""
        return max(self.unheard + UNHEARD_S, self.asked_until)

    def has_left(self, sent_by: float, left_by: float) -> None:
        """All that was sent by the one time had left by the other."""
        if sent_by < self.unheard:
            return
        late = left_by - self.unheard
        if late >= self.lag or left_by >= self.lag_until:
            self.lag = max(0.0, late)
            self.lag_until = left_by + LAG_KEPT_S
        self.unheard = sent_by if sent_by < self.last_sent else NEVER

    def requeue(self, run: Run) -> None:
        """A trace waits for its turn to send."""
        run.queued = True
        (self.socket_queue if run.by_socket else self.queue).push(run)
