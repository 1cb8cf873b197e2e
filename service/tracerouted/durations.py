"""Durations counted by bucket: what a Prometheus histogram is made of, without a lock or a look-up per duration."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator

from attrs import define, field


@define(eq=False)
class Durations:
    """How many durations were at most each of `bounds` (seconds, ascending), and their sum."""

    bounds: tuple[float, ...]
    total_s: float = field(default=0.0, init=False)
    _counts: list[int] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._counts = [0] * (len(self.bounds) + 1)

    def add(self, seconds: float) -> None:
        """Count one."""
        self._counts[bisect_left(self.bounds, seconds)] += 1
        self.total_s += seconds

    def __add__(self, other: Durations) -> Durations:
        """Both together; their bounds are the same."""
        both = Durations(self.bounds)
        both._counts = [one + another for one, another in zip(self._counts, other._counts, strict=True)]
        both.total_s = self.total_s + other.total_s
        return both

    def cumulative(self) -> Iterator[tuple[float, int]]:
        """Each bound, and infinity, with how many durations were not above it."""
        so_far = 0
        for bound, count in zip((*self.bounds, float("inf")), self._counts, strict=True):
            so_far += count
            yield bound, so_far
