"""One run of `tracerouted trace`: start a trace, show it, and say by the exit status how it ended."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from enum import IntEnum
from typing import Any, Protocol, TextIO

from attrs import define, evolve, field
from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.task import deferLater

from ..client import Client, ClientError, NotFound, Refused
from ..http.formats import FORMATS
from ..http.problems import ProblemError
from ..jobs.engine import EngineError, UnknownTrace
from ..library import Tracer
from ..model import Trace, TraceEvent, TraceRequest
from ..naming.policy import parse_networks
from ..settings import Settings
from .board import Board
from .screen import Lines, LiveTable, View, Whole, terminal_size
from .words import plain

#: How long a trace may take to be cancelled before the program leaves all the same.
GOODBYE_S = 3.0


class Exit(IntEnum):
    """What the exit status says."""

    REACHED = 0
    NOT_REACHED = 1
    USAGE = 2
    REFUSED = 3
    UNREACHABLE = 4  # the service, not the target
    INTERRUPTED = 130
    PIPE_CLOSED = 141


class Source(Protocol):
    """Where traces are made: here, or at a service."""

    async def create(self, target: str, **fields: Any) -> Trace:
        """Start a trace."""

    def events(self, trace_id: str) -> AsyncGenerator[TraceEvent, None]:
        """Its events, up to and including its end."""

    async def cancel(self, trace_id: str) -> None:
        """End and forget it."""


@define
class Here:
    """Traces made by this process."""

    _tracer: Tracer

    @classmethod
    def of(cls, settings: Settings, reactor: Any) -> Here:
        """A tracer for somebody at a shell: every address that can be a target may be traced but those denied."""
        allowed = settings.allow_targets or parse_networks("0.0.0.0/0 ::/0")
        return cls(Tracer(reactor, evolve(settings, allow_targets=allowed)))

    async def create(self, target: str, **fields: Any) -> Trace:
        # Interrupted, this stops waiting; the tracer is not cancelled in its start but stopped.
        ready: Deferred[Any] = Deferred()
        starting = Deferred.fromCoroutine(self._tracer.start())
        starting.addBoth(lambda result: None if ready.called else ready.callback(result))
        await ready
        return self._tracer.submit(TraceRequest(target=target, **fields))

    async def events(self, trace_id: str) -> AsyncGenerator[TraceEvent, None]:
        async for event in self._tracer.follow(trace_id):
            yield event

    async def cancel(self, trace_id: str) -> None:
        self._tracer.engine.cancel(trace_id)

    async def stop(self) -> None:
        """Leave no process behind."""
        await self._tracer.stop()


@define
class Run:
    """One trace of `request`, of whose fields `given` were asked for, from beginning to exit status.

    `output` is the name of a format, or None for the table.
    """

    request: TraceRequest
    given: dict[str, Any]
    output: str | None = None
    _out: TextIO = field(factory=lambda: sys.stdout)
    _err: TextIO = field(factory=lambda: sys.stderr)

    async def here(self, settings: Settings, reactor: Any) -> int:
        """Trace from this host."""
        source = Here.of(settings, reactor)
        try:
            return await self._run(source, reactor)
        finally:
            await source.stop()

    async def at(self, client: Client, reactor: Any) -> int:
        """Have a service trace."""
        return await self._run(client, reactor)

    async def _run(self, source: Source, reactor: Any) -> int:
        try:
            return await self._follow(source, reactor)
        except CancelledError:
            return Exit.INTERRUPTED
        except BrokenPipeError:
            # Python flushes standard output once more when it exits.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._out.fileno())
            return Exit.PIPE_CLOSED
        except (Refused, EngineError) as wrong:
            self._complain(str(wrong))
            for problem in getattr(wrong, "errors", ()):
                if problem.detail != str(wrong):
                    self._complain(f"{problem.pointer.removeprefix('/')}: {problem.detail}")
            return Exit.REFUSED
        except ClientError as wrong:
            self._complain(str(wrong))
            return Exit.UNREACHABLE
        except ProblemError as wrong:  # the format has no place for this trace
            self._complain(wrong.detail)
            return Exit.USAGE

    async def _follow(self, source: Source, reactor: Any) -> int:
        board, view = Board(self.request), self._view(reactor)
        view.changed(board)
        trace_id = None
        try:
            trace_id = await self._create(source, reactor)
            async with aclosing(source.events(trace_id)) as events:
                async for event in events:
                    board.take(event)
                    if board.trace is None:
                        view.changed(board)
        except (CancelledError, BrokenPipeError) as wrong:
            if isinstance(wrong, CancelledError):
                view.left(board, "Interrupted.")
            if trace_id is not None:
                await _cancelled(source, trace_id, reactor)
            raise
        except ClientError as wrong:
            if trace_id is None:
                raise
            view.left(board, "The service, or the trace there, was lost.")
            self._complain(str(wrong))
            return Exit.UNREACHABLE
        trace = board.trace
        if trace is None:  # forgotten by the service meanwhile
            raise ClientError("the trace's end is missing")
        view.ended(board, trace)
        return Exit.REACHED if trace.reached else Exit.NOT_REACHED

    async def _create(self, source: Source, reactor: Any) -> str:
        try:
            return (await source.create(self.request.target, **self.given)).id
        except EngineError:
            # Ctrl-C at a terminal ends mtr-packet too. By the next turn it has arrived here, and is the reason.
            await deferLater(reactor, 0)
            raise

    def _view(self, reactor: Any) -> View:
        if self.output is not None:
            return Whole(self._out, FORMATS[self.output].render)
        if self._out.isatty() and os.environ.get("TERM") != "dumb":
            return LiveTable(self._out, reactor, lambda: terminal_size(self._out))
        return Lines(self._out)

    def _complain(self, text: str) -> None:
        self._err.write(f"tracerouted: {plain(text)}\n")


async def _cancelled(source: Source, trace_id: str, reactor: Any) -> None:
    """Cancel a trace, without waiting for ever, and whether or not it still is."""
    with suppress(ClientError, NotFound, UnknownTrace, TimeoutError):
        await Deferred.fromCoroutine(source.cancel(trace_id)).addTimeout(GOODBYE_S, reactor)
