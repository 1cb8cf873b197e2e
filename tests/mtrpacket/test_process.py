"""One process on a virtual clock: tokens, batches, verdicts, proof of life, watchdog, death."""

import pytest

from fakes import FakeMtr, Faults, ProcessClock, supervised
from tracerouted.model import Family, Protocol, Reply, ReplyKind, RetryReason
from tracerouted.mtrpacket.codec import MAX_TOKEN
from tracerouted.probing.prober import ProbeKind

DIED = Reply(ReplyKind.RETRY, error=RetryReason.DIED)


def kind(protocol=Protocol.ICMP, address="192.0.2.200", source="198.51.100.7", timeout_s=1):
    """A trace's probes."""
    port = None if protocol is Protocol.ICMP else 80
    return ProbeKind(protocol, address, source, port, 64, 0, timeout_s)


def ready(family=Family.IPV4, pace=None, limits=None, **settings):
    """A started prober on a virtual clock, its clock, and its recorder (emptied)."""
    faults = Faults(**{name: settings.pop(name) for name in list(settings) if hasattr(Faults, name)})
    clock = ProcessClock(lambda: FakeMtr(faults=faults, **settings))
    prober, recorder = supervised(clock, family, pace=pace, limits=limits)
    prober.start()
    clock.run(0.01)
    assert prober.unready_reason is None
    recorder.log.clear()
    recorder.turns.clear()
    return prober, clock, recorder


def probe_lines(write: bytes) -> int:
    """How many probes one write carried."""
    return write.count(b" send-probe ")


def test_every_probe_is_answered_once_with_its_own_reply():
    """Each ticket gets exactly the answer to its TTL; replies of one read are followed by one turn."""
    prober, clock, recorder = ready()
    prepared = prober.prepare(kind())
    for ttl in (1, 2, 3, 4, 5):
        prober.send(prepared, ttl, None, ttl)
    assert recorder.replies == []
    sent_at = clock.seconds()
    clock.run(1.5)
    expected = {
        1: Reply(ReplyKind.TTL_EXPIRED, "192.0.2.1", 1000),
        2: Reply(ReplyKind.TIMEOUT),
        3: Reply(ReplyKind.TTL_EXPIRED, "192.0.2.3", 3000),
        4: Reply(ReplyKind.REPLY, "192.0.2.200", 4000),
        5: Reply(ReplyKind.REPLY, "192.0.2.200", 4000),
    }
    assert expected == recorder.by_ticket()
    assert {sent_at} == {at for *_, at, _ in recorder.replies}
    # Both replies of TTL 4 and 5 came in one read.
    assert recorder.log == ["reply", "turn", "reply", "turn", "reply", "reply", "turn", "reply", "turn"]


def test_probes_of_one_turn_leave_at_most_eight_to_a_write():
    """However many are sent at once, no write carries more than eight commands, and none is left behind."""
    prober, clock, recorder = ready()
    before = len(clock.child.writes)
    prepared = prober.prepare(kind())
    for ticket in range(100):
        prober.send(prepared, 1, None, ticket)
    clock.run(0.01)
    carried = [probe_lines(write) for write in clock.child.writes[before:]]
    assert carried == [8] * 12 + [4]
    assert set(range(100)) == set(recorder.by_ticket())


def test_what_is_sent_in_a_turn_leaves_in_that_turn():
    """Probes sent from `on_turn` leave without waiting for a timer, in one write."""
    prober, clock, recorder = ready()
    prepared = prober.prepare(kind())
    prober.send(prepared, 1, None, "first")

    def more(prober):
        recorder.then = None
        for ticket in range(5):
            prober.send(prepared, 1, None, ticket)

    recorder.then = more
    clock.run(0.005)
    assert [probe_lines(write) for write in clock.child.writes if probe_lines(write)][-2:] == [1, 5]


def test_tokens_wrap_and_skip_those_in_flight():
    """Tokens stay within 1..2**31-1, and one still in flight is not given out again."""
    prober, clock, recorder = ready()
    process = prober._process
    prepared = prober.prepare(kind())
    process._token = 0
    prober.send(prepared, 2, None, "silent")  # token 1, in flight for a second
    clock.run(0.005)
    process._token = MAX_TOKEN - 1
    for ticket in ("last", "first"):
        prober.send(prepared, 1, None, ticket)
    clock.run(0.005)
    used = [int(line.split()[0]) for line in clock.child.fake.commands if b"send-probe" in line]
    assert used[-3:] == [1, MAX_TOKEN, 2]
    clock.run(1)
    assert {"silent", "last", "first"} == set(recorder.by_ticket())


@pytest.mark.parametrize("chunk", [1, 2, 7, 50])
def test_lines_may_end_anywhere(chunk):
    """Replies cut into pieces of any size are all understood."""
    prober, clock, recorder = ready(chunk=chunk)
    prepared = prober.prepare(kind())
    for ticket in range(20):
        prober.send(prepared, 1 + ticket % 5, None, ticket)
    clock.run(1.5)
    assert set(range(20)) == set(recorder.by_ticket())
    assert ReplyKind.ERROR not in {reply.kind for reply in recorder.by_ticket().values()}


def test_garbage_and_floods_harm_no_probe():
    """Lines nobody understands, or far too long, are counted and skipped; every probe is still answered."""
    prober, clock, recorder = ready(garbage_at_read=4, flood_at_read=5)
    prepared = prober.prepare(kind())
    for ticket in range(64):
        prober.send(prepared, 1, None, ticket)
    clock.run(0.5)
    assert {Reply(ReplyKind.TTL_EXPIRED, "192.0.2.1", 1000)} == set(recorder.by_ticket().values())
    assert len(recorder.replies) == 64
    assert prober.counters["unknown_words"] > 10_000
    assert prober.counters["oversized_lines"] == 1


@pytest.mark.parametrize(
    ("fault", "protocol", "expected", "counted"),
    [
        ("stolen", Protocol.ICMP, Reply(ReplyKind.RETRY, error=RetryReason.STOLEN), "stolen"),
        ("exhausted", Protocol.ICMP, Reply(ReplyKind.RETRY, error=RetryReason.EXHAUSTED), None),
        ("in_use", Protocol.TCP, Reply(ReplyKind.RETRY, error=RetryReason.ADDRESS_IN_USE), None),
        ("emfile", Protocol.TCP, Reply(ReplyKind.RETRY, error=RetryReason.NO_DESCRIPTORS), None),
        ("bare_no_route", Protocol.TCP, Reply(ReplyKind.RETRY, error=RetryReason.BARE_NO_ROUTE), None),
        ("unknown", Protocol.UDP, Reply(ReplyKind.ERROR, error="bogus-word of some kind"), "unknown_words"),
    ],
)
def test_faulty_answers(fault, protocol, expected, counted):
    """Each way an answer can be no answer gets its own word, and the probes around it are untouched."""
    prober, clock, recorder = ready(**{f"every_{fault}": 3})
    prepared = prober.prepare(kind(protocol))
    for ticket in range(1, 7):
        prober.send(prepared, 1, None, ticket)
    clock.run(0.1)
    replies = recorder.by_ticket()
    assert {3: expected, 6: expected} == {ticket: replies[ticket] for ticket in (3, 6)}
    assert {Reply(ReplyKind.TTL_EXPIRED, "192.0.2.1", 1000)} == {replies[ticket] for ticket in (1, 2, 4, 5)}
    if counted:
        assert prober.counters[counted] == 2


def test_a_reset_is_the_target_with_our_own_rtt():
    """A TCP reset that mtr-packet calls an unexpected error is the target's answer, timed by us."""
    prober, clock, recorder = ready(every_reset=1)
    prober.send(prober.prepare(kind(Protocol.TCP)), 9, None, "t")
    clock.run(0.1, step=0.001)
    reply = recorder.by_ticket()["t"]
    assert reply[:2] == (ReplyKind.REPLY, "192.0.2.200")
    assert 1000 <= reply.rtt_us <= 2000


@pytest.mark.parametrize("step", [3600.0, -3600.0, 0.5, -0.5])
def test_no_rtt_spans_a_step_of_the_wall_clock(step):
    """A probe in flight at a step has no RTT, however plausible the printed one; the next probe has."""
    prober, clock, recorder = ready()
    clock.child.fake.faults.slow_s = 0.05
    prepared = prober.prepare(kind())
    prober.send(prepared, 1, None, "across")
    clock.run(0.02)
    clock.wall_offset_s += step
    clock.run(0.05)
    prober.send(prepared, 1, None, "after")
    clock.run(0.1)
    assert {
        "across": Reply(ReplyKind.TTL_EXPIRED, "192.0.2.1", None, (), "clock_anomaly"),
        "after": Reply(ReplyKind.TTL_EXPIRED, "192.0.2.1", 1000),
    } == recorder.by_ticket()
    assert prober.counters["clock_anomalies"] == 1


@pytest.mark.parametrize("shift", [-5000, 10_000_000, -694_967_296])
def test_impossible_rtts_are_withheld(shift):
    """A negative RTT, or one longer than the wait for it, is not published."""
    prober, clock, recorder = ready()
    clock.child.fake.faults.rtt_shift_us = shift
    prober.send(prober.prepare(kind()), 1, None, "t")
    clock.run(0.1)
    assert Reply(ReplyKind.TTL_EXPIRED, "192.0.2.1", None, (), "clock_anomaly") == recorder.by_ticket()["t"]


# --- proof of life -----------------------------------------------------------------------------------------------


def test_proof_of_life_takes_two_heartbeats_and_vouches_for_the_first():
    """`on_alive` follows the answer to a second heartbeat and names when the first was written."""
    prober, clock, recorder = ready()
    beats = sum(b"version" in line for line in clock.child.fake.commands)
    asked = clock.seconds()
    prober.confirm()
    assert recorder.alive == []
    clock.run(0.01)
    assert [asked] == recorder.alive
    assert sum(b"version" in line for line in clock.child.fake.commands) - beats == 2


def test_replies_come_before_the_proof():
    """Everything answered before the first heartbeat is delivered before `on_alive`."""
    prober, clock, recorder = ready(rtt_s=0.0)
    prober.send(prober.prepare(kind()), 1, None, "t")
    prober.confirm()
    clock.run(0.01)
    assert recorder.log.index("reply") < recorder.log.index("alive")


def test_no_proof_for_what_has_not_left():
    """Heartbeats overtake probes that wait for a busy pipe, and prove nothing about them; when one leaves is told."""
    prober, clock, recorder = ready()
    prepared = prober.prepare(kind())
    process, pipe = prober._process, clock.child
    producer, pipe._producer = pipe._producer, None
    for ticket in range(40):
        prober.send(prepared, 1, None, ticket)
    sent_at = clock.seconds()
    for _ in range(3):
        clock.run(0.5)
        prober.confirm()
        process.resumeProducing()  # only eight leave, the heartbeat among them
    clock.run(0.01)
    assert [sent_at] == list(dict.fromkeys(recorder.alive))
    assert list(range(8, 29)) == [ticket for ticket, _ in recorder.late]
    assert [0.5, 1.0, 1.5] == sorted({round(now - sent_at, 2) for _, now in recorder.late})
    pipe._producer = producer
    prober.confirm()
    process.resumeProducing()
    clock.run(0.1)
    assert max(recorder.alive) > sent_at + 1


def test_confirmations_are_folded():
    """Many calls give few heartbeats, one under way at a time, and each call is vouched for in the end."""
    prober, clock, recorder = ready()
    beats = sum(b"version" in line for line in clock.child.fake.commands)
    for _ in range(100):
        prober.confirm()
    clock.advance(0)
    first = clock.seconds()
    clock.run(0.02)
    assert [first] == recorder.alive
    child = clock.child
    child.stopped = True  # nothing is answered for a moment
    prober.confirm()
    clock.run(0.3)
    later = clock.seconds()
    for _ in range(100):
        prober.confirm()
    child.stopped = False
    child._schedule()
    clock.run(0.1)
    assert recorder.alive[-1] >= later
    assert sum(b"version" in line for line in child.fake.commands) - beats <= 6


def test_a_confirmation_asked_from_the_proof_starts_another():
    """Asking again from inside `on_alive` works."""
    prober, clock, recorder = ready()
    original = recorder.on_alive

    class Again:
        on_reply, on_turn = recorder.on_reply, recorder.on_turn

        def on_alive(self, prober, asked_at):
            original(prober, asked_at)
            if len(recorder.alive) < 3:
                prober.confirm()

    prober.listener = Again()
    prober.confirm()
    clock.run(0.1)
    assert len(recorder.alive) == 3


def test_an_idle_process_is_heartbeated():
    """About once a second, whether or not anybody asks; nobody is told."""
    _prober, clock, recorder = ready()
    before = sum(b"version" in line for line in clock.child.fake.commands)
    clock.run(10)
    assert 6 <= sum(b"version" in line for line in clock.child.fake.commands) - before <= 10
    assert recorder.log == []


# --- watchdog ----------------------------------------------------------------------------------------------------


def test_a_process_that_stops_is_killed_and_replaced():
    """Unanswered heartbeats for 2 s end the process; its probes come back once, and a new one is ready."""
    prober, clock, recorder = ready()
    prepared = prober.prepare(kind(timeout_s=10))
    old = clock.child
    old.stopped = True
    for ticket in range(20):
        prober.send(prepared, 1, None, ticket)
    started = clock.seconds()
    clock.run(4)
    assert old.signals == ["KILL"]
    assert {DIED} == set(recorder.by_ticket().values())
    assert len(recorder.replies) == 20
    assert clock.spawn_times[-1] - started <= 1 + 2 + 0.6
    assert prober.unready_reason is None
    assert (prober.counters["watchdog_kills"], prober.counters["restarts"]) == (1, 1)


def test_a_probe_overdue_by_two_seconds_ends_the_process():
    """A process that lives but forgets a probe is no good: 2 s after the probe's timeout it is replaced."""
    prober, clock, recorder = ready(every_lost=2)
    prepared = prober.prepare(kind(timeout_s=1))
    prober.send(prepared, 1, None, "answered")
    prober.send(prepared, 1, None, "forgotten")
    clock.run(2.9)
    assert len(clock.spawned) == 1
    clock.run(1.2)
    assert len(clock.spawned) == 2
    assert recorder.by_ticket()["forgotten"] == DIED


def test_our_own_slowness_kills_nobody():
    """If our loop stood still for longer than the limits, what lies in the pipe is read before anyone is judged."""
    prober, clock, recorder = ready()
    prober.confirm()
    prober.send(prober.prepare(kind(timeout_s=1)), 1, None, "t")
    child = clock.child
    clock.rightNow += 10  # nothing ran for ten seconds
    clock.advance(0)
    clock.run(1)
    assert child.signals == []
    assert len(clock.spawned) == 1
    assert list(recorder.by_ticket()) == ["t"]


def test_a_full_pipe_is_noticed():
    """If the child stops reading, nothing is written past what the pipe holds, and the watchdog ends it."""
    prober, clock, recorder = ready()
    child = clock.child
    child.stopped = True
    before = len(child.writes)
    prepared = prober.prepare(kind())
    for ticket in range(500):
        prober.send(prepared, 1, None, ticket)
    clock.run(4)
    assert before == len(child.writes)
    assert len(child._buffer) <= 8 * 200
    assert child.signals == ["KILL"]
    assert set(range(500)) == set(recorder.by_ticket())


# --- death -------------------------------------------------------------------------------------------------------


def test_a_death_gives_every_probe_back_once():
    """In flight or still queued, each comes back as RETRY/DIED exactly once, after the prober is unready."""
    prober, clock, recorder = ready()
    seen = []
    recorder.then = lambda prober: seen.append(prober.capabilities)
    prepared = prober.prepare(kind(timeout_s=2))
    for ticket in range(40):
        prober.send(prepared, 2, None, ticket)
    clock.advance(0)
    clock.child.exit(None, 9)
    clock.run(3)
    assert {DIED} == set(recorder.by_ticket().values())
    assert len(recorder.replies) == 40
    assert prober.counters["died"] == 40
    assert seen[0] is None


def test_late_words_of_a_dead_process_are_harmless():
    """Output of a past generation never reaches the probes of the present one."""
    prober, clock, recorder = ready()
    prepared = prober.prepare(kind(timeout_s=5))
    old = clock.child.protocol
    clock.child.exit(None, 11)
    clock.run(0.05)
    assert len(clock.spawned) == 2
    prober.send(prepared, 2, None, "new")
    clock.run(0.01)
    (token,) = prober._process._in_flight
    old.outReceived(b"%d reply ip-4 192.0.2.77 round-trip-time 10\n" % token)
    assert recorder.replies == []


def test_a_listener_that_fails_spoils_nothing():
    """An exception from a listener is logged; every other probe of the same read is still delivered."""
    prober, clock, recorder = ready()
    original = recorder.on_reply

    class Clumsy:
        on_turn, on_alive = recorder.on_turn, recorder.on_alive

        def on_reply(self, ticket, reply, sent_at, now):
            original(ticket, reply, sent_at, now)
            raise RuntimeError(ticket)

    prober.listener = Clumsy()
    prepared = prober.prepare(kind())
    for ticket in range(5):
        prober.send(prepared, 1, None, ticket)
    clock.run(0.1)
    assert set(range(5)) == set(recorder.by_ticket())


def test_what_cannot_be_sent_is_refused_at_once():
    """A TTL or source port out of bounds raises from `send`, and nothing is left behind."""
    prober, clock, recorder = ready()
    prepared = prober.prepare(kind())
    for ttl, source_port in ((0, None), (256, None), (1, 2000)):
        with pytest.raises(ValueError, match=r".+"):
            prober.send(prepared, ttl, source_port, "t")
    clock.run(1)
    assert recorder.replies == []
    with pytest.raises(ValueError, match="isn't ipv4"):
        prober.prepare(kind(address="2001:db8::9", source="2001:db8::1"))
