"""Proof of life: what answered heartbeats prove about replies that did not come. Pure: times are arguments.

mtr-packet's loop is: drain every socket, read commands once, answer them. An answered heartbeat shows that the loop
ran, but the sockets may have been drained just before the heartbeat was written, with mtr-packet then kept off the
processor. The answer to a second heartbeat, written after the first was answered, comes from a later round of the
loop, which drained the sockets after the first heartbeat had been read. Since both travel in order with the replies
on one pipe, that second answer proves that everything the network had answered when the *first* was written has been
delivered. So every answer vouches for the time of the heartbeat before it.
"""

from __future__ import annotations


class Pulse:
    """Heartbeats, at most one under way, and the requests for proof they are to satisfy."""

    def __init__(self) -> None:
        self.under_way: float | None = None  # when the heartbeat under way was written
        self._answered: float | None = None  # when the last answered one was written
        self._first: float | None = None  # requests not yet satisfied: the first and the last
        self._last = 0.0

    def request(self, now: float) -> None:
        """Somebody wants to know that all that was answered by now has been delivered."""
        self._last = now
        if self._first is None:
            self._first = now

    def answered(self) -> float | None:
        """The heartbeat under way was answered. The time now vouched for, if that satisfies a request."""
        proven, self._answered = self._answered, self.under_way
        self.under_way = None
        if proven is None or self._first is None or proven < self._first:
            return None
        self._first = None if proven >= self._last else self._last
        return proven

    @property
    def wanted(self) -> bool:
        """Whether a request still waits."""
        return self._first is not None
