"""`Tracer` in the simulated internet, through real mtr-packet processes; and the programs of docs/library.md."""

import re
import sys
from pathlib import Path

import pytest
from twisted.internet import reactor
from twisted.internet.defer import ensureDeferred, gatherResults
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from netsim import judge
from tracerouted.jobs.engine import NotReady, TargetNotAllowed, UnknownTrace
from tracerouted.library import Tracer
from tracerouted.model import (
    EndEvent,
    Family,
    HopEvent,
    InvalidRequest,
    Protocol,
    Status,
    StatusEvent,
    StopReason,
    TraceRequest,
)
from tracerouted.settings import Settings

DOCUMENT = Path(__file__).parent.parent / "docs" / "library.md"
PROGRAMS = re.findall(r"^```python\n(.*?)^```", DOCUMENT.read_text(), flags=re.S | re.M)


def alive(pid):
    """Whether a process exists, a zombie included."""
    return Path(f"/proc/{pid}").exists()


class TracerTests(TestCase):
    """What a program that uses `Tracer` relies on."""

    timeout = 60

    @pytest.fixture(autouse=True)
    def _lab(self, lab):
        self.lab = lab

    async def started(self, **settings):
        """A tracer that is ready, stopped at the end."""
        tracer = Tracer(reactor, Settings(**settings))
        self.addCleanup(lambda: ensureDeferred(tracer.stop()))
        readiness = await tracer.start()
        assert {Family.IPV4: True, Family.IPV6: True} == {family: each.ready for family, each in readiness.items()}
        return tracer

    def request(self, name, family="ipv4", **fields):
        """A request for a simulated target, without names."""
        return TraceRequest(target=self.lab.address(name, family), resolve_names=False, **fields)

    async def test_trace(self):
        """`trace` gives a finished trace that is true, in both families and three protocols."""
        tracer = await self.started()
        for family in ("ipv4", "ipv6"):
            for protocol in Protocol.ICMP, Protocol.TCP, Protocol.UDP:
                if protocol is Protocol.UDP and not tracer.probers[Family(family)].capabilities.constant_flow_udp:
                    continue
                target = self.lab.address("lossy-middle", family)
                self.lab.reset()
                trace = await tracer.trace(target, protocol=protocol, resolve_names=False)
                truth = self.lab.truth("lossy-middle", family, protocol)
                assert [] == judge(trace, truth, self.lab.dealt("lossy-middle", family, protocol))

    async def test_follow(self):
        """`follow` gives each event once, in order, from the first to the end, which holds what `get` gives."""
        tracer = await self.started()
        accepted = tracer.submit(self.request("plain"))
        assert not accepted.status.terminal
        events = [event async for event in tracer.follow(accepted.id)]
        revisions = [event.revision for event in events]
        assert sorted(set(revisions)) == revisions
        assert Status.RUNNING in [event.status for event in events if isinstance(event, StatusEvent)]
        hops = [event for event in events if isinstance(event, HopEvent)]
        assert set(range(1, 12)) == {event.ttl for event in hops}
        assert [events[-1]] == [event for event in events if isinstance(event, EndEvent)]
        assert tracer.engine.get(accepted.id) == events[-1].trace
        assert StopReason.REACHED is events[-1].trace.stop_reason

    async def test_follow_late(self):
        """Following a finished trace gives the same events; `after` leaves out those up to that revision."""
        tracer = await self.started()
        accepted = tracer.submit(self.request("plain"))
        events = [event async for event in tracer.follow(accepted.id)]
        assert events[-1] == [event async for event in tracer.follow(accepted.id)][-1]
        after = events[-2].revision
        assert [events[-1]] == [event async for event in tracer.follow(accepted.id, after)]
        assert [] == [event async for event in tracer.follow(accepted.id, events[-1].revision)]

    async def test_leaving_a_follow(self):
        """Leaving the loop early neither cancels the trace nor leaves anything behind."""
        tracer = await self.started()
        accepted = tracer.submit(self.request("plain"))
        following = tracer.follow(accepted.id)
        async for _ in following:
            break
        await following.aclose()
        await tracer.engine.finished(accepted.id)
        assert StopReason.REACHED is tracer.engine.get(accepted.id).stop_reason

    async def test_two_followers(self):
        """Two followers of one trace see the same."""
        tracer = await self.started()
        accepted = tracer.submit(self.request("silent-middle"))

        async def collect():
            return [event async for event in tracer.follow(accepted.id)]

        one, other = await gatherResults([ensureDeferred(collect()), ensureDeferred(collect())])
        assert one == other

    async def test_refusals(self):
        """What cannot be traced raises from `trace` and `submit` alike; unknown ids from `follow`."""
        tracer = await self.started()
        for target, wrong in (("10.0.0.1", TargetNotAllowed), ("127.1", InvalidRequest)):
            with pytest.raises(wrong):
                await tracer.trace(target)
            with pytest.raises(wrong):
                tracer.submit(TraceRequest(target=target))
        with pytest.raises(InvalidRequest):
            await tracer.trace("192.0.2.1", probes=0)
        with pytest.raises(UnknownTrace):
            await anext(tracer.follow("no such trace"))

    async def test_not_started(self):
        """Before `start`, and after `stop`, nothing is accepted."""
        tracer = Tracer(reactor)
        with pytest.raises(NotReady):
            tracer.submit(self.request("plain"))
        await tracer.start()
        await tracer.stop()
        with pytest.raises(NotReady):
            tracer.submit(self.request("plain"))

    async def test_stop(self):
        """`stop` leaves no process and no delayed call, and ends what runs; results stay readable."""
        before = set(reactor.getDelayedCalls())
        tracer = await self.started()
        pids = [prober.pid for prober in tracer.probers.values()]
        assert all(map(alive, pids))
        finished = await tracer.trace(self.lab.address("plain", "ipv4"))
        self.lab.pause()
        running = [tracer.submit(self.request("plain", family)) for family in ("ipv4", "ipv6")]
        await deferLater(reactor, 0.1)
        await tracer.stop()
        assert not any(map(alive, pids))
        assert [] == [call for call in reactor.getDelayedCalls() if call not in before and not _timeout(call)]
        assert Status.COMPLETED is tracer.engine.get(finished.id).status
        assert [Status.CANCELLED] * 2 == [tracer.engine.get(trace.id).status for trace in running]

    async def test_stop_with_patience(self):
        """`stop` with patience lets running traces end."""
        tracer = await self.started()
        trace = tracer.submit(self.request("plain"))
        await tracer.stop(10)
        assert Status.COMPLETED is tracer.engine.get(trace.id).status

    async def test_stop_during_start(self):
        """A tracer may be stopped while it starts, and twice."""
        tracer = Tracer(reactor)
        starting = ensureDeferred(tracer.start())
        await gatherResults([ensureDeferred(tracer.stop()), ensureDeferred(tracer.stop())])
        assert [False, False] == [each.ready for each in (await starting).values()]

    async def test_two_tracers(self):
        """Two tracers in one program trace different targets side by side; stopping one leaves the other working."""
        one, other = await self.started(), await self.started()
        names = ("plain", "five-silent")
        traces = await gatherResults(
            [
                ensureDeferred(tracer.trace(self.lab.address(name, "ipv4"), resolve_names=False))
                for tracer, name in zip((one, other), names, strict=True)
            ]
        )
        for name, trace in zip(names, traces, strict=True):
            assert [] == judge(trace, self.lab.truth(name, "ipv4", "icmp"))
        await one.stop()
        trace = await other.trace(self.lab.address("plain", "ipv4"), resolve_names=False)
        assert trace.reached

    async def test_waiting_can_be_cancelled(self):
        """Giving up waiting for `trace` leaves the trace running."""
        tracer = await self.started()
        waiting = ensureDeferred(tracer.trace(self.lab.address("plain", "ipv4"), resolve_names=False))
        (trace,) = tracer.engine.list().traces
        waiting.cancel()
        waiting.addErrback(lambda failure: None)
        await tracer.engine.finished(trace.id)
        assert tracer.engine.get(trace.id).reached


def _timeout(call):
    """Whether a delayed call is the test's own timeout."""
    return "trial" in getattr(call.func, "__module__", "")


@pytest.mark.parametrize("number", range(len(PROGRAMS)))
def test_documented_programs(lab, tmp_path, number):
    """The programs in docs/library.md run, and say what the page says they do."""
    script = tmp_path / "program.py"
    script.write_text(PROGRAMS[number])
    ended = lab.run([sys.executable, str(script), lab.address("plain", "ipv4")])
    assert (0, "") == (ended.returncode, ended.stderr)
    lines = ended.stdout.splitlines()
    route = [hop.address for hop in lab.truth("plain", "ipv4", "icmp").ways[0]]
    if number == 0:
        assert [[str(ttl), address] for ttl, address in enumerate(route, 1)] == [line.split()[:2] for line in lines]
    elif number == 1:
        assert "reached" == lines[-1]
        assert {"1 2 of 2", "11 2 of 2"} <= set(lines)
    else:
        assert "TRACEROUTED_ALLOW_TARGETS" in lines[0]
        assert ["completed reached"] == lines[1:]


def test_documented_programs_are_there():
    """docs/library.md has the programs that are run above."""
    assert 3 == len(PROGRAMS)
