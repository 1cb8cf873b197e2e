"""An in-memory `Engine` whose traces do what a test says, for tests of whatever stands above the seam.

A test drives a trace by hand (`start`, `probe`, `describe`, `finish`); the fake keeps its views and its events, and
notifies followers once per turn of the clock it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attrs import define, evolve, field
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from tracerouted.http.wire import encode_event
from tracerouted.jobs.engine import Page, Readiness, UnknownTrace
from tracerouted.model import (
    Capabilities,
    EndEvent,
    Family,
    Hop,
    HopEvent,
    HopStats,
    Outcome,
    Path,
    Probe,
    Protocol,
    Responder,
    Status,
    StatusEvent,
    StopReason,
    Target,
    Trace,
    TraceEvent,
    TraceRequest,
)

EPOCH = 1_700_000_000.0
RETENTION_S = 3600.0

CAPABILITIES = Capabilities(
    version="0.95", protocols=frozenset({Protocol.ICMP, Protocol.UDP}), constant_flow_udp=True, slots=1000
)


def stats_of(probes: tuple[Probe, ...]) -> HopStats:
    """Counts and the simple figures of some probes; deviation and jitter are left out."""
    rtts = sorted(p.rtt_us for p in probes if p.rtt_us is not None)
    lost = sum(p.outcome is Outcome.TIMEOUT for p in probes)
    received = sum(p.address is not None for p in probes)
    sent = received + lost
    middle = None if not rtts else float(rtts[len(rtts) // 2])
    return HopStats(
        sent=sent,
        received=received,
        lost=lost,
        loss_pct=100 * lost / sent if sent else None,
        min_us=float(rtts[0]) if rtts else None,
        avg_us=sum(rtts) / len(rtts) if rtts else None,
        median_us=middle,
        max_us=float(rtts[-1]) if rtts else None,
        stddev_us=None,
        jitter_us=None,
    )


def hop_of(ttl: int, probes: tuple[Probe, ...], names: Mapping[str, str] | None = None) -> Hop:
    """One hop from its probes, responders in the order they first answered."""
    answered: dict[str, list[Probe]] = {}
    for probe in probes:
        if probe.address is not None:
            answered.setdefault(probe.address, []).append(probe)
    responders = tuple(
        Responder(address, (names or {}).get(address), None, tuple(sorted({p.flow for p in their})), len(their))
        for address, their in answered.items()
    )
    return Hop(ttl, responders, probes, stats_of(probes), False)


def probe_of(address: str | None, rtt_us: int | None = None, outcome: Outcome | None = None, **more: Any) -> Probe:
    """A probe: an expiry at `address` after `rtt_us`, or silence when there is no address."""
    if outcome is None:
        outcome = Outcome.TIMEOUT if address is None else Outcome.TTL_EXPIRED
    given = {"flow": 1, "sent_at": EPOCH + 0.25, "mpls": (), "error": None, **more}
    return Probe(outcome=outcome, address=address, rtt_us=rtt_us, **given)


@define
class Job:
    """One trace of the fake: its view and its encoded events."""

    trace: Trace
    owner: str | None
    events: list[tuple[TraceEvent, bytes]] = field(factory=list)
    followers: list[FakeFollower] = field(factory=list)
    waiting: list[Deferred[None]] = field(factory=list)
    names: dict[str, str] = field(factory=dict)


@define(eq=False)
class FakeFollower:
    """A cursor into a job's events."""

    _job: Job
    _clock: Clock
    _notify: Callable[[], None]
    _next: int
    _born: int
    _called: bool = field(default=False, init=False)
    _on_close: Callable[[], None] = lambda: None
    closed: bool = field(default=False, init=False)

    @property
    def done(self) -> bool:
        events = self._job.events
        return self._next == len(events) and bool(events) and isinstance(events[-1][0], EndEvent)

    @property
    def bytes_behind(self) -> int:
        return sum(len(frame) for _, frame in self._job.events[max(self._next, self._born) :])

    def take(self) -> list[TraceEvent]:
        taken = [event for event, _ in self._job.events[self._next :]]
        self._next = len(self._job.events)
        return taken

    def take_encoded(self, limit: int) -> bytes:
        frames: list[bytes] = []
        size = 0
        for _, frame in self._job.events[self._next :]:
            if frames and size + len(frame) > limit:
                break
            frames.append(frame)
            size += len(frame)
        self._next += len(frames)
        return b"".join(frames)

    def close(self) -> None:
        self.closed = True
        if self in self._job.followers:
            self._job.followers.remove(self)
            self._on_close()

    def wake(self) -> None:
        if not self._called:
            self._called = True
            self._clock.callLater(0, self._call)

    def _call(self) -> None:
        self._called = False
        if not self.closed:
            self._notify()


@define
class FakeEngine:
    """The engine; `refuse` is raised by the next `submit`, `ready` is what `readiness` says, `on_close`
    is called whenever a follower closes."""

    clock: Clock
    jobs: dict[str, Job] = field(factory=dict)
    submitted: list[TraceRequest] = field(factory=list)
    refuse: Exception | None = None
    on_close: Callable[[], None] = lambda: None
    built: int = 0
    ready: dict[Family, Readiness] = field(
        factory=lambda: {
            Family.IPV4: Readiness(True, None, CAPABILITIES),
            Family.IPV6: Readiness(False, "mtr-packet has no IPv6 socket", None),
        }
    )

    # --- the seam ---

    def submit(self, request: TraceRequest, owner: str | None = None) -> Trace:
        if self.refuse is not None:
            raise self.refuse
        self.submitted.append(request)
        trace = Trace(
            id=f"trace{len(self.submitted):03d}",
            status=Status.QUEUED,
            stop_reason=None,
            reached=False,
            revision=0,
            created_at=EPOCH + self.clock.seconds(),
            started_at=None,
            finished_at=None,
            expires_at=None,
            request=request,
            target=None,
            source_address=None,
            path_id=None,
            hops=(),
            paths=(),
            error=None,
        )
        self.jobs[trace.id] = Job(trace, owner)
        self._status(trace.id, status=Status.QUEUED)
        return self.jobs[trace.id].trace

    def get(self, trace_id: str) -> Trace:
        self.built += 1
        return self._job(trace_id).trace

    def revision(self, trace_id: str) -> tuple[int, Status, float | None]:
        trace = self._job(trace_id).trace
        left = None if trace.expires_at is None else max(0.0, trace.expires_at - EPOCH - self.clock.seconds())
        return trace.revision, trace.status, left

    def owner(self, trace_id: str) -> str | None:
        return self._job(trace_id).owner

    def list(
        self,
        *,
        status: Status | None = None,
        target: str | None = None,
        owner: str | None = None,
        limit: int = 20,
        cursor: str | None = None,
    ) -> Page:
        if cursor is not None and cursor not in self.jobs:
            raise ValueError("not a cursor")
        newest_first = [job.trace for job in reversed(self.jobs.values()) if owner in (None, job.owner)]
        if cursor is not None:
            newest_first = newest_first[[trace.id for trace in newest_first].index(cursor) + 1 :]
        kept = [
            trace
            for trace in newest_first
            if status in (None, trace.status)
            and (target in (None, trace.request.target) or (trace.target and trace.target.address == target))
        ]
        return Page(tuple(kept[:limit]), kept[limit - 1].id if len(kept) > limit else None)

    def follow(self, trace_id: str, notify: Callable[[], None], after: int = 0) -> FakeFollower:
        job = self._job(trace_id)
        start = next((i for i, (event, _) in enumerate(job.events) if event.revision > after), len(job.events))
        follower = FakeFollower(job, self.clock, notify, start, len(job.events), self.on_close)
        job.followers.append(follower)
        return follower

    def finished(self, trace_id: str) -> Deferred[None]:
        job = self._job(trace_id)
        waiting: Deferred[None] = Deferred(job.waiting.remove)
        job.waiting.append(waiting)
        if job.trace.status.terminal:
            self._release(job)
        return waiting

    def cancel(self, trace_id: str) -> None:
        job = self._job(trace_id)
        waiting, job.waiting = job.waiting, []
        if not job.trace.status.terminal:
            self.finish(trace_id, Status.CANCELLED, StopReason.CANCELLED)
        del self.jobs[trace_id]
        job.waiting = waiting
        self._release(job)

    def readiness(self) -> Mapping[Family, Readiness]:
        return self.ready

    # --- the script ---

    def start(self, trace_id: str, address: str = "192.0.2.9", source: str = "198.51.100.7") -> None:
        """The name is resolved and the trace runs."""
        host = self._job(trace_id).trace.request.target
        family = Family.IPV6 if ":" in address else Family.IPV4
        self._status(
            trace_id,
            status=Status.RUNNING,
            target=Target(host, address, family, (address,)),
            source_address=source,
            started_at=EPOCH + self.clock.seconds(),
        )

    def probe(self, trace_id: str, ttl: int, *probes: Probe, keep: int | None = None) -> None:
        """Probes of one hop settle, in order; each is an event. `keep` is how many of the latest the hop shows."""
        for probe in probes:
            job = self._job(trace_id)
            hops = {hop.ttl: hop for hop in job.trace.hops}
            before = hops[ttl].probes if ttl in hops else ()
            shown = (*before, probe)[-keep:] if keep else (*before, probe)
            hops[ttl] = hop = hop_of(ttl, shown, job.names)
            self._tell(
                job,
                lambda revision, hop=hop, probe=probe: HopEvent(
                    revision, hop.ttl, hop.responders, hop.stats, hop.rate_limited, probe
                ),
                hops=tuple(hops[t] for t in sorted(hops)),
            )

    def finish(
        self,
        trace_id: str,
        status: Status = Status.COMPLETED,
        stop_reason: StopReason = StopReason.REACHED,
        error: str | None = None,
        seal: bool = True,
    ) -> None:
        """The trace ends; unless `seal`, names may still arrive, and its end event comes with `seal`."""
        job = self._job(trace_id)
        addresses = tuple(hop.responders[0].address if hop.responders else None for hop in job.trace.hops)
        self._status(
            trace_id,
            status=status,
            stop_reason=stop_reason,
            reached=stop_reason is StopReason.REACHED,
            finished_at=EPOCH + self.clock.seconds(),
            path_id="9f2c",
            paths=(Path(1, "9f2c", addresses),),
            error=error,
        )
        if seal:
            self.seal(trace_id)
        self._release(job)

    def seal(self, trace_id: str) -> None:
        """Nothing about a finished trace changes any more."""
        job = self._job(trace_id)
        self._tell(job, None, expires_at=EPOCH + self.clock.seconds() + RETENTION_S)

    def _job(self, trace_id: str) -> Job:
        try:
            return self.jobs[trace_id]
        except KeyError:
            raise UnknownTrace("no such trace") from None

    def _status(self, trace_id: str, **changes: Any) -> None:
        def event(revision: int) -> TraceEvent:
            trace = self._job(trace_id).trace
            return StatusEvent(revision, trace.status, trace.stop_reason, trace.target, trace.source_address)

        self._tell(self._job(trace_id), event, **changes)

    def _tell(self, job: Job, make: Callable[[int], TraceEvent] | None, **changes: Any) -> None:
        revision = job.trace.revision + 1
        job.trace = evolve(job.trace, revision=revision, **changes)
        event = EndEvent(revision, job.trace) if make is None else make(revision)
        job.events.append((event, encode_event(event)))
        for follower in job.followers:
            follower.wake()

    def _release(self, job: Job) -> None:
        waiting, job.waiting = job.waiting, []
        for deferred in waiting:
            deferred.callback(None)
