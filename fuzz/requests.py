"""What clients ask: a body, a target, a header field. Each is read as something within limits, or refused in words.

The first byte says which reader gets the rest.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_network

from attrs import fields

from tracerouted.http.clients import client_of, parse_hop
from tracerouted.http.decode import decode_request
from tracerouted.http.idempotency import MOST_KEY_LENGTH, idempotency_key
from tracerouted.http.negotiate import MOST_WAIT_S, acceptable, event_id, is_json, matches, wait_preferred
from tracerouted.http.problems import ProblemError
from tracerouted.http.wire import _request
from tracerouted.model import MOST_UDP_PORT, Problem, Protocol, TraceRequest
from tracerouted.naming.hostname import MOST_NAME, parse_target
from tracerouted.naming.policy import TargetPolicy, parse_networks, prefix_of

_DEFAULT = TargetPolicy()
_OPEN = TargetPolicy((ip_network("0.0.0.0/0"), ip_network("::/0")))
_SHUT = TargetPolicy(_OPEN.allow, _OPEN.allow)
_OFFERS = ("application/json", "text/event-stream", "text/plain")


def run(data: bytes) -> None:
    """Read one thing."""
    if data:
        _READERS[data[0] % len(_READERS)](data[1:])


def _body(data: bytes) -> None:
    try:
        request = decode_request(data, {"lookup_asn": len(data) % 2 == 0})
    except ProblemError as problem:
        _check_problem(problem)
        return
    assert type(request) is TraceRequest
    for attribute in fields(TraceRequest):
        bounds, value = attribute.metadata.get("range"), getattr(request, attribute.name)
        assert bounds is None or value is None or (type(value) is int and bounds.least <= value <= bounds.most)
    _check_target(request.target)
    assert request.protocol is Protocol.UDP or (request.flows, request.source_port) == (1, None)
    assert (request.filled_port is None) is (request.protocol is Protocol.ICMP)
    if request.protocol is Protocol.UDP:
        assert (request.filled_port or 0) <= MOST_UDP_PORT
        assert (request.source_port or 0) + request.flows - 1 <= MOST_UDP_PORT
    shown = _request(request)
    assert shown == _request(decode_request(json.dumps(shown).encode(), {}))


def _check_problem(problem: ProblemError) -> None:
    assert problem.kind.status in (400, 422)
    document = problem.document("/traces")
    assert len(document) < 65_536
    told = json.loads(document)
    assert problem.kind.status == told["status"]
    assert told["detail"]
    assert (problem.kind.status == 422) is bool(told["errors"])
    for error in told["errors"]:
        assert error["detail"]
        assert error["pointer"] == "" or error["pointer"].startswith("/")


def _target(data: bytes) -> None:
    try:
        target = parse_target(data.decode("utf-8", "surrogateescape"))
    except ValueError as wrong:
        Problem("target", str(wrong)).detail.encode("utf-8", "surrogateescape")
        assert str(wrong)
        return
    _check_target(str(target))
    for policy in (_DEFAULT, _OPEN, _SHUT):
        if not isinstance(target, str):
            policy.refusal(target)


def _check_target(target: str) -> None:
    """It means one thing, and to the system's resolver the same."""
    parsed = parse_target(target)
    assert target == str(parsed)
    assert len(target) <= MOST_NAME
    assert target.isascii()
    assert target.isprintable()
    if isinstance(parsed, IPv6Address):
        assert parsed.scope_id is None
    if isinstance(parsed, str):
        assert target == target.lower()
        assert all(0 < len(label) < 64 for label in target.split("."))
        for read in (socket.inet_aton, lambda text: socket.inet_pton(socket.AF_INET6, text)):
            with suppress(OSError):
                read(target)
                raise AssertionError(f"{target} is a host name, but an address to the resolver")


def _address(data: bytes) -> None:
    address: IPv4Address | IPv6Address
    if len(data) >= 16:
        address = IPv6Address(data[:16])
    elif len(data) >= 4:
        address = IPv4Address(data[:4])
    else:
        return
    assert _SHUT.refusal(address)
    if _DEFAULT.refusal(address) is None:
        assert address.is_global
        assert not address.is_multicast
        assert isinstance(address, IPv4Address) or address in ip_network("2000::/3")
        assert _OPEN.refusal(address) is None
        assert TargetPolicy(deny=(ip_network(prefix_of(address)),)).refusal(address)
    assert address in ip_network(prefix_of(address))


def _networks(data: bytes) -> None:
    with suppress(ValueError):
        networks = parse_networks(data.decode("utf-8", "surrogateescape"))
        assert networks == parse_networks(",".join(map(str, networks)))
        for network in networks:
            assert TargetPolicy(deny=(network,)).refusal(network[0])


def _accept(data: bytes) -> None:
    assert acceptable(data, _OFFERS) in (*_OFFERS, None)
    is_json(data)


def _prefer(data: bytes) -> None:
    wait = wait_preferred(data)
    assert wait is None or 0 <= wait <= MOST_WAIT_S


def _condition(data: bytes) -> None:
    if matches(data, b'"a-1-json"'):
        assert b'"a-1-json"' in data or b"*" == data.strip()
    number = event_id(data)
    assert number is None or 0 <= number < 10**15


def _key(data: bytes) -> None:
    try:
        key = idempotency_key(data)
    except ProblemError as problem:
        assert 400 == problem.kind.status
    else:
        assert 1 <= len(key) <= MOST_KEY_LENGTH
        assert all(0x20 <= character <= 0x7E for character in key)


def _forwarded(data: bytes) -> None:
    parse_hop(data.decode("latin-1"))
    for trusted in ((), _OPEN.allow):
        client = client_of("192.0.2.1", data, trusted)
        assert ip_network(client).prefixlen in (32, 64)
        assert trusted or "192.0.2.1" == client


_READERS: tuple[Callable[[bytes], None], ...] = (
    _body,
    _target,
    _address,
    _networks,
    _accept,
    _prefer,
    _condition,
    _key,
    _forwarded,
)
