"""What is behind one `mtr.TraceRoute`: the scheduler, a supervisor per address family, and the traces.

Processes. Programs spawn mtr-packet themselves, with a `TraceRoute` as its protocol. The first supervisor that needs
a process adopts that one; all others are spawned here: the other family's, and successors of those that died.
A supervisor is started by the first trace of its family.

Traces. All probes of a trace are sent as `probing.trace` says, one per hop. A trace waits until its family is ready
and fewer than `MOST_RUNNING` run. It ends exactly once: when its machine does, when its family has not been ready for
`PATIENCE_S`, or when everything is closed.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any

from attrs import Factory, define, field
from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import deferLater

from ..model import Fact, Family, HopRetracted, ProbeSettled, Protocol, Reply, StopReason, TraceRequest
from ..mtrpacket.process import MtrProcess
from ..mtrpacket.supervisor import Supervisor
from ..probing.lanes import Run
from ..probing.prober import ProbeKind, Prober
from ..probing.scheduler import ProbeLimits, Scheduler
from ..probing.trace import TraceMachine

#: Seconds a family may be unready before its traces are given up: longer than a dead process takes to be replaced.
PATIENCE_S = 10.0
MOST_RUNNING = 500
_LEAST_SOURCE_PORT, _SOURCE_PORTS = 10_000, 20_000


@define(eq=False)
class Job:
    """One trace. `hops` holds the latest fact about each TTL; `failure` says why there is no result.

    `ended` is called once, with this, never from inside `Tracing.trace`.
    """

    request: TraceRequest
    kind: ProbeKind
    family: Family
    ended: Callable[[Job], None]
    hops: dict[int, ProbeSettled] = Factory(dict)
    machine: TraceMachine | None = None
    run: Run | None = None
    failure: str | None = None

    def note(self, fact: Fact) -> None:
        """A fact from the machine."""
        if isinstance(fact, ProbeSettled):
            self.hops[fact.ttl] = fact
        elif isinstance(fact, HopRetracted):
            self.hops.pop(fact.ttl, None)


@define(eq=False)
class Tracing:
    """Runs traces until `close`. To its supervisors it is the reactor, and the listener.

    `seconds` is monotonic. `adopt` gives a transport that `MtrProcess` may use, or None when there is none to spare.
    """

    _reactor: Any
    _seconds: Callable[[], float]
    _path: str | None
    _adopt: Callable[[MtrProcess], Any]
    _scheduler: Scheduler = field(init=False)
    _probers: dict[Family, Supervisor] = field(init=False, factory=dict)
    _waiting: dict[Family, deque[Job]] = field(init=False, factory=dict)
    _running: set[Job] = field(init=False, factory=set)
    _patience: dict[Family, IDelayedCall] = field(init=False, factory=dict)
    _started: int = field(init=False, default=0)

    def __attrs_post_init__(self) -> None:
        # The scheduler takes of a reactor's timers what is below.
        self._scheduler = Scheduler(self, ProbeLimits())  # type: ignore[arg-type]

    # --- the reactor of the supervisors and the scheduler --------------------------------------------------------

    def seconds(self) -> float:
        """Monotonic seconds."""
        return self._seconds()

    def callLater(self, delay: float, call: Callable[..., object], *args: object) -> IDelayedCall:
        """See `IReactorTime`."""
        later: IDelayedCall = self._reactor.callLater(delay, call, *args)
        return later

    def spawnProcess(
        self, processProtocol: Any, executable: str, args: list[str], env: dict[str, str], path: str | None
    ) -> Any:
        """Give a supervisor the process that is to spare, or a new one (`IReactorProcess`)."""
        transport = self._adopt(processProtocol)
        if transport is None:
            return self._reactor.spawnProcess(processProtocol, executable, args, env, path)
        processProtocol.makeConnection(transport)
        return transport

    # --- the listener of the supervisors -------------------------------------------------------------------------

    def on_reply(self, ticket: object, reply: Reply, sent_at: float, now: float) -> None:
        """See `Listener`."""
        if self._probers:
            self._scheduler.on_reply(ticket, reply, sent_at, now)

    def on_late(self, ticket: object, now: float) -> None:
        """See `Listener`."""
        if self._probers:
            self._scheduler.on_late(ticket, now)

    def on_alive(self, prober: Prober, asked_at: float) -> None:
        """See `Listener`."""
        if self._probers:
            self._scheduler.on_alive(prober, asked_at)

    def on_turn(self, prober: Prober) -> None:
        """See `Listener`."""
        if self._probers:
            self._scheduler.on_turn(prober)
            self._begin(prober.family)

    # --- traces --------------------------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether a trace has not ended."""
        return bool(self._running) or any(self._waiting.values())

    def trace(self, job: Job) -> None:
        """Take a trace. Raises ValueError for what cannot be sent."""
        family = job.family
        if family not in self._probers:
            prober = Supervisor(family, self, path=self._path, listener=self)
            prober.prepare(job.kind)
            self._probers[family] = prober
            self._waiting[family] = deque()
            self._scheduler.add_prober(prober)
            prober.start()
        else:
            self._probers[family].prepare(job.kind)
        self._waiting[family].append(job)
        self._begin(family)

    def _begin(self, family: Family) -> None:
        """Start what can be started; where nothing can, wait with a limit."""
        if family not in self._probers:
            return  # closed
        waiting, ready = self._waiting[family], self._probers[family].capabilities is not None
        while ready and waiting and len(self._running) < MOST_RUNNING:
            self._start(waiting.popleft())
        patience = self._patience.get(family)
        if ready and patience is not None:
            patience.cancel()
            del self._patience[family]
        elif not ready and patience is None and (waiting or self._running):
            self._patience[family] = self.callLater(PATIENCE_S, self._out_of_patience, family)

    def _start(self, job: Job) -> None:
        capabilities = self._probers[job.family].capabilities
        source_port = None
        # mtr-packet before 0.96 loses every IPv6 UDP probe with a source port of its own.
        if job.request.protocol is Protocol.UDP and capabilities is not None and capabilities.constant_flow_udp:
            source_port = _LEAST_SOURCE_PORT + self._started % _SOURCE_PORTS
        self._started += 1
        now = self._seconds()
        job.machine = TraceMachine(
            job.request,
            job.kind.address,
            job.note,
            now=now,
            deadline=now + job.request.deadline_ms / 1000,
            wall_offset=time.time() - now,
            source_port=source_port,
        )
        self._running.add(job)
        job.run = self._scheduler.start(job.machine, job.kind, job.family, lambda: self._ended(job))

    def _ended(self, job: Job) -> None:
        machine = job.machine
        assert machine is not None
        if machine.finished is StopReason.ERROR:
            job.failure = machine.error
        elif machine.finished is StopReason.DEADLINE and not job.hops:
            reason = self._probers[job.family].unready_reason
            job.failure = reason or f"nothing answered within {job.request.deadline_ms / 1000:g} s"
        self._running.discard(job)
        job.ended(job)
        for family in list(self._probers):
            self._begin(family)

    def _out_of_patience(self, family: Family) -> None:
        del self._patience[family]
        self._fail(f"{family} cannot be traced: {self._probers[family].unready_reason}", family)

    def _fail(self, why: str, *families: Family) -> None:
        failed = [job for job in self._running if job.family in families]
        for family in families:
            failed += self._waiting[family]
            self._waiting[family].clear()
        for job in failed:
            if job.machine is not None and job.run is not None:
                job.machine.stop(StopReason.CANCELLED)
                self._scheduler.stop(job.run)
            self._running.discard(job)
        for job in failed:
            job.failure = why
            job.ended(job)

    def close(self, why: str) -> Deferred[None]:
        """Fail every trace with these words and end every process; nothing can be traced with this afterwards.

        Fires when no process is left.
        """
        probers, self._probers = self._probers, {}
        for patience in self._patience.values():
            patience.cancel()
        self._patience.clear()
        if not probers:
            return succeed(None)
        stopped = gatherResults([prober.stop() for prober in probers.values()])
        self._fail(why, *probers)
        # Not now: the scheduler may be at work in a frame below this one, and would set its timer again.
        return stopped.addCallback(lambda results: deferLater(self._reactor, 0, self._scheduler.close))
