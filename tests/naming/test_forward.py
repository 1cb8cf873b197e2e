"""Host names to addresses: order, families, deadlines, bounds, and the words of each failure."""

from __future__ import annotations

import re
import socket
import threading
from ipaddress import ip_address

from twisted.internet import reactor
from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock
from twisted.names import dns
from twisted.trial.unittest import SynchronousTestCase, TestCase

from naming.scripted_dns import VirtualNetwork, Zone, ZoneServer, a, aaaa, cname, silent
from tracerouted.model import Family
from tracerouted.naming.dnsclient import DnsClient
from tracerouted.naming.errors import NoAddress, NoAnswer, NoSuchName, TooManyLookUps
from tracerouted.naming.forward import Resolver, server_look_up, system_look_up

V4, V6 = Family.IPV4, Family.IPV6
SERVER = ("192.0.2.53", 53)


def addresses(*texts):
    return tuple(ip_address(text) for text in texts)


class ThreadReactor(Clock):
    """A clock whose threads are functions that a test runs when it likes."""

    def __init__(self):
        super().__init__()
        self.work = []
        self.threads_left = 1000

    def in_thread(self, work):
        if not self.threads_left:
            raise RuntimeError("can't start new thread")
        self.threads_left -= 1
        self.work.append(work)

    def callFromThread(self, function, *args):
        self.callLater(0, function, *args)

    def finish(self, index=0):
        self.work.pop(index)()
        self.advance(0)


class SystemTests(SynchronousTestCase):
    """`Resolver` over a scripted getaddrinfo in threads that tests run by hand."""

    def setUp(self):
        self.reactor = ThreadReactor()
        self.found = {}
        self.asked = []

    def getaddrinfo(self, *args):
        self.asked.append(args)
        found = self.found[args[0].decode()]
        if isinstance(found, Exception):
            raise found
        return [
            (socket.AF_INET6 if ":" in text else socket.AF_INET, socket.SOCK_DGRAM, 17, "", (text, 0))
            for text in found
        ]

    def resolver(self, **options):
        look_up = system_look_up(self.reactor, self.getaddrinfo, self.reactor.in_thread)
        return Resolver(self.reactor, look_up, **options)

    def resolve(self, host, family=None):
        d = self.resolver().resolve(host, family)
        self.reactor.finish()
        return d

    def test_order_and_doubles(self):
        """Addresses keep the resolver's order, and each comes once."""
        self.found["h.example"] = ["2001:db8::2", "192.0.2.1", "2001:db8::1", "192.0.2.1", "2001:db8:0::2"]
        expected = addresses("2001:db8::2", "192.0.2.1", "2001:db8::1")
        assert expected == self.successResultOf(self.resolve("h.example"))

    def test_one_family(self):
        """Asked for one family, addresses of the other are left out."""
        self.found["h.example"] = ["2001:db8::2", "192.0.2.1"]
        assert addresses("192.0.2.1") == self.successResultOf(self.resolve("h.example", V4))
        assert addresses("2001:db8::2") == self.successResultOf(self.resolve("h.example", V6))

    def test_zones_are_dropped(self):
        """A link-local answer comes without its zone."""
        self.found["h.example"] = ["fe80::1%eth0"]
        assert addresses("fe80::1") == self.successResultOf(self.resolve("h.example"))

    def test_what_getaddrinfo_is_asked(self):
        """It is asked once for both families with the name as bytes, which keeps Python's IDNA codec out."""
        self.found["h.example"] = ["192.0.2.1"]
        self.resolve("H.example", V4)
        assert self.asked == [(b"h.example", None, socket.AF_UNSPEC, socket.SOCK_DGRAM)]

    def test_failures(self):
        """Each way of failing has its own type, and words that name the host."""
        cases = [
            (socket.gaierror(socket.EAI_NONAME, "x"), NoSuchName, "there is no name h.example"),
            (socket.gaierror(socket.EAI_NODATA, "x"), NoAddress, "h.example has no address"),
            (socket.gaierror(socket.EAI_AGAIN, "x"), NoAnswer, "could not answer about h.example"),
            (socket.gaierror(socket.EAI_FAIL, "Non-recoverable"), NoAnswer, "h.example .*Non-recoverable"),
            (OSError(24, "Too many open files"), NoAnswer, "h.example .*Too many open files"),
            ([], NoAddress, "h.example has no address"),
        ]
        for found, kind, words in cases:
            self.found["h.example"] = found
            assert re.search(words, str(self.failureResultOf(self.resolve("h.example"), kind).value))
        self.found["h.example"] = ["192.0.2.1"]
        assert "h.example has no IPv6 address" in str(self.failureResultOf(self.resolve("h.example", V6), NoAddress))
        assert self.reactor.getDelayedCalls() == []

    def test_a_name_that_is_not_ascii(self):
        """A name that was not turned into ASCII does not exist."""
        self.failureResultOf(self.resolve("é.example"), NoSuchName)

    def test_no_thread(self):
        """When the system gives no thread the look-up fails, with words."""
        self.reactor.threads_left = 0
        d = self.resolver().resolve("h.example")
        assert "can't start new thread" in str(self.failureResultOf(d, NoAnswer).value)

    def test_deadline(self):
        """After 5 s the asker hears so, and a thread that returns later disturbs nobody."""
        self.found["h.example"] = ["192.0.2.1"]
        d = self.resolver().resolve("h.example")
        self.reactor.advance(4.999)
        self.assertNoResult(d)
        self.reactor.advance(0.001)
        assert str(self.failureResultOf(d, NoAnswer).value) == (
            "no answer about h.example within 5 s (TRACEROUTED_DNS_DEADLINE_S)"
        )
        self.reactor.finish()
        assert self.reactor.getDelayedCalls() == []

    def test_hanging_threads_keep_their_places(self):
        """With every thread hanging, another name fails after its deadline with words that name the setting, and
        is looked up again once a thread returns."""
        self.found.update({name: ["192.0.2.1"] for name in ("a.example", "b.example", "c.example")})
        resolver = self.resolver(concurrent=2)
        hanging = [resolver.resolve(name) for name in ("a.example", "b.example")]
        self.reactor.advance(5)
        for d in hanging:
            self.failureResultOf(d, NoAnswer)
        waiting = resolver.resolve("c.example")
        self.reactor.advance(5)
        words = str(self.failureResultOf(waiting, NoAnswer).value)
        assert re.match(
            r"c.example was not looked up within 5 s .*: 2 other look-ups.*TRACEROUTED_DNS_LOOKUPS", words
        )
        assert len(self.reactor.work) == 2
        d = resolver.resolve("c.example")
        self.reactor.finish()
        self.reactor.finish(1)
        assert addresses("192.0.2.1") == self.successResultOf(d)

    def test_too_many(self):
        """Past the threads and the queue a name is refused at once, naming the setting; askers of one name share."""
        resolver = self.resolver(concurrent=1, waiting=1)
        shared = [resolver.resolve(name) for name in ("a.example", "A.EXAMPLE", "b.example", "b.example")]
        refused = resolver.resolve("c.example")
        words = str(self.failureResultOf(refused, TooManyLookUps).value)
        assert re.match(r"c.example was not looked up: 1 look-ups.*TRACEROUTED_DNS_LOOKUPS.*1 are waiting", words)
        self.found.update({"a.example": ["192.0.2.1"], "b.example": ["192.0.2.2"]})
        self.reactor.finish()
        self.reactor.finish()
        assert [self.successResultOf(d) for d in shared] == [addresses("192.0.2.1")] * 2 + [
            addresses("192.0.2.2")
        ] * 2

    def test_stop(self):
        """Stopping ends all waiting with CancelledError and leaves no timer; late threads are harmless."""
        resolver = self.resolver(concurrent=1)
        askers = [resolver.resolve(name) for name in ("a.example", "b.example")]
        resolver.stop()
        for d in askers:
            self.failureResultOf(d, CancelledError)
        assert self.reactor.getDelayedCalls() == []
        self.found["a.example"] = ["192.0.2.1"]
        self.reactor.finish()
        self.failureResultOf(resolver.resolve("a.example"), CancelledError)

    def test_cancelling(self):
        """Who stops waiting hears CancelledError; the other asker of that name still gets its answer."""
        self.found["a.example"] = ["192.0.2.1"]
        resolver = self.resolver()
        one, other = resolver.resolve("a.example"), resolver.resolve("a.example")
        one.cancel()
        self.failureResultOf(one, CancelledError)
        self.reactor.finish()
        assert addresses("192.0.2.1") == self.successResultOf(other)


class RealThreadTests(TestCase):
    """`system_look_up` with real threads on the real reactor."""

    timeout = 20

    def test_a_numeric_host(self):
        """The C library's answer comes back in the reactor's thread."""
        main = threading.get_ident()
        d = Resolver(reactor, system_look_up(reactor)).resolve("127.0.0.1")
        return d.addCallback(
            lambda found: self.assertEqual((addresses("127.0.0.1"), main), (found, threading.get_ident()))  # noqa: PT009
        )

    def test_a_hanging_look_up_does_not_hold_up_stopping(self):
        """Stopping returns with a thread still inside getaddrinfo, and others were answered meanwhile."""
        release, hung = threading.Event(), threading.Event()
        self.addCleanup(release.set)

        def getaddrinfo(host, *args):
            if host == b"hang.example":
                hung.set()
                release.wait(10)
            return [(socket.AF_INET, socket.SOCK_DGRAM, 17, "", ("192.0.2.1", 0))]

        resolver = Resolver(reactor, system_look_up(reactor, getaddrinfo), concurrent=2)
        hanging = resolver.resolve("hang.example")

        def stop(found):
            assert found == addresses("192.0.2.1")
            assert hung.wait(10)
            resolver.stop()
            assert not release.is_set()
            return self.assertFailure(hanging, CancelledError)

        return resolver.resolve("quick.example").addCallback(stop)


class ServerTests(SynchronousTestCase):
    """`Resolver` over scripted name servers."""

    def setUp(self):
        self.net = VirtualNetwork()
        self.zone = self.net.servers[SERVER] = Zone()
        self.addCleanup(lambda: self.net.ports == [] or self.fail("sockets are open"))

    def resolve(self, host, family=None):
        client = DnsClient(self.net, self.net, lambda: (SERVER,))
        d = Resolver(self.net, server_look_up(client)).resolve(host, family)
        self.net.run(0.05)
        return d

    def test_both_families(self):
        """IPv6 addresses come before IPv4 ones, each group in the server's order; aliases are followed."""
        self.zone.entries = {
            ("h.example", dns.A): [
                cname("h.example", "x.example"),
                a("x.example", "192.0.2.2"),
                a("x.example", "192.0.2.1"),
            ],
            ("h.example", dns.AAAA): [cname("h.example", "x.example"), aaaa("x.example", "2001:db8::1")],
        }
        expected = addresses("2001:db8::1", "192.0.2.2", "192.0.2.1")
        assert expected == self.successResultOf(self.resolve("h.example"))

    def test_one_family_asks_one_question(self):
        """Asked for one family, only that type is asked for."""
        self.zone.entries = {("h.example", dns.A): [a("h.example", "192.0.2.1")]}
        assert addresses("192.0.2.1") == self.successResultOf(self.resolve("h.example", V4))
        assert self.zone.asked == [("h.example", dns.A)]
        assert "no IPv6 address" in str(self.failureResultOf(self.resolve("h.example", V6), NoAddress).value)

    def test_no_such_name(self):
        """A name that does not exist fails so, also when one of the two questions failed otherwise."""
        self.failureResultOf(self.resolve("nothing.example"), NoSuchName)
        zone = self.zone
        refuse = Zone({("nothing.example", dns.AAAA): dns.EREFUSED})
        self.net.servers[SERVER] = lambda query: (refuse if query.queries[0].type == dns.AAAA else zone)(query)
        self.failureResultOf(self.resolve("nothing.example"), NoSuchName)

    def test_half_an_answer(self):
        """Addresses of one family count although the other question failed; a failure without any is no answer."""
        self.zone.entries = {
            ("h.example", dns.A): [a("h.example", "192.0.2.1")],
            ("h.example", dns.AAAA): dns.ESERVER,
        }
        assert addresses("192.0.2.1") == self.successResultOf(self.resolve("h.example"))
        assert "SERVFAIL" in str(self.failureResultOf(self.resolve("h.example", V6), NoAnswer).value)

    def test_half_an_answer_and_silence(self):
        """Addresses of one family count although the other question is never answered, before the deadline."""
        zone = Zone({("h.example", dns.A): [a("h.example", "192.0.2.1")]})
        self.net.servers[SERVER] = lambda query: None if query.queries[0].type == dns.AAAA else zone(query)
        d = self.resolve("h.example")
        self.net.run(4.5)
        assert addresses("192.0.2.1") == self.successResultOf(d)

    def test_silence(self):
        """Silent servers end the wait at the deadline, with every socket closed."""
        self.net.servers[SERVER] = silent
        d = self.resolve("h.example")
        self.net.run(5)
        assert "did not answer within TRACEROUTED_DNS_DEADLINE_S (asked about h.example)" in str(
            self.failureResultOf(d, NoAnswer).value
        )
        assert self.net.getDelayedCalls() == []

    def test_stop_closes_sockets(self):
        """Stopping closes what is open at once."""
        self.net.servers[SERVER] = silent
        resolver = Resolver(self.net, server_look_up(DnsClient(self.net, self.net, lambda: (SERVER,))))
        d = resolver.resolve("h.example")
        assert len(self.net.ports) == 2
        resolver.stop()
        self.failureResultOf(d, CancelledError)
        assert self.net.ports == []
        assert self.net.getDelayedCalls() == []


class LoopbackServerTests(TestCase):
    """`Resolver` and a name server on loopback, over real sockets."""

    timeout = 20

    def listen(self, zone, interface):
        port = reactor.listenUDP(0, ZoneServer(zone), interface=interface)
        self.addCleanup(port.stopListening)
        return port.getHost().host, port.getHost().port

    def test_real_sockets(self):
        """A name is resolved through a silent first server on IPv6 and an answering second one on IPv4."""
        zone = Zone({("h.example", dns.A): [a("h.example", "192.0.2.1")]})
        servers = (self.listen(silent, "::1"), self.listen(zone, "127.0.0.1"))
        client = DnsClient(reactor, reactor, lambda: servers, deadline_s=2.0)
        resolver = Resolver(reactor, server_look_up(client))
        d = resolver.resolve("h.example")
        return d.addCallback(lambda found: self.assertEqual(addresses("192.0.2.1"), found))  # noqa: PT009
