"""The journal: folding, following, resuming and packing always tell the same story."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies import WALL, stories, story
from tracerouted.jobs.journal import Journal
from tracerouted.jobs.packing import pack, unpack
from tracerouted.model import (
    EndEvent,
    Fact,
    HopEvent,
    Outcome,
    ProbeSent,
    ProbeSettled,
    Trace,
    TraceEvent,
    TraceRequest,
)
from virtual import TARGET, router


def encode(event: TraceEvent) -> bytes:
    """A stand-in for a wire format: what it says and how long it is depend on the event alone."""
    return repr(event).encode() + b"\n"


class World:
    """A journal and the calls it has put off."""

    def __init__(self, request: TraceRequest) -> None:
        self.soon: list[Callable[[], None]] = []
        self.delays: list[float] = []
        self.encoded: list[TraceEvent] = []
        self.journal = Journal("id", request, self._encode, self._call_later)

    def _call_later(self, delay: float, call: Callable[[], None]) -> None:
        self.delays.append(delay)
        self.soon.append(call)

    def _encode(self, event: TraceEvent) -> bytes:
        self.encoded.append(event)
        return encode(event)

    def turn(self) -> None:
        calls, self.soon[:] = self.soon[:], []
        for call in calls:
            call()


def told(events: list[TraceEvent]) -> dict[int, HopEvent]:
    """What a follower knows of each hop: the last it was told, without those withdrawn."""
    hops = {event.ttl: event for event in events if isinstance(event, HopEvent)}
    return {ttl: hop for ttl, hop in hops.items() if hop.stats.sent or hop.responders or hop.probe}


@settings(max_examples=40, deadline=None)
@given(stories, st.data())
def test_following_misses_and_doubles_nothing(story: tuple[TraceRequest, list[Fact]], data: st.DataObject) -> None:
    """Whenever a follower comes, reads, leaves and resumes, it has each revision once, in order."""
    request, facts = story
    world = World(request)
    moves = data.draw(st.lists(st.sampled_from(["take", "encoded", "resume", "none"]), min_size=5, max_size=40))
    late = data.draw(st.integers(0, len(facts)))
    got: list[int] = []
    whole = World(request)
    for fact in facts:
        whole.journal.append(fact)
    reference = whole.journal.follow(lambda: None, 0)
    whole.journal.seal(WALL)
    everything = reference.take()
    frames = {event.revision: encode(event) for event in everything}
    follower = None
    for index, fact in enumerate(facts):
        world.journal.append(fact)
        world.turn()
        if index == late:
            follower = world.journal.follow(lambda: None, 0)
        if follower is None:
            continue
        move = moves[index % len(moves)]
        if move == "take":
            got += [event.revision for event in follower.take()]
        elif move == "encoded":
            taken = follower.take_encoded(700)
            while taken:
                revision = (got[-1] if got else 0) + 1
                assert taken.startswith(frames[revision])
                taken = taken[len(frames[revision]) :]
                got.append(revision)
        elif move == "resume":
            follower.close()
            follower = world.journal.follow(lambda: None, got[-1] if got else 0)
    world.journal.seal(WALL)
    if follower is None:
        follower = world.journal.follow(lambda: None, 0)
    got += [event.revision for event in follower.take()]
    assert list(range(1, world.journal.revision + 1)) == got
    assert follower.done


@settings(max_examples=40, deadline=None)
@given(stories)
def test_events_and_reading_agree(story: tuple[TraceRequest, list[Fact]]) -> None:
    """Whoever kept the last event of every hop knows what a reader sees, at any time and at the end."""
    request, facts = story
    world = World(request)
    follower = world.journal.follow(lambda: None, 0)
    events: list[TraceEvent] = []
    for index, fact in enumerate(facts):
        world.journal.append(fact)
        if index % 5:
            continue
        events += follower.take()
        shown = {hop.ttl: hop for hop in world.journal.trace().hops}
        assert world.journal.trace().revision == world.journal.revision
        for ttl, event in told(events).items():
            hop = shown[ttl]
            assert (hop.responders, hop.stats, hop.rate_limited) == (
                event.responders,
                event.stats,
                event.rate_limited,
            )
        assert {ttl for ttl, hop in shown.items() if hop.stats.sent} <= set(told(events))
    world.journal.seal(WALL)
    end = follower.take()[-1]
    assert isinstance(end, EndEvent)
    assert end.trace == world.journal.trace()
    assert end.revision == end.trace.revision


def test_one_revision_is_one_document() -> None:
    """Two readings at one revision are equal, whatever was sent in between."""
    request, facts = story()
    journal = World(request).journal
    seen: dict[int, Trace] = {}
    for fact in facts:
        journal.append(fact)
        trace = journal.trace()
        assert trace == seen.setdefault(trace.revision, trace)


def test_probes_under_way_are_pending() -> None:
    """A probe on its way is shown as pending in its hop."""
    request, facts = story()
    journal = World(request).journal
    outcomes = set()
    for fact in facts:
        journal.append(fact)
        outcomes |= {probe.outcome for hop in journal.trace().hops for probe in hop.probes}
    assert Outcome.PENDING in outcomes


def test_an_event_is_encoded_once() -> None:
    """However many follow, each event is encoded once; without followers none is."""
    request, facts = story()
    world = World(request)
    for fact in facts[:20]:
        world.journal.append(fact)
    world.journal.trace()
    assert [] == world.encoded
    followers = [world.journal.follow(lambda: None, 0) for _ in range(50)]
    for fact in facts[20:]:
        world.journal.append(fact)
        for follower in followers:
            follower.take_encoded(10_000_000)
    world.journal.seal(WALL)
    frames = {follower.take_encoded(10_000_000) for follower in followers}
    assert 1 == len(frames)
    assert [event.revision for event in world.encoded] == list(range(1, world.journal.revision + 1))


def test_followers_are_told_once_a_turn() -> None:
    """Many facts in one turn are one notice; a follower that has left gets none."""
    request, facts = story()
    world = World(request)
    calls: list[str] = []
    stays = world.journal.follow(lambda: calls.append("stays"), 0)
    leaves = world.journal.follow(lambda: calls.append("leaves"), 0)
    for fact in facts[:10]:
        world.journal.append(fact)
    leaves.close()
    world.turn()
    assert ["stays"] == calls
    world.turn()
    assert ["stays"] == calls
    assert stays.take()


def test_a_late_follower_is_told_that_there_is_something() -> None:
    """Following a trace that has something to tell gives a notice in the next turn."""
    request, facts = story()
    world = World(request)
    world.journal.append(facts[0])
    calls: list[int] = []
    world.journal.follow(lambda: calls.append(1), 0)
    assert [] == calls
    world.turn()
    assert [1] == calls


def test_bytes_behind() -> None:
    """A follower is behind by what came since it began and was not taken, not by history it replays."""
    request, facts = story()
    world = World(request)
    for fact in facts[:20]:
        world.journal.append(fact)
    follower = world.journal.follow(lambda: None, 0)
    assert 0 == follower.bytes_behind
    begun = world.journal.revision
    for fact in facts[20:40]:
        world.journal.append(fact)
    new = list(world.journal.follow(lambda: None, begun).take())
    assert sum(len(encode(event)) for event in new) == follower.bytes_behind
    follower.take()
    assert 0 == follower.bytes_behind


def test_a_late_answer_reads_alike_before_and_after_packing() -> None:
    """When an answer comes late, responders and statistics keep the order of judgement, packed or not."""
    journal = World(TraceRequest(target=TARGET)).journal
    sent = [ProbeSent(number, 1, 1, WALL + number / 1000) for number in (1, 2, 3)]
    lost, *others = [ProbeSettled(*each, Outcome.TIMEOUT, None, None, (), None) for each in sent]
    answers = [
        fact._replace(outcome=Outcome.TTL_EXPIRED, address=router(1, fact.number), rtt_us=fact.number**3 * 100)
        for fact in (*others, lost)
    ]
    for fact in (*sent, *answers[:2], lost, answers[2]):
        journal.append(fact)
    (live,) = journal.trace().hops
    assert [router(1, 2), router(1, 3), router(1, 1)] == [responder.address for responder in live.responders]
    request, facts = unpack(pack(journal.request, journal.facts))
    again = World(request).journal
    for fact in facts:
        again.append(fact)
    assert (live,) == again.trace().hops


def test_events_go_with_the_last_follower() -> None:
    """Built events are kept only while somebody follows."""
    request, facts = story()
    world = World(request)
    for fact in facts:
        world.journal.append(fact)
    follower = world.journal.follow(lambda: None, 0)
    follower.take()
    world.encoded.clear()
    follower.close()
    follower.close()
    assert [] == follower.take()
    world.journal.follow(lambda: None, 0).take()
    assert len(world.encoded) > 10  # built anew


def test_resuming_after_the_end() -> None:
    """Who has the end event has everything."""
    request, facts = story()
    world = World(request)
    for fact in facts:
        world.journal.append(fact)
    world.journal.seal(WALL)
    follower = world.journal.follow(lambda: None, world.journal.revision)
    assert follower.done
    assert [] == follower.take()


def test_many_followers_are_told_less_often() -> None:
    """A few followers are told in the next turn; a thousand ten times a second, of all that happened by then."""
    request, facts = story()
    for followers, delay in ((1, 0.0), (9, 0.0), (100, 0.01), (1000, 0.1)):
        world = World(request)
        for _ in range(followers):
            world.journal.follow(lambda: None, 0)
        for fact in facts:
            world.journal.append(fact)
        assert [delay] == [pytest.approx(each) for each in world.delays]
