"""Token buckets: how fast, with how much at once. Pure: time is an argument."""

from __future__ import annotations

from attrs import define, field

#: Rounding must not keep a token from being there when its time has come.
_ALMOST = 1 - 1e-6


@define(eq=False)
class TokenBucket:
    """`rate` tokens a second, at most `burst` saved up. Times are monotonic seconds."""

    rate: float
    burst: float
    _tokens: float = field(init=False)
    _at: float | None = field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        self._tokens = self.burst

    def wait(self, now: float) -> float:
        """Seconds until a token can be taken: 0 if one can be now."""
        self._fill(now)
        return 0.0 if self._tokens >= _ALMOST else (1 - self._tokens) / self.rate

    def full(self, now: float) -> bool:
        """Whether nothing is missing from the burst."""
        self._fill(now)
        return self._tokens >= self.burst

    def take(self) -> None:
        """Take a token that `wait` said is there."""
        self._tokens -= 1

    def _fill(self, now: float) -> None:
        if self._at is not None and now > self._at:
            self._tokens = min(self.burst, self._tokens + (now - self._at) * self.rate)
        self._at = now
