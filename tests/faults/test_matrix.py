"""Every fault a child can have, at its N-th read, write or spawn, once or again and again, under a load of traces."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faults.script import KINDS, Fault, Script
from faults.world import World
from tracerouted.model import Family, Protocol

#: Which read, write or spawn. A self-test makes some twelve lines, and comes before the first probe.
TIMES = {"read": (1, 2, 3, 4, 5, 8), "write": (1, 10, 11, 13, 17, 23), "spawn": (1, 2, 3)}
LOAD = (Protocol.ICMP, Protocol.UDP, Protocol.TCP)


def troubled(scripts: dict[Family, Script], recovers_s: float) -> tuple[World, list[str]]:
    """Traces for five seconds while things go wrong, then none of it any more."""
    with World(scripts) as world:
        spawning = any(KINDS[fault.kind].place == "spawn" for script in scripts.values() for fault in script.faults)
        for number in range(10):
            world.run(0.5)
            for family in Family:
                world.submit(family, LOAD[number % 3])
            if spawning and number % 3 == 2:
                for child in world.clock.spawned:
                    if child.family in scripts and not child.reaped:
                        child.exit(None, 9)
        for script in scripts.values():
            script.off = True
        for family in scripts:
            if world.until_ready(family, recovers_s) is None:
                reason = world.probers[family].unready_reason
                world.complaints.append(f"{family} isn't ready after {recovers_s:g} s: {reason}")
        world.run(4)  # a process that forgot something is found out only now
        for family in Family:
            world.until_ready(family, recovers_s)
            after = world.submit(family)
            world.run(6)
            if after is None:
                world.complaints.append(f"{family} does not trace afterwards")
            else:
                world.complaints += world.judge_whole(world.engine.get(after))
        for trace_id in world.accepted:
            trace = world.engine.get(trace_id)
            if trace.target is not None and trace.target.family not in scripts:
                world.complaints += world.judge_whole(trace)
        return world, world.conclude()


@pytest.mark.parametrize("again", [False, True], ids=["once", "every"])
@pytest.mark.parametrize("kind", KINDS)
def test_one_fault(kind: str, again: bool) -> None:
    """Whatever fails, and when: every trace ends in time and once, no hop and no loss is made up, nothing is left
    behind, the other family notices nothing, and when it is over all is as before."""
    complaints = {}
    for at in TIMES[KINDS[kind].place]:
        script = Script((Fault(kind, at, again),))
        world, wrong = troubled({Family.IPV4: script}, KINDS[kind].recovers_s)
        if not script.struck:
            wrong.append("it never struck")
        if KINDS[kind].harmless:
            wrong += [each for trace in world.accepted for each in world.judge_whole(world.engine.get(trace))]
        if wrong:
            complaints[at] = wrong
    assert {} == complaints


faults = st.builds(Fault, st.sampled_from(sorted(KINDS)), st.integers(1, 30), st.booleans())


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(faults, min_size=2, max_size=5), st.lists(faults, max_size=3))
def test_faults_together(four: list[Fault], six: list[Fault]) -> None:
    """The same for any faults at once, in both families."""
    scripts = {Family.IPV4: Script(tuple(four)), Family.IPV6: Script(tuple(six))}
    _, wrong = troubled(scripts, 25)
    assert [] == wrong
