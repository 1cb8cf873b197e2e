"""Answers counted, and timed, by what was asked for: a handful of counters, whatever clients send.

A request's route is the pattern it matched (`/traces/{trace_id}`), never its path; what matched none, or was refused
before it was routed, is counted under `UNROUTED` without its method, which a client may make up.
"""

# twisted.web has no annotations for most of what is called here.
# mypy: allow-untyped-calls

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from attrs import define, field
from twisted.web.http_headers import Headers

from ..durations import Durations

if TYPE_CHECKING:
    from .request import EdgeRequest

UNROUTED = "none"
BOUNDS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


@define(eq=False)
class Tally:
    """`answers` by method, route and status; `durations` by method and route. Both only ever grow.

    A duration is from the last byte of the request to the first of its answer. An answer that was asked to wait
    (Prefer, RFC 7240) is not timed.
    """

    answers: Counter[tuple[bytes, str, bytes]] = field(factory=Counter, init=False)
    durations: dict[tuple[bytes, str], Durations] = field(factory=dict, init=False)

    def answered(self, request: EdgeRequest | None, status: bytes, headers: Headers, now: float) -> None:
        """An answer begins; `request` is None where none could be read."""
        if request is None or request.route is UNROUTED:
            self.answers[b"", UNROUTED, status] += 1
            return
        method, route = request.method, request.route
        self.answers[method, route, status] += 1
        if headers.hasHeader(b"Preference-Applied"):
            return
        durations = self.durations.get((method, route))
        if durations is None:
            durations = self.durations[method, route] = Durations(BOUNDS_S)
        durations.add(now - request.began)
