"""Our engine through its library entry, `tracerouted.library.Tracer`, without HTTP.

Jobs: `trace` (targets, fields; `at_once` at a time, all of them without it) and `memory`.
"""

from __future__ import annotations

import gc
import json
import os
import time
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, DeferredSemaphore, ensureDeferred, gatherResults
from twisted.internet.stdio import StandardIO
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure

from tracerouted.library import Tracer
from tracerouted.model import Outcome, Trace, TraceRequest
from tracerouted.settings import Settings

from . import arguments, children, cpu_s, raw_drops, rss

reactor: Any = _reactor


def route(trace: Trace) -> list[str | None]:
    """The first responder of each hop."""
    return [hop.responders[0].address if hop.responders else None for hop in trace.hops]


class Jobs(LineOnlyReceiver):
    """Answers jobs one after another."""

    delimiter = b"\n"
    MAX_LENGTH = 1 << 22

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._pauses: list[float] = []
        self._collecting = 0.0
        gc.callbacks.append(self._on_collection)

    def _on_collection(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._collecting = time.perf_counter()
        else:
            self._pauses.append(time.perf_counter() - self._collecting)

    def lineReceived(self, line: bytes) -> None:
        job = json.loads(line)
        ensureDeferred(getattr(self, "do_" + job.pop("do"))(**job)).addCallbacks(self._done, self._failed)

    def _done(self, answer: object) -> None:
        self.sendLine(json.dumps(answer).encode())

    def _failed(self, failure: Failure) -> None:
        self._done({"error": failure.getErrorMessage()[:500]})

    def connectionLost(self, reason: Failure | None = None) -> None:
        ensureDeferred(self._tracer.stop()).addBoth(lambda _: reactor.stop())

    async def do_trace(
        self, targets: list[str], fields: dict[str, Any], at_once: int = 0, routes: bool = True, rtts: bool = False
    ) -> dict[str, Any]:
        """Trace all targets; the wall clock runs from the first submission to the last end."""
        tracer = self._tracer
        place = DeferredSemaphore(at_once or len(targets))
        walls: list[float] = []
        ids: list[str] = []

        async def one(target: str) -> None:
            began = time.perf_counter()
            accepted = tracer.submit(TraceRequest(target=target, resolve_names=False, **fields))
            ids.append(accepted.id)
            await tracer.engine.finished(accepted.id)
            walls.append(time.perf_counter() - began)

        packets = sum(cpu_s(pid) for pid in children(os.getpid()))
        self._pauses.clear()
        drops = raw_drops(os.getpid())
        cpu, began = time.process_time(), time.perf_counter()
        running: list[Deferred[Any]] = [place.run(lambda t=t: ensureDeferred(one(t))) for t in targets]
        await gatherResults(running)
        wall, cpu = time.perf_counter() - began, time.process_time() - cpu
        answer: dict[str, Any] = {
            "wall_s": wall,
            "cpu_s": cpu,
            "walls_s": walls,
            "child_cpu_s": sum(cpu_s(pid) for pid in children(os.getpid())) - packets,
            "drops": raw_drops(os.getpid()) - drops,
            "pause_s": max(self._pauses, default=0.0),
        }
        if routes or rtts:
            traces = [tracer.engine.get(trace_id) for trace_id in ids]
            answer["routes"] = {trace.target.address: route(trace) for trace in traces if trace.target}
            probes = [(trace, hop, probe) for trace in traces for hop in trace.hops for probe in hop.probes]
            answer["sent"] = len(probes)
            answer["lost"] = sum(probe.outcome is Outcome.TIMEOUT for _, hop, probe in probes if hop.responders)
            answer["not_reached"] = sum(not trace.reached for trace in traces)
            if rtts:
                answer["rtts"] = [(hop.ttl, probe.rtt_us) for _, hop, probe in probes if probe.rtt_us is not None]
        return answer

    async def do_memory(self) -> dict[str, Any]:
        """Resident bytes of this process and of its children, after a full collection."""
        gc.collect()
        pid = os.getpid()
        return {
            "rss": rss(pid),
            "children_rss": [rss(child) for child in children(pid)],
            "kept": self._tracer.engine.counts["kept"],
            "packed": sum(job.journal.size for job in self._tracer.engine._jobs.values()),
        }


def main() -> None:
    """Start the engine, say so, then take jobs until standard input ends."""
    reactor.seconds = time.monotonic
    gc.freeze()  # as `tracerouted serve` does (cli.py)
    gc.set_threshold(20_000, 20, 50)
    tracer = Tracer(reactor, Settings(**arguments()))

    def started(readiness: object) -> None:
        StandardIO(jobs)
        jobs._done({"ready": True})

    jobs = Jobs(tracer)
    reactor.callWhenRunning(lambda: ensureDeferred(tracer.start()).addCallback(started))
    reactor.run()


if __name__ == "__main__":
    main()
