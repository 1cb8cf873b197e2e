"""A target's description compiled: what happens to a probe on each way, with each protocol and TTL.

`compile_route` turns a `Target` into a table of `Step`s per way, so that answering a packet costs a few look-ups.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from ipaddress import ip_address
from typing import Any

from attrs import define, field

from . import wire
from .scenario import PROTOCOLS, Loss, RateLimit, Router, Scenario, Target
from .services import Service


@define
class Cell:
    """What became of the probes of one protocol with one TTL to one target.

    received = answered + lost + limited + silent. `retransmitted` counts SYNs seen before; they are not received.
    """

    received: int = 0
    answered: int = 0
    lost: int = 0
    limited: int = 0
    silent: int = 0
    retransmitted: int = 0


class Bucket:
    """A token bucket; full at first."""

    def __init__(self, spec: RateLimit) -> None:
        self._burst, self._rate = spec.burst, spec.per_second
        self._tokens, self._at = spec.burst, 0.0

    def take(self, now: float) -> bool:
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True


@define(eq=False)
class Step:
    """What happens to probes of one protocol with one TTL on one way. `delay` and `jitter` are seconds."""

    build: wire.Build | None
    delay: float
    jitter: float
    copies: int
    series: tuple[Iterator[bool], ...]
    bucket: Bucket | None
    ports: dict[int, Step]


@define(eq=False)
class Route:
    """The ways to one target in one family, compiled, and what it has counted since `since` (monotonic seconds).

    `pick` chooses the way of a packet, None where there is one; `then` are the changes still to come; `syns` the
    ports and sequence numbers of SYNs seen.
    """

    family: str
    spec: Target
    since: float
    cells: dict[str, defaultdict[int, Cell]] = field(
        init=False, factory=lambda: {protocol: defaultdict(Cell) for protocol in PROTOCOLS}
    )
    tables: list[dict[str, list[Step]]] = field(init=False, factory=list)
    pick: Callable[[bytes, str], int] | None = field(init=False, default=None)
    received: int = field(init=False, default=0)
    paused: bool = field(init=False, default=False)
    then: list[Mapping[str, Any]] = field(init=False)
    syns: dict[bytes, None] = field(init=False, factory=dict)

    @then.default
    def _then(self) -> list[Mapping[str, Any]]:
        return list(self.spec.then)


def flow_hash(packet: bytes, protocol: str) -> int:
    """A router's hash of a packet's 5-tuple; ICMP has no ports and is hashed by its addresses alone."""
    six = packet[0] >> 4 == 6
    start, addresses = (40, packet[8:40]) if six else (20, packet[12:20])
    ports = b"" if protocol == "icmp" else packet[start : start + 4]
    return zlib.crc32(ports + addresses) >> 7


def compile_route(
    route: Route,
    scenario: Scenario,
    bucket: Callable[[str, RateLimit], Bucket],
    services: Mapping[str, Service],
) -> None:
    """Fill `route` from its `spec`. `bucket` gives the token bucket of the router or host at an address, `services`
    what is behind the names that UDP ports may have as their state."""
    target = route.spec
    ways = target.variants()
    series: dict[tuple[str, str, int], Iterator[bool]] = {}
    route.tables = [_Way(bucket, services, scenario, target, route.family, way, series).tables() for way in ways]
    mode, count = target.split(), len(ways)
    if mode == "flow":
        route.pick = lambda packet, protocol: flow_hash(packet, protocol) % count
    elif mode == "packet":
        turns = dict.fromkeys(PROTOCOLS, 0)

        def by_turns(packet: bytes, protocol: str) -> int:
            turns[protocol] += 1
            return turns[protocol] % count

        route.pick = by_turns
    else:
        route.pick = None


class _Way:
    """One way to one target, being compiled. `series` holds the running loss patterns, which its ways share."""

    def __init__(
        self,
        bucket: Callable[[str, RateLimit], Bucket],
        services: Mapping[str, Service],
        scenario: Scenario,
        target: Target,
        family: str,
        way: tuple[int, ...],
        series: dict[tuple[str, str, int], Iterator[bool]],
    ) -> None:
        self._bucket, self._scenario, self._target, self._family = bucket, scenario, target, family
        self._services, self._series = services, series
        self._version = 4 if family == "ipv4" else 6
        repeats = (255 - len(way)) // len(target.loop) if target.loop else 0
        self._way = way + target.loop * repeats

    def tables(self) -> dict[str, list[Step]]:
        return {protocol: self._table(protocol) for protocol in PROTOCOLS}

    def _table(self, protocol: str) -> list[Step]:
        """The steps by TTL; the last one stands for all higher TTLs."""
        drops: list[Iterator[bool]] = []
        steps: list[Step] = []
        refusals: dict[int, Step] = {}
        for position, number in enumerate(self._way, 1):
            router = self._scenario.router(number)
            drops.extend(self._running(router.drop, "drop", protocol, number))
            step = self._router_step(router, number, position, protocol, drops)
            refused = router.unreachable
            code = getattr(refused, self._family) if refused else None
            applies = refused is not None and code is not None and protocol in refused.protocols
            applies = applies and not (protocol == "icmp" and refused.ports)
            step.ports.update(refusals)
            if not applies or refused is None:
                steps.append(step)
                continue
            form = wire.ErrorForm(kind=wire.UNREACHABLE_TYPE[self._version], code=code, spent=position - 1)
            no = self._router_step(router, number, position, protocol, drops, form)
            if refused.ports:
                no_ports = dict.fromkeys(refused.ports, no)
                if refused.on_arrival:
                    step.ports.update(no_ports)
                steps.append(step)
                refusals.update(no_ports)
            else:
                no.ports.update(refusals)
                steps.append(no if refused.on_arrival else step)
                return [steps[0], *steps, no]
        if not self._target.loop:
            step = self._target_step(protocol, drops)
            step.ports.update(refusals)
            steps.append(step)
        return [steps[0], *steps]

    def _router_step(
        self,
        router: Router,
        number: int,
        position: int,
        protocol: str,
        drops: list[Iterator[bool]],
        form: wire.ErrorForm | None = None,
    ) -> Step:
        address = self._scenario.address(self._family, number, self._target)
        rtt = self._scenario.hop_ms * position if router.rtt is None else router.rtt
        build = None
        if not router.silent_to(protocol):
            envelope = self._envelope(self._source(router, address), position, router.broken)
            if form is None and router.says == "echo-reply":
                build = wire.echo_reply(envelope, router.broken) if protocol == "icmp" else None
            else:
                if form is None:
                    kind, code = wire.ERRORS[router.says][self._version]
                    form = wire.ErrorForm(
                        kind=kind,
                        code=code,
                        spent=position - 1,
                        quote=router.quote,
                        mpls=router.mpls,
                        broken=router.broken,
                    )
                build = wire.error(envelope, form)
        return Step(
            build=build,
            delay=rtt / 1000,
            jitter=router.jitter / 1000,
            copies=router.copies,
            series=(*drops, *self._running(router.lose, "lose", protocol, number)),
            bucket=self._bucket(address, router.rate_limit) if router.rate_limit else None,
            ports={},
        )

    def _source(self, router: Router, address: str) -> str:
        if router.source == "target":
            return self._scenario.address(self._family, self._target.at, self._target)
        return getattr(router, f"source_{self._family}") or address

    def _target_step(self, protocol: str, drops: list[Iterator[bool]]) -> Step:
        target = self._target
        series = (*drops, *self._running(target.lose, "lose", protocol, target.at))
        if protocol == "icmp":
            return self._host_step(protocol, "open" if target.echo else "silent", series)
        step = self._host_step(protocol, getattr(target, protocol), series)
        for port, state in getattr(target, f"{protocol}_ports").items():
            step.ports[int(port)] = self._host_step(protocol, state, series)
        return step

    def _host_step(self, protocol: str, state: str, series: tuple[Iterator[bool], ...]) -> Step:
        target, position = self._target, len(self._way) + 1
        number = target.at if target.answers_from is None else target.answers_from
        address = self._scenario.address(self._family, number, target)
        envelope = self._envelope(address, position, target.broken)
        build: wire.Build | None
        if state == "silent":
            build = None
        elif target.ends:
            kind, code = wire.ERRORS[target.ends][self._version]
            build = wire.error(envelope, wire.ErrorForm(kind=kind, code=code, spent=position - 1))
        elif protocol == "icmp":
            build = wire.echo_reply(envelope, target.broken)
        elif protocol == "tcp":
            build = wire.tcp_answer(envelope, {"open": True, "closed": False}[state])
        elif state == "closed":
            kind, code = wire.ERRORS["port-unreachable"][self._version]
            build = wire.error(envelope, wire.ErrorForm(kind=kind, code=code, spent=position - 1))
        else:
            build = wire.udp_answer(envelope, self._services[state])
        limited = target.rate_limit is not None and protocol == "udp" and state == "closed"
        rtt = self._scenario.hop_ms * position if target.rtt is None else target.rtt
        return Step(
            build=build,
            delay=rtt / 1000,
            jitter=target.jitter / 1000,
            copies=target.copies,
            series=series,
            bucket=self._bucket(address, target.rate_limit) if limited and target.rate_limit else None,
            ports={},
        )

    def _running(self, loss: Loss | None, what: str, protocol: str, number: int) -> tuple[Iterator[bool], ...]:
        if loss is None:
            return ()
        return (self._series.setdefault((what, protocol, number), loss.verdicts()),)

    def _envelope(self, address: str, position: int, broken: str) -> wire.Envelope:
        return wire.Envelope(self._version, ip_address(address).packed, 256 - position, broken == "ip")
