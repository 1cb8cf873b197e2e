"""The edge of one connection, with everything twisted.web leaves open closed.

`EdgeChannel` is a `twisted.web` HTTPChannel with

* one deadline for a whole request, headers and body, that no trickle of bytes extends (stock: an idle timer);
* a body limit that is kept while the body arrives: nothing past it is stored, nothing goes to disk, no handler runs;
* a cap on the requests of one connection, and none begun, nor any more read, while earlier answers are not taken
  (stock: all that was pipelined is answered into memory);
* framing it is not sure of refused (RFC 9112 sections 6 and 7), with a problem document instead of a bare 400;
* answers delivered to a client that has closed its sending side (stock: dropped).

After the last answer the sending side is closed, and what the client still sends is read and dropped until it
closes or a deadline passes: closing at once would reset the connection and could destroy the answer (RFC 9112
section 9.6).
"""

# twisted.web has no annotations for most of what is called here.
# mypy: allow-untyped-calls

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import connectionDone
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure
from twisted.web.http import RESPONSES, HTTPChannel
from twisted.web.http_headers import Headers
from twisted.web.server import Request
from zope.interface import implementer

from . import problems
from .limits import SETTINGS
from .problems import ProblemError

if TYPE_CHECKING:
    from .request import EdgeRequest
    from .site import EdgeSite

#: On every answer. The policy may be replaced by a resource that sets its own.
_SAFETY = b"X-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n"
_POLICY = b"Content-Security-Policy: default-src 'self'\r\n"

#: Where the contract of the service is (RFC 8288, RFC 8631).
CONTRACT_LINK = b'</openapi.json>; rel="service-desc"'
_LINK = b"Link: " + CONTRACT_LINK + b"\r\n"

_FRAMING = (b"Content-Length", b"Transfer-Encoding")

# A field of a trailer section; whoever takes a bare line feed for a line's end would end the section elsewhere.
_TRAILERS_BYTES = 4096
_TRAILER = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\0\r\n]*")


@implementer(IHalfCloseableProtocol)
class EdgeChannel(HTTPChannel):
    """One connection."""

    maxHeaders = 100  # each takes ten times its bytes for as long as a request may wait

    site: EdgeSite
    requests: list[EdgeRequest]
    transport: Any
    timeOut: Any
    _networkProducer: Any
    _transferDecoder: Any
    _dataBuffer: list[bytes]
    _optimisticEagerReadSize: int

    _idle = False
    _ended = False  # the last answer is written; whatever comes is dropped
    _secure = False
    _requests = 0
    _due: float | None = None

    def connectionMade(self) -> None:
        self._secure = bool(super().isSecure())
        self.site.opened(self)
        super().connectionMade()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.site.closed(self)
        super().connectionLost(reason)

    def readConnectionLost(self) -> None:
        """The client sends no more, and may or may not be there to read.

        It gets the answers that are made; while it does not take them, nothing is read, and this is not called. One
        still being made is not waited for: a client that left looks the same.
        """
        for request in self.requests:
            request.connectionLost(connectionDone)
        self.requests.clear()
        self._close()

    def writeConnectionLost(self) -> None:
        """All has been sent after which `loseConnection` was called."""
        self.setTimeout(self.site.limits.request_deadline_s)  # for the client to close too

    def loseConnection(self) -> None:
        """Close after what is written, which the client may read although it still sends."""
        self._ended = True
        self.clearLineBuffer()
        self._dataBuffer.clear()
        self._networkProducer.resumeProducing()
        self._networkProducer.unregisterProducer()
        self.transport.loseWriteConnection()

    def _close(self) -> None:
        super().loseConnection()
        self.setTimeout(self.site.limits.request_deadline_s)  # for the client to take what is still unsent

    def isSecure(self) -> bool:
        return self._secure

    # --- time: one deadline from a request's first byte to its last ---

    def dataReceived(self, data: bytes) -> None:
        if self._ended:
            return
        LineReceiver.dataReceived(self, data)
        if self._idle and (self._buffer or self.requests) and not self.paused:  # a next request has begun
            self._idle = False
            if not self._handlingRequest:
                self.setTimeout(self.site.limits.request_deadline_s)

    def setTimeout(self, period: float | None) -> float | None:
        # Only noted: the site looks at all connections once a second, which is cheaper than a timer per request.
        previous, self.timeOut = self.timeOut, period
        self._due = None if period is None else self.site.clock.seconds() + period
        return previous  # type: ignore[no-any-return]

    def check_time(self, now: float) -> None:
        """Act if the time for what is awaited has passed."""
        if self._due is not None and now >= self._due:
            self._due = None
            self.timeoutConnection()

    def requestDone(self, request: Request) -> None:
        self._idle = True
        self._savedTimeOut = self.site.limits.keep_alive_s
        super().requestDone(request)
        if not self.persistent:  # it closes once the client has taken the answer, which is given as long
            self.setTimeout(self.site.limits.keep_alive_s)

    def timeoutConnection(self) -> None:
        if self._ended or self.transport.disconnecting or self._handlingRequest:
            self.transport.abortConnection()
        elif self._idle or not (self.requests or self._buffer):
            self._close()
        else:
            seconds = f"{self.site.limits.request_deadline_s:g} s"
            detail = f"the request did not arrive within {seconds} ({SETTINGS['request_deadline_s']})"
            self.refuse(ProblemError(problems.REQUEST_TIMEOUT, detail))

    def close_when_idle(self) -> None:
        """Close now if no request is under way, else with the answer to the one that is."""
        if self.requests:
            self.persistent = 0
        elif self._idle or not self._buffer:
            self._close()

    # --- a client that asks for more than it reads ---

    def pauseProducing(self) -> None:
        super().pauseProducing()
        self.paused = True
        self._networkProducer.pauseProducing()

    def resumeProducing(self) -> None:
        self.paused = False
        super().resumeProducing()
        if self._ended:
            return
        if self._waitingForTransport:  # again
            self._networkProducer.pauseProducing()
            return
        if sum(map(len, self._dataBuffer)) <= self._optimisticEagerReadSize:
            self._networkProducer.resumeProducing()  # also while a request is under way: to see the client leave
        self.dataReceived(b"")

    # --- framing ---

    def lineLengthExceeded(self, line: bytes) -> None:
        self._respondToBadRequestAndDisconnect()

    def _maybeChooseTransferDecoder(self, header: bytes, data: bytes) -> bool:
        if header not in _FRAMING:
            return True
        if header == b"Content-Length":
            bad = len(data) > 18  # Python would not convert thousands of digits
        else:  # codings RFC 9112 section 6.1 has no place for, and a version that has none
            bad = data.lower() != b"chunked" or self._version != b"HTTP/1.1"
        chosen = bool(self._failChooseTransferDecoder() if bad else super()._maybeChooseTransferDecoder(header, data))
        if chosen and header == b"Transfer-Encoding":
            self._transferDecoder._maxTrailerHeadersSize = _TRAILERS_BYTES
        return chosen

    def _finishRequestBody(self, data: bytes) -> None:
        trailers = getattr(self._transferDecoder, "_trailerHeaders", ())
        if all(map(_TRAILER.fullmatch, trailers)):
            super()._finishRequestBody(data)
        else:
            self._respondToBadRequestAndDisconnect()

    def allContentReceived(self) -> None:
        if not self._ended:
            super().allContentReceived()

    def checkPersistence(self, request: Request, version: bytes) -> bool:
        # All fields and options count (RFC 9112 section 9.6); stock looks at the first field and splits it by spaces.
        options = b",".join(request.requestHeaders.getRawHeaders(b"Connection", [])).lower().split(b",")
        persistent = version == b"HTTP/1.1" and not any(option.strip(b" \t") == b"close" for option in options)
        self._requests += 1
        if self._requests >= self.site.limits.requests_per_connection or self.site.draining:
            persistent = False
        if not persistent:
            request.responseHeaders.setRawHeaders(b"Connection", [b"close"])
        return persistent

    def _send100Continue(self) -> None:
        if not self._ended:
            super()._send100Continue()

    # --- answers ---

    def writeHeaders(self, version: bytes, code: bytes, reason: bytes, headers: Headers) -> None:
        parts = [version, b" ", code, b" ", reason, b"\r\nDate: ", self.site.date(), b"\r\n", _SAFETY]
        if not headers.hasHeader(b"Content-Security-Policy"):  # then it is no page, but of the API
            parts.append(_POLICY)
            if not headers.hasHeader(b"Link"):
                parts.append(_LINK)
        for name, values in headers.getAllRawHeaders():
            for value in values:
                parts += (name, b": ", value, b"\r\n")
        parts.append(b"\r\n")
        self.transport.writeSequence(parts)
        request = self.requests[0] if self.requests else None
        self.site.tally.answered(request, code, self.site.clock.seconds())

    def _respondToBadRequestAndDisconnect(self) -> None:
        self.refuse(
            ProblemError(
                problems.MALFORMED,
                f"this is not HTTP/1.1 that can be read safely, or its headers exceed {self.totalHeadersSize} bytes",
            )
        )

    def refuse(self, problem: ProblemError) -> None:
        """Answer with a problem, whatever of the request is still to come, and close."""
        if self._ended:
            return
        self.persistent = 0
        uri = getattr(self, "_path", None)
        body = problem.document(None if uri is None else problems.instance(uri))
        headers = Headers()
        for name, value in problem.fields(body):
            headers.setRawHeaders(name, [value])
        headers.setRawHeaders(b"Connection", [b"close"])
        code = problem.kind.status
        self.writeHeaders(b"HTTP/1.1", b"%d" % code, RESPONSES[code], headers)
        self.transport.write(body)
        self.loseConnection()
        self.setTimeout(self.site.limits.request_deadline_s)
