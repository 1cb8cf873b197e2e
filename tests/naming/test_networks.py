"""Networks as an operator writes them, and the prefix an address belongs to."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracerouted.naming.policy import parse_networks, prefix_of

ipv4 = st.builds(IPv4Address, st.integers(0, 2**32 - 1))
ipv6 = st.builds(IPv6Address, st.integers(0, 2**128 - 1))


def test_networks_are_read_from_commas_and_spaces():
    """CIDR networks and bare addresses, separated by commas, white space or both."""
    expected = tuple(ip_network(n) for n in ("10.0.0.0/8", "192.0.2.1/32", "fd00::/8", "::1/128"))
    assert expected == parse_networks(" 10.0.0.0/8,192.0.2.1\n fd00::/8 , ::1 ")
    assert parse_networks("  ") == ()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("10.0.0.1/8", "write 10.0.0.0/8, or 10.0.0.1"),
        ("2001:db8::1/32", "write 2001:db8::/32, or 2001:db8::1"),
        ("example.net", "'example.net' is not an IPv4 or IPv6 address"),
        ("10.0.0.0/33", "a length from 0 to 32"),
        ("::/129", "a length from 0 to 128"),
        ("10.0.0.0/", "a length from 0 to 32"),
        ("10.0.0.0/255.0.0.0", "a length from 0 to 32"),
        ("10.0.0.0/0.255.255.255", "a length from 0 to 32"),
        ("10.0.0.0/-1", "a length from 0 to 32"),
        ("10.0.0.0/८", "a length from 0 to 32"),
        ("10.0.0.0/8/8", "a length from 0 to 32"),
        ("fe80::%eth0/64", "not an IPv4 or IPv6 address|zone"),
        ("fe80::1%eth0", "leave out the zone '%eth0'"),
        ("10/8", "'10' is not an IPv4 or IPv6 address"),
        ("/8", "'' is not an IPv4 or IPv6 address"),
    ],
)
def test_a_wrong_network_is_explained(text, words):
    """What cannot be read raises ValueError naming the word and what to write."""
    with pytest.raises(ValueError, match=words) as caught:
        parse_networks(f"192.0.2.0/24 {text}")
    assert text in str(caught.value)


@given(st.lists(st.one_of(ipv4, ipv6).flatmap(lambda a: st.tuples(st.just(a), st.integers(0, a.max_prefixlen)))))
def test_networks_survive_writing_and_reading(pairs):
    """What networks look like is read back as the same networks."""
    networks = tuple(ip_network(pair, strict=False) for pair in pairs)
    assert networks == parse_networks(",".join(map(str, networks)))


def test_prefixes():
    """Sites are /24 and /48."""
    assert prefix_of(ip_address("192.0.2.255")) == "192.0.2.0/24"
    assert prefix_of(ip_address("2001:db8:1:ffff::1")) == "2001:db8:1::/48"


@given(st.one_of(ipv4, ipv6))
def test_a_prefix_is_the_network_an_address_is_in(address):
    """The prefix is a valid network of the right length that holds the address."""
    network = ip_network(prefix_of(address))
    assert address in network
    assert (24 if address.version == 4 else 48) == network.prefixlen
