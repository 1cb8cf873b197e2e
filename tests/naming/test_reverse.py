"""Reverse names: what is shown, what is remembered and for how long, and that nothing waits for a silent server."""

from __future__ import annotations

import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, gatherResults
from twisted.names import dns
from twisted.trial.unittest import SynchronousTestCase, TestCase

from naming.scripted_dns import VirtualNetwork, Zone, ZoneServer, a, cname, ptr, reply, silent
from tracerouted.naming.dnsclient import DnsClient
from tracerouted.naming.reverse import ReverseNames, presentable

SERVER = ("192.0.2.53", 53)
ADDRESS, POINTER = "192.0.2.1", "1.2.0.192.in-addr.arpa"
NAME = "r1.example.net"


class ReverseNamesTests(SynchronousTestCase):
    """`ReverseNames` in a virtual network with one scripted server."""

    def setUp(self):
        self.net = VirtualNetwork()
        self.zone = self.net.servers[SERVER] = Zone({(POINTER, dns.PTR): [ptr(POINTER, NAME, ttl=3600)]})
        self.names = self.make()

    def make(self, **options):
        return ReverseNames(self.net, DnsClient(self.net, self.net, lambda: (SERVER,)), **options)

    def name(self, address=ADDRESS, wait=0.05):
        """The name of an address, which must be there within `wait` seconds."""
        d = self.names.hostname(address)
        self.net.run(wait)
        return self.successResultOf(d)

    def test_ipv4(self):
        """The PTR record of in-addr.arpa."""
        assert self.name() == NAME
        assert self.zone.asked == [(POINTER, dns.PTR)]

    def test_ipv6(self):
        """The PTR record of ip6.arpa, by nibbles (RFC 3596)."""
        pointer = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa"
        self.zone.entries[(pointer, dns.PTR)] = [ptr(pointer, "six.example.net")]
        assert self.name("2001:db8::1") == "six.example.net"

    def test_remembered_for_its_ttl(self):
        """A second asker gets the name at once and nobody is asked, until the record's TTL is over."""
        self.name()
        self.net.run(3590)
        assert self.successResultOf(self.names.hostname(ADDRESS)) == NAME
        assert len(self.zone.asked) == 1
        self.zone.entries[(POINTER, dns.PTR)] = [ptr(POINTER, "renamed.example.net")]
        self.net.run(10)
        assert self.name() == "renamed.example.net"
        assert len(self.zone.asked) == 2

    def test_ttl_bounds(self):
        """A TTL of 0 is kept for a minute, one of years for a day."""
        for ttl, kept in ((0, 60), (10**9, 86_400)):
            self.names = self.make()
            self.zone.entries[(POINTER, dns.PTR)] = [ptr(POINTER, NAME, ttl=ttl)]
            self.zone.asked.clear()
            self.name()
            self.net.run(kept - 1)
            self.name()
            assert len(self.zone.asked) == 1
            self.net.run(2)
            self.name()
            assert len(self.zone.asked) == 2

    def test_no_name_is_remembered(self):
        """That an address has no name (NXDOMAIN, or no PTR) is remembered for ten minutes."""
        self.zone.entries[("2.2.0.192.in-addr.arpa", dns.A)] = []
        for address in ("192.0.2.2", "192.0.2.3"):
            self.zone.asked.clear()
            assert self.name(address) is None
            self.net.run(590)
            assert self.successResultOf(self.names.hostname(address)) is None
            assert len(self.zone.asked) == 1
            self.net.run(10)
            assert self.name(address) is None
            assert len(self.zone.asked) == 2

    def test_failures_are_remembered_briefly(self):
        """SERVFAIL is no name, and is asked again after half a minute, when the name may be there."""
        good = self.zone.entries[(POINTER, dns.PTR)]
        self.zone.entries[(POINTER, dns.PTR)] = dns.ESERVER
        assert self.name() is None
        self.zone.entries[(POINTER, dns.PTR)] = good
        self.net.run(29)
        assert self.name() is None
        self.net.run(1)
        assert self.name() == NAME

    def test_silence(self):
        """A silent server is no name after 4 s; all is closed, and it is not asked again for half a minute."""
        self.net.servers[SERVER] = silent
        d = self.names.hostname(ADDRESS)
        self.net.run(3.99)
        self.assertNoResult(d)
        self.net.run(0.02)
        assert self.successResultOf(d) is None
        assert (self.net.ports, self.net.getDelayedCalls()) == ([], [])
        asked = len(self.net.sent)
        assert self.successResultOf(self.names.hostname(ADDRESS)) is None
        assert len(self.net.sent) == asked

    def test_a_late_answer_is_remembered(self):
        """Who no longer waits gets nothing, but the answer that then comes is there for the next."""
        d = self.names.hostname(ADDRESS)
        d.cancel()
        self.failureResultOf(d, CancelledError)
        self.net.run(0.05)
        assert self.successResultOf(self.names.hostname(ADDRESS)) == NAME

    def test_askers_share(self):
        """Many askers of one address make one question."""
        askers = [self.names.hostname(ADDRESS) for _ in range(50)]
        self.net.run(0.05)
        assert {self.successResultOf(d) for d in askers} == {NAME}
        assert len(self.zone.asked) == 1

    def test_bounds(self):
        """At most `concurrent` sockets are open whatever is asked, the queue drains in order, and what finds no room
        in it has no name, at once; that is not remembered."""
        self.names = self.make(concurrent=4, waiting=10)
        everybody = [f"192.0.2.{n}" for n in range(20)]
        for address in everybody:
            pointer = ".".join(reversed(address.split("."))) + ".in-addr.arpa"
            self.zone.entries[(pointer, dns.PTR)] = [ptr(pointer, f"r{address.replace('.', '-')}.example")]
        askers = [self.names.hostname(address) for address in everybody]
        assert [self.successResultOf(d) for d in askers[14:]] == [None] * 6
        self.net.run(0.1)
        assert [self.successResultOf(d) for d in askers[:14]] == [f"r192-0-2-{n}.example" for n in range(14)]
        assert self.net.most_ports == 4
        assert self.name(everybody[-1]) == "r192-0-2-19.example"

    def test_a_silent_zone_holds_up_others_only_by_its_places(self):
        """With one place hanging on a silent zone, names of other addresses keep coming through the others."""
        zone = self.zone
        self.net.servers[SERVER] = lambda query: None if b"9.9.9." in query.queries[0].name.name else zone(query)
        self.names = self.make(concurrent=2)
        hanging = self.names.hostname("9.9.9.9")
        for n in range(100):
            assert self.name(f"192.0.2.{n}", wait=0.02) == (NAME if n == 1 else None)
        self.assertNoResult(hanging)
        self.net.run(5)
        assert self.successResultOf(hanging) is None

    def test_everything_silent(self):
        """With every server silent each asker hears None within 5 s, those in the queue too."""
        self.net.servers[SERVER] = silent
        self.names = self.make(concurrent=2)
        askers = [self.names.hostname(f"192.0.2.{n}") for n in range(50)]
        self.net.run(5)
        assert [self.successResultOf(d) for d in askers] == [None] * 50
        self.net.run(5)
        assert (self.net.ports, self.net.getDelayedCalls()) == ([], [])

    def test_the_memory_is_bounded(self):
        """Only the addresses asked for last are remembered."""
        self.names = self.make(kept=3)
        for n in range(10):
            self.name(f"192.0.2.{n}")
        self.zone.asked.clear()
        for n in range(7, 10):
            self.name(f"192.0.2.{n}")
        assert self.zone.asked == []
        self.name("192.0.2.6")
        assert len(self.zone.asked) == 1

    def test_classless_delegation(self):
        """A CNAME in the reverse zone is followed (RFC 2317)."""
        alias = "1.0-25.2.0.192.in-addr.arpa"
        self.zone.entries[(POINTER, dns.PTR)] = [cname(POINTER, alias), ptr(alias, NAME)]
        assert self.name() == NAME

    def test_other_types_and_owners_are_no_names(self):
        """Records of another type, or of another address, are not taken for the name."""
        self.zone.entries[(POINTER, dns.PTR)] = [
            a(POINTER, "203.0.113.1"),
            ptr("2.2.0.192.in-addr.arpa", "liar.example"),
            ptr("example.net", "liar.example"),
        ]
        assert self.name() is None

    def test_several_names(self):
        """Of several names the same one is chosen in whatever order they come, and hostile ones do not hide it."""
        records = [ptr(POINTER, name) for name in ("b.example", "A.example", "<script>.example", "a..b")]
        for order in (records, records[::-1]):
            self.names = self.make()
            self.zone.entries[(POINTER, dns.PTR)] = order
            assert self.name() == "a.example"

    def test_hostile_names(self):
        """A name that is not letters, digits, hyphens and underscores is no name, and is remembered as such."""
        for target in (
            b"<script>alert(1)</script>.example",
            b"a b.example",
            b"r\x00.example",
            b"r\n.example",
            b"\xff.ex",
        ):
            self.names = self.make()
            self.zone.asked.clear()
            self.zone.entries[(POINTER, dns.PTR)] = [ptr(POINTER, target)]
            assert self.name() is None
            assert self.successResultOf(self.names.hostname(ADDRESS)) is None
            assert len(self.zone.asked) == 1

    def test_stop(self):
        """Stopping ends every wait with CancelledError and leaves no socket and no timer."""
        self.net.servers[SERVER] = silent
        self.names = self.make(concurrent=2)
        askers = [self.names.hostname(f"192.0.2.{n}") for n in range(5)]
        self.names.stop()
        for d in askers:
            self.failureResultOf(d, CancelledError)
        assert (self.net.ports, self.net.getDelayedCalls()) == ([], [])


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"r1.example.net", "r1.example.net"),
        (b"R1.Example.NET.", "r1.example.net"),
        (b"_dmarc.ge-0-0-1.core_2.example", "_dmarc.ge-0-0-1.core_2.example"),
        (b"xn--bcher-kva.example", "xn--bcher-kva.example"),
        (b"localhost", "localhost"),
        (b"1.2.3.4.dsl.example", "1.2.3.4.dsl.example"),
        (b"192.0.2.1", None),
        (b"5", None),
        (b"a" * 63 + b".example", "a" * 63 + ".example"),
        (b"a" * 64 + b".example", None),
        (b".".join([b"a" * 62] * 4) + b".", ".".join(["a" * 62] * 4)),
        (b".".join([b"a" * 62] * 4) + b".aa", None),
        (b"", None),
        (b".", None),
        (b"a..b", None),
        (b"a.example..", None),
        (b"-a.example", None),
        (b"a-.example", None),
        (b"a b.example", None),
        (b"a\n", None),
        (b"a.example\n", None),
        (b"r\xc3\xa9.example", None),
        (b"a/b.example", None),
        ("İ.example".encode(), None),
    ],
)
def test_presentable(name, shown):
    """What is shown of a name, and what is not one."""
    assert presentable(name) == shown


@given(st.one_of(st.binary(max_size=300), st.text(string.printable, max_size=300).map(str.encode)))
@example(b"K\xe2\x84\xaa.example")
def test_presentable_is_harmless(name):
    """Whatever the bytes, what is shown holds only letters, digits, hyphens, underscores and dots, within 253."""
    shown = presentable(name)
    if shown is not None:
        assert set(shown) <= set(string.ascii_lowercase + string.digits + "-_.")
        assert 1 <= len(shown) <= 253
        assert all(1 <= len(label) <= 63 for label in shown.split("."))
        assert presentable(shown.encode()) == shown


class LoopbackTests(TestCase):
    """`ReverseNames` and name servers on loopback, over real sockets."""

    timeout = 20

    def listen(self, answer):
        port = reactor.listenUDP(0, ZoneServer(answer), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        return port.getHost().host, port.getHost().port

    def test_real_sockets(self):
        """Names come over real sockets while a look-up of another address hangs, which stopping then ends."""
        zone = Zone({(POINTER, dns.PTR): [ptr(POINTER, NAME)]})

        def answer(query):
            return None if query.queries[0].name.name.startswith(b"9.") else zone(query)

        server = self.listen(answer)
        names = ReverseNames(
            reactor, DnsClient(reactor, reactor, lambda: (server,), deadline_s=60.0), deadline_s=60.0
        )
        hanging = names.hostname("192.0.2.9")

        def check(found):
            assert found == [NAME, None]
            names.stop()
            return self.assertFailure(hanging, CancelledError)

        return gatherResults([names.hostname(ADDRESS), names.hostname("192.0.2.2")]).addCallback(check)

    def test_many_at_once(self):
        """Hundreds of addresses asked at once all get their own name through a bounded number of sockets."""

        def answer(query):
            pointer = query.queries[0].name.name.decode()
            return reply(query, [ptr(pointer, "n" + pointer.split(".")[0] + ".example")])

        server = self.listen(answer)
        names = ReverseNames(
            reactor, DnsClient(reactor, reactor, lambda: (server,), deadline_s=15.0), deadline_s=15.0
        )
        d = gatherResults([names.hostname(f"192.0.2.{n}") for n in range(256)])

        def check(found):
            assert found == [f"n{n}.example" for n in range(256)]

        return d.addCallback(check)
