"""What is taken as a target, and what is not."""

from __future__ import annotations

import re
import socket
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tracerouted.naming.hostname import parse_target

TAKEN = {
    "192.0.2.1": IPv4Address("192.0.2.1"),
    "0.0.0.0": IPv4Address("0.0.0.0"),
    "2001:db8::1": IPv6Address("2001:db8::1"),
    "2001:DB8:0:0::1": IPv6Address("2001:db8::1"),
    "[2001:db8::1]": IPv6Address("2001:db8::1"),
    "::ffff:192.0.2.1": IPv6Address("::ffff:192.0.2.1"),
    "::": IPv6Address("::"),
    "example.net": "example.net",
    "EXAMPLE.Net.": "example.net",
    "localhost": "localhost",
    "bücher.example": "xn--bcher-kva.example",
    "BÜCHER.example": "xn--bcher-kva.example",
    "bu\u0308cher.example": "xn--bcher-kva.example",
    "xn--bcher-kva.example": "xn--bcher-kva.example",
    "r3---sn-abc.example": "r3---sn-abc.example",
    "1.2.3.4.example": "1.2.3.4.example",
    "a" * 63 + ".example": "a" * 63 + ".example",
    ".".join(["a" * 63, "b" * 63, "c" * 63, "d" * 61]): ".".join(["a" * 63, "b" * 63, "c" * 63, "d" * 61]),
}

REFUSED = [
    "",
    ".",
    "127.1",
    "127.0.1",
    "2130706433",
    "0x7f000001",
    "0x7f.0.0.1",
    "0177.0.0.1",
    "127.0.0.01",
    "127.0.0.1.",
    "256.0.0.1",
    "1.2.3.4.5",
    "192.0.2.1/24",
    "example.0x10",
    "example.7",
    "example.0x",
    "\uff11\uff12\uff17.0.0.1",
    "\uff11\uff12\uff17\uff0e\uff10\uff0e\uff10\uff0e\uff11",
    "127\u30020\u30020\u30021",
    "\u0661\u0662\u0667.0.0.1",
    "ex\uff41mple.net",
    "fe80::1%eth0",
    "[fe80::1%25eth0]",
    "[2001:db8::1",
    "2001:db8::1]",
    "[192.0.2.1]",
    "[]",
    "[",
    "[[::1]]",
    "[::1]:80",
    ":::",
    "12345::",
    "::1.2.3.04",
    "example.net:80",
    "http://example.net/",
    "user@example.net",
    "example..net",
    ".example.net",
    "example.net..",
    "-a.example",
    "a-.example",
    "a_b.example",
    "*.example",
    "a" * 64 + ".example",
    ".".join(["a" * 63, "b" * 63, "c" * 63, "d" * 62]),
    "a" * 100_000,
    "\u00fc" * 63 + ".example",
    " example.net",
    "example.net ",
    "exa mple.net",
    "example.net\n",
    "example.net\x00.evil.example",
    "example\t.net",
    "example.\u00a0net",
    "example\u200b.net",
    "example\u00ad.net",
    "\u202eexample.net",
    "\ud800.example",
    "\x7fexample",
    "\U0001f4a9.example",
]


@pytest.mark.parametrize(("text", "expected"), TAKEN.items(), ids=[repr(text)[:40] for text in TAKEN])
def test_takes(text: str, expected: object) -> None:
    """Addresses and host names come back in one normal form."""
    assert expected == parse_target(text)


@pytest.mark.parametrize("text", REFUSED, ids=[ascii(text)[:40] for text in REFUSED])
def test_refuses(text: str) -> None:
    """Anything a resolver might read in another way than a person is refused, in words that say what to do."""
    with pytest.raises(ValueError, match=r"; |leave out") as caught:
        parse_target(text)
    assert not isinstance(caught.value, UnicodeError)


def numeric_spellings() -> st.SearchStrategy[str]:
    """Ways to write an IPv4 address that C libraries understand."""
    part = st.builds(
        lambda n, form: form.format(n), st.integers(0, 2**32), st.sampled_from(["{}", "0x{:x}", "0{:o}", "0X{:X}"])
    )
    return st.lists(part, min_size=1, max_size=4).map(".".join)


@given(st.one_of(st.text(), st.text("0123456789abcdefx.:[]%-_"), numeric_spellings(), st.sampled_from(REFUSED)))
@example("1")
@example("0x")
def test_any_text_gives_one_of_three_forms(text: str) -> None:
    """Any text is an address, a plain host name nobody reads as an address, or a ValueError; never anything else."""
    try:
        target = parse_target(text)
    except ValueError:
        return
    if isinstance(target, str):
        assert re.fullmatch(r"(?!-)[a-z0-9-]{1,63}(?<!-)(\.(?!-)[a-z0-9-]{1,63}(?<!-))*", target, re.ASCII)
        assert len(target) <= 253
        with pytest.raises(OSError, match="illegal IP address"):
            socket.inet_aton(target)
    assert target == parse_target(str(target))


@given(st.ip_addresses())
def test_every_address_is_taken(address: IPv4Address | IPv6Address) -> None:
    """Every address is read as itself."""
    assert address == parse_target(str(address))


@given(st.integers(0, 2**32 - 1))
def test_numbers_are_no_addresses(number: int) -> None:
    """An address written as one number, in any base, is refused."""
    for text in (str(number), hex(number), oct(number).replace("o", "")):
        with pytest.raises(ValueError, match="ends in a number"):
            parse_target(text)
