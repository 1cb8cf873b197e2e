"""Whether what is reported is true under load: round-trip times, and loss where there is none."""

from __future__ import annotations

from collections.abc import Iterator

from ..grounds import Chain, simulated
from ..limits import UNLIMITED
from ..routes import exact
from ..subjects import Subject
from ..table import Figure, Target, quantile, row

RATE = 2000
TRACES = 500
RTT_MS = 20.0
ROUTERS = 10


@row("honesty")
def honesty() -> Iterator[Figure]:
    """RTTs at 2,000 probes/s against the simulated truth; loss in clean networks at full load."""
    with simulated(routers=ROUTERS, rtt_ms=RTT_MS, copies=TRACES) as ground:
        for rate, held in ((RATE, True), (UNLIMITED["probes_per_second"], False)):
            ground.lab.reset()
            with Subject(ground, "library", **{**UNLIMITED, "probes_per_second": rate}) as ours:
                found = ours(do="trace", targets=ground.targets, fields={"probes": 3}, rtts=True)
            step = RTT_MS / (ROUTERS + 1)
            excess = [rtt_us / 1e3 - step * ttl for ttl, rtt_us in found["rtts"]]
            lateness = ground.lab.counters()["lateness"]
            speed = found["sent"] / found["wall_s"]
            good = exact(found["routes"], ground.way, ground.targets)
            name = f"{RATE:,} probes/s" if held else "at full load"
            late = _bucket(lateness["buckets_us"], lateness["counts"], 0.99)
            note = f"at {speed:,.0f} probes/s; of it, the simulator's own lateness {late}; {good} of {TRACES} exact"
            p99 = quantile(excess, 0.99)
            target = Target(most=1.0) if held else None
            yield Figure("honesty", f"p99 of reported - true RTT, {name}", "ms", p99, target=target, note=note)
            yield Figure("honesty", f"median of reported - true RTT, {name}", "ms", quantile(excess, 0.5))
            yield _lost("simulated", name, found["lost"], found["sent"])
    with Chain() as chain, Subject(chain, "library", **UNLIMITED) as ours:
        for probes in (1, 3, 10):
            found = ours(do="trace", targets=chain.targets, fields={"probes": probes}, at_once=500)
            yield _lost("chain", f"at full load, probes {probes}", found["lost"], found["sent"])


def _lost(ground: str, name: str, lost: int, sent: int) -> Figure:
    words = f"false loss, {ground}, {name}"
    return Figure("honesty", words, "probes", lost, target=Target(most=0), note=f"of {sent:,}")


def _bucket(bounds: list[int], counts: list[int], share: float) -> str:
    """The bucket of a histogram in which `share` of all is reached, in words."""
    wanted, seen = share * sum(counts), 0
    for bound, count in zip(bounds, counts, strict=False):
        seen += count
        if seen >= wanted:
            return f"p99 < {bound} us"
    return f"p99 > {bounds[-1]} us"
