"""Answers that go on: a trace's events as server-sent events, or as lines of text.

A `Stream` is a push producer between a `Follower` (a cursor into the trace's journal) and one request. Nothing is
queued for a reader: while its transport is full the cursor stays where it is. Whatever the trace wrote in one reactor
turn leaves as one write. A reader that stays behind too far or too long is dropped; it can resume with Last-Event-ID.

Every way of leaving (the end, the client gone, dropped, a fault) goes through `Stream._leave`, which closes the
follower and the timers.
"""

# twisted.web has no annotations for most of what is called here.
# mypy: allow-untyped-calls

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable

from attrs import define, field
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from ..jobs.engine import Engine, Follower
from ..model import EndEvent, Hop, HopEvent, Outcome, StatusEvent, Trace
from . import problems
from .formats import text
from .limits import SETTINGS, HttpLimits
from .problems import later
from .request import EdgeRequest

#: What is written of the events at a time, at most, and at how much unsent the transport asks for a pause: together
#: what a slow reader costs, and all there may be can be slow.
CHUNK_BYTES = 32_768
UNSENT_BYTES = 16_384
#: A small send buffer in the kernel, so that a reader who stopped is noticed after kilobytes, not megabytes.
SEND_BUFFER_BYTES = 65_536
RETRY_AFTER_S = 5

#: Why a stream is dropped: too far behind, nothing read for too long, a fault of ours.
DROPS = ("behind", "stalled", "broken")

_PREAMBLE = b"retry: 2000\n\n"
_HEARTBEAT = b":\n\n"


@define
class Streams:
    """All streams under way, and the way to a new one.

    `opened` counts all there were, `dropped` those ended from this side before their end, by the reason in `DROPS`.
    """

    _engine: Engine
    _clock: IReactorTime
    _limits: HttpLimits
    open: int = field(default=0, init=False)
    opened: int = field(default=0, init=False)
    dropped: Counter[str] = field(factory=Counter, init=False)

    def admit(self) -> None:
        """Raise `busy` when there is no room for one more stream."""
        if self.open >= self._limits.streams:
            raise later(
                problems.BUSY,
                f"{self._limits.streams} event streams are open, which is the most ({SETTINGS['streams']}); "
                "read the trace itself meanwhile",
                RETRY_AFTER_S,
            )

    def events(self, request: EdgeRequest, trace_id: str, after: int) -> Deferred[None]:
        """Answer with the trace's events past revision `after`; fires after the last. Raises `UnknownTrace`.

        When `after` is the last one the answer is 204.
        """
        stream = self._stream(request)
        follower = self._engine.follow(trace_id, stream.pump, after)
        if follower.done:
            follower.close()
            request.setResponseCode(204)
            return succeed(None)
        event_headers(request)
        return stream.start(follower, follower.take_encoded, _PREAMBLE, _HEARTBEAT)

    def text(self, request: EdgeRequest, trace: Trace) -> Deferred[None]:
        """Answer with the trace as lines of text, each as soon as it and all before it are settled."""
        stream = self._stream(request)
        follower = self._engine.follow(trace.id, stream.pump)
        request.put(b"Content-Type", b"text/plain; charset=utf-8")
        _live_headers(request)
        return stream.start(follower, SettledLines(self._engine, trace, follower).take, b"", b"")

    def _stream(self, request: EdgeRequest) -> Stream:
        return Stream(request, self._clock, self._limits, self)


def event_headers(request: EdgeRequest) -> None:
    """The fields of an answer that is a stream of events."""
    request.put(b"Content-Type", b"text/event-stream; charset=utf-8")
    _live_headers(request)


def _live_headers(request: EdgeRequest) -> None:
    request.put(b"Cache-Control", b"no-store")
    request.put(b"X-Accel-Buffering", b"no")


@implementer(IPushProducer)
@define(eq=False)
class Stream:
    """One reader."""

    _request: EdgeRequest
    _clock: IReactorTime
    _limits: HttpLimits
    _streams: Streams
    _follower: Follower = field(init=False)
    _take: Callable[[int], bytes] = field(init=False)
    _heartbeat: bytes = field(init=False)
    _unsent: memoryview = field(init=False)
    _paused: bool = field(default=False, init=False)
    _left: bool = field(default=False, init=False)
    _beat: IDelayedCall | None = field(default=None, init=False)
    _stall: IDelayedCall | None = field(default=None, init=False)
    _again: IDelayedCall | None = field(default=None, init=False)
    _done: Deferred[None] = field(init=False)
    _log = Logger()

    def start(
        self, follower: Follower, take: Callable[[int], bytes], preamble: bytes, heartbeat: bytes
    ) -> Deferred[None]:
        """Begin; the Deferred fires when all has been written. Cancel it when the client is gone."""
        self._follower, self._take, self._heartbeat = follower, take, heartbeat
        self._unsent = memoryview(preamble)
        self._done = Deferred(lambda _: self._leave())
        self._streams.open += 1
        self._streams.opened += 1
        _shrink_buffers(self._request)
        self._request.registerProducer(self, True)
        if heartbeat:
            self._beat = self._clock.callLater(self._limits.heartbeat_s, self._on_beat)
        self._request.write(b"")  # the headers, even when there is nothing to tell yet
        self.pump()
        return self._done

    def pump(self) -> None:
        """Write what there is, if the reader takes it; else see whether it has fallen too far behind."""
        if self._left:
            return
        try:
            if self._paused:
                self._check_behind()
                return
            chunk = self._chunk()
        except Exception:
            self._log.failure("a stream broke")
            self._drop("broken")
            return
        if chunk:
            self._request.write(chunk)
        if self._left:
            return
        if self._unsent or len(chunk) >= CHUNK_BYTES:
            if not self._paused and self._again is None:
                self._again = self._clock.callLater(0, self._pump_again)
        elif self._follower.done:
            self._leave()
            self._request.unregisterProducer()
            self._done.callback(None)

    def _pump_again(self) -> None:
        self._again = None
        self.pump()

    def _chunk(self) -> bytes:
        # An event can be larger than a chunk: then it goes out in pieces, each of which is progress. What is left of
        # it is not copied, since the end of a trace can be the same large event for a thousand readers.
        parts, room = [], CHUNK_BYTES
        while room and (self._unsent or not self._follower.done):
            part = self._unsent or memoryview(self._take(room))
            if not part:
                break
            parts.append(part[:room])
            self._unsent = part[room:]
            room -= len(parts[-1])
        return b"".join(parts)

    def _on_beat(self) -> None:
        self._beat = self._clock.callLater(self._limits.heartbeat_s, self._on_beat)
        if not self._paused and not self._unsent:  # a comment between two events, never inside one
            self._request.write(self._heartbeat)

    # --- back-pressure ---

    def pauseProducing(self) -> None:
        self._paused = True
        if self._stall is None and not self._left:
            self._stall = self._clock.callLater(self._limits.stream_stalled_s, self._on_stall)

    def resumeProducing(self) -> None:
        self._paused = False
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None
        self.pump()

    def stopProducing(self) -> None:
        self._leave()

    def _check_behind(self) -> None:
        behind = self._follower.bytes_behind + len(self._unsent)
        if behind > self._limits.stream_behind_bytes:
            self._log.info(
                "dropped a stream {behind} bytes behind; {setting} allows {most}",
                behind=behind,
                setting=SETTINGS["stream_behind_bytes"],
                most=self._limits.stream_behind_bytes,
            )
            self._drop("behind")

    def _on_stall(self) -> None:
        self._stall = None
        self._log.info(
            "dropped a stream that took nothing for {seconds:g} s ({setting})",
            seconds=self._limits.stream_stalled_s,
            setting=SETTINGS["stream_stalled_s"],
        )
        self._drop("stalled")

    # --- leaving ---

    def _drop(self, reason: str) -> None:
        self._streams.dropped[reason] += 1
        # Closing would wait for the reader to take what is buffered. The lost connection ends the request.
        self._leave()
        self._request.drop()

    def _leave(self) -> None:
        if self._left:
            return
        self._left = True
        self._streams.open -= 1
        self._follower.close()
        for call in (self._beat, self._stall, self._again):
            if call is not None and call.active():
                call.cancel()


@define
class SettledLines:
    """A trace as text, line by line: a hop's line is due once it and every hop before it are settled."""

    _engine: Engine
    _trace: Trace
    _follower: Follower
    _next_ttl: int = field(init=False)
    _wanted: int = field(init=False)
    _answers: Counter[int] = field(factory=Counter, init=False)
    _headed: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        request = self._trace.request
        self._next_ttl = request.first_ttl
        self._wanted = request.probes * request.flows

    def take(self, limit: int) -> bytes:
        """All text that is due now; `limit` does not split a trace's few lines."""
        text_due: list[str] = []
        for event in self._follower.take():
            match event:
                case StatusEvent(target=target) if target is not None and not self._headed:
                    self._headed = True
                    text_due.append(text.header(self._trace.request, target))
                case HopEvent(probe=probe) if probe is not None:
                    self._answers[event.ttl] += 1
                case EndEvent():
                    text_due += self._rest(event.trace)
        # Counting first: building the trace is worth it only when the next hop can be complete.
        if not self._follower.done and self._answers[self._next_ttl] >= self._wanted:
            text_due += self._settled(self._engine.get(self._trace.id))
        return "".join(text_due).encode()

    def _settled(self, trace: Trace) -> list[str]:
        hops = {hop.ttl: hop for hop in trace.hops}
        lines = []
        while (hop := hops.get(self._next_ttl)) is not None and self._is_settled(hop):
            lines.append(text.hop_line(hop))
            self._next_ttl += 1
        return lines

    def _is_settled(self, hop: Hop) -> bool:
        pending = any(probe.outcome is Outcome.PENDING for probe in hop.probes)
        return len(hop.probes) >= self._wanted and not pending

    def _rest(self, trace: Trace) -> list[str]:
        lines = [text.hop_line(hop) for hop in trace.hops if hop.ttl >= self._next_ttl]
        if trace.target is not None and not self._headed:
            lines.insert(0, text.header(trace.request, trace.target))
        return [*lines, text.footer(trace)]


def _shrink_buffers(request: EdgeRequest) -> None:
    request.transport.bufferSize = UNSENT_BYTES
    get_handle = getattr(request.transport, "getHandle", None)
    if get_handle is not None:
        get_handle().setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
