"""Which addresses may be traced.

By default only globally routable unicast addresses may. `allow` opens what the tables of `special` close; `deny`
closes, and wins over both. An IPv6 address that carries IPv4 addresses (NAT64, 6to4, Teredo, ...) must pass itself,
and so must every IPv4 address inside it, each by the same rules. So allowing 64:ff9b::/96 opens the way through a
translator to public IPv4 hosts, but to 10.0.0.1 behind it only together with 10.0.0.0/8; and denying an IPv4
network denies every spelling of it. What is no host's address (unspecified, multicast, broadcast, IPv4-mapped)
stays closed whatever `allow` says.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from attrs import frozen

from .special import IPAddress, IPNetwork, embedded, special

ALLOW_SETTING = "TRACEROUTED_ALLOW_TARGETS"
DENY_SETTING = "TRACEROUTED_DENY_TARGETS"


@frozen
class TargetPolicy:
    """The networks an operator opened and closed, over the built-in tables."""

    allow: tuple[IPNetwork, ...] = ()
    deny: tuple[IPNetwork, ...] = ()

    def refusal(self, address: IPAddress) -> str | None:
        """Why this address may not be traced, naming the setting that decides; None when it may."""
        reason = self._plain_refusal(address)
        if reason is not None:
            return reason
        for form, inner in embedded(address):
            reason = self._plain_refusal(inner)
            if reason is not None:
                return f"{address} carries {inner} ({form}): {reason}"
        return None

    def _plain_refusal(self, address: IPAddress) -> str | None:
        """The rules applied to this very address, whatever it carries."""
        if _within(address, self.deny):
            return f"{address} may not be traced: {DENY_SETTING} closes it"
        row = special(address)
        if row is None:
            return None
        what = f"{address} is {row.meaning} ({row.network}, {row.source})"
        if row.never:
            return f"{what} and never a target; no setting, {ALLOW_SETTING} included, opens it"
        if _within(address, self.allow):
            return None
        return f"{what}; only globally routable addresses may be traced unless {ALLOW_SETTING} covers it"


def _within(address: IPAddress, networks: tuple[IPNetwork, ...]) -> bool:
    return any(address in network for network in networks)


def parse_networks(text: str) -> tuple[IPNetwork, ...]:
    """Networks in CIDR notation, separated by commas or white space; a bare address is a network of one.

    Raises ValueError naming the wrong word and, where it is clear, what to write instead.
    """
    return tuple(_parse_network(word) for word in text.replace(",", " ").split())


def _parse_network(word: str) -> IPNetwork:
    address_text, slash, length = word.partition("/")
    try:
        address = ip_address(address_text)
    except ValueError:
        raise ValueError(f"{word!r} is not a network: {address_text!r} is not an IPv4 or IPv6 address") from None
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        raise ValueError(f"{word!r} is not a network: leave out the zone {'%' + address.scope_id!r}")
    # ip_network also takes netmasks and hostmasks; one spelling is enough, and 10.0.0.0/0.0.0.255 is easily misread.
    if slash and not (length.isascii() and length.isdigit() and int(length) <= address.max_prefixlen):
        raise ValueError(f"{word!r} is not a network: after / comes a length from 0 to {address.max_prefixlen}")
    network = ip_network(word, strict=False)
    if network.network_address != address:
        raise ValueError(f"{word!r} has bits set after its length: write {network}, or {address} for that address")
    return network


def prefix_of(address: IPAddress) -> str:
    """The /24 or /48 an address is in: what is taken for one site where limits or path lengths are per site."""
    if isinstance(address, IPv4Address):
        return f"{IPv4Address(int(address) >> 8 << 8)}/24"
    return f"{IPv6Address(int(address) >> 80 << 80)}/48"
