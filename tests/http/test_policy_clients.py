"""Who a client is, behind proxies and with forged fields."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tracerouted.http.clients import client_of, parse_hop
from tracerouted.naming.policy import parse_networks

TRUSTED = parse_networks("10.0.0.0/8, 2001:db8:aaaa::/48, ::1")


@pytest.mark.parametrize(
    ("peer", "client"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::ffff", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("fe80::1%eth0", "fe80::/64"),
    ],
)
def test_by_address(peer: str, client: str) -> None:
    """IPv4 by address, also where IPv6 sockets show it; IPv6 by /64."""
    assert client == client_of(peer, None, ())


@pytest.mark.parametrize("forged", ["198.51.100.9", "10.0.0.1", "127.0.0.1", "192.0.2.7, 198.51.100.9"])
def test_a_stranger_is_not_believed(forged: str) -> None:
    """X-Forwarded-For from an address that is no trusted proxy counts for nothing, nor where none is trusted."""
    assert "192.0.2.7" == client_of("192.0.2.7", forged.encode(), TRUSTED)
    assert "10.0.0.1" == client_of("10.0.0.1", forged.encode(), ())


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("10.0.0.1", "192.0.2.7", "192.0.2.7"),
        ("::ffff:10.0.0.1", "192.0.2.7", "192.0.2.7"),
        ("::1", "2001:db8:1:2:3::9", "2001:db8:1:2::/64"),
        ("10.0.0.1", "198.51.100.9, 192.0.2.7", "192.0.2.7"),  # the left one is what the client wrote
        ("10.0.0.1", "198.51.100.9,192.0.2.7,10.9.9.9", "192.0.2.7"),
        ("10.0.0.1", "198.51.100.9, 192.0.2.7, 2001:db8:aaaa::5,10.1.1.1", "192.0.2.7"),
        ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),  # all trusted: somebody in the house
        ("10.0.0.1", "192.0.2.7:52341", "192.0.2.7"),
        ("10.0.0.1", "[2001:db8:1:2::9]:52341", "2001:db8:1:2::/64"),
        ("10.0.0.1", "[2001:db8:1:2::9]", "2001:db8:1:2::/64"),
        ("10.0.0.1", "::ffff:192.0.2.7", "192.0.2.7"),
    ],
)
def test_the_rightmost_untrusted_hop(peer: str, forwarded: str, client: str) -> None:
    """Trusted proxies are read past from the right; who called the outermost of them is the client."""
    assert client == client_of(peer, forwarded.encode(), TRUSTED)


@pytest.mark.parametrize(
    "bad",
    ["", " ", "unknown", "_hidden", "192.0.2", "192.0.2.7.1", "192.0.2.07", "fe80::1%eth0", "\xff", '"a"'],
)
def test_what_cannot_be_read(bad: str) -> None:
    """An entry that is no address hides nobody: what stands left of it is not believed."""
    raw = bad.encode("latin-1")
    assert "10.0.0.1" == client_of("10.0.0.1", raw, TRUSTED)
    assert "10.0.0.1" == client_of("10.0.0.1", b"192.0.2.7, " + raw, TRUSTED)
    assert "10.2.2.2" == client_of("10.0.0.1", b"192.0.2.7, " + raw + b", 10.2.2.2", TRUSTED)


_HOP = st.one_of(st.ip_addresses().map(str), st.text(alphabet="0123456789abcdef:.[]% ,x", max_size=30))


@given(st.ip_addresses().map(str), st.one_of(st.binary(), st.lists(_HOP).map(lambda h: ", ".join(h).encode())))
@example("::", b"[::ffff:0.0.0.0]:99999")
def test_always_a_client(peer: str, forwarded: bytes) -> None:
    """Whatever the field holds, there is a client: an IPv4 address or an IPv6 /64, and never a trusted one's word."""
    network = ip_network(client_of(peer, forwarded, TRUSTED))
    assert (4, 32) == (network.version, network.prefixlen) or (6, 64) == (network.version, network.prefixlen)


@given(st.ip_addresses(), st.lists(_HOP, max_size=4), st.lists(st.sampled_from(["10.1.2.3", "::1"]), max_size=3))
def test_nothing_forged_moves_a_client(client: object, forged: list[str], proxies: list[str]) -> None:
    """Whatever a client writes itself, behind any chain of our proxies it is the same client."""
    address = parse_hop(str(client))
    assert address is not None
    if any(address in network for network in TRUSTED):
        return
    *path, peer = [*proxies, "10.0.0.1"]
    plain = ", ".join([str(client), *path]).encode()
    lied = ", ".join([*forged, str(client), *path]).encode()
    assert client_of(str(client), None, ()) == client_of(peer, plain, TRUSTED) == client_of(peer, lied, TRUSTED)


@given(st.text())
def test_a_hop_is_an_address_or_none(text: str) -> None:
    """Any text is an address or None; an address without a port is itself."""
    hop = parse_hop(text)
    assert hop is None or parse_hop(str(hop)) == hop
    assert parse_hop("192.0.2.7") == ip_address("192.0.2.7")
