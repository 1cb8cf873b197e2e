"""A service over a fake engine, without sockets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher

from fake_engine import EPOCH, FakeEngine
from fake_http import Service
from tracerouted.http import HttpLimits, Policy, make_site


@pytest.fixture
def make_service() -> Callable[..., Service]:
    """Make a service; `policy` is made with its clock, further keywords are limits."""

    def make(policy: Callable[[Clock], Policy] | None = None, **limits: Any) -> Service:
        clock = Clock()
        engine = FakeEngine(clock)
        site = make_site(
            engine,
            clock=clock,
            wall=lambda: EPOCH + clock.seconds(),
            limits=HttpLimits(**limits),
            policy=policy(clock) if policy else None,
            lookup_asn=True,
        )
        return Service(site, engine, clock)

    return make


@pytest.fixture
def service(make_service: Callable[..., Service]) -> Service:
    """A service with the default limits."""
    return make_service()


@pytest.fixture
def log() -> Iterator[list[dict[str, Any]]]:
    """Every event logged during the test."""
    events: list[dict[str, Any]] = []
    globalLogPublisher.addObserver(events.append)
    yield events
    globalLogPublisher.removeObserver(events.append)


@pytest.fixture(scope="session")
def reactor() -> Iterator[Any]:
    """A reactor of its own, that runs while a test has it turn."""
    reactor = EPollReactor()
    reactor.startRunning(installSignalHandlers=False)
    yield reactor
    reactor.disconnectAll()
