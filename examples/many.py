"""Trace many targets at once, one line each as it ends: python examples/many.py < targets.txt

One target (name or address) per line on stdin. All probes share one mtr-packet process per address family.
"""

import sys
import time

from twisted.internet import reactor, task
from twisted.internet.defer import ensureDeferred, gatherResults

from tracerouted.jobs.engine import EngineError
from tracerouted.library import Tracer
from tracerouted.model import InvalidRequest
from tracerouted.settings import Settings

reactor.seconds = time.monotonic

# The defaults are polite to strangers' networks. These are for your own.
settings = Settings(max_running=500, max_queued=100_000, probes_per_second=10_000)


async def trace(tracer: Tracer, target: str) -> None:
    try:
        # Silent hops cost nothing here: all hops of all targets are probed side by side.
        found = await tracer.trace(target, probes=1, resolve_names=False)
    except (EngineError, InvalidRequest) as refusal:
        print(f"{target}: refused: {refusal}", flush=True)
        return
    route = [hop.responders[0].address if hop.responders else "*" for hop in found.hops]
    print(f"{target}: {found.stop_reason}: {' '.join(route)}", flush=True)


async def main() -> None:
    tracer = Tracer(reactor, settings)
    await tracer.start()
    targets = sys.stdin.read().split()
    started = time.monotonic()
    await gatherResults([ensureDeferred(trace(tracer, target)) for target in targets])
    print(f"{len(targets)} targets in {time.monotonic() - started:.1f} s", file=sys.stderr)
    await tracer.stop()


task.react(lambda _: ensureDeferred(main()), _reactor=reactor)
