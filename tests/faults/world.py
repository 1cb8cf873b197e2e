"""The whole engine over scripted children, on a virtual clock, and what must be true of it whatever goes wrong.

Everything from the engine down to the process protocol is the service's own; only the child, the clock and naming are
not. `World.complaints` says, in words, which promise was broken.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import globalLogPublisher

from faults.script import LENGTH, SILENT_TTL, Script, ScriptedClock, router
from tracerouted.jobs.engine import NotReady, Unsupported
from tracerouted.jobs.memory import EngineLimits, MemoryEngine
from tracerouted.model import (
    EndEvent,
    Family,
    Outcome,
    Protocol,
    Status,
    StatusEvent,
    StopReason,
    Trace,
    TraceRequest,
)
from tracerouted.mtrpacket import Pace, Supervisor
from tracerouted.naming.describer import Describer
from tracerouted.naming.policy import TargetPolicy
from tracerouted.probing.prober import ProbeKind
from tracerouted.probing.scheduler import ProbeLimits, Scheduler

DEADLINE_S = 5.0
#: What the service promises: terminal so long after the deadline at the latest.
GRACE_S = 2.0
ANSWERED = (Outcome.REPLY, Outcome.TTL_EXPIRED, Outcome.UNREACHABLE)


class Witness:
    """Between a supervisor and the scheduler: every probe sent is answered once, and none that was not sent."""

    def __init__(self, supervisor: Supervisor, scheduler: Scheduler, complaints: list[str]) -> None:
        self.family = supervisor.family
        self.sent: Counter[int] = Counter()
        self._supervisor, self._scheduler, self._complaints = supervisor, scheduler, complaints
        self._tickets: list[object] = []  # keeps their ids their own

    @property
    def capabilities(self) -> Any:
        return self._supervisor.capabilities

    @property
    def unready_reason(self) -> str | None:
        return self._supervisor.unready_reason

    def prepare(self, kind: ProbeKind) -> object:
        return self._supervisor.prepare(kind)

    def send(self, prepared: object, ttl: int, source_port: int | None, ticket: object) -> None:
        self._tickets.append(ticket)
        self.sent[id(ticket)] += 1
        self._supervisor.send(prepared, ttl, source_port, ticket)

    def confirm(self) -> None:
        self._supervisor.confirm()

    def on_reply(self, ticket: object, reply: Any, sent_at: float, now: float) -> None:
        self.sent[id(ticket)] -= 1
        if self.sent[id(ticket)] != 0:
            self._complaints.append(f"{self.family}: a probe was answered that was not out: {reply}")
        self._scheduler.on_reply(ticket, reply, sent_at, now)

    def on_turn(self, prober: object) -> None:
        self._scheduler.on_turn(self)

    def on_alive(self, prober: object, asked_at: float) -> None:
        self._scheduler.on_alive(self, asked_at)


class World:
    """An engine over two scripted probers, started; a context manager. `scripts`: family -> what goes wrong there."""

    def __init__(self, scripts: dict[Family, Script] | None = None) -> None:
        self.scripts = {family: Script() for family in Family} | (scripts or {})
        self.clock = ScriptedClock(self.scripts)
        self.complaints: list[str] = []
        self.scheduler = Scheduler(self.clock, ProbeLimits())
        self.probers = {
            family: Supervisor(
                family,
                self.clock,  # type: ignore[arg-type]
                path="/fake/mtr-packet",
                pace=Pace(retest_s=3.0),
                wall_clock=self.clock.wall,
                limit_descriptors=self.clock.limit_descriptors,
                find_binary=str,
            )
            for family in Family
        }
        self.witnesses = {f: Witness(prober, self.scheduler, self.complaints) for f, prober in self.probers.items()}
        for family, prober in self.probers.items():
            prober.listener = self.witnesses[family]
            self.scheduler.add_prober(self.witnesses[family])
        self.engine = MemoryEngine(
            self.clock,
            self.clock.wall,
            self.scheduler,
            self.witnesses,
            TargetPolicy((), ()),
            lambda host, family: Deferred(),
            Describer(),  # type: ignore[arg-type]
            lambda target: "198.51.100.7" if "." in target else "2001:db8::7",
            EngineLimits(),
        )
        self.accepted: list[str] = []
        self.refused = 0
        self._followers: dict[str, Any] = {}
        self._number = 0

    def __enter__(self) -> World:
        globalLogPublisher.addObserver(self._log)
        for prober in self.probers.values():
            prober.start()
        return self

    def __exit__(self, *exc: object) -> None:
        globalLogPublisher.removeObserver(self._log)

    def _log(self, event: dict[str, Any]) -> None:
        if "log_failure" in event:
            self.complaints.append(f"a failure was logged: {event['log_failure'].getTraceback()}")

    # --- what happens in it ------------------------------------------------------------------------------------

    def submit(self, family: Family, protocol: Protocol = Protocol.ICMP, **fields: Any) -> str | None:
        """Ask for a trace to a target of its own; None if it is refused because the family cannot trace now."""
        self._number += 1
        target = f"44.{self._number >> 8}.{self._number & 255}.200" if family is Family.IPV4 else ""
        request = TraceRequest(
            **{
                "target": target or f"2a10:{self._number:x}::c8",
                "protocol": protocol,
                "probes": 2,
                "deadline_ms": round(DEADLINE_S * 1000),
                "resolve_names": False,
                **fields,
            }
        )
        try:
            trace_id = self.engine.submit(request).id
        except (NotReady, Unsupported):
            self.refused += 1
            return None
        self.accepted.append(trace_id)
        self._followers[trace_id] = self.engine.follow(trace_id, lambda: None)
        self.clock.callLater(request.deadline_ms / 1000 + GRACE_S, self._late, trace_id)
        return trace_id

    def _late(self, trace_id: str) -> None:
        trace = self.engine.get(trace_id)
        if not trace.status.terminal:
            self.complaints.append(f"{trace.request.target} is {trace.status} {GRACE_S:g} s after its deadline")

    def run(self, seconds: float) -> None:
        """Let time pass, from one thing that is due to the next."""
        end = self.clock.seconds() + seconds
        while True:
            due = min((call.getTime() for call in self.clock.getDelayedCalls()), default=end)
            if due >= end:
                break
            self.clock.advance(max(1e-9, due - self.clock.seconds()))
        self.clock.advance(max(0.0, end - self.clock.seconds()))

    def until_ready(self, family: Family, within: float) -> float | None:
        """Wait for a family to be ready: how long it took, None if it did not become so in time."""
        begun = self.clock.seconds()
        while self.probers[family].capabilities is None:
            if self.clock.seconds() - begun > within:
                return None
            self.run(0.02)
        return self.clock.seconds() - begun

    # --- what must be true -------------------------------------------------------------------------------------

    def judge(self, trace: Trace) -> Iterator[str]:
        """What is wrong with a trace that may have been troubled: it need not be whole, but nothing is made up."""
        target = trace.request.target
        for hop in trace.hops:
            for probe in hop.probes:
                if probe.outcome in ANSWERED and probe.address != router(target, hop.ttl):
                    yield f"{target} TTL {hop.ttl}: {probe.address} answered"
                if probe.rtt_us is not None and not 0 <= probe.rtt_us <= (DEADLINE_S + GRACE_S) * 1e6:
                    yield f"{target} TTL {hop.ttl}: an RTT of {probe.rtt_us} us"
                if trace.status.terminal and trace.stop_reason is StopReason.REACHED and hop.ttl > LENGTH:
                    yield f"{target} TTL {hop.ttl} is beyond the target"
            silenced = self.clock.silenced
            gone = silenced[target, hop.ttl]
            if hop.ttl == LENGTH:  # probes that went too far count here
                gone += sum(silenced[target, ttl] for ttl in range(LENGTH + 1, 65))
            if hop.stats.lost > gone:
                yield f"{target} TTL {hop.ttl}: {hop.stats.lost} called lost, {gone} were"

    def judge_whole(self, trace: Trace) -> Iterator[str]:
        """What is wrong with a trace that nothing troubled."""
        yield from self.judge(trace)
        shown = [next((r.address for r in hop.responders), None) for hop in trace.hops]
        truth = [router(trace.request.target, ttl) if ttl != SILENT_TTL else None for ttl in range(1, LENGTH + 1)]
        errors = {probe.outcome for hop in trace.hops for probe in hop.probes} - {*ANSWERED, Outcome.TIMEOUT}
        if (trace.status, trace.stop_reason, errors) != (Status.COMPLETED, StopReason.REACHED, set()):
            yield f"{trace.request.target} {trace.status}, {trace.stop_reason}, {errors}: {trace.error}"
        if shown != truth:
            yield f"{trace.request.target}: {shown}"

    def conclude(self) -> list[str]:
        """Judge every trace, stop everything, and look whether anything was left behind."""
        for trace_id in self.accepted:
            trace = self.engine.get(trace_id)
            self.complaints += self.judge(trace)
            events = self._followers[trace_id].take()
            ends = [e.status for e in events if isinstance(e, StatusEvent) and e.status.terminal]
            if len(ends) != 1 or [EndEvent] != [type(e) for e in events if isinstance(e, EndEvent)]:
                self.complaints.append(f"{trace.request.target} ended {ends}")
        spawned = sorted(self.clock.spawn_times)
        for earlier, later in zip(spawned, spawned[12:], strict=False):
            if later - earlier < self.probers[Family.IPV4]._pace.breaker_s:
                self.complaints.append(f"{13} spawns within {later - earlier:.2f} s")
        self.run(10)  # what is in flight times out
        in_flight = {
            str(family): (lane.all.in_flight, lane.all.young, lane.sockets.in_flight, lane.sockets.young)
            for family, lane in self.scheduler._lanes.items()
        }
        left = {
            "running": self.scheduler.running,
            "targets": len(self.scheduler._targets._used),
            "unfinished": self.engine.counts["running"] + self.engine.counts["queued"],
            "unanswered": sum(count != 0 for witness in self.witnesses.values() for count in witness.sent.values()),
            "in processes": sum(
                len(child.protocol._in_flight) + len(child.protocol._questions) for child in self.clock.spawned
            ),
            "in flight": sum(sum(counts) for counts in in_flight.values()),
        }
        self.complaints += [f"left behind: {count} {what}" for what, count in left.items() if count]
        for prober in self.probers.values():
            prober.stop()
        self.scheduler.close()
        self.engine._shelf.close()
        self.run(3)
        if any(not child.reaped for child in self.clock.spawned):
            self.complaints.append("a child was left")
        if calls := self.clock.getDelayedCalls():
            self.complaints.append(f"calls were left: {calls}")
        return self.complaints
