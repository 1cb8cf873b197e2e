"""A network on virtual time, for the trace machine alone: no reactor, no process, no packets.

`drive` is the whole world of one machine: it sends what the machine asks for, delivers answers when they are due,
wakes the machine when it wants to be woken, and fails if the machine would spin or sleep for ever.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush

from attrs import Factory, define

from tracerouted.jobs.fold import Fold
from tracerouted.model import Fact, Reply, ReplyKind, Status, StatusChanged, StopReason, Trace, TraceRequest
from tracerouted.probing.agenda import NEVER
from tracerouted.probing.flow import InFlight
from tracerouted.probing.trace import TraceMachine

TARGET = "192.0.2.200"

#: What becomes of a probe, given it and how many came to its TTL and flow before: seconds until the answer and the
#: answer; None for silence.
Answer = Callable[[InFlight, int], "tuple[float, Reply] | None"]


def router(ttl: int, flow: int = 1) -> str:
    """The address of the router at a TTL."""
    return f"10.{flow}.0.{ttl}"


def expired(address: str, rtt: float, **more: object) -> tuple[float, Reply]:
    """A router's time exceeded after `rtt` seconds."""
    return rtt, Reply(ReplyKind.TTL_EXPIRED, address, round(rtt * 1e6), **more)  # type: ignore[arg-type]


def reply(rtt: float, address: str = TARGET) -> tuple[float, Reply]:
    """A reply after `rtt` seconds."""
    return rtt, Reply(ReplyKind.REPLY, address, round(rtt * 1e6))


def line(length: int, rtt: float = 0.002, silent: tuple[int, ...] = (), reachable: bool = True) -> Answer:
    """A straight path: the target at `length`, a router at each TTL below, each `rtt` seconds farther."""

    def answer(probe: InFlight, earlier: int) -> tuple[float, Reply] | None:
        if probe.ttl >= length:
            return reply(length * rtt) if reachable else None
        return None if probe.ttl in silent else expired(router(probe.ttl), probe.ttl * rtt)

    return answer


@define
class Drive:
    """One machine's world and what happened in it. `sent` holds (time, TTL, flow) of every probe."""

    request: TraceRequest
    answer: Answer
    deadline: float = 60.0
    expected_length: int | None = None
    #: how far behind the truth the prober's proof of life is, in seconds
    proof_lag: float = 0.0
    #: times at which the prober dies: everything in flight comes back as such
    deaths: tuple[float, ...] = ()
    #: seconds after which the prober gives up on probes that are not patient
    impatience: float | None = None
    facts: list[Fact] = Factory(list)
    sent: list[tuple[float, int, int]] = Factory(list)
    now: float = 0.0
    error: str | None = None

    def run(self) -> Trace:
        """Drive the machine to its end; the trace it adds up to."""
        machine = TraceMachine(
            self.request,
            TARGET,
            self.facts.append,
            now=0.0,
            deadline=self.deadline,
            wall_offset=1_000_000.0,
            source_port=20_000 if self.request.protocol == "udp" else None,
            expected_length=self.expected_length,
            short_wait=self.impatience or NEVER,
        )
        arriving: list[tuple[float, int, InFlight, Reply]] = []
        met: dict[tuple[int, int], int] = {}
        deaths = list(self.deaths)
        steps = 0
        while not machine.finished:
            steps += 1
            assert steps < 200_000, "the machine never finishes"
            machine.advance(self.now, self.now - self.proof_lag)
            if machine.finished:
                break
            while (probe := machine.next_probe(self.now)) is not None:
                self.sent.append((self.now, probe.ttl, probe.flow.number))
                key = (probe.ttl, probe.flow.number)
                outcome = self.answer(probe, met.get(key, 0))
                met[key] = met.get(key, 0) + 1
                patience = 2.0 if probe.patient or self.impatience is None else self.impatience
                if outcome is None or outcome[0] > patience:
                    outcome = patience, Reply(ReplyKind.TIMEOUT)
                delay, said = outcome
                heappush(arriving, (self.now + delay, len(self.sent), probe, said))
            wake = machine.wake_at()
            if machine.wants_proof:
                wake = min(wake, self.now + max(self.proof_lag, 0.001))
            if deaths:
                wake = min(wake, deaths[0])
            if arriving:
                wake = min(wake, arriving[0][0])
            due = [*deaths[:1], *(at for at, *_ in arriving[:1])]
            assert wake > self.now or any(at <= self.now for at in due), "the machine spins"
            self.now = max(self.now, wake)
            if deaths and deaths[0] <= self.now:
                deaths.pop(0)
                dead, arriving = sorted(arriving), []
                for _, _, probe, _ in dead:
                    machine.on_reply(probe, Reply(ReplyKind.RETRY, error="prober-died"), self.now)
            while arriving and arriving[0][0] <= self.now:
                _, _, probe, said = heappop(arriving)
                machine.on_reply(probe, said, self.now)
        self.error = machine.error
        return self.trace(machine.finished)

    def trace(self, reason: StopReason) -> Trace:
        """The facts so far, folded."""
        fold = Fold("id", self.request)
        for fact in [StatusChanged(Status.QUEUED, 1.0), *self.facts]:
            fold.apply(fact)
        fold.apply(StatusChanged(Status.COMPLETED, 2.0, stop_reason=reason))
        return fold.trace(None)


def addresses(trace: Trace) -> list[str | None]:
    """The first responder of each hop, None where silent."""
    return [hop.responders[0].address if hop.responders else None for hop in trace.hops]
