"""The edge of one request: its body limit, its Host field and its path, all checked before any routing.

`EdgeRequest` is also what handlers are given; `header`, `put`, `vary`, `reply` and `drop` are their typed way to it.
"""

# twisted.web has no annotations for most of what is called here.
# mypy: allow-untyped-calls

from __future__ import annotations

import re
from io import BytesIO
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from attrs import define, field
from twisted.internet.interfaces import IPushProducer
from twisted.python.failure import Failure
from twisted.web.http import Request as BaseRequest
from twisted.web.server import Request
from zope.interface import implementer

from . import problems
from .limits import SETTINGS
from .problems import ProblemError
from .tally import UNROUTED

if TYPE_CHECKING:
    from .channel import EdgeChannel

_PLAIN_PATH = re.compile(rb"/(?!/)[A-Za-z0-9._~/-]*")
_ABSOLUTE = re.compile(rb"https?://([^/?#]*)", re.IGNORECASE)
# Names of 63-byte labels (RFC 1123, and _ as container networks use it), IPv4, bracketed IPv6; an optional port.
_HOST = re.compile(
    rb"(?=.{1,260}\Z)(?:\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?)(?::[0-9]{1,5})?"
)


#: What is written at once of a large body; a transport asks for a pause at the same size.
PIECE_BYTES = 65_536


class EdgeRequest(Request):
    """One request."""

    channel: EdgeChannel
    content: BytesIO
    transport: Any
    #: The name of the API key the request came with; None where none is asked for.
    owner: str | None = None
    _received = 0
    _large: bytes | None = None
    #: The pattern it matched, when it had arrived (by the site's clock), and whether its answer was asked to wait.
    route = UNROUTED
    began = 0.0
    waits = False

    # --- what handlers use ---

    def header(self, name: bytes) -> bytes | None:
        """A request field, several of one name joined as RFC 9110 section 5.3 has it; None when it is not there."""
        values = self.requestHeaders.getRawHeaders(name)
        return None if values is None else b", ".join(values)

    def put(self, name: bytes, value: bytes) -> None:
        """Set a field of the answer."""
        self.responseHeaders.setRawHeaders(name, [value])

    def vary(self, name: bytes) -> None:
        """Say that the answer depends on this field of the request too (RFC 9110 section 12.5.5)."""
        known = self.responseHeaders.getRawHeaders(b"Vary")
        self.responseHeaders.setRawHeaders(b"Vary", [name if known is None else known[0] + b", " + name])

    def reply(self, body: bytes, content_type: bytes = b"application/json") -> bytes:
        """Make `body` the whole content of the answer; returns it, for the handler to return."""
        self.responseHeaders.setRawHeaders(b"Content-Type", [content_type])
        self.responseHeaders.setRawHeaders(b"Content-Length", [b"%d" % len(body)])
        return body

    def drop(self) -> None:
        """Close the connection at once, whatever is still unsent."""
        self.transport.abortConnection()

    # `BaseRequest`: without twisted.web's encoders and its default of text/html.

    def write(self, data: bytes) -> None:
        """Send a part of the answer, or all of it; one that is large goes out with `finish`."""
        if len(data) > PIECE_BYTES and self.method != b"HEAD":
            self._large = data
        else:
            BaseRequest.write(self, data)

    def finish(self) -> None:
        """End the answer."""
        if self._large is None or self._disconnected:
            BaseRequest.finish(self)
            return
        pieces = _Pieces(self, memoryview(self._large))
        self._large = None
        self.registerProducer(pieces, True)
        pieces.resumeProducing()

    # --- what the channel calls ---

    def parseCookies(self) -> None:
        """There are none here, and a table of thousands would be a client's way to memory."""

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
        self.began = site.clock.seconds()
        self.prepath = []
        try:
            self._check()
            if self.path == b"*":  # OPTIONS of the server as a whole, RFC 9110 section 9.3.7
                self.setResponseCode(204)
                self.write(b"")
                self.finish()
                return
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
        if self.method != self.method.upper():  # RFC 9110 section 9.1; the router would not mind
            raise ProblemError(problems.MALFORMED, "methods are written in capitals")
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
        if path.startswith("//"):  # the router would take it for the path behind, a proxy in front for another one
            raise ProblemError(problems.NOT_FOUND, "there is nothing at this path; it begins with two slashes")
        if b"%2f" in self.path.lower():  # nor is a slash that separates nothing (RFC 3986 section 2.2) one that does
            raise ProblemError(problems.NOT_FOUND, "there is nothing at this path; it has an encoded slash")
        if any(character < " " or character == "\x7f" for character in path):
            raise ProblemError(problems.MALFORMED, "the path has control characters")

    def refused(self, problem: ProblemError) -> bytes:
        """Make this the answer to a problem; returns the body to write."""
        body = problem.document(problems.instance(self.path))
        for name in (b"ETag", b"Location", b"Retry-After"):
            self.responseHeaders.removeHeader(name)
        if b"Retry-After" in problem.headers and problem.kind is not problems.QUOTA_EXCEEDED:
            self.responseHeaders.removeHeader(b"RateLimit")  # beside it, Retry-After speaks of the quota
        self.setResponseCode(problem.kind.status, problem.kind.reason)
        for name, value in problem.fields(body):
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


@implementer(IPushProducer)
@define(eq=False)
class _Pieces:
    """A large body on its way, a piece at a time as the client takes it: written whole it would be copied into the
    transport, as often as there are clients that do not read."""

    _request: EdgeRequest
    _rest: memoryview
    _paused: bool = field(default=False, init=False)

    def pauseProducing(self) -> None:
        self._paused = True
        channel = self._request.channel
        channel.setTimeout(channel.site.limits.keep_alive_s)

    def resumeProducing(self) -> None:
        self._paused = False
        self._request.channel.setTimeout(None)
        while self._rest and not self._paused:
            piece, self._rest = self._rest[:PIECE_BYTES], self._rest[PIECE_BYTES:]
            BaseRequest.write(self._request, bytes(piece))
        if not self._rest:
            self._request.unregisterProducer()
            BaseRequest.finish(self._request)

    def stopProducing(self) -> None:
        """The connection is lost."""
