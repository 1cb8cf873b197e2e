"""Who a client is where nothing but its address tells: pure, and not to be talked into anything by the client.

X-Forwarded-For is a list to which each proxy appends the address it was called from, so only its right end, written
by our own proxies, can be believed. It is read from the right, past the proxies that are trusted; the first address
that is none of them is the client. Whatever stands to the left of it was written by the client.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address

from ..naming.special import IPAddress, IPNetwork

# Some proxies add the port, then with IPv6 in brackets.
_HOP = re.compile(r"\[([0-9A-Fa-f:.]{2,45})\](?::[0-9]{1,5})?|([0-9.]{7,15})(?::[0-9]{1,5})?|([0-9A-Fa-f:.]{2,45})")


def client_of(peer: str, forwarded_for: bytes | None, trusted: tuple[IPNetwork, ...]) -> str:
    """The name limits go by: an IPv4 address, or an IPv6 /64, which is the least that one site is given.

    `peer` is the address the connection comes from, `forwarded_for` all its X-Forwarded-For fields joined by commas;
    they count only from a peer within `trusted`. What cannot be read ends the search: the client is then whoever
    handed it on.
    """
    client = _plain(ip_address(peer))
    if forwarded_for is not None:
        hops = forwarded_for.decode("latin-1").split(",")
        while hops and any(client in network for network in trusted):
            hop = parse_hop(hops.pop())
            if hop is None:
                break
            client = hop
    if isinstance(client, IPv4Address):
        return str(client)
    return f"{IPv6Address(int(client) >> 64 << 64)}/64"


def parse_hop(text: str) -> IPAddress | None:
    """The address of one entry of X-Forwarded-For; None for anything else, such as `unknown`."""
    match = _HOP.fullmatch(text.strip(" \t"))
    if match is None:
        return None
    try:
        return _plain(ip_address(match[1] or match[2] or match[3]))
    except ValueError:
        return None


def _plain(address: IPAddress) -> IPAddress:
    """An IPv4 address in IPv6's clothes (RFC 4291 section 2.5.5.2) as itself."""
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address
