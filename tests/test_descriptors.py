"""File descriptors: connections fit into the limit, or the log says why not."""

from __future__ import annotations

import resource
from typing import Any

import pytest
from twisted.logger import globalLogPublisher

from tracerouted.descriptors import OWN, PER_LOOKUP, fitting
from tracerouted.settings import Settings

ENDLESS = resource.RLIM_INFINITY
SETTINGS = Settings(max_connections=1000, dns_lookups=10)
NEEDED = OWN + PER_LOOKUP * 10 + 1000


@pytest.mark.parametrize(
    ("limits", "raised", "connections"),
    [
        ((ENDLESS, ENDLESS), None, 1000),
        ((NEEDED, NEEDED), None, 1000),
        ((NEEDED - 1, ENDLESS), NEEDED, 1000),
        ((64, NEEDED), NEEDED, 1000),
        ((64, NEEDED - 1), NEEDED - 1, 999),
        ((512, 512), 512, 512 - OWN - PER_LOOKUP * 10),
        ((100, 100), 100, 50),  # not even the service's own fit for certain
    ],
)
def test_fitting(
    monkeypatch: pytest.MonkeyPatch, limits: tuple[int, int], raised: int | None, connections: int
) -> None:
    """The soft limit is raised as far as is needed and allowed; what does not fit is not taken, and said once."""
    changed: list[tuple[int, int]] = []
    log: list[dict[str, Any]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda which: limits)
    monkeypatch.setattr(resource, "setrlimit", lambda which, new: changed.append(new))
    globalLogPublisher.addObserver(log.append)
    try:
        fitted = fitting(SETTINGS)
    finally:
        globalLogPublisher.removeObserver(log.append)
    assert connections == fitted.max_connections
    assert ([] if raised is None else [(raised, limits[1])]) == changed
    assert ["TRACEROUTED_MAX_CONNECTIONS"] * (connections < 1000) == [event["setting"] for event in log]
