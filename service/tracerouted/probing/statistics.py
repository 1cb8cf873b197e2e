"""RTT statistics of one hop, kept up to date one sample at a time.

Mean and variance follow Welford (Technometrics 4:3, 1962), which stays exact where a sum of squares cancels.
The median needs the samples themselves, kept sorted: a hop has at most a few thousand.
"""

from __future__ import annotations

from bisect import insort
from math import sqrt

from attrs import Factory, define

from ..model import HopStats


@define
class RttStatistics:
    """Counts and RTTs of one hop; feed it judged probes in the order they were judged."""

    received: int = 0
    lost: int = 0
    _timed: int = 0
    _mean: float = 0.0
    _squares: float = 0.0
    _previous: int | None = None
    _differences: int = 0
    _sorted: list[int] = Factory(list)

    def answer(self, rtt_us: int | None) -> None:
        """One answer; without an RTT (a clock anomaly) it counts as received and times nothing."""
        self.received += 1
        if rtt_us is None:
            return
        self._timed += 1
        delta = rtt_us - self._mean
        self._mean += delta / self._timed
        self._squares += delta * (rtt_us - self._mean)
        if self._previous is not None:
            self._differences += abs(rtt_us - self._previous)
        self._previous = rtt_us
        insort(self._sorted, rtt_us)

    def loss(self) -> None:
        """One probe that stayed without an answer."""
        self.lost += 1

    def snapshot(self) -> HopStats:
        """The figures as they stand; None wherever there is nothing to base them on."""
        n = self._timed
        samples = self._sorted
        middle = n // 2
        judged = self.received + self.lost
        return HopStats(
            sent=judged,
            received=self.received,
            lost=self.lost,
            loss_pct=100.0 * self.lost / judged if judged else None,
            min_us=samples[0] if n else None,
            avg_us=self._mean if n else None,
            median_us=(samples[middle] if n % 2 else (samples[middle - 1] + samples[middle]) / 2) if n else None,
            max_us=samples[-1] if n else None,
            stddev_us=sqrt(self._squares / (n - 1)) if n > 1 else None,
            jitter_us=self._differences / (n - 1) if n > 1 else None,
        )
