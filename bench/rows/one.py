"""How long one trace takes, by the shape of its path: the promises in round-trip times."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from attrs import frozen

from .. import peers
from ..grounds import Simulated, simulated
from ..limits import UNLIMITED
from ..routes import exact
from ..subjects import Subject
from ..table import Figure, Target, median, row

ROUNDS = 7


@frozen(kw_only=True)
class Case:
    """A path and what a trace of it may take: `times` its round trip plus `plus_ms`; `rounds` fresh targets."""

    name: str
    routers: int = 11
    rtt_ms: float = 60
    silent: tuple[int, ...] = ()
    target_silent: bool = False
    fields: dict[str, Any]
    times: float
    plus_ms: float
    again: tuple[float, float] | None = None
    rounds: int = ROUNDS
    against: bool = False


CASES = (
    Case(name="12 hops, 60 ms", fields={"probes": 1}, times=1.15, plus_ms=20, against=True),
    Case(name="12 hops, 60 ms, probes 3", fields={"probes": 3}, times=2.2, plus_ms=120),
    Case(name="12 hops, 1200 ms", rtt_ms=1200, fields={"probes": 1}, times=1.15, plus_ms=20),
    Case(name="12 hops, 1200 ms, probes 3", rtt_ms=1200, fields={"probes": 3}, times=2.2, plus_ms=120, rounds=3),
    Case(
        name="5 silent of 14, 60 ms",
        routers=14,
        silent=(3, 5, 6, 9, 12),
        fields={"probes": 1},
        times=3,
        plus_ms=350,
        against=True,
    ),
    Case(
        name="silent end behind 5 hops, timeout 2000",
        routers=5,
        target_silent=True,
        fields={"probes": 1, "timeout_ms": 2000},
        times=0,
        plus_ms=2400,
        rounds=3,
    ),
    Case(name="22 hops, 60 ms", routers=21, fields={"probes": 1}, times=1.7, plus_ms=20, again=(1.15, 20)),
)


def _ours(ground: Simulated, case: Case, targets: list[str]) -> tuple[list[float], int]:
    """Milliseconds per target, one after another, and how many routes were exact."""
    with Subject(ground, "library", **UNLIMITED) as ours:
        walls, good = [], 0
        for target in targets:
            result = ours(do="trace", targets=[target], fields=case.fields)
            walls.append(result["walls_s"][0] * 1e3)
            good += exact(result["routes"], ground.way, [target])
        return walls, good


@row("one")
def one() -> Iterator[Figure]:
    """One trace at a time, by the shape of its path."""
    for case in CASES:
        with simulated(
            routers=case.routers,
            rtt_ms=case.rtt_ms,
            copies=case.rounds,
            silent=case.silent,
            target_silent=case.target_silent,
        ) as ground:
            fresh = ground.targets
            walls, good = _ours(ground, case, fresh * (2 if case.again else 1))
            first, second = walls[: case.rounds], walls[case.rounds :]
            bound = case.times * case.rtt_ms + case.plus_ms
            note = f"{good} of {len(walls)} exact"
            yield Figure("one", case.name, "ms", median(first), tuple(first), target=Target(most=bound), note=note)
            if case.again is not None:
                bound = case.again[0] * case.rtt_ms + case.again[1]
                name = f"{case.name}, its length remembered"
                yield Figure("one", name, "ms", median(second), tuple(second), target=Target(most=bound))
            if case.against:
                yield from _peers(ground, case, median(first))


def _peers(ground: Simulated, case: Case, ours: float) -> Iterator[Figure]:
    found = peers.available()
    found.pop("mtr", None)
    for name, run in found.items():
        results = [run(ground, [target]) for target in ground.targets]
        walls = [result["wall_s"] * 1e3 for result in results]
        good = sum(
            exact(result["routes"], ground.way, [target])
            for result, target in zip(results, ground.targets, strict=True)
        )
        note = f"{good} of {len(walls)} exact"
        yield Figure(
            "one", f"{case.name}: {name}", "ms", median(walls), tuple(walls), median(walls) / ours, "ours", note=note
        )
