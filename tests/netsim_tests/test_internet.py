"""The simulated internet without packets on any wire: what comes back, when, and what is counted."""

from __future__ import annotations

import struct
from ipaddress import ip_address
from typing import Any

import pytest

from netsim import load
from netsim.internet import Internet

PROBER = "44.0.0.2"


def document(**fields: Any) -> dict[str, Any]:
    """A scenario with three routers, 10 ms each, and a target at 44.2.1.9."""
    target = {"name": "x", "at": 9, "path": [1, 2, 3], **fields.pop("target", {})}
    return {
        "name": "test",
        "ipv4": "44.2.1.0/24",
        "ipv6": "2a10:44:2001::/48",
        "hop_ms": 10.0,
        "targets": [target],
        **fields,
    }


def internet_of(**fields: Any) -> Internet:
    """An internet with that scenario, loaded at time 0."""
    internet = Internet()
    internet.load(load(document(**fields)), 0.0)
    return internet


def packet(ttl: int, protocol: int = 1, transport: bytes = b"\x08\0\0\0\0\1\0\1", to: str = "44.2.1.9") -> bytes:
    """An IPv4 probe; its checksums do not matter to the simulator."""
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(transport), 0, 0, ttl, protocol, 0)
    return head + ip_address(PROBER).packed + ip_address(to).packed + transport


def udp(ttl: int, source: int, destination: int) -> bytes:
    """A UDP probe without data."""
    return packet(ttl, 17, struct.pack("!HHHH", source, destination, 8, 1))


def syn(ttl: int, source: int, destination: int = 80, sequence: int = 1) -> bytes:
    """A TCP SYN."""
    return packet(ttl, 6, struct.pack("!HHIIBBHHH", source, destination, sequence, 0, 0x50, 2, 0, 0, 0))


def responder(answers: list[tuple[float, bytes]]) -> str | None:
    """The address the only answer comes from, or None."""
    return str(ip_address(answers[0][1][12:16])) if answers else None


def test_every_hop_answers_after_its_time() -> None:
    """Routers answer their own TTL and the target all higher ones, each after its simulated RTT."""
    internet = internet_of()
    found = [(responder(a), round(a[0][0] - 5.0, 6)) for a in (internet.receive(packet(t), 5.0) for t in range(1, 7))]
    hops = [("44.2.1.1", 0.01), ("44.2.1.2", 0.02), ("44.2.1.3", 0.03), *[("44.2.1.9", 0.04)] * 3]
    assert hops == found


def test_jitter_only_adds() -> None:
    """Jittered answers come between the RTT and the RTT plus jitter."""
    internet = internet_of(routers={"1": {"jitter": 4.0}})
    delays = [internet.receive(packet(1), 0.0)[0][0] for _ in range(200)]
    assert 0.010 <= min(delays) < 0.011
    assert 0.013 < max(delays) < 0.014


def test_what_becomes_of_probes_is_counted() -> None:
    """Each probe is counted under its protocol and TTL with its fate; the rest as stray."""
    internet = internet_of(routers={"2": {"lose": {"every": 2}}, "3": {"silent": True}})
    for ttl in (1, 2, 2, 2, 3):
        internet.receive(packet(ttl), 0.0)
    internet.receive(packet(1, to="10.0.0.1"), 0.0)
    cells = internet.counters()["x"]["ipv4"]["icmp"]
    fates = {ttl: [cell[key] for key in ("received", "answered", "lost", "silent")] for ttl, cell in cells.items()}
    assert {"1": [1, 1, 0, 0], "2": [3, 2, 1, 0], "3": [1, 0, 0, 1]} == fates
    assert {"10.0.0.1": 1} == dict(internet.stray)
    assert {} == internet.counters()["x"]["ipv6"]


def test_dropped_packets_reach_nothing_behind() -> None:
    """What a router drops is lost to it and all hops behind it, counted in the order it arrives there."""
    internet = internet_of(routers={"2": {"drop": {"every": 2}}})
    answers = [responder(internet.receive(packet(ttl), 0.0)) for ttl in (1, 2, 3, 4, 4, 1)]
    assert ["44.2.1.1", "44.2.1.2", None, "44.2.1.9", None, "44.2.1.1"] == answers


def test_a_rate_limited_router_answers_like_linux() -> None:
    """Six answers at once, then one per second; routers passed by several targets share their tokens."""
    internet = internet_of(routers={"1": {"rate_limit": {}}})
    burst = [bool(internet.receive(packet(1), 100.0)) for _ in range(10)]
    assert [True] * 6 + [False] * 4 == burst
    later = [bool(internet.receive(packet(1), 100.0 + t)) for t in (0.9, 1.05, 1.5, 2.1)]
    assert [False, True, False, True] == later
    assert 6 == internet.counters()["x"]["ipv4"]["icmp"]["1"]["limited"]


def test_flows_keep_their_way() -> None:
    """All probes of a flow go one way, and enough flows find every way."""
    internet = internet_of(target={"path": [1, {"flow": [[2], [3], [4], [5]]}]})
    ways = {
        port: {responder(internet.receive(udp(2, port, 99), 0.0)) for _ in range(5)} for port in range(3000, 3064)
    }
    assert all(len(way) == 1 for way in ways.values())
    assert {f"44.2.1.{n}" for n in (2, 3, 4, 5)} == {next(iter(way)) for way in ways.values()}


def test_per_packet_balancing_takes_turns() -> None:
    """Packets of one flow take the branches by turns."""
    internet = internet_of(target={"path": [1, {"packet": [[2], [3]]}]})
    met = [responder(internet.receive(udp(2, 3000, 99), 0.0)) for _ in range(4)]
    assert ["44.2.1.3", "44.2.1.2"] * 2 == met


def test_loops_go_on_for_ever() -> None:
    """In a loop the same routers answer at every higher TTL."""
    internet = internet_of(target={"path": [1], "loop": [2, 3]})
    assert ["44.2.1.2", "44.2.1.3"] * 127 == [responder(internet.receive(packet(t), 0.0)) for t in range(2, 256)]


@pytest.mark.parametrize(("on_arrival", "kind"), [(False, 11), (True, 3)])
def test_a_refusal_stands_in_place_of_forwarding(on_arrival: bool, kind: int) -> None:
    """A router refuses what it should forward; a filter also what would end at it anyway."""
    refusal = {"ipv4": 13, "on_arrival": on_arrival}
    internet = internet_of(routers={"2": {"unreachable": refusal}})
    answers = [internet.receive(packet(ttl), 0.0) for ttl in (1, 2, 3, 9)]
    assert ["44.2.1.1", *["44.2.1.2"] * 3] == [responder(a) for a in answers]
    assert [(11, 0), (kind, 13 if on_arrival else 0), (3, 13), (3, 13)] == [tuple(a[0][1][20:22]) for a in answers]
    assert answers[3][0][0] == pytest.approx(0.020)


def test_a_refused_port_is_refused_behind_the_filter_too() -> None:
    """Only the filtered ports of the filtered protocol are refused, at every TTL beyond."""
    refusal = {"ipv4": 13, "protocols": ["udp", "icmp"], "ports": [53]}
    internet = internet_of(routers={"2": {"unreachable": refusal}})
    refused = [responder(internet.receive(udp(ttl, 3000, 53), 0.0)) for ttl in (2, 3, 4)]
    free = [responder(internet.receive(probe, 0.0)) for probe in (udp(3, 3000, 54), syn(3, 3000, 53), packet(3))]
    assert ["44.2.1.2"] * 3 == refused
    assert ["44.2.1.3"] * 3 == free


def test_repeated_syns_are_no_probes() -> None:
    """A SYN the kernel sends again is neither answered nor counted as received."""
    internet = internet_of()
    assert internet.receive(syn(1, 33000), 0.0)
    assert [] == internet.receive(syn(1, 33000), 1.0)
    assert internet.receive(syn(1, 33000, sequence=2), 1.0)
    cell = internet.counters()["x"]["ipv4"]["tcp"]["1"]
    assert (2, 1) == (cell["received"], cell["retransmitted"])


def test_targets_change_when_told() -> None:
    """A target changes after a number of probes, after a time, and by command; a reset undoes the first two."""
    internet = internet_of(
        target={"then": [{"after_probes": 2, "path": [1, 5]}, {"after_s": 10, "path": [1], "echo": False}]}
    )
    met = [responder(internet.receive(packet(2), t)) for t in (0.0, 0.0, 0.0, 10.0)]
    assert ["44.2.1.2", "44.2.1.2", "44.2.1.5", None] == met
    internet.reset(20.0)
    assert "44.2.1.2" == responder(internet.receive(packet(2), 20.0))
    internet.change("x", {"path": [7, 8]})
    assert "44.2.1.8" == responder(internet.receive(packet(2), 20.0))


def test_a_reset_starts_everything_anew() -> None:
    """After a reset counters are zero, patterns at their first packet and rate limits full."""
    internet = internet_of(routers={"1": {"lose": {"first": 1}, "rate_limit": {"burst": 1, "per_second": 0.0}}})
    seen = []
    for _ in range(2):
        seen.append([bool(internet.receive(packet(1), 0.0)) for _ in range(3)])
        internet.reset(0.0)
    assert [[False, True, False]] * 2 == seen
    assert {"x": {"ipv4": {}, "ipv6": {}}} == internet.counters()


def test_clashes_are_refused() -> None:
    """Two targets may have neither the same name nor the same address."""
    internet = internet_of()
    with pytest.raises(ValueError, match="named x"):
        internet.load(load({**document(), "name": "other"}), 0.0)
    with pytest.raises(ValueError, match="same address"):
        internet.load(load({**document(target={"name": "y"}), "name": "other"}), 0.0)
