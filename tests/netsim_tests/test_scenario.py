"""Scenario files: read strictly, with addresses a default target policy accepts."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest

from netsim import Scenario, ScenarioError, available, load, truth_of
from netsim.scenario import FAMILIES, PROTOCOLS, Loss

SMALL: dict[str, Any] = {
    "name": "small",
    "ipv4": "44.2.1.0/24",
    "ipv6": "2a10:44:2001::/48",
    "targets": [{"name": "small", "at": 9, "path": [1, 2]}],
}
LARGE = ["large/many", "large/many_silent"]


@pytest.mark.parametrize("name", [*available(), *LARGE])
def test_bundled_scenarios_tell_the_truth_for_everything(name: str) -> None:
    """Every bundled target but those that change has a truth for each family and protocol."""
    scenario = load(name)
    for target in scenario.targets:
        for family in FAMILIES if not target.then else ():
            for protocol in PROTOCOLS:
                truth = truth_of(scenario, target, family, protocol)
                assert scenario.address(family, target.at, target) == truth.address


def test_bundled_addresses_are_public_and_distinct() -> None:
    """No two bundled targets share an address, and each could be an address on the real internet."""
    scenarios = [load(name) for name in [*available(), *LARGE]]
    addresses = [s.address(f, t.at, t) for s in scenarios for t in s.targets for f in FAMILIES]
    assert len(addresses) == len(set(addresses))
    assert all(ip_address(address).is_global for address in addresses)


def test_copies_are_far_apart_and_share_routers() -> None:
    """Copies of a target are in networks of their own; shared routers are those of the first copy."""
    scenario = load("large/many")
    first, last = scenario.targets[0], scenario.targets[-1]
    assert ["44.128.0.100", "44.129.243.100"] == [scenario.address("ipv4", 100, t) for t in (first, last)]
    assert ["2a10:4480::64", "2a10:4480:1f3::64"] == [scenario.address("ipv6", 100, t) for t in (first, last)]
    assert {"44.128.0.1"} == {scenario.address("ipv4", 1, t) for t in scenario.targets}
    assert 500 == len({scenario.address("ipv4", 3, t) for t in scenario.targets})


@pytest.mark.parametrize(
    "wrong",
    [
        {"hopms": 1},
        {"routers": {"1": {"rttt": 1}}},
        {"routers": {"1": {"lose": {"ever": 1}}}},
        {"routers": {"1": {"source_ipv4": "44.2.1"}}},
        {"targets": [{"name": "x", "at": 9, "path": [1], "colour": "red"}]},
        {"routers": {"1": {"name": "two..dots"}}},
        {"domain": "x" * 64},
        {"asns": {"64500": {"name": "X"}}},
        {"asns": {"64500": {"name": "X", "prefixes": ["44.2.1.1/24"]}}},
        {"asns": {"sixty": {"name": "X", "prefixes": ["44.2.1.0/24"]}}},
        {"targets": [{"name": "x", "at": 9, "path": [{"turns": [[1], [2]]}]}]},
        {"targets": [{"name": "x", "at": 9, "path": [{"flow": [[1], [2]]}, {"packet": [[3], [4]]}]}]},
    ],
)
def test_what_is_not_understood_is_refused(wrong: dict[str, Any]) -> None:
    """A misspelt key or an impossible value is an error that names the scenario."""
    with pytest.raises(ScenarioError, match="small"):
        load({**SMALL, **wrong})


@pytest.mark.parametrize(
    ("loss", "lost"),
    [
        (Loss(every=3), [3, 6, 9]),
        (Loss(first=2), [1, 2]),
        (Loss(after=8), [9, 10]),
        (Loss(at=[1, 7]), [1, 7]),
    ],
)
def test_loss_patterns_are_exact(loss: Loss, lost: list[int]) -> None:
    """A pattern loses just the packets it says, and can tell how many those are."""
    verdicts = loss.verdicts()
    assert lost == [ordinal for ordinal in range(1, 11) if next(verdicts)]
    assert len(lost) == loss.lost_of(10)


def test_random_loss_repeats_itself() -> None:
    """Random loss is the same series for the same seed, and about its share."""
    first, second = Loss(share=0.25, seed=3), Loss(share=0.25, seed=3)
    assert first.lost_of(1000) == second.lost_of(1000)
    assert 200 < first.lost_of(1000) < 300


def test_ways_are_every_combination_of_branches() -> None:
    """Each way through the branches is there once, in the order they are written."""
    scenario: Scenario = load("ecmp")
    assert [(1, 2, 3, 4, 11), (1, 2, 5, 11), (1, 2, 6, 7, 8, 11), (1, 2, 9, 10, 11)] == scenario.targets[0].variants()
