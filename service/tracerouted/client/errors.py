"""What goes wrong between a client and the service."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import frozen


class ClientError(Exception):
    """The service could not be asked, or did not do what it was asked."""


class ServiceUnreachable(ClientError):
    """No connection to the service, or it broke, or no answer came in time."""


class NotUnderstood(ClientError):
    """Whatever answered, its answer is not one of this service."""


@frozen
class FieldProblem:
    """One thing wrong with a request: a JSON pointer (RFC 6901) into it ("" for the whole) and what to do."""

    pointer: str
    detail: str


class Refused(ClientError):
    """The service refused: the members of its problem document (RFC 9457).

    `kind` is the last part of `type` ("invalid-request", "busy", ...; "about:blank" where there was no
    such document).
    `retry_after` is in seconds, None where the service named none.
    """

    def __init__(self, status: int, document: Mapping[str, Any], retry_after: float | None) -> None:
        def text(name: str, default: str) -> str:
            value = document.get(name)
            return value if isinstance(value, str) and value else default

        self.status = status
        self.type = text("type", "about:blank")
        self.kind = self.type.rpartition("/")[2]
        self.title = text("title", f"HTTP status {status}")
        self.detail = text("detail", self.title)
        self.instance = text("instance", "")
        self.errors = tuple(
            FieldProblem(str(each.get("pointer", "")), str(each.get("detail", "")))
            for each in (document["errors"] if isinstance(document.get("errors"), list) else ())
            if isinstance(each, dict)
        )
        self.retry_after = retry_after
        super().__init__(self.detail)


class NotFound(Refused):
    """The trace does not exist: it never did, has expired, or was deleted (404)."""


class TryLater(Refused):
    """The service, or what stands before it, has no room now, or this client asked too often (429, 502, 503, 504)."""
