"""One address family's prober, kept alive over a succession of mtr-packet processes.

A process is of use only after a self-test has shown that it can trace (see `selftest`); the test is repeated every
`Pace.retest_s`. Its successor is spawned only when it is dead and reaped, because two processes receive each other's
replies. After a death the next is spawned at once if the dead one had proved itself; each further one that dies
before it has waits longer (`Pace.backoff_s`). `Pace.breaker_deaths` deaths within `Pace.breaker_window_s` open the
breaker: from then on a spawn is tried no sooner than `Pace.breaker_s` after a death; one good self-test closes it.
A process that lives but fails its test is ended, and one that cannot be started for lack of a binary or a right
isn't helped by haste either: the next try comes after `Pace.failed_test_s`.

    stopped --start--> waiting --spawn--> testing --good--> ready
                          ^                  |                |
                          +---- ended -------+---- ended -----+
"""

from __future__ import annotations

import resource
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from errno import EPERM
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger

from ..model import Capabilities, Family, Reply, ReplyKind, RetryReason
from .binary import find_binary
from .codec import Prepared, prepare
from .pace import Mortality, Pace
from .process import MtrProcess
from .selftest import ADVICE, SelfTest
from .surroundings import Limits, Timers

if TYPE_CHECKING:
    from ..probing.prober import Listener, ProbeKind

#: mtr-packet keeps its sockets in an fd_set of 1024 and aborts beyond it.
MOST_DESCRIPTORS = 1024


#: What is counted: spawns after the first; probes handed back because their process died; replies of the other
#: family; lines nobody understands; lines too long to be kept; RTTs and timeouts withheld because the wall clock
#: stepped; replies to no probe in flight; processes killed because they hung; self-tests that ended badly.
COUNTERS = (
    "restarts",
    "died",
    "stolen",
    "unknown_words",
    "oversized_lines",
    "clock_anomalies",
    "unmatched",
    "watchdog_kills",
    "failed_tests",
)
_ANSWERS_MAY_COME_S = 10.0
_SEQUENCE_MARGIN = 100  # numbers mtr-packet may have skipped by itself: TCP ports that were in use
_MOST_SPENT = 8000  # mtr-packet takes about 6 ms for them
#: TCP errors find their way to both families' processes by source port, which is the sequence number: half of the
#: numbers (33000 to 65535) between them keeps two that are equally busy from taking each other's answers.
_APART = 16_000
_NO_SOCKETS = "Failure to open IPv"  # mtr-packet's last words when it may open neither raw nor datagram sockets
_STOPPING = "it was told to stop"
_TESTING = "its first self-test is under way"
_IN_ORDER = (_STOPPING, _TESTING)  # nothing an operator has to look at


class ProcessTimers(Timers, Protocol):
    """The parts of `IReactorTime` and `IReactorProcess` needed here."""

    def spawnProcess(
        self,
        processProtocol: ProcessProtocol,
        executable: str,
        args: list[str],
        env: dict[str, str],
        path: str | None,
    ) -> Any: ...


def limit_descriptors(pid: int) -> None:
    """Hold a process to `MOST_DESCRIPTORS`, soft and hard; less if it is already held to less."""
    _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    most = MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(MOST_DESCRIPTORS, hard)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (most, most))


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Start children inside that never see SIGINT: a terminal's Ctrl-C sends it to them as well as to their parent,
    who needs them to end in order. Blocked signals are inherited (signal(7)); the parent's own come a moment later.
    """
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


class Supervisor:
    """A `Prober`. `listener` may be set after construction; `counters` only ever grow.

    `path` None: mtr-packet is looked for at each spawn, so it may be installed later. `reactor.seconds` must be
    monotonic; `wall_clock` is the clock mtr-packet measures with, watched for steps.
    """

    log = Logger()

    def __init__(
        self,
        family: Family,
        reactor: ProcessTimers,
        *,
        path: str | None = None,
        listener: Listener | None = None,
        limits: Limits | None = None,
        pace: Pace | None = None,
        wall_clock: Callable[[], float] = time.time,
        limit_descriptors: Callable[[int], None] = limit_descriptors,
        find_binary: Callable[[str | None], str] = find_binary,
    ) -> None:
        self.family = family
        self.listener = listener
        self.counters = Counter(dict.fromkeys(COUNTERS, 0))
        self._reactor = reactor
        self._path = path
        self._limits = limits or Limits()
        self._pace = pace or Pace()
        self._wall_clock = wall_clock
        self._limit_descriptors = limit_descriptors
        self._find_binary = find_binary
        self._process: MtrProcess | None = None  # spawned and not yet reaped
        self._capabilities: Capabilities | None = None  # not None: ready
        self._reason: str | None = "it isn't started"
        self._known: Capabilities | None = None  # as last found
        self._spawned = False
        self._mortality = Mortality(self._pace)
        self._failed_test = False
        self._sequences = 0  # used up by the last process, which ended at:
        self._ended_at = 0.0
        self._call: IDelayedCall | None = None  # the next spawn or the next test
        self._undelivered: list[tuple[object, float]] = []  # tickets sent while not ready
        self._started: Deferred[None] | None = None
        self._stopping = False
        self._stopped: list[Deferred[None]] = []

    # --- Prober --------------------------------------------------------------------------------------------------

    @property
    def capabilities(self) -> Capabilities | None:
        """See `Prober.capabilities`."""
        return self._capabilities

    @property
    def unready_reason(self) -> str | None:
        """See `Prober.unready_reason`."""
        return self._reason

    @property
    def breaker_open(self) -> bool:
        """Whether too many deaths have slowed respawning down."""
        return self._mortality.breaker_open

    @property
    def pid(self) -> int | None:
        """The process id of the present mtr-packet."""
        return self._process.pid if self._process is not None else None

    def prepare(self, kind: ProbeKind) -> Prepared:
        """See `Prober.prepare`. Raises ValueError for what cannot or must not be sent, or the other family."""
        prepared = prepare(
            protocol=kind.protocol,
            address=kind.address,
            source_address=kind.source_address,
            port=kind.port,
            size=kind.size,
            tos=kind.tos,
            timeout_s=kind.timeout_s,
        )
        if prepared.family is not self.family:
            raise ValueError(f"{kind.address} isn't {self.family}")
        return prepared

    def send(self, prepared: Any, ttl: int, source_port: int | None, ticket: object) -> None:
        """See `Prober.send`. While not ready the ticket comes back as RETRY/DIED in a later turn."""
        if self._capabilities is not None and self._process is not None:
            self._process.send(prepared, ttl, source_port, ticket)
            return
        if not self._undelivered:
            self._reactor.callLater(0, self._hand_back)
        self._undelivered.append((ticket, self._reactor.seconds()))

    def confirm(self) -> None:
        """See `Prober.confirm`."""
        if self._process is not None:
            self._process.confirm()

    def _hand_back(self) -> None:
        tickets, self._undelivered = self._undelivered, []
        self.counters["died"] += len(tickets)
        now = self._reactor.seconds()
        reply = Reply(ReplyKind.RETRY, error=RetryReason.DIED)
        for ticket, sent_at in tickets:
            if self.listener is not None:
                try:
                    self.listener.on_reply(ticket, reply, sent_at, now)
                except Exception:
                    self.log.failure("a listener failed on a reply")
        self._turn()

    # --- life ----------------------------------------------------------------------------------------------------

    def start(self) -> Deferred[None]:
        """Begin. Fires when the first self-test has ended, well or not; ask `unready_reason`."""
        self._reason = _TESTING
        started = self._started = Deferred()
        self._spawn()
        return started

    def stop(self) -> Deferred[None]:
        """End for good. Fires when no child is left; probes in flight come back as RETRY/DIED."""
        stopped: Deferred[None] = Deferred()
        first, self._stopping = not self._stopping, True
        if self._process is None:
            stopped.callback(None)
        else:
            self._stopped.append(stopped)
        if first:
            self._cancel()
            if self._process is not None:
                self._process.end(_STOPPING, "TERM")
                self._call = self._reactor.callLater(self._pace.kill_s, self._process.end, _STOPPING)
            self._unready(_STOPPING)
        return stopped

    def _spawn(self) -> None:
        self._call = None
        self.counters["restarts"] += self._spawned
        self._spawned = True
        self._failed_test = False
        process = MtrProcess(self, self._reactor, self._wall_clock, self._limits, self._sequences_to_spend())
        self._process = process
        try:
            path = self._find_binary(self._path)
            with _deaf_to_interrupts():
                self._reactor.spawnProcess(process, path, [path], {"LC_ALL": "C"}, None)
        except (FileNotFoundError, PermissionError) as error:
            self._failed_test = True
            # EPERM, not EACCES: the binary has a file capability that this process may not pass on.
            advice = f". {ADVICE}" if error.errno == EPERM else ""
            self.process_ended(process, f"mtr-packet cannot be started: {error}{advice}")
        except OSError as error:
            self.process_ended(process, f"mtr-packet cannot be started: {error}")

    def _sequences_to_spend(self) -> int:
        """How many sequence numbers the next process must leave to late answers to the last one; see `process`.

        0 once no answer can be expected any more, and if they are so many that the next process will come to the
        doubtful ones, the last few of them, only after a while.
        """
        apart = _APART if self.family is Family.IPV6 else 0
        spend = max(self._sequences, apart) + _SEQUENCE_MARGIN
        late = self._reactor.seconds() - self._ended_at < _ANSWERS_MAY_COME_S
        return spend if self._sequences and late and spend <= apart + _MOST_SPENT else apart

    def process_started(self, process: MtrProcess) -> None:
        """A child exists: limit it before it gets any work, then test it."""
        pid = process.pid
        assert pid is not None  # it was spawned just now
        try:
            self._limit_descriptors(pid)
        except OSError as error:
            self.log.warn(
                "{family}: mtr-packet's descriptors cannot be limited: {error}", family=self.family, error=str(error)
            )
        self._test(process)

    def _test(self, process: MtrProcess) -> None:
        def done(capabilities: Capabilities | None, reason: str | None) -> None:
            if process is self._process and not self._stopping:
                self._tested(process, capabilities, reason)

        SelfTest(process, self.family, self._known, done).start()

    def _tested(self, process: MtrProcess, capabilities: Capabilities | None, reason: str | None) -> None:
        if capabilities is None:
            self.counters["failed_tests"] += 1
            self._failed_test = True
            reason = reason or "its self-test failed"
            process.end(reason)
            self._unready(reason)
            return
        self._mortality.proved()
        self._known = capabilities
        self._call = self._reactor.callLater(self._pace.retest_s, self._retest)
        self._ready(capabilities)

    def _retest(self) -> None:
        self._call = None
        if self._process is not None:
            self._test(self._process)

    def process_ended(self, process: MtrProcess, reason: str) -> None:
        """The child is gone; see about the next."""
        self._process = None
        self._sequences, self._ended_at = process.sequences, self._reactor.seconds()
        self._cancel()
        if self._stopping:
            stopped, self._stopped = self._stopped, []
            for waiting in stopped:
                waiting.callback(None)
            return
        if _NO_SOCKETS in reason:
            self._failed_test = True
            reason = f"{reason}. {ADVICE}"
        delay = self._pace.failed_test_s
        if not self._failed_test:
            delay, reason = self._mortality.died(self._reactor.seconds(), reason)
        self._call = self._reactor.callLater(delay, self._spawn)
        self.log.info(
            "{family}: mtr-packet ended ({reason}); next start in {delay} s",
            family=self.family,
            reason=reason,
            delay=delay,
        )
        self._unready(reason)

    # --- what others see -----------------------------------------------------------------------------------------
    # Called last of all: whoever is told may stop the prober at once.

    def _ready(self, capabilities: Capabilities) -> None:
        was, self._capabilities = self._capabilities, capabilities
        self._reason = None
        if was is None:
            self.log.info(
                "{family}: ready to trace with mtr-packet {version}",
                family=self.family,
                version=capabilities.version,
                protocols=sorted(capabilities.protocols),
                constant_flow_udp=capabilities.constant_flow_udp,
                pid=self.pid,
            )
        self._announce(was != capabilities)

    def _unready(self, reason: str) -> None:
        was, self._capabilities = self._capabilities, None
        if reason != self._reason:
            log = self.log.info if reason in _IN_ORDER else self.log.warn
            log("{family}: cannot trace: {reason}", family=self.family, reason=reason)
        self._reason = reason
        self._announce(was is not None)

    def _announce(self, changed: bool) -> None:
        started, self._started = self._started, None
        if changed:
            self._turn()
        if started is not None:
            started.callback(None)

    def _turn(self) -> None:
        if self.listener is not None:
            try:
                self.listener.on_turn(self)
            except Exception:
                self.log.failure("a listener failed on a turn")

    def _cancel(self) -> None:
        call, self._call = self._call, None
        if call is not None and call.active():
            call.cancel()
