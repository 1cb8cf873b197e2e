"""The DNS of the simulated internet: its answers, alone and over the wire."""

from __future__ import annotations

import socket
import struct
from ipaddress import ip_address
from typing import Any

import pytest
from twisted.names import dns

from netsim import Lab, load
from netsim.dns import Names, encode_name
from netsim.scenario import FAMILIES

DOCUMENT: dict[str, Any] = {
    "name": "named",
    "ipv4": "44.2.9.0/24",
    "ipv6": "2a10:44:2009::/48",
    "domain": "Named.test",
    "routers": {"2": {"name": "ae2.core1.fra.example.net"}, "3": {"name": ""}, "4": {"source_ipv4": "44.2.8.8"}},
    "asns": {
        "64500": {"name": "WIDE - Wide Networks", "country": "DE", "prefixes": ["44.2.0.0/16", "2a10:44:2000::/36"]},
        "64501": {"name": "NARROW", "prefixes": ["44.2.9.0/30", "2a10:44:2009::/126"]},
        "64496": {"name": "BOTH", "prefixes": ["44.2.9.0/30"]},
    },
    "targets": [{"name": "small", "at": 9, "path": [1, 2, {"flow": [[3], [4]]}]}],
}
NAMES = Names([load(DOCUMENT)])


def ask(name: str, kind: int, names: Names = NAMES) -> dns.Message:
    """The answer to a question, read by Twisted."""
    query = dns.Message(77, recDes=1)
    query.queries = [dns.Query(name.encode(), kind)]
    return read(names.answer(query.toStr()))


def read(datagram: bytes | None) -> dns.Message:
    """A datagram as a message."""
    assert datagram is not None
    message = dns.Message()
    message.fromStr(datagram)
    return message


def texts(name: str) -> list[str]:
    """The TXT answers to a name."""
    return [text.decode() for record in ask(name, dns.TXT).answers for text in record.payload.data]


def reverse(address: str) -> str:
    """The question for an address's name."""
    return ip_address(address).reverse_pointer


def pointers(address: str) -> list[bytes]:
    """The names of an address."""
    return [record.payload.name.name for record in ask(reverse(address), dns.PTR).answers]


def test_targets_have_addresses_and_names() -> None:
    """A target's name leads to its address in each family, and back, whatever the case of the letters."""
    (four,) = ask("SMALL.named.test", dns.A).answers
    (six,) = ask("small.NAMED.test", dns.AAAA).answers
    assert ("44.2.9.9", 300) == (four.payload.dottedQuad(), four.ttl)
    assert ip_address("2a10:44:2009::9").packed == six.payload.address
    assert [b"small.named.test"] == pointers("44.2.9.9") == pointers("2a10:44:2009::9")


def test_routers_have_reverse_names() -> None:
    """Every router on a way has the name of its entry, or a plain one, or none, under the address it answers from."""
    assert [b"r1.Named.test"] == pointers("44.2.9.1") == pointers("2a10:44:2009::1")
    assert [b"ae2.core1.fra.example.net"] == pointers("44.2.9.2") == pointers("2a10:44:2009::2")
    assert [] == pointers("44.2.9.3") == pointers("44.2.9.4")
    assert [b"r4.Named.test"] == pointers("44.2.8.8") == pointers("2a10:44:2009::4")


def test_no_data_is_not_no_name() -> None:
    """A name with other records, or with names below it, exists; any other does not."""
    for name, kind in (("small.named.test", dns.MX), ("named.test", dns.A), ("small.named.test", dns.TXT)):
        assert (dns.OK, []) == ((message := ask(name, kind)).rCode, message.answers)
    for name in ("other.named.test", "x.small.named.test", reverse("44.2.9.77"), "1.2.0.192.origin.asn.cymru.com"):
        assert (dns.ENAME, []) == ((message := ask(name, dns.A)).rCode, message.answers)


def test_origins_are_the_longest_prefix() -> None:
    """An address belongs to the longest announced prefix it is in; several systems may announce that."""
    assert ["64500 | 44.2.0.0/16 | DE | ripencc | 2020-01-01"] == texts("9.9.2.44.origin.asn.cymru.com")
    assert ["64496 64501 | 44.2.9.0/30 | ZZ | ripencc | 2020-01-01"] == texts("2.9.2.44.origin.asn.cymru.com")
    near = reverse("2a10:44:2009::2").replace(".ip6.arpa", ".origin6.asn.cymru.com")
    far = reverse("2a10:44:2009::9").replace(".ip6.arpa", ".origin6.asn.cymru.com")
    assert ["64501 | 2a10:44:2009::/126 | ZZ | ripencc | 2020-01-01"] == texts(near)
    assert ["64500 | 2a10:44:2000::/36 | DE | ripencc | 2020-01-01"] == texts(far)


def test_zeros_may_be_left_out() -> None:
    """The octets and nibbles at the end of an address may be left out where they are zero."""
    whole = texts("0.0.2.44.origin.asn.cymru.com")
    assert whole == texts("2.44.origin.asn.cymru.com") != []
    nibbles = reverse("2a10:44:2100::").removesuffix(".ip6.arpa")
    whole = texts(f"{nibbles}.origin6.asn.cymru.com")
    assert whole == texts("1.2.4.4.0.0.0.1.a.2.origin6.asn.cymru.com") != []


def test_systems_have_names() -> None:
    """A number leads to what the registry says and the name."""
    assert ["64500 | DE | ripencc | 2020-01-01 | WIDE - Wide Networks, DE"] == texts("AS64500.asn.cymru.com")
    assert ["64501 | ZZ | ripencc | 2020-01-01 | NARROW, ZZ"] == texts("as64501.asn.cymru.com")
    for name in ("AS64502.asn.cymru.com", "64500.asn.cymru.com", "AS064500.asn.cymru.com", "origin.asn.cymru.com"):
        assert dns.ENAME == ask(name, dns.TXT).rCode


@pytest.mark.parametrize(
    "name", ["1.2.3.4.5.origin.asn.cymru.com", "x.2.44.origin.asn.cymru.com", "10.a.2.origin6.asn.cymru.com"]
)
def test_what_is_no_address_has_no_origin(name: str) -> None:
    """A name in an origin zone that spells no address does not exist."""
    assert dns.ENAME == ask(name, dns.TXT).rCode


def header(flags: int, questions: int = 1) -> bytes:
    """The header of a query."""
    return struct.pack("!6H", 5, flags, questions, 0, 0, 0)


QUESTION = encode_name("small.named.test") + struct.pack("!HH", dns.A, dns.IN)


@pytest.mark.parametrize(
    ("query", "rcode"),
    [
        (header(0, 0), dns.EFORMAT),
        (header(0, 2) + QUESTION * 2, dns.EFORMAT),
        (header(0) + QUESTION[:-1], dns.EFORMAT),
        (header(0) + b"\xc0\x0c" + QUESTION, dns.EFORMAT),
        (header(0) + b"\x3f", dns.EFORMAT),
        (header(2 << 11) + QUESTION, dns.ENOTIMP),
        (header(0) + QUESTION[:-2] + struct.pack("!H", dns.CH), dns.EREFUSED),
        (header(0) + QUESTION, dns.OK),
    ],
)
def test_odd_queries_are_answered_with_a_code(query: bytes, rcode: int) -> None:
    """What cannot be answered is told so, under the id of the query."""
    message = read(NAMES.answer(query))
    assert (5, rcode, 1) == (message.id, message.rCode, message.answer)


def test_what_is_no_query_gets_no_answer() -> None:
    """Too short a datagram, or an answer, gets silence: two servers cannot keep each other busy."""
    assert None is NAMES.answer(b"\0" * 11)
    assert None is NAMES.answer(header(0x8000) + QUESTION)


def test_a_useless_server_says_so() -> None:
    """SERVFAIL comes with the question and no records."""
    message = read(NAMES.fail(header(0x0100) + QUESTION))
    assert (dns.ESERVER, 1, []) == (message.rCode, len(message.queries), message.answers)


def test_answers_longer_than_a_datagram_are_cut() -> None:
    """More than 512 bytes are announced as truncated, with no part of them."""
    name = ".".join(["x" * 60] * 8)
    long = {**DOCUMENT, "routers": {"1": {"name": name}}}
    message = ask(reverse("44.2.9.1"), dns.PTR, Names([load(long)]))
    assert (dns.OK, 1, []) == (message.rCode, message.trunc, message.answers)


def test_hostile_names_go_out_as_they_are() -> None:
    """What no name should be is sent as it is written: control characters, a script, far too many bytes."""
    names = Names([load("hostile_names")])
    found = [ask(reverse(f"44.1.25.{n}"), dns.PTR, names).answers[0].payload.name.name for n in range(1, 9)]
    assert b"<script>document.title=1</script>.example.net" == found[0]
    assert b"a\0\x1b[31m\r\nb\x07.example.net" == found[1]
    assert len(found[3]) > 253
    assert b"AE0.Core1.FRA.example.net" == found[7]
    (system,) = ask("AS64510.asn.cymru.com", dns.TXT, names).answers
    assert 2 == len(system.payload.data)
    assert b"64510 | ZZ | ripencc | 2020-01-01 | <img src=x onerror=document.title=2> \x07" in system.payload.data[0]


# --- over the wire -------------------------------------------------------------------------------------------


def ask_over_the_wire(lab: Lab, family: str, name: str, kind: int) -> dns.Message:
    """Ask the simulation's own name server through an ordinary socket. Raises TimeoutError."""
    query = dns.Message(99, recDes=1)
    query.queries = [dns.Query(name.encode(), kind)]
    kinds = {"ipv4": socket.AF_INET, "ipv6": socket.AF_INET6}
    with socket.socket(kinds[family], socket.SOCK_DGRAM) as asker:
        asker.settimeout(2)
        asker.connect((lab.address("dns", family), 53))
        asker.send(query.toStr())
        return read(asker.recv(4096))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_name_server_is_reached_by_both_families(lab: Lab, family: str) -> None:
    """One server knows the names of all loaded scenarios, also of those that came later and no more of those gone."""
    (found,) = ask_over_the_wire(lab, family, "hostile.demo.test", dns.A).answers
    assert lab.address("hostile", "ipv4") == found.payload.dottedQuad()
    lab.load(DOCUMENT)
    assert 1 == len(ask_over_the_wire(lab, family, "small.named.test", dns.A).answers)
    lab.unload("named")
    assert dns.ENAME == ask_over_the_wire(lab, family, "small.named.test", dns.A).rCode


def test_a_server_can_fail(lab: Lab) -> None:
    """A server can be made useless or silent while it runs."""
    lab.change("dns", udp_ports={"53": "dns-servfail"})
    assert dns.ESERVER == ask_over_the_wire(lab, "ipv4", "hostile.demo.test", dns.A).rCode
    lab.change("dns", lose={"first": 1}, udp_ports={"53": "dns"})
    with pytest.raises(TimeoutError):
        ask_over_the_wire(lab, "ipv4", "hostile.demo.test", dns.A)
    assert dns.OK == ask_over_the_wire(lab, "ipv4", "hostile.demo.test", dns.A).rCode
    lab.reset("dns")
