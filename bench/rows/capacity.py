"""Probes per second when replies come at once, against the bare mtr-packet, and what our own code costs."""

from __future__ import annotations

from collections.abc import Iterator

from ..grounds import Chain
from ..limits import UNLIMITED
from ..routes import exact
from ..subjects import Subject
from ..table import Figure, Target, in_turn, median, row

ROUNDS = 5
TRACES = 1000
HOPS = 11
WINDOW = 240


@row("capacity")
def capacity() -> Iterator[Figure]:
    """Probes/s with replies at once, through engine, scheduler and trace machines, against a raw driver."""
    with Chain() as chain, Subject(chain, "library", **UNLIMITED) as ours, Subject(chain, "raw") as raw:
        targets = chain.targets[:TRACES]
        results = in_turn(
            {
                "raw": lambda: raw(targets=targets, hops=HOPS, window=WINDOW),
                "ours": lambda: ours(do="trace", targets=targets, fields={"probes": 1}, at_once=500),
                "ours3": lambda: ours(do="trace", targets=targets, fields={"probes": 3}, at_once=500),
            },
            ROUNDS,
        )
        rates = {name: [r["sent"] / r["wall_s"] for r in runs] for name, runs in results.items()}
        base = median(rates["raw"])
        for name, words in (
            ("raw", f"raw mtr-packet, {WINDOW} in flight"),
            ("ours", "ours, probes 1"),
            ("ours3", "ours, probes 3"),
        ):
            runs = results[name]
            good = min(exact(run["routes"], chain.way, targets) for run in runs)
            lost = sum(run["lost"] for run in runs)
            yield Figure(
                "capacity",
                words,
                "probes/s",
                median(rates[name]),
                tuple(rates[name]),
                None if name == "raw" else median(rates[name]) / base,
                "" if name == "raw" else "raw",
                None if name == "raw" else Target(least=0.6),
                f"{good} of {TRACES} exact, {lost} falsely lost",
            )
        for name in ("raw", "ours", "ours3"):
            cost = [r["cpu_s"] / r["sent"] * 1e6 for r in results[name]]
            yield Figure("capacity", f"{name}: own processor time per probe", "us", median(cost), tuple(cost))
        cost = [r["cpu_s"] / TRACES * 1e3 for r in results["ours"]]
        yield Figure("capacity", "ours: per 11-hop trace, probes 1, no HTTP", "ms", median(cost), tuple(cost))
        cost = [r["child_cpu_s"] / r["sent"] * 1e6 for r in results["ours"]]
        yield Figure("capacity", "mtr-packet under ours, per probe", "us", median(cost), tuple(cost))
