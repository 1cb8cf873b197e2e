"""Addresses that are not ordinary hosts on the Internet, as tables, and IPv4 addresses hidden inside IPv6 ones.

The rows are those of the IANA special-purpose registries (RFC 6890, RFC 8190) that are not globally reachable, with
multicast, deprecated and translated forms added. Where a registry marks a block reachable but what answers there is
whatever is nearest, or nothing (the anycast services and identifiers inside 192.0.0.0/24 and 2001::/23, the NAT64
prefix), the block is listed all the same. The globally announced AS112 and AMT prefixes (192.31.196.0/24,
192.52.193.0/24, 192.175.48.0/24, 2620:4f:8000::/48) are ordinary unicast and not listed.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

from attrs import frozen

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network


@frozen
class Special:
    """A block of addresses, what it is for, and the document that says so.

    `never` marks what is no host's address on any network, so that no setting can make it a target.
    """

    network: IPNetwork
    meaning: str
    source: str
    never: bool = False


def _rows(*rows: tuple[str, str, str], never: bool = False) -> tuple[Special, ...]:
    return tuple(Special(ip_network(block), meaning, source, never) for block, meaning, source in rows)


SPECIAL_IPV4 = _rows(
    # 0.0.0.0 is traced as 127.0.0.1 by mtr-packet
    ("0.0.0.0/32", "the unspecified address", "RFC 1122 section 3.2.1.3"),
    ("224.0.0.0/4", "multicast", "RFC 5771"),
    ("255.255.255.255/32", "limited broadcast", "RFC 919"),
    never=True,
) + _rows(
    ("0.0.0.0/8", '"this network"', "RFC 791 section 3.2"),
    ("10.0.0.0/8", "private use", "RFC 1918"),
    ("100.64.0.0/10", "shared address space behind carrier NAT", "RFC 6598"),
    ("127.0.0.0/8", "loopback", "RFC 1122 section 3.2.1.3"),
    ("169.254.0.0/16", "link local", "RFC 3927"),
    ("172.16.0.0/12", "private use", "RFC 1918"),
    ("192.0.0.0/24", "IETF protocol assignments", "RFC 6890 section 2.1"),
    ("192.0.2.0/24", "documentation", "RFC 5737"),
    ("192.88.99.0/24", "deprecated 6to4 relay anycast", "RFC 7526"),
    ("192.168.0.0/16", "private use", "RFC 1918"),
    ("198.18.0.0/15", "benchmarking", "RFC 2544"),
    ("198.51.100.0/24", "documentation", "RFC 5737"),
    ("203.0.113.0/24", "documentation", "RFC 5737"),
    ("240.0.0.0/4", "reserved", "RFC 1112 section 4"),
)

SPECIAL_IPV6 = _rows(
    ("::/128", "the unspecified address", "RFC 4291 section 2.5.2"),
    # Never on any wire: the socket interface means the IPv4 address by it.
    ("::ffff:0:0/96", "an IPv4-mapped address", "RFC 4291 section 2.5.5.2"),
    ("ff00::/8", "multicast", "RFC 4291 section 2.7"),
    never=True,
) + _rows(
    ("::/96", "a deprecated IPv4-compatible address", "RFC 4291 section 2.5.5.1"),
    ("::1/128", "loopback", "RFC 4291 section 2.5.3"),
    ("::ffff:0:0:0/96", "an IPv4-translated address", "RFC 2765 section 2.1"),
    ("64:ff9b::/96", "IPv4 behind a NAT64 translator", "RFC 6052"),
    ("64:ff9b:1::/48", "IPv4 behind a local translator", "RFC 8215"),
    ("100::/64", "discard only", "RFC 6666"),
    ("100:0:0:1::/64", "the dummy prefix", "RFC 9780"),
    ("2001::/23", "IETF protocol assignments", "RFC 2928"),
    ("2001::/32", "Teredo", "RFC 4380"),
    ("2001:2::/48", "benchmarking", "RFC 5180"),
    ("2001:10::/28", "deprecated ORCHID identifiers", "RFC 4843"),
    ("2001:20::/28", "ORCHIDv2 identifiers", "RFC 7343"),
    ("2001:30::/28", "drone remote identifiers", "RFC 9374"),
    ("2001:db8::/32", "documentation", "RFC 3849"),
    ("2002::/16", "6to4", "RFC 3056"),
    ("3fff::/20", "documentation", "RFC 9637"),
    ("5f00::/16", "segment routing identifiers", "RFC 9602"),
    ("fc00::/7", "unique local", "RFC 4193"),
    ("fe80::/10", "link local", "RFC 4291 section 2.5.6"),
    ("fec0::/10", "deprecated site local", "RFC 3879"),
    # Outside 2000::/3 nothing has been given out for global unicast.
    ("::/3", "reserved by the IETF", "RFC 4291 section 2.4"),
    ("4000::/2", "reserved by the IETF", "RFC 4291 section 2.4"),
    ("8000::/1", "reserved by the IETF", "RFC 4291 section 2.4"),
)


def _most_specific_first(rows: tuple[Special, ...]) -> tuple[tuple[int, int, Special], ...]:
    """First and last address of each row as numbers, which compare faster than networks do, and the row."""
    ordered = sorted(rows, key=lambda row: -row.network.prefixlen)
    return tuple((int(row.network[0]), int(row.network[-1]), row) for row in ordered)


_BY_VERSION = {4: _most_specific_first(SPECIAL_IPV4), 6: _most_specific_first(SPECIAL_IPV6)}


def special(address: IPAddress) -> Special | None:
    """The most specific row that holds this address; None for an ordinary global unicast address."""
    value = int(address)
    for first, last, row in _BY_VERSION[address.version]:
        if first <= value <= last:
            return row
    return None


_COMPATIBLE = IPv6Network("::/96")
_TRANSLATED = IPv6Network("::ffff:0:0:0/96")
_NAT64 = IPv6Network("64:ff9b::/96")
_LOCAL_NAT64 = IPv6Network("64:ff9b:1::/48")
_TEREDO = IPv6Network("2001::/32")
_6TO4 = IPv6Network("2002::/16")


def embedded(address: IPAddress) -> Iterator[tuple[str, IPv4Address]]:
    """Every IPv4 address this address carries, each with what it is there; nothing for an IPv4 address.

    A packet to such an address ends, or may end, at the IPv4 address inside it. IPv4-mapped addresses are left out:
    no packet has one.
    """
    if isinstance(address, IPv4Address):
        return
    value = int(address)
    low = IPv4Address(value & 0xFFFFFFFF)
    if address in _COMPATIBLE and value > 1:  # :: and ::1 are addresses of their own
        yield "IPv4-compatible", low
    elif address in _TRANSLATED:
        yield "IPv4-translated", low
    elif address in _NAT64:
        yield "NAT64", low
    elif address in _LOCAL_NAT64:
        for found in _local_nat64_readings(value):
            yield "NAT64", found
    elif address in _6TO4:
        yield "6to4", IPv4Address(value >> 80 & 0xFFFFFFFF)
    elif address in _TEREDO:
        yield "Teredo server", IPv4Address(value >> 64 & 0xFFFFFFFF)
        yield "Teredo client", IPv4Address(value & 0xFFFFFFFF ^ 0xFFFFFFFF)


def _local_nat64_readings(value: int) -> Iterator[IPv4Address]:
    """The IPv4 addresses that a translator prefix inside 64:ff9b:1::/48 can have put there.

    The prefix may be /48, /56, /64 or /96 long; bits 64 to 71 and what follows the IPv4 address are zero (RFC 6052
    section 2.2). A reading that these zeros rule out is left out, as is 0.0.0.0 where another reading exists.
    """
    if value >> 56 & 0xFF:
        # Breaks RFC 6052 for every prefix length; a /96 translator would still take the last 32 bits.
        yield IPv4Address(value & 0xFFFFFFFF)
        return
    packed = value & ~(0xFF << 56)
    squeezed = (packed >> 64 << 56) | (packed & (1 << 56) - 1)  # without the zero octet: 120 bits
    readings = {IPv4Address(value & 0xFFFFFFFF)}
    for length, zeros in ((48, 40), (56, 32), (64, 24)):
        if value & (1 << zeros) - 1 == 0:
            readings.add(IPv4Address(squeezed >> 120 - length - 32 & 0xFFFFFFFF))
    if len(readings) > 1:
        readings.discard(IPv4Address(0))
    yield from sorted(readings)
