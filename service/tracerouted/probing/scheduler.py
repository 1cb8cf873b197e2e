"""Shares the probers between all running traces: fairly, within their budgets, without inventing loss.

A trace with something to send waits in its family's lane (see `lanes` for turns and budgets) and sends one probe per
turn. A trace with nothing to send sleeps in one heap of wake-up times behind one timer. An answer touches its own
trace only.

Across lanes: probes per second overall, and per target address. A prober that says it is exhausted shrinks its slots,
and the probe goes out again: back-pressure is never loss.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from heapq import heappop, heappush

from attrs import define, evolve, field, frozen
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from ..model import Family, Reply, ReplyKind, RetryReason
from .agenda import NEVER
from .buckets import TokenBucket
from .lanes import LEAST_SLOTS, MOST_SLOTS, SLOTS_REGAIN_S, YOUNG_S, Budget, Lane, Run, Sent
from .prober import SHORT_WAIT_S, SOCKET_PROTOCOLS, ProbeKind, Prober
from .trace import TraceMachine

PROBES_PER_TURN = 8
EXHAUSTED_PAUSE_S = 0.02
SWEEP_S = 0.25
CROWDED = 1 / 8  # share of the slots beyond which probes hold theirs as briefly as may be
LEAST_SLEEP_S = 0.0005  # of a trace that had nothing to send after all


@frozen(kw_only=True)
class ProbeLimits:
    """The budgets. Rates are probes per second; each burst is what may leave at once after a pause."""

    probes_per_second: float = 2000
    probes_burst: float = 200
    target_probes_per_second: float = 200
    target_probes_burst: float = 100
    young: int = 240
    socket_young: int = 32
    socket_slots: int = 500


@define(eq=False)
class Scheduler:
    """Runs trace machines on probers. It is the probers' `Listener`."""

    _clock: IReactorTime
    _limits: ProbeLimits
    _lanes: dict[Family, Lane] = field(init=False, factory=dict)
    _runs: set[Run] = field(init=False, factory=set)
    _wakes: list[tuple[float, int, Run]] = field(init=False, factory=list)
    _order: int = field(init=False, default=0)
    _timer: IDelayedCall | None = field(init=False, default=None)
    _timer_at: float = field(init=False, default=NEVER)
    _everything: TokenBucket = field(init=False)
    _targets: dict[str, tuple[TokenBucket, int]] = field(init=False, factory=dict)

    def __attrs_post_init__(self) -> None:
        self._everything = TokenBucket(self._limits.probes_per_second, self._limits.probes_burst)

    def add_prober(self, prober: Prober) -> None:
        """Let traces of this prober's family run on it."""
        limits = self._limits
        self._lanes[prober.family] = Lane(
            prober, Budget(limits.young, MOST_SLOTS), Budget(limits.socket_young, limits.socket_slots)
        )

    @property
    def running(self) -> int:
        """How many traces are running."""
        return len(self._runs)

    def in_flight(self) -> Mapping[Family, int]:
        """Slots in use per family: probes whose answer the prober still owes."""
        return {family: lane.all.in_flight for family, lane in self._lanes.items()}

    def slots(self) -> Mapping[Family, int]:
        """How many slots there are now per family, fewer while its prober is exhausted; 0 while it is not ready."""
        return {
            family: min(lane.all.slot_limit, lane.prober.capabilities.slots) if lane.prober.capabilities else 0
            for family, lane in self._lanes.items()
        }

    def sent(self) -> Mapping[Family, int]:
        """How many probes were sent per family, each time one was sent again included."""
        return {family: lane.sent for family, lane in self._lanes.items()}

    def start(
        self,
        machine: TraceMachine,
        kind: ProbeKind,
        family: Family,
        ended: Callable[[], None],
    ) -> Run:
        """Run a machine until it is finished; `ended` is called then, never from inside this call.

        `kind` is that of its patient probes; its ordinary ones differ in how long the prober waits for them.
        """
        lane = self._lanes[family]
        bucket, users = self._targets.get(kind.address, (None, 0))
        if bucket is None:
            bucket = TokenBucket(self._limits.target_probes_per_second, self._limits.target_probes_burst)
        self._targets[kind.address] = (bucket, users + 1)
        self._order += 1
        run = Run(
            self._order,
            machine,
            lane,
            lane.prober.prepare(evolve(kind, timeout_s=SHORT_WAIT_S)),
            lane.prober.prepare(kind),
            kind.address,
            bucket,
            kind.protocol in SOCKET_PROTOCOLS,
            ended,
        )
        self._runs.add(run)
        lane.requeue(run)
        self._arm(self._clock.seconds())
        return run

    def stop(self, run: Run) -> None:
        """Forget a run whose machine was stopped from outside. Probes in flight keep their slots until answered."""
        if run in self._runs:
            self._forget(run)

    def _forget(self, run: Run) -> None:
        self._runs.discard(run)
        run.wake = NEVER
        run.lane.wanting_proof.discard(run)
        bucket, users = self._targets[run.target]
        if users > 1:
            self._targets[run.target] = (bucket, users - 1)
        else:
            del self._targets[run.target]

    def close(self) -> None:
        """Leave nothing to be called later."""
        self._wakes.clear()
        self._runs.clear()
        for lane in self._lanes.values():
            lane.queue.clear()
            lane.socket_queue.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # --- what probers say --------------------------------------------------------------------------------------

    def on_reply(self, ticket: object, reply: Reply, sent_at: float, now: float) -> None:
        """One probe's answer: free its place, tell its trace; what follows is done once per batch, in `on_turn`."""
        assert isinstance(ticket, Sent)
        sent = ticket
        run, lane = sent.run, sent.run.lane
        lane.all.in_flight -= 1
        if run.by_socket:
            lane.sockets.in_flight -= 1
        lane.grown(sent)
        if reply.address is not None:
            lane.overtake(sent)
        elif reply.kind is ReplyKind.RETRY and reply.error in (RetryReason.EXHAUSTED, RetryReason.NO_DESCRIPTORS):
            lane.all.slot_limit = max(LEAST_SLOTS, min(lane.all.slot_limit - 1, lane.all.in_flight))
            lane.paused_until = now + EXHAUSTED_PAUSE_S
            lane.regain_at = now + SLOTS_REGAIN_S
        elif reply.kind is ReplyKind.RETRY and reply.error == RetryReason.DIED:
            lane.died = True
        run.machine.on_reply(sent.probe, reply, now)
        if not run.touched:
            run.touched = True
            lane.touched.append(run)

    def on_late(self, ticket: object, now: float) -> None:
        """A probe left later than it was sent: it is young, and waited for, from now on."""
        assert isinstance(ticket, Sent)
        ticket.at = now
        ticket.run.machine.on_late(ticket.probe, now)

    def on_turn(self, prober: Prober) -> None:
        """A batch of answers is in, or the prober's state changed: let the traces concerned go on, and send."""
        lane = self._lanes[prober.family]
        now = self._clock.seconds()
        touched, lane.touched = lane.touched, []
        for run in touched:
            run.touched = False
            self._go_on(run, now)
        if lane.died and prober.capabilities is not None:
            lane.died = False
            if lane.wanting_proof:
                prober.confirm()  # the proof asked for died with the process
        self._pump(lane, now)
        self._arm(now)

    def on_alive(self, prober: Prober, asked_at: float) -> None:
        """Silence up to `asked_at` is real: traces that waited to be sure may judge it."""
        lane = self._lanes[prober.family]
        lane.proven = max(lane.proven, asked_at)
        now = self._clock.seconds()
        wanting, lane.wanting_proof = lane.wanting_proof, set()
        for run in wanting:
            self._settle(run, now)
        self._pump(lane, now)
        self._arm(now)

    # --- traces waking and sleeping ------------------------------------------------------------------------------

    def _settle(self, run: Run, now: float) -> None:
        """Let time pass for a trace, then see how it goes on."""
        if run not in self._runs:
            return
        run.machine.advance(now, run.lane.proven)
        if run.machine.wants_proof and run not in run.lane.wanting_proof:
            run.lane.wanting_proof.add(run)
            run.lane.prober.confirm()
        self._go_on(run, now)

    def _go_on(self, run: Run, now: float) -> None:
        """End a trace, queue it or put it to sleep."""
        if run not in self._runs:
            return
        if run.machine.finished:
            self._forget(run)
            run.ended()
        elif not run.queued:
            self._sleep(run, now)

    def _sleep(self, run: Run, now: float, least: float = 0.0) -> None:
        """Wake a trace when it next has something to do; at once if that is now and `least` allows."""
        wake = max(run.machine.wake_at(), least)
        if wake <= now:
            run.lane.requeue(run)
        elif wake != run.wake:
            run.wake = wake
            self._order += 1
            heappush(self._wakes, (wake, self._order, run))

    def _on_timer(self) -> None:
        self._timer = None
        self._timer_at = NEVER
        now = self._clock.seconds()
        wakes = self._wakes
        while wakes and wakes[0][0] <= now:
            wake, _, run = heappop(wakes)
            if run.wake != wake or run not in self._runs:
                continue
            run.wake = NEVER
            self._settle(run, now)
        for lane in self._lanes.values():
            self._sweep(lane, now)
            self._pump(lane, now)
        self._arm(now)

    def _sweep(self, lane: Lane, now: float) -> None:
        """Time passes for traces that wait for their turn, too."""
        if now < lane.sweep_at:
            return
        lane.sweep_at = now + SWEEP_S
        for run in [*lane.queue.runs(), *lane.socket_queue.runs()]:
            self._settle(run, now)

    def _arm(self, now: float) -> None:
        """Set the one timer to the next time anything is to be done."""
        at = NEVER
        wakes = self._wakes
        while wakes and wakes[0][2].wake != wakes[0][0]:
            heappop(wakes)
        if wakes:
            at = wakes[0][0]
        for lane in self._lanes.values():
            at = min(at, self._sends_at(lane, now))
            if lane.queue or lane.socket_queue:
                at = min(at, max(now, lane.sweep_at))
        if at >= self._timer_at:
            return
        self._timer_at = at
        if self._timer is not None:
            self._timer.reset(max(0.0, at - now))
        else:
            self._timer = self._clock.callLater(max(0.0, at - now), self._on_timer)

    # --- sending -------------------------------------------------------------------------------------------------

    def _sends_at(self, lane: Lane, now: float) -> float:
        """When a lane with queued traces may send again; NEVER where only an answer can free it."""
        if not (lane.queue or lane.socket_queue) or lane.prober.capabilities is None:
            return NEVER
        at = max(now, lane.paused_until, now + self._everything.wait(now))
        if lane.all.in_flight >= lane.all.slot_limit:
            return lane.regain_at if lane.regain_at > now else NEVER
        starved = not lane.queue and lane.sockets.in_flight >= lane.sockets.slot_limit
        if starved:
            return NEVER
        crowded = lane.all.young >= lane.all.young_limit or (
            not lane.queue and lane.sockets.young >= lane.sockets.young_limit
        )
        if crowded and lane.aging:
            at = max(at, lane.aging[0].at + YOUNG_S)
        return at

    def _pump(self, lane: Lane, now: float) -> None:
        """Send what the budgets allow, at most one write's worth of probes in a reactor turn."""
        if lane.prober.capabilities is None or now < lane.paused_until:
            return
        lane.grow_old(now)
        lane.regain(now)
        allowed = PROBES_PER_TURN
        while allowed and lane.all.room() and self._everything.wait(now) == 0:
            run = lane.next_run()
            if run is None:
                break
            run.queued = False
            if run in self._runs and self._send_one(run, lane, now):
                allowed -= 1

    def _send_one(self, run: Run, lane: Lane, now: float) -> bool:
        wait = run.bucket.wait(now)
        if wait:
            self._sleep(run, now, now + wait)
            return False
        probe = run.machine.next_probe(now, lane.all.in_flight > CROWDED * lane.all.slot_limit)
        if probe is not None:
            self._everything.take()
            run.bucket.take()
            sent = Sent(run, probe, now)
            lane.aging.append(sent)
            run.young.append(sent)
            lane.sent += 1
            lane.all.in_flight += 1
            lane.all.young += 1
            if run.by_socket:
                lane.sockets.in_flight += 1
                lane.sockets.young += 1
            prepared = run.patient if probe.patient else run.prepared
            lane.prober.send(prepared, probe.ttl, probe.flow.source_port, sent)
        # Even a trace with more to send now lets the others have their turn, and time pass, first.
        self._sleep(run, now, 0.0 if probe is not None else now + LEAST_SLEEP_S)
        return probe is not None
