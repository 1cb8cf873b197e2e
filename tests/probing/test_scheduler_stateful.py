"""The scheduler under everything at once: any traces, any answers, dying probers, cancelling, time in any steps.

A hypothesis state machine plays clients, prober and network; models of its own check every probe the moment it is
sent and every turn the moment it is taken.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from math import inf
from typing import Any

import pytest
from attrs import define, field
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from twisted.internet.task import Clock

from tracerouted.model import Capabilities, Fact, Family, Protocol, Reply, ReplyKind, RetryReason, TraceRequest
from tracerouted.model import StopReason as Stop
from tracerouted.probing.lanes import YOUNG_S, Lane, Queue, Run, Sent
from tracerouted.probing.prober import SOCKET_PROTOCOLS, ProbeKind
from tracerouted.probing.scheduler import EXHAUSTED_PAUSE_S, SWEEP_S, ProbeLimits, Scheduler
from tracerouted.probing.trace import TraceMachine

TARGETS = 4
LONGEST_S = 4.0  # of a trace's deadline
STEPS_S = (0.0005, 0.002, 0.02, 0.2)
EXHAUSTIONS = (RetryReason.EXHAUSTED, RetryReason.NO_DESCRIPTORS)


@define
class Bucket:
    """What a rate with a burst allows, kept by the book."""

    rate: float
    burst: float
    tokens: float
    at: float = 0.0

    def take(self, now: float) -> None:
        self.tokens = min(self.burst, self.tokens + (now - self.at) * self.rate) - 1
        self.at = now
        assert self.tokens > -1e-5, "faster than allowed"


@define(eq=False)
class Flight:
    """A probe under way."""

    sent: Sent
    kind: ProbeKind
    ttl: int
    at: float
    overtaken: bool = False


@define(eq=False)
class HandProber:
    """A prober whose answers are given by the test; `on_send` sees every probe as it is sent."""

    clock: Clock
    family: Family
    slots: int
    on_send: Callable[[HandProber, Flight], None]
    ready: bool = True
    flying: list[Flight] = field(factory=list)
    asked: list[float] = field(factory=list)
    listener: Any = None

    @property
    def capabilities(self) -> Capabilities | None:
        return Capabilities("0.95", frozenset(Protocol), True, self.slots) if self.ready else None

    @property
    def unready_reason(self) -> str | None:
        return None if self.ready else "it died"

    def prepare(self, kind: ProbeKind) -> object:
        return kind

    def send(self, prepared: object, ttl: int, source_port: int | None, ticket: object) -> None:
        assert isinstance(prepared, ProbeKind)
        assert isinstance(ticket, Sent)
        flight = Flight(ticket, prepared, ttl, self.clock.seconds())
        self.flying.append(flight)
        self.on_send(self, flight)

    def confirm(self) -> None:
        if self.clock.seconds() not in self.asked[-1:]:
            self.asked.append(self.clock.seconds())

    def answer(self, flight: Flight, reply: Reply) -> None:
        self.flying.remove(flight)
        if reply.address is not None:
            for other in self.flying:
                if other.sent.run is flight.sent.run and other.at <= flight.at and other.ttl < flight.ttl:
                    other.overtaken = True
        self.listener.on_reply(flight.sent, reply, flight.at, self.clock.seconds())


class Turns(Queue):
    """A queue that holds its own users to the rules of fairness."""

    def __init__(self, by_age: bool, lane: Lane) -> None:
        super().__init__(by_age)
        self.lane = lane
        #: per waiting trace of the common queue: how many turns may pass before its own, and whose have
        self.waiting: dict[Run, tuple[int, Counter[Run]]] = {}
        self.in_a_row = 0

    def push(self, run: Run) -> None:
        assert run not in self.runs()
        ahead = len(self._others)
        super().push(run)
        if len(self._others) > ahead:
            self.waiting[run] = (2 * ahead + 1, Counter())

    def pop(self) -> Run:
        lane, sockets = self.lane, self is self.lane.socket_queue
        rival_can_go = bool(lane.queue) if sockets else bool(lane.socket_queue) and lane.sockets.room()
        self.in_a_row = self.in_a_row + 1 if rival_can_go else 0
        assert self.in_a_row <= 2, "one kind of probes keeps the other from its turn"
        (lane.queue if sockets else lane.socket_queue).in_a_row = 0  # type: ignore[attr-defined]
        run = super().pop()
        common = self.waiting.pop(run, None) is not None
        if not common:
            assert run.age <= min((age for age, _ in self._first), default=inf), "a younger trace goes first"
        for most, passed in self.waiting.values():
            passed[run] += 1
            assert passed.total() <= most, "a trace waits longer than its turn"
            assert not common or passed[run] == 1, "a trace has two turns while another waits for one"
        return run


@define(eq=False)
class Started:
    """A trace and what became of it."""

    run: Run
    machine: TraceMachine
    deadline: float
    facts: list[Fact]
    ended: int = 0
    stopped: bool = False

    @property
    def running(self) -> bool:
        return not self.ended and not self.stopped


def length(address: str) -> int:
    """How far away a target is: each differently."""
    return 2 + 3 * int(address[-1], 16)


def truth(flight: Flight) -> Reply:
    """What the network says to a probe."""
    kind, away = flight.kind, length(flight.kind.address)
    if flight.ttl >= away:
        return Reply(ReplyKind.REPLY, kind.address, 100)
    return Reply(
        ReplyKind.TTL_EXPIRED, f"{kind.address[:-1]}a{flight.ttl:x}" if ":" in kind.address else "10.0.0.1", 9
    )


ANSWERS: dict[str, Callable[[Flight], Reply]] = {
    "truth": truth,
    "lost": lambda flight: Reply(ReplyKind.TIMEOUT),
    "rejected": lambda flight: Reply(ReplyKind.UNREACHABLE, "10.9.9.9", 5),
    "error": lambda flight: Reply(ReplyKind.ERROR, error="network-down"),
    **{reason.name: lambda flight, reason=reason: Reply(ReplyKind.RETRY, error=reason) for reason in RetryReason},
}

numbers = st.integers(0, 10**6)


class Scheduling(RuleBasedStateMachine):
    """Clients, two probers and the network."""

    @initialize(
        slots=st.sampled_from([4, 20, 1000]),
        limits=st.fixed_dictionaries(
            {
                "probes_per_second": st.sampled_from([20.0, 500.0, 1e6]),
                "probes_burst": st.sampled_from([1.0, 10.0, 200.0]),
                "target_probes_per_second": st.sampled_from([10.0, 200.0, 1e6]),
                "target_probes_burst": st.sampled_from([1.0, 20.0, 100.0]),
                "young": st.sampled_from([2, 10, 240]),
                "socket_young": st.sampled_from([1, 4, 32]),
                "socket_slots": st.sampled_from([2, 10, 500]),
            }
        ),
    )
    def begin(self, slots: int, limits: dict[str, Any]) -> None:
        self.clock = Clock()
        self.limits = ProbeLimits(**limits)
        self.scheduler = Scheduler(self.clock, self.limits)
        self.probers = [HandProber(self.clock, family, slots, self.sent) for family in Family]
        for prober in self.probers:
            prober.listener = self.scheduler
            self.scheduler.add_prober(prober)
            lane = self.lane(prober)
            lane.queue, lane.socket_queue = Turns(True, lane), Turns(False, lane)
        self.everything = Bucket(limits["probes_per_second"], limits["probes_burst"], limits["probes_burst"])
        self.targets: dict[str, Bucket] = {}
        self.exhausted_at = dict.fromkeys(Family, -inf)
        self.traces: list[Started] = []

    def lane(self, prober: HandProber) -> Lane:
        return self.scheduler._lanes[prober.family]

    # --- what is checked as each probe is sent -------------------------------------------------------------------

    def sent(self, prober: HandProber, flight: Flight) -> None:
        now, limits = self.clock.seconds(), self.limits
        assert prober.ready, "sent to a prober that is not ready"
        assert now >= self.exhausted_at[prober.family] + EXHAUSTED_PAUSE_S, "sent to a prober that is exhausted"
        assert all(trace.running for trace in self.traces if trace.run is flight.sent.run)
        self.everything.take(now)
        burst = limits.target_probes_burst
        bucket = self.targets.setdefault(
            flight.kind.address, Bucket(limits.target_probes_per_second, burst, burst, now)
        )
        bucket.take(now)
        sockets = [other for other in prober.flying if other.kind.protocol in SOCKET_PROTOCOLS]
        for flying, slots, young in (
            (prober.flying, prober.slots, limits.young),
            *([(sockets, limits.socket_slots, limits.socket_young)] if flight in sockets else []),
        ):
            assert len(flying) <= slots, "more in flight than there are slots"
            fresh = [other for other in flying if now - other.at < YOUNG_S - 1e-9 and not other.overtaken]
            assert len(fresh) <= young, "more young probes than allowed"

    # --- what clients do -----------------------------------------------------------------------------------------

    @rule(
        family=st.sampled_from([0, 1]),
        host=st.integers(0, TARGETS - 1),
        fields=st.fixed_dictionaries(
            {
                "protocol": st.sampled_from(Protocol),
                "probes": st.sampled_from([1, 1, 3, 40]),
                "first_ttl": st.sampled_from([1, 1, 3]),
                "max_ttl": st.sampled_from([4, 12, 30]),
                "interval_ms": st.sampled_from([10, 50, 500]),
                "timeout_ms": st.sampled_from([100, 1000, 2000]),
                "deadline_ms": st.sampled_from([1000, 2000, round(LONGEST_S * 1000)]),
                "gap_limit": st.sampled_from([1, 3, 8]),
            }
        ),
        flows=st.sampled_from([1, 1, 4]),
        expected=st.sampled_from([None, 3, 20]),
        count=st.sampled_from([1, 1, 5]),
    )
    def start(
        self, family: int, host: int, fields: dict[str, Any], flows: int, expected: int | None, count: int
    ) -> None:
        address = f"198.18.0.{host}" if family == 0 else f"2001:db8::{host}"
        udp = fields["protocol"] is Protocol.UDP
        request = TraceRequest(target=address, flows=flows if udp else 1, **fields)
        now = self.clock.seconds()
        for _ in range(count):
            facts: list[Fact] = []
            machine = TraceMachine(
                request,
                address,
                facts.append,
                now=now,
                deadline=now + request.deadline_ms / 1000,
                source_port=20_000 if udp else None,
                expected_length=expected,
            )
            kind = ProbeKind(request.protocol, address, "192.0.2.1", request.filled_port, 64, 0, 2)
            place = len(self.traces)
            run = self.scheduler.start(machine, kind, list(Family)[family], lambda at=place: self.ended(at))
            self.traces.append(Started(run, machine, now + request.deadline_ms / 1000, facts))

    def ended(self, place: int) -> None:
        trace = self.traces[place]
        trace.ended += 1
        assert trace.machine.finished is not None
        assert trace.ended == 1
        assert not trace.stopped

    @precondition(lambda self: any(trace.running for trace in self.traces))
    @rule(which=numbers)
    def cancel(self, which: int) -> None:
        running = [trace for trace in self.traces if trace.running]
        trace = running[which % len(running)]
        trace.stopped = True
        trace.machine.stop(Stop.CANCELLED)
        self.scheduler.stop(trace.run)
        self.scheduler.stop(trace.run)

    # --- what the network and the probers do ---------------------------------------------------------------------

    @precondition(lambda self: any(prober.flying for prober in self.probers))
    @rule(picks=st.lists(st.tuples(numbers, st.sampled_from([*["truth"] * 8, *ANSWERS])), min_size=1, max_size=12))
    def answer(self, picks: list[tuple[int, str]]) -> None:
        """Some answers, in any order, as one batch of each prober that has any."""
        for prober in self.probers:
            some = False
            for which, how in picks:
                if prober.flying:
                    some = True
                    self.say(prober, prober.flying[which % len(prober.flying)], how)
            if some:
                self.scheduler.on_turn(prober)

    def say(self, prober: HandProber, flight: Flight, how: str) -> None:
        reply = ANSWERS[how](flight)
        if reply.error in EXHAUSTIONS:
            self.exhausted_at[prober.family] = self.clock.seconds()
        prober.answer(flight, reply)

    @rule(steps=st.integers(1, 30), step=st.sampled_from(STEPS_S), honest=st.booleans())
    def time_passes(self, steps: int, step: float, honest: bool) -> None:
        """In steps as fine or coarse as a busy reactor's; `honest` says whether the network answers meanwhile."""
        for _ in range(steps):
            self.clock.advance(step)
            for prober in self.probers:
                self.time_out(prober)
                if honest and prober.ready:
                    self.answer_all(prober)
                    self.prove(prober)

    def time_out(self, prober: HandProber) -> None:
        """The prober gives up on a probe when its time is over."""
        late = [flight for flight in prober.flying if self.clock.seconds() - flight.at >= flight.kind.timeout_s]
        for flight in late:
            self.say(prober, flight, "lost")
        if late:
            self.scheduler.on_turn(prober)

    def answer_all(self, prober: HandProber) -> None:
        for flight in list(prober.flying):
            self.say(prober, flight, "truth")
        self.scheduler.on_turn(prober)

    def prove(self, prober: HandProber) -> None:
        asked, prober.asked = prober.asked, []
        for at in asked:
            self.scheduler.on_alive(prober, at)

    @rule(which=st.sampled_from([0, 1]))
    def proof_of_life(self, which: int) -> None:
        if self.probers[which].ready:
            self.prove(self.probers[which])

    @rule(which=st.sampled_from([0, 1]), back=st.booleans(), slots=st.sampled_from([4, 20, 1000]))
    def die(self, which: int, back: bool, slots: int) -> None:
        """The process dies: all in flight comes back; its successor is ready at once, or later."""
        prober = self.probers[which]
        prober.ready, prober.slots = back, slots
        prober.asked.clear()
        for flight in list(prober.flying):
            self.say(prober, flight, "DIED")
        self.scheduler.on_turn(prober)

    @precondition(lambda self: not all(prober.ready for prober in self.probers))
    @rule()
    def revive(self) -> None:
        for prober in self.probers:
            if not prober.ready:
                prober.ready = True
                self.scheduler.on_turn(prober)

    # --- what holds at any time ----------------------------------------------------------------------------------

    @invariant()
    def counters_are_true(self) -> None:
        """Slots, young probes and users of targets are as many as counted."""
        if not hasattr(self, "probers"):
            return
        for prober in self.probers:
            lane = self.lane(prober)
            sockets = [flight for flight in prober.flying if flight.sent.run.by_socket]
            for budget, flying in ((lane.all, prober.flying), (lane.sockets, sockets)):
                assert len(flying) == budget.in_flight
                assert sum(flight.sent.young for flight in flying) == budget.young
        running = [trace for trace in self.traces if trace.running]
        assert len(running) == self.scheduler.running
        users = Counter(trace.run.target for trace in running)
        assert users == Counter({target: count for target, (_, count) in self.scheduler._targets._used.items()})

    @invariant()
    def nobody_is_forgotten(self) -> None:
        """No trace runs past its deadline, and whoever runs is waited for by something."""
        if not hasattr(self, "probers"):
            return
        now = self.clock.seconds()
        assert len(self.clock.getDelayedCalls()) <= 1
        for trace in self.traces:
            if trace.running:
                # Who waits for a turn is looked at now and then only, and time passes in steps.
                assert now <= trace.deadline + SWEEP_S + max(STEPS_S) + 1e-6
                assert self.clock.getDelayedCalls(), "nothing will wake it"

    def teardown(self) -> None:
        """Time runs on: everything ends and nothing is left."""
        if not hasattr(self, "probers"):
            return
        self.revive()
        for _ in range(round(LONGEST_S / 0.05) + 8):
            self.time_passes(1, 0.05, True)
            self.nobody_is_forgotten()
        self.counters_are_true()
        assert 0 == self.scheduler.running
        assert all(trace.ended + trace.stopped == 1 for trace in self.traces)
        for prober in self.probers:
            lane = self.lane(prober)
            assert not prober.flying
            assert not lane.queue.runs()
            assert not lane.socket_queue.runs()
            assert not lane.wanting_proof
            assert not lane.touched
        self.clock.advance(2 * LONGEST_S)
        assert [] == self.clock.getDelayedCalls()
        assert not self.scheduler._wakes


TestScheduling = pytest.mark.nightly(Scheduling.TestCase)
