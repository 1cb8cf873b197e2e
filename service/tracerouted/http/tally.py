"""Answers counted, and timed, by what was asked for: a handful of counters, whatever clients send.

A request's route is the pattern it matched (`/traces/{trace_id}`), never its path; what matched none, or was refused
before it was routed, is counted under `UNROUTED` without its method, which a client may make up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define, field

from ..durations import Durations

if TYPE_CHECKING:
    from .request import EdgeRequest

UNROUTED = "none"
BOUNDS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


@define(eq=False)
class Answers:
    """The answers of one kind: how many, and of those that were not asked to wait (Prefer, RFC 7240) how long each
    took, from the last byte of the request to the first of the answer."""

    count: int = field(default=0, init=False)
    durations: Durations = field(factory=lambda: Durations(BOUNDS_S), init=False)


@define(eq=False)
class Tally:
    """The answers by method, route and status. They only ever grow."""

    answers: dict[tuple[bytes, str, bytes], Answers] = field(factory=dict, init=False)

    def answered(self, request: EdgeRequest | None, status: bytes, now: float) -> None:
        """An answer begins; `request` is None where none could be read."""
        routed = request is not None and request.route is not UNROUTED
        key = (request.method, request.route, status) if request is not None and routed else (b"", UNROUTED, status)
        answers = self.answers.get(key)
        if answers is None:
            answers = self.answers[key] = Answers()
        answers.count += 1
        if request is not None and routed and not request.waits:
            answers.durations.add(now - request.began)
