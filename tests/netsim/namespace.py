"""Network namespaces, and the device in them that the simulated internet hangs on.

`isolate` moves the calling process into a fresh network namespace: as root directly, otherwise as the root of a
fresh user namespace. Nothing is registered anywhere: the namespace goes when its last process does, however that
process ends. Links, addresses and routes are set through rtnetlink (rtnetlink(7)), so no other program is needed.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
RTM_NEWLINK, RTM_NEWADDR, RTM_NEWROUTE = 16, 20, 24
NLM_F_REQUEST, NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE = 1, 4, 0x400, 0x100
IFF_UP, IFLA_MTU, IFLA_TXQLEN, IFA_ADDRESS, IFA_LOCAL, RTA_OIF = 1, 4, 13, 1, 2, 4

#: The namespace a process was isolated in: children that inherit both it and this variable need no other.
ISOLATED = "NETSIM_NAMESPACE"
TUN = "NETSIM_TUN"

DEVICE = "sim0"
SOURCES = (IPv4Address("44.0.0.2"), IPv6Address("2a10:44::2"))

_libc = ctypes.CDLL(None, use_errno=True)


class NamespaceUnavailable(Exception):
    """This system does not let this process have what the simulated internet needs; the message says what."""


def current() -> str:
    """The identity of the calling process's network namespace."""
    return os.readlink("/proc/thread-self/ns/net")


def _unshare(flags: int) -> None:
    if _libc.unshare(flags) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def isolate() -> None:
    """Move this process into a network namespace of its own, with loopback up and no way out.

    Call it before any thread starts: other threads would stay behind. A second call, or a call in a child of an
    isolated process, does nothing. Raises `NamespaceUnavailable`.
    """
    if os.environ.get(ISOLATED) == current():
        return
    try:
        _unshare(CLONE_NEWNET)
    except PermissionError:
        _isolate_unprivileged()
    set_link("lo")
    os.environ[ISOLATED] = current()


def _isolate_unprivileged() -> None:
    uid, gid = os.geteuid(), os.getegid()
    try:
        _unshare(CLONE_NEWUSER | CLONE_NEWNET)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
    except OSError as problem:
        message = f"neither root nor allowed a user namespace (user_namespaces(7)): {problem}"
        raise NamespaceUnavailable(message) from problem


@contextmanager
def inside(pid: int) -> Iterator[None]:
    """Put the calling thread into the network namespace of process `pid`, and back. Needs root."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        enter(pid)
        try:
            yield
        finally:
            _setns(home)
    finally:
        os.close(home)


def enter(pid: int) -> None:
    """Put the calling thread into the network namespace of process `pid` for good."""
    there = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    try:
        _setns(there)
    finally:
        os.close(there)


def _setns(descriptor: int) -> None:
    if _libc.setns(descriptor, CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


# --- rtnetlink -----------------------------------------------------------------------------------------------


def _attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(data), kind) + data + b"\0" * (-len(data) % 4)


def _ask(kind: int, flags: int, body: bytes) -> None:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as netlink:
        flags |= NLM_F_REQUEST | NLM_F_ACK
        netlink.send(struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0) + body)
        (negative,) = struct.unpack_from("=i", netlink.recv(4096), 16)
    if negative:
        raise OSError(-negative, os.strerror(-negative))


def set_link(name: str, *attributes: bytes) -> None:
    """Bring a link up."""
    body = struct.pack("=BxHiII", 0, 0, socket.if_nametoindex(name), IFF_UP, IFF_UP)
    _ask(RTM_NEWLINK, 0, body + b"".join(attributes))


def _add_address(name: str, address: IPv4Address | IPv6Address) -> None:
    index = socket.if_nametoindex(name)
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    body = struct.pack("=BBBBI", family, address.max_prefixlen, 0, 0, index)
    body += _attribute(IFA_LOCAL, address.packed) + _attribute(IFA_ADDRESS, address.packed)
    _ask(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, body)


def _add_default_route(name: str, family: int) -> None:
    main_table, static, unicast = 254, 4, 1
    scope = 253 if family == socket.AF_INET else 0
    body = struct.pack("=BBBBBBBBI", family, 0, 0, 0, main_table, static, scope, unicast, 0)
    _ask(RTM_NEWROUTE, NLM_F_CREATE, body + _attribute(RTA_OIF, struct.pack("=I", socket.if_nametoindex(name))))


def open_device(name: str = DEVICE, queue: int = 10_000) -> int:
    """Make the TUN device everything beyond loopback is routed to; the non-blocking descriptor of its far end.

    The device has one address of each family (`SOURCES`), an MTU of 1500, a queue of `queue` packets, and sends
    nothing of its own accord. It goes when the descriptor is closed.
    """
    path = os.environ.get(TUN, "/dev/net/tun")
    try:
        far_end = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as problem:
        raise NamespaceUnavailable(f"cannot open {path}: {problem.strerror}") from problem
    try:
        fcntl.ioctl(far_end, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
        ipv6 = Path("/proc/sys/net/ipv6/conf") / name
        for setting, value in (("disable_ipv6", 0), ("router_solicitations", 0), ("addr_gen_mode", 1)):
            # Read-only where /proc/sys is; then the kernel's defaults only add multicast that nobody answers.
            with suppress(OSError):
                (ipv6 / setting).write_text(str(value))
        set_link(
            name,
            _attribute(IFLA_MTU, struct.pack("=I", 1500)),
            _attribute(IFLA_TXQLEN, struct.pack("=I", queue)),
        )
        for address in SOURCES:
            _add_address(name, address)
        for family in (socket.AF_INET, socket.AF_INET6):
            _add_default_route(name, family)
    except OSError as problem:
        os.close(far_end)
        raise NamespaceUnavailable(f"cannot set up {name}: {problem}") from problem
    return far_end


def queue_drops(name: str = DEVICE) -> int:
    """How many packets the kernel dropped because the device's queue was full (proc(5), /proc/net/dev)."""
    for line in Path("/proc/thread-self/net/dev").read_text().splitlines():
        device, _, figures = line.partition(":")
        if device.strip() == name:
            return int(figures.split()[11])
    return 0
