"""A thousand followers of one busy trace: how fast events reach them, how late, and in how much memory."""

from __future__ import annotations

import json
from collections.abc import Iterator

from ..daemon import PORT, daemon, post
from ..grounds import simulated
from ..limits import SERVED
from ..subjects import Subject, rss
from ..table import Figure, Target, quantile, row

FOLLOWERS = 1000
ROUTERS = 10
MIB = 2**20


@row("streams")
def streams() -> Iterator[Figure]:
    """1,000 followers of one trace: at 66,000 events/s, and as fast as they are delivered."""
    for name, probes, interval_ms, paced in (
        ("66,000 events/s offered", 50, 165, True),
        ("more than can be delivered", 100, 20, False),
    ):
        with (
            simulated(routers=ROUTERS, rtt_ms=20, copies=2) as ground,
            Subject(ground, "client") as client,
            daemon(ground, client, **SERVED) as pid,
        ):
            request = post(ground.targets[0], probes=probes, interval_ms=interval_ms)
            del request[2]["Prefer"]
            made = client(do="ask", requests=[request], clients=1, port=PORT)
            before = rss(pid)
            path = f"/traces/{json.loads(made['body'])['id']}/events"
            found = client(do="follow", path=path, followers=FOLLOWERS, port=PORT, pid=pid)
        delays = [delay * 1e3 for delay in found["delays_s"]]
        note = f"{found['ended']} of {FOLLOWERS} got the end; {found['least']}..{found['most']} events each"
        target = Target(least=60_000)
        yield Figure("streams", name, "events/s", found["events"] / found["wall_s"], target=target, note=note)
        held = Target(most=250) if paced else None
        yield Figure("streams", f"p99 delay, {name}", "ms", quantile(delays, 0.99), target=held)
        yield Figure("streams", f"memory added, {name}", "MiB", (found["rss"] - before) / MIB, target=Target(most=64))
