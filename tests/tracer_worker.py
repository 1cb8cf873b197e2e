"""A `Tracer` in a process of its own, for tests that trace the simulated internet from plain functions.

As a program it reads one JSON request per line ({"number", "fields"}; traces run side by side) and writes one line
per finished trace: its number and the pickled trace.
"""

from __future__ import annotations

import base64
import json
import pickle
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any, Self

from tracerouted.model import Family, Protocol, Trace


class TracerWorker:
    """Starts the program and talks to it; a context manager."""

    def __init__(self) -> None:
        self._process = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        #: family -> whether it can be traced
        self.ready: dict[str, bool] = json.loads(self._process.stdout.readline())

    def trace(self, **fields: Any) -> Trace:
        """Trace one target to its end."""
        return self.trace_all([fields])[0]

    def trace_all(self, requests: Sequence[dict[str, Any]]) -> list[Trace]:
        """Trace many targets at once; the traces come back in the order of the requests."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        for number, fields in enumerate(requests):
            self._process.stdin.write(json.dumps({"number": number, "fields": fields}).encode() + b"\n")
        self._process.stdin.flush()
        traces: dict[int, Trace] = {}
        while len(traces) < len(requests):
            number, encoded = self._process.stdout.readline().split()
            traces[int(number)] = pickle.loads(base64.b64decode(encoded))
        return [traces[number] for number in range(len(requests))]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            assert self._process.wait(10) == 0
        finally:
            self._process.kill()
            assert self._process.stdout is not None
            self._process.stdout.close()


def _main() -> None:
    from twisted.internet import reactor, stdio, task
    from twisted.internet.defer import Deferred, ensureDeferred
    from twisted.protocols.basic import LineReceiver

    from tracerouted.library import Tracer
    from tracerouted.settings import Settings

    reactor.seconds = time.monotonic  # type: ignore[attr-defined]
    done: Deferred[None] = Deferred()

    class Requests(LineReceiver):
        delimiter = b"\n"
        MAX_LENGTH = 65536

        def lineReceived(self, line: bytes) -> None:
            asked = json.loads(line)
            ensureDeferred(self.run(asked["number"], asked["fields"]))

        async def run(self, number: int, fields: dict[str, Any]) -> None:
            if "protocol" in fields:
                fields["protocol"] = Protocol(fields["protocol"])
            if "family" in fields:
                fields["family"] = Family(fields["family"])
            trace = await tracer.trace(**{"resolve_names": False, **fields})
            self.sendLine(b"%d %s" % (number, base64.b64encode(pickle.dumps(trace))))

        def connectionLost(self, reason: object = None) -> None:
            done.callback(None)

    async def serve(reactor: Any) -> None:
        readiness = await tracer.start()
        requests = Requests()
        stdio.StandardIO(requests)
        ready = {str(family): each.ready for family, each in readiness.items()}
        requests.sendLine(json.dumps(ready).encode())
        await done
        await tracer.stop()

    tracer = Tracer(
        reactor,
        Settings(
            max_running=2000,
            traces_per_prefix=2000,
            probes_per_second=20_000,
            target_probes_per_second=2000,
        ),
    )
    task.react(serve)


if __name__ == "__main__":
    _main()
