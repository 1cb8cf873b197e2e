"""The way back from JSON to the model: what a client of the service reads.

The inverse of `wire`: documents become the views of `model`, and a stream of server-sent events (WHATWG HTML) becomes
`TraceEvent`s, whatever pieces it arrives in. Members that are not known here are ignored, so that a newer service can
be read. Whatever is missing, or of the wrong kind, raises `Unreadable`.

RTTs come back in whole microseconds, times in whole milliseconds: that is what the documents hold. The port of a
request comes back filled in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, TypeVar

import msgspec
from attrs import fields

from ..model import (
    Asn,
    EndEvent,
    Family,
    Hop,
    HopEvent,
    HopStats,
    MplsLabel,
    Outcome,
    Path,
    Probe,
    Protocol,
    Responder,
    Status,
    StatusEvent,
    StopReason,
    Target,
    Trace,
    TraceEvent,
    TraceRequest,
)

_decode = msgspec.json.Decoder().decode

#: The fields of a request that are integers and never null.
_INTEGERS = [a.name for a in fields(TraceRequest) if "range" in a.metadata and a.default is not None]

_In = TypeVar("_In")
_Out = TypeVar("_Out")


class Unreadable(ValueError):
    """A document that is not one of this service."""


def read_trace(body: bytes) -> Trace:
    """The trace in a document made by `wire.encode_trace`. Raises `Unreadable`."""
    return _reading(_trace, body)


def read_event(revision: int, name: str, data: bytes) -> TraceEvent | None:
    """One event by its id, name and data; None for a name that is not known here. Raises `Unreadable`."""
    reader = _EVENTS.get(name)
    return None if reader is None else _reading(lambda document: reader(revision, document), data)


class EventReader:
    """A stream of server-sent events, read in any pieces.

    `most` bounds the bytes of one event. Events without an id that is a number are left out; comments are skipped.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._rest = b""
        self._name = ""
        self._data: list[bytes] = []
        self._id: int | None = None
        self._size = 0

    def feed(self, data: bytes) -> Iterator[TraceEvent]:
        """The events that `data` completes. Raises `Unreadable`."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._size += len(line)
            event = self._line(line.removesuffix(b"\r"))
            if event is not None:
                yield event
            self._bound(0)
        self._bound(len(self._rest))

    def _bound(self, more: int) -> None:
        if self._size + more > self._most:
            raise Unreadable(f"an event of more than {self._most} bytes")

    def _line(self, line: bytes) -> TraceEvent | None:
        if not line:
            return self._dispatch()
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
        elif name == b"event":
            self._name = value.decode("utf-8", "replace")
        elif name == b"id":
            self._id = int(value) if value.isdigit() and len(value) < 16 else None
        return None

    def _dispatch(self) -> TraceEvent | None:
        data, name = self._data, self._name
        self._data, self._name, self._size = [], "", 0
        return read_event(self._id, name, b"\n".join(data)) if data and self._id is not None else None


def _reading(read: Callable[[Any], _Out], body: bytes) -> _Out:
    try:
        return read(_decode(body))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as wrong:
        raise Unreadable(f"this is no document of this service: {type(wrong).__name__}: {wrong}") from None


def _trace(document: dict[str, Any]) -> Trace:
    return Trace(
        id=_text(document["id"]),
        status=Status(document["status"]),
        stop_reason=_maybe(StopReason, document["stop_reason"]),
        reached=_boolean(document["reached"]),
        revision=_integer(document["revision"]),
        created_at=_time(document["created_at"]),
        started_at=_maybe(_time, document["started_at"]),
        finished_at=_maybe(_time, document["finished_at"]),
        expires_at=_maybe(_time, document["expires_at"]),
        request=_request(document["request"]),
        target=_maybe(_target, document["target"]),
        source_address=_maybe(_text, document["source_address"]),
        path_id=_maybe(_text, document["path_id"]),
        hops=tuple(_hop(hop) for hop in document["hops"]),
        paths=tuple(_path(path) for path in document["paths"]),
        error=_maybe(_text, document["error"]),
    )


def _request(document: dict[str, Any]) -> TraceRequest:
    return TraceRequest(
        target=_text(document["target"]),
        family=None if document["family"] == "any" else Family(document["family"]),
        protocol=Protocol(document["protocol"]),
        port=_maybe(_integer, document["port"]),
        source_port=_maybe(_integer, document["source_port"]),
        resolve_names=_boolean(document["resolve_names"]),
        lookup_asn=_boolean(document["lookup_asn"]),
        **{name: _integer(document[name]) for name in _INTEGERS},
    )


def _target(document: dict[str, Any]) -> Target:
    return Target(
        _text(document["host"]),
        _text(document["address"]),
        Family(document["family"]),
        tuple(_text(address) for address in document["addresses"]),
    )


def _hop(document: dict[str, Any]) -> Hop:
    return Hop(
        _integer(document["ttl"]),
        _responders(document),
        tuple(_probe(probe) for probe in document["probes"]),
        _stats(document["stats"]),
        _boolean(document["rate_limited"]),
    )


def _responders(document: dict[str, Any]) -> tuple[Responder, ...]:
    return tuple(
        Responder(
            _text(responder["address"]),
            _maybe(_text, responder["hostname"]),
            _maybe(_asn, responder["asn"]),
            tuple(_integer(flow) for flow in responder["flows"]),
            _integer(responder["received"]),
        )
        for responder in document["responders"]
    )


def _asn(document: dict[str, Any]) -> Asn:
    return Asn(_integer(document["number"]), _maybe(_text, document["name"]))


def _probe(document: dict[str, Any]) -> Probe:
    return Probe(
        _integer(document["flow"]),
        _time(document["sent_at"]),
        Outcome(document["outcome"]),
        _maybe(_text, document["address"]),
        _maybe(_microseconds, document["rtt_ms"]),
        tuple(MplsLabel(*(_integer(label[name]) for name in MplsLabel._fields)) for label in document["mpls"]),
        _maybe(_text, document["error"]),
    )


def _stats(document: dict[str, Any]) -> HopStats:
    return HopStats(
        _integer(document["sent"]),
        _integer(document["received"]),
        _integer(document["lost"]),
        _maybe(_number, document["loss_pct"]),
        *(
            _maybe(_microseconds, document[f"{name}_ms"])
            for name in ("min", "avg", "median", "max", "stddev", "jitter")
        ),
    )


def _path(document: dict[str, Any]) -> Path:
    return Path(
        _integer(document["flow"]),
        _text(document["path_id"]),
        tuple(_maybe(_text, address) for address in document["addresses"]),
    )


def _status_event(revision: int, document: dict[str, Any]) -> StatusEvent:
    return StatusEvent(
        revision,
        Status(document["status"]),
        _maybe(StopReason, document["stop_reason"]),
        _maybe(_target, document["target"]),
        _maybe(_text, document["source_address"]),
    )


def _hop_event(revision: int, document: dict[str, Any]) -> HopEvent:
    return HopEvent(
        revision,
        _integer(document["ttl"]),
        _responders(document),
        _stats(document["stats"]),
        _boolean(document["rate_limited"]),
        _maybe(_probe, document["probe"]),
    )


def _end_event(revision: int, document: dict[str, Any]) -> EndEvent:
    return EndEvent(revision, _trace(document))


_EVENTS: dict[str, Callable[[int, dict[str, Any]], TraceEvent]] = {
    "status": _status_event,
    "hop": _hop_event,
    "end": _end_event,
}


def _maybe(read: Callable[[_In], _Out], value: _In | None) -> _Out | None:
    return None if value is None else read(value)


def _text(value: object) -> str:
    return _kind(str, value)


def _boolean(value: object) -> bool:
    return _kind(bool, value)


def _integer(value: object) -> int:
    if isinstance(value, bool):
        raise TypeError(f"{value} is no number")
    return _kind(int, value)


def _number(value: object) -> float:
    return float(value) if type(value) is int else _kind(float, value)


def _microseconds(ms: object) -> int:
    return round(_number(ms) * 1000)


def _time(value: object) -> float:
    return datetime.fromisoformat(_text(value)).timestamp()


def _kind(kind: type[_Out], value: object) -> _Out:
    if not isinstance(value, kind):
        raise TypeError(f"{value!r} is no {kind.__name__}")
    return value
