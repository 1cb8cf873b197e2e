"""Whether the process lives, and whether it can trace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import frozen

from ..jobs.engine import Engine, Readiness
from . import problems
from .problems import later
from .request import EdgeRequest
from .wire import encode

RETRY_AFTER_S = 2


@frozen
class Health:
    """`/healthz` and `/readyz`. `draining` says whether the service is shutting down."""

    _engine: Engine
    _draining: Callable[[], bool]

    def alive(self, request: EdgeRequest) -> bytes:
        """200 as long as the process answers at all."""
        return _json(request, {"status": "ok"})

    def ready(self, request: EdgeRequest) -> bytes:
        """200 `{"ready": true, "families": {"ipv4": {...}}}` when at least one family can be traced, else 503
        `not-ready` with the same `families` and the reasons."""
        families = {str(family): _family(readiness) for family, readiness in self._engine.readiness().items()}
        if self._draining():
            raise later(problems.NOT_READY, "the service is shutting down", RETRY_AFTER_S, {"families": families})
        if not any(family["ready"] for family in families.values()):
            why = "; ".join(f"{name}: {family['reason']}" for name, family in families.items())
            detail = why or "no address family is served"
            raise later(problems.NOT_READY, detail, RETRY_AFTER_S, {"families": families})
        return _json(request, {"ready": True, "families": families})


def _json(request: EdgeRequest, document: dict[str, Any]) -> bytes:
    request.put(b"Cache-Control", b"no-store")
    return request.reply(encode(document))


def _family(readiness: Readiness) -> dict[str, Any]:
    known = readiness.capabilities
    return {
        "ready": readiness.ready,
        "reason": readiness.reason,
        "version": None if known is None else known.version,
        "protocols": None if known is None else sorted(known.protocols),
        "constant_flow_udp": None if known is None else known.constant_flow_udp,
    }
