"""What arrives on a connection: whatever the bytes, every answer is well framed and none is the service's mistake.

The whole service stands behind it, on a virtual clock and over fake probers. Each input is one connection: bytes in
pieces, time passing between them; then the client leaves. `$` in the input stands for the id of the newest trace.
"""

from __future__ import annotations

import sys
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from twisted.internet.defer import succeed
from twisted.logger import LogLevel, globalLogPublisher

from tracerouted.http.request import EdgeRequest
from tracerouted.http.tally import Tally

from . import Draw

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from fake_http import parse_answer  # the fakes belong to the tests
from metrics_world import World

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_STEP_S = 0.004
_MOST_STEPS = 300
_ADDRESS = (ip_address("203.0.114.1"),)
_BAD = (LogLevel.error, LogLevel.critical)


class _Recorder(Tally):
    """Knows the method and status of every answer; "" where no request could be read."""

    def __init__(self) -> None:
        super().__init__()
        self.begun: list[tuple[str, int]] = []

    def answered(self, request: EdgeRequest | None, status: bytes, now: float) -> None:
        super().answered(request, status, now)
        self.begun.append(("" if request is None else request.method.decode("latin-1"), int(status)))


class _Edge:
    """The service, used by one input after the other; each must leave it as it found it."""

    def __init__(self) -> None:
        self.world = World()
        self.world.look_up = lambda host, family: succeed(_ADDRESS)
        self.site = self.world.service.site
        self.faults: list[str] = []
        globalLogPublisher.addObserver(self._hear)

    def _hear(self, event: dict[str, Any]) -> None:
        if event.get("log_level") in _BAD:
            failure = event.get("log_failure")
            self.faults.append(failure.getTraceback() if failure else str(event.get("log_format")))

    def use(self, draw: Draw) -> None:
        world, site = self.world, self.site
        recorder = site.tally = _Recorder()
        connection = world.service.connect()
        world.service.connections.clear()
        world.trace(seconds=0.1)
        for piece in draw.chunks():
            newest = next(reversed(world.engine._traces), "none")
            connection.send(piece.replace(b"$", newest.encode()))
            world.net.advance(_STEP_S)
        for _ in range(_MOST_STEPS):
            upcoming = world.net.getDelayedCalls()
            if not upcoming or not site.connections:
                break
            world.net.advance(max(_STEP_S, upcoming[0].getTime() - world.net.seconds()))
            connection.settle()
        if site.connections:
            connection.leave()
        self._check(connection.received, recorder)
        for trace_id in list(world.engine._traces):
            world.engine.cancel(trace_id)
        world.net.advance(1)  # what was under way is answered
        assert {"running": 0, "queued": 0, "kept": 0} == world.engine.counts
        assert 0 == site.streams.open
        assert not site.connections
        assert 0 == world.tracer.scheduler.running
        assert {0} == set(world.tracer.scheduler.in_flight().values())

    def _check(self, received: bytes, recorder: _Recorder) -> None:
        faults, self.faults[:] = self.faults[:], []
        assert not faults, faults[0]
        for method, status in recorder.begun:
            assert 200 <= status < 500, (method, status)
            while received.startswith(_CONTINUE):
                received = received[len(_CONTINUE) :]
            answer, received = parse_answer(received, method)
            assert status == answer.status
            if answer.headers.get("content-type") == "application/problem+json" and method != "HEAD":
                assert status == answer.json["status"]
        assert received in (b"", _CONTINUE)


_edge: list[_Edge] = []


def run(data: bytes) -> None:
    """One connection."""
    if not _edge:
        _edge.append(_Edge())
    try:
        _edge[0].use(Draw(data))
    except BaseException:
        _edge.clear()  # what follows is not to suffer from it
        raise
