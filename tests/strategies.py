"""What tests draw: whole stories of a trace, as facts."""

from __future__ import annotations

import random

from hypothesis import strategies as st

from tracerouted.model import (
    AddressDescribed,
    Asn,
    Fact,
    Family,
    Protocol,
    Status,
    StatusChanged,
    StopReason,
    Target,
    TraceRequest,
)
from virtual import TARGET, Drive, line, reply, router

WALL = 1_000_000.0


def story(seed: int = 1, **fields: object) -> tuple[TraceRequest, list[Fact]]:
    """A request and everything that happened: loss, late and out-of-order answers, names, a retracted hop."""
    request = TraceRequest(target=TARGET, **{"probes": 3, **fields})  # type: ignore[arg-type]
    chance = random.Random(seed)

    def answer(probe, earlier):  # type: ignore[no-untyped-def]
        if chance.random() < 0.15:
            return None
        if probe.ttl >= 6:
            return reply(0.02 + chance.random() * 0.05)
        delay, said = line(6)(probe, earlier)  # type: ignore[misc]
        return delay + chance.random() * 0.4, said

    drive = Drive(request, answer)
    drive.run()
    target = Target(TARGET, TARGET, Family.IPV4, (TARGET,))
    facts: list[Fact] = [
        StatusChanged(Status.QUEUED, WALL),
        StatusChanged(Status.QUEUED, WALL, target=target),
        StatusChanged(Status.RUNNING, WALL + 0.001, source_address="192.0.2.1"),
        *drive.facts,
    ]
    facts.insert(len(facts) - 3, AddressDescribed(2, router(2), "r2.example.net", None))
    facts.append(AddressDescribed(2, router(2), None, Asn(64500, "EXAMPLE")))
    facts.append(StatusChanged(Status.COMPLETED, WALL + 1, stop_reason=StopReason.REACHED))
    return request, facts


stories = st.tuples(st.integers(0, 10_000), st.integers(1, 4), st.sampled_from([1, 3])).map(
    lambda drawn: story(drawn[0], probes=drawn[1], flows=drawn[2], protocol=Protocol.UDP)
)
