"""Finding programs and reading addresses."""

from __future__ import annotations

import os
import shutil
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Literal

from .errors import SocketError


def find_binary(binary_name: str) -> str | Literal[False]:
    """The absolute path of an executable file of that name in $PATH; False if there is none."""
    found = shutil.which(binary_name)
    return os.path.abspath(found) if found else False


def parse_ip(ip: object) -> IPv4Address | IPv6Address:
    """The address that `str(ip)` spells, white space around it ignored. Raises `errors.SocketError`."""
    text = str(ip).strip()
    try:
        return ip_address(text)
    except ValueError:
        raise SocketError(f"{text!r} is neither an IPv4 nor an IPv6 address") from None
