"""Whether what is reported is true under load: round-trip times, and loss where there is none."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median
from typing import Any

from ..grounds import Chain, Simulated, simulated
from ..limits import UNLIMITED
from ..routes import exact
from ..subjects import Subject
from ..table import Figure, Plan, Runs, Target, quantile, row

ROUNDS = 3
RATE = 2000
TRACES = 500
RTT_MS = 20.0
ROUTERS = 10


@row("honesty")
def honesty(plan: Plan) -> Iterator[Figure]:
    """RTTs at 2,000 probes/s against the simulated truth; loss in clean networks at full load."""
    with simulated(routers=ROUTERS, rtt_ms=RTT_MS, copies=plan.size(TRACES, 5)) as ground:
        yield from _times(plan, ground, f"{RATE:,} probes/s", RATE, Target(most=1.0))
        yield from _times(plan, ground, "full load", UNLIMITED["probes_per_second"], None)
    with Chain() as chain, Subject(chain, "library", **UNLIMITED) as ours:
        targets = chain.targets[: plan.size(1000, 10)]
        for probes in (1, 3, 10):
            job = {"do": "trace", "targets": targets, "fields": {"probes": probes}, "at_once": 500}
            found = [ours(**job) for _ in range(plan.rounds(ROUNDS))]
            right = [exact(result["routes"], chain.way, targets) for result in found]
            lost = Runs([result["lost"] for result in found], right, len(targets))
            note = _lost_of(found)
            yield Figure(f"false loss, chain, probes {probes}", "probes", lost, target=Target(most=0), note=note)


def _times(plan: Plan, ground: Simulated, name: str, rate: int, held: Target | None) -> Iterator[Figure]:
    p99, middle, lost, right, results = [], [], [], [], []
    ground.lab.reset()
    for _ in range(plan.rounds(ROUNDS)):
        with Subject(ground, "library", **{**UNLIMITED, "probes_per_second": rate}) as ours:
            found = ours(do="trace", targets=ground.targets, fields={"probes": 3}, rtts=True)
        step = RTT_MS / (ROUTERS + 1)
        excess = [rtt_us / 1e3 - step * ttl for ttl, rtt_us in found["rtts"]]
        p99.append(quantile(excess, 0.99))
        middle.append(quantile(excess, 0.5))
        lost.append(found["lost"])
        right.append(exact(found["routes"], ground.way, ground.targets))
        results.append(found)
    lateness = ground.lab.counters()["lateness"]
    late, latest = (_bucket(lateness["buckets_us"], lateness["counts"], share) for share in (0.99, 1.0))
    speed = median(result["sent"] / result["wall_s"] for result in results)
    note = f"at {speed:,.0f} probes/s; the simulator itself was late by {late} (p99), {latest} (most)"
    of = len(ground.targets)
    yield Figure(f"RTT reported - true, p99, {name}", "ms", Runs(p99, right, of), target=held, note=note)
    yield Figure(f"RTT reported - true, median, {name}", "ms", Runs(middle, right, of))
    yield Figure(
        f"false loss, simulated, {name}",
        "probes",
        Runs(lost, right, of),
        target=Target(most=0),
        note=_lost_of(results),
    )


def _lost_of(results: list[dict[str, Any]]) -> str:
    sent, drops = (sum(result[name] for result in results) for name in ("sent", "drops"))
    return f"of {sent:,} in all; replies dropped at full raw sockets: {drops}"


def _bucket(bounds: list[int], counts: list[int], share: float) -> str:
    """The bucket of a histogram in which `share` of all is reached, in words."""
    wanted, seen = share * sum(counts), 0
    for bound, count in zip(bounds, counts, strict=False):
        seen += count
        if seen >= wanted:
            return f"< {bound} us"
    return f"> {bounds[-1]} us"
