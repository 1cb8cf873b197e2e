"""When the next process is spawned, and when the present one is tested again. Pure: times are arguments."""

from __future__ import annotations

from collections import deque

from attrs import frozen


@frozen(kw_only=True)
class Pace:
    """When to test and when to spawn again; seconds."""

    backoff_s: tuple[float, ...] = (0.0, 0.1, 0.5, 1.0, 2.0, 5.0)
    breaker_deaths: int = 5
    breaker_window_s: float = 30.0
    breaker_s: float = 0.8
    failed_test_s: float = 15.0
    retest_s: float = 60.0
    kill_s: float = 1.0  # patience with SIGTERM when stopping


class Mortality:
    """Counts deaths. `breaker_open`: there were too many lately, and no good self-test since."""

    def __init__(self, pace: Pace) -> None:
        self.breaker_open = False
        self._pace = pace
        self._unproven = 0  # deaths since the last good self-test
        self._recent: deque[float] = deque()

    def proved(self) -> None:
        """A process has passed its self-test."""
        self._unproven = 0
        if self.breaker_open:
            self.breaker_open = False
            self._recent.clear()

    def died(self, now: float, reason: str) -> tuple[float, str]:
        """A process died; how long to wait before the next, and the reason to give for not being ready."""
        pace, recent = self._pace, self._recent
        delay = pace.backoff_s[min(self._unproven, len(pace.backoff_s) - 1)]
        self._unproven += 1
        recent.append(now)
        while recent[0] < now - pace.breaker_window_s:
            recent.popleft()
        if len(recent) >= pace.breaker_deaths:
            self.breaker_open = True
        if self.breaker_open:
            delay = max(delay, pace.breaker_s)
            reason = f"mtr-packet died {len(recent)} times in {pace.breaker_window_s:g} s; lastly {reason}"
        return delay, reason
