"""The twisted-mtr package, as its documentation says to use it, or with its reading of lines put right.

Job: targets, cap_s (seconds after which it is over), patched.
"""

from __future__ import annotations

import json
import sys
import time
from ipaddress import ip_address
from typing import Any

from twisted.internet import reactor as _reactor

from tracerouted.mtrpacket.source import source_address

from ..peers import twisted_mtr_path
from . import arguments

reactor: Any = _reactor


def main() -> None:
    """Do one job, then end."""
    sys.path.insert(0, str(twisted_mtr_path()))
    from twisted_mtr import mtr, utils  # installed by itself, not a dependency

    class Patched(mtr.TraceRoute):  # type: ignore[misc]
        """Takes several reply lines per read, and halves of lines."""

        rest = b""

        def outReceived(self, data: bytes) -> None:
            *lines, self.rest = (self.rest + data).split(b"\n")
            for line in lines:
                self.got_mtr_line(line.decode().split())

    mtr.log.setLevel("CRITICAL")
    print('{"ready": true}', flush=True)
    job = json.loads(sys.stdin.readline())
    targets = job["targets"]
    kind = Patched if arguments().get("patched") else mtr.TraceRoute
    tracer = kind(mtr_binary_path=utils.find_binary("mtr-packet"), local_ipv4=source_address(targets[0]))
    routes: dict[str, list[str | None]] = {}
    failed: list[str] = []
    began = time.perf_counter()

    def over() -> None:
        print(json.dumps({"wall_s": time.perf_counter() - began, "routes": routes}), flush=True)
        reactor.stop()

    def ended(target: str, hops: list[Any] | None) -> None:
        if hops is None:
            failed.append(target)
        else:
            routes[target] = [address for _, address, _ in hops]
        if len(routes) + len(failed) == len(targets) and reactor.running:
            over()

    def start() -> None:
        reactor.callLater(job["cap_s"], over)
        for target in targets:
            tracer.trace(
                lambda _ts, _ip, _protocol, _port, hops, target=target: ended(target, hops),
                lambda *_args, target=target: ended(target, None),
                ip_address(target),
            )

    reactor.spawnProcess(tracer, tracer.mtr_binary_path, [tracer.mtr_binary_path], {})
    reactor.callWhenRunning(start)
    reactor.run()


if __name__ == "__main__":
    main()
