"""How many traces one client may create: a token bucket per client.

A bucket holds a minute's worth of creations and fills evenly. What is kept of it is one number, the time at which it
will be full again; once that has passed it needs no keeping. (This is the generic cell rate algorithm, ITU-T I.371.)
"""

from __future__ import annotations

from math import ceil, floor

from attrs import define, field
from twisted.internet.interfaces import IReactorTime

from .problems import QUOTA_EXCEEDED, ProblemError, later

SETTING = "TRACEROUTED_CREATE_PER_MINUTE"
WINDOW_S = 60
#: Rounding must not keep a creation from being there when its time has come.
_ALMOST = 1e-6


@define(eq=False)
class Quota:
    """`per_minute` creations a minute for each client, all of them at once if it likes.

    The accounts of `most` clients are kept: somebody may own 2^16 IPv6 /64s.
    """

    per_minute: int
    _clock: IReactorTime
    _most: int = 16_384
    _full_at: dict[str, float] = field(init=False, factory=dict)

    @property
    def clients(self) -> int:
        """How many clients are kept account of."""
        return len(self._full_at)

    def left(self, client: str) -> tuple[int, int]:
        """How many creations a client has left, and the seconds until one more comes (0: it has all)."""
        missing_s = self._full_at.get(client, 0.0) - self._clock.seconds()
        if missing_s <= 0:
            return self.per_minute, 0
        tokens = self.per_minute - missing_s * self.per_minute / WINDOW_S
        whole = floor(tokens + _ALMOST)
        if whole == self.per_minute:
            return whole, 0
        wait_s = (whole + 1 - tokens) * WINDOW_S / self.per_minute
        return whole, ceil(wait_s - _ALMOST)

    def refusal(self, client: str) -> ProblemError | None:
        """Why a client may not create a trace now; None when it may."""
        left, wait = self.left(client)
        if left:
            return None
        detail = f"{self.per_minute} traces a minute may be created by one client ({SETTING}); try again in {wait} s"
        return later(QUOTA_EXCEEDED, detail, wait)

    def spend(self, client: str) -> None:
        """Take one creation."""
        now = self._clock.seconds()
        if client not in self._full_at and len(self._full_at) >= self._most:
            self._make_room(now)
        self._full_at[client] = max(self._full_at.get(client, now), now) + WINDOW_S / self.per_minute

    def fields(self, client: str) -> tuple[tuple[bytes, bytes], tuple[bytes, bytes]]:
        """The RateLimit-Policy and RateLimit fields (draft-ietf-httpapi-ratelimit-headers)."""
        left, wait = self.left(client)
        return (
            (b"RateLimit-Policy", b'"create";q=%d;w=%d' % (self.per_minute, WINDOW_S)),
            (b"RateLimit", b'"create";r=%d;t=%d' % (left, wait)),
        )

    def _make_room(self, now: float) -> None:
        """Forget full buckets; if that is not enough, the fuller half: who has spent most is remembered longest."""
        kept = sorted(((at, client) for client, at in self._full_at.items() if at > now), reverse=True)
        if len(kept) >= self._most:
            del kept[self._most // 2 :]
        self._full_at = {client: at for at, client in kept}
