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
        if now != self._at:
            if self._at is not None and now > self._at:
                self._tokens = min(self.burst, self._tokens + (now - self._at) * self.rate)
            self._at = now
        return 0.0 if self._tokens >= _ALMOST else (1 - self._tokens) / self.rate

    def take(self) -> None:
        """Take a token that `wait` said is there."""
        self._tokens -= 1

    def full(self, now: float) -> bool:
        """Whether nothing more can be saved up."""
        self.wait(now)
        return self._tokens >= self.burst


@define(eq=False)
class SharedBuckets:
    """A bucket for each name, shared by all who use it.

    One that nobody uses any more is kept until it is full: who comes back before that finds no new burst.
    """

    _rate: float
    _burst: float
    _used: dict[str, tuple[TokenBucket, int]] = field(init=False, factory=dict)
    _unused: dict[str, TokenBucket] = field(init=False, factory=dict)

    def __len__(self) -> int:
        return len(self._used) + len(self._unused)

    def enter(self, name: str, now: float) -> TokenBucket:
        """Use the bucket of this name."""
        self._prune(now)
        bucket, users = self._used.get(name, (None, 0))
        if bucket is None:
            bucket = self._unused.pop(name, None) or TokenBucket(self._rate, self._burst)
        self._used[name] = bucket, users + 1
        return bucket

    def leave(self, name: str, now: float) -> None:
        """Use it no longer."""
        bucket, users = self._used.pop(name)
        if users > 1:
            self._used[name] = bucket, users - 1
        else:
            self._unused[name] = bucket
        self._prune(now)

    def _prune(self, now: float) -> None:
        # The one left first need not be full first, but is within the time any takes.
        while self._unused and (first := next(iter(self._unused.items())))[1].full(now):
            del self._unused[first[0]]
