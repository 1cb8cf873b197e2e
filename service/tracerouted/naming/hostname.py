"""What may be typed as a target: the strict syntax of host names and addresses.

The resolver behind a service takes far more than people mean: `127.1`, `0x7f000001`, `0177.0.0.1`, full-width digits,
`fe80::1%eth0`. Everything that is not plainly a host name, a dotted quad or an IPv6 address is refused here, before
anything is resolved.
"""

from __future__ import annotations

import re
import unicodedata
from ipaddress import AddressValueError, IPv4Address, IPv6Address

import idna

#: RFC 1035 section 2.3.4: 255 octets on the wire are 253 characters in text.
MOST_NAME = 253

_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_NUMERIC_LABEL = re.compile(r"[0-9]+|0[xX][0-9a-fA-F]*", re.ASCII)
_QUAD = re.compile(r"[0-9]+(?:\.[0-9]+){3}", re.ASCII)


def parse_target(text: str) -> IPv4Address | IPv6Address | str:
    """The address `text` spells, or the host name in normal form: lower case, A-labels (RFC 5890), no final dot.

    Takes dotted quads without leading zeros, IPv6 (RFC 4291, also in brackets, no zone id), and host names of
    letters, digits and hyphens (RFC 1123) or their international form (IDNA 2008; case is folded, nothing else is
    mapped). A name whose last label is a number is refused, because resolvers read it as an address. Raises
    ValueError; its words say what to do.
    """
    if not text:
        raise ValueError("is empty; give a host name or an IP address")
    if len(text) > MOST_NAME + 1:
        raise ValueError(f"is longer than {MOST_NAME} characters; give a host name or an IP address")
    if _QUAD.fullmatch(text):
        try:
            return IPv4Address(text)
        except AddressValueError:
            raise ValueError(
                "is not an IPv4 address; write four numbers from 0 to 255, without leading zeros, with dots between"
            ) from None
    if any(character.isspace() or unicodedata.category(character)[0] == "C" for character in text):
        raise ValueError("has a space, a control or an invisible character; give the name or address alone")
    if text[0] == "[" or ":" in text:
        return _ipv6(text)
    return _host_name(text)


def _ipv6(text: str) -> IPv6Address:
    bare = text
    if text[0] == "[":
        if text[-1] != "]":
            raise ValueError(
                "has a [ without its ] at the end; write an IPv6 address as 2001:db8::1 or [2001:db8::1]"
            )
        bare = text[1:-1]
    if "%" in bare:
        raise ValueError("has a zone id; leave out the % and what follows")
    try:
        return IPv6Address(bare)
    except AddressValueError:
        raise ValueError(
            "is not an IPv6 address; write it as 2001:db8::1 or [2001:db8::1], without a port or a scheme"
        ) from None


def _host_name(text: str) -> str:
    name = text[:-1] if text[-1] == "." else text
    if not name.isascii():
        try:
            # strict: only "." separates labels, so no full-width dot or digit survives as an ASCII one.
            name = idna.encode(unicodedata.normalize("NFC", name.lower()), strict=True).decode("ascii")
        except UnicodeError:  # idna.IDNAError is one
            raise ValueError(
                "is not an international host name (IDNA 2008); check its characters or write it in its xn-- form"
            ) from None
    name = name.lower()
    if len(name) > MOST_NAME:
        raise ValueError(f"is longer than {MOST_NAME} characters in its ASCII form; give a shorter name")
    labels = name.split(".")
    for label in labels:
        if not _LABEL.fullmatch(label):
            raise ValueError(
                f"has the label {label!r}; labels are 1 to 63 letters, digits and hyphens, not starting or ending "
                "with a hyphen; give a host name or an IP address, not a URL"
            )
    if _NUMERIC_LABEL.fullmatch(labels[-1]):
        raise ValueError("ends in a number, but is not four numbers; write an IPv4 address as 192.0.2.1")
    return name
