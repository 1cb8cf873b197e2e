"""Trace one route and print each hop the moment it answers: python examples/trace.py TARGET

TARGET is a host name or an address. mtr-packet must be installed and allowed to open raw sockets.
"""

import sys
import time

from twisted.internet import reactor, task
from twisted.internet.defer import ensureDeferred

from tracerouted.library import Tracer
from tracerouted.model import EndEvent, HopEvent, TraceRequest

# Timers that a step of the wall clock leaves alone.
reactor.seconds = time.monotonic


async def main(target: str) -> int:
    tracer = Tracer(reactor)
    await tracer.start()
    accepted = tracer.submit(TraceRequest(target=target))
    reached = False
    async for event in tracer.follow(accepted.id):
        if isinstance(event, HopEvent) and event.probe is not None and event.probe.address is not None:
            rtt = "?" if event.probe.rtt_us is None else f"{event.probe.rtt_us / 1000:.1f}"
            print(f"{event.ttl:2}  {event.probe.address}  {rtt} ms", flush=True)
        if isinstance(event, EndEvent):
            reached = event.trace.reached
            print(f"{event.trace.stop_reason}, {len(event.trace.hops)} hops", event.trace.error or "")
    await tracer.stop()
    return 0 if reached else 1


def run(_: object) -> object:
    return ensureDeferred(main(sys.argv[1])).addCallback(sys.exit)


task.react(run, _reactor=reactor)
