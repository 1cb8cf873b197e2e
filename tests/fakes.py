"""Fakes shared by tests: processes on a virtual clock, a fake mtr-packet to run for real, a listener that records.

clock = ProcessClock(lambda: FakeMtr(hops=("192.0.2.1",)))
prober = Supervisor(Family.IPV4, clock, path="/fake", find_binary=str, wall_clock=clock.wall,
                    limit_descriptors=clock.limit_descriptors, listener=Recorder())
prober.start(); clock.run(0.1)
"""

from __future__ import annotations

import signal
import stat
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from attrs import define, field
from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.interfaces import IReactorProcess
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from fake_mtr_packet import GARBAGE, FakeMtr, Faults

PIPE_BYTES = 65_536  # what a pipe holds (pipe(7))

__all__ = ["FakeMtr", "FakeProcess", "Faults", "ProcessClock", "Recorder", "install_fake", "supervised"]

#: Beyond what the kernel gives out (pid_max(5)), so that nothing done to a fake can reach a process that is there.
NO_PID = 2**22 + 1


class FakeProcess:
    """An `IProcessTransport` whose child is a `FakeMtr`: what a pipe, a child and SIGCHLD do, on the clock.

    `writes` holds what each write(2) to the child's stdin carried. `stopped` is what SIGSTOP does: nothing is read or
    said any more. `reaped` turns true when `processEnded` is called.
    """

    def __init__(self, clock: ProcessClock, protocol: Any, fake: FakeMtr, pid: int) -> None:
        self.clock, self.protocol, self.fake, self.pid = clock, protocol, fake, pid
        self.writes: list[bytes] = []
        self.signals: list[str] = []
        self.stopped = fake.faults.deaf
        self.unkillable = False
        self.reaped = False
        self._exiting = False
        self._buffer = b""
        self._scheduled = False
        self._rest = b""
        self._late = b""
        self._producer: Any = None
        self.pipes = {0: self}

    # IProcessTransport, its standard input and IConsumer, as far as they are used

    def writeSomeData(self, data: bytes) -> int:
        """What the pipe takes is read by the child in a later turn."""
        taken = data[: max(0, PIPE_BYTES - len(self._buffer))]
        self._buffer += taken
        self._schedule()
        return len(taken)

    def write(self, data: bytes) -> None:
        """Buffered until the pipe takes it, as Twisted's transports do."""
        self._late += data
        self._schedule()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        assert not streaming
        self._producer = producer
        producer.resumeProducing()

    def signalProcess(self, name: str) -> None:
        if self.reaped or self._exiting:
            raise ProcessExitedAlready
        self.signals.append(name)
        if name in ("KILL", "TERM") and not self.unkillable and not (name == "TERM" and self.stopped):
            self.exit(None, getattr(signal, f"SIG{name}"))

    # the child's side

    def say(self, data: bytes) -> None:
        """Output of the child, in pieces if it is told so."""
        if self.reaped or self.stopped:
            return
        size = self.fake.faults.chunk or len(data) or 1
        for start in range(0, len(data), size):
            self.protocol.outReceived(data[start : start + size])

    def exit(self, code: int | None, by_signal: int | None = None) -> None:
        """Die; the parent learns it in a later turn."""
        if not self._exiting:
            self._exiting = True
            self.clock.callLater(0, self._end, code, by_signal)

    def _end(self, code: int | None, by_signal: int | None) -> None:
        if self.fake.faults.stderr:
            self.protocol.errReceived(self.fake.faults.stderr.encode())
        self.reaped = True
        self.pid = None  # type: ignore[assignment]
        well = code == 0
        self.protocol.processEnded(Failure(ProcessDone(0) if well else ProcessTerminated(code, by_signal)))

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self.clock.callLater(0, self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        if self.stopped or self._exiting or not self._buffer:
            return
        data, self._buffer = self._buffer, b""
        self.writes.append(data)
        event = self.fake.read()
        if event == "exit":
            self.exit(self.fake.faults.exit_code)
            return
        if event == "hang":
            self.stopped = True
            return
        if event is not None:
            self.say(self.fake.flood if event == "flood" else GARBAGE)
        *lines, self._rest = (self._rest + data).split(b"\n")
        delayed: dict[float, bytes] = {}
        for line in lines:
            for delay, output in self.fake.answer(line):
                delayed[delay] = delayed.get(delay, b"") + output
        for delay, output in delayed.items():
            self.clock.callLater(delay, self.say, output)
        if self._late:
            self._late = self._late[self.writeSomeData(self._late) :]
            if not self._late:
                self._producer.resumeProducing()


@implementer(IReactorProcess)
class ProcessClock(Clock):
    """A virtual clock that also spawns `FakeProcess`es: `IReactorTime` and `IReactorProcess`.

    `make` gives each spawn its child; raise from it to make the spawn fail. `wall_offset_s` steps the wall clock.
    """

    Process = FakeProcess

    def __init__(self, make: Callable[[], FakeMtr] = FakeMtr) -> None:
        super().__init__()
        self.rightNow = 1000.0
        self.make = make
        self.spawned: list[FakeProcess] = []
        self.spawn_times: list[float] = []
        self.spawn_arguments: list[tuple[str, list[str], dict[str, str], str | None]] = []
        self.limited: list[int] = []
        self.wall_offset_s = 1_700_000_000.0

    def spawnProcess(
        self,
        processProtocol: Any,
        executable: Any,
        args: Any = (),
        env: Any = None,
        path: Any = None,
        *_: Any,
        **__: Any,
    ) -> FakeProcess:
        assert not any(not child.reaped for child in self.spawned if child.protocol._owner is processProtocol._owner)
        self.spawn_times.append(self.seconds())
        self.spawn_arguments.append((executable, args, env, path))
        process = self.Process(self, processProtocol, self.make(), NO_PID + len(self.spawned))
        self.spawned.append(process)
        processProtocol.makeConnection(process)
        if process.fake.faults.exit_at_spawn is not None:
            process.exit(process.fake.faults.exit_at_spawn)
        return process

    @property
    def child(self) -> FakeProcess:
        """The latest."""
        return self.spawned[-1]

    def wall(self) -> float:
        """The wall clock."""
        return self.seconds() + self.wall_offset_s

    def limit_descriptors(self, pid: int) -> None:
        """Records who was limited."""
        self.limited.append(pid)

    def run(self, duration: float, step: float = 0.01) -> None:
        """Let what is due now happen, then let time pass in small steps."""
        self.settle()
        end = self.seconds() + duration
        while self.seconds() + step < end:
            self.advance(step)
        self.advance(max(0.0, end - self.seconds()))
        self.settle()

    def settle(self) -> None:
        """Run everything due at this instant, and what that makes due, without letting time pass."""
        for _ in range(10_000):
            if not any(call.getTime() <= self.seconds() for call in self.getDelayedCalls()):
                return
            self.advance(0)
        raise AssertionError("the present instant never ends")


@define
class Recorder:
    """A `Listener` that keeps everything, in order. `then` is called with the prober on each turn."""

    replies: list[tuple[Any, Any, float, float]] = field(factory=list)
    turns: list[tuple[bool, str | None]] = field(factory=list)  # (ready, why not)
    alive: list[float] = field(factory=list)
    log: list[str] = field(factory=list)
    then: Callable[[Any], None] | None = None

    def on_reply(self, ticket: Any, reply: Any, sent_at: float, now: float) -> None:
        self.log.append("reply")
        self.replies.append((ticket, reply, sent_at, now))

    def on_turn(self, prober: Any) -> None:
        self.log.append("turn")
        self.turns.append((prober.capabilities is not None, prober.unready_reason))
        if self.then is not None:
            self.then(prober)

    def on_alive(self, prober: Any, asked_at: float) -> None:
        self.log.append("alive")
        self.alive.append(asked_at)

    def by_ticket(self) -> dict[Any, Any]:
        """Ticket -> reply; every ticket must have been answered once."""
        answered = [ticket for ticket, *_ in self.replies]
        assert len(answered) == len(set(answered)), "a ticket was answered twice"
        return {ticket: reply for ticket, reply, *_ in self.replies}


def supervised(clock: ProcessClock, family: Any = None, **options: Any) -> tuple[Any, Recorder]:
    """A `Supervisor` on the virtual clock with a `Recorder`; not started."""
    from tracerouted.model import Family
    from tracerouted.mtrpacket import Supervisor

    recorder = Recorder()
    options = {"path": "/fake/mtr-packet", "find_binary": lambda path: path, "listener": recorder} | options
    supervisor = Supervisor(
        family or Family.IPV4,
        clock,  # type: ignore[arg-type]
        wall_clock=clock.wall,
        limit_descriptors=clock.limit_descriptors,
        **options,
    )
    return supervisor, recorder


def install_fake(directory: Path | str, **settings: Any) -> str:
    """Write an executable fake mtr-packet into `directory` and return its path.

    Settings are those of `FakeMtr`, and any of `Faults` by name.
    """
    faults = {name: settings.pop(name) for name in asdict(Faults()) if name in settings}
    path = Path(directory) / "mtr-packet"
    path.write_text(
        f"#!{sys.executable}\n"
        f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from fake_mtr_packet import FakeMtr, Faults, main\n"
        f"main(FakeMtr(faults=Faults(**{faults!r}), **{settings!r}))\n"
    )
    path.chmod(path.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    return str(path)
