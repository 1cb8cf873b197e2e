"""Asking the service: `Client`. Each request has a connection of its own, so none is left between two calls."""

# twisted has no annotations for some of what is called here.
# mypy: allow-untyped-calls

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import aclosing
from typing import Any, NoReturn, TypeVar
from urllib.parse import quote, urlsplit

import msgspec
from attrs import Attribute, define, field
from treq.client import HTTPClient
from twisted.internet.defer import Deferred
from twisted.web.client import Agent, HTTPConnectionPool

from ..http.read import EventReader, Unreadable, read_trace
from ..model import EndEvent, Trace, TraceEvent
from .connection import CONNECTION_FAILURES, Body, Patience, failure_words
from .errors import NotFound, NotUnderstood, Refused, ServiceUnreachable, TryLater

CONNECT_TIMEOUT_S = 10.0
ANSWER_TIMEOUT_S = 30.0
#: How long one request of `Client.wait` waits at the service.
LONG_POLL_S = 30
#: The service sends a comment every 15 s, so a stream that says nothing for so long is dead.
SILENCE_S = 40.0
#: The largest answer, and the largest event, that is read.
MOST_BYTES = 64 * 1024 * 1024

_LATER = (429, 502, 503, 504)

_T = TypeVar("_T")


def _without_slash(url: str) -> str:
    return url.rstrip("/")


@define(eq=False)
class Client:
    """Asks the service at `server`, an http or https URL. `api_key` is sent as a bearer token (RFC 6750).

    `patience_s` is for how long a service that is unreachable, busy or not ready is asked again, with growing pauses
    and never before its `Retry-After`; with 0 the first failure is raised. The methods say which requests have it.
    """

    server: str = field(converter=_without_slash)
    _reactor: Any
    api_key: str | None = field(default=None, kw_only=True, repr=False)
    patience_s: float = field(default=60.0, kw_only=True)
    _http: HTTPClient = field(kw_only=True)

    @_http.default
    def _real(self) -> HTTPClient:
        pool = HTTPConnectionPool(self._reactor, persistent=False)
        return HTTPClient(Agent(self._reactor, connectTimeout=CONNECT_TIMEOUT_S, pool=pool))

    @server.validator
    def _check_server(self, attribute: Attribute[str], value: str) -> None:
        self.check(value)

    @staticmethod
    def check(value: str) -> None:
        """Raise ValueError, saying what to write, if this is no address of a service."""
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError(f"{value!r} is not the address of a service; write http://host:port or https://host")

    # --- traces ----------------------------------------------------------------------------------------------

    async def create(self, target: str, *, patience_s: float = 0.0, **fields: Any) -> Trace:
        """Start a trace; it comes back as it stands, usually queued.

        `fields` are those of `model.TraceRequest`; the service fills in what is left out. With `patience_s` a failed
        attempt is made again; the service takes them all for one.
        """
        if "family" in fields:
            fields["family"] = fields["family"] or "any"
        body = msgspec.json.encode({"target": target, **fields})
        headers = {"Content-Type": "application/json", "Idempotency-Key": f'"{secrets.token_urlsafe(16)}"'}
        return await self._persist(lambda: self._read("POST", "/traces", headers, body), patience_s)

    async def get(self, trace_id: str) -> Trace:
        """The trace as it stands. Raises `NotFound`, as do the other calls that take an id."""
        return await self._read("GET", _path(trace_id), {})

    async def wait(self, trace_id: str) -> Trace:
        """The trace once it has ended. An interrupted wait is taken up again, with patience.

        A reverse name may still arrive later; the last of `events` has them all.
        """
        headers = {"Prefer": f"wait={LONG_POLL_S}"}
        while True:
            trace = await self._persist(
                lambda: self._read("GET", _path(trace_id), headers, more_s=LONG_POLL_S), self.patience_s
            )
            if trace.status.terminal:
                return trace

    async def cancel(self, trace_id: str) -> None:
        """End the trace if it still runs, and have the service forget it."""
        await self._answer("DELETE", _path(trace_id), {})

    async def events(self, trace_id: str, after: int = 0) -> AsyncGenerator[TraceEvent, None]:
        """The events past revision `after`, as they happen, up to and including the trace's end.

        A stream that breaks is resumed where it broke, with patience that begins anew with every event: none is
        missed and none comes twice. Leaving early cancels nothing; do it with `contextlib.aclosing`.
        """
        patience = Patience(self._reactor, self.patience_s)
        while True:
            try:
                async with aclosing(self._stream(trace_id, after)) as stream:
                    async for event in stream:
                        if event.revision <= after:
                            continue
                        after = event.revision
                        patience.begin()
                        yield event
                        if isinstance(event, EndEvent):
                            return
                return  # 204: nothing follows `after`
            except (ServiceUnreachable, TryLater) as wrong:
                await patience.pause(wrong)

    async def _stream(self, trace_id: str, after: int) -> AsyncGenerator[TraceEvent, None]:
        """The events of one connection; raises `ServiceUnreachable` when it ends early."""
        headers = {"Accept": "text/event-stream"}
        if after:
            headers["Last-Event-ID"] = str(after)
        response = await self._within(ANSWER_TIMEOUT_S, self._send("GET", _path(trace_id) + "/events", headers, None))
        if response.code == 204:
            return
        reader = EventReader(MOST_BYTES)
        try:
            async with aclosing(self._pieces(response, SILENCE_S)) as pieces:
                async for piece in pieces:
                    for event in reader.feed(piece):
                        yield event
        except Unreadable as wrong:
            raise NotUnderstood(f"{self.server}: {wrong}") from None
        raise ServiceUnreachable(f"{self.server}: the stream ended before the trace did")

    # --- requests --------------------------------------------------------------------------------------------

    async def _read(
        self, method: str, path: str, headers: dict[str, str], body: bytes | None = None, more_s: float = 0.0
    ) -> Trace:
        content = await self._answer(method, path, headers, body, more_s)
        try:
            return read_trace(content)
        except Unreadable as wrong:
            raise NotUnderstood(f"{self.server}: {wrong}") from None

    async def _answer(
        self, method: str, path: str, headers: dict[str, str], body: bytes | None = None, more_s: float = 0.0
    ) -> bytes:
        async def exchange() -> bytes:
            return await self._content(await self._send(method, path, headers, body))

        return await self._within(ANSWER_TIMEOUT_S + more_s, exchange())

    async def _send(self, method: str, path: str, headers: dict[str, str], body: bytes | None) -> Any:
        """The answer, if it is a success; else raises what it says."""
        given: dict[str | bytes, str | bytes] = {"Accept": "application/json"}
        given.update(headers)
        if self.api_key is not None:
            given["Authorization"] = f"Bearer {self.api_key}"
        response = await self._http.request(
            method,
            self.server + path,
            headers=given,
            data=body,
            unbuffered=True,
            allow_redirects=False,
            reactor=self._reactor,
        )
        if response.code >= 300:
            _refuse(response, await self._content(response))
        return response

    async def _content(self, response: Any) -> bytes:
        parts: list[bytes] = []
        async with aclosing(self._pieces(response, ANSWER_TIMEOUT_S)) as pieces:
            async for piece in pieces:
                parts.append(piece)
                if sum(map(len, parts)) > MOST_BYTES:
                    raise NotUnderstood(f"{self.server}: an answer of more than {MOST_BYTES} bytes")
        return b"".join(parts)

    async def _pieces(self, response: Any, silence_s: float) -> AsyncGenerator[bytes, None]:
        """The body of an answer as it comes; leaving early closes the connection."""
        body = Body()
        response.original.deliverBody(body)
        try:
            while piece := await self._within(silence_s, body.more()):
                yield piece
        finally:
            body.close()

    async def _within(self, seconds: float, doing: Deferred[_T] | Coroutine[Deferred[Any], Any, _T]) -> _T:
        """The result of `doing`, with every way a connection fails as `ServiceUnreachable`."""
        under_way = doing if isinstance(doing, Deferred) else Deferred.fromCoroutine(doing)
        try:
            return await under_way.addTimeout(seconds, self._reactor)
        except CONNECTION_FAILURES as wrong:
            raise ServiceUnreachable(f"{self.server}: {failure_words(wrong, seconds)}") from None

    async def _persist(self, ask: Callable[[], Awaitable[_T]], patience_s: float) -> _T:
        patience = Patience(self._reactor, patience_s)
        while True:
            try:
                return await ask()
            except (ServiceUnreachable, TryLater) as wrong:
                await patience.pause(wrong)


def _path(trace_id: str) -> str:
    return f"/traces/{quote(trace_id, safe='')}"


def _refuse(response: Any, content: bytes) -> NoReturn:
    try:
        document = msgspec.json.decode(content)
    except ValueError:
        document = None
    given = (response.headers.getRawHeaders("Retry-After") or [""])[0]
    kind = NotFound if response.code == 404 else TryLater if response.code in _LATER else Refused
    raise kind(
        response.code,
        document if isinstance(document, dict) else {},
        float(given) if given.isascii() and given.isdigit() else None,
    )
