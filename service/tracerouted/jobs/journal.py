"""The append-only journal of one trace: its one source of truth.

Reading folds it, following replays it, so the two cannot disagree. Nothing is folded, built or encoded until somebody
asks: a trace nobody watches costs one list append per fact. While it is followed, each event is built and encoded
once, however many followers there are; a follower is only a place in that list, so a slow reader holds no memory of
its own.

A journal is terminal once its status is, and sealed once nothing can follow (reverse names may still arrive in
between). What is kept of it then is `shelf`'s business.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence

from attrs import define, field

from ..model import (
    EndEvent,
    Fact,
    FlowCut,
    ProbeSent,
    Status,
    StatusChanged,
    Trace,
    TraceEvent,
    TraceRequest,
)
from .fold import Fold

Encoder = Callable[[TraceEvent], bytes]
CallLater = Callable[[float, Callable[[], None]], object]

#: Followers are told of news no oftener than this per follower: telling a thousand takes tens of milliseconds, and
#: what happens meanwhile had better go out together.
TELL_S = 0.0001

#: Facts that change no revision: they show with the next one that does.
QUIET = (ProbeSent, FlowCut)


@define(eq=False)
class Journal:
    """One trace's facts, and who follows them. `expires_at` (Unix seconds) is known from the sealing on."""

    id: str
    request: TraceRequest
    _encode: Encoder
    _call_later: CallLater
    expires_at: float | None = None
    sealed: bool = False
    _facts: list[Fact] = field(init=False, factory=list)
    _fold: Fold | None = field(init=False, default=None)
    _folded: int = field(init=False, default=0)
    _status: Status = field(init=False, default=Status.QUEUED)
    _revision: int = field(init=False, default=0)
    _log: _EventLog | None = field(init=False, default=None)
    _followers: set[JournalFollower] = field(init=False, factory=set)
    _waking: bool = field(init=False, default=False)

    @property
    def revision(self) -> int:
        """Counts everything that changed what is shown; the end event's revision once sealed."""
        return self._revision

    @property
    def status(self) -> Status:
        return self._status

    @property
    def facts(self) -> Sequence[Fact]:
        """All facts so far."""
        return self._facts

    def append(self, fact: Fact) -> None:
        """One more fact. Nothing may be appended to a sealed journal."""
        self._facts.append(fact)
        kind = type(fact)
        if kind is ProbeSent or kind is FlowCut:
            return
        self._revision += 1
        if isinstance(fact, StatusChanged):
            self._status = fact.status
        if self._followers:
            self._wake()

    def seal(self, expires_at: float) -> None:
        """Nothing follows: the end event becomes available."""
        self.sealed = True
        self.expires_at = expires_at
        self._revision += 1
        if self._followers:
            self._wake()

    def trace(self) -> Trace:
        """The trace as it stands."""
        if self._fold is None:
            self._fold, self._folded = Fold(self.id, self.request), 0
        facts = self._facts
        # Probes sent since the last visible change are left for the next revision: one revision, one document.
        last = len(facts)
        while last and type(facts[last - 1]) in QUIET:
            last -= 1
        for fact in facts[self._folded : last]:
            self._fold.apply(fact)
        self._folded = last
        if self.sealed:
            self._fold.revision = self._revision
        return self._fold.trace(self.expires_at)

    # --- following -------------------------------------------------------------------------------------------

    def follow(self, notify: Callable[[], None], after: int) -> JournalFollower:
        """A place in the events past revision `after`."""
        follower = JournalFollower(self, notify, after)
        self._followers.add(follower)
        if self._revision > after:
            self._wake()
        return follower

    def leave(self, follower: JournalFollower) -> None:
        """Give up a place; the events go with the last follower."""
        self._followers.discard(follower)
        if not self._followers:
            self._log = None

    def log(self) -> _EventLog:
        """The events so far, brought up to date."""
        if self._log is None:
            self._log = _EventLog(Fold(self.id, self.request), self._encode)
        log = self._log
        if not log.ended:
            for fact in self._facts[log.seen :]:
                log.add(fact)
            if self.sealed:
                log.end(self._revision, self.expires_at)
        return log

    def _wake(self) -> None:
        if not self._waking:
            self._waking = True
            # A few are told in this very turn.
            self._call_later(TELL_S * (len(self._followers) // 10 * 10), self._notify)

    def _notify(self) -> None:
        self._waking = False
        for follower in list(self._followers):
            follower.notify()


@define(eq=False)
class _EventLog:
    """The events of a followed journal: built once, encoded once."""

    fold: Fold
    encode: Encoder
    seen: int = 0
    ended: bool = False
    events: list[TraceEvent] = field(factory=list)
    frames: list[bytes] = field(factory=list)
    revisions: list[int] = field(factory=list)
    #: total bytes of the frames up to and including each
    offsets: list[int] = field(factory=list)
    #: the frames last taken together, from where to where: followers mostly take the same
    _joined: tuple[int, int, bytes] = (0, 0, b"")

    def add(self, fact: Fact) -> None:
        self.seen += 1
        self.fold.apply(fact)
        event = self.fold.event(fact)
        if event is not None:
            self._push(event)

    def joined(self, start: int, end: int) -> bytes:
        """The frames from `start` up to (not including) `end`."""
        if end == start + 1:
            return self.frames[start]
        if self._joined[:2] != (start, end):
            self._joined = (start, end, b"".join(self.frames[start:end]))
        return self._joined[2]

    def end(self, revision: int, expires_at: float | None) -> None:
        self.ended = True
        self.fold.revision = revision
        self._push(EndEvent(revision, self.fold.trace(expires_at)))

    def _push(self, event: TraceEvent) -> None:
        frame = self.encode(event)
        self.events.append(event)
        self.frames.append(frame)
        self.revisions.append(event.revision)
        self.offsets.append((self.offsets[-1] if self.offsets else 0) + len(frame))


@define(eq=False)
class JournalFollower:
    """One reader's place: a `Follower`."""

    _journal: Journal
    notify: Callable[[], None]
    _after: int
    _begun: int = field(init=False)
    _closed: bool = field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        self._begun = self._journal.revision

    @property
    def done(self) -> bool:
        return self._journal.sealed and self._after >= self._journal.revision

    @property
    def bytes_behind(self) -> int:
        if self._closed:
            return 0
        log = self._journal.log()
        start = bisect_right(log.revisions, max(self._after, self._begun))
        if start >= len(log.offsets):
            return 0
        return log.offsets[-1] - (log.offsets[start - 1] if start else 0)

    def take(self) -> list[TraceEvent]:
        if self._closed:
            return []
        log = self._journal.log()
        events = log.events[bisect_right(log.revisions, self._after) :]
        if events:
            self._after = events[-1].revision
        return events

    def take_encoded(self, limit: int) -> bytes:
        if self._closed:
            return b""
        log = self._journal.log()
        start = bisect_right(log.revisions, self._after)
        if start >= len(log.frames):
            return b""
        before = log.offsets[start - 1] if start else 0
        end = max(start + 1, bisect_right(log.offsets, before + limit))
        self._after = log.revisions[end - 1]
        return log.joined(start, end)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._journal.leave(self)
