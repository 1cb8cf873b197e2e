"""Every word mtr-packet 0.95 and newer have for a probe, through the whole engine: what a reader is shown of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import pytest

from faults.script import LENGTH, Script, router
from faults.world import World
from tracerouted.model import Family, Outcome, Protocol, StopReason, Trace
from tracerouted.mtrpacket import codec

ICMP, UDP, TCP = Protocol.ICMP, Protocol.UDP, Protocol.TCP
#: Who answers what is asked again.
AGAIN = (Outcome.TTL_EXPIRED, None)


class Said(NamedTuple):
    """Words said instead of an answer to TTL 2's first probe, and what is shown there, in the end: outcome and error.

    `tcp` is given where it differs. Words that end a path (`on`) are said to every TTL from 2 on.
    """

    words: str
    shown: tuple[Outcome, str | None]
    tcp: tuple[Outcome, str | None] | None = None
    on: bool = False
    stop: StopReason = StopReason.REACHED


def refused(words: str, tcp: tuple[Outcome, str | None] | None = None) -> Said:
    """Words that say that the probe never left."""
    return Said(words, (Outcome.ERROR, words), tcp)


ROUTER, TARGET = "ip-4 {router} round-trip-time 900", "ip-4 {target} round-trip-time 900"
REJECTED = (Outcome.UNREACHABLE, None)
WORDS = (
    # somebody answered
    Said(f"ttl-expired {ROUTER}", (Outcome.TTL_EXPIRED, None)),
    Said(f"ttl-expired {ROUTER} mpls 16004,0,1,255,17,5,0,1", (Outcome.TTL_EXPIRED, None)),
    Said(f"reply {TARGET}", (Outcome.REPLY, None), on=True),
    Said("reply ip-4 192.0.2.66 round-trip-time 900", REJECTED, on=True, stop=StopReason.UNREACHABLE),
    Said("no-route ip-4 192.0.2.66 round-trip-time 900", REJECTED, on=True, stop=StopReason.UNREACHABLE),
    Said("no-route-host ip-4 192.0.2.66 round-trip-time 900", REJECTED, on=True, stop=StopReason.UNREACHABLE),
    Said("no-route-network ip-4 192.0.2.66 round-trip-time 900", REJECTED, on=True, stop=StopReason.UNREACHABLE),
    # nobody did, or it is not known
    Said("no-reply", AGAIN),  # too soon to be true
    Said("probes-exhausted", AGAIN),
    Said("address-in-use", AGAIN),
    Said("unexpected-error errno 23", AGAIN),
    Said("unexpected-error errno 24", AGAIN),
    refused("wait-tcp-respone-timeout", (Outcome.TIMEOUT, None)),
    refused("wait-tcp-response-timeout", (Outcome.TIMEOUT, None)),
    refused("unexpected-error errno 110", (Outcome.TIMEOUT, None)),
    # our own kernel, or on a TCP socket an ICMP error that came first
    refused("no-route", AGAIN),
    refused("no-route-host", AGAIN),
    refused("no-route-network", AGAIN),
    refused("unexpected-error errno 13", AGAIN),
    refused("unexpected-error errno 92", AGAIN),
    refused("unexpected-error errno 101", AGAIN),
    refused("unexpected-error errno 112", AGAIN),
    refused("unexpected-error errno 113", AGAIN),
    # it never left
    refused("network-down"),
    refused("host-down"),
    refused("permission-denied"),
    refused("address-not-available"),
    refused("invalid-argument"),
    refused("invalid-argument reason ip-version-not-supported"),
    refused("invalid-argument reason protocol-not-supported"),
    refused("unknown-command"),
    refused("command-parse-error"),
    refused("command-buffer-overflow"),
    refused("unexpected-error errno 5"),
    # what nobody knows
    refused("a-word-of-2031 with ip-4 {target}".replace("{target}", "192.0.2.1")),
    refused("ttl-expired ip-4 192.0.2.1 round-trip-time"),
    refused("ttl-expired ip-4 0.0.0.0 round-trip-time 1"),
)
#: A reset or a refusal of the connection is the target's own answer; to other protocols' probes it is none.
RESETS = ("unexpected-error errno 104", "unexpected-error errno 111")


def trace(said: Mapping[int, str], protocol: Protocol, version: str) -> Trace:
    """A trace alone, to which these words are said."""
    with World({Family.IPV4: Script(words=said, version=version)}) as world:
        world.run(2)
        trace_id = world.submit(Family.IPV4, protocol, probes=1)
        assert trace_id is not None
        world.run(4)
        ended = world.engine.get(trace_id)
        # Some of these words say what isn't so; that is not the engine's fault.
        assert [] == [each for each in world.conclude() if not each.startswith("44.")]
        return ended


@pytest.mark.parametrize("version", ["0.95", "0.96", "0.97.12-0a1b2c"])
@pytest.mark.parametrize("protocol", [ICMP, UDP, TCP])
def test_every_word(protocol: Protocol, version: str) -> None:
    """What each word makes of a probe, and that the path around it is shown as it is."""
    wrong = {}
    for case in WORDS:
        shown = trace(dict.fromkeys(range(2, 65) if case.on else (2,), case.words), protocol, version)
        (probe,) = shown.hops[1].probes
        expected = case.tcp if case.tcp and protocol is TCP else case.shown
        length = 2 if case.on else LENGTH
        if (case.stop, length, expected) != (shown.stop_reason, len(shown.hops), (probe.outcome, probe.error)):
            wrong[case.words] = (shown.stop_reason, len(shown.hops), probe.outcome, probe.error)
        if not case.on and [hop.probes[0].address for hop in shown.hops[3:]] != [
            router(shown.request.target, ttl) for ttl in (4, 5)
        ]:
            wrong[case.words] = shown.paths
    assert {} == wrong


def test_a_reset_is_the_targets_answer() -> None:
    """A TCP probe that is reset or refused has reached the target; others know no such thing."""
    for words in RESETS:
        over_tcp = trace(dict.fromkeys(range(2, 65), words), TCP, "0.95")
        assert (StopReason.REACHED, 2) == (over_tcp.stop_reason, len(over_tcp.hops))
        assert over_tcp.hops[1].probes[0].address == over_tcp.request.target
        (probe,) = trace({2: words}, ICMP, "0.95").hops[1].probes
        assert (Outcome.ERROR, words) == (probe.outcome, probe.error)


def test_labels_are_shown() -> None:
    """What a router quotes of its label stack stays with the probe."""
    shown = trace({2: f"ttl-expired {ROUTER} mpls 16004,0,1,255,17,5,0,1"}, ICMP, "0.96")
    assert [(16004, 0, 1, 255), (17, 5, 0, 1)] == [tuple(label) for label in shown.hops[1].probes[0].mpls]


def test_no_word_is_left_out() -> None:
    """The table has every word the codec knows."""
    addressed = {each.words.split()[0].encode() for each in WORDS if " ip-" in each.words}
    bare = {each.words.split()[0].encode() for each in WORDS if " ip-" not in each.words}
    assert set(codec._ADDRESSED) <= addressed
    assert set(codec._BARE) <= bare
