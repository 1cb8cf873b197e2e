"""Resident memory at rest and with ten thousand kept traces, and the collector's pauses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..daemon import daemon
from ..grounds import Chain
from ..limits import SERVED, UNLIMITED
from ..subjects import Subject, children, rss
from ..table import Figure, Plan, Runs, Target, in_turn, row

ROUNDS = 3
KEPT = 10_000
BATCH = 1000
MIB = 2**20


@row("memory")
def memory(plan: Plan) -> Iterator[Figure]:
    """Memory at rest, per kept trace, and with 10,000 kept; the collector's pauses."""
    batch, kept = plan.size((BATCH, KEPT), (20, 60))
    with Chain() as chain:
        results = in_turn(
            {"rest": lambda: _at_rest(chain), "kept": lambda: _kept(chain, batch, kept)}, plan.rounds(ROUNDS)
        )
    own, theirs = ([rest[place] for rest in results["rest"]] for place in (0, 1))
    whole = Runs([sum(rest) for rest in results["rest"]])
    note = f"the daemon {max(own):.1f}, its two mtr-packet {max(theirs):.1f}"
    yield Figure("daemon at rest, both children", "MiB", whole, target=Target(most=60), note=note)

    def of(name: str) -> Runs:
        return Runs([result[name] for result in results["kept"]])

    traces = f"{kept:,} kept traces"
    yield Figure("per kept trace of 11 hops x 3 probes", "bytes", of("per_trace"), target=Target(most=1300))
    yield Figure(f"{traces}, added", "MiB", of("whole"), target=Target(most=20))
    yield Figure("a kept trace, counted against max_kept_bytes", "bytes", of("counted"))
    few = {f"{batch:,} kept": of("first_pause")}
    yield Figure(
        f"longest collector pause, {traces}", "ms", of("last_pause"), few, f"{batch:,} kept", Target(most=1.5)
    )


def _at_rest(chain: Chain) -> tuple[float, float]:
    with Subject(chain, "client") as client, daemon(chain, client, **SERVED) as pid:
        return rss(pid) / MIB, sum(rss(child) for child in children(pid)) / MIB


def _kept(chain: Chain, batch: int, kept: int) -> dict[str, Any]:
    with Subject(chain, "library", **UNLIMITED, max_kept_bytes=2**30) as ours:
        job = {
            "do": "trace",
            "targets": chain.targets[:batch],
            "fields": {"probes": 3},
            "at_once": 500,
            "routes": False,
        }
        # The first batch fills what is only filled once: allocator pools, caches, tables.
        first_pause = last_pause = ours(**job)["pause_s"]
        before = ours(do="memory")
        while (after := ours(do="memory"))["kept"] < kept:
            last_pause = ours(**job)["pause_s"]
    per_trace = (after["rss"] - before["rss"]) / (after["kept"] - before["kept"])
    return {
        "per_trace": per_trace,
        "whole": per_trace * kept / MIB,
        "counted": after["counted"] / after["kept"],
        "first_pause": first_pause * 1e3,
        "last_pause": last_pause * 1e3,
    }
