"""The DNS of the simulated internet: what a name server in it answers to a query (RFC 1035, over UDP, without EDNS).

There is one tree of names, whichever simulated host is asked; a host is a name server by having a UDP port in the
state "dns". The names are those of all loaded scenarios that have a `domain`:

    A, AAAA   <target>.<domain>
    PTR       the same name for a target's addresses; a router's `name`, or r<number>.<domain>
    TXT       where addresses belong to autonomous systems, for the scenarios' `asns` (with or without a `domain`),
              in the zones and the format of Team Cymru's service:
                  <reversed octets>.origin.asn.cymru.com     "64500 | 192.0.2.0/24 | DE | ripencc | 2020-01-01"
                  <reversed nibbles>.origin6.asn.cymru.com   "64500 | 2001:db8::/32 | DE | ripencc | 2020-01-01"
                  AS<number>.asn.cymru.com                   "64500 | DE | ripencc | 2020-01-01 | EXAMPLE, DE"
              The longest prefix counts; octets and nibbles left out are zero.

Any other name does not exist. Answers do not depend on time or chance; a slow or a silent server is a matter of the
host (`rtt`, `lose`, a port that is "silent").
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from .scenario import AutonomousSystem, Scenario, Target

A, PTR, TXT, AAAA = 1, 12, 16, 28
OK, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = 0, 1, 2, 3, 4, 5
IN = 1
RESPONSE, AUTHORITATIVE, TRUNCATED, RECURSION_DESIRED = 0x8000, 0x0400, 0x0200, 0x0100
OPCODE = 0x7800
MOST_BYTES = 512
TTL_S = 300

ORIGIN, ORIGIN6, ASNS = ".origin.asn.cymru.com", ".origin6.asn.cymru.com", ".asn.cymru.com"

Records = dict[tuple[str, int], list[bytes]]


def encode_name(name: str) -> bytes:
    """A name of labels between dots on the wire. Its length is not looked at: a hostile owner's may be too long."""
    return b"".join(bytes((len(label),)) + label for label in name.encode().split(b".")) + b"\0"


def _text(text: str) -> bytes:
    """A text as character-strings of at most 255 bytes."""
    data = text.encode()
    parts = [data[start : start + 255] for start in range(0, len(data), 255)]
    return b"".join(bytes((len(part),)) + part for part in parts)


class Names:
    """All names of some scenarios, and a name server's answers about them."""

    def __init__(self, scenarios: Iterable[Scenario] = ()) -> None:
        self.replace(scenarios)

    def replace(self, scenarios: Iterable[Scenario]) -> None:
        """Know these scenarios' names and no others."""
        self._records: Records = {}
        self._existing: set[str] = set()
        self._systems: dict[int, AutonomousSystem] = {}
        self._origins: list[tuple[IPv4Network | IPv6Network, int]] = []
        for scenario in scenarios:
            self._systems.update(scenario.asns)
            self._origins += [(prefix, number) for number, its in scenario.asns.items() for prefix in its.prefixes]
            if scenario.domain:
                for target in scenario.targets:
                    for family in scenario.networks:
                        self._add_target(scenario, target, family)
        for name, _ in self._records:
            labels = name.split(".")
            self._existing.update(".".join(labels[start:]) for start in range(len(labels)))

    def _add_target(self, scenario: Scenario, target: Target, family: str) -> None:
        host = f"{target.name}.{scenario.domain}".lower()
        address = ip_address(scenario.address(family, target.at, target))
        self._add(host, A if address.version == 4 else AAAA, address.packed)
        self._add(address.reverse_pointer, PTR, encode_name(host))
        for number in sorted({*target.loop, *(n for way in target.variants() for n in way)}):
            router = scenario.router(number)
            name = f"r{number}.{scenario.domain}" if router.name is None else router.name
            if name and router.source == "own":
                text = getattr(router, f"source_{family}") or scenario.address(family, number, target)
                self._add(ip_address(text).reverse_pointer, PTR, encode_name(name))

    def _add(self, name: str, kind: int, data: bytes) -> None:
        records = self._records.setdefault((name, kind), [])
        if data not in records:
            records.append(data)

    # --- answering -------------------------------------------------------------------------------------------

    def answer(self, query: bytes) -> bytes | None:
        """The answer to a query; None to what is none."""
        return self._answer(query, None)

    def fail(self, query: bytes) -> bytes | None:
        """The answer of a server that cannot answer: SERVFAIL."""
        return self._answer(query, SERVFAIL)

    def _answer(self, query: bytes, rcode: int | None) -> bytes | None:
        if len(query) < 12:
            return None
        identity, flags, questions, *_ = struct.unpack_from("!6H", query)
        if flags & RESPONSE:
            return None
        flags = RESPONSE | AUTHORITATIVE | flags & (OPCODE | RECURSION_DESIRED)
        question = _question(query) if questions == 1 else None
        if question is None:
            return struct.pack("!6H", identity, flags | FORMERR, 0, 0, 0, 0)
        name, kind, of_class, end = question
        found: list[bytes] = []
        if rcode is None and flags & OPCODE:
            rcode = NOTIMP
        elif rcode is None and of_class != IN:
            rcode = REFUSED
        elif rcode is None:
            found = self._records.get((name, kind), [])
            texts = list(self._texts(name))
            if kind == TXT:
                found = [_text(text) for text in texts]
            rcode = OK if texts or name in self._existing else NXDOMAIN
        # Owner names are the question's, by a pointer to it (RFC 1035 section 4.1.4).
        body = b"".join(struct.pack("!3HIH", 0xC00C, kind, IN, TTL_S, len(data)) + data for data in found)
        if end + len(body) > MOST_BYTES:
            flags, found, body = flags | TRUNCATED, [], b""
        return struct.pack("!6H", identity, flags | rcode, 1, len(found), 0, 0) + query[12:end] + body

    def _texts(self, name: str) -> Iterator[str]:
        if name.endswith((ORIGIN, ORIGIN6)):
            address = _reversed_address(name)
            prefixes = [(prefix, number) for prefix, number in self._origins if address and address in prefix]
            if prefixes:
                longest = max((prefix for prefix, _ in prefixes), key=lambda prefix: prefix.prefixlen)
                numbers = sorted(number for prefix, number in prefixes if prefix == longest)
                system = self._systems[numbers[0]]
                yield f"{' '.join(map(str, numbers))} | {longest} | {_registration(system)}"
        elif name.endswith(ASNS):
            number = next((number for number in self._systems if name == f"as{number}{ASNS}"), None)
            if number is not None:
                system = self._systems[number]
                yield f"{number} | {_registration(system)} | {system.name}, {system.country}"


def _registration(system: AutonomousSystem) -> str:
    return f"{system.country} | {system.registry} | {system.allocated}"


def _question(query: bytes) -> tuple[str, int, int, int] | None:
    """The name in lower case, type and class of the question, and where it ends; None when there is none."""
    labels, at = [], 12
    while at < len(query) and 0 < (length := query[at]) < 64:
        labels.append(query[at + 1 : at + 1 + length].decode("latin-1").lower())
        at += 1 + length
    if at + 5 > len(query) or query[at]:
        return None
    kind, of_class = struct.unpack_from("!HH", query, at + 1)
    return ".".join(labels), kind, of_class, at + 5


def _reversed_address(name: str) -> IPv4Address | IPv6Address | None:
    """The address a name in one of the origin zones asks about; None where it is none."""
    four = name.endswith(ORIGIN)
    parts = name.removesuffix(ORIGIN if four else ORIGIN6).split(".")[::-1]
    try:
        if four:
            return IPv4Address(".".join(parts + ["0"] * (4 - len(parts))))
        digits = "".join(parts).ljust(32, "0")
        return IPv6Address(int(digits, 16)) if len(digits) == 32 and max(map(len, parts)) == 1 else None
    except ValueError:
        return None
