"""What every request to the service needs: a body taken in pieces, patience, and words for a failure."""

# twisted has no annotations for some of what is called here.
# mypy: allow-untyped-calls

from __future__ import annotations

from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.error import ConnectError, ConnectionClosed, DNSLookupError
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.web.client import RequestTransmissionFailed, ResponseDone, ResponseFailed
from twisted.web.error import SchemeNotSupported
from twisted.web.http import PotentialDataLoss

from .errors import ServiceUnreachable, TryLater

FIRST_PAUSE_S = 0.5
MOST_PAUSE_S = 8.0
#: How far a body is read ahead of whoever takes it.
READ_AHEAD_BYTES = 262_144

#: What Twisted raises when a connection cannot be made, or breaks.
CONNECTION_FAILURES = (
    ConnectError,
    ConnectionClosed,
    DNSLookupError,
    RequestTransmissionFailed,
    ResponseFailed,
    SchemeNotSupported,
    TimeoutError,
)


@define(eq=False)
class Patience:
    """How long failures are put up with since `begin`, and the pauses between them, each twice the one before."""

    _reactor: Any
    _seconds: float
    _pause_s: float = field(default=FIRST_PAUSE_S, init=False)
    _ends_at: float = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        self._pause_s = FIRST_PAUSE_S
        self._ends_at = self._reactor.seconds() + self._seconds

    async def pause(self, wrong: ServiceUnreachable | TryLater) -> None:
        """Wait before the next attempt; raises `wrong` if that would be too late."""
        pause_s = self._pause_s
        if isinstance(wrong, TryLater) and wrong.retry_after is not None:
            pause_s = max(pause_s, wrong.retry_after)
        if self._reactor.seconds() + pause_s > self._ends_at:
            raise wrong
        self._pause_s = min(2 * self._pause_s, MOST_PAUSE_S)
        await deferLater(self._reactor, pause_s)


class Body(Protocol):
    """A body that is taken in pieces; one that is not taken stays at its sender."""

    transport: Any = None

    def __init__(self) -> None:
        self._held = bytearray()
        self._ended: Failure | None = None
        self._waiting: Deferred[bytes] | None = None

    def dataReceived(self, data: bytes) -> None:
        self._held += data
        if len(self._held) > READ_AHEAD_BYTES:
            self.transport.pauseProducing()
        self._tell()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._ended = reason
        self._tell()

    def more(self) -> Deferred[bytes]:
        """What has come; b"" at the end; fails if the connection broke."""
        waiting: Deferred[bytes] = Deferred()
        self._waiting = waiting
        self._tell()
        return waiting

    def _tell(self) -> None:
        waiting = self._waiting
        if waiting is None or not (self._held or self._ended):
            return
        self._waiting = None
        if self._held:
            held, self._held = bytes(self._held), bytearray()
            if self._ended is None:
                self.transport.resumeProducing()
            waiting.callback(held)
        elif self._ended is not None and not self._ended.check(ResponseDone, PotentialDataLoss):
            waiting.errback(self._ended)
        else:
            waiting.callback(b"")

    def close(self) -> None:
        self._waiting = None
        if self._ended is None:
            self.transport.loseConnection()


def failure_words(wrong: Exception, seconds: float) -> str:
    """Why a connection failed, in one line."""
    if isinstance(wrong, TimeoutError):
        return f"no answer within {seconds:g} s"
    reasons = getattr(wrong, "reasons", None)
    if reasons:
        return failure_words(reasons[0].value, seconds)
    return " ".join(str(wrong).split()).rstrip(".") or type(wrong).__name__
