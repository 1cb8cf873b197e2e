"""The simulated internet itself: what comes back for a packet, and when.

No I/O and no clock: `Internet.receive` is given a packet and the time and returns what is to be sent when. A target's
description is compiled once into a `Step` per way, protocol and TTL, so that a packet costs a few dictionary look-ups
and one join of bytes.

Counting is part of the truth: every probe that arrives is counted under its target, family, protocol and TTL in a
`Cell`, together with what became of it. Whatever goes nowhere known is counted under its address as stray.
"""

from __future__ import annotations

import random
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from typing import Any

from attrs import asdict, define

from . import wire
from .scenario import PROTOCOLS, Loss, RateLimit, Router, Scenario, Target, change
from .services import UDP_SERVICES

NUMBERS = {4: {1: "icmp", 17: "udp", 6: "tcp"}, 6: {58: "icmp", 17: "udp", 6: "tcp"}}
RETRANSMIT_MEMORY = 4096


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


class Route:
    """The ways to one target in one family, compiled."""

    __slots__ = (
        "cells",
        "family",
        "name",
        "numbers",
        "paused",
        "pick",
        "received",
        "since",
        "spec",
        "syns",
        "tables",
        "then",
    )

    def __init__(self, family: str, spec: Target, since: float) -> None:
        self.family, self.name, self.spec, self.since = family, spec.name, spec, since
        self.cells: dict[str, list[Cell]] = {protocol: [Cell() for _ in range(256)] for protocol in PROTOCOLS}
        self.tables: list[dict[str, list[Step]]] = []
        self.pick: Callable[[bytes, str], int] | None = None
        self.received, self.paused = 0, False
        self.then = list(spec.then)
        self.syns: dict[bytes, None] = {}


class Internet:
    """Every loaded scenario's routes, and the answer to a packet."""

    def __init__(self) -> None:
        self.stray: Counter[str] = Counter()
        self.multicast = 0
        self.paused = False
        self._routes: dict[bytes, Route] = {}
        self._scenarios: dict[str, Scenario] = {}
        self._names: dict[str, tuple[Scenario, list[Route]]] = {}
        self._buckets: dict[str, Bucket] = {}
        self._random = random.Random(1)

    # --- loading ---------------------------------------------------------------------------------------------

    def load(self, scenario: Scenario, now: float) -> None:
        """Add a scenario, or replace the one of that name. Raises ValueError where addresses or names clash."""
        self.unload(scenario.name)
        self._scenarios[scenario.name] = scenario
        for target in scenario.targets:
            if target.name in self._names:
                raise ValueError(f"two targets are named {target.name}")
            routes = []
            for family in scenario.networks:
                key = ip_address(scenario.address(family, target.at, target)).packed
                if key in self._routes:
                    raise ValueError(f"{target.name} and {self._routes[key].name} have the same address")
                route = self._routes[key] = Route(family, target, now)
                _compile(self, scenario, route)
                routes.append(route)
            self._names[target.name] = (scenario, routes)

    def unload(self, name: str) -> None:
        """Forget a scenario; its targets' addresses become stray."""
        scenario = self._scenarios.pop(name, None)
        if scenario is not None:
            for target in scenario.targets:
                self._names.pop(target.name, None)
            self._routes = {key: route for key, route in self._routes.items() if route.name in self._names}

    def routes(self, target: str | None = None) -> list[Route]:
        """The routes of one target or of all. Raises KeyError."""
        if target is not None:
            return self._names[target][1]
        return [route for _, routes in self._names.values() for route in routes]

    def change(self, target: str, fields: dict[str, Any]) -> None:
        """Replace fields of a target while it runs; loss patterns start anew, counters go on."""
        scenario, routes = self._names[target]
        for route in routes:
            route.spec = change(route.spec, fields)
            _compile(self, scenario, route)

    def reset(self, now: float, target: str | None = None) -> None:
        """Count from zero, start loss patterns, rate limits and phases anew, for one target or all."""
        if target is None:
            self.stray.clear()
            self.multicast = 0
        for name in list(self._names) if target is None else [target]:
            scenario, routes = self._names[name]
            original = next(spec for spec in scenario.targets if spec.name == name)
            for number in {n for way in original.variants() for n in way}:
                for family in scenario.networks:
                    self._buckets.pop(scenario.address(family, number, original), None)
            for route in routes:
                Route.__init__(route, route.family, original, now)
                _compile(self, scenario, route)

    def bucket(self, address: str, spec: RateLimit) -> Bucket:
        """The bucket of the router or host at `address`, shared by everything that passes it."""
        return self._buckets.setdefault(address, Bucket(spec))

    def counters(self, target: str | None = None) -> dict[str, Any]:
        """{target: {family: {protocol: {ttl: cell}}}}, without the cells that received nothing."""
        found: dict[str, Any] = {}
        for route in self.routes(target):
            protocols = {
                protocol: {str(ttl): asdict(cell) for ttl, cell in enumerate(cells) if cell != _NOTHING}
                for protocol, cells in route.cells.items()
            }
            found.setdefault(route.name, {})[route.family] = {
                name: cells for name, cells in protocols.items() if cells
            }
        return found

    # --- the path of a packet --------------------------------------------------------------------------------

    def receive(self, packet: bytes, now: float) -> list[tuple[float, bytes]]:
        """What is sent for `packet`: (time, packet) each."""
        version = packet[0] >> 4
        if version == 4:
            key, ttl, number, start = packet[16:20], packet[8], packet[9], 20
        else:
            key, ttl, number, start = packet[24:40], packet[7], packet[6], 40
        route = self._routes.get(key)
        protocol = NUMBERS[version].get(number)
        if route is None or protocol is None:
            self._count_stray(key, version)
            return []
        if protocol == "icmp":
            if packet[start] != (8 if version == 4 else 128):
                return []  # the prober's own kernel objecting to an answer is no probe
        elif protocol == "tcp":
            if packet[start + 13] & 0x12 != 0x02:
                return self._after_handshake(route, packet, now)
            syn = packet[start : start + 8]
            if syn in route.syns:
                route.cells[protocol][ttl].retransmitted += 1
                return []
            route.syns[syn] = None
            if len(route.syns) > RETRANSMIT_MEMORY:
                del route.syns[next(iter(route.syns))]
        cell = route.cells[protocol][ttl]
        cell.received += 1
        route.received += 1
        if route.then:
            self._grow(route, now)
        steps = route.tables[route.pick(packet, protocol) if route.pick else 0][protocol]
        step = steps[ttl] if ttl < len(steps) else steps[-1]
        if step.ports:
            step = step.ports.get(packet[start + 2] << 8 | packet[start + 3], step)
        for verdicts in step.series:
            if next(verdicts):
                cell.lost += 1
                return []
        if step.build is None or route.paused or self.paused:
            cell.silent += 1
            return []
        if step.bucket is not None and not step.bucket.take(now):
            cell.limited += 1
            return []
        answer = step.build(packet)
        if answer is None:
            cell.silent += 1
            return []
        cell.answered += 1
        due = now + step.delay
        if step.jitter:
            due += self._random.random() * step.jitter
        if step.copies == 1:
            return [(due, answer)]
        return [(due + copy * 0.0005, answer) for copy in range(step.copies)]

    def _after_handshake(self, route: Route, segment: bytes, now: float) -> list[tuple[float, bytes]]:
        step = route.tables[0]["tcp"][-1]
        start = 40 if route.family == "ipv6" else 20
        step = step.ports.get(segment[start + 2] << 8 | segment[start + 3], step)
        answer = step.build(segment) if step.build else None
        return [(now, answer)] if answer else []

    def _count_stray(self, key: bytes, version: int) -> None:
        address = ip_address(key)
        if address.is_multicast:
            self.multicast += 1
        else:
            self.stray[str(address)] += 1

    def _grow(self, route: Route, now: float) -> None:
        fields = dict(route.then[0])
        probes, seconds = fields.pop("after_probes", None), fields.pop("after_s", None)
        grown = probes is not None and route.received > probes
        if grown or (seconds is not None and now - route.since >= seconds):
            del route.then[0]
            route.spec = change(route.spec, fields)
            _compile(self, self._names[route.name][0], route)


_NOTHING = Cell()


# --- compiling -----------------------------------------------------------------------------------------------


def flow_hash(packet: bytes, protocol: str) -> int:
    """A router's hash of a packet's 5-tuple; ICMP has no ports and is hashed by its addresses alone."""
    six = packet[0] >> 4 == 6
    start, addresses = (40, packet[8:40]) if six else (20, packet[12:20])
    ports = b"" if protocol == "icmp" else packet[start : start + 4]
    return zlib.crc32(ports + addresses) >> 7


def _compile(internet: Internet, scenario: Scenario, route: Route) -> None:
    target = route.spec
    ways = target.variants()
    series: dict[tuple[str, str, int], Iterator[bool]] = {}
    route.tables = [_Way(internet, scenario, target, route.family, way, series).tables() for way in ways]
    mode, count = target.split(), len(ways)
    if mode == "flow":
        route.pick = lambda packet, protocol: flow_hash(packet, protocol) % count
    elif mode == "packet":
        turns = {protocol: 0 for protocol in PROTOCOLS}

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
        internet: Internet,
        scenario: Scenario,
        target: Target,
        family: str,
        way: tuple[int, ...],
        series: dict[tuple[str, str, int], Iterator[bool]],
    ) -> None:
        self._internet, self._scenario, self._target, self._family = internet, scenario, target, family
        self._series = series
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
            bucket=self._internet.bucket(address, router.rate_limit) if router.rate_limit else None,
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
            build = wire.udp_answer(envelope, UDP_SERVICES[state])
        limited = target.rate_limit is not None and protocol == "udp" and state == "closed"
        rtt = self._scenario.hop_ms * position if target.rtt is None else target.rtt
        return Step(
            build=build,
            delay=rtt / 1000,
            jitter=target.jitter / 1000,
            copies=target.copies,
            series=series,
            bucket=self._internet.bucket(address, target.rate_limit) if limited and target.rate_limit else None,
            ports={},
        )

    def _running(self, loss: Loss | None, what: str, protocol: str, number: int) -> tuple[Iterator[bool], ...]:
        if loss is None:
            return ()
        return (self._series.setdefault((what, protocol, number), loss.verdicts()),)

    def _envelope(self, address: str, position: int, broken: str) -> wire.Envelope:
        return wire.Envelope(self._version, ip_address(address).packed, 256 - position, broken == "ip")
