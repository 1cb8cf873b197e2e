"""What a trace of a simulated target must say, as the scenario file tells it.

A target has one `[[targets.truth]]` table per set of protocols and families for which the answer differs:

    protocols = ["icmp", "tcp"]     # default: all
    families = ["ipv4"]             # default: both
    stop = "reached"                # model.StopReason
    hops = ["1 2 * 100"]            # every way a probe can go
    repeat = "*"                    # optional: what follows the written hops, for ever
    rate_limited = [3]              # optional: TTLs to be flagged where they lost anything

A hop is a router's or the target's number, or a literal address, or `*` for silence. `4!` is an unreachable from 4,
`4/reply` any other outcome, `*/error` an answer no prober can take for one (its probes end as errors or as lost), and
`4?` means both 4 and silence are right. Round-trip times, label stacks and loss are not
repeated there: they come from the routers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import frozen

from tracerouted.model import MplsLabel, Outcome, StopReason

from .scenario import FAMILIES, PROTOCOLS, Loss, Router, Scenario, Target


@frozen(kw_only=True)
class Expected:
    """What is at one TTL of one way.

    `address` is None where nothing answers; `optional` where silence is right as well. RTTs are microseconds:
    answers take from `rtt_us` to `rtt_us + jitter_us`. `lose` is the exact pattern of its own lost answers; `lossy`
    says that others are lost in a way only the simulator's counters tell.
    """

    address: str | None
    outcome: Outcome
    optional: bool = False
    rtt_us: int = 0
    jitter_us: int = 0
    mpls: tuple[MplsLabel, ...] = ()
    lose: Loss | None = None
    lossy: bool = False


@frozen(kw_only=True)
class Truth:
    """What a trace to one target in one family and protocol must say.

    `ways` are all ways a probe can go, `repeat` what follows each of them. With `mixed` two probes of a flow may go
    different ways.
    """

    target: str
    address: str
    family: str
    protocol: str
    stop_reason: StopReason
    ways: tuple[tuple[Expected, ...], ...]
    repeat: tuple[Expected, ...]
    mixed: bool
    rate_limited: frozenset[int]

    def at(self, way: int, ttl: int) -> Expected | None:
        """What is at a TTL of a way; None where there is nothing any more."""
        hops = self.ways[way]
        if ttl <= len(hops):
            return hops[ttl - 1]
        return self.repeat[(ttl - len(hops) - 1) % len(self.repeat)] if self.repeat else None


def truth_of(scenario: Scenario, target: Target, family: str, protocol: str, mixed: bool | None = None) -> Truth:
    """The truth of a target. Raises KeyError where the scenario tells none for this family and protocol."""
    for entry in target.truth:
        if unknown := set(entry) - {"protocols", "families", "stop", "hops", "repeat", "rate_limited"}:
            raise ValueError(f"{target.name}: unknown keys {sorted(unknown)} in its truth")
        if family in entry.get("families", FAMILIES) and protocol in entry.get("protocols", PROTOCOLS):
            return _truth(scenario, target, family, protocol, entry, mixed)
    raise KeyError(f"{target.name} has no truth for {family} {protocol}")


def _truth(
    scenario: Scenario, target: Target, family: str, protocol: str, entry: Mapping[str, Any], mixed: bool | None
) -> Truth:
    stop = StopReason(entry["stop"])
    variants = target.variants()
    ways = []
    for way, text in enumerate(entry["hops"]):
        # Where fewer ways are written than there are, they differ only behind what is written.
        reader = _Reader(scenario, target, family, protocol, variants[min(way, len(variants) - 1)])
        tokens = text.split()
        ways.append(tuple(reader.read(token, ttl, stop, ttl == len(tokens)) for ttl, token in enumerate(tokens, 1)))
    reader = _Reader(scenario, target, family, protocol, variants[0])
    first = len(entry["hops"][0].split()) + 1
    repeat = tuple(
        reader.read(token, ttl, stop, False) for ttl, token in enumerate(entry.get("repeat", "").split(), first)
    )
    split = target.split()
    return Truth(
        target=target.name,
        address=scenario.address(family, target.at, target),
        family=family,
        protocol=protocol,
        stop_reason=stop,
        ways=tuple(ways),
        repeat=repeat,
        mixed=(split == "packet" or (split == "flow" and protocol == "tcp")) if mixed is None else mixed,
        rate_limited=frozenset(entry.get("rate_limited", ())),
    )


@frozen
class _Reader:
    """Reads the hops of one way."""

    scenario: Scenario
    target: Target
    family: str
    protocol: str
    way: tuple[int, ...]

    def read(self, token: str, ttl: int, stop: StopReason, last: bool) -> Expected:
        """One token at its TTL. The last hop of a reached target is a reply unless it says otherwise."""
        name, optional = token.removesuffix("?"), token.endswith("?")
        if name in ("*", "*/error"):
            outcome = Outcome.ERROR if name == "*/error" else Outcome.TIMEOUT
            return Expected(address=None, outcome=outcome, lossy=True)
        outcome = Outcome.REPLY if last and stop is StopReason.REACHED else Outcome.TTL_EXPIRED
        if name.endswith("!"):
            name, outcome = name[:-1], Outcome.UNREACHABLE
        name, _, word = name.partition("/")
        if word:
            outcome = Outcome(word)
        number = int(name) if name.isdigit() else None
        address = name if number is None else self.scenario.address(self.family, number, self.target)
        position = self._position(number, ttl, outcome)
        dropped = any(self.scenario.router(router).drop for router in self._path(position))
        if position > len(self.way) and not self.target.loop:
            return self._host(address, outcome, optional, dropped)
        router = self.scenario.router(self._path(position)[-1])
        return self._router(address, outcome, optional, dropped, router, position)

    def _position(self, number: int | None, ttl: int, outcome: Outcome) -> int:
        """How far away the one that answers is: an unreachable can come from nearer than its TTL."""
        if outcome is Outcome.UNREACHABLE and number in self.way[:ttl]:
            return self.way.index(number) + 1
        return ttl

    def _path(self, position: int) -> tuple[int, ...]:
        whole = self.way + self.target.loop * (position // len(self.target.loop) + 1 if self.target.loop else 0)
        return whole[:position]

    def _router(
        self, address: str, outcome: Outcome, optional: bool, dropped: bool, router: Router, position: int
    ) -> Expected:
        expires = outcome is Outcome.TTL_EXPIRED
        rtt = self.scenario.hop_ms * position if router.rtt is None else router.rtt
        labels = router.mpls if expires else ()
        return Expected(
            address=address,
            outcome=outcome,
            optional=optional,
            rtt_us=round(rtt * 1000),
            jitter_us=round(router.jitter * 1000),
            mpls=tuple(
                MplsLabel(entry.label, entry.tc, int(depth == len(labels)), entry.ttl)
                for depth, entry in enumerate(labels, 1)
            ),
            lose=router.lose,
            lossy=dropped or router.rate_limit is not None,
        )

    def _host(self, address: str, outcome: Outcome, optional: bool, dropped: bool) -> Expected:
        target = self.target
        rtt = self.scenario.hop_ms * (len(self.way) + 1) if target.rtt is None else target.rtt
        return Expected(
            address=address,
            outcome=outcome,
            optional=optional,
            rtt_us=round(rtt * 1000),
            jitter_us=round(target.jitter * 1000),
            lose=target.lose,
            lossy=dropped or target.rate_limit is not None,
        )
