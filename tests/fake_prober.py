"""A prober on a `task.Clock`, in front of a virtual network: for the scheduler and the engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import define, field
from twisted.internet.task import Clock

from tracerouted.model import Capabilities, Family, Protocol, Reply, ReplyKind, RetryReason
from tracerouted.probing.prober import Listener, ProbeKind

#: Given the kind of probe, its TTL, source port and how many were sent before: seconds until the answer and the
#: answer; None for silence, which is told after the probe's timeout.
Network = Callable[[ProbeKind, int, "int | None", int], "tuple[float, Reply] | None"]


def straight(length: int = 5, rtt: float = 0.002) -> Network:
    """A line of routers to whatever target is asked for, all of them answering."""

    def network(kind: ProbeKind, ttl: int, port: int | None, earlier: int) -> tuple[float, Reply] | None:
        if ttl >= length:
            return length * rtt, Reply(ReplyKind.REPLY, kind.address, round(length * rtt * 1e6))
        return ttl * rtt, Reply(ReplyKind.TTL_EXPIRED, f"10.0.0.{ttl}", round(ttl * rtt * 1e6))

    return network


@define(eq=False)
class FakeProber:
    """A `Prober`. `sent` holds (time, kind, TTL, source port) of all probes; `most_...` what was seen at once."""

    clock: Clock
    network: Network = field(factory=straight)
    family: Family = Family.IPV4
    slots: int = 1000
    protocols: frozenset[Protocol] = frozenset(Protocol)
    constant_flow_udp: bool = True
    #: beyond this many in flight probes come back as exhausted
    capacity: int = 100_000
    unready: str | None = None
    answers_confirm: bool = True
    listener: Listener = field(init=False, default=None)  # type: ignore[assignment]
    sent: list[tuple[float, ProbeKind, int, int | None]] = field(init=False, factory=list)
    in_flight: dict[int, Any] = field(init=False, factory=dict)
    most_in_flight: int = field(init=False, default=0)
    most_young: int = field(init=False, default=0)
    confirms: int = field(init=False, default=0)

    @property
    def capabilities(self) -> Capabilities | None:
        if self.unready is not None:
            return None
        return Capabilities("0.95", self.protocols, self.constant_flow_udp, self.slots)

    @property
    def unready_reason(self) -> str | None:
        return self.unready

    def prepare(self, kind: ProbeKind) -> object:
        return kind

    def send(self, prepared: object, ttl: int, source_port: int | None, ticket: object) -> None:
        assert isinstance(prepared, ProbeKind)
        number = len(self.sent)
        now = self.clock.seconds()
        if len(self.in_flight) >= self.capacity:
            outcome: Any = (0.0, Reply(ReplyKind.RETRY, error=RetryReason.EXHAUSTED))
        else:
            outcome = self.network(prepared, ttl, source_port, number)
        delay, reply = outcome or (float(prepared.timeout_s), Reply(ReplyKind.TIMEOUT))
        self.sent.append((now, prepared, ttl, source_port))
        self.in_flight[number] = (ticket, now, self.clock.callLater(delay, self._answer, number, reply))
        self.most_in_flight = max(self.most_in_flight, len(self.in_flight))
        young = sum(1 for _, at, _ in self.in_flight.values() if now - at < 0.2)
        self.most_young = max(self.most_young, young)

    def _answer(self, number: int, reply: Reply) -> None:
        ticket, sent_at, _ = self.in_flight.pop(number)
        self.listener.on_reply(ticket, reply, sent_at, self.clock.seconds())
        self.listener.on_turn(self)

    def die(self) -> None:
        """Hand back everything in flight, as after the death of the process; ready again at once."""
        for number in list(self.in_flight):
            ticket, sent_at, call = self.in_flight.pop(number)
            call.cancel()
            died = Reply(ReplyKind.RETRY, error=RetryReason.DIED)
            self.listener.on_reply(ticket, died, sent_at, self.clock.seconds())
        self.listener.on_turn(self)

    def confirm(self) -> None:
        self.confirms += 1
        if self.answers_confirm:
            asked_at = self.clock.seconds()
            self.clock.callLater(0.001, lambda: self.listener.on_alive(self, asked_at))


def pump(clock: Clock, seconds: float, step: float = 0.0005) -> None:
    """Let time pass in small steps, so that timers fire in order and in turn."""
    for _ in range(round(seconds / step)):
        clock.advance(step)
