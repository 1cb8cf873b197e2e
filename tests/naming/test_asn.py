"""AS numbers from Team Cymru's zones, played by a scripted name server; and what passes for a number and a name."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.names import dns
from twisted.trial.unittest import SynchronousTestCase

from naming.scripted_dns import VirtualNetwork, Zone, record, silent
from tracerouted.model import Asn
from tracerouted.naming import asn
from tracerouted.naming.dnsclient import Answer, DnsClient

SERVER = ("192.0.2.53", 53)
V4, V6 = "203.0.114.7", "2606:4700::1"
V4_NAME = "7.114.0.203.origin.asn.cymru.com"
V6_NAME = ".".join(reversed(ip_address(V6).exploded.replace(":", ""))) + ".origin6.asn.cymru.com"


def txt(name, *texts, ttl=14_400):
    """One TXT record; several texts are its strings."""
    return record(
        name, dns.Record_TXT(*(text if isinstance(text, bytes) else text.encode() for text in texts), ttl=ttl)
    )


def answer(*texts):
    """An answer of TXT records, each of one text."""
    return Answer(tuple(txt("x", text).payload for text in texts), 300)


# --- numbers and names -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (64500, 64500),
        ("64500", 64500),
        ("AS64500", 64500),
        ("as4294967295", 4_294_967_295),
        (4_294_967_296, None),
        ("AS99999999999999999999", None),
        (0, None),
        (-1, None),
        (True, None),
        (64500.0, None),
        ("", None),
        ("AS", None),
        ("\u0664\u0665", None),
        (None, None),
    ],
)
def test_numbers(value, expected):
    """A number is from 1 to 2^32 - 1, as an int or as text with or without AS."""
    assert expected == asn.as_number(value)


@given(st.text() | st.none() | st.integers())
def test_names_are_plain_text(value):
    """Whatever an owner wrote, a name is printable, bounded, and has no space at its ends; nothing left is None."""
    name = asn.as_name(value)
    if name is not None:
        assert isinstance(value, str)
        assert name.isprintable()
        assert 1 <= len(name) <= asn.MOST_NAME
        assert name == name.strip()


def test_a_name_keeps_its_words():
    """Ordinary names pass unchanged, others in other scripts too; line ends and marks of direction become spaces."""
    assert "EXAMPLE-AS Example, Inc., ZZ" == asn.as_name("EXAMPLE-AS Example, Inc., ZZ")
    assert "Universität Zürich" == asn.as_name(" Universität\tZürich\r\n")
    assert "A B C" == asn.as_name("A\u202eB\x1b\x00C")
    assert asn.as_name("\u200b\n") is None


# --- what the zones say ------------------------------------------------------------------------------------------


def test_names_asked():
    """IPv4 addresses are asked about in reverse, IPv6 addresses nibble by nibble, each in its zone."""
    assert V4_NAME == asn.origin_name(ip_address(V4))
    assert V6_NAME == asn.origin_name(ip_address(V6))
    assert 32 == V6_NAME.removesuffix(".origin6.asn.cymru.com").count(".") + 1


def origin(*texts, address=V4):
    return asn.origin_in(answer(*texts), ip_address(address))


def test_origin():
    """The number stands before the first bar, whatever follows the prefix."""
    assert 64500 == origin("64500 | 203.0.114.0/24 | ZZ | arin | 2001-01-01")
    assert 64500 == origin("64500 | 203.0.114.0/24")
    assert 64500 == origin("64500 | 2606:4700::/32 | ZZ | arin | ", address=V6)


def test_most_specific_prefix():
    """Of several prefixes the longest counts, in whatever order they come."""
    wide, narrow = "64500 | 203.0.0.0/16 | ZZ", "64501 | 203.0.114.0/24 | ZZ"
    assert 64501 == origin(wide, narrow) == origin(narrow, wide)


def test_several_origins():
    """Of several origins of one prefix, in one record or two, it is the least: the same one every time."""
    assert 64500 == origin("64501 64500 | 203.0.114.0/24 | ZZ")
    one, two = "64501 | 203.0.114.0/24", "64500 | 203.0.114.0/24"
    assert 64500 == origin(one, two) == origin(two, one)


def test_prefixes_of_others():
    """A prefix that does not hold the address, of the other family, or that is none, says nothing."""
    assert origin("64500 | 198.51.0.0/16 | ZZ") is None
    assert origin("64500 | ::/0 | ZZ") is None
    assert origin("64500 | 203.0.114.7/33") is None
    assert origin("NA | 203.0.114.0/24", "64500", "", "| |") is None
    assert 64500 == origin("nonsense", "64500 | 203.0.114.0/24")


@given(st.lists(st.binary(max_size=300), max_size=4))
def test_hostile_texts(texts):
    """Whatever bytes a record holds, reading it raises nothing and gives a number, or a name fit to be shown."""
    records = Answer(tuple(dns.Record_TXT(*(text[:255] for text in texts)) for _ in range(2)), 300)
    number = asn.origin_in(records, ip_address(V4))
    name = asn.name_in(records, 64500)
    assert number is None or 0 < number <= asn.MOST_NUMBER
    assert name is None or (name.isprintable() and len(name) <= asn.MOST_NAME)


def test_name():
    """The name is what follows the fourth bar, bars in it included; records about another system are passed over."""
    assert "EXAMPLE-AS Example, ZZ" == asn.name_in(
        answer("64500 | ZZ | arin | 2001-01-01 | EXAMPLE-AS Example, ZZ"), 64500
    )
    assert "A|B" == asn.name_in(answer("64500 | ZZ | arin | 2001-01-01 | A | B"), 64500)
    assert asn.name_in(answer("64501 | ZZ | arin | 2001-01-01 | OTHER"), 64500) is None
    assert asn.name_in(answer("64500 | ZZ"), 64500) is None


# --- asking ------------------------------------------------------------------------------------------------------


class ZonesTests(SynchronousTestCase):
    """`AsnZones` over a virtual network."""

    def setUp(self):
        self.network = VirtualNetwork()
        self.zone = Zone(
            {
                (V4_NAME, dns.TXT): [txt(V4_NAME, "64500 | 203.0.114.0/24 | ZZ | arin | 2001-01-01")],
                (V6_NAME, dns.TXT): [txt(V6_NAME, "64500 | 2606:4700::/32 | ZZ", " | arin | 2001-01-01")],
                ("as64500.asn.cymru.com", dns.TXT): [
                    txt("AS64500.asn.cymru.com", "64500 | ZZ | arin | 2001-01-01 | EXAMPLE, ZZ")
                ],
            }
        )
        self.network.servers[SERVER] = self.zone
        client = DnsClient(self.network, self.network, lambda: (SERVER,))
        self.zones = asn.AsnZones(self.network, client)

    def found(self, address, seconds=0.1):
        d = self.zones.asn(address)
        self.network.run(seconds)
        return self.successResultOf(d)

    def test_both_families(self):
        """A number and its name for an IPv4 and an IPv6 address; the name is asked for once."""
        assert Asn(64500, "EXAMPLE, ZZ") == self.found(V4) == self.found(V6)
        assert 3 == len(self.zone.asked)

    def test_remembered(self):
        """What is known needs no question and no wait, until its time is over."""
        self.found(V4)
        asked = len(self.zone.asked)
        assert Asn(64500, "EXAMPLE, ZZ") == self.successResultOf(self.zones.asn(V4))
        assert asked == len(self.zone.asked)
        self.network.run(14_401)
        assert Asn(64500, "EXAMPLE, ZZ") == self.found(V4)
        assert 2 * asked == len(self.zone.asked)

    def test_bounded(self):
        """No more than `kept` answers are remembered."""
        self.zones = asn.AsnZones(self.network, DnsClient(self.network, self.network, lambda: (SERVER,)), kept=2)
        for last in range(5):
            self.found(f"203.0.115.{last}")
        asked = len(self.zone.asked)
        self.found("203.0.115.4")
        assert asked == len(self.zone.asked)
        self.found("203.0.115.0")
        assert asked + 1 == len(self.zone.asked)

    def test_nobody_announces_it(self):
        """An address without an origin is None, and stays so for a while without being asked about again."""
        assert self.found("203.0.115.1") is None
        self.network.run(asn.NO_ORIGIN_TTL_S - 1)
        assert self.successResultOf(self.zones.asn("203.0.115.1")) is None
        assert 1 == len(self.zone.asked)

    def test_special_addresses_are_not_asked_about(self):
        """Private, shared, loopback, link-local, documentation and unique local addresses stay in the house."""
        for address in (
            "10.0.0.1",
            "172.16.5.5",
            "192.168.1.1",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.1.1",
            "192.0.2.1",
            "::1",
            "fe80::1",
            "fd00::1",
            "2001:db8::1",
        ):
            assert self.successResultOf(self.zones.asn(address)) is None
        assert [] == self.network.sent

    def test_name_server_silent_about_the_name(self):
        """A number is told without its name when that does not come within a second; the name comes later."""
        self.network.servers[SERVER] = lambda query: (
            None if query.queries[0].name.name.lower().startswith(b"as") else self.zone(query)
        )
        d = self.zones.asn(V4)
        self.network.run(0.9)
        self.assertNoResult(d)
        self.network.run(0.2)
        assert Asn(64500, None) == self.successResultOf(d)
        self.network.run(5)
        self.network.servers[SERVER] = self.zone
        assert Asn(64500, None) == self.successResultOf(self.zones.asn(V4))
        self.network.run(asn.NO_ANSWER_TTL_S)
        assert Asn(64500, "EXAMPLE, ZZ") == self.found(V4)

    def test_no_such_name(self):
        """A system whose name is not known is a number."""
        del self.zone.entries["as64500.asn.cymru.com", dns.TXT]
        assert Asn(64500, None) == self.found(V4)

    def test_silent_servers(self):
        """Without answers there is None after at most five seconds, for every address at once."""
        self.network.servers[SERVER] = silent
        asked = [self.zones.asn(f"203.0.114.{last}") for last in range(100)]
        self.network.run(5.01)
        assert [None] * 100 == [self.successResultOf(d) for d in asked]
        assert 32 >= self.network.most_ports

    def test_shared(self):
        """Asking twice at once asks once; cancelling one question leaves the other."""
        one, other = self.zones.asn(V4), self.zones.asn(V4)
        one.cancel()
        self.failureResultOf(one, CancelledError)
        self.network.run(0.1)
        assert Asn(64500, "EXAMPLE, ZZ") == self.successResultOf(other)
        assert 2 == len(self.zone.asked)

    def test_stop(self):
        """After `stop` nothing is open, waiting or due, and whoever waited knows."""
        self.network.servers[SERVER] = silent
        d = self.zones.asn(V4)
        self.zones.stop()
        self.failureResultOf(d, CancelledError)
        assert [] == self.network.ports
        assert [] == self.network.getDelayedCalls()


class EitherTests(SynchronousTestCase):
    """Two sources as one."""

    def test_the_second_fills_gaps(self):
        """The second is asked only about what the first does not know."""
        second = Deferred()
        source = asn.either(lambda address: succeed(Asn(64500, "A") if address == V4 else None), lambda _: second)
        assert Asn(64500, "A") == self.successResultOf(source(V4))
        d = source(V6)
        self.assertNoResult(d)
        second.callback(Asn(64501, "B"))
        assert Asn(64501, "B") == self.successResultOf(d)
