"""How cost grows: with traces running at once, with probes per hop, with followers of a trace.

What is compared is processor time of our process per trace, per probe and per event: where it does not grow, nothing
looks at everything each time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ..daemon import PORT, daemon, post
from ..grounds import Chain, simulated
from ..limits import SERVED, UNLIMITED
from ..routes import judged
from ..subjects import Subject, cpu_s
from ..table import Figure, Plan, Runs, Target, in_turn, row
from .streams import ROUTERS, followed

ROUNDS = 3
HOPS = 11
#: The last point of a curve may cost this much of the cheapest before it.
FLAT = Target(most=1.25)
RUNNING = {1: 300, 10: 1000, 100: 1000, 1000: 1000}  # traces for each number at once
PROBES = {1: 1000, 3: 500, 10: 200, 30: 100, 100: 50}  # traces for each number of probes per hop
FOLLOWERS = (1, 10, 100, 1000)


def _points(curve: str, words: str, unit: str, taken: Mapping[int, Runs]) -> Iterator[Figure]:
    """A figure per point; the last is held to the cheapest before it."""
    *before, last = taken
    cheapest = min(before, key=lambda at: taken[at].value)
    base = f"at {cheapest:,}"
    for at, runs in taken.items():
        held = {"peers": {base: taken[cheapest]}, "against": base, "target": FLAT} if at == last else {}
        yield Figure(words.format(f"{at:,}"), unit, runs, curve=curve, at=at, **held)


@row("growth-running")
def growth_running(plan: Plan) -> Iterator[Figure]:
    """Processor time per trace with 1 to 1,000 running at once, without HTTP."""
    with Chain() as chain, Subject(chain, "library", **UNLIMITED) as ours:
        counts = plan.size(RUNNING, {1: 3, 20: 20})

        def run(at_once: int) -> Callable[[], dict[str, Any]]:
            job = {"do": "trace", "targets": chain.targets[: counts[at_once]], "fields": {"probes": 1}}
            return lambda: ours(**job, at_once=at_once)

        run(max(counts))()  # from here on path lengths are remembered, for every number alike
        results = in_turn({str(at_once): run(at_once) for at_once in counts}, plan.rounds(ROUNDS))
        taken = {}
        for at_once, traces in counts.items():
            targets = chain.targets[:traces]
            cost = _cost(1e3 / traces)
            taken[at_once] = judged(results[str(at_once)], chain.way, targets, cost)
    yield from _points("running", "per 11-hop trace, {} running", "ms", taken)


@row("growth-probes")
def growth_probes(plan: Plan) -> Iterator[Figure]:
    """Processor time per probe with 1 to 100 probes per hop, with HTTP."""
    counts = plan.size(PROBES, {1: 5, 3: 5})
    with Chain() as chain, Subject(chain, "client") as client, daemon(chain, client, **SERVED) as pid:

        def run(probes: int) -> Callable[[], dict[str, Any]]:
            requests = [post(target, probes=probes, interval_ms=10) for target in chain.targets[: counts[probes]]]

            def asked() -> dict[str, Any]:
                before = cpu_s(pid)
                found = client(do="ask", requests=requests, clients=len(requests), port=PORT, routes=True)
                return {**found, "cpu_s": cpu_s(pid) - before}

            return asked

        run(1)()  # path lengths are remembered from here on
        results = in_turn({str(probes): run(probes) for probes in counts}, plan.rounds(ROUNDS))
        taken = {}
        for probes, traces in counts.items():
            cost = _cost(1e6 / (traces * HOPS * probes))
            taken[probes] = judged(results[str(probes)], chain.way, chain.targets[:traces], cost)
    yield from _points("probes", "per probe, {} a hop, with HTTP", "us", taken)


@row("growth-streams")
def growth_streams(plan: Plan) -> Iterator[Figure]:
    """Processor time per event delivered with 1 to 1,000 followers of a trace, the trace included."""
    probes = plan.size(20, 3)
    with simulated(routers=ROUTERS, rtt_ms=20, copies=1) as ground:

        def run(followers: int) -> Callable[[], dict[str, Any]]:
            return lambda: followed(ground, followers, probes=probes, interval_ms=165)

        counts = plan.size(FOLLOWERS, (1, 10))
        results = in_turn({str(followers): run(followers) for followers in counts}, plan.rounds(ROUNDS))
    taken = {}
    for followers in counts:
        rounds = results[str(followers)]
        costs = [found["cpu_s"] / found["events"] * 1e6 for found in rounds]
        taken[followers] = Runs(costs, [found["ended"] for found in rounds], followers)
    yield from _points("streams", "per event, {} followers", "us", taken)


def _cost(times: float) -> Callable[[Mapping[str, Any]], float]:
    return lambda result: float(result["cpu_s"] * times)
