"""Where finished traces are kept: bounded by count, by bytes and by age; the oldest leave first."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from .journal import Journal

#: What a kept trace weighs beside its packed facts (job, journal and request objects, table entries).
KEPT_OVERHEAD_BYTES = 1000


@define(eq=False)
class Shelf:
    """Keeps sealed journals for `age` seconds; `forgotten` is told the id of each that leaves by itself."""

    _clock: IReactorTime
    _age: float
    _most: int
    _most_bytes: int
    _forgotten: Callable[[str], object]
    #: each with the time it leaves (monotonic: a step of the wall clock ends no retention)
    _kept: dict[str, tuple[Journal, float]] = field(init=False, factory=dict)
    _bytes: int = field(init=False, default=0)
    _expiry: IDelayedCall | None = field(init=False, default=None)

    def __len__(self) -> int:
        return len(self._kept)

    def put(self, journal: Journal) -> None:
        """Keep one more; it may be among those that have to leave."""
        self._kept[journal.id] = (journal, self._clock.seconds() + self._age)
        self._bytes += journal.size + KEPT_OVERHEAD_BYTES
        self._make_room()

    def take(self, trace_id: str) -> None:
        """Keep one no longer, if it was kept."""
        kept = self._kept.pop(trace_id, None)
        if kept is not None:
            self._bytes -= kept[0].size + KEPT_OVERHEAD_BYTES

    def left(self, trace_id: str) -> float | None:
        """For how many more seconds one is kept; None if it isn't."""
        kept = self._kept.get(trace_id)
        return None if kept is None else max(0.0, kept[1] - self._clock.seconds())

    def close(self) -> None:
        """Let nothing leave by age any more."""
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None

    def _make_room(self) -> None:
        now = self._clock.seconds()
        while self._kept:
            oldest, leaves_at = next(iter(self._kept.values()))
            fits = len(self._kept) <= self._most and self._bytes <= self._most_bytes
            if fits and leaves_at > now:
                break
            self.take(oldest.id)
            self._forgotten(oldest.id)
        if self._kept and self._expiry is None:
            _, leaves_at = next(iter(self._kept.values()))
            self._expiry = self._clock.callLater(max(1.0, leaves_at - now), self._expire)

    def _expire(self) -> None:
        self._expiry = None
        self._make_room()
