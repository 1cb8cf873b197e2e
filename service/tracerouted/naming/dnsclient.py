"""Asking name servers one question at a time (RFC 1035), over UDP.

The wire format is twisted.names'. Its client is not used: its timeouts multiply by the number of servers, what it
asks cannot be cancelled, and it does not compare an answer with the question. Here a question is one `_Exchange`:
the servers are asked in order, twice over, each getting an equal share of the deadline before the next is asked
too, and the first answer of any of them counts. A server that says it cannot answer (SERVFAIL, REFUSED, a closed
port) is not asked again. Each server gets a socket of its own, connected, on a port the kernel chooses, so
that only that server's datagrams arrive; id and question must match too.

An answer too long for a datagram is used as far as it goes: there is no fallback to TCP.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from attrs import define, field, frozen
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IDelayedCall, IReactorTime, IReactorUDP
from twisted.internet.protocol import DatagramProtocol
from twisted.names import dns

from .errors import NoAnswer, NoSuchName, outcome

Server = tuple[str, int]

DEADLINE_SETTING = "TRACEROUTED_DNS_DEADLINE_S"
ROUNDS = 2
MOST_ALIASES = 8
RCODES = {dns.EFORMAT: "FORMERR", dns.ESERVER: "SERVFAIL", dns.ENOTIMP: "NOTIMP", dns.EREFUSED: "REFUSED"}
RESOLV_CONF = Path("/etc/resolv.conf")


@frozen
class Answer:
    """The payloads of the records asked for, owned by the name asked for or by what it is an alias of.

    `ttl` is the least of theirs in seconds; 0 when there are none, which says that the name exists all the same.
    """

    records: tuple[Any, ...]
    ttl: int


def system_servers(path: Path = RESOLV_CONF) -> tuple[Server, ...]:
    """The name servers of resolv.conf(5); this machine's own where the file is missing or names none."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    servers = []
    for line in lines:
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver":
            try:
                servers.append((str(ip_address(words[1])), dns.PORT))
            except ValueError:
                continue  # the C library passes over it too
    return tuple(servers) or (("127.0.0.1", dns.PORT),)


@define
class SystemServers:
    """`system_servers`, read again when asked for more than `every_s` after the last reading: the file changes
    when a laptop moves or a lease is renewed."""

    _clock: IReactorTime
    _path: Path = RESOLV_CONF
    _every_s: float = 30.0
    _servers: tuple[Server, ...] = field(default=(), init=False)
    _read_at: float = field(default=0.0, init=False)

    def __call__(self) -> tuple[Server, ...]:
        now = self._clock.seconds()
        if not self._servers or now - self._read_at >= self._every_s:
            self._servers = system_servers(self._path)
            self._read_at = now
        return self._servers


@define(eq=False)
class DnsClient:
    """Asks the `servers()` of the moment. `deadline_s` bounds a question, however many servers there are.

    It is shorter than what those who put several questions together wait for the whole, so that one unanswered
    question does not cost them the answers to the others. `outcomes` counts the questions by kind and by the words
    of `errors.outcome`.
    """

    _clock: IReactorTime
    _udp: IReactorUDP
    _servers: Callable[[], tuple[Server, ...]]
    _deadline_s: float = 4.0
    outcomes: Counter[tuple[int, str]] = field(factory=Counter, init=False)

    def ask(self, name: str, kind: int) -> Deferred[Answer]:
        """The records of `kind` (`dns.A`, `dns.PTR`, ...) of an ASCII name.

        Fails with `NoSuchName` or `NoAnswer`. Cancelling it closes its sockets.
        """
        if len(name) > 253 or any(not 1 <= len(label) <= 63 for label in name.removesuffix(".").split(".")):
            return fail(NoSuchName(f"{name} cannot be a name: a label or the whole is too long, or a label is empty"))
        query = dns.Query(name.removesuffix(".").encode("ascii"), kind)
        exchange = _Exchange(self._clock, self._udp, self._servers(), self._deadline_s, query)
        return exchange.begin().addBoth(self._count, kind)

    def _count(self, result: Any, kind: int) -> Any:
        self.outcomes[kind, outcome(result)] += 1
        return result


class _Asked(DatagramProtocol):
    """One server's socket in an exchange."""

    transport: Any  # IUDPTransport does not show all of what is used

    def __init__(self, exchange: _Exchange, server: Server) -> None:
        self.exchange = exchange
        self.server = server
        self.id = secrets.randbits(16)

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        self.exchange.heard(self, datagram)

    def connectionRefused(self) -> None:
        self.exchange.refused(self)

    def stopProtocol(self) -> None:
        # The epoll reactor answers an ICMP error not with connectionRefused but by closing the socket.
        self.exchange.refused(self)


class _Exchange:
    """One question on its way."""

    def __init__(
        self, clock: IReactorTime, udp: IReactorUDP, servers: tuple[Server, ...], deadline_s: float, query: dns.Query
    ) -> None:
        self._clock = clock
        self._udp = udp
        self._query = query
        self._turns = list(dict.fromkeys(servers)) * ROUNDS
        self._patience_s = deadline_s / max(1, len(self._turns))
        self._trouble = f"did not answer within {DEADLINE_SETTING}"
        self._asked: dict[Server, _Asked] = {}
        self._latest: Server | None = None
        self._timer: IDelayedCall | None = None
        self._done: Deferred[Answer] = Deferred(lambda _: self._close())

    def begin(self) -> Deferred[Answer]:
        self._ask_next()
        return self._done

    def _ask_next(self) -> None:
        self._stop_timer()
        if not self._turns:
            self._close()
            self._done.errback(NoAnswer(f"the name servers {self._trouble} (asked about {self._query.name})"))
            return
        self._latest = server = self._turns.pop(0)
        # Set first: sending may find out at once that the server is useless, and go on to the next.
        self._timer = self._clock.callLater(self._patience_s, self._ask_next)
        try:
            self._send(server)
        except (CannotListenError, OSError) as error:
            self.useless(server, f"cannot be reached: {error}")

    def _send(self, server: Server) -> None:
        asked = self._asked.get(server)
        if asked is None:
            host, port = server
            asked = _Asked(self, server)
            self._udp.listenUDP(0, asked, interface="::" if ":" in host else "", maxPacketSize=4096)
            self._asked[server] = asked
            asked.transport.connect(host, port)
        message = dns.Message(asked.id, recDes=1)
        message.queries = [self._query]
        asked.transport.write(message.toStr())

    def useless(self, server: Server, trouble: str) -> None:
        """This server will not answer the question: hang up and, if it was its turn, ask the next one now."""
        self._trouble = trouble
        self._turns = [other for other in self._turns if other != server]
        asked = self._asked.pop(server, None)
        if asked is not None and asked.transport is not None:
            asked.transport.stopListening()
        if server == self._latest:
            self._ask_next()

    def refused(self, asked: _Asked) -> None:
        if self._listens_to(asked):
            self.useless(asked.server, "refused the connection")

    def heard(self, asked: _Asked, datagram: bytes) -> None:
        if not self._listens_to(asked):  # the rest of what was read before the socket was closed
            return
        message = dns.Message()
        try:
            message.fromStr(datagram)
        except Exception:  # a parser that others wrote, on bytes that anybody wrote
            return
        if not message.answer or message.id != asked.id or message.queries != [self._query]:
            return
        if message.rCode == dns.ENAME:
            self._close()
            self._done.errback(NoSuchName(f"there is no name {self._query.name}"))
        elif message.rCode != dns.OK:
            self.useless(asked.server, f"could not answer ({RCODES.get(message.rCode, message.rCode)})")
        else:
            answer = _answer(self._query, message.answers)
            if message.trunc and not answer.records:
                self.useless(asked.server, "sent an answer too long for a datagram")
            else:
                self._close()
                self._done.callback(answer)

    def _listens_to(self, asked: _Asked) -> bool:
        return self._asked.get(asked.server) is asked

    def _close(self) -> None:
        self._stop_timer()
        asked, self._asked = self._asked, {}
        for one in asked.values():
            one.transport.stopListening()

    def _stop_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()


def _answer(query: dns.Query, records: list[Any]) -> Answer:
    """What `records` say about the question: only those of its type and name, or of what the name is an alias of."""
    owner = query.name
    ttls: list[int] = []
    for _ in range(MOST_ALIASES + 1):
        ours = [record for record in records if record.name == owner and record.cls == dns.IN]
        found = [record for record in ours if record.type == query.type]
        if found:
            return Answer(tuple(record.payload for record in found), min(ttls + [record.ttl for record in found]))
        alias = next((record for record in ours if record.type == dns.CNAME), None)
        if alias is None:
            break
        owner = alias.payload.name
        ttls.append(alias.ttl)
    return Answer((), 0)
