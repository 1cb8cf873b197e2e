"""What one instance carries with its limits raised, by how much of the path is silent: for planning past one machine.

Five hundred clients post traces of 11 hops x 3 probes and wait for each. Silent hops hold mtr-packet's slots for a
second per probe, which is what limits where many are silent; elsewhere it is processor time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..daemon import PORT, daemon, post
from ..grounds import Chain
from ..limits import SERVED
from ..routes import judged
from ..subjects import Subject, children, cpu_s, rss
from ..table import Figure, Plan, Runs, row

ROUNDS = 2
CLIENTS = 500
TRACES = 1000
MIB = 2**20
#: Silent routers of ten.
SILENT: dict[int, tuple[int, ...]] = {0: (), 20: (4, 7), 50: (2, 4, 5, 7, 9)}


@row("planning")
def planning(plan: Plan) -> Iterator[Figure]:
    """Traces per minute that one instance carries over HTTP, with none, 20% and 50% of the routers silent."""
    for share, silent in SILENT.items():
        with Chain(silent=frozenset(silent)) as chain:
            targets = chain.targets[: plan.size(TRACES, 3)]
            results = [_carried(chain, targets) for _ in range(plan.rounds(ROUNDS))]
            traces = judged(results, chain.way, targets, lambda result: result["per_minute"])
        name = f"{share}% silent"
        yield Figure(f"traces, {name}", "1/min", traces, curve="planned traces", at=share)
        for words in ("daemon", "mtr-packet"):
            busy = Runs([result[words] / result["wall_s"] for result in results])
            yield Figure(f"{words}, {name}", "cores", busy, curve=f"planned {words}", at=share)
        most = Runs([result["memory"] / MIB for result in results])
        yield Figure(f"memory at most, {name}", "MiB", most, curve="planned memory", at=share)


def _carried(chain: Chain, targets: list[str]) -> dict[str, Any]:
    with Subject(chain, "client") as client, daemon(chain, client, **SERVED) as pid:
        requests = [post(target, probes=3) for target in targets]
        own, theirs = cpu_s(pid), sum(map(cpu_s, children(pid)))
        found = client(do="ask", requests=requests, clients=CLIENTS, port=PORT, routes=True)
        used = {"daemon": cpu_s(pid) - own, "mtr-packet": sum(map(cpu_s, children(pid))) - theirs}
        rate = len(targets) / found["wall_s"] * 60
        return {**found, **used, "per_minute": rate, "memory": rss(pid, "VmHWM")}
