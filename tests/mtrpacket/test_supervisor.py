"""A family's prober over a succession of processes: self-tests, backoff, breaker, stopping; on a virtual clock."""

import pytest
from twisted.logger import globalLogPublisher

from fakes import NO_PID, FakeMtr, Faults, ProcessClock, Recorder, supervised
from tracerouted.model import Capabilities, Family, Protocol, Reply, ReplyKind, RetryReason
from tracerouted.mtrpacket import find_binary
from tracerouted.mtrpacket.selftest import slots
from tracerouted.probing.prober import ProbeKind

DIED = Reply(ReplyKind.RETRY, error=RetryReason.DIED)
KIND = ProbeKind(Protocol.ICMP, "192.0.2.200", "198.51.100.7", None, 64, 0, 1)


@pytest.fixture
def logged():
    """What is logged during a test."""
    events = []
    globalLogPublisher.addObserver(events.append)
    yield events
    globalLogPublisher.removeObserver(events.append)


def start(make=FakeMtr, family=Family.IPV4, **options):
    """A prober that was just started."""
    clock = ProcessClock(make)
    prober, recorder = supervised(clock, family, **options)
    fired = []
    prober.start().addCallback(lambda _: fired.append(clock.seconds()))
    return prober, clock, recorder, fired


def faulty(**faults):
    """Makes children with these faults."""
    return lambda: FakeMtr(faults=Faults(**faults))


def test_ready_after_a_good_self_test():
    """The child is limited and tested before anybody may use it; then its capabilities are known."""
    prober, clock, recorder, fired = start()
    assert (prober.capabilities, fired, clock.limited) == (None, [], [NO_PID])
    clock.run(0.01)
    protocols = frozenset({Protocol.ICMP, Protocol.UDP, Protocol.TCP})
    assert Capabilities("0.95", protocols, True, 1000) == prober.capabilities
    assert prober.unready_reason is None
    assert len(fired) == 1
    assert recorder.turns == [(True, None)]
    assert clock.spawn_arguments == [("/fake/mtr-packet", ["/fake/mtr-packet"], {"LC_ALL": "C"}, None)]


def test_nothing_but_questions_and_loopback_leaves_unasked():
    """A self-test and idling send probes to the loopback address only."""
    prober, clock, _, _ = start()
    clock.run(130, step=0.1)
    assert prober.unready_reason is None
    probes = [line for line in clock.child.fake.commands if b"send-probe" in line]
    assert probes
    assert all(b"ip-4 127.0.0.1 local-ip-4 127.0.0.1 " in line for line in probes)


@pytest.mark.parametrize(
    ("version", "expected"),
    [("0.95", 1000), ("0.95.17-b5f2", 1000), ("0.96", 4000), ("0.96.60-ab", 4000), ("1.0", 4000), ("?", 1000)],
)
def test_slots_by_version(version, expected):
    """mtr-packet holds 1024 probes before 0.96 and 10240 since; an unknown version is trusted with little."""
    assert expected == slots(version)


def test_constant_flow_is_found_out_by_trying():
    """Where probes with a local port are lost, the family is ready without constant-flow UDP."""
    prober, clock, _, fired = start(faulty(flow_broken=True), Family.IPV6)
    clock.run(0.5)
    assert prober.capabilities is None
    clock.run(1)
    assert prober.capabilities is not None
    assert not prober.capabilities.constant_flow_udp
    assert len(fired) == 1
    clock.child.exit(None, 9)
    clock.run(0.05)  # known by now: the successor is ready at once
    assert prober.capabilities is not None
    assert not prober.capabilities.constant_flow_udp


def test_without_raw_sockets_the_family_is_not_ready_and_says_what_to_do(logged):
    """The datagram mode that claims everything and lies is found out within 5 s, and the log says what to do."""
    prober, clock, recorder, fired = start(faulty(datagram=True))
    clock.run(5)
    assert prober.capabilities is None
    assert "setcap cap_net_raw+ep" in prober.unready_reason
    assert len(fired) == 1
    assert recorder.turns == []  # it never was ready
    (event,) = [e for e in logged if "setcap" in str(e.get("reason")) and "log_failure" not in e and "delay" not in e]
    assert event["family"] == "ipv4"
    assert clock.child.reaped


def test_raw_sockets_given_later_are_found():
    """A failed self-test is repeated with a new process, at a slow pace."""
    lacking = [True]
    prober, clock, _, _ = start(lambda: FakeMtr(faults=Faults(datagram=lacking[0])))
    clock.run(60, step=0.1)
    assert 3 <= len(clock.spawned) <= 6
    lacking[0] = False
    clock.run(20, step=0.1)
    assert prober.unready_reason is None


def test_a_host_without_the_family_is_not_ready_and_says_why():
    """Where the loopback address cannot be probed, the reason names it."""
    prober, clock, _, fired = start(faulty(no_loopback=True), Family.IPV6)
    clock.run(1)
    assert "cannot probe ::1 (address-not-available)" in prober.unready_reason
    assert len(fired) == 1


def test_a_lost_canary_is_forgiven():
    """One failed round of a repeated self-test changes nothing; two in a row do."""
    prober, clock, recorder, _ = start()
    clock.run(59.5, step=0.1)
    faults = clock.child.fake.faults
    faults.datagram = True
    clock.run(1, step=0.1)
    faults.datagram = False
    clock.run(5, step=0.1)
    assert recorder.turns == [(True, None)]
    faults.datagram = True
    clock.run(65, step=0.1)
    assert prober.capabilities is None
    assert prober.counters["failed_tests"] == 1


@pytest.mark.parametrize("error", [FileNotFoundError("no such file"), PermissionError("not yours")])
def test_a_binary_that_cannot_be_run(error):
    """A spawn that is refused leaves the family unready with the words, and is tried again later."""

    def refuse():
        raise error

    prober, clock, _, fired = start(refuse)
    assert len(fired) == 1
    assert f"mtr-packet cannot be started: {error}" == prober.unready_reason
    clock.make = FakeMtr
    clock.run(16, step=0.1)
    assert prober.unready_reason is None
    assert prober.counters["restarts"] == 1


def test_a_spawn_that_fails_for_the_moment_is_tried_again_soon():
    """Out of processes or descriptors: the same backoff as after a death."""
    refusals = [OSError(11, "try again"), OSError(24, "too many files")]

    def make():
        if refusals:
            raise refusals.pop()
        return FakeMtr()

    prober, clock, _, fired = start(make)
    clock.run(0.2)
    assert prober.unready_reason is None
    assert len(fired) == 1


def test_an_exit_at_spawn_gives_its_last_words():
    """The reason holds the exit code and the end of what the child said on stderr."""
    prober, clock, _, fired = start(faulty(exit_at_spawn=7, stderr="first\nselect: Bad file descriptor\n"))
    clock.run(0.05)
    assert prober.unready_reason == "it exited with 7: select: Bad file descriptor"
    assert len(fired) == 1


def test_an_exit_for_lack_of_rights_says_what_to_do():
    """Where mtr-packet may open no socket at all, the reason says what it needs, and haste is saved."""
    prober, clock, _, _ = start(faulty(exit_at_spawn=1, stderr="Failure to open IPv6 sockets: Permission denied\n"))
    clock.run(10, step=0.1)
    assert "Permission denied. Give it CAP_NET_RAW" in prober.unready_reason
    assert len(clock.spawned) == 1


def test_a_file_capability_that_cannot_be_passed_on_says_what_to_do():
    """A container without the capability refuses to run the binary at all: the reason says what it needs."""

    def refuse():
        raise PermissionError(1, "Operation not permitted")

    prober, _, _, _ = start(refuse)
    assert "Operation not permitted. Give it CAP_NET_RAW" in prober.unready_reason


def test_backoff_between_deaths_of_the_untested():
    """Deaths before a good self-test are followed by waits of 0, .1, .5, 1, 2, 5, 5 s."""
    prober, clock, _, _ = start(faulty(exit_at_spawn=1), pace=None)
    clock.run(16, step=0.01)
    waits = [later - earlier for earlier, later in zip(clock.spawn_times, clock.spawn_times[1:], strict=False)]
    assert pytest.approx([0, 0.1, 0.5, 1, 2, 5, 5], abs=0.03) == waits[:7]
    assert prober.unready_reason is not None


def test_five_deaths_in_thirty_seconds_open_the_breaker_and_one_good_test_closes_it():
    """Deaths of tested processes are followed at once by a successor, until there are too many of them."""
    prober, clock, _recorder, _ = start()
    clock.run(0.05)
    for _ in range(4):
        clock.child.exit(None, 11)
        clock.run(0.05)
        assert prober.unready_reason is None
    clock.child.exit(None, 11)
    clock.run(0.05)
    assert prober.breaker_open
    assert prober.unready_reason == "mtr-packet died 5 times in 30 s; lastly it died of signal 11"
    spawned = len(clock.spawned)
    clock.run(0.6)
    assert spawned == len(clock.spawned)
    clock.run(0.3)
    assert spawned + 1 == len(clock.spawned)
    assert not prober.breaker_open
    assert prober.unready_reason is None
    clock.child.exit(None, 11)
    clock.run(0.05)
    assert prober.unready_reason is None  # the count began anew


def test_deaths_far_apart_open_nothing():
    """Five deaths in more than 30 s are ordinary."""
    prober, clock, _, _ = start()
    for _ in range(6):
        clock.run(8, step=0.1)
        clock.child.exit(None, 11)
    clock.run(0.1)
    assert not prober.breaker_open
    assert prober.unready_reason is None


def test_ready_again_within_a_second_of_the_last_kill():
    """Kills every 200 ms for a minute, breaker or not: ready at most 1 s after the last, no ticket lost."""
    prober, clock, recorder, _ = start()
    sent = 0
    for _ in range(300):
        clock.run(0.2)
        if prober.capabilities is not None:
            prepared = prober.prepare(KIND)
            for ttl in (1, 2, 4):
                prober.send(prepared, ttl, None, sent)
                sent += 1
        if not clock.child.reaped:
            clock.child.exit(None, 9)
    clock.run(1)
    assert prober.unready_reason is None
    assert sent > 100
    assert set(range(sent)) == set(recorder.by_ticket())


def test_a_successor_is_spawned_only_after_the_reaping():
    """A killed process that will not die keeps its successor waiting (the fake reactor checks each spawn)."""
    prober, clock, _, _ = start()
    clock.run(0.05)
    clock.child.unkillable = True
    clock.child.stopped = True
    clock.run(30, step=0.1)
    assert len(clock.spawned) == 1
    clock.child.unkillable = False
    clock.run(1)
    assert len(clock.spawned) == 2
    assert prober.unready_reason is None


def test_sending_while_unready_gives_the_probe_back_later():
    """Tickets sent with no process come back as RETRY/DIED in a later turn, never inside `send`."""
    prober, clock, recorder, _ = start(faulty(exit_at_spawn=1))
    prepared = prober.prepare(KIND)
    for ticket in range(3):
        prober.send(prepared, 1, None, ticket)
    assert recorder.replies == []
    clock.advance(0)
    assert recorder.by_ticket() == {0: DIED, 1: DIED, 2: DIED}


def test_readiness_is_announced():
    """`on_turn` is called when the prober becomes ready and when it becomes unready."""
    _prober, clock, recorder, _ = start()
    clock.run(0.05)
    clock.child.exit(None, 9)
    clock.run(0.05)
    assert recorder.turns == [(True, None), (False, "it died of signal 9"), (True, None)]


def test_a_listener_may_come_later():
    """Without a listener replies go nowhere; one set later hears what follows."""
    prober, clock, _, _ = start(listener=None)
    clock.run(0.05)
    prober.send(prober.prepare(KIND), 1, None, "unheard")
    clock.run(0.05)
    prober.listener = recorder = Recorder()
    prober.send(prober.prepare(KIND), 1, None, "heard")
    clock.run(0.05)
    assert list(recorder.by_ticket()) == ["heard"]


def test_descriptors_that_cannot_be_limited_are_reported(logged):
    """A limit that is refused is a warning, not a failure."""

    def refuse(pid):
        raise PermissionError("not permitted")

    clock = ProcessClock()
    prober, _ = supervised(clock)
    prober._limit_descriptors = refuse
    prober.start()
    clock.run(0.05)
    assert prober.unready_reason is None
    assert any(event.get("error") == "not permitted" for event in logged)


def spent(child) -> int:
    """How many sequence numbers a child was made to use up before its first question."""
    lines = child.fake.commands
    return next(number for number, line in enumerate(lines) if b" send-probe ip-" not in line or line[-2:] != b" x")


def test_the_families_use_different_sequence_numbers():
    """The IPv6 process begins half the numbers away, so that equally busy processes steal nothing of each other's."""
    prober, clock, _recorder, _ = start(family=Family.IPV6)
    clock.run(2)
    assert prober.unready_reason is None
    assert spent(clock.child) == 16_000
    clock.child.exit(None, 9)
    clock.run(2)
    assert 16_000 < spent(clock.child) < 16_300


def test_a_successor_leaves_the_sequence_numbers_of_the_dead_alone():
    """Late answers to a dead process's probes find no probe of the same number; not done when none can come."""
    prober, clock, _recorder, _ = start()
    clock.run(0.05)
    assert spent(clock.child) == 0
    prepared = prober.prepare(KIND)
    for ticket in range(500):
        prober.send(prepared, 2, None, ticket)
    clock.run(0.05)
    used = clock.child.fake.probes + 4  # and the canaries
    clock.child.exit(None, 9)
    clock.run(0.05)
    assert used <= spent(clock.child) <= used + 200
    assert prober.unready_reason is None
    assert prober.counters["unmatched"] == prober.counters["unknown_words"] == 0
    again = clock.child
    again.exit(None, 9)
    clock.run(0.05)
    assert spent(clock.child) > spent(again)
    clock.child.fake.faults.datagram = True  # ends it at its next test, and nothing is tried for 15 s
    clock.run(90, step=0.1)
    assert spent(clock.child) == 0


def test_stopping_reaps_the_child_and_gives_its_probes_back():
    """`stop` fires when the child is reaped; probes in flight come back; nothing runs on and nothing is spawned."""
    prober, clock, recorder, _ = start()
    clock.run(0.05)
    prober.send(prober.prepare(KIND), 2, None, "t")
    clock.run(0.01)
    fired = []
    prober.stop().addCallback(lambda _: fired.append(1))
    prober.stop().addCallback(lambda _: fired.append(2))
    assert fired == []
    clock.run(0.01)
    assert fired == [1, 2]
    assert clock.child.signals == ["TERM"]
    assert recorder.by_ticket()["t"] == DIED
    prober.stop().addCallback(lambda _: fired.append(3))
    assert fired == [1, 2, 3]
    clock.run(60, step=0.1)
    assert len(clock.spawned) == 1
    assert clock.getDelayedCalls() == []


def test_stopping_a_child_that_ignores_sigterm():
    """SIGKILL follows a second later."""
    prober, clock, _, _ = start()
    clock.run(0.05)
    clock.child.stopped = True
    fired = []
    prober.stop().addCallback(fired.append)
    clock.run(1.1)
    assert clock.child.signals == ["TERM", "KILL"]
    assert fired == [None]


@pytest.mark.parametrize("moment", [0, 0.05])
def test_stopping_while_there_is_no_child(moment):
    """Before the first start, and between two processes, stopping is done at once."""
    prober, clock, _, _ = start(faulty(exit_at_spawn=1))
    clock.run(0.15)
    assert clock.child.reaped
    fired = []
    prober.stop().addCallback(fired.append)
    assert fired == [None]
    assert clock.getDelayedCalls() == []


def test_stopping_during_the_first_self_test_ends_the_wait_for_it():
    """`start`'s Deferred fires even if the prober is stopped first."""
    prober, clock, _, fired = start(faulty(hang_at_read=1))
    clock.run(0.05)
    prober.stop()
    clock.run(1.2)
    assert len(fired) == 1
    assert clock.getDelayedCalls() == []


def test_every_restart_is_logged(logged):
    """A death is logged with the family, the reason, and when the next process will be started."""
    _prober, clock, _, _ = start()
    clock.run(0.05)
    clock.child.exit(None, 9)
    clock.run(0.05)
    (event,) = [event for event in logged if "delay" in event]
    assert (event["family"], event["reason"], event["delay"]) == ("ipv4", "it died of signal 9", 0.0)


def test_finding_the_binary(tmp_path, monkeypatch):
    """An explicit path wins and must be executable; else PATH is searched, then the sbin directories."""
    binary = tmp_path / "mtr-packet"
    with pytest.raises(FileNotFoundError, match="doesn't exist"):
        find_binary(str(binary))
    binary.write_text("#!/bin/sh\n")
    binary.chmod(0o755)
    assert str(binary) == find_binary(str(binary))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert str(binary) == find_binary()
    monkeypatch.setattr("tracerouted.mtrpacket.binary.SBIN", ())
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    with pytest.raises(FileNotFoundError, match="isn't in"):
        find_binary()
