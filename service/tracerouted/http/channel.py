"""The edge: one connection and one request, with everything twisted.web leaves open closed.

`EdgeChannel` is a `twisted.web` HTTPChannel with

* one deadline for a whole request, headers and body, that no trickle of bytes extends (stock: an idle timer);
* a body limit that is kept while the body arrives: nothing past it is stored, nothing goes to disk, no handler runs;
* a cap on the requests of one connection;
* framing it is not sure of refused (RFC 9112 sections 6 and 7), with a problem document instead of a bare 400.

A refusal is written, the sending side is closed, and what the client still sends is read and dropped until it
closes or the deadline passes: closing at once would reset the connection and could destroy the answer (RFC 9112
section 9.6).

`EdgeRequest` looks at the Host field and the path before any routing does.
"""

# twisted.web has no annotations for most of what is called here.
# mypy: allow-untyped-calls

from __future__ import annotations

import re
from io import BytesIO
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from twisted.internet.protocol import connectionDone
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.http import Request as BaseRequest
from twisted.web.http_headers import Headers
from twisted.web.server import Request

from . import problems
from .limits import SETTINGS
from .problems import ProblemError

if TYPE_CHECKING:
    from .site import EdgeSite

#: On every answer. The policy may be replaced by a resource that sets its own.
_SAFETY = b"X-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n"
_POLICY = b"Content-Security-Policy: default-src 'self'\r\n"

_FRAMING = (b"Content-Length", b"Transfer-Encoding")
_PLAIN_PATH = re.compile(rb"/[A-Za-z0-9._~/-]*")
_ABSOLUTE = re.compile(rb"https?://([^/?#]*)", re.IGNORECASE)
# Names of 63-byte labels (RFC 1123, and _ as container networks use it), IPv4, bracketed IPv6; an optional port.
_HOST = re.compile(
    rb"(?=.{1,260}\Z)(?:\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?)(?::[0-9]{1,5})?"
)


class EdgeChannel(HTTPChannel):
    """One connection."""

    site: EdgeSite
    transport: Any
    timeOut: Any
    _networkProducer: Any

    _idle = False
    _refused = False
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

    def isSecure(self) -> bool:
        return self._secure

    # --- time: one deadline from a request's first byte to its last ---

    def dataReceived(self, data: bytes) -> None:
        if self._refused:
            return
        if self._idle:
            self._begin()
        LineReceiver.dataReceived(self, data)
        if self._idle and self._buffer:  # the first bytes of a next request came with the last one
            self._begin()

    def _begin(self) -> None:
        self._idle = False
        self.setTimeout(self.site.limits.request_deadline_s)

    def setTimeout(self, period: float | None) -> float | None:
        # Only noted: the site looks at all connections once a second, which is cheaper than a timer per request.
        previous, self.timeOut = self.timeOut, period
        self._due = None if period is None else self.site.clock.seconds() + period
        return previous

    def check_time(self, now: float) -> None:
        """Act if the time for what is awaited has passed."""
        if self._due is not None and now >= self._due:
            self._due = None
            self.timeoutConnection()

    def requestDone(self, request: Request) -> None:
        self._idle = True
        self._savedTimeOut = self.site.limits.keep_alive_s
        super().requestDone(request)

    def timeoutConnection(self) -> None:
        if self._refused or self.transport.disconnecting:
            self.transport.abortConnection()
        elif self._idle or not (self.requests or self._buffer):
            self.loseConnection()
            self.setTimeout(self.site.limits.request_deadline_s)  # for the client to take what is still unsent
        else:
            seconds = f"{self.site.limits.request_deadline_s:g} s"
            detail = f"the request did not arrive within {seconds} ({SETTINGS['request_deadline_s']})"
            self.refuse(ProblemError(problems.REQUEST_TIMEOUT, detail))

    def close_when_idle(self) -> None:
        """Close now if no request is under way, else with the answer to the one that is."""
        self.persistent = 0
        if self._idle or not (self.requests or self._buffer):
            self.loseConnection()

    # --- framing ---

    def lineLengthExceeded(self, line: bytes) -> None:
        self._respondToBadRequestAndDisconnect()

    def _maybeChooseTransferDecoder(self, header: bytes, data: bytes) -> bool:
        if header not in _FRAMING:
            return True
        # Lengths Python will not convert, and codings RFC 9112 section 6.1 has no place for.
        too_long = header == b"Content-Length" and len(data) > 18
        if too_long or (header == b"Transfer-Encoding" and data.lower() != b"chunked"):
            return bool(self._failChooseTransferDecoder())
        return bool(super()._maybeChooseTransferDecoder(header, data))

    def allContentReceived(self) -> None:
        if not self._refused:
            super().allContentReceived()

    def checkPersistence(self, request: Request, version: bytes) -> bool:
        persistent = bool(super().checkPersistence(request, version))
        self._requests += 1
        if self._requests >= self.site.limits.requests_per_connection or self.site.draining:
            persistent = False
        if not persistent:
            request.responseHeaders.setRawHeaders(b"Connection", [b"close"])
        return persistent

    def _send100Continue(self) -> None:
        if not self._refused:
            super()._send100Continue()

    # --- answers ---

    def writeHeaders(self, version: bytes, code: bytes, reason: bytes, headers: Headers) -> None:
        parts = [version, b" ", code, b" ", reason, b"\r\nDate: ", self.site.date(), b"\r\n", _SAFETY]
        if not headers.hasHeader(b"Content-Security-Policy"):
            parts.append(_POLICY)
        for name, values in headers.getAllRawHeaders():
            for value in values:
                parts += (name, b": ", value, b"\r\n")
        parts.append(b"\r\n")
        self.transport.writeSequence(parts)

    def _respondToBadRequestAndDisconnect(self) -> None:
        self.refuse(
            ProblemError(
                problems.MALFORMED,
                f"this is not HTTP/1.1 that can be read safely, or its headers exceed {self.totalHeadersSize} bytes",
            )
        )

    def refuse(self, problem: ProblemError) -> None:
        """Answer with a problem, whatever of the request is still to come, and close."""
        if self._refused:
            return
        self._refused = True
        self.persistent = 0
        self.clearLineBuffer()
        uri = getattr(self, "_path", None)
        body = problem.document(None if uri is None else instance(uri))
        headers = Headers()
        for name, value in _problem_headers(problem, body):
            headers.setRawHeaders(name, [value])
        headers.setRawHeaders(b"Connection", [b"close"])
        code = problem.kind.status
        self.writeHeaders(b"HTTP/1.1", b"%d" % code, _REASONS[code], headers)
        self.transport.write(body)
        self._networkProducer.unregisterProducer()
        self.transport.loseWriteConnection()
        self.setTimeout(self.site.limits.request_deadline_s)


_REASONS = {400: b"Bad Request", 408: b"Request Timeout", 413: b"Content Too Large"}


def _problem_headers(problem: ProblemError, body: bytes) -> list[tuple[bytes, bytes]]:
    return [
        (b"Content-Type", problems.CONTENT_TYPE),
        (b"Content-Length", b"%d" % len(body)),
        (b"Cache-Control", b"no-store"),
        *problem.headers.items(),
    ]


def instance(uri: bytes) -> str:
    """The path of a request target, without its query, as ASCII."""
    return uri.split(b"?", 1)[0].decode("ascii", "backslashreplace")


class EdgeRequest(Request):
    """One request."""

    channel: EdgeChannel
    content: BytesIO
    transport: Any
    _received = 0

    # --- what handlers use ---

    def header(self, name: bytes) -> bytes | None:
        """A request field, several of one name joined as RFC 9110 section 5.3 has it; None when it is not there."""
        values = self.requestHeaders.getRawHeaders(name)
        return None if values is None else b", ".join(values)

    def put(self, name: bytes, value: bytes) -> None:
        """Set a field of the answer."""
        self.responseHeaders.setRawHeaders(name, [value])

    def reply(self, body: bytes, content_type: bytes = b"application/json") -> bytes:
        """Make `body` the whole content of the answer; returns it, for the handler to return."""
        self.responseHeaders.setRawHeaders(b"Content-Type", [content_type])
        self.responseHeaders.setRawHeaders(b"Content-Length", [b"%d" % len(body)])
        return body

    def drop(self) -> None:
        """Close the connection at once, whatever is still unsent."""
        self.transport.abortConnection()

    # Without twisted.web's encoders and its default of text/html.
    write = BaseRequest.write
    finish = BaseRequest.finish

    # --- what the channel calls ---

    def gotLength(self, length: int | None) -> None:
        self.content = BytesIO()
        if length is not None and length > self.channel.site.limits.body_bytes:
            self._too_large()

    def handleContentChunk(self, data: bytes) -> None:
        self._received += len(data)
        if self._received > self.channel.site.limits.body_bytes:
            self._too_large()
        else:
            self.content.write(data)

    def _too_large(self) -> None:
        most = self.channel.site.limits.body_bytes
        detail = f"a body may have {most} bytes ({SETTINGS['body_bytes']})"
        self.channel.refuse(ProblemError(problems.TOO_LARGE, detail))

    def process(self) -> None:
        self.site = site = self.channel.site
        self.prepath = []
        try:
            self._check()
            # There is one resource, which routes by the whole path.
            segments = self.path[1:].split(b"/")
            self.postpath = [unquote_to_bytes(segment) for segment in segments] if b"%" in self.path else segments
            self.render(site.resource)
        except ProblemError as problem:
            self.write(self.refused(problem))
            self.finish()
        except Exception:
            self.processingFailed(Failure())

    def _check(self) -> None:
        """Raise `ProblemError` for a Host field or a path nobody should have to route.

        RFC 9112 section 3.2: exactly one Host, which HTTP/1.0 may leave out; the absolute form of a target is taken.
        """
        hosts = self.requestHeaders.getRawHeaders(b"Host", [])
        if len(hosts) != 1 and (hosts or self.clientproto != b"HTTP/1.0"):
            raise ProblemError(problems.MALFORMED, f"a request has one Host field; this one has {len(hosts)}")
        if hosts and not _HOST.fullmatch(hosts[0]):
            raise ProblemError(problems.MALFORMED, "the Host field is not a host name or address, and a port")
        if _PLAIN_PATH.fullmatch(self.path):
            return
        absolute = _ABSOLUTE.match(self.path)
        if absolute:
            if not _HOST.fullmatch(absolute[1]):
                raise ProblemError(problems.MALFORMED, "the target's host is not a host name or address")
            self.requestHeaders.setRawHeaders(b"Host", [absolute[1]])
            self.path = self.path[absolute.end() :] or b"/"
        if self.path == b"*" and self.method == b"OPTIONS":
            return
        if not self.path.startswith(b"/"):
            raise ProblemError(problems.MALFORMED, "the request target is not a path such as /traces")
        try:
            path = unquote_to_bytes(self.path).decode("utf-8")
        except UnicodeDecodeError:
            raise ProblemError(problems.MALFORMED, "the path is not UTF-8") from None
        if any(character < " " or character == "\x7f" for character in path):
            raise ProblemError(problems.MALFORMED, "the path has control characters")

    def refused(self, problem: ProblemError) -> bytes:
        """Make this the answer to a problem; returns the body to write."""
        body = problem.document(instance(self.path))
        for name in (b"ETag", b"Location", b"Retry-After", b"Vary"):
            self.responseHeaders.removeHeader(name)
        self.setResponseCode(problem.kind.status)
        for name, value in _problem_headers(problem, body):
            self.responseHeaders.setRawHeaders(name, [value])
        return body

    def processingFailed(self, reason: Failure) -> Any:
        """The last resort: log once; tell the client that, and no more."""
        self._log.failure("a request could not be answered", failure=reason)
        if self.startedWriting:
            self.drop()
        else:
            self.write(self.refused(problems.unexpected()))
            self.finish()
        return reason
