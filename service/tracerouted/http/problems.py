"""Everything that goes wrong, as RFC 9457 problem documents.

One table of problem types, one exception that carries a problem to the edge, and one mapping from the errors of the
other rooms to problems.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

import msgspec
from attrs import frozen
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound

from ..jobs.engine import Busy, NotReady, TargetNotAllowed, TryLater, UnknownTrace, Unsupported
from ..model import InvalidRequest, Problem

CONTENT_TYPE = b"application/problem+json"


@frozen
class ProblemType:
    """A kind of problem: the last part of its `type`, its title, its HTTP status.

    `name` None stands for "about:blank" (RFC 9457 section 4.2.1): nothing more to say than the status does.
    """

    name: str | None
    title: str
    status: int

    @property
    def uri(self) -> str:
        return f"/problems/{self.name}" if self.name else "about:blank"

    @property
    def reason(self) -> bytes:
        """The reason phrase of the status line; twisted does not know 422 and 429."""
        return HTTPStatus(self.status).phrase.encode("ascii")


INVALID_REQUEST = ProblemType("invalid-request", "Some fields of the request are wrong", 422)
UNSUPPORTED = ProblemType("unsupported", "This cannot be traced here", 422)
MALFORMED = ProblemType("malformed", "The request cannot be read", 400)
NOT_FOUND = ProblemType("not-found", "There is nothing here", 404)
METHOD_NOT_ALLOWED = ProblemType("method-not-allowed", "The method is not one of this resource's", 405)
NOT_ACCEPTABLE = ProblemType("not-acceptable", "None of the formats asked for is on offer", 406)
TOO_LARGE = ProblemType("too-large", "The request is too large", 413)
UNSUPPORTED_MEDIA_TYPE = ProblemType("unsupported-media-type", "The body is not JSON", 415)
UNAUTHORIZED = ProblemType("unauthorized", "An API key is needed", 401)
TARGET_NOT_ALLOWED = ProblemType("target-not-allowed", "This target may not be traced", 403)
ORIGIN_NOT_ALLOWED = ProblemType("origin-not-allowed", "Pages of this origin may not do this", 403)
QUOTA_EXCEEDED = ProblemType("quota-exceeded", "Too many requests from this client", 429)
BUSY = ProblemType("busy", "The service is busy", 503)
NOT_READY = ProblemType("not-ready", "The service cannot trace now", 503)

TYPES = (
    INVALID_REQUEST,
    UNSUPPORTED,
    MALFORMED,
    NOT_FOUND,
    METHOD_NOT_ALLOWED,
    NOT_ACCEPTABLE,
    TOO_LARGE,
    UNSUPPORTED_MEDIA_TYPE,
    UNAUTHORIZED,
    TARGET_NOT_ALLOWED,
    ORIGIN_NOT_ALLOWED,
    QUOTA_EXCEEDED,
    BUSY,
    NOT_READY,
)

REQUEST_TIMEOUT = ProblemType(None, "Request Timeout", 408)
INTERNAL = ProblemType(None, "Internal Server Error", 500)

#: More wrong fields than a request has are not worth listing one by one.
MOST_ERRORS = 32


class ProblemError(Exception):
    """A problem on its way to the client.

    `detail` says what to do; `errors` name the wrong fields; `headers` go with the answer; `members` are further
    members of the document (RFC 9457 section 3.2).
    """

    def __init__(
        self,
        kind: ProblemType,
        detail: str,
        errors: Iterable[Problem] = (),
        headers: Mapping[bytes, bytes] | None = None,
        members: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.errors = tuple(errors)
        self.headers = dict(headers or {})
        self.members = dict(members or {})

    def document(self, instance: str | None) -> bytes:
        """The body of the answer; `instance` is the path asked for, None where there was no readable one."""
        document: dict[str, Any] = {
            "type": self.kind.uri,
            "title": self.kind.title,
            "status": self.kind.status,
            "detail": self.detail,
        }
        if instance is not None:
            document["instance"] = instance
        document["errors"] = [
            {"pointer": pointer(problem.field), "detail": problem.detail} for problem in self.errors[:MOST_ERRORS]
        ]
        return msgspec.json.encode(document | self.members)

    def fields(self, body: bytes) -> list[tuple[bytes, bytes]]:
        """The header fields of the answer."""
        return [
            (b"Content-Type", CONTENT_TYPE),
            (b"Content-Length", b"%d" % len(body)),
            (b"Cache-Control", b"no-store"),
            *self.headers.items(),
        ]


def instance(uri: bytes) -> str:
    """The path of a request target, without its query, as ASCII."""
    return uri.split(b"?", 1)[0].decode("ascii", "backslashreplace")


def pointer(field: str) -> str:
    """The JSON pointer (RFC 6901) of a top-level field; "" names the whole document."""
    return "/" + field.replace("~", "~0").replace("/", "~1") if field else ""


def invalid(errors: Iterable[Problem]) -> ProblemError:
    """Wrong fields or query parameters, all of them at once."""
    errors = tuple(errors)
    count = "1 thing is" if len(errors) == 1 else f"{len(errors)} things are"
    return ProblemError(INVALID_REQUEST, f"{count} wrong with the request; see errors", errors)


def later(kind: ProblemType, detail: str, retry_after: int, members: Mapping[str, Any] | None = None) -> ProblemError:
    """A refusal that time may lift; `retry_after` is whole seconds."""
    return ProblemError(kind, detail, headers={b"Retry-After": b"%d" % retry_after}, members=members)


def of(error: BaseException) -> ProblemError | None:
    """The problem an exception stands for; None for those nobody expected."""
    match error:
        case ProblemError():
            return error
        case InvalidRequest():
            return invalid(error.problems)
        case UnknownTrace():
            return ProblemError(NOT_FOUND, "no trace has this id: it never was, has expired, or was deleted")
        case TargetNotAllowed():
            return ProblemError(TARGET_NOT_ALLOWED, str(error), [Problem("target", str(error))])
        case Unsupported():
            return ProblemError(UNSUPPORTED, str(error), error.problems)
        case Busy():
            return later(BUSY, str(error), error.retry_after)
        case NotReady() | TryLater():
            return later(NOT_READY, str(error), error.retry_after)
        case MethodNotAllowed():
            allowed = ", ".join(sorted(error.valid_methods or ()))
            return ProblemError(
                METHOD_NOT_ALLOWED, f"this resource takes {allowed}", headers={b"Allow": allowed.encode("ascii")}
            )
        case NotFound():
            return ProblemError(NOT_FOUND, "there is nothing at this path; /traces holds the traces")
        case HTTPException():
            return ProblemError(MALFORMED, "the request cannot be routed; check its path and method")
    return None


def unexpected() -> ProblemError:
    """What a client is told of an exception nobody expected."""
    return ProblemError(INTERNAL, "the service made a mistake; its log says more")
