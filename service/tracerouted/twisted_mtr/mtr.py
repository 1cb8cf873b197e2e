"""`TraceRoute`: traceroutes from a program that spawns mtr-packet itself and wants callbacks.

What is promised here is what twisted-mtr 3.2.0 documents in its README and relies on in its example and tests.
Its low-level methods (`mtr_request`, `send_mtr_line`, `got_mtr_line`) are not: probes are sent by this engine only.
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from inspect import signature
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..model import MOST_UDP_PORT, Family, InvalidRequest, Protocol, TraceRequest
from ..mtrpacket.process import MtrProcess
from ..probing.flow import MOST_TTL
from ..probing.prober import ProbeKind
from .errors import MTRError, StateError
from .results import error_text, failed_hop, hop_list, request_words
from .tracing import Job, Tracing

log = logging.getLogger(__name__)

#: Signals that somebody sends to end a child, and the one it gets when its pipes were closed; others are accidents.
_END_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE)
_SIZE = 64


class TraceRoute(ProcessProtocol):
    """The protocol of an mtr-packet process that runs any number of traceroutes at once.

        app_mtr = TraceRoute(mtr_binary_path=path, local_ipv4=IPv4Address("198.51.100.7"))
        reactor.spawnProcess(app_mtr, "mtr-packet", [path], {})
        app_mtr.trace(completed, failed, IPv4Address("192.0.2.1"))

    `mtr_binary_path` is what a successor is started from if the process dies (None: mtr-packet is looked for).
    `local_ipv4` and `local_ipv6` are the addresses to trace from; at least one must be given, else `MTRError`.
    `reactor` is the one that spawns; by default Twisted's global one.

    If mtr-packet dies by accident, running traces go on with another process. If it is ended on purpose (its pipes
    closed, SIGTERM, SIGINT or SIGHUP), they end by their failure callbacks.
    """

    REQUEST_TIMEOUT = 5  # seconds waited for an answer of which nothing better is known
    MAX_TTL = 50  # the longest route; at most 64
    NO_REPLY_MAX_TTL = 5  # consecutive silent hops that end a trace whose target is silent too
    DEADLINE = 60  # seconds for a whole trace

    transport: Any

    def __init__(
        self,
        mtr_binary_path: str | None = None,
        local_ipv4: IPv4Address | None = None,
        local_ipv6: IPv6Address | None = None,
        *,
        reactor: Any = None,
    ) -> None:
        if not local_ipv4 and not local_ipv6:
            raise MTRError("at least one of local_ipv4 and local_ipv6 must be given")
        self.mtr_binary_path = mtr_binary_path
        self.local_ipv4 = local_ipv4
        self.local_ipv6 = local_ipv6
        self._given_reactor = reactor
        self._tracing: Tracing | None = None
        self._child = False  # the process we are the protocol of is alive
        self._spare = False  # and nobody has adopted it
        self._adopter: MtrProcess | None = None
        self._ended: str | None = None  # on purpose: nothing is to be traced until the program spawns again
        self._burying: list[Deferred[None]] = []
        self._closing: Deferred[None] = succeed(None)

    # --- tracing -------------------------------------------------------------------------------------------------

    def trace(
        self,
        callback: Callable[..., object],
        errback: Callable[..., object],
        ip_address: IPv4Address | IPv6Address,
        protocol: str = "icmp",
        port: Any = -1,
        ttl: int = 1,
        extra: object = None,
    ) -> None:
        """Trace the route to an address; exactly one of the callbacks is called, in a later reactor turn.

        `protocol` is icmp, tcp or udp. `port` is needed with tcp (1 to 65535) and udp (1 to 32999: mtr-packet keeps
        those above to itself), and ignored with icmp. `ttl` is the first hop to probe, up to `MAX_TTL`.
        Raises `MTRError` for anything else, and `StateError` before `reactor.spawnProcess`.

        `callback(timestamp, target_ip, protocol, port, hops)`: Unix seconds (float) of this call, the address, the
        protocol, the port (-1 with icmp), and a list with one (hop number, address or None, RTT or None) per hop from
        1 on, skipped ones included. The address is a str, the last one the target's if it was reached. The RTT is an
        int of milliseconds (see `Milliseconds`); twisted-mtr documents milliseconds too, but gives microseconds.
        A callback that takes two arguments gets `(target_ip, hops)`, as in the first example of twisted-mtr's README.

        `errback(hop_number, request, error, extra)`: when nothing can be sent, or a router says that the
        target cannot be reached: the hop, the words of the probe concerned (a list of str), what happened (str), and
        the `extra` given here.
        """
        if protocol not in ("icmp", "tcp", "udp"):
            raise MTRError(f"protocol must be icmp, tcp or udp; got {protocol!r}")
        port = _port(protocol, port)
        if not isinstance(ttl, int) or not 1 <= ttl <= min(self.MAX_TTL, MOST_TTL):
            raise MTRError(f"ttl must be an int from 1 to {min(self.MAX_TTL, MOST_TTL)}; got {ttl!r}")
        if not isinstance(ip_address, IPv4Address | IPv6Address):
            raise MTRError(f"the target must be an IPv4Address or IPv6Address; got {ip_address!r}")
        family = Family.IPV4 if ip_address.version == 4 else Family.IPV6
        local = self.local_ipv4 if family is Family.IPV4 else self.local_ipv6
        if not local:
            raise MTRError(f"{ip_address} cannot be traced: no local_ipv{ip_address.version} was given")
        started_at = time.time()
        takes_two = _takes_two(callback)

        def ended(job: Job) -> None:
            failed_at = failed_hop(job)
            if failed_at is not None:
                error = error_text(job, failed_at)
                log.debug("tracing %s failed at hop %d: %s", ip_address, failed_at, error)
                _call(errback, failed_at, request_words(job, failed_at), error, extra)
            else:
                hops = hop_list(job)
                log.debug("traced %s: %s", ip_address, hops)
                result = (ip_address, hops) if takes_two else (started_at, ip_address, protocol, port, hops)
                _call(callback, *result)
            self._quieten()

        job = self._job(str(ip_address), family, str(local), Protocol(protocol), port, ttl, ended)
        if self._ended is not None:
            job.failure = self._ended
            self._reactor().callLater(0, ended, job)
            return
        if self._tracing is None:
            raise StateError(
                "spawn mtr-packet first: reactor.spawnProcess(this, 'mtr-packet', [mtr_binary_path], {})"
            )
        log.debug("tracing %s", ip_address)
        try:
            self._tracing.trace(job)
        except ValueError as wrong:
            raise MTRError(str(wrong)) from None

    def _job(
        self,
        address: str,
        family: Family,
        local: str,
        protocol: Protocol,
        port: int,
        ttl: int,
        ended: Callable[[Job], None],
    ) -> Job:
        has_port = protocol is not Protocol.ICMP
        try:
            request = TraceRequest(
                target=address,
                family=family,
                protocol=protocol,
                port=port if has_port else None,
                first_ttl=ttl,
                max_ttl=min(self.MAX_TTL, MOST_TTL),
                probes=1,
                timeout_ms=self.REQUEST_TIMEOUT * 1000,
                deadline_ms=self.DEADLINE * 1000,
                gap_limit=self.NO_REPLY_MAX_TTL,
            )
        except InvalidRequest as wrong:
            raise MTRError(str(wrong)) from None
        kind = ProbeKind(protocol, address, local, request.port, _SIZE, 0, self.REQUEST_TIMEOUT)
        return Job(request, kind, family, ended)

    # --- the process ---------------------------------------------------------------------------------------------

    def _reactor(self) -> Any:
        if self._given_reactor is not None:
            return self._given_reactor
        # The interface has no place for a reactor: like the programs written for it, this uses the global one.
        from twisted.internet import reactor

        return reactor

    def connectionMade(self) -> None:
        """A process was spawned with this as its protocol."""
        self._ended = None
        self._child = self._spare = True
        self._adopter = None
        if self._tracing is None:
            self._open()

    def _open(self) -> None:
        reactor = self._reactor()
        # The global reactor's seconds follow the wall clock, which may be stepped.
        seconds = time.monotonic if self._given_reactor is None else reactor.seconds
        self._tracing = Tracing(reactor, seconds, self.mtr_binary_path or None, self._adopt)

    def _adopt(self, process: MtrProcess) -> Any:
        if not self._spare:
            return None
        self._spare = False
        self._adopter = process
        return self.transport

    def outReceived(self, data: bytes) -> None:
        """Bytes from mtr-packet, in any chunking."""
        if self._adopter is not None:
            self._adopter.outReceived(data)

    def errReceived(self, data: bytes) -> None:
        """Words of mtr-packet about what is wrong."""
        if self._adopter is not None:
            self._adopter.errReceived(data)

    def processEnded(self, reason: Failure) -> None:
        """The process is dead and reaped."""
        adopter, self._adopter = self._adopter, None
        self._child = self._spare = False
        if _on_purpose(reason.value):
            self._ended = "mtr-packet was ended"
            self._close(self._ended)
        if adopter is not None:
            adopter.processEnded(reason)
        self._quieten()
        burying, self._burying = self._burying, []
        for waiter in burying:
            waiter.callback(None)

    def stop(self) -> Deferred[list[None]]:
        """End all processes; unfinished traces fail. Fires when no process is left. (Not in twisted-mtr.)"""
        self._ended = "this TraceRoute was stopped"
        ends = [self._close(self._ended)]
        if self._child:
            buried: Deferred[None] = Deferred()
            self._burying.append(buried)
            ends.append(buried)
            if self._spare:
                with suppress(ProcessExitedAlready):
                    self.transport.signalProcess("TERM")
        return gatherResults(ends)

    def _quieten(self) -> None:
        """Leave no process of ours behind when the program's is gone and nothing is being traced."""
        if self._tracing is not None and not self._child and not self._tracing.busy:
            self._close("")
            self._open()

    def _close(self, why: str) -> Deferred[None]:
        """Fires when no process is left, of what is closed now or was being closed already."""
        tracing, self._tracing = self._tracing, None
        if tracing is not None:
            self._closing = tracing.close(why)
        closed: Deferred[None] = Deferred()

        def pass_on(result: None) -> None:
            closed.callback(None)

        self._closing.addCallback(pass_on)
        return closed


def _on_purpose(end: BaseException | None) -> bool:
    return isinstance(end, ProcessDone) or (isinstance(end, ProcessTerminated) and end.signal in _END_SIGNALS)


def _port(protocol: str, port: Any) -> int:
    if protocol == "icmp":
        return -1
    most = MOST_UDP_PORT if protocol == "udp" else 65535
    try:
        number = int(port)
    except (TypeError, ValueError):
        number = 0
    if not 1 <= number <= most:
        raise MTRError(f"port must be from 1 to {most} with {protocol}; got {port!r}")
    return number


def _takes_two(callback: Callable[..., object]) -> bool:
    """Whether a callback can be called with two arguments and not with five."""
    try:
        accepted = signature(callback)
    except (TypeError, ValueError):
        return False

    def accepts(count: int) -> bool:
        try:
            accepted.bind(*range(count))
        except TypeError:
            return False
        return True

    return accepts(2) and not accepts(5)


def _call(call: Callable[..., object], *args: object) -> None:
    """A program's callback must not take others' traces down with it."""
    try:
        call(*args)
    except Exception:
        Logger(namespace=__name__).failure("a traceroute callback failed")
