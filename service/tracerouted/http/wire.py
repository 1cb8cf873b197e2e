"""What the model looks like as JSON, in the key order of the contract.

Encoding is from the views of `model` to bytes: a trace, a list of traces, one server-sent event. It is plain dict
building and one pass of msgspec, because dicts keep the contract's order. RTTs leave as milliseconds with three
decimals, times as RFC 3339 in UTC with milliseconds. The way back, for requests, is `decode`.
"""

from __future__ import annotations

import time
from functools import lru_cache
from typing import Any

import msgspec

from ..jobs.engine import Page
from ..model import (
    EndEvent,
    Hop,
    HopEvent,
    HopStats,
    Path,
    Probe,
    Responder,
    StatusEvent,
    Target,
    Trace,
    TraceEvent,
    TraceRequest,
)

_encode = msgspec.json.Encoder().encode


def encode_trace(trace: Trace) -> bytes:
    """The whole trace."""
    return _encode(_trace(trace))


def encode_page(page: Page) -> bytes:
    """`{"traces": [...], "next_cursor": ...}`: traces without `hops` and `paths`, newest first."""
    return _encode({"traces": [_summary(trace) for trace in page.traces], "next_cursor": page.cursor})


def encode_event(event: TraceEvent) -> bytes:
    """One event as a complete server-sent event: its id (the revision), name and data (one line of JSON)."""
    match event:
        case HopEvent():
            name, data = b"hop", _hop_event(event)
        case StatusEvent():
            name, data = b"status", _status_event(event)
        case EndEvent():
            name, data = b"end", _trace(event.trace)
    return b"id: %d\nevent: %b\ndata: %b\n\n" % (event.revision, name, _encode(data))


def encode(document: object) -> bytes:
    """Any other document made of dicts, lists, strings, numbers and booleans."""
    return _encode(document)


def _trace(trace: Trace) -> dict[str, Any]:
    document = _summary(trace)
    error, links = document.pop("error"), document.pop("links")
    document["hops"] = [_hop(hop) for hop in trace.hops]
    document["paths"] = [_path(path) for path in trace.paths]
    document["error"] = error
    document["links"] = links
    return document


def _summary(trace: Trace) -> dict[str, Any]:
    link = f"/traces/{trace.id}"
    return {
        "id": trace.id,
        "status": trace.status,
        "stop_reason": trace.stop_reason,
        "reached": trace.reached,
        "revision": trace.revision,
        "created_at": _time(trace.created_at),
        "started_at": _time(trace.started_at),
        "finished_at": _time(trace.finished_at),
        "expires_at": _time(trace.expires_at),
        "request": _request(trace.request),
        "target": _target(trace.target),
        "source_address": trace.source_address,
        "hop_count": len(trace.hops),
        "path_id": trace.path_id,
        "error": trace.error,
        "links": {"self": link, "events": link + "/events"},
    }


def _request(request: TraceRequest) -> dict[str, Any]:
    return {
        "target": request.target,
        "family": request.family or "any",
        "protocol": request.protocol,
        "port": request.filled_port,
        "source_port": request.source_port,
        "flows": request.flows,
        "first_ttl": request.first_ttl,
        "max_ttl": request.max_ttl,
        "probes": request.probes,
        "interval_ms": request.interval_ms,
        "timeout_ms": request.timeout_ms,
        "deadline_ms": request.deadline_ms,
        "gap_limit": request.gap_limit,
        "size": request.size,
        "tos": request.tos,
        "resolve_names": request.resolve_names,
        "lookup_asn": request.lookup_asn,
    }


def _target(target: Target | None) -> dict[str, Any] | None:
    if target is None:
        return None
    return {"host": target.host, "address": target.address, "family": target.family, "addresses": target.addresses}


def _hop(hop: Hop) -> dict[str, Any]:
    return {
        "ttl": hop.ttl,
        "responders": [_responder(responder) for responder in hop.responders],
        "probes": [_probe(probe) for probe in hop.probes],
        "stats": _stats(hop.stats),
        "rate_limited": hop.rate_limited,
    }


def _responder(responder: Responder) -> dict[str, Any]:
    asn = responder.asn
    return {
        "address": responder.address,
        "hostname": responder.hostname,
        "asn": None if asn is None else {"number": asn.number, "name": asn.name},
        "flows": responder.flows,
        "received": responder.received,
    }


def _probe(probe: Probe) -> dict[str, Any]:
    rtt = probe.rtt_us
    return {
        "flow": probe.flow,
        "sent_at": _time(probe.sent_at),
        "outcome": probe.outcome,
        "address": probe.address,
        "rtt_ms": None if rtt is None else rtt / 1000,  # whole microseconds: three decimals at most
        "mpls": [{"label": label, "tc": tc, "s": s, "ttl": ttl} for label, tc, s, ttl in probe.mpls],
        "error": probe.error,
    }


def _stats(stats: HopStats) -> dict[str, Any]:
    return {
        "sent": stats.sent,
        "received": stats.received,
        "lost": stats.lost,
        "loss_pct": None if stats.loss_pct is None else round(stats.loss_pct, 3),
        "min_ms": _ms(stats.min_us),
        "avg_ms": _ms(stats.avg_us),
        "median_ms": _ms(stats.median_us),
        "max_ms": _ms(stats.max_us),
        "stddev_ms": _ms(stats.stddev_us),
        "jitter_ms": _ms(stats.jitter_us),
    }


def _path(path: Path) -> dict[str, Any]:
    return {"flow": path.flow, "path_id": path.path_id, "addresses": path.addresses}


def _status_event(event: StatusEvent) -> dict[str, Any]:
    return {
        "status": event.status,
        "stop_reason": event.stop_reason,
        "target": _target(event.target),
        "source_address": event.source_address,
    }


def _hop_event(event: HopEvent) -> dict[str, Any]:
    return {
        "ttl": event.ttl,
        "responders": [_responder(responder) for responder in event.responders],
        "stats": _stats(event.stats),
        "rate_limited": event.rate_limited,
        "probe": None if event.probe is None else _probe(event.probe),
    }


def _ms(us: float | None) -> float | None:
    return None if us is None else round(us / 1000, 3)


def _time(at: float | None) -> str | None:
    if at is None:
        return None
    seconds, milliseconds = divmod(round(at * 1000), 1000)
    return f"{_seconds(seconds)}.{milliseconds:03d}Z"


@lru_cache(maxsize=128)
def _seconds(seconds: int) -> str:
    # The probes of one trace share a few seconds.
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
