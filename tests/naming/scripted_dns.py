"""Name servers that say what a test tells them to: in memory on a virtual clock, and on loopback.

A `Zone` maps (name, type) to what is answered. `VirtualNetwork` is a clock with UDP whose servers are functions;
`ZoneServer` is a DatagramProtocol for a real socket, `name_server` a server in a thread.
"""

from __future__ import annotations

import socketserver
import threading
from contextlib import contextmanager

from attrs import define, field
from twisted.internet.interfaces import IReactorUDP
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.task import Clock
from twisted.names import dns
from zope.interface import implementer


def record(name, payload):
    """A resource record of the payload's own type and TTL."""
    return dns.RRHeader(name.encode(), payload.TYPE, ttl=payload.ttl, payload=payload)


def a(name, address, ttl=300):
    return record(name, dns.Record_A(address, ttl))


def aaaa(name, address, ttl=300):
    return record(name, dns.Record_AAAA(address, ttl))


def ptr(name, target, ttl=300):
    """A PTR record; `target` is a str, or bytes for what no str should be."""
    return record(name, dns.Record_PTR(target if isinstance(target, bytes) else target.encode(), ttl))


def cname(name, target, ttl=300):
    return record(name, dns.Record_CNAME(target.encode(), ttl))


def reply(query, answers=(), rcode=dns.OK, trunc=0):
    """The message that answers `query`."""
    message = dns.Message(query.id, answer=1, recDes=1, recAv=1, rCode=rcode, trunc=trunc)
    message.queries = list(query.queries)
    message.answers = list(answers)
    return message


@define(eq=False)
class Zone:
    """Answers by (name, type): a list of records, or an rcode. A name with other types only has no data; an unknown
    name does not exist. `asked` lists the questions."""

    entries: dict = field(factory=dict)
    asked: list = field(factory=list)

    def __call__(self, query):
        question = query.queries[0]
        key = (question.name.name.decode().lower(), question.type)
        self.asked.append(key)
        entry = self.entries.get(key)
        if isinstance(entry, int):
            return reply(query, rcode=entry)
        if entry is None and not any(name == key[0] for name, _ in self.entries):
            return reply(query, rcode=dns.ENAME)
        return reply(query, entry or ())


def silent(query):
    """A server that never answers."""


@define(eq=False)
class _Port:
    """One UDP socket in a `VirtualNetwork`."""

    network: VirtualNetwork
    protocol: DatagramProtocol
    interface: str
    peer: tuple | None = None

    def connect(self, host, port):
        if host in self.network.unreachable:
            raise OSError(101, "Network is unreachable")
        self.peer = (host, port)

    def write(self, datagram):
        self.network.sent.append((self.network.seconds(), self.peer))
        self.network.deliver(self, datagram)

    def stopListening(self):
        assert self in self.network.ports, "stopped twice"
        self.network.ports.remove(self)
        self.protocol.transport = None
        self.protocol.stopProtocol()


@implementer(IReactorUDP)
class VirtualNetwork(Clock):
    """A clock, and name servers reached over UDP: `servers` maps (host, port) to a function from the query to a
    message, bytes, a list of either, or None for silence. Answers take `latency` seconds.

    A port without a server is refused, a host in `unreachable` has no route, and `sockets` is how many there may be.
    """

    def __init__(self, latency=0.01):
        super().__init__()
        self.latency = latency
        self.servers = {}
        self.unreachable = set()
        self.sockets = 1000
        self.ports = []
        self.most_ports = 0
        self.sent = []

    def listenUDP(self, port, protocol, interface="", maxPacketSize=8192):
        if len(self.ports) >= self.sockets:
            raise OSError(24, "Too many open files")
        opened = protocol.transport = _Port(self, protocol, interface)
        self.ports.append(opened)
        self.most_ports = max(self.most_ports, len(self.ports))
        return opened

    def deliver(self, port, datagram):
        server = self.servers.get(port.peer)
        if server is None:
            self.callLater(self.latency, self._refuse, port)
            return
        query = dns.Message()
        query.fromStr(datagram)
        answers = server(query)
        answers = [answer for answer in (answers if isinstance(answers, list) else [answers]) if answer is not None]
        raws = [answer if isinstance(answer, bytes) else answer.toStr() for answer in answers]
        if raws:
            self.callLater(self.latency, self._arrive, port, raws)

    def _arrive(self, port, raws):
        if port in self.ports:
            for raw in raws:  # a reactor reads on even when the protocol stops listening in between
                port.protocol.datagramReceived(raw, port.peer)

    def _refuse(self, port):
        if port in self.ports:
            port.protocol.connectionRefused()

    def run(self, seconds):
        """Let time pass, each timer firing exactly when it is due."""
        end = self.rightNow + seconds
        while self.calls and min(call.getTime() for call in self.calls) <= end:
            self.rightNow = max(self.rightNow, min(call.getTime() for call in self.calls))
            self.advance(0)
        self.rightNow = end


class ZoneServer(DatagramProtocol):
    """A name server on a real socket: `zone` is a `Zone`, or any function from the query to a message or None."""

    def __init__(self, zone):
        self.zone = zone

    def datagramReceived(self, datagram, addr):
        query = dns.Message()
        query.fromStr(datagram)
        answer = self.zone(query)
        if answer is not None:
            self.transport.write(answer.toStr(), addr)


@contextmanager
def name_server(zone):
    """A name server on loopback, in a thread: `zone` is what `ZoneServer` takes. Its port."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self):
            data, server = self.request
            query = dns.Message()
            query.fromStr(data)
            answer = zone(query)
            if answer is not None:
                server.sendto(answer.toStr(), self.client_address)

    with socketserver.ThreadingUDPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()
