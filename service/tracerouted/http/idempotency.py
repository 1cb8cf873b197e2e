"""Idempotency-Key: a POST sent again makes no second trace (draft-ietf-httpapi-idempotency-key-header).

A key belongs to the client that sent it, and lives as long as the trace it made. Creating happens within one reactor
turn, so a second request never meets the first half done.
"""

from __future__ import annotations

import re
from collections import OrderedDict

from attrs import define, evolve, field

from ..jobs.engine import Engine, UnknownTrace
from ..model import TraceRequest
from . import problems
from .problems import ProblemError

MOST_KEY_LENGTH = 255

# A String of RFC 9651 section 3.3.3, which this field's value must be; no parameter of it is defined.
_STRING = re.compile(rb'"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"')
_ESCAPED = re.compile(rb"\\(.)")


def idempotency_key(value: bytes) -> bytes:
    """The key in a field's value. Raises `malformed`."""
    match = _STRING.fullmatch(value.strip(b" \t"))
    key = _ESCAPED.sub(rb"\1", match[1]) if match else b""
    if not 1 <= len(key) <= MOST_KEY_LENGTH:
        raise ProblemError(
            problems.MALFORMED,
            f'Idempotency-Key is one string of 1 to {MOST_KEY_LENGTH} ASCII characters in quotes, such as "8e03978e"',
        )
    return key


@define(eq=False)
class CreatedTraces:
    """Which key made which trace, for as long as the trace is known; past `most` keys the oldest go first."""

    _engine: Engine
    _most: int
    _created: OrderedDict[tuple[str, bytes], tuple[str, TraceRequest]] = field(init=False, factory=OrderedDict)

    def __len__(self) -> int:
        return len(self._created)

    def find(self, client: str, key: bytes, request: TraceRequest) -> str | None:
        """The id of the trace a client's key made; None when it made none that still is.

        Raises `invalid-request` when that was asked for otherwise: it is what the bodies mean that must be the same.
        """
        found = self._created.get((client, key))
        if found is None:
            return None
        trace_id, first = found
        if not self._known(trace_id):
            del self._created[client, key]
            return None
        if _filled(request) != first:
            raise ProblemError(
                problems.INVALID_REQUEST,
                "this Idempotency-Key came before with another request; take a new key for a new trace",
            )
        return trace_id

    def remember(self, client: str, key: bytes, request: TraceRequest, trace_id: str) -> None:
        """A client's key has made a trace."""
        self._created[client, key] = trace_id, _filled(request)
        # Traces go in about the order they came, so those that are gone are found at the old end.
        while len(self._created) > self._most or not self._known(next(iter(self._created.values()))[0]):
            self._created.popitem(last=False)

    def _known(self, trace_id: str) -> bool:
        try:
            self._engine.revision(trace_id)
        except UnknownTrace:
            return False
        return True


def _filled(request: TraceRequest) -> TraceRequest:
    return evolve(request, port=request.filled_port)
