"""What mtr-packet is told: whatever is asked for is refused, or becomes one line of the grammar with those values."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Any

from tracerouted.model import Family, Protocol
from tracerouted.mtrpacket.codec import MAX_COMMAND, MAX_TOKEN, Feature, Prepared, prepare, spend_sequence

from . import Draw

_LINE = re.compile(
    rb"(?P<token>[1-9][0-9]{0,9}) send-probe ip-(?P<version>[46]) (?P<address>[0-9a-f:.]{2,45})"
    rb" local-ip-(?P=version) (?P<source_address>[0-9a-f:.]{2,45}) protocol (?P<protocol>icmp|udp|tcp|sctp)"
    rb" size (?P<size>[0-9]{2,4}) tos (?P<tos>[0-9]{1,3}) timeout (?P<timeout_s>[0-9]{1,2})"
    rb"(?: port (?P<port>[0-9]{1,5}))? ttl (?P<ttl>[0-9]{1,3})(?: local-port (?P<source_port>[0-9]{4,5}))?\n"
)
_BOUNDS = {"tos": (0, 255), "timeout_s": (1, 60), "ttl": (1, 255), "source_port": (1024, 32_999)}
_TEXTS = ("192.0.2.1", "198.51.100.255", "2001:db8::1", "2001:db8::ffff:1", "icmp", "udp", "tcp", "sctp")
_NUMBERS = (1, 28, 48, 64, 80, 255, 256, 1023, 1024, 1500, 1501, 32_999, 33_000, 65_535, 65_536, 0, -1, 60, 61)


def run(data: bytes) -> None:
    """Prepare probes and make a line of them."""
    draw = Draw(data)
    asked: dict[str, Any] = {
        "protocol": _text(draw),
        "address": _text(draw),
        "source_address": _text(draw),
        "port": _number(draw),
        "size": _number(draw) or 64,
        "tos": _number(draw) or 0,
        "timeout_s": _number(draw) or 1,
    }
    token, ttl, source_port = 1 + (_number(draw) or 0) % MAX_TOKEN, _number(draw) or 0, _number(draw)
    for line in (Feature.VERSION.line(token), spend_sequence(token, Family.IPV6)):
        assert re.fullmatch(rb"[ -~]{1,199}\n", line)
    try:
        prepared = prepare(**asked)
        line = prepared.line(token, ttl, source_port)
    except ValueError:
        return
    assert len(line) <= MAX_COMMAND
    _check(line, prepared, {**asked, "token": token, "ttl": ttl, "source_port": source_port})


def _text(draw: Draw) -> str:
    """One of the usual texts, or any."""
    kind = draw.byte()
    if kind < 128:
        return _TEXTS[kind % len(_TEXTS)]
    return draw.bytes(kind % 64).decode("utf-8", "surrogateescape")


def _number(draw: Draw) -> int | None:
    """Nothing, one of the numbers near a bound, or any."""
    kind = draw.byte()
    if kind < 32:
        return None
    if kind < 192:
        return _NUMBERS[kind % len(_NUMBERS)]
    return int.from_bytes(draw.bytes(1 + kind % 8), "big", signed=True)


def _check(line: bytes, prepared: Prepared, asked: dict[str, Any]) -> None:
    match = _LINE.fullmatch(line)
    assert match, line
    said = {name: None if value is None else value.decode() for name, value in match.groupdict().items()}
    for name, value in asked.items():
        if name in ("address", "source_address"):
            address = ip_address(value)
            assert (str(address), str(address.version)) == (said[name], said["version"])
            assert not address.is_unspecified
        else:
            assert (None if value is None else str(value)) == said[name]
    for name, (least, most) in _BOUNDS.items():
        assert said[name] is None or least <= int(said[name] or 0) <= most
    assert (28 if said["version"] == "4" else 48) <= int(said["size"] or 0) <= 1500
    if said["port"] is not None:
        assert prepared.protocol is not Protocol.ICMP
        assert 1 <= int(said["port"]) <= (32_999 if prepared.protocol is Protocol.UDP else 65_535)
    assert said["source_port"] is None or prepared.protocol is Protocol.UDP
