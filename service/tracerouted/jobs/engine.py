"""The seam between running traces and whoever asks for them.

`Engine` is all that the HTTP side, the command line and library users know of jobs. `memory.MemoryEngine`
implements it in one process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol as Interface

from attrs import frozen
from twisted.internet.defer import Deferred

from ..model import Capabilities, Family, Problem, Status, Trace, TraceEvent, TraceRequest


class EngineError(Exception):
    """A request the engine will not take; `str()` says why and what to do."""


class UnknownTrace(EngineError):
    """No trace has this id: it never existed, expired, or was deleted."""


class TargetNotAllowed(EngineError):
    """The target policy forbids this address; the words name the setting that would allow it."""


class Unsupported(EngineError):
    """No prober of this family can do that. `problems` name the fields."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("; ".join(p.detail for p in problems))
        self.problems = problems


class TryLater(EngineError):
    """Cannot take it now; `retry_after` is whole seconds, at least 1."""

    def __init__(self, detail: str, retry_after: int) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class Busy(TryLater):
    """The queue is full, or could not drain before the trace's deadline."""


class NotReady(TryLater):
    """No prober of the family asked for can trace now, or the service is shutting down."""


@frozen
class Readiness:
    """Whether one family can be traced; `reason` says why not (None when ready)."""

    ready: bool
    reason: str | None
    capabilities: Capabilities | None


@frozen
class Page:
    """Some traces, newest first; `cursor` continues after them (None at the end)."""

    traces: tuple[Trace, ...]
    cursor: str | None


class Follower(Interface):
    """One reader's place in one trace's events.

    Nothing is queued per reader: the journal keeps the events, a follower is a cursor into it. Close it when done.
    """

    @property
    def done(self) -> bool:
        """Whether the end event has been taken: nothing follows."""

    @property
    def bytes_behind(self) -> int:
        """Encoded size of the events not yet taken, of those that came after this follower began."""

    def take(self) -> list[TraceEvent]:
        """Every event not yet taken, oldest first; the cursor moves past them."""

    def take_encoded(self, limit: int) -> bytes:
        """Like `take`, as bytes made once for all followers: whole events, at least one if there is any, then
        as many as fit into `limit` bytes."""

    def close(self) -> None:
        """Stop `notify` and give up the place; idempotent."""


class Engine(Interface):
    """Takes requests, runs them as jobs, tells what became of them."""

    def submit(self, request: TraceRequest, owner: str | None = None) -> Trace:
        """Accept a request; the trace comes back queued. A name is resolved afterwards: one that does not resolve,
        or only to forbidden addresses, becomes a trace that ends failed.

        Raises `TargetNotAllowed` (a literal address), `Unsupported`, `Busy`, `NotReady`.
        """

    def get(self, trace_id: str) -> Trace:
        """The trace as it stands. Raises `UnknownTrace`, as do the other calls that take an id."""

    def revision(self, trace_id: str) -> tuple[int, Status, float | None]:
        """Revision and status of a trace, without building it: for conditional GET. Of one that changes no more also
        for how many seconds it is still kept."""

    def owner(self, trace_id: str) -> str | None:
        """Who submitted the trace."""

    def list(
        self,
        *,
        status: Status | None = None,
        target: str | None = None,
        owner: str | None = None,
        limit: int = 20,
        cursor: str | None = None,
    ) -> Page:
        """Traces newest first; `target` matches the name asked for or the address traced; `owner` None means
        all. Raises ValueError for a cursor that is not one of ours. Traces that come or go between two pages do not
        make others appear twice or vanish."""

    def follow(self, trace_id: str, notify: Callable[[], None], after: int = 0) -> Follower:
        """Follow a trace's events from those past revision `after` on (0: from the first).

        `notify` is called, never from inside this call and at most once per reactor turn, whenever there may be
        something to take.
        """

    def finished(self, trace_id: str) -> Deferred[None]:
        """Fires once the trace is terminal (at once if it is), or has been deleted. Cancel it to stop waiting."""

    def cancel(self, trace_id: str) -> None:
        """End the trace if it still runs (its followers get their end event) and forget it."""

    def readiness(self) -> Mapping[Family, Readiness]:
        """Per family served, whether it can trace."""
