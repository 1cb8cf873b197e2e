"""Questions to name servers: what counts as an answer, whom to ask next, and that nothing stays open."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import CancelledError
from twisted.names import dns
from twisted.trial.unittest import SynchronousTestCase, TestCase

from naming.scripted_dns import VirtualNetwork, Zone, a, cname, ptr, reply, silent
from tracerouted.naming.dnsclient import DnsClient, SystemServers, system_servers
from tracerouted.naming.errors import NoAnswer, NoSuchName

ONE, TWO, THREE = ("192.0.2.1", 53), ("192.0.2.2", 53), ("2001:db8::3", 5353)
NAME = "r1.example.net"


class DnsClientTests(SynchronousTestCase):
    """`DnsClient` in a virtual network; after each test nothing is open and no timer runs."""

    def setUp(self):
        self.net = VirtualNetwork()
        self.zone = Zone({(NAME, dns.A): [a(NAME, "203.0.113.1", ttl=60)]})
        self.addCleanup(self.check_clean)

    def check_clean(self):
        assert self.net.ports == []
        self.net.run(self.net.latency)  # answers still on their way to closed sockets
        assert self.net.getDelayedCalls() == []

    def ask(self, servers=(ONE,), name=NAME, kind=dns.A):
        return DnsClient(self.net, self.net, lambda: servers, deadline_s=6.0).ask(name, kind)

    def addresses(self, d):
        return [record.dottedQuad() for record in self.successResultOf(d).records]

    def test_answer(self):
        """The records asked for, with their TTL, as soon as they arrive."""
        self.net.servers[ONE] = self.zone
        d = self.ask()
        self.assertNoResult(d)
        self.net.run(0.02)
        answer = self.successResultOf(d)
        assert [record.dottedQuad() for record in answer.records] == ["203.0.113.1"]
        assert answer.ttl == 60

    def test_no_data(self):
        """A name without records of the type gives an empty answer, not a failure."""
        self.net.servers[ONE] = self.zone
        d = self.ask(kind=dns.AAAA)
        self.net.run(0.02)
        assert self.successResultOf(d).records == ()

    def test_no_such_name(self):
        """NXDOMAIN is final: no other server is asked."""
        self.net.servers[ONE] = self.net.servers[TWO] = self.zone
        d = self.ask((ONE, TWO), "nothing.example.net")
        self.net.run(0.02)
        assert "nothing.example.net" in str(self.failureResultOf(d, NoSuchName).value)
        assert [peer for _, peer in self.net.sent] == [ONE]

    def test_impossible_names_are_not_asked(self):
        """A name that no DNS message can carry does not exist, and no packet is sent."""
        for name in ("a" * 64 + ".example", ".".join(["a" * 60] * 5), "a..b", ".a", ""):
            self.failureResultOf(self.ask(name=name), NoSuchName)
        assert self.net.sent == []

    def test_a_silent_server(self):
        """Silence fails at the deadline, not later and not much earlier, after asking twice."""
        self.net.servers[ONE] = silent
        d = self.ask()
        self.net.run(5.98)
        self.assertNoResult(d)
        self.net.run(0.04)
        assert "did not answer within TRACEROUTED_DNS_DEADLINE_S" in str(self.failureResultOf(d, NoAnswer).value)
        assert [(round(at), peer) for at, peer in self.net.sent] == [(0, ONE), (3, ONE)]

    def test_many_silent_servers_share_the_deadline(self):
        """The deadline does not grow with the number of servers; all are asked, in order, twice."""
        self.net.servers.update(dict.fromkeys((ONE, TWO, THREE), silent))
        d = self.ask((ONE, TWO, THREE, ONE))
        self.net.run(6.02)
        self.failureResultOf(d, NoAnswer)
        assert [peer for _, peer in self.net.sent] == [ONE, TWO, THREE] * 2
        assert [round(at) for at, _ in self.net.sent] == [0, 1, 2, 3, 4, 5]
        assert self.net.most_ports == 3

    def test_the_next_server_helps(self):
        """A silent first server delays the answer of the second by its share of the deadline only."""
        self.net.servers.update({ONE: silent, TWO: self.zone})
        d = self.ask((ONE, TWO))
        self.net.run(1.6)
        assert self.addresses(d) == ["203.0.113.1"]

    def test_a_slow_server_counts_after_its_turn(self):
        """An answer that comes while another server is being asked counts."""
        self.net.latency = 2.0
        self.net.servers.update({ONE: self.zone, TWO: silent})
        d = self.ask((ONE, TWO))
        self.net.run(2.1)
        assert self.addresses(d) == ["203.0.113.1"]

    def test_servers_that_cannot_answer(self):
        """SERVFAIL, REFUSED, a closed port and no route lead to the next server at once; the last trouble is told."""
        self.net.servers[TWO] = self.zone
        for trouble, words in (
            (lambda query: reply(query, rcode=dns.ESERVER), "SERVFAIL"),
            (lambda query: reply(query, rcode=dns.EREFUSED), "REFUSED"),
            (lambda query: reply(query, rcode=14), "14"),
            (None, "refused the connection"),
        ):
            self.net.servers[ONE] = trouble
            d = self.ask((ONE, TWO))
            self.net.run(0.05)
            assert self.addresses(d) == ["203.0.113.1"]
            d = self.ask((ONE,))
            self.net.run(0.05)
            assert words in str(self.failureResultOf(d, NoAnswer).value)
        self.net.unreachable.add(ONE[0])
        self.failureResultOf(self.ask((ONE,)), NoAnswer)
        d = self.ask((ONE, TWO))
        self.net.run(0.05)
        assert self.addresses(d) == ["203.0.113.1"]

    def test_a_late_failure_of_an_earlier_server(self):
        """A server that fails after its turn is not asked again; the one whose turn it is keeps its time."""
        self.net.latency = 2.0
        self.net.servers.update({ONE: lambda query: reply(query, rcode=dns.ESERVER), TWO: silent})
        d = self.ask((ONE, TWO))
        self.net.run(5)
        assert self.net.sent == [(0, ONE), (1.5, TWO), (3.0, TWO)]
        self.failureResultOf(d, NoAnswer)

    def test_no_servers(self):
        """Without any server the question fails at once."""
        self.failureResultOf(self.ask(()), NoAnswer)

    def test_no_socket(self):
        """When no socket can be had the question fails at once."""
        self.net.sockets = 0
        assert "Too many open files" in str(self.failureResultOf(self.ask((ONE, TWO)), NoAnswer).value)

    def test_sockets_are_of_the_servers_family(self):
        """An IPv6 server is asked from an IPv6 socket, at its own port."""
        self.net.servers[THREE] = self.zone
        d = self.ask((THREE,))
        assert [(port.interface, port.peer) for port in self.net.ports] == [("::", THREE)]
        self.net.run(0.02)
        assert self.addresses(d) == ["203.0.113.1"]

    def test_cancelling(self):
        """Cancelling closes the sockets and stops asking."""
        self.net.servers.update({ONE: silent, TWO: silent})
        d = self.ask((ONE, TWO))
        self.net.run(2)
        d.cancel()
        self.failureResultOf(d, CancelledError)
        assert self.net.ports == []
        self.net.run(5)
        assert len(self.net.sent) == 2

    def test_forgeries_are_ignored(self):
        """A wrong id, another question, a query in place of a response, and garbage are passed over; the true
        answer counts."""

        def changed(query, **changes):
            message = reply(query, [a(NAME, "198.51.100.66")])
            for attribute, value in changes.items():
                setattr(message, attribute, value)
            return message

        def server(query):
            return [
                changed(query, id=query.id ^ 1),
                changed(query, queries=[dns.Query(b"other.example.net", dns.A)]),
                changed(query, queries=[dns.Query(NAME.encode(), dns.AAAA)]),
                changed(query, queries=[]),
                changed(query, answer=0),
                b"",
                b"\xff" * 40,
                struct.pack("!6H", query.id, 0x8180, 1, 1, 0, 0) + b"\xc0\x0c\x00\x01\x00\x01",  # points at itself
                self.zone(query),
                self.zone(query),
            ]

        self.net.servers[ONE] = server
        d = self.ask()
        self.net.run(0.02)
        assert self.addresses(d) == ["203.0.113.1"]

    def test_records_of_other_types_and_names_do_not_count(self):
        """Only records of the type asked for, owned by the name asked for, are taken."""
        chaos = a(NAME, "198.51.100.66")
        chaos.cls = dns.CH
        others = [ptr(NAME, "liar.example"), a("other.example", "198.51.100.66"), chaos]
        self.net.servers[ONE] = lambda query: reply(query, [*others, a(NAME.upper(), "203.0.113.1")])
        d = self.ask()
        self.net.run(0.02)
        assert self.addresses(d) == ["203.0.113.1"]

    def test_aliases(self):
        """Aliases are followed in whatever order they come, and the least TTL on the way counts."""
        self.net.servers[ONE] = lambda query: reply(
            query,
            [a("c.example", "203.0.113.1", 900), cname("b.example", "c.example", 7), cname(NAME, "b.example", 800)],
        )
        d = self.ask()
        self.net.run(0.02)
        answer = self.successResultOf(d)
        assert (len(answer.records), answer.ttl) == (1, 7)

    def test_aliases_that_lead_nowhere(self):
        """Aliases in a circle, in an endless chain, or to a name without records give an empty answer."""
        chain = [cname(f"{n}.example", f"{n + 1}.example") for n in range(20)]
        for answers in (
            [cname(NAME, NAME)],
            [cname(NAME, "b.example"), cname("b.example", NAME)],
            [cname(NAME, "b.example")],
            [cname(NAME, "0.example"), *chain, a("20.example", "203.0.113.1")],
        ):
            self.net.servers[ONE] = lambda query, answers=answers: reply(query, answers)
            d = self.ask()
            self.net.run(0.02)
            assert self.successResultOf(d).records == ()

    def test_truncated_answers(self):
        """A truncated answer counts for what it holds; an empty one says nothing, and the next server is asked."""
        self.net.servers[TWO] = lambda query: reply(query, [a(NAME, "203.0.113.1")], trunc=1)
        self.net.servers[ONE] = lambda query: reply(query, trunc=1)
        d = self.ask((ONE, TWO))
        self.net.run(0.05)
        assert self.addresses(d) == ["203.0.113.1"]
        d = self.ask((ONE,))
        self.net.run(0.05)
        assert "too long" in str(self.failureResultOf(d, NoAnswer).value)

    def test_ids_vary(self):
        """Each question has an id of its own choosing and the recursion bit."""
        seen = []

        def server(query):
            seen.append((query.id, query.recDes))
            return self.zone(query)

        self.net.servers[ONE] = server
        for _ in range(50):
            self.ask()
        self.net.run(0.02)
        assert len({number for number, _ in seen}) > 40
        assert {recursion for _, recursion in seen} == {1}


@given(
    st.binary(max_size=60), st.lists(st.tuples(st.integers(0, 70), st.integers(0, 255)), max_size=6), st.booleans()
)
def test_hostile_bytes_never_raise_or_leak(garbage, changes, prefixed):
    """Whatever a server sends, the question ends as an answer or a known failure within its deadline, all closed."""
    net = VirtualNetwork()

    def server(query):
        raw = bytearray(reply(query, [a(NAME, "203.0.113.1"), cname(NAME, "b.example")]).toStr())
        for position, value in changes:
            raw[position % len(raw)] = value
        return [bytes(raw), struct.pack("!H", query.id) + garbage if prefixed else garbage]

    net.servers[ONE] = server
    results = []
    DnsClient(net, net, lambda: (ONE,), deadline_s=1.0).ask(NAME, dns.A).addBoth(results.append)
    net.run(1.1)
    (result,) = results
    assert hasattr(result, "records") or result.check(NoAnswer, NoSuchName)
    assert net.ports == []
    assert net.getDelayedCalls() == []


class ClosedPortTests(TestCase):
    """`DnsClient` on the real reactor."""

    timeout = 20

    def test_closed_port(self):
        """A closed port on this machine fails by its ICMP error, and the reactor is left clean."""
        client = DnsClient(reactor, reactor, lambda: (("127.0.0.1", 1),), deadline_s=60.0)
        return self.assertFailure(client.ask(NAME, dns.A), NoAnswer)


@pytest.mark.parametrize(
    ("text", "servers"),
    [
        (
            "# c\nsearch example.net\nnameserver 192.0.2.53\n  nameserver\t2001:db8::53 ; no\noptions rotate\n",
            (("192.0.2.53", 53), ("2001:db8::53", 53)),
        ),
        ("nameserver\nnameserver example\nnameservers 192.0.2.1\n", (("127.0.0.1", 53),)),
        ("", (("127.0.0.1", 53),)),
        (None, (("127.0.0.1", 53),)),
    ],
)
def test_resolv_conf(tmp_path, text, servers):
    """The servers of resolv.conf(5) in order; this machine where there are none."""
    path = tmp_path / "resolv.conf"
    if text is not None:
        path.write_text(text)
    assert system_servers(path) == servers


def test_resolv_conf_is_read_again(tmp_path):
    """A changed file counts after a while, without a timer of its own; until then it is not opened."""
    path = tmp_path / "resolv.conf"
    path.write_text("nameserver 192.0.2.1\n")
    clock = VirtualNetwork()
    servers = SystemServers(clock, path, every_s=30)
    assert servers() == (ONE,)
    path.write_text("nameserver 192.0.2.2\n")
    clock.advance(29)
    assert servers() == (ONE,)
    clock.advance(1)
    assert servers() == (TWO,)
    assert clock.getDelayedCalls() == []
