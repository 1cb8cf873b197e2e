"""Resident memory at rest and with ten thousand kept traces, and the collector's pauses."""

from __future__ import annotations

from collections.abc import Iterator

from ..daemon import daemon
from ..grounds import Chain
from ..limits import SERVED, UNLIMITED
from ..subjects import Subject, children, rss
from ..table import Figure, Target, row

KEPT = 10_000
MIB = 2**20


@row("memory")
def memory() -> Iterator[Figure]:
    """Memory at rest, per kept trace, and with 10,000 kept."""
    with Chain() as chain:
        with Subject(chain, "client") as client, daemon(chain, client, **SERVED) as pid:
            own, theirs = rss(pid), sum(rss(child) for child in children(pid))
            note = f"of it mtr-packet: {theirs / MIB:.1f}"
            at_rest = (own + theirs) / MIB
            yield Figure("memory", "daemon at rest, both children", "MiB", at_rest, target=Target(most=60), note=note)
        with Subject(chain, "library", **UNLIMITED, max_kept_bytes=2**30) as ours:
            targets = chain.targets
            job = {"do": "trace", "targets": targets, "fields": {"probes": 3}, "at_once": 500, "routes": False}
            # The first thousand fill what is only filled once: allocator pools, caches, tables.
            first_pause = ours(**job)["pause_s"]
            before = ours(do="memory")
            last_pause = 0.0
            while (after := ours(do="memory"))["kept"] < KEPT:
                last_pause = ours(**job)["pause_s"]
            grown = after["rss"] - before["rss"]
            added = after["kept"] - before["kept"]
            per_trace = grown / added
            note = f"RSS grew {grown / MIB:.1f} MiB by {added:,} traces"
            yield Figure(
                "memory", "per kept 11-hop, 3-probe trace", "bytes", per_trace, target=Target(most=1300), note=note
            )
            whole = per_trace * KEPT / MIB
            yield Figure("memory", "10,000 kept traces", "MiB", whole, target=Target(most=20))
            yield Figure("memory", "counted against max_kept_bytes", "bytes", after["counted"] / after["kept"])
            yield Figure("memory", "longest collector pause, 1,000 kept", "ms", first_pause * 1e3)
            yield Figure("memory", "longest collector pause, 10,000 kept", "ms", last_pause * 1e3)
