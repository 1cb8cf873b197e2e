"""No packet leaves for a target the policy closes: the real daemon and mtr-packet, counted at the sink.

The sink hears every device of the namespace, loopback too, so that zero means zero; the open neighbours of the closed
blocks are traced and counted alike, so that the count can fail.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from twisted.names import dns

from daemon_process import Daemon, daemon
from naming.scripted_dns import a, aaaa, name_server, reply
from naming.test_policy import CLOSED_NETWORKS, NEVER, edges, is_closed, words, wrappings
from netsim import Lab
from sink import Packet, Sink, listening

Address = IPv4Address | IPv6Address

EDGES = sorted({address for network in CLOSED_NETWORKS for address in edges(network)}, key=lambda a: (a.version, a))
CLOSED = [address for address in EDGES if is_closed(address)]
OPEN = [address for address in EDGES if not is_closed(address)]
EMBEDDED = sorted(
    {inside for address in CLOSED if isinstance(address, IPv4Address) for inside in wrappings(address).values()}
)
#: What a resolver, a browser or inet_aton(3) would read as an address, and is refused before anything is looked up.
LOOSE = words("""
    127.1 127.0.1 2130706433 017700000001 0x7f000001 0x7f.1 0177.0.0.1 127.0.0.01 127.0.0.1. 127.0.0.1:80 1 0
    http://127.0.0.1/ user@127.0.0.1 10.0.0.0/8 [127.0.0.1] [::1]:80 ::ffff:127.1 0:0:0:0:0:0:0:0:1 0::0::1
    fe80::1%eth0 fe80::1%25eth0 [fe80::1%lo] ::1%lo 127.0.0.1\u200b localhost\0
    \uff11\uff12\uff17.0.0.1 127\u30020\u30020\u30021 127\uff0e0\uff0e0\uff0e1 \u2460\u2461\u2466.\u24ea.\u24ea.\u2460
""")
PUBLIC, OTHER = "44.3.7.1", "2a10:44:3000::1"
BRIEF = {"max_ttl": 1, "probes": 1, "timeout_ms": 100, "resolve_names": False}


class Names:
    """The name server. `closed-<hex>.test` has the address of those digits; `names` maps others to their addresses,
    a list of lists where they change with each question, the last one staying. `asked` counts the questions."""

    def __init__(self) -> None:
        self.names: dict[str, list[list[str]]] = {
            "rebinding.test": [[PUBLIC], ["127.0.0.1"]],
            "mixed.test": [["10.0.0.1", PUBLIC, "127.0.0.1", "::1", "fe80::1", "fd00::1"]],
            "mapped.test": [["::ffff:10.0.0.1", "::ffff:127.0.0.1"]],
        }
        self.asked: Counter[tuple[str, int]] = Counter()

    def __call__(self, query: dns.Message) -> dns.Message:
        name, kind = query.queries[0].name.name.decode().lower(), query.queries[0].type
        times = self.asked[name, kind]
        self.asked[name, kind] += 1
        if name.startswith("closed-"):
            found = [str(ip_address(bytes.fromhex(name[len("closed-") :].partition(".")[0])))]
        else:
            answers = self.names.get(name, [[]])
            found = answers[min(times, len(answers) - 1)]
        records = [aaaa(name, each) if ":" in each else a(name, each) for each in found]
        return reply(query, [record for record in records if record.type == kind], dns.OK if found else dns.ENAME)


@pytest.fixture(scope="module")
def names() -> Names:
    return Names()


@pytest.fixture(scope="module")
def dns_port(names: Names) -> Iterator[int]:
    with name_server(names) as port:
        yield port


@pytest.fixture(scope="module")
def service(internet: Lab, dns_port: int) -> Iterator[Daemon]:
    """A daemon with the policy as it comes, and names of the test's own."""
    with daemon(dns_servers=f"127.0.0.1:{dns_port}") as service:
        yield service


@pytest.fixture
def sink(service: Daemon, dns_port: int) -> Iterator[Sink]:
    with listening(service.port, dns_port) as sink:
        yield sink


@contextmanager
def opened(**settings: str) -> Iterator[tuple[Daemon, Sink]]:
    """A daemon with other settings and the system's resolver, and what it sends."""
    with daemon(**settings) as service, listening(service.port) as sink:
        yield service, sink


def to_closed(packets: list[Packet]) -> list[Packet]:
    """Those packets that went where nothing may go."""
    return [packet for packet in packets if is_closed(packet.to)]


def in_words(text: str, address: Address) -> None:
    """A refusal names the address and the setting that decides."""
    assert str(address) in text
    assert "TRACEROUTED_ALLOW_TARGETS" in text
    assert any(address in network for network in NEVER) <= ("no setting" in text)


def test_every_edge_is_there() -> None:
    """First, last and the addresses beside both of every closed block are asked for below, closed or open."""
    for network in CLOSED_NETWORKS:
        first, last = network[0], network[-1]
        whole = type(first)
        beside = [whole(int(end) + step) for end, step in ((first, -1), (last, 1)) if _exists(int(end) + step, first)]
        assert {first, last} <= set(CLOSED)
        assert set(beside) <= set(CLOSED) | set(OPEN)
    assert len(EMBEDDED) > 12 * 17
    assert len(OPEN) > 30


def _exists(value: int, like: Address) -> bool:
    return 0 <= value < 2**like.max_prefixlen


def test_closed_addresses_get_no_packet(service: Daemon, sink: Sink) -> None:
    """Every edge of every closed block is refused with 403 and the setting, in brackets too, and gets no packet."""
    for address in CLOSED:
        for text in [str(address), *([f"[{address.exploded}]"] if address.version == 6 else [])]:
            answer = service.post({"target": text})
            assert (403, "target-not-allowed") == (answer.status, answer.type), text
            in_words(answer.json["detail"], address)
    assert [] == sink.packets()


def test_embedded_addresses_get_no_packet(service: Daemon, sink: Sink) -> None:
    """Every form of every closed IPv4 edge inside an IPv6 address is refused with 403, and gets no packet."""
    for address in EMBEDDED:
        answer = service.post({"target": str(address)})
        assert (403, "target-not-allowed") == (answer.status, answer.type), address
        in_words(answer.json["detail"], address)
    assert [] == sink.packets()


def test_names_of_closed_addresses_get_no_packet(service: Daemon, sink: Sink) -> None:
    """A name that leads to a closed edge becomes a failed trace that names the setting, and gets no packet."""
    targets = [f"closed-{address.packed.hex()}.test" for address in CLOSED]
    ids = [service.post({"target": target}).json["id"] for target in targets]
    for address, trace in zip(CLOSED, service.finished(ids), strict=True):
        assert ("failed", "error", []) == (trace["status"], trace["stop_reason"], trace["hops"])
        in_words(trace["error"], address)
    assert [] == sink.packets()


@pytest.mark.parametrize("text", LOOSE, ids=ascii)
def test_loose_spellings_are_no_targets(service: Daemon, names: Names, text: str) -> None:
    """What only resolvers take for an address is a wrong field, or a name that they are not asked about."""
    names.asked.clear()
    answer = service.post({"target": text})
    assert (422, "invalid-request") == (answer.status, answer.type)
    assert ["/target"] == [error["pointer"] for error in answer.json["errors"]]
    assert {} == names.asked


def test_loose_spellings_get_no_packet(service: Daemon, sink: Sink) -> None:
    """None of them sends anything, over any protocol and whatever the family."""
    for text in LOOSE:
        for more in ({"protocol": "tcp"}, {"protocol": "udp"}, {"family": "ipv4"}, {"family": "ipv6"}):
            assert 422 == service.post({"target": text, **more}).status
    assert [] == sink.packets()


def test_rebinding(service: Daemon, names: Names, sink: Sink) -> None:
    """A name is looked up once: its first, public answer is what is probed to the end, however it changes; the next
    trace gets the private answer and fails."""
    document = {**BRIEF, "target": "rebinding.test", "probes": 5, "interval_ms": 100}
    (first,) = service.finished([service.post(document).json["id"]])
    assert {"host": "rebinding.test", "address": PUBLIC, "family": "ipv4", "addresses": [PUBLIC]} == first["target"]
    assert 1 == names.asked["rebinding.test", dns.A]
    (second,) = service.finished([service.post(document).json["id"]])
    assert 2 == names.asked["rebinding.test", dns.A]
    assert ("failed", None) == (second["status"], second["target"])
    in_words(second["error"], ip_address("127.0.0.1"))
    packets = sink.packets()
    assert {ip_address(PUBLIC)} == {packet.to for packet in packets}
    assert len(packets) >= 5


def test_mixed_answers(service: Daemon, sink: Sink) -> None:
    """Of a name with public and private addresses only the public one is probed; with no public one, none."""
    documents = [
        {**BRIEF, "target": "mixed.test"},
        {**BRIEF, "target": "mixed.test", "family": "ipv6"},
        {**BRIEF, "target": "mapped.test"},
    ]
    traces = service.finished([service.post(document).json["id"] for document in documents])
    assert ["completed", "failed", "failed"] == [trace["status"] for trace in traces]
    assert PUBLIC == traces[0]["target"]["address"]
    for address in ("::1", "fe80::1", "fd00::1"):
        in_words(traces[1]["error"], ip_address(address))
    assert {ip_address(PUBLIC)} == {packet.to for packet in sink.packets()}


def test_open_neighbours_get_packets(service: Daemon, sink: Sink) -> None:
    """The public address beside a closed block is traced, and the sink sees it: what counts zero above can count."""
    answers = [service.post({**BRIEF, "target": str(address)}) for address in OPEN]
    assert {202} == {answer.status for answer in answers}
    for trace in service.finished([answer.json["id"] for answer in answers]):
        assert "completed" == trace["status"], trace
    packets = sink.packets()
    assert set(OPEN) == {packet.to for packet in packets}
    assert [] == to_closed(packets)


def test_allow_and_deny_at_the_sink(internet: Lab) -> None:
    """ALLOW_TARGETS lets packets out to what it covers and no further, loopback included; DENY_TARGETS keeps them in,
    wins, and reaches inside IPv6; both are named."""
    allow = "10.0.0.0/8,127.0.0.2,64:ff9b::/96,fd00::/8"
    deny = f"10.1.0.0/16,{PUBLIC}/32,fd00:1::/32"
    may = ["10.0.0.1", "10.2.0.0", "127.0.0.2", "64:ff9b::10.0.0.1", "fd00::1", OTHER]
    denied = ["10.1.0.0", "10.1.255.255", PUBLIC, "64:ff9b::10.1.0.1", f"64:ff9b::{PUBLIC}", "fd00:1::1"]
    closed = ["127.0.0.1", "127.0.0.3", "::1", "192.168.0.1", "64:ff9b::192.168.0.1", "fc00::1"]
    with opened(allow_targets=allow, deny_targets=deny) as (service, sink):
        for text in denied:
            answer = service.post({**BRIEF, "target": text})
            assert (403, True) == (answer.status, "TRACEROUTED_DENY_TARGETS" in answer.json["detail"]), text
        for text in closed:
            answer = service.post({**BRIEF, "target": text})
            assert (403, True) == (answer.status, "TRACEROUTED_ALLOW_TARGETS" in answer.json["detail"]), text
        # /etc/hosts, by way of the C library
        (trace,) = service.finished([service.post({**BRIEF, "target": "localhost"}).json["id"]])
        assert "failed" == trace["status"]
        assert "loopback" in trace["error"]
        ids = [service.post({**BRIEF, "target": text}).json["id"] for text in may]
        assert {"completed"} == {trace["status"] for trace in service.finished(ids)}
        assert {ip_address(text) for text in may} == {packet.to for packet in sink.packets()}
