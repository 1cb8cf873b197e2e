"""One mtr-packet process: its tokens, the probes in flight, the batching of commands, and its watchdog.

Out. Lines queued during a reactor turn leave together, at most `Limits.lines_per_write` in one write to the pipe and
one write per turn: mtr-packet handles all it has read before it looks at its sockets again, so longer batches would
show up as RTT. They are written at once, not when the reactor next finds the pipe writable: that would cost two turns
per write. What a full pipe does not take goes to the transport, and nothing more is written until that has left (we
are its pull producer).

In. Each chunk is decoded whole; every answer goes to `Listener.on_reply`, then `Listener.on_turn` is called once,
and what it sends leaves in the same turn. There is no Deferred and no delayed call per probe.

Sequence numbers. mtr-packet numbers its probes from the same start in every process, and knows the answers to UDP
and TCP probes by that number and the target alone. An answer to a probe of a process that died would be taken for
the answer to its successor's probe of the same number. So a successor is first made to use up (`spend`) the numbers
of its predecessor, with commands that send nothing.

Watchdog. A token unanswered `grace_s` after its timeout, or a question unanswered for `answer_s`, means that the
process hangs (or its stdin is full): it is killed. Since our own loop may have been the slow one, the judgement
is passed only if it still holds a moment later, when what lay in the pipe has been read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..model import Reply, ReplyKind, RetryReason
from .codec import MAX_TOKEN, Decoder, Feature, Prepared, RawReply, Word, spend_sequence
from .pulse import Pulse
from .surroundings import Limits, Owner, Timers
from .verdict import CLOCK_ANOMALY, StepWatch, judge

_STDERR_KEPT = 2048  # bytes; its last words
_SECOND_LOOK_S = 0.05


class _Question:
    """A command that isn't a trace's probe: who wants the answer, since when, and until when."""

    __slots__ = ("asked_at", "due", "on_answer")

    def __init__(self, on_answer: Callable[[RawReply], None], asked_at: float, due: float) -> None:
        self.on_answer = on_answer
        self.asked_at = asked_at
        self.due = due


class MtrProcess(ProcessProtocol):
    """The protocol of one mtr-packet process, from spawn to reaping; never reused."""

    log = Logger()
    transport: Any

    def __init__(
        self, owner: Owner, timers: Timers, wall_clock: Callable[[], float], limits: Limits, spend: int = 0
    ) -> None:
        self._owner = owner
        self.sequences = spend  # sequence numbers used up, at most: no fewer than commands given
        self._spend_token = 0
        self._timers = timers
        self._limits = limits
        self._decoder = Decoder()
        self._steps = StepWatch(timers.seconds, wall_clock)
        self._token = 0
        self._in_flight: dict[int, tuple[object, Prepared, float]] = {}  # token -> ticket, probe, sent at
        self._questions: dict[int, _Question] = {}
        self._queue: deque[tuple[int, bytes, object, Prepared | None]] = deque()
        self._pipe_busy = True  # until connected
        self._in_turn = False
        self._heard = False  # something was delivered in this turn
        self._flush_call: IDelayedCall | None = None
        self._tick_call: IDelayedCall | None = None
        self._suspected = False
        self._ending: str | None = None  # why we killed it, if we did
        self._stderr = b""
        self._pulse = Pulse()
        self._next_beat_at = timers.seconds() + limits.beat_s

    # --- what the owner asks for ---------------------------------------------------------------------------------

    @property
    def pid(self) -> int | None:
        """The process id; None once it is reaped, though some of what it wrote may still be unread."""
        pid: int | None = self.transport.pid
        return pid

    def send(self, prepared: Prepared, ttl: int, source_port: int | None, ticket: object) -> None:
        """Queue one probe; raises ValueError if `prepared` cannot be sent that way."""
        token = self._token + 1
        if token > MAX_TOKEN or token in self._in_flight or token in self._questions:
            token = self._free_token(token)
        self._queue.append((token, prepared.line(token, ttl, source_port), ticket, prepared))
        self._token = token
        if not self._in_turn and self._flush_call is None:
            self._flush_call = self._timers.callLater(0, self._flush_soon)

    def ask(
        self,
        line: Callable[[int], bytes],
        on_answer: Callable[[RawReply], None],
        within_s: float = 0.0,
        *,
        in_turn: bool = False,
    ) -> None:
        """Put a question of our own, ahead of queued probes or behind them. `on_answer` isn't called if the process
        dies first.

        The process is killed if the answer takes longer than `within_s` plus `Limits.answer_s`.
        """
        self._token = token = self._free_token(self._token + 1)
        now = self._timers.seconds()
        self._questions[token] = _Question(on_answer, now, now + within_s + self._limits.answer_s)
        (self._queue.append if in_turn else self._queue.appendleft)((token, line(token), None, None))
        if not self._in_turn and self._flush_call is None:
            self._flush_call = self._timers.callLater(0, self._flush_soon)

    def confirm(self) -> None:
        """See `Prober.confirm`."""
        self._pulse.request(self._timers.seconds())
        if self._pulse.under_way is None:
            self._beat()

    def end(self, reason: str, signal: str = "KILL") -> None:
        """Signal the process. `process_ended` follows when it has been reaped, with the first reason given."""
        if self._ending is None:
            self._ending = reason
        try:
            self.transport.signalProcess(signal)
        except ProcessExitedAlready:
            pass
        except OSError as error:
            self.log.error("cannot signal mtr-packet: {error}", error=str(error))

    # --- out -----------------------------------------------------------------------------------------------------

    def _free_token(self, token: int) -> int:
        while token > MAX_TOKEN or token in self._in_flight or token in self._questions:
            token = 1 if token > MAX_TOKEN else token + 1
        return token

    def _flush_soon(self) -> None:
        self._flush_call = None
        self._flush()

    def _flush(self) -> None:
        queue = self._queue
        if self._pipe_busy or not queue:
            return
        now = self._timers.seconds()
        lines = []
        for _ in range(min(self._limits.lines_per_write, len(queue))):
            token, line, ticket, prepared = queue.popleft()
            lines.append(line)
            if prepared is not None:
                self._in_flight[token] = (ticket, prepared, now)
        self.sequences += len(lines)
        self._put(b"".join(lines))
        if queue and not self._pipe_busy and self._flush_call is None:
            self._flush_call = self._timers.callLater(0, self._flush_soon)

    def _put(self, data: bytes) -> None:
        taken = self.transport.pipes[0].writeSomeData(data)
        if taken != len(data):
            self._pipe_busy = True
            self.transport.write(data[taken if isinstance(taken, int) else 0 :])  # an exception: the pipe is gone

    def resumeProducing(self) -> None:
        """The pipe has taken all that was written (`IPullProducer`)."""
        self._pipe_busy = False
        self._flush()

    def stopProducing(self) -> None:
        """The pipe is gone; the end of the process follows (`IPullProducer`)."""
        self._pipe_busy = True

    # --- in ------------------------------------------------------------------------------------------------------

    def connectionMade(self) -> None:
        """Spawned: start the watchdog and tell the owner."""
        self._tick_call = self._timers.callLater(self._limits.tick_s, self._tick)
        self.transport.registerProducer(self, False)
        if self.sequences:
            self._token = self._spend_token = 1
            self._put(spend_sequence(1, self._owner.family) * self.sequences)
        self._owner.process_started(self)

    def outReceived(self, data: bytes) -> None:
        """Replies, in any chunking."""
        now = self._timers.seconds()
        steps = self._steps
        steps.look(now)
        stepped_at = steps.last
        counters = self._owner.counters
        listener = self._owner.listener
        pop = self._in_flight.pop
        self._heard = False
        self._in_turn = True
        try:
            for raw in self._decoder.feed(data):
                entry = pop(raw[0], None)
                if entry is None:
                    self._answer(raw)
                    continue
                ticket, prepared, sent_at = entry
                reply = judge(raw, prepared, now - sent_at, sent_at <= stepped_at)
                if reply[4] is not None:
                    self._count(raw, reply)
                if listener is not None:
                    self._heard = True
                    try:
                        listener.on_reply(ticket, reply, sent_at, now)
                    except Exception:
                        self.log.failure("a listener failed on a reply")
            if self._decoder.oversized:
                counters["oversized_lines"] += self._decoder.oversized
                self._decoder.oversized = 0
            if self._heard:
                self._turn()
        finally:
            self._in_turn = False
        self._flush()

    def errReceived(self, data: bytes) -> None:
        """Kept for the reason of its death."""
        self._stderr = (self._stderr + data)[-_STDERR_KEPT:]

    def _turn(self) -> None:
        listener = self._owner.listener
        if listener is not None:
            try:
                listener.on_turn(self._owner)  # type: ignore[arg-type]  # the owner is the prober
            except Exception:
                self.log.failure("a listener failed on a turn")

    def _answer(self, raw: RawReply) -> None:
        """A line that answers no probe in flight."""
        question = self._questions.pop(raw.token, None)
        if question is not None:
            question.on_answer(raw)
        elif raw.token == self._spend_token and raw.word is Word.REFUSED:
            pass
        elif raw.word is Word.UNKNOWN or raw.token == 0:
            self._count_unknown(raw)
        else:
            self._owner.counters["unmatched"] += 1

    def _count(self, raw: RawReply, reply: Reply) -> None:
        if raw.word is Word.UNKNOWN:
            self._count_unknown(raw)
        elif reply.error == RetryReason.STOLEN:
            self._owner.counters["stolen"] += 1
        elif reply.error == CLOCK_ANOMALY:
            self._owner.counters["clock_anomalies"] += 1

    def _count_unknown(self, raw: RawReply) -> None:
        counters = self._owner.counters
        counters["unknown_words"] += 1
        if counters["unknown_words"] & (counters["unknown_words"] - 1) == 0:  # 1, 2, 4, 8...: no flood in the log
            self.log.warn(
                "mtr-packet said what nobody understands ({count} so far): {text}",
                count=counters["unknown_words"],
                text=raw.text,
            )

    # --- proof of life and watchdog ------------------------------------------------------------------------------

    def _beat(self) -> None:
        now = self._timers.seconds()
        self._pulse.under_way = now
        self._next_beat_at = now + self._limits.beat_s
        self.ask(Feature.VERSION.line, self._beat_answered, in_turn=True)  # it vouches for the probes before it

    def _beat_answered(self, raw: RawReply) -> None:
        proven = self._pulse.answered()
        if self._pulse.wanted:
            self._beat()
        listener = self._owner.listener
        if proven is not None and listener is not None:
            self._heard = True
            try:
                listener.on_alive(self._owner, proven)  # type: ignore[arg-type]  # the owner is the prober
            except Exception:
                self.log.failure("a listener failed on proof of life")

    def _tick(self) -> None:
        now = self._timers.seconds()
        verdict = self._hung(now)
        if verdict is None:
            self._suspected = False
            if self._pulse.under_way is None and now >= self._next_beat_at:
                self._beat()
        elif self._suspected:
            self._owner.counters["watchdog_kills"] += self._ending is None
            self.end(verdict)
        delay = _SECOND_LOOK_S if verdict is not None and not self._suspected else self._limits.tick_s
        self._suspected = verdict is not None
        self._tick_call = self._timers.callLater(delay, self._tick)

    def _hung(self, now: float) -> str | None:
        if any(now > question.due for question in self._questions.values()):
            return f"it hangs: no answer to a heartbeat for {self._limits.answer_s:g} s"
        grace = self._limits.grace_s
        for _, prepared, sent_at in self._in_flight.values():
            if now - sent_at <= grace:
                break  # in order of sending: all that follow are younger
            if now - sent_at > prepared.timeout_s + grace:
                return f"it hangs: a probe is unanswered {grace:g} s after its timeout"
        return None

    # --- the end -------------------------------------------------------------------------------------------------

    def processEnded(self, reason: Failure) -> None:
        """Dead, reaped, and its pipes read to their end: every probe in flight goes back exactly once."""
        self._pipe_busy = True
        for call in (self._tick_call, self._flush_call):
            if call is not None and call.active():
                call.cancel()
        now = self._timers.seconds()
        lost = [(ticket, sent_at) for ticket, _, sent_at in self._in_flight.values()]
        lost += [(ticket, now) for _, _, ticket, prepared in self._queue if prepared is not None]
        self._in_flight.clear()
        self._questions.clear()
        self._queue.clear()
        self._owner.counters["died"] += len(lost)
        self._owner.process_ended(self, self._last_words(reason.value))
        listener = self._owner.listener
        if listener is not None:
            reply = Reply(ReplyKind.RETRY, error=RetryReason.DIED)
            for ticket, sent_at in lost:
                try:
                    listener.on_reply(ticket, reply, sent_at, now)
                except Exception:
                    self.log.failure("a listener failed on a reply")
        if lost:
            self._turn()

    def _last_words(self, end: BaseException | None) -> str:
        if self._ending is not None:
            return self._ending
        words = "it ended"
        if isinstance(end, ProcessDone):
            words = "it exited with 0"
        elif isinstance(end, ProcessTerminated):
            words = f"it exited with {end.exitCode}" if end.signal is None else f"it died of signal {end.signal}"
        said = self._stderr.decode("ascii", "replace").strip().splitlines()
        return f"{words}: {said[-1][:200]}" if said else words
