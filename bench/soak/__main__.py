"""`python -m bench.soak [--traces N]`: warm the daemon up, run it through N traces and print figures; the exit code
is 1 if a promise was broken.

The promises: every trace taken ends exactly once, every stream gets its end event, every route is true, also while an
mtr-packet is killed now and then. Between the warm-up (as many traces again: it is the allocators' heaps that take
so long to stop growing, what is in them is as much after a fifth) and the end the daemon's memory grows by no more
than a share (5%), and as many file descriptors are open; nothing runs, waits or is followed any more; one child per
family lives and none is left unreaped; nothing was logged as an error; and when the retention time has passed nothing
is kept.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from attrs import frozen

from netsim import available

from ..daemon import daemon
from ..grounds import ROOT, Lab, namespace
from ..subjects import Subject, children, rss
from .clients import Client, Crowd, goals

#: All that come with the simulator but those the demonstration has under the same name, and with names in DNS.
SCENARIOS = [
    *(name for name in available() if name not in ("plain", "mpls")),
    ROOT / "demo/internet.toml",
]
CLIENTS = 32
KILL_EVERY_S = 5.0  # each family half as often: five deaths within 30 s would open the breaker
SETTLE_S = 3.0  # longer than a probe waits
MIB = 2**20


@frozen
class State:
    """The daemon at rest. `tables` are its gauges of what is under way."""

    rss: int
    descriptors: int
    kept: int
    tables: dict[str, float]
    ended: int
    restarts: int
    children: dict[int, str]

    @classmethod
    async def of(cls, pid: int, crowd: Crowd) -> State:
        """Look at it, with one connection."""
        client = Client(crowd)
        text = (await client.ask("GET", "/metrics")).body.decode()
        samples = {
            name.removeprefix("tracerouted_"): float(value)
            for name, _, value in (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
        }
        gauges = ('traces{state="running"}', 'traces{state="queued"}', "probe_slots_used", "streams_open", "lookups{")
        found = cls(
            rss(pid),
            len(list(Path(f"/proc/{pid}/fd").iterdir())),
            int(samples['traces{state="kept"}']),
            {name: value for name, value in samples.items() if name.startswith(gauges) and "_total" not in name}
            | {"http_connections": samples["http_connections"] - 1},
            int(sum(value for name, value in samples.items() if name.startswith("traces_ended_total"))),
            int(sum(value for name, value in samples.items() if name.startswith("prober_restarts_total"))),
            {child: command(child) for child in children(pid)},
        )
        client.leave()
        return found


def command(pid: int) -> str:
    """What a process runs, and whether it waits to be reaped (proc(5), stat)."""
    name, _, rest = Path(f"/proc/{pid}/stat").read_text().partition("(")[2].rpartition(")")
    return f"{name} {'zombie' if rest.split()[0] == 'Z' else 'alive'}"


async def kill_now_and_then(pid: int, killed: list[int]) -> None:
    """Kill an mtr-packet, one family's after the other's, until cancelled."""
    while True:
        await asyncio.sleep(KILL_EVERY_S)
        found = sorted(children(pid))
        if len(found) == 2:
            # The one not just started: process ids grow.
            os.kill(found[0], signal.SIGKILL)
            killed.append(found[0])


async def soak(pid: int, crowd: Crowd, traces: int, retention_s: float, most_growth: float) -> None:
    """The whole course: warm-up, load, rest, retention. What is broken is a complaint of the crowd."""
    killed: list[int] = []
    began = time.monotonic()
    killing = asyncio.ensure_future(kill_now_and_then(pid, killed))
    await crowd.run(traces, CLIENTS)
    await asyncio.sleep(SETTLE_S)
    warm = await State.of(pid, crowd)
    await crowd.run(traces, CLIENTS)
    killing.cancel()
    await asyncio.sleep(SETTLE_S)
    end = await State.of(pid, crowd)
    wall = time.monotonic() - began
    await asyncio.sleep(retention_s + 1)
    later = await State.of(pid, crowd)

    growth = end.rss / warm.rss - 1
    print(f"traces          {crowd.taken:,} in {wall:.0f} s with {CLIENTS} clients; {crowd.judged:,} judged")
    print(f"uses            {', '.join(f'{name} {count:,}' for name, count in sorted(crowd.done.items()))}")
    print(f"mtr-packet      killed {len(killed)} times, started again {end.restarts}; 503 {crowd.turned_away} times")
    print(f"loss            told at {crowd.lost} hops where nothing is lost")
    print(f"memory          {warm.rss / MIB:.1f} MiB warm, {end.rss / MIB:.1f} MiB at the end: {growth:+.1%}")
    print(f"descriptors     {warm.descriptors} warm, {end.descriptors} at the end")
    print(f"kept            {warm.kept:,} warm, {end.kept:,} at the end, {later.kept} after {retention_s:g} s")
    print(f"children        {', '.join(end.children.values())}", flush=True)
    crowd.expect(end.ended == crowd.taken, f"{crowd.taken} traces were taken, {end.ended} ended")
    crowd.expect(growth <= most_growth, f"memory grew by {growth:.1%}")
    crowd.expect(end.descriptors == warm.descriptors, "descriptors are not as many as after the warm-up")
    crowd.expect(end.restarts == len(killed), f"{len(killed)} were killed, {end.restarts} started again")
    crowd.expect(later.kept == 0, f"{later.kept} traces are kept after their time")
    for state in (warm, end, later):
        crowd.expect(["mtr-packet alive"] * 2 == [*state.children.values()], f"the children are {state.children}")
        crowd.expect(not any(state.tables.values()), f"the tables are {state.tables}")


@contextmanager
def running(settings: dict[str, object], log: IO[bytes]) -> Iterator[tuple[int, Lab]]:
    """The daemon in a simulated internet of its own; its process id."""
    os.environ.pop(namespace.ISOLATED, None)
    namespace.isolate()
    with Lab.start(SCENARIOS) as lab, Subject(lab, "client") as client:
        servers = f"{lab.address('dns', 'ipv4')}:53"
        with daemon(lab, client, log=log, dns_servers=servers, **settings) as pid:
            yield pid, lab


def main(arguments: list[str]) -> int:
    """Soak; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description="soak the daemon")
    parser.add_argument("--traces", type=int, default=10_000)
    parser.add_argument("--kept", type=int, default=1000, help="how many traces the daemon keeps")
    parser.add_argument("--retention", type=float, default=60.0, metavar="S", help="for how long")
    parser.add_argument("--growth", type=float, default=0.05, metavar="SHARE", help="the most memory may grow")
    parser.add_argument("--seed", type=int, default=1, help="of what the clients do")
    options = parser.parse_args(arguments)
    # What is bounded is to be full after the warm-up.
    settings: dict[str, object] = {
        "target_probes_per_second": 2000,
        "render_cache_bytes": 2**20,
        "traces_per_prefix": 500,
        "max_kept": options.kept,
        "retention_s": options.retention,
    }
    with tempfile.TemporaryFile() as log:
        with running(settings, log) as (pid, lab):
            crowd = Crowd(list(goals(lab)), random.Random(options.seed))
            asyncio.run(soak(pid, crowd, options.traces, options.retention, options.growth))
        log.seek(0)
        for line in log.read().decode(errors="replace").splitlines():
            crowd.complain(f"the log says {line}")
    for complaint in crowd.complaints[:40]:
        print(f"BROKEN: {complaint}")
    print(f"{len(crowd.complaints)} promises broken", flush=True)
    return 1 if crowd.complaints else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
