"""Followers of one busy trace: how fast events reach them, how late, in how much memory, and at what cost each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ..daemon import PORT, daemon, post
from ..grounds import Simulated, simulated
from ..limits import SERVED
from ..subjects import Subject, SubjectFailed, rss
from ..table import Figure, Plan, Runs, Target, in_turn, quantile, row

ROUNDS = 3
FOLLOWERS = 1000
ROUTERS = 10
MIB = 2**20


@row("streams")
def streams(plan: Plan) -> Iterator[Figure]:
    """1,000 followers of one trace: at 66,000 events/s, and as fast as they are delivered."""
    followers = plan.size(FOLLOWERS, 10)
    paced, most = f"{followers:,} followers, 66,000/s offered", f"{followers:,} followers, unpaced"
    with simulated(routers=ROUTERS, rtt_ms=20, copies=1) as ground:
        results = in_turn(
            {
                paced: lambda: followed(ground, followers, probes=plan.size(50, 3), interval_ms=165),
                most: lambda: followed(ground, followers, probes=plan.size(100, 3), interval_ms=20),
            },
            plan.rounds(ROUNDS),
        )
    for name, rounds in results.items():
        ended = [found["ended"] for found in rounds]
        rate = Runs([found["events"] / found["wall_s"] for found in rounds], ended, followers)
        late = Runs([quantile(found["delays_s"], 0.99) * 1e3 for found in rounds], ended, followers)
        added = Runs([(found["rss"] - found["rss_before"]) / MIB for found in rounds], ended, followers)
        yield Figure(name, "events/s", rate, target=Target(least=60_000))
        yield Figure(f"{name}: p99 delay", "ms", late, target=Target(most=250) if name == paced else None)
        yield Figure(f"{name}: memory added", "MiB", added, target=Target(most=64))


def followed(ground: Simulated, followers: int, probes: int, interval_ms: int) -> dict[str, Any]:
    """A trace in a fresh daemon, and what its followers got."""
    with Subject(ground, "client") as client, daemon(ground, client, **SERVED) as pid:
        request = post(ground.targets[0], probes=probes, interval_ms=interval_ms)
        del request[2]["Prefer"]
        made = client(do="ask", requests=[request], clients=1, port=PORT)
        before = rss(pid)
        path = f"/traces/{json.loads(made['body'])['id']}/events"
        found = client(do="follow", path=path, followers=followers, port=PORT, pid=pid)
        if not found["delays_s"]:
            raise SubjectFailed(f"{followers} followers saw no event of a trace")
        return {**found, "rss_before": before}
