"""The benchmark harness itself: it runs a small row for real, and tells true routes from wrong ones."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from bench.grounds import Chain  # noqa: E402  # the harness is run from the checkout, it is not installed
from bench.routes import exact  # noqa: E402
from bench.subjects import Subject  # noqa: E402
from bench.table import Figure, Target, in_turn, line  # noqa: E402

needs_routers = pytest.mark.skipif(
    os.geteuid() != 0 or not all(map(shutil.which, ("unshare", "nsenter", "ip", "mtr-packet"))),
    reason="a chain of routers needs root, util-linux, iproute2 and mtr-packet",
)


@needs_routers
def test_a_tiny_row_is_true() -> None:
    """Through three real routers, one silent, ours and the raw driver find every hop of every target."""
    with (
        Chain(3, frozenset({2})) as chain,
        Subject(chain, "library", target_probes_per_second=1000) as ours,
        Subject(chain, "raw") as raw,
    ):
        targets = chain.targets[:2]
        results = in_turn(
            {
                "ours": lambda: ours(do="trace", targets=targets, fields={"probes": 1}),
                "raw": lambda: raw(targets=targets, hops=4, window=8),
            },
            1,
        )
        assert ("44.3.8.1", None, "44.3.8.5", targets[0]) == chain.way(targets[0])
        for (result,) in results.values():
            assert 2 == exact(result["routes"], chain.way, targets)
            assert 0 < result["wall_s"]
        wrong = {targets[0]: ["44.3.8.1", "44.3.8.3", "44.3.8.5", targets[0]], targets[1]: []}
        assert 0 == exact(wrong, chain.way, targets)


@needs_routers
def test_the_chain_leaves_nothing_behind() -> None:
    """Every router's process, and with it its namespace, is gone when the chain is."""
    chain = Chain(1)
    with chain:
        pids = [holder.pid for holder in chain._holders]
        assert 3 == len(pids)
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_exact_routes() -> None:
    """A route counts when every TTL up to the last answer agrees; a missing hop, or one too many, does not."""
    true = ("a", None, "t")
    for found, count in (
        (["a", None, "t"], 1),
        (["a", None, "t", None], 1),
        (["a", "b", "t"], 0),
        (["a", "t"], 0),
        (["a", None, "t", "t"], 0),
        ([], 0),
    ):
        assert count == exact({"t": found}, lambda _: true, ["t"])


def test_targets_of_figures() -> None:
    """A bound is on the ratio where there is one, else on the value; without a bound there is no verdict."""
    assert Figure("r", "n", "s", 2.0, target=Target(most=2.0)).met is True
    assert Figure("r", "n", "s", 2.1, target=Target(most=2.0)).met is False
    assert Figure("r", "n", "s", 9.0, ratio=0.5, against="peer", target=Target(least=0.6)).met is False
    assert Figure("r", "n", "s", 9.0, ratio=0.7, against="peer", target=Target(least=0.6)).met is True
    assert Figure("r", "n", "s", 9.0).met is None
    assert "NOT MET" in line(Figure("r", "n", "s", 2.1, target=Target(most=2.0)))


def test_subjects_take_turns() -> None:
    """Rounds interleave: every subject once, then all again."""
    order: list[str] = []
    results = in_turn({name: lambda name=name: order.append(name) or len(order) for name in "ab"}, 2)
    assert ["a", "b", "a", "b"] == order
    assert {"a": [1, 3], "b": [2, 4]} == results
