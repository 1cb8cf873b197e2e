"""The simulator process: packets in from the TUN device, answers out when they are due.

One loop does everything: it reads what has arrived, gives it to the `Internet`, keeps the answers on a heap, writes
those that are due, and sleeps in select(2) until the next is due or something arrives. select takes microseconds
where poll and epoll round up to milliseconds; the process asks for the finest timer slack and for real-time priority
where it may, and switches the garbage collector off, since all of these would show up as delay.

An answer is never early. How late answers were is measured and told with the counters (`lateness`), so that a test
can tell a slow prober from a slow simulator.

Control: a Unix stream socket; one JSON object per line, `{"do": "counters", ...}`, one answer per line. The calls are
the methods of `Control`. The process ends when its standard input does, so it never outlives who started it.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import select
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from heapq import heappop, heappush
from pathlib import Path
from typing import Any

from .internet import Internet
from .namespace import open_device, queue_drops
from .scenario import Scenario, ScenarioError, load

PR_SET_TIMERSLACK = 29
BATCH = 16
MOST_BEFORE_CALL = 20_000
#: Upper bounds of the lateness histogram's buckets, microseconds; the last bucket has no bound.
LATENESS_US = (50, 100, 200, 500, 1000, 2000, 5000, 10_000, 50_000)


class Control:
    """What can be asked of a running simulator. Every method takes and returns JSON values."""

    def __init__(self, internet: Internet, simulator: Simulator) -> None:
        self._internet, self._simulator = internet, simulator

    def counters(self, target: str | None = None) -> Any:
        """What arrived and what became of it."""
        internet = self._internet
        return {
            "targets": internet.counters(target),
            "stray": dict(internet.stray),
            "multicast": internet.multicast,
            **self._simulator.figures(),
        }

    def figures(self) -> Any:
        """The simulator's own figures; they are also part of the counters."""
        return self._simulator.figures()

    def reset(self, target: str | None = None) -> Any:
        """Count from zero and start all patterns anew; without a target also discard answers that are still to come.

        A late TCP answer could otherwise be taken for one to a later prober's probe, since mtr-packet knows those by
        their source port alone.
        """
        self._internet.reset(time.monotonic(), target)
        if target is None:
            self._simulator.forget()

    def time(self) -> Any:
        """The simulator's clock: monotonic seconds."""
        return time.monotonic()

    def load(self, document: Mapping[str, Any]) -> Any:
        """Add or replace a scenario."""
        self._internet.load(load(document), time.monotonic())

    def unload(self, name: str) -> Any:
        """Take a scenario away."""
        self._internet.unload(name)

    def change(self, target: str, fields: dict[str, Any]) -> Any:
        """Change fields of a target."""
        self._internet.change(target, fields)

    def pause(self, target: str | None = None, paused: bool = True) -> Any:
        """Stop answering for one target or all, or answer again. Probes meanwhile count as silent."""
        if target is None:
            self._internet.paused = paused
        else:
            for route in self._internet.routes(target):
                route.paused = paused


class Simulator:
    """The loop. `device` is the TUN descriptor, `listener` the control socket, `life` ends it at end of file."""

    def __init__(self, internet: Internet, device: int, listener: socket.socket, life: int) -> None:
        self._internet, self._device, self._listener, self._life = internet, device, listener, life
        self._control = Control(internet, self)
        self._clients: dict[socket.socket, bytes] = {}
        self._serial = 0
        self._heap: list[tuple[float, int, bytes]] = []
        self._drops_before = 0
        self.forget()

    def figures(self) -> dict[str, Any]:
        """Packets read and written, those the kernel's queue dropped, those waiting, and the lateness of answers."""
        return {
            "read": self._read,
            "written": self._written,
            "waiting": len(self._heap),
            "dropped": queue_drops() - self._drops_before,
            "lateness": {
                "buckets_us": list(LATENESS_US),
                "counts": list(self._lateness),
                "most_us": round(self._latest * 1e6),
            },
        }

    def forget(self) -> None:
        """Count from zero and discard the answers that are still to come."""
        self._heap.clear()
        self._read = self._written = 0
        self._latest = 0.0
        self._lateness = [0] * (len(LATENESS_US) + 1)
        self._drops_before = queue_drops()

    def run(self) -> None:
        """Serve until `life` ends."""
        heap, device = self._heap, self._device
        clock, write = time.monotonic, os.write
        bounds = tuple(bound / 1e6 for bound in LATENESS_US)
        watched: Sequence[Any] = self._watched()
        while True:
            now = clock()
            while heap and heap[0][0] <= now:
                due, _, answer = heappop(heap)
                write(device, answer)
                self._written += 1
                now = clock()
                late = now - due
                bucket = 0
                for bound in bounds:
                    if late < bound:
                        break
                    bucket += 1
                self._lateness[bucket] += 1
                if late > self._latest:
                    self._latest = late
            if self._take():
                # More may be waiting; look at the other descriptors only now and then.
                ready = select.select(watched[1:], (), (), 0)[0] if self._read & 0xFF < BATCH else ()
            else:
                wait = max(0.0, heap[0][0] - clock()) if heap else None
                ready, _, _ = select.select(watched, (), (), wait)
            for source in ready:
                if source is self._listener:
                    client, _ = self._listener.accept()
                    self._clients[client] = b""
                    watched = self._watched()
                elif source == self._life:
                    if not os.read(self._life, 4096):
                        return
                elif source != device:
                    # What was sent before a call was made has arrived before it is answered.
                    for _ in range(MOST_BEFORE_CALL // BATCH):
                        if not self._take():
                            break
                    self._serve(source)
                    watched = self._watched()

    def _take(self) -> bool:
        """Read at most `BATCH` packets and put their answers on the heap; whether there may be more."""
        device, heap, receive, clock, read = self._device, self._heap, self._internet.receive, time.monotonic, os.read
        try:
            for _ in range(BATCH):
                packet = read(device, 65536)
                self._read += 1
                for due, answer in receive(packet, clock()):
                    self._serial += 1
                    heappush(heap, (due, self._serial, answer))
        except BlockingIOError:
            return False
        return True

    def _watched(self) -> Sequence[Any]:
        return [self._device, self._life, self._listener, *self._clients]

    def _serve(self, client: socket.socket) -> None:
        data = b""
        with suppress(ConnectionError):
            data = client.recv(1 << 20)
        if not data:
            del self._clients[client]
            client.close()
            return
        *lines, self._clients[client] = (self._clients[client] + data).split(b"\n")
        for line in lines:
            with suppress(ConnectionError):
                client.sendall(json.dumps(self._answer(line)).encode() + b"\n")

    def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            request = json.loads(line)
            return {"ok": getattr(self._control, request.pop("do"))(**request)}
        except (ScenarioError, ValueError, KeyError, TypeError, AttributeError) as problem:
            return {"error": f"{type(problem).__name__}: {problem}"}


def serve(scenarios: Sequence[Scenario], control: str) -> None:
    """Be the simulator in the present network namespace until standard input ends.

    Prints one line, `ready`, once packets and control calls are served.
    """
    ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)
    internet = Internet()
    for scenario in scenarios:
        internet.load(scenario, time.monotonic())
    device = open_device()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(control)
    listener.listen()
    try:
        # A network does not slow down because the probing machine is busy.
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    except PermissionError:
        with suppress(PermissionError):
            os.nice(-10)
    gc.collect()
    gc.disable()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    try:
        Simulator(internet, device, listener, sys.stdin.fileno()).run()
    finally:
        Path(control).unlink(missing_ok=True)
