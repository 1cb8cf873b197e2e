"""The resources under `/traces`.

Reading a finished trace is the path most often taken: `Engine.revision` alone decides about 304, and a finished
document is rendered once and kept (`rendered`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from typing import Any
from urllib.parse import unquote_to_bytes, urlencode

from attrs import define
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime

from ..jobs.engine import Engine
from ..model import Problem, Status, Trace, TraceRequest
from ..naming.hostname import parse_target
from . import problems
from .channel import CONTRACT_LINK
from .decode import decode_request
from .events import Streams, event_headers
from .formats import BY_MEDIA_TYPE, FORMATS, MEDIA_TYPES, Format
from .idempotency import CreatedTraces, idempotency_key
from .negotiate import acceptable, event_id, is_json, matches, wait_preferred
from .policy import Policy
from .problems import ProblemError, invalid
from .rendered import Document, Rendered
from .request import EdgeRequest
from .wire import encode_page, encode_trace

EVENT_STREAM = "text/event-stream"
TEXT = "text/plain"
JSON = "application/json"

_LIST_PARAMETERS = ("status", "target", "limit", "cursor")
_DEFAULT_PAGE = 20
_MOST_PAGE = 100


@define
class Traces:
    """The handlers. `defaults` are request fields whose default depends on how the service is set up."""

    _engine: Engine
    _clock: IReactorTime
    _streams: Streams
    _rendered: Rendered
    _policy: Policy
    _created: CreatedTraces
    _defaults: dict[str, Any]

    # --- POST /traces ---

    def create(self, request: EdgeRequest) -> bytes | Deferred[None] | Coroutine[Deferred[Any], Any, bytes]:
        """Start a trace: 202, or 201 when it ended within `Prefer: wait`; or 200 with a stream, as Accept says.

        With an Idempotency-Key that made a trace before, that trace is what is answered with.
        """
        client = self._policy.client(request)
        self._tell_quota(request, client)
        if not is_json(request.header(b"Content-Type")):
            raise ProblemError(
                problems.UNSUPPORTED_MEDIA_TYPE, "send the request as JSON, with Content-Type: application/json"
            )
        wanted = _negotiated(request, (JSON, EVENT_STREAM, TEXT))
        asked = decode_request(request.content.read(), self._defaults)
        if wanted != JSON:
            self._streams.admit()
        trace = self._submit(request, asked, client)
        request.put(b"Location", _path(trace.id))
        if wanted == EVENT_STREAM:
            return self._streams.events(request, trace.id, 0)
        if wanted == TEXT:
            return self._streams.text(request, trace)
        wait = wait_preferred(request.header(b"Prefer"))
        if wait is not None:
            return self._answer_later(request, trace.id, wait)
        return self._answer(request, trace)

    def _submit(self, request: EdgeRequest, asked: TraceRequest, client: str) -> Trace:
        field = request.header(b"Idempotency-Key")
        key = None if field is None else idempotency_key(field)
        if key is not None:
            made = self._created.find(client, key, asked)
            if made is not None:
                return self._engine.get(made)
        quota = self._policy.quota
        if quota is not None:
            refusal = quota.refusal(client)
            if refusal is not None:
                raise refusal
        trace = self._engine.submit(asked, request.owner)
        if quota is not None:  # what the engine refused costs nothing
            quota.spend(client)
            self._tell_quota(request, client)
        if key is not None:
            self._created.remember(client, key, asked, trace.id)
        return trace

    def _tell_quota(self, request: EdgeRequest, client: str) -> None:
        if self._policy.quota is not None:
            for name, value in self._policy.quota.fields(client):
                request.put(name, value)

    async def _answer_later(self, request: EdgeRequest, trace_id: str, wait: int) -> bytes:
        await self._wait(request, trace_id, wait)
        return self._answer(request, self._engine.get(trace_id))

    def _answer(self, request: EdgeRequest, trace: Trace) -> bytes:
        request.setResponseCode(201 if trace.status.terminal else 202)
        if not trace.status.terminal and self._policy.quota is None:  # beside RateLimit it speaks of the quota
            request.put(b"Retry-After", b"1")
        request.put(b"Cache-Control", b"no-store")
        return request.reply(encode_trace(trace))

    # --- GET /traces ---

    def list(self, request: EdgeRequest) -> bytes:
        """A page of traces, newest first: `{"traces": [...], "next_cursor": ...}`; with API keys the caller's own.

        Each is a trace without `hops` and `paths`. `next_cursor` (null at the end) goes into `?cursor=`, as it
        does in the `Link: <...>; rel="next"` field.
        """
        _negotiated(request, (JSON,))
        query, errors = _query(request, _LIST_PARAMETERS)
        readers: dict[str, Callable[[str], Any]] = {
            "status": _read_status,
            "target": _read_target,
            "limit": _read_limit,
            "cursor": str,
        }
        values: dict[str, Any] = {}
        for name, value in query.items():
            try:
                values[name] = readers[name](value)
            except ValueError as error:
                errors.append(Problem(name, str(error)))
        if errors:
            raise invalid(errors)
        try:
            page = self._engine.list(owner=request.owner, **{"limit": _DEFAULT_PAGE, **values})
        except ValueError:
            words = "is not a cursor of this service; take next_cursor of the page before"
            raise invalid([Problem("cursor", words)]) from None
        if page.cursor is not None:
            following = urlencode({**query, "cursor": page.cursor}).encode("ascii")
            request.put(b"Link", b'</traces?%b>; rel="next", %b' % (following, CONTRACT_LINK))
        request.put(b"Cache-Control", b"no-cache")
        return request.reply(encode_page(page))

    # --- GET /traces/{id} ---

    def read(self, request: EdgeRequest, trace_id: str) -> bytes | Coroutine[Deferred[Any], Any, bytes]:
        """The trace as it stands, or, with `Prefer: wait`, as it ended."""
        request.vary(b"Accept")
        chosen = _chosen_format(request)
        prefer = request.header(b"Prefer")
        if prefer is not None:
            wait = wait_preferred(prefer)
            if wait is not None:
                return self._read_later(request, trace_id, chosen, wait)
        return self._read(request, trace_id, chosen)

    async def _read_later(self, request: EdgeRequest, trace_id: str, chosen: Format, wait: int) -> bytes:
        await self._wait(request, trace_id, wait)
        return self._read(request, trace_id, chosen)

    def _read(self, request: EdgeRequest, trace_id: str, chosen: Format) -> bytes:
        revision, status, left = self._engine.revision(trace_id)
        headers = request.responseHeaders
        # A trace can be terminal and still learn names.
        if left is not None:
            headers.setRawHeaders(b"Cache-Control", [b"private, max-age=%d" % int(left)])
        else:
            headers.setRawHeaders(b"Cache-Control", [b"no-cache"])
        if not status.terminal:
            headers.setRawHeaders(b"Retry-After", [b"1"])
        tag = _tag(trace_id, revision, chosen)
        headers.setRawHeaders(b"ETag", [tag])
        conditions = request.requestHeaders.getRawHeaders(b"If-None-Match")
        if conditions is not None and matches(b", ".join(conditions), tag):
            request.setResponseCode(304)
            return b""
        document = self._rendered.get(trace_id, chosen.name) if left is not None else None
        if document is None:
            document = self._render(trace_id, chosen)
        return request.reply(document.body, document.content_type)

    def _render(self, trace_id: str, chosen: Format) -> Document:
        trace = self._engine.get(trace_id)
        document = Document(chosen.render(trace), chosen.content_type)
        if trace.expires_at is not None:
            self._rendered.put(trace_id, chosen.name, document)
        return document

    # --- GET /traces/{id}/events ---

    def events(self, request: EdgeRequest, trace_id: str) -> bytes | Deferred[None]:
        """The trace's events, those so far and those to come. `Last-Event-ID` resumes after that revision; after
        the last one of a finished trace the answer is 204. An id this trace never had is 400."""
        _negotiated(request, (EVENT_STREAM,))
        revision, _, _ = self._engine.revision(trace_id)
        after = 0
        last = request.header(b"Last-Event-ID")
        if last is not None:
            known = event_id(last)
            if known is None or known > revision:
                raise ProblemError(
                    problems.MALFORMED, "Last-Event-ID is not an event of this trace; leave it out to get all of them"
                )
            after = known
        if request.method == b"HEAD":
            event_headers(request)
            return b""
        self._streams.admit()
        return self._streams.events(request, trace_id, after)

    # --- DELETE /traces/{id} ---

    def delete(self, request: EdgeRequest, trace_id: str) -> bytes:
        """Cancel if it still runs, and forget: 204; 404 from then on."""
        self._engine.cancel(trace_id)
        self._rendered.forget(trace_id)
        request.setResponseCode(204)
        return b""

    async def _wait(self, request: EdgeRequest, trace_id: str, wait: int) -> None:
        request.put(b"Preference-Applied", b"wait=%d" % wait)
        request.waits = True
        finished = self._engine.finished(trace_id)
        finished.addTimeout(wait, self._clock)
        with suppress(TimeoutError):  # then it is answered as it stands
            await finished


def _path(trace_id: str) -> bytes:
    return b"/traces/" + trace_id.encode("ascii")


def _tag(trace_id: str, revision: int, chosen: Format) -> bytes:
    return f'"{trace_id}-{revision}-{chosen.name}"'.encode("ascii")


def _negotiated(request: EdgeRequest, offers: tuple[str, ...]) -> str:
    chosen = acceptable(request.header(b"Accept") or b"", offers)
    if chosen is None:
        raise ProblemError(problems.NOT_ACCEPTABLE, f"Accept takes none of {', '.join(offers)}; ask for one of them")
    return chosen


def _chosen_format(request: EdgeRequest) -> Format:
    if b"?" in request.uri:
        query, errors = _query(request, ("format",))
        if errors:
            raise invalid(errors)
        if "format" in query:
            chosen = FORMATS.get(query["format"])
            if chosen is None:
                raise ProblemError(problems.NOT_ACCEPTABLE, f"the formats are {', '.join(FORMATS)}")
            return chosen
    return BY_MEDIA_TYPE[_negotiated(request, MEDIA_TYPES)]


def _query(request: EdgeRequest, names: Iterable[str]) -> tuple[dict[str, str], list[Problem]]:
    """The query's parameters as text, and what is wrong with them."""
    values: dict[str, str] = {}
    errors: list[Problem] = []
    for raw_name, raw_values in request.args.items():
        name = raw_name.decode("utf-8", "backslashreplace")
        if name not in names:
            errors.append(Problem(name, f"unknown parameter; the parameters are {', '.join(names)}"))
        elif len(raw_values) != 1:
            errors.append(Problem(name, f"is given {len(raw_values)} times; give it once"))
        else:
            try:
                values[name] = raw_values[0].decode("utf-8")
            except UnicodeDecodeError:
                errors.append(Problem(name, "is not UTF-8"))
    for part in re.split(rb"[&;]", request.uri.partition(b"?")[2]):
        if part and b"=" not in part:  # of which twisted.web makes nothing
            errors.append(Problem(unquote_to_bytes(part).decode("utf-8", "backslashreplace"), "has no value"))
    return values, errors


def _read_status(value: str) -> Status:
    try:
        return Status(value)
    except ValueError:
        raise ValueError(f"must be one of {', '.join(Status)}") from None


def _read_target(value: str) -> str:
    return str(parse_target(value))


def _read_limit(value: str) -> int:
    if not (value.isascii() and value.isdigit() and len(value) <= 3 and 1 <= int(value) <= _MOST_PAGE):
        raise ValueError(f"must be a whole number from 1 to {_MOST_PAGE}")
    return int(value)
