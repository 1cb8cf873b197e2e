"""What a reply means for the probe it answers, and when the clock makes its RTT a lie."""

import pytest

from tracerouted.model import Family, MplsLabel, Protocol, Reply, ReplyKind, RetryReason
from tracerouted.mtrpacket.codec import RawReply, Word, prepare
from tracerouted.mtrpacket.verdict import CLOCK_ANOMALY, StepWatch, judge


def probe(protocol=Protocol.ICMP):
    """A prepared probe with a timeout of 2 s."""
    return prepare(
        protocol=protocol,
        address="192.0.2.9",
        source_address="198.51.100.7",
        port=None,
        size=64,
        tos=0,
        timeout_s=2,
    )


def answer(word=Word.TTL_EXPIRED, address="192.0.2.1", rtt_us=1000, family=Family.IPV4, mpls=()):
    """A reply with an address."""
    return RawReply(1, word, family, address, rtt_us, mpls)


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        (Word.REPLY, ReplyKind.REPLY),
        (Word.TTL_EXPIRED, ReplyKind.TTL_EXPIRED),
        (Word.NO_ROUTE, ReplyKind.UNREACHABLE),
    ],
)
@pytest.mark.parametrize("protocol", list(Protocol))
def test_an_answer_with_an_address(word, kind, protocol):
    """An address says who answered, with its RTT and labels, whatever the protocol."""
    mpls = (MplsLabel(100001, 0, 1, 1),)
    assert Reply(kind, "192.0.2.1", 1000, mpls) == judge(answer(word, mpls=mpls), probe(protocol), 0.002, False)


def test_the_other_family_is_stolen():
    """An answer of the other family belongs to another process's probe: send again."""
    raw = answer(address="2001:db8::1", family=Family.IPV6)
    assert Reply(ReplyKind.RETRY, error=RetryReason.STOLEN) == judge(raw, probe(), 0.002, False)


def test_an_impossible_answer_of_the_other_family_is_stolen():
    """The same for an answer whose address no router can have: it says nothing about this probe."""
    raw = RawReply(1, Word.IMPOSSIBLE, Family.IPV6, text="ttl-expired ip-6 ::")
    assert Reply(ReplyKind.RETRY, error=RetryReason.STOLEN) == judge(raw, probe(), 0.002, False)
    raw = RawReply(1, Word.IMPOSSIBLE, Family.IPV4, text="ttl-expired ip-4 0.0.0.0")
    assert ReplyKind.ERROR is judge(raw, probe(), 0.002, False).kind


@pytest.mark.parametrize("errno", [13, 92, 101, 112, 113])
def test_an_icmp_error_on_a_tcp_socket_is_asked_for_again(errno):
    """What an ICMP error left on a TCP socket names nobody: send again; elsewhere it is an error."""
    raw = RawReply(1, Word.ERRNO, errno=errno, text=f"unexpected-error errno {errno}")
    again = Reply(ReplyKind.RETRY, error=RetryReason.BARE_NO_ROUTE)
    assert again == judge(raw, probe(Protocol.TCP), 0.002, False)
    assert ReplyKind.ERROR is judge(raw, probe(), 0.002, False).kind


STREAMS, DATAGRAMS = (Protocol.TCP, Protocol.SCTP), (Protocol.ICMP, Protocol.UDP)
ERROR, RETRY = ReplyKind.ERROR, ReplyKind.RETRY


@pytest.mark.parametrize(
    ("protocols", "raw", "expected"),
    [
        (Protocol, RawReply(1, Word.NO_REPLY), Reply(ReplyKind.TIMEOUT)),
        (Protocol, RawReply(1, Word.EXHAUSTED), Reply(RETRY, error=RetryReason.EXHAUSTED)),
        (Protocol, RawReply(1, Word.ADDRESS_IN_USE), Reply(RETRY, error=RetryReason.ADDRESS_IN_USE)),
        (Protocol, RawReply(1, Word.ERRNO, errno=24), Reply(RETRY, error=RetryReason.NO_DESCRIPTORS)),
        (Protocol, RawReply(1, Word.ERRNO, errno=23), Reply(RETRY, error=RetryReason.NO_DESCRIPTORS)),
        (Protocol, RawReply(1, Word.ERRNO, errno=5, text="errno 5"), Reply(ERROR, error="errno 5")),
        (Protocol, RawReply(1, Word.REFUSED, text="network-down"), Reply(ERROR, error="network-down")),
        (Protocol, RawReply(1, Word.UNKNOWN, text="what"), Reply(ERROR, error="what")),
        (Protocol, RawReply(1, Word.IMPOSSIBLE, Family.IPV4, text="0.0.0.0"), Reply(ERROR, error="0.0.0.0")),
        (STREAMS, RawReply(1, Word.NO_ROUTE), Reply(RETRY, error=RetryReason.BARE_NO_ROUTE)),
        (DATAGRAMS, RawReply(1, Word.NO_ROUTE, text="no-route"), Reply(ERROR, error="no-route")),
        (STREAMS, RawReply(1, Word.ERRNO, errno=104), Reply(ReplyKind.REPLY, "192.0.2.9", 2_500_000)),
        (STREAMS, RawReply(1, Word.ERRNO, errno=111), Reply(ReplyKind.REPLY, "192.0.2.9", 2_500_000)),
        (DATAGRAMS, RawReply(1, Word.ERRNO, errno=104, text="errno 104"), Reply(ERROR, error="errno 104")),
        (STREAMS, RawReply(1, Word.ERRNO, errno=110), Reply(ReplyKind.TIMEOUT)),
        (STREAMS, RawReply(1, Word.TIMED_OUT), Reply(ReplyKind.TIMEOUT)),
        (DATAGRAMS, RawReply(1, Word.TIMED_OUT, text="timed out"), Reply(ERROR, error="timed out")),
    ],
)
def test_an_answer_without_an_address(protocols, raw, expected):
    """What mtr-packet says about a probe that nobody answered, after 2.5 s of a timeout of 2 s."""
    for protocol in protocols:
        assert expected == judge(raw, probe(protocol), 2.5, False)


@pytest.mark.parametrize(
    ("rtt_us", "stepped", "published"),
    [
        (0, False, 0),
        (10_000, False, 10_000),
        (11_000, False, 11_000),
        (11_001, False, None),
        (-1, False, None),
        (3_600_000_000 - 2**32, False, None),
        (5_000, True, None),
    ],
)
def test_an_rtt_the_clock_made_up_is_withheld(rtt_us, stepped, published):
    """Negative, longer than the 10 ms we saw pass (and 1 ms), or across a step: no RTT, but the hop stays."""
    error = CLOCK_ANOMALY if published is None else None
    expected = Reply(ReplyKind.TTL_EXPIRED, "192.0.2.1", published, (), error)
    assert expected == judge(answer(rtt_us=rtt_us), probe(), 0.01, stepped)


def test_a_timeout_that_came_too_soon_is_no_loss():
    """A `no-reply` before the timeout has passed is the wall clock's doing: the probe is sent again."""
    assert Reply(ReplyKind.RETRY, error=CLOCK_ANOMALY) == judge(RawReply(1, Word.NO_REPLY), probe(), 1.9, False)


def test_steps_are_noticed_and_hesitation_is_not():
    """A step of the wall clock is noticed once, in either direction; a reading that was interrupted is no step."""
    now, wall = [0.0], [1000.0]
    watch = StepWatch(lambda: now[0], lambda: wall[0] + now[0])
    watch.look(0.0)
    assert watch.last == float("-inf")
    now[0] = 5.0
    watch.look(4.9)  # kept off the processor for 0.1 s between the two readings
    assert watch.last == float("-inf")
    for at, step in ((6.0, 3600.0), (7.0, -3600.0), (8.0, 0.002)):
        now[0] = at
        wall[0] += step
        watch.look(at)
        assert at == watch.last
    now[0] = 9.0
    watch.look(9.0)
    assert watch.last == 8.0
