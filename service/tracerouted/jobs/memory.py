"""The in-memory `Engine`: accepts requests, runs them on the scheduler, keeps what became of them for a while.

A job goes one way: accepted, resolved, waiting for admission, running, terminal, sealed, forgotten. It becomes
terminal exactly once, in `_end`, whatever ends it. Every table is bounded by a limit with a name; what is kept leaves
by age, count or bytes, oldest first.
"""

from __future__ import annotations

import builtins
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Collection, Mapping
from ipaddress import IPv4Address, IPv6Address
from math import ceil
from weakref import WeakValueDictionary
from zlib import crc32

from attrs import Factory, define, field, frozen
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..model import (
    Family,
    InvalidRequest,
    Problem,
    Protocol,
    Status,
    StatusChanged,
    StopReason,
    Target,
    Trace,
    TraceEvent,
    TraceRequest,
)
from ..naming.cache import TtlCache
from ..naming.describer import Describer
from ..naming.errors import LookUpFailed
from ..naming.hostname import parse_target
from ..naming.policy import TargetPolicy, prefix_of
from ..probing.lanes import Run
from ..probing.prober import ProbeKind, Prober
from ..probing.scheduler import Scheduler
from ..probing.trace import TraceMachine
from .ability import NOT_READY_RETRY_S, Ability, check_literal, family_of
from .admission import Admission
from .describing import Describing
from .engine import Busy, NotReady, Page, Readiness, TargetNotAllowed, UnknownTrace
from .journal import Journal, JournalFollower
from .packing import pack, unpack
from .shelf import Kept, Shelf
from .tally import Tally

IPAddress = IPv4Address | IPv6Address
Resolve = Callable[[str, Family | None], "Deferred[tuple[IPAddress, ...]]"]

#: A terminal trace waits at most this long for reverse names still being looked up before it is sealed.
DESCRIPTION_GRACE_S = 2.0
LENGTH_TTL_S = 600.0
_LEAST_SOURCE_PORT, _MOST_SOURCE_PORT = 10_000, 32_767


@frozen(kw_only=True)
class EngineLimits:
    """The bounds of the engine; each is the setting of its name, TRACEROUTED_<NAME>."""

    max_running: int = 500
    max_queued: int = 2000
    max_kept: int = 10_000
    max_kept_bytes: int = 64 * 2**20
    retention_s: float = 3600.0
    traces_per_prefix: int = 8
    max_remembered: int = 16_384
    show_source_address: bool = True


@define(eq=False)
class _Job:
    """One trace on its way through the engine. `deadline` and `started` are monotonic seconds.

    `wall_offset` makes Unix time of monotonic time. It is taken once, so that a step of the wall clock moves no time
    of this trace against another.
    """

    sequence: int
    owner: str | None
    journal: Journal
    deadline: float
    wall_offset: float
    host: str
    started: float = 0.0
    target: Target | None = None
    source_address: str = ""
    prefix: str | None = None
    machine: TraceMachine | None = None
    run: Run | None = None
    timer: IDelayedCall | None = None
    resolving: Deferred[None] | None = None
    describing: Describing | None = None
    waiters: tuple[Deferred[None], ...] = ()

    @property
    def request(self) -> TraceRequest:
        return self.journal.request

    @property
    def status(self) -> Status:
        return self.journal.status

    @property
    def revision(self) -> int:
        return self.journal.revision

    @property
    def expires_at(self) -> float | None:
        return self.journal.expires_at

    @property
    def names(self) -> tuple[str, ...]:
        """The target as it was asked for, its normal form, and its address once there is one."""
        address = () if self.target is None else (self.target.address,)
        return (self.request.target, self.host, *address)


@define(eq=False)
class MemoryEngine:
    """See `Engine` for the calls. `wall` gives Unix seconds; `source_address` the local address towards a target."""

    _clock: IReactorTime
    _wall: Callable[[], float]
    _scheduler: Scheduler
    _probers: Mapping[Family, Prober]
    _policy: TargetPolicy
    _resolve: Resolve
    _describer: Describer
    _source_address: Callable[[str], str]
    _limits: EngineLimits = EngineLimits()
    _encode: Callable[[TraceEvent], bytes] = lambda event: b""
    _log: Logger = Factory(Logger)
    tally: Tally = field(init=False, factory=Tally)
    #: by id, in the order of their sequence: what has not been sealed, and what is kept
    _traces: dict[str, _Job | Kept] = field(init=False, factory=dict)
    _shelf: Shelf = field(init=False)
    #: journals of kept traces while somebody holds them
    _reopened: WeakValueDictionary[str, Journal] = field(init=False, factory=WeakValueDictionary)
    _sequence: int = field(init=False, default=0)
    _unfinished: int = field(init=False, default=0)
    _ability: Ability = field(init=False)
    _admission: Admission[_Job] = field(init=False)
    _lengths: TtlCache[str, int] = field(init=False)
    _typical_s: float = field(init=False, default=1.0)
    _draining: Deferred[None] | None = field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        self._ability = Ability(self._probers)
        self._admission = Admission(self._limits.max_running, self._limits.traces_per_prefix)
        self._lengths = TtlCache(self._limits.max_remembered)
        self._shelf = Shelf(
            self._clock,
            self._limits.retention_s,
            self._limits.max_kept,
            self._limits.max_kept_bytes,
            self._traces.pop,
        )

    # --- accepting -------------------------------------------------------------------------------------------

    def submit(self, request: TraceRequest, owner: str | None = None) -> Trace:
        """See `Engine.submit`."""
        if self._draining is not None:
            raise NotReady("the service is shutting down; try again when it is back", NOT_READY_RETRY_S)
        try:
            target = parse_target(request.target)
        except ValueError as wrong:
            raise InvalidRequest((Problem("target", str(wrong)),)) from None
        if isinstance(target, str):
            families = [request.family] if request.family else list(self._probers)
        else:
            check_literal(request, target)
            families = [family_of(target)]
            refusal = self._policy.refusal(target)
            if refusal is not None:
                raise TargetNotAllowed(refusal)
        self._ability.check(request, families)
        self._check_room(request)
        return self._accept(request, owner, target).journal.trace()

    def _check_room(self, request: TraceRequest) -> None:
        running = self._admission.running
        waiting = self._unfinished - running
        if not waiting and running < self._limits.max_running:
            return  # it does not have to wait
        if waiting < self._limits.max_queued and not (
            waiting >= self._limits.max_running and self._drain_s(waiting) > request.deadline_ms / 1000
        ):
            return
        after = max(1, min(60, ceil(self._drain_s(waiting))))
        if waiting >= self._limits.max_queued:
            why = f"{waiting} traces are waiting, as many as TRACEROUTED_MAX_QUEUED allows"
        else:
            why = (
                f"{waiting} traces wait, {self._limits.max_running} run at once (TRACEROUTED_MAX_RUNNING), and "
                "this one's deadline_ms would be over before its turn"
            )
        raise Busy(f"{why}; try again in {after} s", after)

    def _drain_s(self, waiting: int) -> float:
        """How long the traces waiting now will take, by how long traces took lately."""
        return waiting / self._limits.max_running * self._typical_s

    def _accept(self, request: TraceRequest, owner: str | None, target: IPAddress | str) -> _Job:
        now = self._clock.seconds()
        journal = Journal(secrets.token_urlsafe(16), request, self._encode, self._clock.callLater)
        self._sequence += 1
        self._unfinished += 1
        deadline, offset = now + request.deadline_ms / 1000, self._wall() - now
        job = _Job(self._sequence, owner, journal, deadline, offset, str(target))
        self._traces[journal.id] = job
        journal.append(StatusChanged(Status.QUEUED, self._time(job)))
        if isinstance(target, str):
            resolving = self._resolve(target, request.family)
            job.resolving = resolving.addCallbacks(
                lambda addresses: self._resolved(job, addresses), lambda failure: self._unresolved(job, failure)
            )
        else:
            self._resolved(job, (target,))
        if job.journal.status is Status.QUEUED:  # once it runs, its machine minds the deadline
            job.timer = self._clock.callLater(request.deadline_ms / 1000, self._missed, job)
        return job

    def _time(self, job: _Job) -> float:
        """Now, as this trace tells it: Unix seconds, rounded to what is shown."""
        return round(self._clock.seconds() + job.wall_offset, 3)

    # --- on the way to running -----------------------------------------------------------------------------------

    def _unresolved(self, job: _Job, failure: Failure) -> None:
        job.resolving = None
        if job.journal.status.terminal:
            return  # ended meanwhile: the look-up was taken back
        if not isinstance(failure.value, LookUpFailed):
            self._log.failure("look-up of a target failed", failure)
        self._end(job, StopReason.ERROR, str(failure.value) or f"looking up {job.host} failed")

    def _resolved(self, job: _Job, addresses: tuple[IPAddress, ...]) -> None:
        job.resolving = None
        if job.journal.status.terminal:
            return
        refusals: list[str] = []
        for address in addresses:
            family = family_of(address)
            refusal = self._policy.refusal(address) or self._ability.refusal(job.request, family)
            if refusal is not None:
                refusals.append(refusal)
                continue
            job.target = Target(job.host, str(address), family, tuple(str(each) for each in addresses))
            job.prefix = prefix_of(address)
            job.journal.append(StatusChanged(Status.QUEUED, self._time(job), target=job.target))
            self._admission.join(job.prefix, job)
            self._start_more()
            return
        self._end(job, StopReason.ERROR, "; ".join(dict.fromkeys(refusals)))

    def _start_more(self) -> None:
        while (job := self._admission.next()) is not None:
            self._start(job)

    def _start(self, job: _Job) -> None:
        target, request = job.target, job.request
        assert target is not None
        try:
            source = self._source_address(target.address)
        except OSError as error:
            self._end(job, StopReason.ERROR, f"this host has no route to {target.address}: {error.strerror or error}")
            return
        now = job.started = self._clock.seconds()
        if job.timer is not None:
            job.timer.cancel()
            job.timer = None
        shown = source if self._limits.show_source_address else None
        job.journal.append(StatusChanged(Status.RUNNING, self._time(job), source_address=shown))
        emit = job.journal.append
        if request.resolve_names or request.lookup_asn:
            job.describing = Describing(job.journal, self._describer, lambda: self._described(job))
            emit = job.describing.note
        job.machine = TraceMachine(
            request,
            target.address,
            emit,
            now=now,
            deadline=job.deadline,
            wall_offset=job.wall_offset,
            source_port=self._source_port(job) if request.protocol is Protocol.UDP else None,
            expected_length=self._lengths.get(job.prefix or "", now, None),
        )
        kind = ProbeKind(
            request.protocol,
            target.address,
            source,
            request.filled_port,
            request.size,
            request.tos,
            ceil(request.timeout_ms / 1000),
        )
        job.run = self._scheduler.start(job.machine, kind, target.family, lambda: self._machine_ended(job))

    @staticmethod
    def _source_port(job: _Job) -> int:
        """The first flow's source port: the one asked for, else one that differs between traces."""
        request = job.request
        span = _MOST_SOURCE_PORT - _LEAST_SOURCE_PORT - request.flows + 2
        return request.source_port or _LEAST_SOURCE_PORT + crc32(job.journal.id.encode()) % span

    # --- ending ----------------------------------------------------------------------------------------------

    def _missed(self, job: _Job) -> None:
        """The deadline passed before the trace could run."""
        job.timer = None
        self._end(job, StopReason.DEADLINE, "the deadline passed before the trace could start")

    def _machine_ended(self, job: _Job) -> None:
        machine = job.machine
        assert machine is not None
        assert machine.finished is not None
        if machine.length is not None and job.prefix is not None:
            self._lengths.put(job.prefix, machine.length, LENGTH_TTL_S, self._clock.seconds())
        self._end(job, machine.finished, machine.error)

    def _end(self, job: _Job, reason: StopReason, error: str | None = None) -> None:
        """Make a job terminal: the only way there."""
        if job.journal.status.terminal:
            return
        if reason is StopReason.CANCELLED:
            status = Status.CANCELLED
        elif reason is StopReason.ERROR or job.machine is None:
            status = Status.FAILED
        else:
            status = Status.COMPLETED
        ran = job.journal.status is Status.RUNNING
        job.journal.append(StatusChanged(status, self._time(job), stop_reason=reason, error=error))
        self._unfinished -= 1
        if job.timer is not None:
            job.timer.cancel()
            job.timer = None
        if job.resolving is not None:
            job.resolving.cancel()
        request, family = job.request, job.target.family if job.target else None
        self.tally.ended[status, reason, request.protocol, family] += 1
        if ran:
            seconds = self._clock.seconds() - job.started
            self._typical_s += (seconds - self._typical_s) / 8
            if job.machine is not None and family is not None:
                self.tally.ran(request.protocol, family, seconds, job.machine)
        if job.prefix is not None:
            self._admission.leave(job.prefix, job)
            self._start_more()
        if job.describing is not None and job.describing.pending:
            job.timer = self._clock.callLater(DESCRIPTION_GRACE_S, self._names_are_late, job)
        else:
            self._seal(job)
        waiters, job.waiters = job.waiters, ()
        for waiter in waiters:
            waiter.callback(None)

    def _names_are_late(self, job: _Job) -> None:
        job.timer = None
        self._seal(job)

    def _described(self, job: _Job) -> None:
        if job.status.terminal:
            self._seal(job)

    def _seal(self, job: _Job) -> None:
        """Nothing follows: pack the job and keep it for its retention time."""
        if job.journal.sealed:
            return
        if job.timer is not None:
            job.timer.cancel()
            job.timer = None
        if job.describing is not None:
            job.describing.stop()
        job.machine = job.run = job.describing = None
        journal, expires_at = job.journal, self._time(job) + self._limits.retention_s
        journal.seal(expires_at)
        if journal.id in self._traces:
            names = " ".join(dict.fromkeys(job.names))
            packed = pack(journal.request, journal.facts)
            kept = self._traces[journal.id] = Kept(
                journal.id, job.sequence, job.owner, names, journal.status, journal.revision, expires_at, packed
            )
            self._shelf.put(kept)
            self._reopened[journal.id] = journal  # whoever waited for the end reads it in this turn
        if self._draining is not None and not self._unfinished:
            self._drained()

    # --- reading ---------------------------------------------------------------------------------------------

    def _find(self, trace_id: str) -> _Job | Kept:
        try:
            return self._traces[trace_id]
        except KeyError:
            raise UnknownTrace("there is no trace with this id: it expired, was deleted, or never was") from None

    def _journal(self, found: _Job | Kept) -> Journal:
        """The journal of a trace; that of a kept one is made again."""
        if isinstance(found, _Job):
            return found.journal
        journal = self._reopened.get(found.id)
        if journal is None:
            request, facts = unpack(found.packed)
            journal = Journal(found.id, request, self._encode, self._clock.callLater)
            for fact in facts:
                journal.append(fact)
            journal.seal(found.expires_at)
        return journal

    def get(self, trace_id: str) -> Trace:
        """See `Engine.get`."""
        return self._journal(self._find(trace_id)).trace()

    def revision(self, trace_id: str) -> tuple[int, Status, float | None]:
        """See `Engine.revision`."""
        found = self._find(trace_id)
        return found.revision, found.status, self._shelf.left(trace_id)

    def owner(self, trace_id: str) -> str | None:
        """See `Engine.owner`."""
        return self._find(trace_id).owner

    def list(
        self,
        *,
        status: Status | None = None,
        target: str | None = None,
        owner: str | None = None,
        limit: int = 20,
        cursor: str | None = None,
    ) -> Page:
        """See `Engine.list`."""
        before = self._sequence + 1 if cursor is None else _sequence_of(cursor)
        found: list[_Job | Kept] = []
        more = False
        for trace in reversed(self._traces.values()):
            if (
                trace.sequence >= before
                or (status is not None and trace.status is not status)
                or (owner is not None and trace.owner != owner)
                or (target is not None and target not in _names(trace))
            ):
                continue
            more = len(found) == limit
            if more:
                break
            found.append(trace)
        cursor = _cursor_of(found[-1].sequence) if more else None
        return Page(tuple(self._journal(each).trace() for each in found), cursor)

    def follow(self, trace_id: str, notify: Callable[[], None], after: int = 0) -> JournalFollower:
        """See `Engine.follow`."""
        found = self._find(trace_id)
        journal = self._journal(found)
        if isinstance(found, Kept):
            self._reopened[trace_id] = journal
        return journal.follow(notify, after)

    def finished(self, trace_id: str) -> Deferred[None]:
        """See `Engine.finished`."""
        job = self._find(trace_id)
        if isinstance(job, Kept) or job.status.terminal:
            return succeed(None)
        waiting = job

        def take_back(waiter: Deferred[None]) -> None:
            waiting.waiters = tuple(each for each in waiting.waiters if each is not waiter)

        waiter: Deferred[None] = Deferred(take_back)
        job.waiters = (*job.waiters, waiter)
        return waiter

    def cancel(self, trace_id: str) -> None:
        """See `Engine.cancel`."""
        found = self._find(trace_id)
        if isinstance(found, _Job):
            self._stop(found)
            self._seal(found)
        self._shelf.take(trace_id)
        del self._traces[trace_id]

    def _stop(self, job: _Job) -> None:
        if job.journal.status.terminal:
            return
        if job.machine is not None and job.run is not None:
            job.machine.stop(StopReason.CANCELLED)
            self._scheduler.stop(job.run)
        self._end(job, StopReason.CANCELLED)

    def readiness(self) -> Mapping[Family, Readiness]:
        """See `Engine.readiness`."""
        reason = "the service is shutting down" if self._draining is not None else None
        return {
            family: Readiness(
                prober.capabilities is not None and reason is None,
                reason or prober.unready_reason,
                prober.capabilities,
            )
            for family, prober in self._probers.items()
        }

    @property
    def counts(self) -> Mapping[str, int]:
        """How many traces are running, waiting to (queued), and kept."""
        running = self._admission.running
        return {"running": running, "queued": self._unfinished - running, "kept": len(self._shelf)}

    @property
    def kept_bytes(self) -> int:
        """Memory that finished traces take, about."""
        return self._shelf.size

    # --- shutting down ---------------------------------------------------------------------------------------

    def drain(self, patience_s: float) -> Deferred[None]:
        """Take nothing new; fires when every trace has ended, at the latest after `patience_s`, when those still
        running are cancelled. Results stay readable."""
        if self._draining is None:
            self._draining = Deferred()
            patience = self._clock.callLater(patience_s, self._out_of_patience)

            def relax(result: None) -> None:
                if patience.active():
                    patience.cancel()
                self._shelf.close()

            self._draining.addBoth(relax)
            if not self._unfinished:
                self._drained()
        return self._draining

    def _out_of_patience(self) -> None:
        for job in self._unsealed():
            self._stop(job)
        self._drained()

    def _unsealed(self) -> builtins.list[_Job]:
        return [found for found in self._traces.values() if isinstance(found, _Job)]

    def _drained(self) -> None:
        if self._draining is not None and not self._draining.called:
            for job in self._unsealed():
                self._seal(job)  # without the names still being looked up
            if not self._draining.called:
                self._draining.callback(None)


def _names(trace: _Job | Kept) -> Collection[str]:
    """What a trace's target is known by."""
    return trace.names.split(" ") if isinstance(trace, Kept) else trace.names


def _cursor_of(sequence: int) -> str:
    return urlsafe_b64encode(sequence.to_bytes(8)).decode().rstrip("=")


def _sequence_of(cursor: str) -> int:
    try:
        raw = urlsafe_b64decode(cursor.encode("ascii") + b"=")
    except ValueError:
        raw = b""
    if len(raw) != 8 or _cursor_of(int.from_bytes(raw)) != cursor:
        raise ValueError("not a cursor of this list; take it from the previous page")
    return int.from_bytes(raw)
