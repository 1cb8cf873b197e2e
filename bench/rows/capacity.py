"""Probes per second when replies come at once, against the bare mtr-packet, and what our own code costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ..grounds import Chain, Here
from ..limits import UNLIMITED
from ..routes import judged
from ..subjects import Subject
from ..table import Figure, Plan, Runs, Target, in_turn, row

ROUNDS = 5
TRACES = 1000
HOPS = 11
WINDOW = 240

Measure = Callable[[Mapping[str, Any]], float]


@row("capacity")
def capacity(plan: Plan) -> Iterator[Figure]:
    """Probes/s with replies at once, through engine, scheduler and trace machines, against a raw driver."""
    with Chain() as chain, Subject(chain, "library", **UNLIMITED) as ours, Subject(chain, "raw") as raw:
        targets = chain.targets[: plan.size(TRACES, 10)]
        results = in_turn(
            {
                "raw": lambda: raw(targets=targets, hops=HOPS, window=WINDOW),
                "ours": lambda: ours(do="trace", targets=targets, fields={"probes": 1}, at_once=500),
                "ours3": lambda: ours(do="trace", targets=targets, fields={"probes": 3}, at_once=500),
            },
            plan.rounds(ROUNDS),
        )

        def measured(name: str, measure: Measure) -> Runs:
            return judged(results[name], chain.way, targets, measure)

        def rate(result: Mapping[str, Any]) -> float:
            return float(result["sent"] / result["wall_s"])

        peers = {"raw": measured("raw", rate)}
        bound = Target(least=0.6)
        yield Figure("probes per second, probes 1", "1/s", measured("ours", rate), peers, "raw", bound)
        yield Figure("probes per second, probes 3", "1/s", measured("ours3", rate), peers, "raw", bound)
        lost = Runs([result["lost"] for name in ("ours", "ours3") for result in results[name]])
        yield Figure("falsely lost meanwhile", "probes", lost, target=Target(most=0))

        def own(result: Mapping[str, Any]) -> float:
            return float(result["cpu_s"] / result["sent"] * 1e6)

        def child(result: Mapping[str, Any]) -> float:
            return float(result["child_cpu_s"] / result["sent"] * 1e6)

        raw_cost = {"raw": measured("raw", own)}
        yield Figure("our processor time per probe, probes 1", "us", measured("ours", own), raw_cost)
        yield Figure("our processor time per probe, probes 3", "us", measured("ours3", own), raw_cost)
        yield Figure("mtr-packet's processor time per probe", "us", measured("ours", child))


@row("code")
def code(plan: Plan) -> Iterator[Figure]:
    """Engine, scheduler and trace machines alone: a prober that answers in the next turn, no process, no kernel."""
    traces = plan.size(TRACES // 2, 10)
    with Subject(Here(), "instant") as instant:
        runs: dict[str, Callable[[], dict[str, Any]]] = {
            str(probes): lambda probes=probes: instant(traces=traces, hops=HOPS, probes=probes, at_once=500)
            for probes in (1, 3, 10)
        }
        for probes, results in in_turn(runs, plan.rounds(3)).items():
            costs = [result["cpu_s"] / result["sent"] * 1e6 for result in results]
            cost = Runs(costs, [result["complete"] for result in results], traces)
            yield Figure(f"our code per probe, probes {probes}", "us", cost)
