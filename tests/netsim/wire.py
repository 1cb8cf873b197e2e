"""Packets as bytes: what routers and hosts answer to a probe.

Every builder takes the probe as it came off the wire (an IP packet without options or extension headers, which is
all mtr-packet and the kernel send) and returns a whole IP packet. Checksums use that the ones' complement sum of
16-bit words is the big-endian number modulo 65535 (RFC 1071), which Python computes faster than any loop.

Sources: RFC 792 and 4443 (ICMP), RFC 1812 4.3.2.3 (576-byte errors), RFC 4884 and 4950 (extensions, MPLS),
RFC 9293 (TCP).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

from attrs import frozen

ICMP, TCP, UDP, ICMP6 = 1, 6, 17, 58
LEAST_EXTENDED_QUOTE = 128

#: (type, code) of the errors a router or host can send in place of an answer, per IP version.
ERRORS = {
    "time-exceeded": {4: (11, 0), 6: (3, 0)},
    "port-unreachable": {4: (3, 3), 6: (1, 4)},
}
UNREACHABLE_TYPE = {4: 3, 6: 1}

Build = Callable[[bytes], bytes | None]


def _folded(total: int) -> int:
    """The Internet checksum whose words add up to `total`."""
    return 0xFFFF - (total % 0xFFFF or 0xFFFF if total else 0)


class Envelope:
    """The outer IP header of one responder's packets, kept per receiver and length because those hardly vary."""

    def __init__(self, version: int, source: bytes, ttl: int, broken: bool = False) -> None:
        self.version = version
        self.source = source
        self._ttl = ttl
        self._broken = broken
        self._headers: dict[tuple[bytes, int, int], bytes] = {}

    def header(self, receiver: bytes, protocol: int, length: int) -> bytes:
        """The header for `length` payload bytes; IPv6 has the same with no checksum of its own."""
        key = (receiver, protocol, length)
        header = self._headers.get(key)
        if header is None:
            header = self._headers[key] = self._made(receiver, protocol, length)
        return header

    def _made(self, receiver: bytes, protocol: int, length: int) -> bytes:
        if self.version == 6:
            return struct.pack("!IHBB", 6 << 28, length, protocol, self._ttl) + self.source + receiver
        first = struct.pack("!BBHHHBB", 0x45, 0, 20 + length, 0, 0, self._ttl, protocol)
        check = _folded(int.from_bytes(first + self.source + receiver, "big"))
        if self._broken:
            check ^= 0x0101
        return first + check.to_bytes(2, "big") + self.source + receiver

    def pseudo(self, receiver: bytes, protocol: int, length: int) -> int:
        """The pseudo-header's share of a transport checksum."""
        return int.from_bytes(self.source, "big") + int.from_bytes(receiver, "big") + protocol + length


@frozen
class MplsEntry:
    """A label stack entry as a router quotes it; the bottom-of-stack bit follows from the position."""

    label: int
    tc: int
    ttl: int


def mpls_extension(stack: Sequence[MplsEntry]) -> bytes:
    """The ICMP extension structure that quotes a label stack (RFC 4884 section 7, RFC 4950)."""
    words = b"".join(
        struct.pack("!I", entry.label << 12 | entry.tc << 9 | (position == len(stack)) << 8 | entry.ttl)
        for position, entry in enumerate(stack, 1)
    )
    found = struct.pack("!HBB", 4 + len(words), 1, 1) + words
    check = _folded(int.from_bytes(b"\x20\x00\x00\x00" + found, "big"))
    return struct.pack("!BBH", 0x20, 0, check) + found


@frozen(kw_only=True)
class ErrorForm:
    """How a responder words its ICMP errors.

    `spent` is how many hops the probe passed before it (they took that much of the TTL that is quoted); `quote` the
    number of quoted bytes, None for as many as the RFCs allow; `broken` is "" or which checksum is wrong.
    """

    kind: int
    code: int
    spent: int
    quote: int | None = None
    mpls: tuple[MplsEntry, ...] = ()
    broken: str = ""


def error(envelope: Envelope, form: ErrorForm) -> Build:
    """A builder of ICMP errors that quote the probe."""
    six = envelope.version == 6
    most = form.quote if form.quote is not None else (1232 if six else 548)
    extension = mpls_extension(form.mpls) if form.mpls else b""
    words = 0
    if extension:
        words = LEAST_EXTENDED_QUOTE // (8 if six else 4)
        most = min(most, LEAST_EXTENDED_QUOTE)
    rest = struct.pack("!BxH", words, 0) if six else struct.pack("!xBH", words, 0)
    first = bytes((form.kind, form.code))
    base = int.from_bytes(first + b"\0\0" + rest, "big")
    flaw = 0x0101 if form.broken == "icmp" else 0
    spent = form.spent
    protocol = ICMP6 if six else ICMP
    header, pseudo = envelope.header, envelope.pseudo

    def build_4(probe: bytes) -> bytes:
        check = (probe[10] << 8) + probe[11] + (spent << 8)
        check = (check & 0xFFFF) + (check >> 16)
        quote = b"%b%c%c%b%b" % (probe[:8], probe[8] - spent, probe[9], check.to_bytes(2, "big"), probe[12:most])
        quote = quote[:most]
        if extension:
            quote = quote.ljust(LEAST_EXTENDED_QUOTE, b"\0") + extension
        total = base + (int.from_bytes(quote, "big") << 8 * (len(quote) & 1))
        icmp = b"%b%b%b%b" % (first, (_folded(total) ^ flaw).to_bytes(2, "big"), rest, quote)
        return header(probe[12:16], protocol, len(icmp)) + icmp

    def build_6(probe: bytes) -> bytes:
        quote = b"%b%c%b" % (probe[:7], probe[7] - spent, probe[8:most])
        quote = quote[:most]
        if extension:
            quote = quote.ljust(LEAST_EXTENDED_QUOTE, b"\0") + extension
        receiver = probe[8:24]
        size = 8 + len(quote)
        total = base + pseudo(receiver, protocol, size)
        total += int.from_bytes(quote, "big") << 8 * (size & 1)
        icmp = b"%b%b%b%b" % (first, (_folded(total) ^ flaw).to_bytes(2, "big"), rest, quote)
        return header(receiver, protocol, size) + icmp

    return build_6 if six else build_4


def echo_reply(envelope: Envelope, broken: str = "") -> Build:
    """A builder of echo replies. The type's change is all that changes the checksum (RFC 1624)."""
    six = envelope.version == 6
    start, protocol, kind = (40, ICMP6, 129) if six else (20, ICMP, 0)
    flaw = 0x0101 if broken == "icmp" else 0

    def build(probe: bytes) -> bytes:
        receiver = probe[8:24] if six else probe[12:16]
        rest = probe[start + 4 :]
        size = 4 + len(rest)
        total = (kind << 8 << (8 * (size - 2))) + int.from_bytes(rest, "big")
        if size & 1:
            total <<= 8
        if six:
            total += envelope.pseudo(receiver, protocol, size)
        check = (_folded(total) ^ flaw).to_bytes(2, "big")
        return b"%b%c\0%b%b" % (envelope.header(receiver, protocol, size), kind, check, rest)

    return build


def _segment(envelope: Envelope, probe: bytes, seq: int, ack: int, flags: int) -> bytes:
    start = 40 if envelope.version == 6 else 20
    receiver = probe[8:24] if envelope.version == 6 else probe[12:16]
    source, destination = probe[start : start + 2], probe[start + 2 : start + 4]
    first = destination + source + struct.pack("!IIBBH", seq, ack, 0x50, flags, 65535)
    total = (int.from_bytes(first, "big") << 32) + envelope.pseudo(receiver, TCP, 20)
    return envelope.header(receiver, TCP, 20) + first + _folded(total).to_bytes(2, "big") + b"\0\0"


def tcp_answer(envelope: Envelope, accept: bool) -> Build:
    """A builder of a TCP port's answers: SYN-ACK or RST to a SYN, RST to a FIN, nothing to anything else.

    The reset ends a connection at once on both sides, so a probe leaves no retransmissions behind.
    """
    start = 40 if envelope.version == 6 else 20

    def build(segment: bytes) -> bytes | None:
        flags = segment[start + 13]
        seq, ack = struct.unpack_from("!II", segment, start + 4)
        if flags & 0x12 == 0x02:
            if accept:
                return _segment(envelope, segment, seq ^ 0x5A5A5A5A, seq + 1 & 0xFFFFFFFF, 0x12)
            return _segment(envelope, segment, 0, seq + 1 & 0xFFFFFFFF, 0x14)
        if flags & 0x05 == 0x01:
            return _segment(envelope, segment, ack, 0, 0x04)
        return None

    return build


def udp_answer(envelope: Envelope, service: Callable[[bytes], bytes | None]) -> Build:
    """A builder of a UDP port's answers: what `service` makes of the payload, None for silence."""
    start = 40 if envelope.version == 6 else 20

    def build(probe: bytes) -> bytes | None:
        payload = service(probe[start + 8 :])
        if payload is None:
            return None
        receiver = probe[8:24] if envelope.version == 6 else probe[12:16]
        size = 8 + len(payload)
        first = probe[start + 2 : start + 4] + probe[start : start + 2] + struct.pack("!H", size)
        total = int.from_bytes(first + b"\0\0" + payload + b"\0" * (size & 1), "big")
        check = _folded(total + envelope.pseudo(receiver, UDP, size)) or 0xFFFF
        return envelope.header(receiver, UDP, size) + first + check.to_bytes(2, "big") + payload

    return build
