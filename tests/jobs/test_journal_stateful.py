"""The journal under any order of facts and readers: polling, following and packing always tell the same story.

A hypothesis state machine writes facts as a trace machine may (late answers, cut flows, retracted hops, probes sent
again), and lets readers come, take, leave, resume and read when they like. What they should have seen is folded from
scratch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from attrs import define, field
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tracerouted.jobs.fold import Fold
from tracerouted.jobs.journal import QUIET, Journal, JournalFollower
from tracerouted.jobs.packing import pack, unpack
from tracerouted.model import (
    AddressDescribed,
    Asn,
    EndEvent,
    Fact,
    Family,
    FlowCut,
    HopRateLimited,
    HopRetracted,
    MplsLabel,
    Outcome,
    ProbeSent,
    ProbeSettled,
    Protocol,
    Status,
    StatusChanged,
    StopReason,
    Target,
    Trace,
    TraceEvent,
    TraceRequest,
)

WALL = 1_000_000.0
EXPIRES = WALL + 3600
TTLS = 3
ADDRESSES = ("192.0.2.1", "192.0.2.2", "198.51.100.1")
TARGET = Target("example.net", "192.0.2.9", Family.IPV4, ("192.0.2.9",))
ANSWERED = (Outcome.REPLY, Outcome.TTL_EXPIRED, Outcome.UNREACHABLE)

numbers = st.integers(0, 10**6)
ttls = st.integers(1, TTLS)
addresses = st.sampled_from(ADDRESSES)
rtts = st.integers(1, 9999)


def encode(event: TraceEvent) -> bytes:
    """A stand-in for a wire format."""
    return repr(event).encode() + b"\n"


@define(eq=False)
class Reader:
    """A follower, the revision it has come to, and whether it was told that there is more."""

    follower: JournalFollower
    after: int
    begun: int
    told: int = 0
    due: bool = False
    got: list[int] = field(factory=list)


class Journalling(RuleBasedStateMachine):
    """One journal, its writer and its readers."""

    @initialize(flows=st.integers(1, 3), first_ttl=st.integers(1, 2))
    def begin(self, flows: int, first_ttl: int) -> None:
        self.request = TraceRequest(target="example.net", protocol=Protocol.UDP, flows=flows, first_ttl=first_ttl)
        self.soon: list[Callable[[], None]] = []
        self.journal = Journal("id", self.request, encode, lambda delay, call: self.soon.append(call))
        self.facts: list[Fact] = []
        self.fold = Fold("id", self.request)
        self.events: list[TraceEvent] = []
        self.frames: list[bytes] = []
        self.documents: dict[int, Trace] = {}
        self.readers: list[Reader] = []
        self.number = 0
        self.under_way: dict[int, ProbeSent] = {}
        self.cut_off: dict[int, tuple[ProbeSent, int]] = {}
        self.settled: dict[int, ProbeSettled] = {}
        self.append(StatusChanged(Status.QUEUED, WALL))
        self.append(StatusChanged(Status.QUEUED, WALL, target=TARGET))
        self.append(StatusChanged(Status.RUNNING, WALL + 0.001, source_address="192.0.2.100"))

    def append(self, fact: Fact) -> None:
        """Write a fact, and note what readers are to be told of it."""
        self.journal.append(fact)
        self.facts.append(fact)
        self.fold.apply(fact)
        event = self.fold.event(fact)
        if event is not None:
            self.note(event)

    def note(self, event: TraceEvent) -> None:
        self.events.append(event)
        self.frames.append(encode(event))
        for reader in self.readers:
            reader.due = True

    @property
    def running(self) -> bool:
        return self.journal.status is Status.RUNNING

    # --- what happens to probes ----------------------------------------------------------------------------------

    @precondition(lambda self: self.running)
    @rule(ttl=ttls, flow=numbers, count=st.integers(1, 6))
    def send(self, ttl: int, flow: int, count: int) -> None:
        for _ in range(count):
            self.number += 1
            sent_at = round(WALL + self.number / 1000, 3)
            sent = ProbeSent(self.number, ttl, 1 + flow % self.request.flows, sent_at)
            self.under_way[self.number] = sent
            self.append(sent)

    @precondition(lambda self: self.running and self.under_way)
    @rule(which=numbers)
    def send_again(self, which: int) -> None:
        sent = pick(self.under_way, which)
        self.append(sent._replace(sent_at=round(sent.sent_at + 0.5, 3)))

    @precondition(lambda self: self.running and self.under_way)
    @rule(which=numbers, outcome=st.sampled_from(Outcome), address=addresses, rtt=rtts)
    def settle(self, which: int, outcome: Outcome, address: str, rtt: int) -> None:
        if outcome is not Outcome.PENDING:
            sent = self.under_way.pop(pick(self.under_way, which).number)
            self.tell(judged(sent, sent.ttl, outcome, address, rtt))

    @precondition(lambda self: self.running and self.cut_off)
    @rule(which=numbers, address=addresses, rtt=rtts)
    def settle_at_the_end(self, which: int, address: str, rtt: int) -> None:
        """A probe that went too far counts at the end of its flow."""
        sent, last = pick(self.cut_off, which)
        del self.cut_off[sent.number]
        self.tell(judged(sent, last, Outcome.REPLY, address, rtt))

    @precondition(lambda self: self.running)
    @rule(ttl=ttls, flow=numbers)
    def tell_of_an_extra_probe(self, ttl: int, flow: int) -> None:
        """A probe of which nothing was told turns out to count."""
        self.number += 1
        sent = ProbeSent(self.number, ttl, 1 + flow % self.request.flows, WALL)
        self.tell(judged(sent, ttl, Outcome.TIMEOUT, "", 0))

    @precondition(lambda self: self.running and any(f.outcome is Outcome.TIMEOUT for f in self.settled.values()))
    @rule(which=numbers, address=addresses, rtt=rtts)
    def answer_late(self, which: int, address: str, rtt: int) -> None:
        lost = pick({n: fact for n, fact in self.settled.items() if fact.outcome is Outcome.TIMEOUT}, which)
        self.tell(lost._replace(outcome=Outcome.TTL_EXPIRED, address=address, rtt_us=rtt))

    def tell(self, fact: ProbeSettled) -> None:
        self.settled[fact.number] = fact
        self.append(fact)

    @precondition(lambda self: self.running and self.settled)
    @rule(which=numbers, again=st.booleans())
    def retract(self, which: int, again: bool) -> None:
        """What was told of a hop does not hold; some of it is told again."""
        some = pick(self.settled, which)
        self.take_back(some.ttl, some.flow)
        if again:
            self.tell(some)

    def take_back(self, ttl: int, flow: int) -> None:
        for fact in [fact for fact in self.settled.values() if (fact.ttl, fact.flow) == (ttl, flow)]:
            del self.settled[fact.number]
        for sent in [sent for sent in self.under_way.values() if (sent.ttl, sent.flow) == (ttl, flow)]:
            del self.under_way[sent.number]
        self.append(HopRetracted(ttl, flow))

    @precondition(lambda self: self.running)
    @rule(flow=numbers, last=ttls)
    def cut(self, flow: int, last: int) -> None:
        """A flow's end is known: what is under way beyond it is nobody's, what was told of there does not hold."""
        flow = 1 + flow % self.request.flows
        for sent in [sent for sent in self.under_way.values() if sent.flow == flow and sent.ttl > last]:
            self.cut_off[sent.number] = self.under_way.pop(sent.number), last
        self.append(FlowCut(flow, last))
        for ttl in sorted({fact.ttl for fact in self.settled.values() if fact.flow == flow and fact.ttl > last}):
            self.take_back(ttl, flow)

    @precondition(lambda self: self.running)
    @rule(ttl=ttls, limited=st.booleans())
    def rate_limited(self, ttl: int, limited: bool) -> None:
        self.append(HopRateLimited(ttl, limited))

    @precondition(lambda self: not self.journal.sealed)
    @rule(
        ttl=ttls,
        address=addresses,
        hostname=st.none() | st.just("r.example.net"),
        asn=st.none() | st.just(Asn(64500, "EXAMPLE")),
    )
    def describe(self, ttl: int, address: str, hostname: str | None, asn: Asn | None) -> None:
        self.append(AddressDescribed(ttl, address, hostname, asn))

    @precondition(lambda self: self.running and self.number > 3)
    @rule(reason=st.sampled_from([StopReason.REACHED, StopReason.DEADLINE]))
    def end(self, reason: StopReason) -> None:
        self.append(StatusChanged(Status.COMPLETED, WALL + 2, stop_reason=reason))

    @precondition(lambda self: self.journal.status.terminal and not self.journal.sealed)
    @rule()
    def seal(self) -> None:
        self.journal.seal(EXPIRES)
        self.fold.revision += 1
        self.note(EndEvent(self.fold.revision, self.fold.trace(EXPIRES)))

    # --- readers -------------------------------------------------------------------------------------------------

    @rule(after=st.none() | numbers)
    def follow(self, after: int | None) -> None:
        """From the first event, or from any that there was."""
        start = 0 if after is None else after % (self.journal.revision + 1)
        reader = Reader(None, start, self.journal.revision)  # type: ignore[arg-type]
        reader.follower = self.journal.follow(lambda: self.notice(reader), start)
        reader.due = self.journal.revision > start
        self.readers.append(reader)

    def notice(self, reader: Reader) -> None:
        assert reader in self.readers, "a reader that has left is told"
        reader.told += 1

    @precondition(lambda self: self.readers)
    @rule(which=numbers)
    def take(self, which: int) -> None:
        reader = self.readers[which % len(self.readers)]
        expected = self.events[reader.after :]
        assert expected == reader.follower.take()
        reader.after += len(expected)

    @precondition(lambda self: self.readers)
    @rule(which=numbers, limit=st.sampled_from([0, 1, 500, 2000, 100_000]))
    def take_some(self, which: int, limit: int) -> None:
        """Whole events as bytes: at least one, else as many as fit."""
        reader = self.readers[which % len(self.readers)]
        expected = self.frames[reader.after : reader.after + 1]
        for frame in self.frames[reader.after + 1 :]:
            if sum(map(len, expected)) + len(frame) > limit:
                break
            expected.append(frame)
        assert b"".join(expected) == reader.follower.take_encoded(limit)
        reader.after += len(expected)

    @precondition(lambda self: self.readers)
    @rule(which=numbers)
    def leave(self, which: int) -> None:
        reader = self.readers.pop(which % len(self.readers))
        reader.follower.close()
        reader.follower.close()
        assert [] == reader.follower.take()
        assert b"" == reader.follower.take_encoded(100)
        assert 0 == reader.follower.bytes_behind

    @rule()
    def turn(self) -> None:
        """What was put off is done: each reader that has something new is told once, if it did not know before."""
        for reader in self.readers:
            reader.told = 0
        calls, self.soon[:] = self.soon[:], []
        assert len(calls) <= 1
        for call in calls:
            call()
        for reader in self.readers:
            assert reader.told <= 1
            assert reader.told == 1 or not reader.due
            reader.due = False

    @rule()
    def read(self) -> None:
        """A document is what all facts up to its revision add up to, and there is one per revision."""
        document = self.journal.trace()
        assert document.revision == self.journal.revision
        assert document == self.documents.setdefault(document.revision, document)
        assert document == self.from_scratch()

    def from_scratch(self) -> Trace:
        fold = Fold("id", self.request)
        last = max(place for place, fact in enumerate(self.facts) if type(fact) not in QUIET)
        for fact in self.facts if self.journal.sealed else self.facts[: last + 1]:
            fold.apply(fact)
        fold.revision += self.journal.sealed
        return fold.trace(EXPIRES if self.journal.sealed else None)

    # --- what holds at any time ----------------------------------------------------------------------------------

    @invariant()
    def revisions_and_places_agree(self) -> None:
        """Every event has the next revision, and every reader is where it should be."""
        if not hasattr(self, "journal"):
            return
        assert [event.revision for event in self.events[-3:]] == [
            *range(max(1, len(self.events) - 2), len(self.events) + 1)
        ]
        assert len(self.events) == self.journal.revision
        for reader in self.readers:
            assert reader.follower.done is (self.journal.sealed and reader.after == len(self.events))
            behind = self.frames[max(reader.after, reader.begun) :]
            assert sum(map(len, behind)) == reader.follower.bytes_behind

    def teardown(self) -> None:
        """Whatever was left out is made up for: after the end, everybody has everything."""
        if not hasattr(self, "journal"):
            return
        if self.running:
            self.end(StopReason.REACHED)
        if not self.journal.sealed:
            self.seal()
        self.follow(None)
        for which in range(len(self.readers)):
            self.take(which)
        self.revisions_and_places_agree()
        self.read()
        end = self.events[-1]
        assert isinstance(end, EndEvent)
        assert end.trace == self.journal.trace()
        while self.readers:
            self.leave(0)
        self.turn()
        self.keep()
        self.follow(None)  # nothing built is left: this one is told from the packed facts alone
        self.take(0)

    def keep(self) -> None:
        """What the engine does with a finished trace: pack it, and make its journal again when somebody asks."""
        request, facts = unpack(pack(self.request, self.journal.facts))
        assert self.request == request
        self.journal = Journal("id", request, encode, lambda delay, call: self.soon.append(call))
        for fact in facts:
            self.journal.append(fact)
        self.journal.seal(EXPIRES)
        self.read()


def pick(table: dict[int, Any], which: int) -> Any:
    """One of the values."""
    return list(table.values())[which % len(table)]


def judged(sent: ProbeSent, ttl: int, outcome: Outcome, address: str, rtt: int) -> ProbeSettled:
    """What became of a probe, as consistent as the trace machine makes it."""
    answered = outcome in ANSWERED
    return ProbeSettled(
        sent.number,
        ttl,
        sent.flow,
        sent.sent_at,
        outcome,
        address if answered else None,
        rtt if answered and rtt % 7 else None,
        (MplsLabel(rtt, 0, 1, 1),) if answered and rtt % 5 == 0 else (),
        "network-down" if outcome is Outcome.ERROR else None,
    )


TestJournalling = pytest.mark.nightly(Journalling.TestCase)
