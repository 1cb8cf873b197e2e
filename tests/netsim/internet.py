"""The simulated internet itself: what comes back for a packet, and when.

No I/O and no clock: `Internet.receive` is given a packet and the time and returns what is to be sent when.
Targets are compiled by `route`.

Counting is part of the truth: every probe that arrives is counted under its target, family, protocol and TTL in a
`Cell`, together with what became of it. Whatever goes nowhere known is counted under its address as stray.
"""

from __future__ import annotations

import random
from collections import Counter
from ipaddress import ip_address
from typing import Any

from attrs import asdict

from .dns import Names
from .route import Bucket, Route, compile_route
from .scenario import RateLimit, Scenario, change
from .services import udp_services

NUMBERS = {4: {1: "icmp", 17: "udp", 6: "tcp"}, 6: {58: "icmp", 17: "udp", 6: "tcp"}}
RETRANSMIT_MEMORY = 4096


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
        self._dns = Names()
        self._services = udp_services(self._dns)
        self._random = random.Random(1)

    # --- loading ---------------------------------------------------------------------------------------------

    def load(self, scenario: Scenario, now: float) -> None:
        """Add a scenario, or replace the one of that name. Raises ValueError where addresses or names clash."""
        old = self._scenarios.get(scenario.name)
        names = set(self._names) - {target.name for target in (old.targets if old else ())}
        routes = {key: route for key, route in self._routes.items() if route.spec.name in names}
        added: dict[str, list[Route]] = {}
        for target in scenario.targets:
            if target.name in names or target.name in added:
                raise ValueError(f"two targets are named {target.name}")
            added[target.name] = []
            for family in scenario.networks:
                key = ip_address(scenario.address(family, target.at, target)).packed
                if key in routes:
                    raise ValueError(f"{target.name} and {routes[key].spec.name} have the same address")
                route = routes[key] = Route(family, target, now)
                compile_route(route, scenario, self.bucket, self._services)
                added[target.name].append(route)
        self.unload(scenario.name)
        self._scenarios[scenario.name] = scenario
        self._routes = routes
        self._names.update((name, (scenario, its)) for name, its in added.items())
        self._dns.replace(self._scenarios.values())

    def unload(self, name: str) -> None:
        """Forget a scenario; its targets' addresses become stray."""
        scenario = self._scenarios.pop(name, None)
        if scenario is not None:
            for target in scenario.targets:
                self._names.pop(target.name, None)
            self._routes = {key: route for key, route in self._routes.items() if route.spec.name in self._names}
            self._dns.replace(self._scenarios.values())

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
            compile_route(route, scenario, self.bucket, self._services)

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
                compile_route(route, scenario, self.bucket, self._services)

    def bucket(self, address: str, spec: RateLimit) -> Bucket:
        """The bucket of the router or host at `address`, shared by everything that passes it."""
        return self._buckets.setdefault(address, Bucket(spec))

    def counters(self, target: str | None = None) -> dict[str, Any]:
        """{target: {family: {protocol: {ttl: cell}}}}, without the cells that received nothing."""
        found: dict[str, Any] = {}
        for route in self.routes(target):
            protocols = {
                protocol: {str(ttl): asdict(cell) for ttl, cell in sorted(cells.items())}
                for protocol, cells in route.cells.items()
            }
            found.setdefault(route.spec.name, {})[route.family] = {
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
            compile_route(route, self._names[route.spec.name][0], self.bucket, self._services)
