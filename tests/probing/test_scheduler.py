"""The scheduler on a virtual clock: fairness, budgets, back-pressure, proof of loss."""

from __future__ import annotations

import gc
import weakref
from ipaddress import IPv4Address
from typing import Any

import pytest
from attrs import define
from twisted.internet.task import Clock

from fake_prober import FakeProber, pump, straight
from tracerouted.model import (
    Fact,
    Family,
    Outcome,
    ProbeSettled,
    Protocol,
    Reply,
    ReplyKind,
    StopReason,
    TraceRequest,
)
from tracerouted.probing.prober import ProbeKind
from tracerouted.probing.scheduler import ProbeLimits, Run, Scheduler
from tracerouted.probing.trace import TraceMachine

GENEROUS = {
    "probes_per_second": 1e6,
    "probes_burst": 1e6,
    "target_probes_per_second": 1e6,
    "target_probes_burst": 1e6,
}


class World:
    """A scheduler over one fake prober, and the traces started on it."""

    def __init__(
        self,
        network: Any = None,
        limits: dict[str, Any] | None = None,
        kind: type[FakeProber] = FakeProber,
        **prober: Any,
    ) -> None:
        self.clock = Clock()
        self.prober = kind(self.clock, network or straight(), **prober)
        self.scheduler = Scheduler(self.clock, ProbeLimits(**{**GENEROUS, **(limits or {})}))
        self.prober.listener = self.scheduler
        self.scheduler.add_prober(self.prober)
        self.ended: list[str] = []
        self.facts: dict[str, list[Fact]] = {}
        self.machines: dict[str, TraceMachine] = {}
        self.runs: dict[str, Run] = {}

    def trace(self, number: int = 1, **fields: Any) -> str:
        address = str(IPv4Address("198.18.0.0") + number)
        request = TraceRequest(target=address, **{"probes": 1, **fields})
        now = self.clock.seconds()
        facts = self.facts[address] = []
        machine = TraceMachine(
            request, address, facts.append, now=now, deadline=now + request.deadline_ms / 1000, short_wait=1
        )
        kind = ProbeKind(request.protocol, address, "192.0.2.1", request.filled_port, 64, 0, 2)
        self.machines[address] = machine
        self.runs[address] = self.scheduler.start(machine, kind, Family.IPV4, lambda: self.ended.append(address))
        return address

    def outcomes(self, address: str) -> list[Outcome]:
        return [fact.outcome for fact in self.facts[address] if isinstance(fact, ProbeSettled)]


def test_a_trace_runs_to_its_end() -> None:
    """A trace ends once, as reached, and leaves nothing behind."""
    world = World()
    address = world.trace()
    pump(world.clock, 1)
    assert [address] == world.ended
    assert StopReason.REACHED is world.machines[address].finished
    assert 0 == world.scheduler.running
    assert {Family.IPV4: 0} == world.scheduler.in_flight()
    assert [] == world.clock.getDelayedCalls()


def test_a_trace_that_ended_is_no_garbage() -> None:
    """Nothing of a trace that has ended waits for the collector of cycles, however it ended."""
    world = World(straight(rtt=0.02))
    gc.collect()
    gc.disable()
    try:
        world.trace(probes=3)
        stopped = world.trace(2, probes=3)
        pump(world.clock, 0.05)
        world.machines[stopped].stop(StopReason.CANCELLED)
        world.scheduler.stop(world.runs[stopped])
        pump(world.clock, 3)
        flows = [weakref.ref(flow) for machine in world.machines.values() for flow in machine._flows]
        cells = [cell for flow in flows for cell in flow().cells]  # type: ignore[union-attr]
        assert [] == cells
        world.trace(3)
        pump(world.clock, 1)  # what the lane remembers of the last probes gives way
        world.machines.clear()
        world.runs.clear()
        assert [None] * len(flows) == [flow() for flow in flows]
    finally:
        gc.enable()


def test_many_traces_are_all_exact() -> None:
    """Three hundred traces at once all end reached, with every hop answered."""
    world = World()
    names = [world.trace(number) for number in range(300)]
    pump(world.clock, 5)
    assert sorted(names) == sorted(world.ended)
    assert {Outcome.TTL_EXPIRED, Outcome.REPLY} == {each for name in names for each in world.outcomes(name)}


def test_a_big_trace_does_not_starve_a_small_one() -> None:
    """Turns are shared: a small trace among big ones ends about as soon as alone."""
    world = World(straight(rtt=0.02), {"probes_per_second": 1000.0, "probes_burst": 10.0})
    for number in range(10):
        world.trace(number, probes=100, interval_ms=10)
    pump(world.clock, 1)
    small = world.trace(99)
    pump(world.clock, 0.5)
    assert [small] == world.ended


@pytest.mark.parametrize(("limit", "seen"), [("slots", "most_in_flight"), ("young", "most_young")])
def test_budgets_bound_what_is_in_flight(limit: str, seen: str) -> None:
    """Neither slots nor young probes ever exceed their budget, and the traces still end."""
    limits = {"young": 40} if limit == "young" else {}
    world = World(straight(rtt=0.05), limits, slots=30 if limit == "slots" else 1000)
    for number in range(50):
        world.trace(number)
    pump(world.clock, 10)
    assert 50 == len(world.ended)
    assert {"slots": 30, "young": 40}[limit] == getattr(world.prober, seen)


def test_silent_probes_hold_slots_not_the_young_budget() -> None:
    """Old silent probes do not keep new ones from leaving: only slots do."""
    world = World(lambda *args: None, {"young": 20})
    for number in range(20):
        world.trace(number, max_ttl=10, deadline_ms=5000)
    pump(world.clock, 1.5)
    assert world.prober.most_in_flight > 60
    assert 20 == world.prober.most_young


def test_overtaken_probes_are_no_longer_young() -> None:
    """Silent hops that later hops' answers have overtaken leave the young budget to others at once."""

    def network(kind: ProbeKind, ttl: int, port: int | None, earlier: int) -> tuple[float, Reply] | None:
        return None if ttl in (2, 3, 4) else straight(6)(kind, ttl, port, earlier)

    world = World(network)
    world.trace()
    pump(world.clock, 0.1)
    (lane,) = world.scheduler._lanes.values()
    assert (3, 0) == (lane.all.in_flight, lane.all.young)


def test_when_slots_are_scarce_probes_are_ordinary() -> None:
    """With more than an eighth of the slots taken the prober waits for probes only as long as it must."""
    world = World(lambda *args: None, slots=40)
    world.trace(timeout_ms=2000, max_ttl=8)
    pump(world.clock, 4)
    waits = [kind.timeout_s for _, kind, _, _ in world.prober.sent]
    assert [2] * 6 + [1] * 2 == waits


def test_older_traces_get_on_first() -> None:
    """Many traces at once are traced one after the other rather than all in step: the first end early."""
    world = World(straight(8, 0.005), {"young": 20})
    names = [world.trace(number) for number in range(60)]
    pump(world.clock, 0.12)
    assert 1 <= len(world.ended) < 60
    assert set(world.ended) <= set(names[:40])


def test_socket_probes_have_their_own_budgets() -> None:
    """TCP stays within its own young and slot budgets, and icmp goes on beside it."""
    world = World(straight(rtt=0.02), {"socket_young": 8, "socket_slots": 12})
    for number in range(20):
        world.trace(number, protocol=Protocol.TCP)
    icmp = world.trace(99)
    most = 0
    for _ in range(200):
        pump(world.clock, 0.01)
        flying = [kind for ticket, _, _ in world.prober.in_flight.values() if (kind := ticket.run).by_socket]
        most = max(most, len(flying))
        if len(world.ended) == 1:
            assert [icmp] == world.ended
    assert 21 == len(world.ended)
    assert 0 < most <= 8


def test_probes_per_second() -> None:
    """The overall rate holds over any second after the burst."""
    world = World(limits={"probes_per_second": 100.0, "probes_burst": 10.0})
    for number in range(80):
        world.trace(number)
    pump(world.clock, 8)
    assert 80 == len(world.ended)
    times = [at for at, *_ in world.prober.sent]
    busiest = max(sum(1 for other in times if at <= other < at + 1) for at in times)
    assert 90 <= busiest <= 111


def test_probes_per_target() -> None:
    """Many traces to one address share one budget; other targets do not wait for it."""
    world = World(limits={"target_probes_per_second": 50.0, "target_probes_burst": 5.0})
    for _ in range(10):
        world.trace(1)
    other = world.trace(2, probes=1)
    pump(world.clock, 3)
    to_one = [at for at, kind, _, _ in world.prober.sent if kind.address != other]
    assert len(to_one) <= 5 + 50 * 3 + 1
    assert other in world.ended


def test_one_trace_after_the_other_gets_no_new_burst() -> None:
    """Traces to one address share its budget also when each begins as the one before has ended."""
    world = World(limits={"target_probes_per_second": 50.0, "target_probes_burst": 20.0})
    while world.clock.seconds() < 2:
        world.trace(1)
        while world.scheduler.running:
            pump(world.clock, 0.01, 0.002)
    times = [at for at, *_ in world.prober.sent]
    assert 60 < max(sum(1 for other in times if at <= other < at + 1) for at in times) <= 20 + 50 + 1
    pump(world.clock, 1, 0.05)
    world.trace(2)
    assert 1 == len(world.scheduler._targets)


def test_targets_are_forgotten() -> None:
    """Of targets no trace runs to any more only those are kept whose budget has not filled up again."""
    world = World(limits={"target_probes_per_second": 100.0, "target_probes_burst": 20.0})
    for number in range(400):
        world.trace(number)
        pump(world.clock, 0.05, 0.005)
    assert 400 == len(world.ended)
    assert len(world.scheduler._targets) <= 64


def test_exhaustion_is_back_pressure() -> None:
    """A prober with fewer places than it promised loses nothing: every trace is exact, and slots come back."""
    world = World(straight(rtt=0.02), capacity=20)
    names = [world.trace(number) for number in range(40)]
    pump(world.clock, 10)
    assert 40 == len(world.ended)
    assert {Outcome.TTL_EXPIRED, Outcome.REPLY} == {each for name in names for each in world.outcomes(name)}
    world.prober.capacity = 100_000
    world.prober.most_in_flight = 0
    pump(world.clock, 12)
    for number in range(100, 200):
        world.trace(number)
    pump(world.clock, 5)
    assert world.prober.most_in_flight > 100


def test_nothing_is_sent_while_the_prober_is_not_ready() -> None:
    """Traces wait for a prober that is down, and go on when it is back."""
    world = World(unready="it died")
    address = world.trace()
    pump(world.clock, 1)
    assert [] == world.prober.sent
    world.prober.unready = None
    world.scheduler.on_turn(world.prober)
    pump(world.clock, 1)
    assert [address] == world.ended


def test_a_death_loses_nothing() -> None:
    """Probes that were in flight when the prober died are sent again."""
    world = World(straight(rtt=0.02))
    names = [world.trace(number) for number in range(20)]
    pump(world.clock, 0.03)
    world.prober.die()
    pump(world.clock, 3)
    assert 20 == len(world.ended)
    assert {Outcome.TTL_EXPIRED, Outcome.REPLY} == {each for name in names for each in world.outcomes(name)}


def test_silence_needs_proof() -> None:
    """No probe is called lost before the prober has shown that it is alive; with proof it is at once."""

    def network(kind: ProbeKind, ttl: int, port: int | None, earlier: int) -> tuple[float, Reply] | None:
        return (30.0, Reply(ReplyKind.TIMEOUT)) if ttl == 2 else straight()(kind, ttl, port, earlier)

    world = World(network, answers_confirm=False)
    address = world.trace()
    pump(world.clock, 5)
    assert Outcome.TIMEOUT not in world.outcomes(address)
    assert world.prober.confirms >= 1
    world.scheduler.on_alive(world.prober, world.clock.seconds())
    assert Outcome.TIMEOUT in world.outcomes(address)
    assert [address] == world.ended


@define(eq=False)
class Starved(FakeProber):
    """A prober that gets no processor between two times: what it is told meanwhile leaves afterwards."""

    between: tuple[float, float] = (0.01, 0.6)

    def late(self) -> float:
        first, last = self.between
        return last - self.clock.seconds() if first <= self.clock.seconds() < last else 0.0

    def send(self, prepared: object, ttl: int, source_port: int | None, ticket: object) -> None:
        late, network = self.late(), self.network

        def delayed(*probe: Any) -> tuple[float, Reply] | None:
            outcome = network(*probe)
            return outcome and (outcome[0] + late, outcome[1])

        self.network = delayed
        super().send(prepared, ttl, source_port, ticket)
        self.network = network

    def confirm(self) -> None:
        asked_at = self.clock.seconds()
        self.clock.callLater(self.late() + 0.001, lambda: self.listener.on_alive(self, asked_at))


@pytest.mark.parametrize("probes", [1, 3])
def test_a_starved_prober_invents_no_loss(probes: int) -> None:
    """What left late is waited for as much longer, though the prober has proved meanwhile that it is alive."""
    world = World(straight(rtt=0.02), kind=Starved)
    names = [world.trace(number, probes=probes) for number in range(5)]
    pump(world.clock, 5)
    assert sorted(names) == sorted(world.ended)
    assert {Outcome.TTL_EXPIRED, Outcome.REPLY} == {each for name in names for each in world.outcomes(name)}


def test_a_prober_is_asked_whether_a_lone_probe_has_left() -> None:
    """Silence is not waited for much longer where nothing lags, and once it is known nobody is asked again."""
    world = World(lambda kind, ttl, *rest: None if ttl > 2 else straight()(kind, ttl, *rest))
    world.trace(max_ttl=3, timeout_ms=1000)
    pump(world.clock, 1.1)
    assert 1 == len(world.ended)
    asked = world.prober.confirms
    assert asked <= 4
    pump(world.clock, 3)
    assert asked == world.prober.confirms


def test_proof_is_asked_for_again_after_a_death() -> None:
    """A proof that died with its process is asked for again, so that no trace waits for ever."""

    def network(kind: ProbeKind, ttl: int, port: int | None, earlier: int) -> tuple[float, Reply] | None:
        return None if ttl == 2 else straight()(kind, ttl, port, earlier)

    world = World(network, answers_confirm=False)
    address = world.trace(timeout_ms=1000)
    pump(world.clock, 0.5)
    world.prober.answers_confirm = True
    world.prober.die()
    pump(world.clock, 5)
    assert [address] == world.ended


def test_a_stopped_run_sends_nothing_more() -> None:
    """A trace stopped from outside sends nothing more and frees its slots as the answers come."""
    world = World(straight(rtt=0.05))
    address = world.trace(probes=50)
    pump(world.clock, 0.02)
    world.machines[address].stop(StopReason.CANCELLED)
    world.scheduler.stop(world.runs[address])
    sent = len(world.prober.sent)
    pump(world.clock, 3)
    assert sent == len(world.prober.sent)
    assert {Family.IPV4: 0} == world.scheduler.in_flight()
    assert [] == world.ended


def test_a_deadline_ends_a_trace_that_waits_for_budget() -> None:
    """A trace that never gets to send ends at its deadline all the same."""
    world = World(limits={"probes_per_second": 0.001, "probes_burst": 1.0})
    addresses = [world.trace(number, deadline_ms=1000) for number in range(3)]
    pump(world.clock, 1.01)
    assert sorted(addresses) == sorted(world.ended)
