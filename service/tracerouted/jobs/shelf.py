"""Where finished traces are kept: bounded by count, by bytes and by age; the oldest leave first.

However large, the last one stays until the next comes: whoever waited for its end can read it.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field, frozen
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from ..model import Status

#: What a kept trace weighs beside its packed facts: a few small objects and two table entries.
KEPT_OVERHEAD_BYTES = 500


@frozen(eq=False, weakref_slot=False)
class Kept:
    """A finished trace as it is kept: what listing needs at hand, and everything else packed (see `packing`).

    `names` are the target as it was asked for, its normal form and its address, separated by spaces.
    """

    id: str
    sequence: int
    owner: str | None
    names: str
    status: Status
    revision: int
    expires_at: float
    packed: bytes

    @property
    def size(self) -> int:
        """Bytes of memory it takes, about."""
        return len(self.packed) + KEPT_OVERHEAD_BYTES


@define(eq=False)
class Shelf:
    """Keeps finished traces for `age` seconds; `forgotten` is told the id of each that leaves by itself."""

    _clock: IReactorTime
    _age: float
    _most: int
    _most_bytes: int
    _forgotten: Callable[[str], object]
    #: each with the time it leaves (monotonic: a step of the wall clock ends no retention)
    _kept: dict[str, tuple[Kept, float]] = field(init=False, factory=dict)
    _bytes: int = field(init=False, default=0)
    _expiry: IDelayedCall | None = field(init=False, default=None)

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def size(self) -> int:
        """Bytes of memory all of them take, about."""
        return self._bytes

    def put(self, kept: Kept) -> None:
        """Keep one more, and let go of as many as have to leave."""
        self._kept[kept.id] = (kept, self._clock.seconds() + self._age)
        self._bytes += kept.size
        self._make_room()

    def take(self, trace_id: str) -> None:
        """Keep one no longer, if it was kept."""
        kept = self._kept.pop(trace_id, None)
        if kept is not None:
            self._bytes -= kept[0].size

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
            fits = len(self._kept) == 1 or (len(self._kept) <= self._most and self._bytes <= self._most_bytes)
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
