"""The in-memory engine over a fake prober on a virtual clock: one way through, every bound, every refusal."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from fake_prober import FakeProber, pump, straight
from tracerouted.jobs.engine import Busy, NotReady, TargetNotAllowed, UnknownTrace, Unsupported
from tracerouted.jobs.memory import EngineLimits, MemoryEngine
from tracerouted.model import (
    Asn,
    EndEvent,
    Family,
    HopEvent,
    InvalidRequest,
    Protocol,
    Reply,
    ReplyKind,
    Status,
    StatusEvent,
    StopReason,
    TraceRequest,
)
from tracerouted.naming.describer import Describer
from tracerouted.naming.errors import NoSuchName
from tracerouted.naming.policy import TargetPolicy
from tracerouted.probing.scheduler import ProbeLimits, Scheduler

PUBLIC = "203.0.114.{}"
START = 1_700_000_000.0


class FakeNames:
    """Answers at once from `known`, or when told to."""

    def __init__(self) -> None:
        self.known: dict[str, str | Asn] = {}
        self.asked: list[str] = []
        self.waiting: list[tuple[str, Deferred[Any]]] = []
        self.cancelled: list[str] = []

    def __call__(self, address: str) -> Deferred[Any]:
        self.asked.append(address)
        if address in self.known:
            return succeed(self.known[address])
        answer: Deferred[Any] = Deferred(lambda _: self.cancelled.append(address))
        self.waiting.append((address, answer))
        return answer


class World:
    """An engine and all that is around it, under the test's control."""

    def __init__(self, network: Any = None, families: tuple[Family, ...] = tuple(Family), **limits: Any) -> None:
        self.clock = Clock()
        self.clock.advance(100)
        self.wall = START
        rates = {"probes_per_second": 1e6, "probes_burst": 1e6, "target_probes_per_second": 1e6}
        self.scheduler = Scheduler(self.clock, ProbeLimits(**rates))
        self.probers = {family: FakeProber(self.clock, network or straight(), family) for family in families}
        for prober in self.probers.values():
            prober.listener = self.scheduler
            self.scheduler.add_prober(prober)
        self.names: dict[str, Deferred[Any]] = {}
        self.hostnames, self.asns = FakeNames(), FakeNames()
        self.source: Callable[[str], str] = lambda target: "192.0.2.1" if "." in target else "2001:db8::1"
        self.engine = MemoryEngine(
            self.clock,
            lambda: self.wall + self.clock.seconds() - 100,
            self.scheduler,
            self.probers,
            TargetPolicy((ip_network("10.9.0.0/16"),), ()),
            lambda host, family: self.names.setdefault(host, Deferred()),
            Describer(self.hostnames, self.asns),
            lambda target: self.source(target),
            EngineLimits(**limits),
        )

    def submit(self, target: str = PUBLIC.format(1), **fields: Any) -> str:
        fields = {"probes": 1, "resolve_names": False, **fields}
        return self.engine.submit(TraceRequest(target=target, **fields)).id

    def status(self, trace_id: str) -> Status:
        return self.engine.get(trace_id).status


# --- the way through -----------------------------------------------------------------------------------------


def test_from_request_to_result() -> None:
    """A trace runs to its end and shows who asked for what, from where, when, and for how long it is kept."""
    world = World(retention_s=60)
    trace_id = world.submit()
    pump(world.clock, 1)
    trace = world.engine.get(trace_id)
    assert (Status.COMPLETED, StopReason.REACHED, True) == (trace.status, trace.stop_reason, trace.reached)
    assert trace.target is not None
    assert (PUBLIC.format(1), Family.IPV4) == (trace.target.address, trace.target.family)
    assert "192.0.2.1" == trace.source_address
    assert START == trace.created_at == trace.started_at
    assert trace.finished_at is not None
    assert START < trace.finished_at < START + 1
    assert trace.expires_at == pytest.approx(trace.finished_at + 60, abs=0.01)
    assert 5 == len(trace.hops)
    assert [] == [call for call in world.clock.getDelayedCalls() if call.getTime() < world.clock.seconds() + 50]


def test_ids_are_capabilities() -> None:
    """Ids hold at least 128 random bits, are URL-safe and never repeat."""
    world = World()
    ids = {world.submit(PUBLIC.format(n)) for n in range(100)}
    assert 100 == len(ids)
    assert all(len(each) >= 22 and each.replace("-", "a").replace("_", "a").isalnum() for each in ids)


def test_events_in_order() -> None:
    """A follower hears queued, resolved, running, every hop, and the end once, with rising revisions."""
    world = World()
    trace_id = world.submit()
    follower = world.engine.follow(trace_id, lambda: None)
    pump(world.clock, 1)
    events = follower.take()
    assert [event.revision for event in events] == list(range(1, len(events) + 1))
    statuses = [event.status for event in events if isinstance(event, StatusEvent)]
    assert [Status.QUEUED, Status.QUEUED, Status.RUNNING, Status.COMPLETED] == statuses
    assert {1, 2, 3, 4, 5} == {event.ttl for event in events if isinstance(event, HopEvent)}
    assert isinstance(events[-1], EndEvent)
    assert world.engine.get(trace_id) == events[-1].trace
    assert follower.done


def test_finished_fires_once_the_trace_is_whole() -> None:
    """Whoever waits for the end finds the finished trace; waiting for an ended one needs no wait."""
    world = World()
    trace_id = world.submit()
    seen: list[Any] = []
    world.engine.finished(trace_id).addCallback(lambda _: seen.append(world.engine.get(trace_id)))
    given_up = world.engine.finished(trace_id)
    given_up.addErrback(lambda failure: failure.trap(CancelledError))
    given_up.cancel()
    assert [] == seen
    pump(world.clock, 1)
    assert [Status.COMPLETED] == [trace.status for trace in seen]
    assert seen[0].expires_at is not None
    assert world.engine.finished(trace_id).called


# --- names ---------------------------------------------------------------------------------------------------


def test_a_name_is_pinned() -> None:
    """A name is looked up once; its first address that may be traced is traced, and all are shown."""
    world = World()
    trace_id = world.submit("host.example")
    assert Status.QUEUED is world.status(trace_id)
    addresses = tuple(map(ip_address, ("10.0.0.1", "203.0.114.7", "2a00::1")))
    world.names["host.example"].callback(addresses)
    pump(world.clock, 1)
    target = world.engine.get(trace_id).target
    assert target is not None
    assert ("host.example", "203.0.114.7") == (target.host, target.address)
    assert tuple(map(str, addresses)) == target.addresses
    assert {"203.0.114.7"} == {kind.address for _, kind, _, _ in world.probers[Family.IPV4].sent}
    assert [] == world.probers[Family.IPV6].sent


def test_a_name_of_forbidden_addresses_fails() -> None:
    """A name with only forbidden addresses ends failed, says which setting would allow it, and nothing is sent."""
    world = World()
    trace_id = world.submit("rebound.example")
    world.names["rebound.example"].callback((ip_address("127.0.0.1"), ip_address("::1")))
    trace = world.engine.get(trace_id)
    assert (Status.FAILED, StopReason.ERROR) == (trace.status, trace.stop_reason)
    assert "TRACEROUTED_ALLOW_TARGETS" in (trace.error or "")
    pump(world.clock, 1)
    assert [] == [sent for prober in world.probers.values() for sent in prober.sent]


def test_a_name_that_does_not_resolve_fails() -> None:
    """The look-up's own words are the trace's error."""
    world = World()
    trace_id = world.submit("no.example")
    world.names["no.example"].errback(NoSuchName("there is no name no.example"))
    trace = world.engine.get(trace_id)
    assert (Status.FAILED, "there is no name no.example") == (trace.status, trace.error)


def test_the_family_asked_for_is_looked_up() -> None:
    """A name asked for over IPv6 is traced over IPv6."""
    world = World()
    trace_id = world.submit("host.example", family=Family.IPV6)
    world.names["host.example"].callback((ip_address("2a00::1"),))
    pump(world.clock, 1)
    assert Status.COMPLETED is world.status(trace_id)
    assert world.probers[Family.IPV6].sent


def test_any_family_passes_over_one_that_is_not_ready() -> None:
    """With any family, the resolver's order holds among the families that can be traced."""
    world = World()
    world.probers[Family.IPV6].unready = "no IPv6 here"
    trace_id = world.submit("host.example")
    world.names["host.example"].callback((ip_address("2a00::1"), ip_address("203.0.114.7")))
    pump(world.clock, 1)
    target = world.engine.get(trace_id).target
    assert target is not None
    assert Family.IPV4 is target.family


def test_descriptions_arrive_as_hop_updates() -> None:
    """A reverse name or AS that comes late changes its hop, without a probe, and is in the result."""
    world = World()
    world.hostnames.known["10.0.0.1"] = "r1.example"
    world.asns.known |= {f"10.0.0.{ttl}": Asn(64500, "EXAMPLE") for ttl in range(1, 5)}
    trace_id = world.submit(resolve_names=True, lookup_asn=True)
    follower = world.engine.follow(trace_id, lambda: None)
    pump(world.clock, 1)
    trace = world.engine.get(trace_id)
    assert Status.COMPLETED is trace.status
    assert trace.expires_at is None
    for address, answer in world.hostnames.waiting:
        answer.callback(f"late-{address}")
    assert world.engine.get(trace_id).expires_at is None
    world.asns.waiting[0][1].callback(None)
    trace = world.engine.get(trace_id)
    assert trace.expires_at is not None
    assert [Asn(64500, "EXAMPLE")] * 4 + [None] == [hop.responders[0].asn for hop in trace.hops]
    names = [hop.responders[0].hostname for hop in trace.hops]
    assert ["r1.example", "late-10.0.0.2", "late-10.0.0.3", "late-10.0.0.4", f"late-{PUBLIC.format(1)}"] == names
    events = follower.take()
    assert isinstance(events[-1], EndEvent)
    named = [event for event in events if isinstance(event, HopEvent) and event.probe is None]
    assert {"r1.example", "late-10.0.0.2"} <= {event.responders[0].hostname for event in named}


def test_slow_names_delay_nothing_and_are_given_up() -> None:
    """A trace is terminal without waiting for names; two seconds later it is sealed without them."""
    world = World()
    trace_id = world.submit(resolve_names=True)
    finished = world.engine.finished(trace_id)
    pump(world.clock, 0.1)
    assert finished.called
    assert Status.COMPLETED is world.status(trace_id)
    world.clock.advance(2)
    assert world.engine.get(trace_id).expires_at is not None
    assert 5 == len(world.hostnames.cancelled)


def test_no_names_are_asked_for_unless_wanted() -> None:
    """Nothing is looked up for a trace that asks for neither names nor AS numbers; each half only if asked for."""
    world = World()
    world.submit()
    pump(world.clock, 1)
    assert [] == world.hostnames.asked + world.asns.asked
    world.submit(lookup_asn=True)
    pump(world.clock, 1)
    assert [] == world.hostnames.asked
    assert 5 == len(world.asns.asked)


# --- refusals ------------------------------------------------------------------------------------------------


def test_forbidden_address() -> None:
    """A forbidden literal is refused at once with the setting that would allow it."""
    with pytest.raises(TargetNotAllowed, match="TRACEROUTED_ALLOW_TARGETS"):
        World().submit("10.0.0.1")


def test_allowed_address() -> None:
    """The allow list opens what is otherwise closed."""
    world = World()
    trace_id = world.submit("10.9.0.1")
    pump(world.clock, 1)
    assert Status.COMPLETED is world.status(trace_id)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"target": "127.1"}, "target"),
        ({"target": PUBLIC.format(1), "family": Family.IPV6}, "target"),
        ({"target": "2a00::1", "size": 40}, "size"),
    ],
)
def test_requests_that_cannot_be(fields: dict[str, Any], named: str) -> None:
    """What only the engine can tell is wrong names its field too."""
    with pytest.raises(InvalidRequest) as refused:
        World().submit(**fields)
    assert [named] == [problem.field for problem in refused.value.problems]


def test_a_size_too_small_for_the_family_a_name_turns_out_to_have() -> None:
    """A name that turns out to be IPv6 only cannot be traced with an IPv4-sized probe; the trace says so."""
    world = World()
    trace_id = world.submit("six.example", size=40)
    world.names["six.example"].callback((ip_address("2a00::1"),))
    assert "size must be at least 48" in (world.engine.get(trace_id).error or "")


def test_unsupported_protocol() -> None:
    """A protocol the prober lacks is unsupported and the words name those it has."""
    world = World()
    for prober in world.probers.values():
        prober.protocols = frozenset({Protocol.ICMP, Protocol.TCP})
    with pytest.raises(Unsupported, match="choose from icmp, tcp") as refused:
        world.submit(protocol=Protocol.SCTP)
    assert ["protocol"] == [problem.field for problem in refused.value.problems]


def test_udp_needs_a_constant_flow() -> None:
    """UDP is refused where the prober cannot keep it on one path, rather than traced with a varying flow."""
    world = World()
    world.probers[Family.IPV6].constant_flow_udp = False
    with pytest.raises(Unsupported, match="one path"):
        world.submit("2a00::1", protocol=Protocol.UDP)
    world.submit(protocol=Protocol.UDP)


def test_not_ready() -> None:
    """A family without a working prober refuses with the reason; the other goes on."""
    world = World()
    world.probers[Family.IPV6].unready = "no raw sockets"
    with pytest.raises(NotReady, match="no raw sockets") as refused:
        world.submit("2a00::1")
    assert refused.value.retry_after >= 1
    world.submit()
    assert not world.engine.readiness()[Family.IPV6].ready
    assert "no raw sockets" == world.engine.readiness()[Family.IPV6].reason
    assert world.engine.readiness()[Family.IPV4].ready


def test_queue_full() -> None:
    """One more than the queue holds is refused, naming the setting and when to try again."""
    world = World(lambda *args: None, max_running=2, max_queued=3)
    for number in range(5):
        world.submit(PUBLIC.format(number))
    with pytest.raises(Busy, match="TRACEROUTED_MAX_QUEUED") as refused:
        world.submit()
    assert refused.value.retry_after >= 1
    assert {"running": 2, "queued": 3, "kept": 0} == world.engine.counts


def test_a_queue_that_cannot_drain_in_time() -> None:
    """A trace that could not run before its deadline is refused rather than left to fail in the queue."""
    world = World(lambda *args: None, max_running=1, max_queued=1000)
    for number in range(31):
        world.submit(PUBLIC.format(number), deadline_ms=60_000)
    with pytest.raises(Busy, match=r"TRACEROUTED_MAX_RUNNING.*deadline_ms"):
        world.submit(deadline_ms=20_000)
    world.submit(deadline_ms=60_000)


def test_no_route() -> None:
    """Without a route the trace ends failed with the system's words, and nothing is sent."""
    world = World()

    def unreachable(target: str) -> str:
        raise OSError(101, "Network is unreachable")

    world.source = unreachable
    trace = world.engine.get(world.submit())
    assert Status.FAILED is trace.status
    assert "Network is unreachable" in (trace.error or "")


# --- bounds --------------------------------------------------------------------------------------------------


def test_running_is_bounded() -> None:
    """No more than max_running traces run at once, and all get their turn."""
    world = World(max_running=3)
    ids = [world.submit(PUBLIC.format(number)) for number in range(10)]
    assert 3 == sum(world.status(each) is Status.RUNNING for each in ids)
    pump(world.clock, 2)
    assert {Status.COMPLETED} == {world.status(each) for each in ids}


def test_traces_per_prefix() -> None:
    """Traces into one /24 wait for each other; others pass them."""
    world = World(traces_per_prefix=2)
    crowd = [world.submit(PUBLIC.format(number)) for number in range(5)]
    other = world.submit("203.0.115.1")
    running = [each for each in [*crowd, other] if world.status(each) is Status.RUNNING]
    assert [*crowd[:2], other] == running
    pump(world.clock, 2)
    assert {Status.COMPLETED} == {world.status(each) for each in crowd}


def test_results_expire() -> None:
    """A result is gone when its retention time is over."""
    world = World(retention_s=60)
    trace_id = world.submit()
    pump(world.clock, 1)
    world.clock.advance(58)
    assert Status.COMPLETED is world.status(trace_id)
    world.clock.advance(3)
    with pytest.raises(UnknownTrace):
        world.engine.get(trace_id)
    assert [] == world.clock.getDelayedCalls()


def test_followers_of_a_kept_trace_share_its_events() -> None:
    """A finished trace is made again of what was kept once for all who follow it at the time, and then dropped."""
    world = World()
    trace_id = world.submit()
    pump(world.clock, 1)
    first, second = (world.engine.follow(trace_id, lambda: None) for _ in range(2))
    pump(world.clock, 0.1)  # both are notified
    assert first.take()[-1] is second.take()[-1]
    journal = weakref.ref(first._journal)
    first.close()
    second.close()
    del first, second
    gc.collect()
    assert journal() is None


@pytest.mark.parametrize("step", [3600, -3600])
def test_a_step_of_the_wall_clock_reorders_no_times(step: float) -> None:
    """Whenever the wall clock steps during a trace, its times are in order, and as far apart as they were."""
    world = World(lambda kind, ttl, *_: (0.1, Reply(ReplyKind.TTL_EXPIRED, "10.0.0.1", 100_000)), retention_s=60)
    for wait in (0.0, 0.05, 0.5):
        trace_id = world.submit(probes=2, interval_ms=1000, max_ttl=1)
        pump(world.clock, wait)
        world.wall += step
        pump(world.clock, 2 - wait)
        trace = world.engine.get(trace_id)
        sent = [probe.sent_at for hop in trace.hops for probe in hop.probes]
        assert trace.started_at is not None
        assert trace.finished_at is not None
        assert sorted(times := [trace.created_at, trace.started_at, *sent, trace.finished_at]) == times
        assert trace.finished_at - trace.created_at == pytest.approx(1.1, abs=0.01)
        assert trace.expires_at == pytest.approx(trace.finished_at + 60, abs=0.01)


@pytest.mark.parametrize("step", [3600, -3600])
def test_a_step_of_the_wall_clock_moves_no_retention(step: float) -> None:
    """A result is kept for its retention time whatever the wall clock says; readers are told the same."""
    world = World(retention_s=60)
    trace_id = world.submit()
    pump(world.clock, 1)
    world.wall += step
    world.clock.advance(50)
    _, _, left = world.engine.revision(trace_id)
    assert left == pytest.approx(9, abs=0.1)
    other = world.submit()
    world.clock.advance(10)
    assert [other] == [trace.id for trace in world.engine.list().traces]


@pytest.mark.parametrize("limit", ["max_kept", "max_kept_bytes"])
def test_kept_results_are_bounded(limit: str) -> None:
    """The oldest results go when there are too many or they are too big."""
    first = World()
    first.submit()
    pump(first.clock, 0.1)
    world = World(**{limit: {"max_kept": 3, "max_kept_bytes": int(3.5 * first.engine.kept_bytes)}[limit]})
    ids = []
    for number in range(6):
        ids.append(world.submit(PUBLIC.format(number)))
        pump(world.clock, 0.1)
    left = [trace.id for trace in world.engine.list().traces]
    assert list(reversed(ids[-3:])) == left


def test_a_queued_trace_meets_its_deadline() -> None:
    """A trace that never gets to run ends failed at its deadline."""
    world = World(lambda *args: None, max_running=1)
    world.submit(deadline_ms=10_000)
    waiting = world.submit("203.0.115.1", deadline_ms=1000)
    pump(world.clock, 1.01)
    trace = world.engine.get(waiting)
    assert (Status.FAILED, StopReason.DEADLINE) == (trace.status, trace.stop_reason)
    assert trace.started_at is None


def test_a_look_up_counts_against_the_deadline() -> None:
    """A name that is still being looked up at the deadline ends the trace, and its late answer changes nothing."""
    world = World()
    trace_id = world.submit("slow.example", deadline_ms=1000)
    world.names["slow.example"] = waiting = world.names["slow.example"]
    world.clock.advance(1.01)
    assert StopReason.DEADLINE is world.engine.get(trace_id).stop_reason
    assert waiting.called


# --- reading, cancelling, stopping -----------------------------------------------------------------------------


def test_listing_pages() -> None:
    """The list goes newest first in pages, without doubles or gaps while traces come and go."""
    world = World()
    ids = []
    for number in range(7):
        ids.append(world.submit(PUBLIC.format(number)))
        pump(world.clock, 0.1)
    page = world.engine.list(limit=3)
    seen = [trace.id for trace in page.traces]
    world.submit(PUBLIC.format(99))
    world.engine.cancel(ids[3])
    while page.cursor is not None:
        page = world.engine.list(limit=2, cursor=page.cursor)
        seen += [trace.id for trace in page.traces]
    assert [each for each in reversed(ids) if each != ids[3]] == seen
    with pytest.raises(ValueError, match="cursor"):
        world.engine.list(cursor="nonsense!")


def test_listing_filters() -> None:
    """The list can be narrowed to a status, a target by name or address, or an owner."""
    world = World(max_running=1)
    done = world.submit(PUBLIC.format(1))
    pump(world.clock, 1)
    named = world.submit("host.example")
    world.names["host.example"].callback((ip_address("203.0.114.7"),))
    pump(world.clock, 1)
    engine = world.engine
    owned = engine.submit(TraceRequest(target=PUBLIC.format(2)), "somebody").id

    def ids(**query: Any) -> list[str]:
        return [trace.id for trace in engine.list(**query).traces]

    assert [owned] == ids(status=Status.RUNNING)
    assert [named, done] == ids(status=Status.COMPLETED)
    assert [named] == ids(target="host.example") == ids(target="203.0.114.7")
    assert [owned] == ids(owner="somebody")
    assert [] == ids(owner="nobody")


@pytest.mark.parametrize("moment", ["waiting", "resolving", "running", "finished"])
def test_cancel(moment: str) -> None:
    """A cancelled trace ends for its followers and waiters, is forgotten, and frees what it held."""
    world = World(lambda *args: None if moment == "running" else straight()(*args), max_running=1)
    if moment == "waiting":
        world.probers[Family.IPV4].network = lambda *args: None
        world.submit("203.0.115.9")
    trace_id = world.submit("host.example" if moment == "resolving" else PUBLIC.format(1))
    pump(world.clock, 0.5)
    follower = world.engine.follow(trace_id, lambda: None)
    finished = world.engine.finished(trace_id)
    world.engine.cancel(trace_id)
    assert finished.called
    end = follower.take()[-1]
    assert isinstance(end, EndEvent)
    assert (Status.COMPLETED if moment == "finished" else Status.CANCELLED) is end.trace.status
    with pytest.raises(UnknownTrace):
        world.engine.get(trace_id)
    pump(world.clock, 3)
    assert 0 == world.engine.counts["queued"]


def test_drain_waits_for_running_traces() -> None:
    """Shutting down takes nothing new and lets running traces end."""
    world = World()
    trace_id = world.submit()
    drained = world.engine.drain(10)
    with pytest.raises(NotReady, match="shutting down"):
        world.submit()
    assert not any(each.ready for each in world.engine.readiness().values())
    assert not drained.called
    pump(world.clock, 1)
    assert drained.called
    assert Status.COMPLETED is world.status(trace_id)
    assert [] == world.clock.getDelayedCalls()


def test_drain_gives_up_in_time() -> None:
    """What does not end in time is cancelled, with its end told, and nothing is left behind."""
    world = World(lambda *args: None, max_running=1)
    ids = [world.submit(), world.submit("host.example"), world.submit("203.0.115.1")]
    follower = world.engine.follow(ids[0], lambda: None)
    drained = world.engine.drain(2)
    pump(world.clock, 2.01)
    assert drained.called
    assert {Status.CANCELLED} == {world.status(each) for each in ids}
    assert isinstance(follower.take()[-1], EndEvent)


def test_drain_of_nothing() -> None:
    """With nothing running there is nothing to wait for."""
    assert World().engine.drain(10).called


def test_path_lengths_are_remembered_per_prefix() -> None:
    """The second trace into a prefix sends nothing beyond the target but the scout."""
    world = World(straight(9, 0.01))
    world.submit(PUBLIC.format(1))
    pump(world.clock, 1)
    sent = world.probers[Family.IPV4].sent
    assert max(ttl for _, _, ttl, _ in sent if ttl != 64) > 9
    del sent[:]
    world.submit(PUBLIC.format(2))
    pump(world.clock, 1)
    assert 9 == max(ttl for _, _, ttl, _ in sent if ttl != 64)


def test_udp_flows_have_their_own_source_ports() -> None:
    """Each flow keeps its source port; a port asked for is the first flow's; both ports stay below mtr-packet's."""
    world = World()
    world.submit(protocol=Protocol.UDP, flows=3, source_port=5000)
    pump(world.clock, 2)
    assert {5000, 5001, 5002} == {port for _, _, _, port in world.probers[Family.IPV4].sent}
    assert {32434} == {kind.port for _, kind, _, _ in world.probers[Family.IPV4].sent}
    del world.probers[Family.IPV4].sent[:]
    world.submit(protocol=Protocol.UDP, flows=64, max_ttl=2)
    pump(world.clock, 10)
    ports = {port for _, _, _, port in world.probers[Family.IPV4].sent}
    assert 64 == len(ports)
    assert all(port is not None and 1024 <= port < 33000 for port in ports)


@pytest.mark.parametrize(
    ("protocol", "timeout_ms", "seconds"), [("icmp", 2100, 3), ("tcp", 2100, 1), ("udp", 100, 1)]
)
def test_probe_timeouts_are_whole_seconds(protocol: str, timeout_ms: int, seconds: int) -> None:
    """The prober's own timeout covers the request's; TCP gets one second, after which it would send again, but for
    the scout."""
    world = World()
    world.submit(protocol=Protocol(protocol), timeout_ms=timeout_ms)
    pump(world.clock, 0.1)
    timeouts = {ttl: kind.timeout_s for _, kind, ttl, _ in world.probers[Family.IPV4].sent}
    assert -(-timeout_ms // 1000) == timeouts.pop(64)
    assert {seconds} == set(timeouts.values())


def test_source_address_can_be_withheld() -> None:
    """With the setting off no document or event shows where traces start."""
    world = World(show_source_address=False)
    trace_id = world.submit()
    pump(world.clock, 1)
    assert world.engine.get(trace_id).source_address is None


def test_an_unexpected_failure_of_a_look_up_ends_the_trace() -> None:
    """Even a look-up that breaks in a way nobody thought of ends its trace, without telling its insides."""
    world = World()
    world.names["odd.example"] = fail(Failure(RuntimeError()))
    trace = world.engine.get(world.submit("odd.example"))
    assert (Status.FAILED, "looking up odd.example failed") == (trace.status, trace.error)
