"""Our engine, scheduler and trace machines alone: a prober that answers in the next turn, no process, no kernel.

Job: traces, hops, probes, at_once. The processor time is what our own code costs, whatever else the machine does.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import DeferredSemaphore, ensureDeferred, gatherResults

from tracerouted.jobs.memory import EngineLimits, MemoryEngine
from tracerouted.library import probe_limits
from tracerouted.model import Capabilities, Family, Protocol, Reply, ReplyKind, TraceRequest
from tracerouted.naming.describer import Describer
from tracerouted.naming.policy import TargetPolicy
from tracerouted.probing.prober import ProbeKind
from tracerouted.probing.scheduler import Scheduler
from tracerouted.settings import Settings

from ..limits import UNLIMITED

reactor: Any = _reactor


class InstantProber:
    """Answers every probe in the next reactor turn, as a path of `hops` hops would."""

    family = Family.IPV4
    unready_reason = None
    capabilities = Capabilities("0.95", frozenset({Protocol.ICMP}), True, 1000)

    def __init__(self, listener: Any, hops: int) -> None:
        self._listener = listener
        self._hops = hops
        self._waiting: list[tuple[object, Reply, float]] = []
        self.sent = 0

    def prepare(self, kind: ProbeKind) -> str:
        return kind.address

    def send(self, prepared: Any, ttl: int, source_port: int | None, ticket: object) -> None:
        self.sent += 1
        if ttl < self._hops:
            reply = Reply(ReplyKind.TTL_EXPIRED, f"44.3.8.{ttl}", 50 * ttl)
        else:
            reply = Reply(ReplyKind.REPLY, prepared, 50 * self._hops)
        if not self._waiting:
            reactor.callLater(0, self._answer)
        self._waiting.append((ticket, reply, reactor.seconds()))

    def _answer(self) -> None:
        waiting, self._waiting = self._waiting, []
        now = reactor.seconds()
        for ticket, reply, sent_at in waiting:
            self._listener.on_reply(ticket, reply, sent_at, now)
        self._listener.on_turn(self)

    def confirm(self) -> None:
        reactor.callLater(0, self._listener.on_alive, self, reactor.seconds())


async def drive(traces: int, hops: int, probes: int, at_once: int) -> dict[str, Any]:
    """Run `traces` traces, `at_once` at a time."""
    scheduler = Scheduler(reactor, probe_limits(Settings(**UNLIMITED)))
    prober = InstantProber(scheduler, hops)
    scheduler.add_prober(prober)
    engine = MemoryEngine(
        reactor,
        time.time,
        scheduler,
        {Family.IPV4: prober},
        TargetPolicy(),
        lambda name, family: None,  # type: ignore[arg-type,return-value]  # no names are resolved here
        Describer(),
        lambda target: "44.3.8.0",
        EngineLimits(max_running=10_000, max_queued=100_000, traces_per_prefix=100_000),
    )
    place = DeferredSemaphore(at_once)

    async def one(number: int) -> int:
        request = TraceRequest(target=f"44.3.{number >> 8}.{number & 255}", probes=probes, resolve_names=False)
        accepted = engine.submit(request)
        await engine.finished(accepted.id)
        return sum(hop.responders != () for hop in engine.get(accepted.id).hops) if number < 20 else hops

    cpu, began = time.process_time(), time.perf_counter()
    found = await gatherResults([place.run(lambda n=n: ensureDeferred(one(n))) for n in range(traces)])
    cpu, wall = time.process_time() - cpu, time.perf_counter() - began
    await engine.drain(0)
    scheduler.close()
    return {"cpu_s": cpu, "wall_s": wall, "sent": prober.sent, "complete": sum(n == hops for n in found)}


def main() -> None:
    """Take jobs until standard input ends."""
    reactor.seconds = time.monotonic
    print('{"ready": true}', flush=True)

    def following() -> None:
        text = sys.stdin.readline()
        if not text:
            reactor.stop()
            return
        doing = ensureDeferred(drive(**json.loads(text)))
        doing.addBoth(lambda answer: print(json.dumps(answer, default=str), flush=True))
        doing.addCallback(lambda _: reactor.callLater(0, following))

    reactor.callWhenRunning(following)
    reactor.run()


if __name__ == "__main__":
    main()
