"""Five hundred traces at once to distinct targets, against everybody."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

from .. import peers
from ..daemon import PORT, daemon, post
from ..grounds import Chain, Ground, simulated
from ..limits import SERVED, UNLIMITED
from ..routes import exact
from ..subjects import Subject
from ..table import Figure, Target, in_turn, median, row

ROUNDS = 5
TRACES = 500
CAP_S = 60
SILENT = (4, 7)


def library(ground: Ground, targets: list[str]) -> dict[str, Any]:
    """Ours without HTTP, in a fresh process: no path length is remembered."""
    with Subject(ground, "library", **UNLIMITED) as ours:
        return ours(do="trace", targets=targets, fields={"probes": 1})


def over_http(ground: Ground, targets: list[str]) -> dict[str, Any]:
    """Ours over HTTP, in a fresh process: one connection and one waiting POST per target."""
    with Subject(ground, "client") as client, daemon(ground, client, **SERVED):
        requests = [post(target, probes=1) for target in targets]
        return client(do="ask", requests=requests, clients=len(requests), port=PORT, routes=True)


def twisted_mtr(ground: Ground, targets: list[str], patched: bool) -> dict[str, Any]:
    """The twisted-mtr package."""
    with Subject(ground, "twisted_mtr", patched=patched) as theirs:
        return theirs(targets=targets, cap_s=CAP_S)


def _compare(name: str, ground: Ground, share: float, slow: bool) -> Iterator[Figure]:
    targets = ground.targets[:TRACES]
    found = peers.available()
    mtr = found.pop("mtr", None)

    def on(run: peers.Run) -> Callable[[], dict[str, Any]]:
        return lambda: run(ground, targets)

    subjects: dict[str, Callable[[], dict[str, Any]]] = {
        "library": lambda: library(ground, targets),
        "http": lambda: over_http(ground, targets),
        **{peer: on(run) for peer, run in found.items()},
    }
    results = in_turn(subjects, ROUNDS)
    slow_ones: dict[str, Callable[[], dict[str, Any]]] = {}
    if slow and mtr is not None:
        slow_ones["mtr --json -c 1"] = on(mtr)
    if slow and peers.twisted_mtr_path() is not None:
        slow_ones["twisted-mtr, its line reading patched"] = lambda: twisted_mtr(ground, targets, True)
        slow_ones[f"twisted-mtr, {CAP_S} s at most"] = lambda: twisted_mtr(ground, targets, False)
    results |= in_turn(slow_ones, 1)
    walls = {subject: [r["wall_s"] for r in runs] for subject, runs in results.items()}
    held = {"library": ("scamper", Target(most=share)), "http": ("library", Target(most=1.6))}
    for subject, runs in results.items():
        against, target = held.get(subject, ("library", None))
        ratio = median(walls[subject]) / median(walls[against]) if against in walls else None
        good = [exact(run["routes"], ground.way, targets) for run in runs]
        yield Figure(
            name,
            f"{name}: {subject}",
            "s",
            median(walls[subject]),
            tuple(walls[subject]),
            None if subject == against else ratio,
            against,
            target,
            f"{min(good)} of {len(targets)} exact"
            + (f", {sum(r.get('lost', 0) for r in runs)} falsely lost" if "lost" in runs[0] else ""),
        )
    if mtr is not None and slow:
        times = walls["mtr --json -c 1"][0] / median(walls["http"])
        yield Figure(name, f"{name}: http faster than mtr", "times", times, target=Target(least=25))


@row("many")
def many() -> Iterator[Figure]:
    """500 traces at once, ten routers that answer at once."""
    with Chain() as ground:
        yield from _compare("many", ground, 1.0, True)


@row("many-silent")
def many_silent() -> Iterator[Figure]:
    """500 traces at once, ten routers of which two are silent."""
    with Chain(silent=frozenset(SILENT)) as ground:
        yield from _compare("many-silent", ground, 0.8, True)


@row("far")
def far() -> Iterator[Figure]:
    """500 traces at once in the simulated internet, 20 ms away."""
    with ExitStack() as stack:
        ground = stack.enter_context(simulated(routers=10, rtt_ms=20, copies=TRACES))
        yield from _compare("far", ground, 1.0, False)


@row("far-silent")
def far_silent() -> Iterator[Figure]:
    """500 traces at once in the simulated internet, 20 ms away, two routers silent."""
    with ExitStack() as stack:
        ground = stack.enter_context(simulated(routers=10, rtt_ms=20, copies=TRACES, silent=SILENT))
        yield from _compare("far-silent", ground, 0.8, False)
