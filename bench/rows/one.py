"""How long one trace takes, by the shape of its path: the promises in round-trip times."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from attrs import frozen

from .. import peers
from ..grounds import Ground, Simulated, simulated
from ..limits import UNLIMITED
from ..routes import exact
from ..subjects import Subject
from ..table import Figure, Plan, Runs, Target, row

ROUNDS = 7
SLOW_ROUNDS = 2
CAP_S = 30
TWISTED = "twisted-mtr"
SLOW = ("mtr", TWISTED)


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


Runner = Callable[[str], dict[str, Any]]


@row("one")
def one(plan: Plan) -> Iterator[Figure]:
    """One trace at a time, by the shape of its path."""
    for case in plan.size(CASES, [case for case in CASES if case.again]):
        with (
            simulated(
                routers=case.routers,
                rtt_ms=case.rtt_ms,
                copies=plan.rounds(case.rounds),
                silent=case.silent,
                target_silent=case.target_silent,
            ) as ground,
            Subject(ground, "library", **UNLIMITED) as library,
        ):

            def ours(target: str, case: Case = case, library: Subject = library) -> dict[str, Any]:
                return library(do="trace", targets=[target], fields=case.fields)

            taken = _raced({"ours": ours, **(_peers(ground) if case.against else {})}, ground)
            first = taken.pop("ours")
            bound = Target(most=case.times * case.rtt_ms + case.plus_ms)
            yield Figure(case.name, "ms", first, taken, target=bound)
            if case.again is not None:
                bound = Target(most=case.again[0] * case.rtt_ms + case.again[1])
                second = _raced({"ours": ours}, ground)["ours"]
                yield Figure(f"{case.name}, its length remembered", "ms", second, target=bound)


def _raced(subjects: Mapping[str, Runner], ground: Simulated) -> dict[str, Runs]:
    """A round per target; each has a network of its own, so that no path length is remembered from the others."""
    taken: dict[str, list[tuple[float, int]]] = {subject: [] for subject in subjects}
    for place, target in enumerate(ground.targets):
        for subject, run in subjects.items():
            if subject in SLOW and place >= SLOW_ROUNDS:
                continue
            result = run(target)
            taken[subject].append((result["wall_s"] * 1e3, exact(result["routes"], ground.way, [target])))
    return {subject: Runs(*zip(*rounds, strict=True), 1) for subject, rounds in taken.items()}


def _peers(ground: Simulated) -> dict[str, Runner]:
    def runner(run: Callable[[Ground, list[str]], dict[str, Any]]) -> Runner:
        return lambda target: run(ground, [target])

    found: dict[str, Runner] = {name: runner(run) for name, run in peers.available().items()}
    if peers.twisted_mtr_path() is not None:
        found[TWISTED] = runner(lambda _, targets: peers.twisted_mtr(ground, targets, CAP_S))
    return found
