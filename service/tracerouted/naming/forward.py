"""From a host name to its addresses, looked up once per trace.

`Resolver` bounds the look-ups, shares those for the same name and gives each asker a deadline; it knows nothing of
what may be traced. What it asks is a `LookUp`: the C library's getaddrinfo in threads (so /etc/hosts, search domains
and nsswitch count, as for any program on the machine), or name servers given by the operator.

A getaddrinfo that hangs cannot be interrupted: its asker is told after the deadline, but its thread stays until
the C library gives up (with glibc's defaults 10 s per name server), and counts among the look-ups under way. With
all of them hanging, other names wait in the queue and, when their deadline passes there, are told so.
"""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, NoReturn

from attrs import define, field
from twisted.internet.defer import Deferred, DeferredList, fail
from twisted.internet.interfaces import IReactorFromThreads, IReactorTime
from twisted.names import dns
from twisted.python.failure import Failure

from ..model import Family
from .dnsclient import DEADLINE_SETTING, Answer, DnsClient
from .errors import LookUpFailed, NoAddress, NoAnswer, NoSuchName, TooManyLookUps, outcome
from .lookups import DeadlinePassed, LookUps, QueueFull
from .special import IPAddress

#: Looks up a host name for a family (None: any): the addresses in the resolver's order, possibly of other families
#: too. Fails with a `LookUpFailed`. An answer without addresses says that the name exists.
LookUp = Callable[[str, Family | None], "Deferred[tuple[IPAddress, ...]]"]

LIMIT_SETTING = "TRACEROUTED_DNS_LOOKUPS"
QUEUE_SETTING = "TRACEROUTED_MAX_QUEUED"

FAMILY_WORDS = {Family.IPV4: "IPv4", Family.IPV6: "IPv6"}


@define(eq=False)
class Resolver:
    """Looks host names up through `look_up`: `concurrent` at once, `waiting` more in the queue.

    `outcomes` counts what became of the questions, by the words of `errors.outcome`.
    """

    _clock: IReactorTime
    _look_up: LookUp
    _concurrent: int = 32
    _waiting: int = 512
    _deadline_s: float = 5.0
    outcomes: Counter[str] = field(factory=Counter, init=False)
    lookups: LookUps[tuple[str, Family | None], tuple[IPAddress, ...]] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.lookups = LookUps(
            self._clock, lambda key: self._look_up(*key), self._concurrent, self._waiting, self._deadline_s
        )

    def resolve(self, host: str, family: Family | None = None) -> Deferred[tuple[IPAddress, ...]]:
        """The addresses of an ASCII host name, at least one, in the resolver's order, each once, of `family` only.

        Fails with `NoSuchName`, `NoAddress`, `NoAnswer` or `TooManyLookUps`. Cancel it to stop waiting.
        """
        asked = self.lookups.ask((host.lower(), family))
        asked.addCallbacks(
            lambda addresses: _of_family(host, addresses, family), lambda failure: self._explain(host, failure)
        )
        return asked.addBoth(self._count)

    def _count(self, result: Any) -> Any:
        self.outcomes[outcome(result)] += 1
        return result

    def stop(self) -> None:
        """Give up all look-ups; whoever waits gets `CancelledError`."""
        self.lookups.stop()

    def _explain(self, host: str, failure: Failure) -> NoReturn:
        """Put what went wrong into words for whoever asked."""
        error, limit = failure.value, f"{self._deadline_s:g} s ({DEADLINE_SETTING})"
        if isinstance(error, QueueFull):
            raise TooManyLookUps(
                f"{host} was not looked up: {self._concurrent} look-ups are under way, as many as {LIMIT_SETTING} "
                f"allows, and {self._waiting} are waiting ({QUEUE_SETTING})"
            )
        if isinstance(error, DeadlinePassed) and error.begun:
            raise NoAnswer(f"no answer about {host} within {limit}")
        if isinstance(error, DeadlinePassed):
            raise NoAnswer(
                f"{host} was not looked up within {limit}: {self._concurrent} other look-ups, as many as "
                f"{LIMIT_SETTING} allows, are waiting for answers"
            )
        failure.raiseException()


def _of_family(host: str, addresses: tuple[IPAddress, ...], family: Family | None) -> tuple[IPAddress, ...]:
    wanted = tuple(dict.fromkeys(a for a in addresses if family is None or a.version == family.version))
    if not wanted:
        raise NoAddress(f"{host} has no {FAMILY_WORDS[family]} address" if family else f"{host} has no address")
    return wanted


# --- the C library -------------------------------------------------------------------------------------------


def daemon_thread(work: Callable[[], None]) -> None:
    """Run `work` in a thread of its own, which does not keep the process alive: one may hang in the C library."""
    threading.Thread(target=work, name="look-up", daemon=True).start()


def system_look_up(
    reactor: IReactorFromThreads,
    getaddrinfo: Callable[..., list[Any]] = socket.getaddrinfo,
    in_thread: Callable[[Callable[[], None]], None] = daemon_thread,
) -> LookUp:
    """A `LookUp` through getaddrinfo, a thread per look-up; `Resolver` bounds how many."""

    def look_up(host: str, family: Family | None) -> Deferred[tuple[IPAddress, ...]]:
        done: Deferred[tuple[IPAddress, ...]] = Deferred()

        def work() -> None:
            try:
                # Both families always: this alone tells "no such name" from "no address of that family". As bytes, so
                # that Python's own IDNA codec, slow on long names, stays out of it.
                found = getaddrinfo(host.encode("ascii"), None, socket.AF_UNSPEC, socket.SOCK_DGRAM)
                result = tuple(_address(sockaddr[0]) for _, _, _, _, sockaddr in found)
            except Exception as error:
                reactor.callFromThread(done.errback, _getaddrinfo_error(host, error))
            else:
                reactor.callFromThread(done.callback, result)

        try:
            in_thread(work)
        except RuntimeError as error:  # no more threads
            return fail(NoAnswer(f"{host} was not looked up: {error}"))
        return done

    return look_up


def _address(text: str) -> IPAddress:
    return ip_address(text.partition("%")[0])  # a link-local address may come with a zone


def _getaddrinfo_error(host: str, error: Exception) -> LookUpFailed:
    code = error.errno if isinstance(error, socket.gaierror) else None
    if code == socket.EAI_NONAME or isinstance(error, UnicodeError):
        return NoSuchName(f"there is no name {host}")
    if code in (socket.EAI_NODATA, socket.EAI_ADDRFAMILY):
        return NoAddress(f"{host} has no address")
    if code == socket.EAI_AGAIN:
        return NoAnswer(f"the name servers could not answer about {host}; try again later")
    return NoAnswer(f"{host} could not be looked up: {error}")


# --- name servers --------------------------------------------------------------------------------------------


def server_look_up(client: DnsClient) -> LookUp:
    """A `LookUp` that asks name servers; AAAA answers come before A answers (RFC 6724 prefers IPv6)."""

    def look_up(host: str, family: Family | None) -> Deferred[tuple[IPAddress, ...]]:
        kinds = [kind for kind, of in ((dns.AAAA, Family.IPV6), (dns.A, Family.IPV4)) if family in (None, of)]
        asked = DeferredList([client.ask(host, kind) for kind in kinds], consumeErrors=True)
        return asked.addCallback(_together)

    return look_up


def _together(results: list[tuple[bool, Any]]) -> tuple[IPAddress, ...]:
    """The addresses of all answers. One family's failure matters only when no address was found."""
    addresses = tuple(address for answered, answer in results if answered for address in _addresses(answer))
    errors = [failure.value for answered, failure in results if not answered]
    if errors and not addresses:
        raise next((error for error in errors if isinstance(error, NoSuchName)), errors[0])
    return addresses


def _addresses(answer: Answer) -> list[IPAddress]:
    return [
        IPv4Address(record.address) if record.TYPE == dns.A else IPv6Address(record.address)
        for record in answer.records
    ]
