"""A finished trace as a few hundred bytes, and back: what is kept of it. Pure.

Every fact is a row of small numbers: enumerations by their place, addresses by their place in a table, times as
milliseconds after the first probe. Of a judged probe only the judgement is kept.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from attrs import fields

from ..model import (
    AddressDescribed,
    Asn,
    Fact,
    Family,
    FlowCut,
    HopRateLimited,
    HopRetracted,
    MplsLabel,
    Outcome,
    ProbeSent,
    ProbeSettled,
    Protocol,
    Status,
    StatusChanged,
    StopReason,
    Target,
    TraceRequest,
)

_SENT, _SETTLED, _STATUS, _REST = 0, 1, 2, 3
_PLAIN: tuple[type[Any], ...] = (HopRateLimited, HopRetracted, FlowCut)
_CODES: dict[type, int] = {kind: code for code, kind in enumerate((*_PLAIN, AddressDescribed), _REST)}
_DESCRIBED = _CODES[AddressDescribed]
_OUTCOMES = tuple(Outcome)
_PLACES = {outcome: place for place, outcome in enumerate(_OUTCOMES)}
_DEFAULTS = {attribute.name: attribute.default for attribute in fields(TraceRequest)}


def pack(request: TraceRequest, facts: Iterable[Fact]) -> bytes:
    """A request and its facts as compact bytes."""
    judged = {fact.number for fact in facts if type(fact) is ProbeSettled}
    base = next((fact.sent_at for fact in facts if type(fact) is ProbeSent), 0.0)
    places: dict[str | None, int] = {None: 0}
    rows: list[tuple[Any, ...]] = []
    for fact in facts:
        if isinstance(fact, ProbeSettled):
            number, ttl, flow, sent_at, outcome, address, rtt_us, mpls, error = fact
            place = places.setdefault(address, len(places))
            after = round((sent_at - base) * 1000)
            row = (_SETTLED, number, ttl, flow, after, _PLACES[outcome], place, rtt_us)
            rows.append((*row, mpls, error) if mpls or error is not None else row)
        elif isinstance(fact, ProbeSent):
            if fact.number not in judged:
                rows.append((_SENT, *fact[:3], round((fact.sent_at - base) * 1000)))
        elif isinstance(fact, StatusChanged):
            status, at, reason, target, source, error = fact
            whole = None if target is None else (target.host, target.address, target.family, target.addresses)
            rows.append((_STATUS, status, at, reason, whole, source, error))
        else:
            rows.append((_CODES[type(fact)], *fact))
    asked = {name: value for name, default in _DEFAULTS.items() if (value := getattr(request, name)) != default}
    return zlib.compress(msgspec.msgpack.encode((asked, base, list(places)[1:], rows)), 1)


def unpack(packed: bytes) -> tuple[TraceRequest, list[Fact]]:
    """What `pack` was given."""
    asked, base, addresses, rows = msgspec.msgpack.decode(zlib.decompress(packed))
    if "family" in asked:
        asked["family"] = Family(asked["family"])
    if "protocol" in asked:
        asked["protocol"] = Protocol(asked["protocol"])
    return TraceRequest(**asked), list(_facts(rows, base, [None, *addresses]))


def _facts(rows: list[list[Any]], base: float, addresses: list[str | None]) -> Iterator[Fact]:
    for code, *row in rows:
        if code == _SETTLED:
            number, ttl, flow, after, outcome, place, rtt_us = row[:7]
            mpls, error = row[7:] or ((), None)
            labels = tuple(MplsLabel(*label) for label in mpls)
            sent_at = round(base + after / 1000, 3)
            yield ProbeSettled(
                number, ttl, flow, sent_at, _OUTCOMES[outcome], addresses[place], rtt_us, labels, error
            )
        elif code == _SENT:
            number, ttl, flow, after = row
            yield ProbeSent(number, ttl, flow, round(base + after / 1000, 3))
        elif code == _STATUS:
            status, at, reason, target, source, error = row
            if target is not None:
                host, address, family, others = target
                target = Target(host, address, Family(family), tuple(others))
            yield StatusChanged(
                Status(status), at, None if reason is None else StopReason(reason), target, source, error
            )
        elif code == _DESCRIBED:
            ttl, address, hostname, asn = row
            yield AddressDescribed(ttl, address, hostname, None if asn is None else Asn(*asn))
        else:
            yield _PLAIN[code - _REST](*row)
