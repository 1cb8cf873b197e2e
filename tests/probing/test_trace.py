"""The trace machine on virtual time, scenario by scenario."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracerouted.model import HopRateLimited, MplsLabel, Outcome, Protocol, Reply, ReplyKind, StopReason, TraceRequest
from virtual import TARGET, Drive, addresses, expired, line, reply, router


def request(**fields: object) -> TraceRequest:
    return TraceRequest(target=TARGET, **{"probes": 1, **fields})  # type: ignore[arg-type]


def routers(length: int, silent: tuple[int, ...] = ()) -> list[str | None]:
    """What a line of this length must show."""
    return [None if ttl in silent else router(ttl) for ttl in range(1, length)] + [TARGET]


# --- time and probes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rtt", [0.005, 0.1])
def test_one_rtt(rtt: float) -> None:
    """An answering path of 12 hops costs its RTT and a millisecond per hop, not the sum of all RTTs."""
    drive = Drive(request(), line(12, rtt))
    trace = drive.run()
    assert routers(12) == addresses(trace)
    assert StopReason.REACHED is trace.stop_reason
    assert drive.now <= 12 * rtt + 0.015


def test_three_probes_cost_little_more() -> None:
    """Three probes per hop finish within 2.2 RTTs and 120 ms."""
    drive = Drive(request(probes=3), line(12, 0.1))
    trace = drive.run()
    assert [3] * 12 == [hop.stats.received for hop in trace.hops]
    assert drive.now <= 2.2 * 1.2 + 0.12


def test_silent_hops_in_the_middle() -> None:
    """Five silent hops of 14 do not cost their timeouts: what answered later tells how long to wait."""
    silent = (3, 4, 7, 10, 11)
    drive = Drive(request(), line(14, 0.005, silent))
    trace = drive.run()
    assert routers(14, silent) == addresses(trace)
    assert [1 if ttl in silent else 0 for ttl in range(1, 15)] == [hop.stats.lost for hop in trace.hops]
    assert drive.now <= 3 * 14 * 0.005 + 0.35


def test_silent_end() -> None:
    """A path that ends in silence ends at the gap limit, one timeout after it was probed."""
    drive = Drive(request(), line(20, 0.005, silent=tuple(range(7, 20)), reachable=False))
    trace = drive.run()
    assert StopReason.GAP_LIMIT is trace.stop_reason
    assert [router(ttl) for ttl in range(1, 7)] + [None] * 8 == addresses(trace)
    assert drive.now <= 2.4


def test_first_pass_is_paced() -> None:
    """Never more than three probes leave within one millisecond."""
    drive = Drive(request(probes=3), line(12))
    drive.run()
    times = [time for time, _, _ in drive.sent]
    assert all(later - earlier >= 0.001 for earlier, later in zip(times, times[3:], strict=False))


def test_interval_is_kept() -> None:
    """Probes to one hop are at least interval_ms apart."""
    drive = Drive(request(probes=4, interval_ms=80), line(6))
    drive.run()
    for ttl in range(1, 7):
        times = [time for time, sent_to, _ in drive.sent if sent_to == ttl]
        assert all(later - earlier >= 0.0799 for earlier, later in itertools.pairwise(times))


def test_interval_is_kept_between_flows() -> None:
    """A hop does not get more probes at once because there are many flows."""
    drive = Drive(request(protocol=Protocol.UDP, flows=4, probes=2), line(5))
    drive.run()
    for ttl in range(1, 5):
        times = [time for time, sent_to, _ in drive.sent if sent_to == ttl]
        assert 8 == len(times)
        assert all(later - earlier >= 0.0499 for earlier, later in itertools.pairwise(times))


def test_nothing_goes_beyond_the_target_once_it_is_known() -> None:
    """After the first answer of the target no probe has a higher TTL."""
    drive = Drive(request(probes=3), line(5, 0.01))
    drive.run()
    assert [] == [ttl for time, ttl, _ in drive.sent if time > 0.0505 and ttl > 5]


def test_the_window_grows_with_the_answers() -> None:
    """No more than 16 TTLs are probed ahead of any answer, and all of a long path in the end."""
    drive = Drive(request(), line(28, 0.03))
    trace = drive.run()
    assert 28 == len(trace.hops)
    assert 16 == max(ttl for time, ttl, _ in drive.sent if time < 0.03 and ttl != 64)


def test_a_remembered_length_is_used() -> None:
    """With the path's length remembered nothing is sent beyond it but the scout, and it costs one RTT."""
    drive = Drive(request(), line(22, 0.01), expected_length=22)
    trace = drive.run()
    assert 22 == len(trace.hops)
    assert [64] == [ttl for _, ttl, _ in drive.sent if ttl > 22]
    assert drive.now <= 22 * 0.01 + 0.025


@pytest.mark.parametrize("rtt", [0.0001, 0.01])
@pytest.mark.parametrize("length", [1, 4, 11, 13, 20, 30])
def test_a_remembered_length_may_be_wrong(length: int, rtt: float) -> None:
    """A path that has become shorter or longer than remembered is still found whole."""
    trace = Drive(request(), line(length, rtt), expected_length=12).run()
    assert routers(length) == addresses(trace)


def test_no_scout_for_a_short_max_ttl() -> None:
    """Who asks for a few TTLs gets no probe beyond them."""
    drive = Drive(request(max_ttl=5), line(12))
    trace = drive.run()
    assert 5 == max(ttl for _, ttl, _ in drive.sent)
    assert StopReason.MAX_TTL is trace.stop_reason
    assert [router(ttl) for ttl in range(1, 6)] == addresses(trace)


def test_first_ttl() -> None:
    """Hops below first_ttl are neither probed nor shown."""
    drive = Drive(request(first_ttl=4), line(9))
    trace = drive.run()
    assert list(range(4, 10)) == [hop.ttl for hop in trace.hops]
    assert 4 == min(ttl for _, ttl, _ in drive.sent)


def test_deadline() -> None:
    """The deadline ends a trace with the hops it has; probes under way stay pending."""
    drive = Drive(request(probes=100), line(5, 0.01), deadline=1.0)
    trace = drive.run()
    assert StopReason.DEADLINE is trace.stop_reason
    assert 1.0 == drive.now
    assert routers(5) == addresses(trace)
    assert [0] * 5 == [hop.stats.lost for hop in trace.hops]


# --- the end -------------------------------------------------------------------------------------------------


def test_surplus_answers_are_the_targets_samples() -> None:
    """What the target says to higher TTLs counts at its own hop instead of further probes."""
    drive = Drive(request(probes=3), line(10, 0.01))
    trace = drive.run()
    assert [1] == [1 for _, ttl, _ in drive.sent if ttl == 10]
    assert 3 == trace.hops[-1].stats.received
    assert {Outcome.REPLY} == {probe.outcome for probe in trace.hops[-1].probes}


def test_surplus_probes_count_whether_answered_or_not() -> None:
    """Which of the probes that went too far count at the target does not depend on their fate: no loss is hidden."""

    def answer(probe, earlier):  # type: ignore[no-untyped-def]
        return None if probe.ttl in (11, 13) else line(10, 0.01)(probe, earlier)

    drive = Drive(request(probes=3), answer)
    last = drive.run().hops[-1]
    assert (3, 2, 1) == (last.stats.sent, last.stats.received, last.stats.lost)
    assert [10] == [ttl for _, ttl, _ in drive.sent if ttl == 10]


def test_a_surplus_answer_that_comes_late_restores_the_target() -> None:
    """A probe that went too far and was called lost at the target is received when its answer comes."""

    def answer(probe, earlier):  # type: ignore[no-untyped-def]
        if probe.ttl == 6:
            return reply(0.9)
        return line(5, 0.01)(probe, earlier)

    drive = Drive(request(probes=20, interval_ms=60), answer)
    last = drive.run().hops[-1]
    assert (20, 0) == (last.stats.received, last.stats.lost)


def test_answers_out_of_order() -> None:
    """A hop beyond the target, shown because its answer came first, is withdrawn when the target is found."""

    def answer(probe, earlier):  # type: ignore[no-untyped-def]
        if probe.ttl >= 5:
            return reply({5: 0.08, 6: 0.03}.get(probe.ttl, 0.05))
        return expired(router(probe.ttl), 0.01)

    trace = Drive(request(probes=2), answer).run()
    assert routers(5) == addresses(trace)
    assert 2 == trace.hops[-1].stats.received


def test_unreachable_ends_there() -> None:
    """A router that says unreachable ends the path, whatever lies behind, and is shown."""

    def answer(probe, earlier):  # type: ignore[no-untyped-def]
        if probe.ttl >= 4:
            return 0.02, Reply(ReplyKind.UNREACHABLE, router(4), 20_000)
        return expired(router(probe.ttl), 0.01)

    trace = Drive(request(probes=3), answer).run()
    assert StopReason.UNREACHABLE is trace.stop_reason
    assert not trace.reached
    assert [router(ttl) for ttl in range(1, 5)] == addresses(trace)
    assert {Outcome.UNREACHABLE} == {probe.outcome for probe in trace.hops[-1].probes}
    assert 3 == trace.hops[-1].stats.received


def test_a_reply_from_elsewhere_is_no_arrival() -> None:
    """A port unreachable from a router must never look like the target (mtr#234)."""

    def answer(probe, earlier):  # type: ignore[no-untyped-def]
        if probe.ttl >= 4:
            return reply(0.02, router(4))
        return expired(router(probe.ttl), 0.01)

    trace = Drive(request(), answer).run()
    assert StopReason.UNREACHABLE is trace.stop_reason
    assert Outcome.UNREACHABLE is trace.hops[-1].probes[0].outcome


def test_a_single_unreachable_is_disproved() -> None:
    """One rejection in the middle does not hide the path behind it."""

    def answer(probe, earlier):  # type: ignore[no-untyped-def]
        if probe.ttl == 3 and not earlier:
            return 0.005, Reply(ReplyKind.UNREACHABLE, router(3), 5_000)
        return line(8, 0.01)(probe, earlier)

    trace = Drive(request(probes=3), answer).run()
    assert routers(8) == addresses(trace)
    assert StopReason.REACHED is trace.stop_reason
    assert [3] * 8 == [hop.stats.received for hop in trace.hops]


def test_the_targets_address_in_the_middle() -> None:
    """A router that answers with the target's address does not cut the route short."""

    def answer(probe, earlier):  # type: ignore[no-untyped-def]
        if probe.ttl == 3:
            return expired(TARGET, 0.004)
        return line(8, 0.01)(probe, earlier)

    for probes in (1, 3):
        trace = Drive(request(probes=probes), answer).run()
        assert [router(1), router(2), TARGET, *(router(ttl) for ttl in range(4, 8)), TARGET] == addresses(trace)


def test_the_target_may_say_expired() -> None:
    """A target that answers only "time exceeded" is reached all the same."""

    def answer(probe, earlier):  # type: ignore[no-untyped-def]
        return expired(TARGET if probe.ttl >= 6 else router(probe.ttl), probe.ttl * 0.002)

    trace = Drive(request(probes=2), answer).run()
    assert StopReason.REACHED is trace.stop_reason
    assert 6 == len(trace.hops)


@pytest.mark.parametrize("probes", [1, 3])
def test_an_end_that_a_router_could_disprove_is_looked_beyond(probes: int) -> None:
    """Even when answers come faster than probes leave, one TTL beyond a rejection is tried before it is believed."""

    def answer(probe, earlier):  # type: ignore[no-untyped-def]
        if probe.ttl == 3:
            return expired(TARGET, 0.0001)
        return line(8, 0.0001)(probe, earlier)

    trace = Drive(request(probes=probes), answer).run()
    assert [router(1), router(2), TARGET, *(router(ttl) for ttl in range(4, 8)), TARGET] == addresses(trace)


def test_a_rejection_beats_a_tcp_reply() -> None:
    """Over TCP a router's rejection may pass for the target's reset: once it is known for what it is, none is shown
    as the target."""

    def answer(probe, earlier):  # type: ignore[no-untyped-def]
        if probe.ttl < 4:
            return expired(router(probe.ttl), 0.01)
        if (probe.ttl + earlier) % 3 == 1:
            return reply(0.02)
        return 0.021, Reply(ReplyKind.UNREACHABLE, router(4), 21_000)

    trace = Drive(request(probes=3, protocol=Protocol.TCP), answer).run()
    assert StopReason.UNREACHABLE is trace.stop_reason
    assert [router(ttl) for ttl in range(1, 5)] == addresses(trace)
    assert [(router(4),)] == [tuple(responder.address for responder in trace.hops[-1].responders)]
    assert 3 == trace.hops[-1].stats.received


def test_long_gap_before_an_answering_target() -> None:
    """A target that answers the scout is found behind more silent hops than the gap limit."""
    silent = tuple(range(5, 19))
    drive = Drive(request(), line(19, 0.005, silent))
    trace = drive.run()
    assert routers(19, silent) == addresses(trace)
    assert drive.now < 2.0


def test_a_lone_late_hop_resets_the_gap() -> None:
    """Silent hops count only in a row: one answer between two gaps starts the count again."""
    silent = (2, 3, 4, 5, 6, 8, 9, 10, 11, 12)
    trace = Drive(request(gap_limit=6), line(13, 0.005, silent)).run()
    assert routers(13, silent) == addresses(trace)


def test_loop() -> None:
    """Routers met for the third time are a loop; the hops up to there are shown."""

    def answer(probe, earlier):  # type: ignore[no-untyped-def]
        return expired(router(probe.ttl if probe.ttl < 4 else 4 + probe.ttl % 2), 0.01)

    trace = Drive(request(), answer).run()
    assert StopReason.LOOP is trace.stop_reason
    assert 8 == len(trace.hops)


def test_adjacent_repeats_are_no_loop() -> None:
    """The same router at neighbouring TTLs, or with silence between, is no loop."""

    def answer(probe, earlier):  # type: ignore[no-untyped-def]
        if 2 <= probe.ttl <= 8:
            return None if probe.ttl in (4, 6) else expired(router(2), 0.01)
        return line(10)(probe, earlier)

    assert StopReason.REACHED is Drive(request(), answer).run().stop_reason


def test_flows_are_told_apart() -> None:
    """Each flow has its own path and length; answers and flows stay linked."""

    def answer(probe, earlier):  # type: ignore[no-untyped-def]
        flow = probe.flow.number
        length = 5 if flow % 2 else 7
        if probe.ttl >= length:
            return reply(length * 0.01)
        return expired(router(probe.ttl, flow % 2 if 1 < probe.ttl else 9), probe.ttl * 0.01)

    trace = Drive(request(protocol=Protocol.UDP, flows=4, probes=2), answer).run()
    assert StopReason.REACHED is trace.stop_reason
    assert [5, 7, 5, 7] == [len(path.addresses) for path in trace.paths]
    assert {(1, 3), (2, 4)} == {responder.flows for responder in trace.hops[2].responders}
    assert len({path.path_id for path in trace.paths}) == 2


# --- loss ----------------------------------------------------------------------------------------------------


def test_a_lost_answer_before_the_target_hides_no_hop() -> None:
    """When the target's answer to its own TTL is lost, it is not taken to be one hop farther away."""

    def answer(probe, earlier):  # type: ignore[no-untyped-def]
        return None if probe.ttl == 6 and earlier < lost else line(6, 0.01)(probe, earlier)

    for lost in (1, 2, 3):
        drive = Drive(request(), answer)
        trace = drive.run()
        assert routers(6) == addresses(trace)
        assert lost == trace.hops[-1].stats.lost
        assert drive.now < 0.8


def test_a_silent_hop_before_the_target_stays_one_probe() -> None:
    """The probes that made sure of a silent hop before the target are not shown."""
    trace = Drive(request(), line(6, 0.01, silent=(5,))).run()
    assert routers(6, (5,)) == addresses(trace)
    assert [1] * 6 == [len(hop.probes) for hop in trace.hops]


def test_loss_is_exact() -> None:
    """Exactly the unanswered probes are lost."""

    def answer(probe, earlier):  # type: ignore[no-untyped-def]
        return None if probe.ttl == 3 and earlier % 2 else line(6, 0.01)(probe, earlier)

    trace = Drive(request(probes=6), answer).run()
    assert [0, 0, 3, 0, 0, 0] == [hop.stats.lost for hop in trace.hops]
    assert [6, 6, 3, 6, 6, 6] == [hop.stats.received for hop in trace.hops]


def test_a_hop_that_loses_more_than_later_ones_is_rate_limited() -> None:
    """Loss later hops do not show is marked as the hop's own; loss of the path is not."""

    def answer(probe, earlier):  # type: ignore[no-untyped-def]
        if probe.ttl == 3 and earlier:
            return None
        if probe.ttl >= 6 and earlier % 2:
            return None
        return line(7, 0.01)(probe, earlier)

    trace = Drive(request(probes=6), answer, expected_length=7).run()
    assert [False, False, True, False, False, False, False] == [hop.rate_limited for hop in trace.hops]


def test_a_late_answer_restores_the_hop() -> None:
    """An answer after its probe was called lost makes it received."""

    def answer(probe, earlier):  # type: ignore[no-untyped-def]
        if probe.ttl == 2:
            return expired(router(2), 0.5)
        return line(5, 0.01)(probe, earlier)

    trace = Drive(request(probes=10, interval_ms=60), answer).run()
    hop = trace.hops[1]
    assert router(2) == hop.responders[0].address
    assert hop.stats.received + hop.stats.lost == 10
    assert hop.stats.received >= 1


def test_no_loss_no_rate_limit() -> None:
    """A hop whose only loss was restored by a late answer is no longer marked."""

    def answer(probe, earlier):  # type: ignore[no-untyped-def]
        if probe.ttl == 2 and not earlier:
            return expired(router(2), 0.9)
        return line(5, 0.01)(probe, earlier)

    drive = Drive(request(probes=30, interval_ms=60), answer)
    hop = drive.run().hops[1]
    assert any(isinstance(fact, HopRateLimited) and fact.rate_limited for fact in drive.facts)
    assert (0, False) == (hop.stats.lost, hop.rate_limited)


def test_an_end_disproved_late_leaves_nothing_open() -> None:
    """Probes claimed for an end that is then disproved are asked anew: the trace does not wait for its deadline."""

    def answer(probe, earlier):  # type: ignore[no-untyped-def]
        if probe.ttl == 3 and not earlier:
            return 0.005, Reply(ReplyKind.UNREACHABLE, router(3), 5_000)
        if probe.ttl >= 8:
            return reply(0.26)
        return expired(router(probe.ttl), 0.25 if probe.ttl > 3 else 0.002)

    drive = Drive(request(probes=3), answer)
    trace = drive.run()
    assert routers(8) == addresses(trace)
    assert [3] * 8 == [hop.stats.received for hop in trace.hops]
    assert drive.now < 3


def test_a_claimed_probe_given_up_early_is_sent_again() -> None:
    """A probe that went too far, counts at the target and was given up too soon goes out again like any other."""

    def answer(probe, earlier):  # type: ignore[no-untyped-def]
        return None if probe.ttl == 8 and not earlier else line(6, 0.15)(probe, earlier)

    drive = Drive(request(probes=3, protocol=Protocol.TCP), answer, impatience=1.0)
    trace = drive.run()
    assert routers(6) == addresses(trace)
    assert StopReason.REACHED is trace.stop_reason
    assert drive.now < 5


def test_a_tcp_rejection_releases_what_was_claimed() -> None:
    """When a rejection takes back what looked like the target, nothing claimed for it stays open."""

    def answer(probe, earlier):  # type: ignore[no-untyped-def]
        if probe.ttl < 4:
            return expired(router(probe.ttl), 0.06 if probe.ttl == 3 else 0.01)
        if probe.ttl == 4 and not earlier:
            return reply(0.02)
        return 0.4 if probe.ttl > 4 else 0.021, Reply(ReplyKind.UNREACHABLE, router(4), 21_000)

    drive = Drive(request(probes=3, protocol=Protocol.TCP), answer)
    trace = drive.run()
    assert StopReason.UNREACHABLE is trace.stop_reason
    assert [router(ttl) for ttl in range(1, 5)] == addresses(trace)
    assert drive.now < 5


def test_silence_is_no_loss_without_proof() -> None:
    """While the prober cannot show that it is alive, nothing is called lost."""
    drive = Drive(request(timeout_ms=300), line(4, 0.01, silent=(2,)), proof_lag=1.5)
    trace = drive.run()
    assert 1 == trace.hops[1].stats.lost
    assert drive.now >= 1.5


def test_a_death_loses_nothing() -> None:
    """Probes in flight when the prober dies are sent again and counted once."""
    drive = Drive(request(probes=2), line(8, 0.02), deaths=(0.05,))
    trace = drive.run()
    assert routers(8) == addresses(trace)
    assert [2] * 8 == [hop.stats.received for hop in trace.hops]
    assert [0] * 8 == [hop.stats.lost for hop in trace.hops]


def test_two_deaths_end_a_probe_as_an_error() -> None:
    """A probe that was in flight at two deaths is neither lost nor received."""
    drive = Drive(request(), line(8, 0.02), deaths=(0.05, 0.1))
    trace = drive.run()
    outcomes = [probe.outcome for hop in trace.hops for probe in hop.probes]
    assert Outcome.ERROR in outcomes
    assert Outcome.TIMEOUT not in outcomes


def test_a_stolen_reply_is_asked_for_again() -> None:
    """A probe whose reply was stolen goes out again and is no loss; after the sixth theft it is an error."""

    def thief(times: int):  # type: ignore[no-untyped-def]
        def answer(probe, earlier):  # type: ignore[no-untyped-def]
            if probe.ttl == 3 and earlier < times:
                return 0.01, Reply(ReplyKind.RETRY, error="reply-stolen")
            return line(5, 0.01)(probe, earlier)

        return answer

    hop = Drive(request(), thief(2)).run().hops[2]
    assert [router(3)] == [responder.address for responder in hop.responders]
    hop = Drive(request(), thief(6)).run().hops[2]
    assert [Outcome.ERROR] == [probe.outcome for probe in hop.probes]
    assert (0, 0) == (hop.stats.received, hop.stats.lost)


def test_exhaustion_is_never_loss() -> None:
    """However often a prober is exhausted, the probe goes out in the end."""

    def answer(probe, earlier):  # type: ignore[no-untyped-def]
        if earlier < 20:
            return 0.001, Reply(ReplyKind.RETRY, error="probes-exhausted")
        return line(5, 0.01)(probe, earlier)

    assert routers(5) == addresses(Drive(request(), answer).run())


def test_errors_only_fail_the_trace() -> None:
    """When nothing can be sent the trace ends as an error with the prober's word."""
    drive = Drive(request(), lambda probe, earlier: (0.001, Reply(ReplyKind.ERROR, error="permission-denied")))
    trace = drive.run()
    assert StopReason.ERROR is trace.stop_reason
    assert "permission-denied" in (drive.error or "")


def test_few_errors_only_fail_the_trace_too() -> None:
    """The same with a single probe."""
    drive = Drive(request(max_ttl=1), lambda probe, earlier: (0.001, Reply(ReplyKind.ERROR, error="network-down")))
    assert StopReason.ERROR is drive.run().stop_reason


def test_a_clock_anomaly_is_received_without_rtt() -> None:
    """An answer whose RTT is not to be believed counts as received and has no RTT."""

    def answer(probe, earlier):  # type: ignore[no-untyped-def]
        if probe.ttl == 2:
            return 0.01, Reply(ReplyKind.TTL_EXPIRED, router(2), None, error="clock_anomaly")
        return line(4)(probe, earlier)

    hop = Drive(request(), answer).run().hops[1]
    assert (1, None) == (hop.stats.received, hop.stats.avg_us)
    assert "clock_anomaly" == hop.probes[0].error


@pytest.mark.parametrize(
    ("steps", "outcome"), [(1, Outcome.TTL_EXPIRED), (3, Outcome.TTL_EXPIRED), (4, Outcome.ERROR)]
)
def test_a_wait_ended_by_the_clock_begins_anew(steps: int, outcome: Outcome) -> None:
    """A probe given up because the wall clock leapt is sent again, up to three times, and never called lost."""

    def answer(probe, earlier):  # type: ignore[no-untyped-def]
        if probe.ttl == 2 and earlier < steps:
            return 0.0005, Reply(ReplyKind.RETRY, error="clock_anomaly")
        return line(4)(probe, earlier)

    trace = Drive(request(), answer).run()
    assert StopReason.REACHED is trace.stop_reason
    assert outcome is trace.hops[1].probes[0].outcome
    assert [0] * 4 == [hop.stats.lost for hop in trace.hops]


def test_without_a_scout_nobody_is_given_up_too_soon() -> None:
    """If the scout dies with its prober, and so never tells how far away the target is, probes the prober gives up
    sooner than was asked for are sent again with more patience: none is called lost, none is left undecided."""

    def answer(probe, earlier):  # type: ignore[no-untyped-def]
        if probe.cell is None:
            return 0.5, Reply(ReplyKind.RETRY, error="prober-died")
        return expired(router(probe.ttl), 1.2) if probe.ttl < 4 else reply(1.2)

    drive = Drive(request(protocol=Protocol.TCP), answer, impatience=1.0)
    trace = drive.run()
    assert routers(4) == addresses(trace)
    assert [0] * 4 == [hop.stats.lost for hop in trace.hops]
    assert drive.now < 4


def test_time_after_the_prober_gave_up_is_no_waiting() -> None:
    """A probe given up after one second is sent again, when the scout turns out to be far away, even if that is known
    only after the time that an answer would have been waited for."""

    def answer(probe, earlier):  # type: ignore[no-untyped-def]
        if probe.cell is None:
            return (1.9, Reply(ReplyKind.RETRY, error="prober-died")) if earlier == 0 else reply(1.2)
        return expired(router(probe.ttl), 1.2) if probe.ttl < 4 else reply(1.2)

    trace = Drive(request(protocol=Protocol.TCP), answer, impatience=1.0).run()
    assert routers(4) == addresses(trace)
    assert [0] * 4 == [hop.stats.lost for hop in trace.hops]


def test_probes_that_died_are_no_tries() -> None:
    """If all probes to the last TTL died with their probers, one beyond does not make the path a hop longer."""

    def answer(probe, earlier):  # type: ignore[no-untyped-def]
        if probe.ttl == 4 and earlier < 6:
            return 0.001, Reply(ReplyKind.RETRY, error="prober-died")
        return line(4)(probe, earlier)

    trace = Drive(request(probes=2), answer).run()
    assert routers(4) == addresses(trace)


def test_an_end_behind_nothing_but_errors_is_believed_in_the_end() -> None:
    """Where a TTL can never be asked, the trace ends all the same, and soon."""

    def answer(probe, earlier):  # type: ignore[no-untyped-def]
        return (0.001, Reply(ReplyKind.ERROR, error="x")) if probe.ttl == 3 else line(4)(probe, earlier)

    drive = Drive(request(), answer)
    trace = drive.run()
    assert [router(1), router(2), None, TARGET] == addresses(trace)
    assert StopReason.REACHED is trace.stop_reason
    assert drive.now < 3
    assert sum(ttl == 3 for _, ttl, _ in drive.sent) <= 8


def test_mpls_labels_are_kept() -> None:
    """The labels quoted by a router are shown with the probe."""
    label = MplsLabel(100_001, 1, 1, 1)

    def answer(probe, earlier):  # type: ignore[no-untyped-def]
        if probe.ttl == 2:
            return expired(router(2), 0.01, mpls=(label,))
        return line(4)(probe, earlier)

    assert (label,) == Drive(request(), answer).run().hops[1].probes[0].mpls


def test_a_far_target_is_found_by_an_impatient_prober() -> None:
    """Where ordinary probes are given up before the answers can be there, they go out again patiently."""
    drive = Drive(request(protocol=Protocol.TCP, probes=2), line(6, 0.25), impatience=1.0)
    trace = drive.run()
    assert routers(6) == addresses(trace)
    assert [0] * 6 == [hop.stats.lost for hop in trace.hops]
    assert drive.now <= 4.0


def test_an_impatient_prober_is_believed_when_nothing_is_far() -> None:
    """Silence after the prober's own shorter timeout is loss where all else is near."""
    drive = Drive(request(protocol=Protocol.TCP), line(6, 0.01, silent=(3,)), impatience=1.0)
    trace = drive.run()
    assert [0, 0, 1, 0, 0, 0] == [hop.stats.lost for hop in trace.hops]
    drive = Drive(request(protocol=Protocol.TCP), lambda probe, earlier: None, impatience=1.0)
    assert StopReason.GAP_LIMIT is drive.run().stop_reason


def test_a_path_of_remembered_length_is_asked_from_its_far_end() -> None:
    """What takes longest leaves first, so that a long path takes one RTT; nothing goes beyond its end."""
    drive = Drive(request(probes=1), line(22, 0.1 / 22), expected_length=22)
    assert routers(22) == addresses(drive.run())
    assert drive.now <= 0.105
    ttls = [ttl for _, ttl, _ in drive.sent]
    assert [22, 21, *range(20, 0, -1)] == [ttl for ttl in ttls if ttl != 64]


@pytest.mark.parametrize("expected", [None, 5])
def test_what_was_forgotten_with_an_end_is_asked_again(expected: int | None) -> None:
    """If the target itself shows that a rejection from midway was no end, the hops between are asked again."""

    def answer(probe, earlier):  # type: ignore[no-untyped-def]
        if probe.ttl == 3:
            return reply(0.001, "10.9.9.13")
        if probe.ttl == 4 and not earlier:
            return expired(router(4), 0.05)
        return reply(0.01) if probe.ttl >= 5 else expired(router(probe.ttl), 0.001)

    drive = Drive(request(), answer, expected_length=expected)
    trace = drive.run()
    assert StopReason.REACHED is trace.stop_reason
    assert [router(1), router(2), "10.9.9.13", router(4), TARGET] == addresses(trace)
    assert drive.now < 2


def test_a_doubted_hop_that_answers_waits_for_its_other_probes() -> None:
    """Extra probes still under way when one of them is answered are judged before the end: no loss is hidden."""

    def answer(probe, earlier):  # type: ignore[no-untyped-def]
        return None if probe.ttl == 2 and earlier < 3 else line(3)(probe, earlier)

    hop = Drive(request(probes=2), answer).run().hops[1]
    assert (4, 1, 3) == (hop.stats.sent, hop.stats.received, hop.stats.lost)


# --- anything ------------------------------------------------------------------------------------------------


@st.composite
def networks(draw):  # type: ignore[no-untyped-def]
    """A path: its length, each hop's RTT, which answers are lost, whether the target answers, and a request."""
    length = draw(st.integers(1, 28))
    rtts = draw(st.lists(st.integers(0, 60), min_size=length, max_size=length))
    losses = draw(st.dictionaries(st.integers(1, length), st.sets(st.integers(0, 3)), max_size=length))
    silent = draw(st.sets(st.integers(1, length)))
    fields = {
        "probes": draw(st.integers(1, 4)),
        "max_ttl": draw(st.sampled_from([5, 16, 30, 64])),
        "gap_limit": draw(st.integers(1, 20)),
        "first_ttl": draw(st.integers(1, 4)),
        "timeout_ms": draw(st.sampled_from([400, 2000])),
    }
    deaths = tuple(sorted(draw(st.lists(st.integers(0, 400), max_size=1))))
    expected = draw(st.none() | st.integers(1, 30))
    return length, rtts, losses, silent, fields, deaths, expected


@settings(max_examples=200, deadline=None)
@given(networks())
def test_anything_ends_in_truth(network) -> None:  # type: ignore[no-untyped-def]
    """Whatever the path: the trace ends in time, shows no wrong hop, invents no loss and keeps its limits."""
    length, rtts, losses, silent, fields, deaths, expected = network
    lost_at: set[tuple[int, int]] = set()

    def answer(probe, earlier):  # type: ignore[no-untyped-def]
        ttl = min(probe.ttl, length)
        if ttl in silent or earlier in losses.get(ttl, ()):
            lost_at.add((probe.ttl, earlier))
            return None
        rtt = rtts[ttl - 1] / 1000
        return reply(rtt) if probe.ttl >= length else expired(router(probe.ttl), rtt)

    req = request(**fields)
    drive = Drive(req, answer, expected_length=expected, deaths=tuple(d / 1000 for d in deaths))
    trace = drive.run()
    assert drive.now <= 60.0
    assert trace.hops == tuple(sorted(trace.hops, key=lambda hop: hop.ttl))
    for hop in trace.hops:
        assert req.first_ttl <= hop.ttl <= min(req.max_ttl, max(length, req.first_ttl)) or not hop.responders
        for responder in hop.responders:
            assert responder.address == (TARGET if hop.ttl >= length else router(hop.ttl))
        assert len(hop.probes) <= max(req.probes, 4 if hop.responders else 0)
        if hop.responders and not deaths:
            here = sum(ttl == hop.ttl for ttl, _ in lost_at)
            beyond = sum(ttl > length for ttl, _ in lost_at) if hop.ttl >= length else 0
            assert here <= hop.stats.lost <= here + beyond
    assert trace.reached == (trace.stop_reason is StopReason.REACHED)
    if trace.reached:
        assert TARGET == addresses(trace)[-1]
    reachable = length not in silent and length not in losses and length <= req.max_ttl
    if reachable and req.max_ttl >= 16 and not deaths:
        assert trace.reached
        assert max(length, req.first_ttl) == trace.hops[-1].ttl
