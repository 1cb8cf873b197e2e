"""Scenario files: a TOML document becomes a `Scenario` of routers and targets with a path each.

The keys of a document are the fields of the classes below, so an unknown key is an error. Routers and targets are
numbers: number n has the n-th address of the scenario's `ipv4` and `ipv6` networks. A router that needs no
description needs no entry: it answers everything, `hop_ms` milliseconds of round trip per hop away.

    summary = "Three routers, the second far away, then a target"
    ipv4 = "44.1.1.0/24"
    ipv6 = "2a10:44:101::/48"

    [routers.2]
    rtt = 80.0

    [[targets]]
    name = "example"
    at = 100
    path = [1, 2, 3]

    [[targets.truth]]
    stop = "reached"
    hops = ["1 2 3 100"]

A path element `{flow = [[4], [5, 6]]}` splits by the flow's 5-tuple, `{packet = [[4], [5]]}` by turns; the branches
may differ in length. All times are milliseconds of round trip. `truth` is read by `netsim.truth`.

With a `domain` the scenario has names, which hosts with a UDP port in the state "dns" tell (see `netsim.dns`), and
`asns` says whose its addresses are:

    domain = "demo.test"

    [asns.64500]
    name = "EXAMPLE-TRANSIT - Example Transit"
    prefixes = ["44.1.1.0/24", "2a10:44:101::/48"]

    [routers.2]
    name = "ae2.core1.fra.example.net"
"""

from __future__ import annotations

import itertools
import random
import tomllib
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Any

from attrs import evolve, field, frozen

from .wire import MplsEntry

PROTOCOLS = ("icmp", "udp", "tcp")
FAMILIES = ("ipv4", "ipv6")
SCENARIOS = Path(__file__).parent / "scenarios"

Element = int | tuple[str, tuple[tuple[int, ...], ...]]


class ScenarioError(ValueError):
    """A scenario that says something the simulator does not understand; the message says where."""


@frozen(kw_only=True)
class Loss:
    """Which of a series of packets are lost, counted from 1: every n-th, the `first` n, those `after` the n-th, those
    `at` given ordinals, or a random `share` from a `seed`."""

    every: int = 0
    first: int = 0
    after: int | None = None
    at: frozenset[int] = field(default=frozenset(), converter=frozenset)
    share: float = 0.0
    seed: int = 0

    def verdicts(self) -> Iterator[bool]:
        """Whether the first, second, ... packet is lost, for ever."""
        dice = random.Random(self.seed)
        for ordinal in itertools.count(1):
            yield (
                (self.every > 0 and ordinal % self.every == 0)
                or ordinal <= self.first
                or (self.after is not None and ordinal > self.after)
                or ordinal in self.at
                or (self.share > 0 and dice.random() < self.share)
            )

    def lost_of(self, count: int) -> int:
        """How many of the first `count` packets are lost."""
        return sum(itertools.islice(self.verdicts(), count))


@frozen(kw_only=True)
class RateLimit:
    """A token bucket per router: a Linux router's ICMP errors by default (icmp(7), icmp_ratelimit)."""

    burst: float = 6.0
    per_second: float = 1.0


@frozen(kw_only=True)
class Unreachable:
    """A router's refusal to forward: the ICMP code per family (None: forwards that family).

    With `on_arrival` it answers so even where the TTL ends at it, as a filter does; otherwise only in place of
    forwarding. `protocols` and `ports` (destination ports) narrow what it refuses.
    """

    ipv4: int | None = 1
    ipv6: int | None = 0
    protocols: tuple[str, ...] = field(default=PROTOCOLS, converter=tuple)
    ports: tuple[int, ...] = field(default=(), converter=tuple)
    on_arrival: bool = False


def check_name(name: str) -> None:
    """Raise ValueError where a name cannot be written in a DNS message: an empty or too long label."""
    if not all(1 <= len(label.encode()) <= 63 for label in name.split(".")):
        raise ValueError(f"{name!r} has a label that is not 1 to 63 bytes long")


@frozen(kw_only=True)
class AutonomousSystem:
    """An autonomous system: its `name`, the `prefixes` it announces, and what its registry says."""

    name: str
    prefixes: tuple[IPv4Network | IPv6Network, ...] = field(converter=lambda v: tuple(map(ip_network, v)))
    country: str = "ZZ"
    registry: str = "ripencc"
    allocated: str = "2020-01-01"


@frozen(kw_only=True)
class Router:
    """One router. `silent` is true or a list of protocols; `lose` loses its own answers, `drop` whatever reaches it.

    `name` is its reverse name in the scenario's `domain`, "" for none; it may be nonsense, since real ones are.

    Its answers are `says` (time-exceeded, port-unreachable, echo-reply), come from its own address or from `source`
    ("target" or literal `source_ipv4`/`source_ipv6`), quote at most `quote` bytes, have a `broken` checksum ("icmp",
    "ip"), and come `copies` times.
    """

    name: str | None = None
    rtt: float | None = None
    jitter: float = 0.0
    silent: bool | tuple[str, ...] = field(default=False, converter=lambda v: v if isinstance(v, bool) else tuple(v))
    lose: Loss | None = None
    drop: Loss | None = None
    rate_limit: RateLimit | None = None
    unreachable: Unreachable | None = None
    mpls: tuple[MplsEntry, ...] = ()
    copies: int = 1
    says: str = "time-exceeded"
    source_ipv4: str | None = None
    source_ipv6: str | None = None
    source: str = "own"
    quote: int | None = None
    broken: str = ""

    def silent_to(self, protocol: str) -> bool:
        """Whether it never answers probes of this protocol."""
        return self.silent if isinstance(self.silent, bool) else protocol in self.silent


@frozen(kw_only=True)
class Target:
    """One target and the way there. `summary` says in a few words what is special about it.

    `udp` and `tcp` say what its ports do ("open", "closed", "silent"; `udp` also a name in `services`), `udp_ports`
    and `tcp_ports` which ports do otherwise. `answers_from` is another number whose address its answers carry,
    `ends` an error ("time-exceeded", "port-unreachable") it sends instead of answers.

    `loop` repeats those routers for ever after `path`, so that the target is never reached. With `count` there are
    as many copies, named `name-0` and so on, each in the next /24 and /48; routers in `shared` are those of the
    first copy. `then` lists what changes once a target received `after_probes` or is `after_s` seconds old: a table
    of the fields that differ.
    """

    name: str
    summary: str = ""
    at: int
    path: tuple[Element, ...]
    loop: tuple[int, ...] = field(default=(), converter=tuple)
    rtt: float | None = None
    jitter: float = 0.0
    echo: bool = True
    udp: str = "closed"
    tcp: str = "open"
    udp_ports: Mapping[str, str] = field(factory=dict)
    tcp_ports: Mapping[str, str] = field(factory=dict)
    lose: Loss | None = None
    rate_limit: RateLimit | None = None
    copies: int = 1
    answers_from: int | None = None
    ends: str = ""
    broken: str = ""
    count: int = 1
    shared: tuple[int, ...] = field(default=(), converter=tuple)
    truth: tuple[Mapping[str, Any], ...] = field(default=(), converter=tuple)
    then: tuple[Mapping[str, Any], ...] = field(default=(), converter=tuple)
    copy: int = 0

    def variants(self) -> list[tuple[int, ...]]:
        """Every way there, as router numbers, in mixed-radix order of the branches."""
        parts = [((e,),) if isinstance(e, int) else e[1] for e in self.path]
        return [tuple(itertools.chain.from_iterable(way)) for way in itertools.product(*parts)]

    def split(self) -> str:
        """What parts its ways: "" (there is one), "flow" or "packet"."""
        modes = {e[0] for e in self.path if not isinstance(e, int)}
        return modes.pop() if modes else ""


@frozen(kw_only=True)
class Scenario:
    """A named set of targets and their routers, with the addresses of both, and with names if there is a `domain`."""

    name: str
    summary: str
    networks: Mapping[str, IPv4Network | IPv6Network]
    hop_ms: float
    routers: Mapping[int, Router]
    targets: tuple[Target, ...]
    domain: str = ""
    asns: Mapping[int, AutonomousSystem] = field(factory=dict)

    def router(self, number: int) -> Router:
        """The description of a router."""
        return self.routers.get(number, _PLAIN)

    def address(self, family: str, number: int, target: Target) -> str:
        """The address of router or target `number` on the way to `target`."""
        network = self.networks[family]
        copy = 0 if number in target.shared else target.copy
        step = 1 << 8 if family == "ipv4" else 1 << 80
        return str(network.network_address + copy * step + number)


_PLAIN = Router()


def load(source: str | Path | Mapping[str, Any]) -> Scenario:
    """A scenario from a TOML file (a path, or the bare name of one of `scenarios/`) or from a document.

    Raises `ScenarioError`.
    """
    if isinstance(source, Mapping):
        name, document = str(source.get("name", "scenario")), dict(source)
    else:
        path = Path(source)
        if not path.suffix:
            path = SCENARIOS / f"{path}.toml"
        name = path.stem
        document = tomllib.loads(path.read_text())
    document.setdefault("name", name)
    try:
        return _scenario(document)
    except (TypeError, ValueError, KeyError, AttributeError) as problem:
        raise ScenarioError(f"scenario {name}: {problem}") from problem


def available() -> list[str]:
    """The names of the scenarios that come with the simulator."""
    return sorted(path.stem for path in SCENARIOS.glob("*.toml"))


def change(target: Target, fields: Mapping[str, Any]) -> Target:
    """`target` with some fields replaced; the fields are as in a document."""
    return evolve(target, **_target_fields(fields))


def _scenario(document: Mapping[str, Any]) -> Scenario:
    known = {"name", "summary", "ipv4", "ipv6", "hop_ms", "routers", "targets", "domain", "asns"}
    if unknown := set(document) - known:
        raise ValueError(f"unknown keys {sorted(unknown)}")
    targets = [Target(**_target_fields(entry)) for entry in document["targets"]]
    domain = document.get("domain", "")
    for target in targets if domain else ():
        check_name(f"{target.name}.{domain}")
    return Scenario(
        name=document["name"],
        summary=document.get("summary", ""),
        networks={family: ip_network(document[family]) for family in FAMILIES if family in document},
        hop_ms=float(document.get("hop_ms", 2.0)),
        routers={int(number): _router(entry) for number, entry in document.get("routers", {}).items()},
        targets=tuple(itertools.chain.from_iterable(map(_copies, targets))),
        domain=domain,
        asns={int(number): AutonomousSystem(**entry) for number, entry in document.get("asns", {}).items()},
    )


def _copies(target: Target) -> Iterator[Target]:
    if target.count == 1:
        yield target
    else:
        for copy in range(target.count):
            yield evolve(target, name=f"{target.name}-{copy}", copy=copy)


def _router(entry: Mapping[str, Any]) -> Router:
    fields = dict(entry)
    if fields.get("name"):
        check_name(fields["name"])
    parts = {"lose": Loss, "drop": Loss, "rate_limit": RateLimit, "unreachable": Unreachable}
    for key, kind in parts.items():
        if key in fields:
            fields[key] = kind(**fields[key])
    fields["mpls"] = tuple(MplsEntry(*entry) for entry in fields.get("mpls", ()))
    for key in ("source_ipv4", "source_ipv6"):
        if key in fields:
            ip_address(fields[key])
    return Router(**fields)


def _target_fields(entry: Mapping[str, Any]) -> dict[str, Any]:
    fields = dict(entry)
    for key, kind in {"lose": Loss, "rate_limit": RateLimit}.items():
        if isinstance(fields.get(key), Mapping):
            fields[key] = kind(**fields[key])
    if "path" in fields:
        fields["path"] = tuple(_element(element) for element in fields["path"])
        if len({e[0] for e in fields["path"] if not isinstance(e, int)}) > 1:
            raise ValueError("a path may split by flow or by packet, not both")
    return fields


def _element(element: Any) -> Element:
    if isinstance(element, int):
        return element
    ((mode, branches),) = element.items()
    if mode not in ("flow", "packet"):
        raise ValueError(f"unknown way of splitting {mode!r}")
    return mode, tuple(tuple(branch) for branch in branches)
