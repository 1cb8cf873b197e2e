"""Admission: order, limits, and nobody waiting behind a busy prefix."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tracerouted.jobs.admission import Admission


def started(admission: Admission[str]) -> list[str]:
    """All that may start now."""
    return list(iter(admission.next, None))


def test_in_order_of_arrival() -> None:
    """Traces start in the order they came, as many as may run."""
    admission: Admission[str] = Admission(2, 8)
    for job in "abc":
        admission.join(job, job)
    assert ["a", "b"] == started(admission)
    admission.leave("a", "a")
    assert ["c"] == started(admission)


def test_a_busy_prefix_holds_up_nobody_else() -> None:
    """A trace whose prefix is busy lets others pass and is first when its prefix has room."""
    admission: Admission[str] = Admission(10, 1)
    for job in ("p1", "p2", "q1"):
        admission.join(job[0], job)
    assert ["p1", "q1"] == started(admission)
    admission.join("r", "r1")
    admission.leave("p", "p1")
    assert ["p2", "r1"] == started(admission)


@given(st.lists(st.tuples(st.sampled_from("pqr"), st.integers(0, 30)), max_size=60), st.integers(1, 3))
def test_limits_hold_and_all_start(moves: list[tuple[str, int]], per_prefix: int) -> None:
    """Whatever comes and goes, both limits hold and whoever stays gets to run."""
    admission: Admission[str] = Admission(4, per_prefix)
    alive: dict[str, str] = {}
    running: set[str] = set()
    for prefix, number in moves:
        job = f"{prefix}{number}"
        if job in alive:
            admission.leave(prefix, job)
            del alive[job]
            running.discard(job)
        else:
            admission.join(prefix, job)
            alive[job] = prefix
        running |= set(started(admission))
        assert len(running) == admission.running <= 4
        assert len(alive) - len(running) == admission.waiting
        for each in "pqr":
            assert sum(alive[job] == each for job in running) <= per_prefix
    while alive:
        assert running
        job = running.pop()
        admission.leave(alive.pop(job), job)
        running |= set(started(admission))
    assert (0, 0) == (admission.running, admission.waiting)
