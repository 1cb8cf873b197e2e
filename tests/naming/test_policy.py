"""Which addresses may be traced: the tables at their edges, embedded addresses, and what an operator may change."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracerouted.naming.policy import TargetPolicy
from tracerouted.naming.special import SPECIAL_IPV4, SPECIAL_IPV6, embedded, special

DEFAULT = TargetPolicy()


def words(text):
    """The words of a table written as text."""
    return text.split()


EVERYTHING = (ip_network("0.0.0.0/0"), ip_network("::/0"))

# Written out a second time, from the registries and RFCs and not from the tables under test.
CLOSED = """
    0.0.0.0/32          RFC 1122
    0.0.0.0/8           RFC 791
    10.0.0.0/8          RFC 1918
    100.64.0.0/10       RFC 6598
    127.0.0.0/8         RFC 1122
    169.254.0.0/16      RFC 3927
    172.16.0.0/12       RFC 1918
    192.0.0.0/24        RFC 6890
    192.0.2.0/24        RFC 5737
    192.88.99.0/24      RFC 7526
    192.168.0.0/16      RFC 1918
    198.18.0.0/15       RFC 2544
    198.51.100.0/24     RFC 5737
    203.0.113.0/24      RFC 5737
    224.0.0.0/4         RFC 5771
    240.0.0.0/4         RFC 1112
    255.255.255.255/32  RFC 919
    ::/128              RFC 4291
    ::1/128             RFC 4291
    ::/96               RFC 4291
    ::ffff:0:0/96       RFC 4291
    ::ffff:0:0:0/96     RFC 2765
    64:ff9b::/96        RFC 6052
    64:ff9b:1::/48      RFC 8215
    100::/64            RFC 6666
    100:0:0:1::/64      RFC 9780
    2001::/23           RFC 2928
    2001::/32           RFC 4380
    2001:2::/48         RFC 5180
    2001:10::/28        RFC 4843
    2001:20::/28        RFC 7343
    2001:30::/28        RFC 9374
    2001:db8::/32       RFC 3849
    2002::/16           RFC 3056
    3fff::/20           RFC 9637
    5f00::/16           RFC 9602
    fc00::/7            RFC 4193
    fe80::/10           RFC 4291
    fec0::/10           RFC 3879
    ff00::/8            RFC 4291
    ::/3                RFC 4291
    4000::/2            RFC 4291
    8000::/1            RFC 4291
"""
CLOSED_ROWS = [
    (ip_network(block), source)
    for block, source in (line.split(maxsplit=1) for line in CLOSED.split("\n") if line.strip())
]
CLOSED_NETWORKS = [network for network, _ in CLOSED_ROWS]
NEVER = [ip_network(n) for n in words("0.0.0.0 224.0.0.0/4 255.255.255.255 :: ::ffff:0:0/96 ff00::/8")]
#: Neighbours of closed blocks, and well-known hosts, that are ordinary unicast.
OPEN = words("""
    1.0.0.0 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0 169.253.255.255 169.255.0.0
    172.15.255.255 172.32.0.0 191.255.255.255 192.0.1.0 192.0.1.255 192.0.3.0 192.88.98.255 192.88.100.0
    192.167.255.255 192.169.0.0 198.17.255.255 198.20.0.0 198.51.99.255 198.51.101.0 203.0.112.255 203.0.114.0
    223.255.255.255 192.31.196.1 192.52.193.1 192.175.48.6 8.8.8.8 1.1.1.1
    2000:: 2000:ffff:ffff:ffff:ffff:ffff:ffff:ffff 2001:200:: 2001:db7:ffff:ffff:ffff:ffff:ffff:ffff 2001:db9::
    2001:ffff:ffff:ffff:ffff:ffff:ffff:ffff 2003:: 3ffe:ffff:ffff:ffff:ffff:ffff:ffff:ffff 3fff:1000::
    3fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 2620:4f:8000::6 2001:4860:4860::8888 2606:4700:4700::1111
""")


def edges(network):
    """First and last of a block and their outer neighbours, as far as they exist."""
    kind = type(network.network_address)
    first, last = int(network.network_address), int(network.broadcast_address)
    values = {first - 1, first, first + 1, last - 1, last, last + 1}
    return [kind(value) for value in sorted(values) if 0 <= value < 2**network.max_prefixlen]


def is_closed(address):
    """Whether this file's own list holds the address."""
    return any(address in network for network in CLOSED_NETWORKS)


@pytest.mark.parametrize(("network", "source"), CLOSED_ROWS, ids=str)
def test_every_special_block_is_closed_with_its_reason(network, source):
    """Both ends of each block, and what lies just inside, are refused; the block's own RFC is named where it is
    the most specific one."""
    named = 0
    for address in edges(network):
        if address not in network:
            continue
        refusal = DEFAULT.refusal(address)
        assert refusal is not None
        assert "TRACEROUTED_ALLOW_TARGETS" in refusal
        holders = [n for n in CLOSED_NETWORKS if address in n]
        if max(holders, key=lambda n: n.prefixlen) == network:
            named += 1
            assert f"({network}, {source}" in refusal
    assert named > 0


@pytest.mark.parametrize("network", CLOSED_NETWORKS, ids=str)
def test_neighbours_of_special_blocks(network):
    """One address further in either direction is refused only where another block holds it."""
    for address in edges(network):
        assert is_closed(address) == (DEFAULT.refusal(address) is not None), address


@pytest.mark.parametrize("row", SPECIAL_IPV4 + SPECIAL_IPV6, ids=lambda row: str(row.network))
def test_the_tables_hold_nothing_else(row):
    """Each row of the tables is one of the blocks listed here, and both of its ends are refused."""
    assert row.network in CLOSED_NETWORKS
    assert (row.network in NEVER) == row.never
    assert all(DEFAULT.refusal(a) is not None for a in edges(row.network) if a in row.network)


@pytest.mark.parametrize("text", OPEN)
def test_ordinary_unicast_is_open(text):
    """Globally routable unicast addresses may be traced without any setting."""
    assert DEFAULT.refusal(ip_address(text)) is None


def test_what_the_standard_library_lets_through():
    """Addresses that ipaddress calls global, on one Python version or another, and that lead to no public host."""
    for text in words("""
        224.0.0.1 239.255.255.255 192.88.99.1 0.0.0.0 64:ff9b::7f00:1 64:ff9b:1::a00:1 2002:7f00:1:: ::127.0.0.1
        fec0::1 3fff::1 5f00::1 ff0e::1 4000::1 2001:1::1 ::ffff:8.8.8.8 100:0:0:1::1
    """):
        assert DEFAULT.refusal(ip_address(text)) is not None, text


# --- embedded IPv4 -------------------------------------------------------------------------------------------


def wrappings(inner: IPv4Address) -> dict[str, IPv6Address]:
    """Every way to write an IPv4 address inside an IPv6 one, made by string or shifted by hand."""
    n = int(inner)
    public = int(IPv4Address("8.8.8.8"))
    return {
        "mapped": IPv6Address(f"::ffff:{inner}"),
        "compatible": IPv6Address(f"::{inner}"),
        "translated": IPv6Address(f"::ffff:0:{inner}"),
        "nat64": IPv6Address(f"64:ff9b::{inner}"),
        "local nat64 /96": IPv6Address(f"64:ff9b:1::{inner}"),
        "local nat64 /96 in a subnet": IPv6Address(f"64:ff9b:1:abcd::{inner}"),
        "local nat64 /48": IPv6Address((0x64FF9B0001 << 80) | (n >> 16 << 64) | ((n & 0xFFFF) << 40)),
        "local nat64 /56": IPv6Address(
            (0x64FF9B0001 << 80) | (0xAB << 72) | (n >> 24 << 64) | ((n & 0xFFFFFF) << 32)
        ),
        "local nat64 /64": IPv6Address((0x64FF9B0001 << 80) | (0xABCD << 64) | (n << 24)),
        "6to4": IPv6Address((0x2002 << 112) | (n << 80) | 1),
        "teredo client": IPv6Address((0x20010000 << 96) | (public << 64) | (n ^ 0xFFFFFFFF)),
        "teredo server": IPv6Address((0x20010000 << 96) | (n << 64) | (public ^ 0xFFFFFFFF)),
    }


FORMS = sorted(wrappings(IPv4Address("8.8.8.8")))
ipv4 = st.builds(IPv4Address, st.integers(0, 2**32 - 1))
ipv6 = st.builds(IPv6Address, st.integers(0, 2**128 - 1))
EDGES_IPV4 = [a for n in CLOSED_NETWORKS if n.version == 4 for a in edges(n)]
#: IPv4 addresses near the edges of everything special, and anywhere.
edgy_ipv4 = st.one_of(ipv4, st.sampled_from(EDGES_IPV4), st.just(IPv4Address("8.8.8.8")))


def inside(network: IPv4Network | IPv6Network):
    """Addresses of a block."""
    kind = type(network.network_address)
    return st.builds(kind, st.integers(int(network.network_address), int(network.broadcast_address)))


@given(st.sampled_from(CLOSED_NETWORKS).flatmap(inside))
def test_nothing_special_is_open_by_default(address):
    """No address inside any special block may be traced without a setting."""
    assert DEFAULT.refusal(address) is not None


@given(edgy_ipv4, st.sampled_from(FORMS))
def test_no_embedding_is_open_by_default(inner, form):
    """No spelling of an IPv4 address inside an IPv6 one may be traced without a setting."""
    assert DEFAULT.refusal(wrappings(inner)[form]) is not None


@given(st.one_of(ipv4, ipv6))
def test_the_default_is_the_list(address):
    """An address is refused by default exactly when a listed block holds it."""
    assert is_closed(address) == (DEFAULT.refusal(address) is not None)


def follows_what_it_carries(inner, form):
    """Check that with all of IPv6 allowed, what carries a special IPv4 address is still refused, and names it."""
    address = wrappings(inner)[form]
    refusal = TargetPolicy(allow=(ip_network("::/0"),)).refusal(address)
    if is_closed(inner):
        assert refusal is not None
        if form != "mapped":
            assert re.search(rf"{address} carries \S+ \(", refusal)
    elif form == "mapped":
        assert refusal is not None
    elif not form.startswith("local nat64"):
        assert refusal is None


@given(edgy_ipv4.filter(lambda a: int(a) > 1), st.sampled_from(FORMS))
def test_allowing_all_of_ipv6_does_not_open_ipv4_inside_it(inner, form):
    """Allowing IPv6 opens no special IPv4 address inside it."""
    follows_what_it_carries(inner, form)


@pytest.mark.parametrize("form", FORMS)
def test_every_edge_inside_ipv6(form):
    """First, last and neighbours of every IPv4 block are judged alike when they come inside an IPv6 address."""
    for inner in EDGES_IPV4:
        if int(inner) > 1:
            follows_what_it_carries(inner, form)


@given(edgy_ipv4.filter(lambda a: int(a) > 1), st.sampled_from(FORMS), st.integers(0, 32))
def test_denying_ipv4_denies_every_spelling(inner, form, length):
    """A denied IPv4 network is denied however it is embedded, even with everything else allowed."""
    policy = TargetPolicy(allow=EVERYTHING, deny=(ip_network((inner, length), strict=False),))
    assert policy.refusal(inner) is not None
    assert policy.refusal(wrappings(inner)[form]) is not None


@given(st.one_of(ipv4, ipv6, st.sampled_from(CLOSED_NETWORKS).flatmap(inside)), st.data())
def test_deny_always_wins(address, data):
    """An address in a denied network is refused whatever is allowed, its very own network included."""
    deny = ip_network((address, data.draw(st.integers(0, address.max_prefixlen))), strict=False)
    allow = (*EVERYTHING, deny, ip_network(address))
    refusal = TargetPolicy(allow=allow, deny=(deny,)).refusal(address)
    assert refusal is not None
    assert "TRACEROUTED_DENY_TARGETS" in refusal


@given(st.sampled_from(NEVER).flatmap(inside))
def test_what_is_no_hosts_address_is_never_open(address):
    """No setting opens unspecified, multicast, broadcast and IPv4-mapped addresses, and the refusal says so."""
    for allow in (EVERYTHING, (ip_network(address),)):
        refusal = TargetPolicy(allow=allow).refusal(address)
        assert refusal is not None
        assert "no setting" in refusal


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("text", ["0.0.0.0", "224.0.0.1", "255.255.255.255"])
def test_what_is_no_hosts_address_is_never_open_inside_another(form, text):
    """Embedding an unspecified, multicast or broadcast address does not open it, with everything allowed."""
    address = wrappings(IPv4Address(text))[form]
    if text == "0.0.0.0" and form == "compatible":
        assert IPv6Address("::") == address
    if text == "0.0.0.0" and form in ("local nat64 /48", "local nat64 /96"):
        assert IPv6Address("64:ff9b:1::") == address
    if text == "0.0.0.0" and form in ("local nat64 /56", "local nat64 /64", "local nat64 /96 in a subnet"):
        return  # the subnet's own bits read as an address by another prefix length
    assert TargetPolicy(allow=EVERYTHING).refusal(address) is not None


@pytest.mark.parametrize(
    "text",
    words("""
        10.0.0.1 127.0.0.1 192.0.2.1 240.0.0.1 0.0.0.1 ::1 fd00::1 fe80::1 fec0::1 2001:db8::1 3fff::1 5f00::1 4000::1
        100::1 64:ff9b::8.8.8.8 64:ff9b:1::8.8.8.8 ::8.8.8.8 2002:808:808::1
    """),
)
def test_allow_opens_what_the_table_closes(text):
    """A special address may be traced once its network is allowed, and only it."""
    address = ip_address(text)
    assert TargetPolicy(allow=(ip_network(address),)).refusal(address) is None
    assert TargetPolicy(allow=(ip_network(address),)).refusal(address + 1) is not None


def test_both_ends_of_an_embedding_must_be_allowed():
    """A translator's prefix and the IPv4 network behind it are opened separately."""
    address = ip_address("64:ff9b::10.0.0.1")
    prefix, behind = ip_network("64:ff9b::/96"), ip_network("10.0.0.0/8")
    assert "10.0.0.0/8, RFC 1918" in TargetPolicy(allow=(prefix,)).refusal(address)
    assert "64:ff9b::/96, RFC 6052" in TargetPolicy(allow=(behind,)).refusal(address)
    assert TargetPolicy(allow=(prefix, behind)).refusal(address) is None


def test_a_teredo_address_names_server_and_client():
    """Both IPv4 addresses of a Teredo address are read as RFC 4380 section 4 gives them."""
    address = ip_address("2001:0:4136:e378:8000:63bf:3fff:fdd2")
    assert {"Teredo server": ip_address("65.54.227.120"), "Teredo client": ip_address("192.0.2.45")} == dict(
        embedded(address)
    )


def test_translated_addresses_of_rfc_6052():
    """The examples of RFC 6052 section 2.4, moved into the local-use prefix, give back 192.0.2.33."""
    for text in words(
        "64:ff9b:1:c000:2:2100:: 64:ff9b:1:3c0:0:221:: 64:ff9b:1:344:c0:2:2100:: 64:ff9b:1:344::192.0.2.33"
    ):
        assert IPv4Address("192.0.2.33") in [inner for _, inner in embedded(ip_address(text))], text


def test_a_local_translator_with_a_short_prefix_can_be_allowed():
    """An address for a /48 translator is not refused for the zeros that end it, only for what it carries."""
    policy = TargetPolicy(allow=(ip_network("64:ff9b:1::/48"),))
    assert policy.refusal(ip_address("64:ff9b:1:808:8:800::")) is None
    assert "10.8.8.8 is private use" in policy.refusal(ip_address("64:ff9b:1:a08:8:800::"))


def test_a_local_translator_address_against_the_rules_is_read_all_the_same():
    """With bits set where RFC 6052 wants zeros, the last 32 bits are still taken for an IPv4 address."""
    address = ip_address("64:ff9b:1:0:ff00::10.0.0.1")
    assert [inner for _, inner in embedded(address)] == [IPv4Address("10.0.0.1")]
    assert "10.0.0.1 is private use" in TargetPolicy(allow=(ip_network("64:ff9b:1::/48"),)).refusal(address)


def test_plain_addresses_carry_nothing():
    """Neither an IPv4 address nor an ordinary IPv6 one, nor ::1, has an IPv4 address inside."""
    for text in words("8.8.8.8 2001:4860:4860::8888 ::1 :: fd00::1"):
        assert list(embedded(ip_address(text))) == []


def test_the_words_of_a_refusal():
    """A refusal says what the address is, by which document, and which setting would open it."""
    assert DEFAULT.refusal(ip_address("10.1.2.3")) == (
        "10.1.2.3 is private use (10.0.0.0/8, RFC 1918); only globally routable addresses may be traced unless "
        "TRACEROUTED_ALLOW_TARGETS covers it"
    )
    assert special(ip_address("8.8.8.8")) is None
