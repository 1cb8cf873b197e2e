"""What a raw reply means, once the probe it answers is known. Pure: times are arguments.

Honesty of RTTs. mtr-packet stamps departure and arrival with the wall clock and prints the difference; we stamp the
write of the command before and the read of the reply after, with a monotonic clock. So a true RTT is never negative
and never longer than our own elapsed time; one that is was made by a step of the wall clock. Much shorter than ours
proves nothing by itself: our own read may have been late. A step is therefore also looked for directly (the wall
clock's offset from the monotonic one, see `StepWatch`), and every RTT that spans one is withheld. What remains
unnoticed is a step of less than `TOLERANCE_S`.
"""

from __future__ import annotations

from collections.abc import Callable
from errno import (
    EACCES,
    ECONNREFUSED,
    ECONNRESET,
    EHOSTDOWN,
    EHOSTUNREACH,
    EMFILE,
    ENETUNREACH,
    ENFILE,
    ENOPROTOOPT,
    ETIMEDOUT,
)

from ..model import Reply, ReplyKind, RetryReason
from .codec import Prepared, RawReply, Word

#: Seconds by which two readings of the clocks may differ before it is called a step: clock slewing moves both
#: clocks alike, so this only has to cover the time between two readings.
TOLERANCE_S = 0.001
CLOCK_ANOMALY = str(RetryReason.CLOCK)

_KINDS = {
    Word.REPLY: ReplyKind.REPLY,
    Word.TTL_EXPIRED: ReplyKind.TTL_EXPIRED,
    Word.NO_ROUTE: ReplyKind.UNREACHABLE,
}
_RETRIES = {
    Word.EXHAUSTED: RetryReason.EXHAUSTED,
    Word.ADDRESS_IN_USE: RetryReason.ADDRESS_IN_USE,
}
#: What an ICMP error leaves on a TCP socket (tcp(7), the kernel's icmp_err_convert and icmpv6_err_convert).
_ICMP_ERRNOS = frozenset((EACCES, EHOSTDOWN, EHOSTUNREACH, ENETUNREACH, ENOPROTOOPT))
_TIMEOUT = Reply(ReplyKind.TIMEOUT)
_STOLEN = Reply(ReplyKind.RETRY, error=RetryReason.STOLEN)
_UNKNOWN = Reply(ReplyKind.RETRY, error=RetryReason.CLOCK)
_new = tuple.__new__


def judge(raw: RawReply, prepared: Prepared, elapsed_s: float, stepped: bool) -> Reply:
    """The verdict on one probe.

    `elapsed_s` is from before its command was written until after its reply was read; `stepped` says that the wall
    clock was seen to step within that time.
    """
    word, family, address, rtt_us, mpls = raw[1:6]
    if address is not None:
        # An address of the other family: this process was handed the answer to another process's probe.
        if family is not prepared.family:
            return _STOLEN
        if stepped or rtt_us is None or not 0 <= rtt_us <= (elapsed_s + TOLERANCE_S) * 1e6:
            return Reply(_KINDS[word], address, None, mpls, CLOCK_ANOMALY)
        return _new(Reply, (_KINDS[word], address, rtt_us, mpls, None))
    return _bare(raw, prepared, elapsed_s)


def _bare(raw: RawReply, prepared: Prepared, elapsed_s: float) -> Reply:
    word = raw.word
    if word is Word.IMPOSSIBLE and raw.family is not prepared.family:
        return _STOLEN
    if word is Word.NO_REPLY:
        if elapsed_s < prepared.timeout_s - TOLERANCE_S:
            # The wall clock leapt ahead and ended the wait early: nothing is known about this probe.
            return _UNKNOWN
        return _TIMEOUT
    if word in _RETRIES:
        return Reply(ReplyKind.RETRY, error=_RETRIES[word])
    if prepared.stream:
        if word is Word.NO_ROUTE or raw.errno in _ICMP_ERRNOS:
            # mtr-packet read the socket's error before the ICMP message that caused it and names its sender.
            return Reply(ReplyKind.RETRY, error=RetryReason.BARE_NO_ROUTE)
        if word is Word.TIMED_OUT or raw.errno == ETIMEDOUT:
            return _TIMEOUT
        if raw.errno in (ECONNRESET, ECONNREFUSED):
            # The target's reset. mtr-packet gives no RTT, so ours stands in: it includes both pipes.
            return Reply(ReplyKind.REPLY, prepared.address, round(elapsed_s * 1e6))
    if raw.errno in (EMFILE, ENFILE):
        return Reply(ReplyKind.RETRY, error=RetryReason.NO_DESCRIPTORS)
    return Reply(ReplyKind.ERROR, error=raw.text)


class StepWatch:
    """Notices steps of the wall clock against the monotonic one. `last` is when one was last noticed (monotonic)."""

    def __init__(self, monotonic: Callable[[], float], wall: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._wall = wall
        self._offset = self._measure()
        self.last = float("-inf")

    def look(self, now: float) -> None:
        """Call with a fresh reading of the monotonic clock before judging what was received at it."""
        if abs(self._wall() - now - self._offset) > TOLERANCE_S:
            offset = self._measure()  # the reading may just have been interrupted: look closer
            if abs(offset - self._offset) > TOLERANCE_S:
                self._offset = offset
                self.last = now

    def _measure(self) -> float:
        """The offset, from the reading that was interrupted least."""
        best, offset = float("inf"), 0.0
        for _ in range(5):
            before = self._monotonic()
            wall = self._wall()
            after = self._monotonic()
            if after - before < best:
                best, offset = after - before, wall - before
        return offset
