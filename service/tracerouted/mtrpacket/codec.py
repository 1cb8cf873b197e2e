"""The line protocol of mtr-packet(8): commands to bytes, bytes to replies. No I/O, no clock, no Twisted.

A command is one line, `TOKEN NAME [ARGUMENT VALUE]...`; a reply is one line that starts with the command's token.
Tokens are ours: positive 32-bit integers. mtr-packet uses token 0 for complaints about lines it could not parse.

Commands. Everything the probes of a trace have in common is formatted once, by `prepare`, from parsed addresses
and bounded integers; per probe only the token, the TTL and the local port are filled in, as integers. Nothing else
can reach the pipe, so a line is always printable ASCII, ends in its only LF, and is at most `MAX_COMMAND` bytes.

Replies. `Decoder.feed` takes any chunk of any bytes and never raises. It keeps at most `MAX_LINE` bytes of an
unfinished line; of a longer line only the token is believed. Known vocabulary (0.95, then newer):

    N reply|ttl-expired|no-route ip-4|ip-6 ADDRESS round-trip-time US [mpls LABEL,TC,S,TTL[,LABEL,TC,S,TTL]...]
    N no-reply | probes-exhausted | address-in-use | no-route | network-down | permission-denied | ...
    N unexpected-error errno E | invalid-argument [reason R] | unknown-command
    N feature-support support ok|no|VERSION
    0 command-parse-error | command-buffer-overflow
    newer: no-route-host (also with an address), no-route-network, host-down, wait-tcp-respone-timeout (sic)

A word nobody knows becomes `Word.UNKNOWN` with the printable part of its text kept.
"""

from __future__ import annotations

from enum import Enum, StrEnum
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import cycle
from typing import NamedTuple

from ..model import LEAST_SIZE, MOST_UDP_PORT, Family, MplsLabel, Protocol

MAX_TOKEN = 2**31 - 1
MAX_COMMAND = 200  # bytes with the LF; mtr-packet's own limit is 4095
MAX_LINE = 1024  # bytes; the longest genuine reply, eight MPLS labels, is under 300
MAX_TEXT = 120  # characters kept of a reply nobody understands
MOST_TIMEOUT_S = 60
MOST_SIZE = 1500
_KEPT_ADDRESSES = 4096

# --- commands ------------------------------------------------------------------------------------------------


class Prepared:
    """The constant part of a trace's probes, and what is needed to judge their answers."""

    __slots__ = ("_flow_template", "_template", "address", "family", "protocol", "stream", "timeout_s")

    def __init__(self, family: Family, protocol: Protocol, address: str, timeout_s: int, template: bytes) -> None:
        self.family = family
        self.protocol = protocol
        self.stream = protocol in (Protocol.TCP, Protocol.SCTP)
        self.address = address
        self.timeout_s = timeout_s
        self._template = template + b" ttl %d\n"
        self._flow_template = template + b" ttl %d local-port %d\n"

    def line(self, token: int, ttl: int, source_port: int | None) -> bytes:
        """The command for one probe. Raises ValueError for a TTL or source port that cannot be sent."""
        if not 0 < ttl < 256:
            raise ValueError(f"ttl must be from 1 to 255; got {ttl}")
        if source_port is None:
            return self._template % (token, ttl)
        if self.protocol is not Protocol.UDP or not 1024 <= source_port <= MOST_UDP_PORT:
            raise ValueError(f"{self.protocol} cannot be sent from source port {source_port}")
        return self._flow_template % (token, ttl, source_port)


def prepare(
    *, protocol: Protocol, address: str, source_address: str, port: int | None, size: int, tos: int, timeout_s: int
) -> Prepared:
    """Format the constant part of a trace's probes. Raises ValueError for anything mtr-packet must not be told.

    The arguments are those of `tracerouted.probing.prober.ProbeKind`. The source address is always given: without
    it an unreachable route crashes mtr-packet.
    """
    protocol = Protocol(protocol)
    target, source = _host(address), _host(source_address)
    if type(target) is not type(source):
        raise ValueError(f"{target} cannot be probed from {source}: the families differ")
    family = Family.IPV4 if isinstance(target, IPv4Address) else Family.IPV6
    _bounded("size", size, LEAST_SIZE[family], MOST_SIZE)
    _bounded("tos", tos, 0, 255)
    _bounded("timeout_s", timeout_s, 1, MOST_TIMEOUT_S)
    version = family.version
    words = (
        f"%d send-probe ip-{version} {target} local-ip-{version} {source} protocol {protocol}"
        f" size {size:d} tos {tos:d} timeout {timeout_s:d}"
    )
    if port is not None:
        if protocol is Protocol.ICMP:
            raise ValueError("icmp has no ports")
        _bounded("port", port, 1, MOST_UDP_PORT if protocol is Protocol.UDP else 65535)
        words += f" port {port:d}"
    return Prepared(family, protocol, str(target), timeout_s, words.encode("ascii"))


@lru_cache(256)  # a trace's probes are prepared twice, and most leave from the same address
def _host(text: str) -> IPv4Address | IPv6Address:
    """The address of some host. Raises ValueError for anything else."""
    parsed = ip_address(text)
    if parsed.is_unspecified:
        raise ValueError(f"{parsed} names no host")
    if isinstance(parsed, IPv6Address) and parsed.scope_id is not None:
        raise ValueError(f"{parsed} has a zone id")
    return parsed


def _bounded(name: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise ValueError(f"{name} must be from {least} to {most}; got {value}")


def spend_sequence(token: int, family: Family) -> bytes:
    """A command that uses up one of mtr-packet's probe sequence numbers and sends nothing: its target is no address.

    The answer is `invalid-argument`.
    """
    return b"%d send-probe ip-%d x\n" % (token, family.version)


class Feature(Enum):
    """What `check-support` can be asked about."""

    VERSION = b"version"
    IPV4 = b"ip-4"
    IPV6 = b"ip-6"
    ICMP = b"icmp"
    UDP = b"udp"
    TCP = b"tcp"
    SCTP = b"sctp"

    def line(self, token: int) -> bytes:
        """The command that asks for this feature."""
        return b"%d check-support feature %b\n" % (token, self.value)


# --- replies -------------------------------------------------------------------------------------------------


class Word(StrEnum):
    """What a reply says, before it is known what its command was."""

    REPLY = "reply"
    TTL_EXPIRED = "ttl-expired"
    NO_ROUTE = "no-route"  # an unreachable: by a router if it has an address, else by our own kernel
    NO_REPLY = "no-reply"
    EXHAUSTED = "probes-exhausted"
    ADDRESS_IN_USE = "address-in-use"
    ERRNO = "unexpected-error"
    TIMED_OUT = "timed-out"  # the kernel gave up connecting
    REFUSED = "refused"  # the probe never left; `text` says why
    SUPPORT = "feature-support"  # `text` is the answer
    IMPOSSIBLE = "impossible"  # an address no router can have
    UNKNOWN = "unknown"


class RawReply(NamedTuple):
    """One line from mtr-packet. `rtt_us` is as printed, possibly negative; `text` is bounded and printable."""

    token: int
    word: Word
    family: Family | None = None
    address: str | None = None
    rtt_us: int | None = None
    mpls: tuple[MplsLabel, ...] = ()
    errno: int = 0
    text: str = ""


_ADDRESSED = {
    b"reply": Word.REPLY,
    b"ttl-expired": Word.TTL_EXPIRED,
    b"no-route": Word.NO_ROUTE,
    b"no-route-host": Word.NO_ROUTE,
    b"no-route-network": Word.NO_ROUTE,
}
_BARE = {
    b"no-route": Word.NO_ROUTE,
    b"no-route-host": Word.NO_ROUTE,
    b"no-route-network": Word.NO_ROUTE,
    b"no-reply": Word.NO_REPLY,
    b"probes-exhausted": Word.EXHAUSTED,
    b"address-in-use": Word.ADDRESS_IN_USE,
    b"wait-tcp-respone-timeout": Word.TIMED_OUT,
    b"wait-tcp-response-timeout": Word.TIMED_OUT,
    b"network-down": Word.REFUSED,
    b"host-down": Word.REFUSED,
    b"permission-denied": Word.REFUSED,
    b"address-not-available": Word.REFUSED,
    b"invalid-argument": Word.REFUSED,
    b"unknown-command": Word.REFUSED,
    b"command-parse-error": Word.REFUSED,
    b"command-buffer-overflow": Word.REFUSED,
}
#: The widths of a label stack entry's fields (RFC 3032 section 2.1).
_MOST_LABEL = MplsLabel(label=2**20 - 1, tc=7, s=1, ttl=255)
_new = tuple.__new__


class Decoder:
    """Bytes in, replies out. `oversized` counts the lines longer than `MAX_LINE`; what they say is not known."""

    def __init__(self) -> None:
        self.oversized = 0
        self._partial = b""
        self._skipping = False  # inside an oversized line, until its LF
        # Per family: addresses as printed -> canonical; None: no router can have it.
        self._addresses: dict[bytes, tuple[Family, dict[bytes, str | None]]] = {
            b"ip-4": (Family.IPV4, {}),
            b"ip-6": (Family.IPV6, {}),
        }

    def feed(self, data: bytes) -> list[RawReply]:
        """The replies completed by `data`, in order. Whatever the bytes, it raises nothing."""
        lines = (self._partial + data).split(b"\n")
        self._partial = lines.pop()
        if self._skipping and lines:
            del lines[0]
            self._skipping = False
        replies = []
        for line in lines:
            if len(line) > MAX_LINE:
                replies.append(self._too_long(line))
                continue
            words = line.split()
            if len(words) < 2:
                if words:
                    replies.append(RawReply(0, Word.UNKNOWN, text=_printable(line)))
            elif not words[0].isdigit() or len(words[0]) > 10:
                replies.append(RawReply(0, Word.UNKNOWN, text=_printable(line)))
            elif len(words) > 2 and words[1] in _ADDRESSED and words[2] in self._addresses:
                replies.append(self._addressed(line, words))
            else:
                replies.append(_bare(line, words))
        if len(self._partial) > MAX_LINE and not self._skipping:
            replies.append(self._too_long(self._partial))
            self._skipping = True
        if self._skipping:
            self._partial = b""
        return replies

    def _too_long(self, line: bytes) -> RawReply:
        """Not kept, but the probe whose answer it seems to be has to hear that there was one."""
        self.oversized += 1
        token, _, rest = line[:MAX_LINE].partition(b" ")
        named = token.isdigit() and len(token) <= 10
        return RawReply(int(token) if named else 0, Word.UNKNOWN, text=_printable(rest if named else token))

    def _addressed(self, line: bytes, words: list[bytes]) -> RawReply:
        family, addresses = self._addresses[words[2]]
        mpls: tuple[MplsLabel, ...] = ()
        try:
            text, rtt = words[3], words[5]
            if words[4] != b"round-trip-time" or len(rtt) > 11:
                raise ValueError("no RTT")
            rtt_us = int(rtt) if rtt.isdigit() else _negative(rtt)
            if len(words) > 6:
                if len(words) != 8 or words[6] != b"mpls":
                    raise ValueError("unknown arguments")
                mpls = _labels(words[7])
            if text not in addresses:
                if len(addresses) >= _KEPT_ADDRESSES:
                    addresses.clear()
                addresses[text] = _canonical(family, text)
            address = addresses[text]
        except (ValueError, IndexError):
            return RawReply(int(words[0]), Word.UNKNOWN, text=_said(line))
        if address is None:
            return RawReply(int(words[0]), Word.IMPOSSIBLE, family, text=_said(line))
        return _new(RawReply, (int(words[0]), _ADDRESSED[words[1]], family, address, rtt_us, mpls, 0, ""))


def _canonical(family: Family, text: bytes) -> str | None:
    """The address as Python writes it; None if no router can have it. ValueError: no address at all."""
    parsed = (IPv4Address if family is Family.IPV4 else IPv6Address)(text.decode("ascii"))
    impossible = (
        parsed.is_unspecified
        or parsed.is_multicast
        or parsed == IPv4Address("255.255.255.255")
        or getattr(parsed, "scope_id", None) is not None
    )
    return None if impossible else str(parsed)


def _bare(line: bytes, words: list[bytes]) -> RawReply:
    token, name, text = int(words[0]), words[1], _said(line)
    if name == b"feature-support" and len(words) == 4 and words[2] == b"support":
        return RawReply(token, Word.SUPPORT, text=_printable(words[3]))
    if name == b"unexpected-error" and len(words) == 4 and words[2] == b"errno" and words[3].isdigit():
        if len(words[3]) <= 5:
            return RawReply(token, Word.ERRNO, errno=int(words[3]), text=text)
    elif name in _BARE and (len(words) == 2 or _BARE[name] is Word.REFUSED):
        return RawReply(token, _BARE[name], text=text)
    return RawReply(token, Word.UNKNOWN, text=text)


def _said(line: bytes) -> str:
    """What follows the token."""
    return _printable(line.split(None, 1)[1])


def _digits(word: bytes) -> int:
    if not word.isdigit():
        raise ValueError("not a number")
    return int(word)


def _negative(word: bytes) -> int:
    if word[:1] != b"-":
        raise ValueError("not a number")
    return -_digits(word[1:])


def _labels(word: bytes) -> tuple[MplsLabel, ...]:
    """`label,tc,s,ttl` once per label, all joined by commas."""
    numbers = [_digits(number) for number in word.split(b",")]
    if len(numbers) % 4 or any(number > most for number, most in zip(numbers, cycle(_MOST_LABEL), strict=False)):
        raise ValueError("not a label stack")
    return tuple(MplsLabel(*numbers[i : i + 4]) for i in range(0, len(numbers), 4))


def _printable(text: bytes) -> str:
    kept = text.strip()[:MAX_TEXT].decode("ascii", "replace")
    return "".join(c if " " <= c <= "~" else "?" for c in kept)
