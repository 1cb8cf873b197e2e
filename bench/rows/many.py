"""Five hundred traces at once to distinct targets, against everybody."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from .. import peers
from ..daemon import PORT, daemon, post
from ..grounds import Chain, Ground, simulated
from ..limits import SERVED, UNLIMITED
from ..routes import judged
from ..subjects import Subject
from ..table import Figure, Plan, Runs, Target, in_turn, row

ROUNDS = 5
SLOW_ROUNDS = 2
TRACES = 500
PUBLISHED_CAP_S = 20  # twisted-mtr as published stands still long before
PATCHED_CAP_S = 60
SILENT = (4, 7)
MTR, MTR_AT_ONCE = "mtr", "mtr, all at once"


def library(ground: Ground, targets: list[str]) -> dict[str, Any]:
    """Ours without HTTP, in a fresh process: no path length is remembered."""
    with Subject(ground, "library", **UNLIMITED) as ours:
        return ours(do="trace", targets=targets, fields={"probes": 1})


def over_http(ground: Ground, targets: list[str]) -> dict[str, Any]:
    """Ours over HTTP, in a fresh process: one connection and one waiting POST per target."""
    with Subject(ground, "client") as client, daemon(ground, client, **SERVED):
        requests = [post(target, probes=1) for target in targets]
        return client(do="ask", requests=requests, clients=len(requests), port=PORT, routes=True)


def _compare(ground: Ground, plan: Plan, share: float, slow: bool) -> Iterator[Figure]:
    targets = ground.targets[: plan.size(TRACES, 3)]
    found = peers.available()
    mtr = found.pop("mtr", None)

    def on(run: peers.Run) -> Callable[[], dict[str, Any]]:
        return lambda: run(ground, targets)

    subjects: dict[str, Callable[[], dict[str, Any]]] = {
        "library": lambda: library(ground, targets),
        "http": lambda: over_http(ground, targets),
        **{peer: on(run) for peer, run in found.items()},
    }
    slow_ones: dict[str, Callable[[], dict[str, Any]]] = {}
    if slow:
        if mtr is not None:
            slow_ones[MTR] = on(mtr)
            if not plan.tiny:
                slow_ones[MTR_AT_ONCE] = lambda: peers.mtr(ground, targets, len(targets))
        if peers.twisted_mtr_path() is not None:
            published, patched = plan.size((PUBLISHED_CAP_S, PATCHED_CAP_S), (1, 1))
            slow_ones["twisted-mtr"] = lambda: peers.twisted_mtr(ground, targets, published)
            slow_ones["patched twisted-mtr"] = lambda: peers.twisted_mtr(ground, targets, patched, patched=True)
    results = in_turn(subjects, plan.rounds(ROUNDS)) | in_turn(slow_ones, plan.rounds(SLOW_ROUNDS))
    taken = {subject: judged(rounds, ground.way, targets) for subject, rounds in results.items()}
    ours, served = taken.pop("library"), taken.pop("http")
    many = f"{len(targets)} at once"
    yield Figure(f"{many}, library", "s", ours, taken, "scamper", Target(most=share))
    yield Figure(f"{many}, over HTTP", "s", served, {"library": ours}, "library", Target(most=1.6))
    if slow:
        against = {name: runs for name, runs in taken.items() if name in (MTR, MTR_AT_ONCE)}
        yield Figure(f"{many}, over HTTP, against mtr", "s", served, against, MTR, Target(most=1 / 25))
    lost = Runs([result["lost"] for result in results["library"]])
    yield Figure(f"{many}, library: falsely lost", "probes", lost, target=Target(most=0))


@row("many")
def many(plan: Plan) -> Iterator[Figure]:
    """500 traces at once, ten routers that answer at once."""
    with Chain() as ground:
        yield from _compare(ground, plan, 1.0, True)


@row("many-silent")
def many_silent(plan: Plan) -> Iterator[Figure]:
    """500 traces at once, ten routers of which two are silent."""
    with Chain(silent=frozenset(SILENT)) as ground:
        yield from _compare(ground, plan, 0.8, True)


@row("far")
def far(plan: Plan) -> Iterator[Figure]:
    """500 traces at once in the simulated internet, 20 ms away."""
    with simulated(routers=10, rtt_ms=20, copies=plan.size(TRACES, 3)) as ground:
        yield from _compare(ground, plan, 1.0, False)


@row("far-silent")
def far_silent(plan: Plan) -> Iterator[Figure]:
    """500 traces at once in the simulated internet, 20 ms away, two routers silent."""
    with simulated(routers=10, rtt_ms=20, copies=plan.size(TRACES, 3), silent=SILENT) as ground:
        yield from _compare(ground, plan, 0.8, False)
