"""Pages of other origins: which may read answers (CORS, WHATWG Fetch), and which may have anything done at all.

Without a list of origins no answer has a CORS field. Credentials that a browser adds by itself (cookies) are never
allowed; a page sends an API key in Authorization, which preflights allow.
"""

# twisted.web has no annotations for most of what is called here.
# mypy: allow-untyped-calls

from __future__ import annotations

import re

from attrs import field, frozen

from . import problems
from .problems import ProblemError
from .request import EdgeRequest

SETTING = "TRACEROUTED_CORS_ORIGINS"
ANY = b"*"

_METHODS = b"GET, HEAD, POST, DELETE"
_TAKEN = b"Accept, Authorization, Content-Type, Idempotency-Key, If-None-Match, Last-Event-ID, Prefer"
_EXPOSED = (
    b"ETag, Link, Location, Preference-Applied, RateLimit, RateLimit-Policy, Retry-After, WWW-Authenticate, Allow"
)
_PREFLIGHT_KEPT_S = b"600"

_DEFAULT_PORT = re.compile(rb"^(?:(http://[^/]*):80|(https://[^/]*):443)$")


def _as_bytes(origins: tuple[str, ...]) -> frozenset[bytes]:
    return frozenset(origin.encode("ascii") for origin in origins)


@frozen
class Origins:
    """The origins (`https://example.net`, or `*` for all) whose pages may use the service from a browser."""

    listed: frozenset[bytes] = field(default=(), converter=_as_bytes)

    def __bool__(self) -> bool:
        return bool(self.listed)

    def share(self, request: EdgeRequest) -> bool:
        """Give the answer its CORS fields; whether the request's origin is among those listed."""
        if ANY in self.listed:
            allowed = ANY
        else:
            request.vary(b"Origin")
            allowed = request.header(b"Origin") or b""
            if allowed not in self.listed:
                return False
        request.put(b"Access-Control-Allow-Origin", allowed)
        request.put(b"Access-Control-Expose-Headers", _EXPOSED)
        return True

    def check(self, request: EdgeRequest) -> None:
        """Raise `origin-not-allowed` for a request sent by a page that is neither this service's own nor listed."""
        origin = request.header(b"Origin")
        if origin is None or ANY in self.listed or origin in self.listed or _is_own(request, origin):
            return
        raise ProblemError(
            problems.ORIGIN_NOT_ALLOWED,
            f"pages of another origin may not do this unless {SETTING} lists it; "
            "a proxy in front must hand on the Host field as it came",
        )


def is_preflight(request: EdgeRequest) -> bool:
    """Whether a browser asks if it may send a request, which it does without any credentials."""
    headers = request.requestHeaders
    return (
        request.method == b"OPTIONS"
        and headers.hasHeader(b"Origin")
        and headers.hasHeader(b"Access-Control-Request-Method")
    )


def answer_preflight(request: EdgeRequest) -> None:
    """Say what a page of an origin that is allowed may send."""
    request.setResponseCode(204)
    request.put(b"Access-Control-Allow-Methods", _METHODS)
    request.put(b"Access-Control-Allow-Headers", _TAKEN)
    request.put(b"Access-Control-Max-Age", _PREFLIGHT_KEPT_S)
    request.write(b"")
    request.finish()


def _is_own(request: EdgeRequest, origin: bytes) -> bool:
    # A browser's own word, which no page can write (Fetch Metadata), stands where a proxy replaced Host.
    if request.header(b"Sec-Fetch-Site") == b"same-origin":
        return True
    scheme, _, authority = origin.partition(b"://")
    if not authority:
        return False
    # The scheme on the client's side of a proxy is not known here: Host is read as if it were the origin's.
    host = request.header(b"Host") or b""
    return _canonical(scheme, authority) == _canonical(scheme, host)


def _canonical(scheme: bytes, authority: bytes) -> bytes:
    origin = (scheme + b"://" + authority).lower()
    return _DEFAULT_PORT.sub(rb"\1\2", origin)
