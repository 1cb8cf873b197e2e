"""What really left: every packet this network namespace sends, on whichever device, as the kernel saw it.

A packet socket (packet(7)) over all devices hears loopback as well as the simulated internet, depends on nothing of
the service, and tells if it missed anything. Times are the kernel's (socket(7), SO_TIMESTAMPNS).
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

_ETH_P_ALL, _PACKET_OUTGOING = 3, 4
_SOL_PACKET, _PACKET_STATISTICS, _SO_TIMESTAMPNS = 263, 6, 35
_ICMP, _TCP, _UDP, _ICMP6, _SCTP = 1, 6, 17, 58, 132
_ECHO = {_ICMP: 8, _ICMP6: 128}
#: The self-test of a prober: closed UDP ports of loopback.
_CANARIES = (1, 4)


class Packet(NamedTuple):
    """One that may be a probe: an echo request, or a datagram or segment to a port (None for echo requests)."""

    at: float
    to: IPv4Address | IPv6Address
    ttl: int
    protocol: int
    source_port: int | None
    port: int | None


def _read(packet: bytes, at: float) -> Packet | None:
    """What a packet is, as far as probes are concerned; None for all others."""
    if packet[0] >> 4 == 4:
        to, ttl, protocol, start = ip_address(packet[16:20]), packet[8], packet[9], (packet[0] & 15) * 4
    else:
        to, ttl, protocol, start = ip_address(packet[24:40]), packet[7], packet[6], 40
    if protocol in _ECHO:
        return Packet(at, to, ttl, protocol, None, None) if packet[start] == _ECHO[protocol] else None
    if protocol in (_TCP, _UDP, _SCTP):
        return Packet(at, to, ttl, protocol, *struct.unpack_from("!HH", packet, start))
    return None


class Sink:
    """Collects; see `listening`."""

    def __init__(self, own_ports: tuple[int, ...]) -> None:
        self._own = own_ports
        self._packets: list[Packet] = []
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL))
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        self._socket.settimeout(0.2)
        self._closed = False
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def _listen(self) -> None:
        while True:
            try:
                data, ancillary, _, (_, _, kind, *_) = self._socket.recvmsg(65536, 64)
            except TimeoutError:
                if self._closed:
                    return
                continue
            if kind != _PACKET_OUTGOING:  # on loopback every packet comes back in
                continue
            seconds, nanoseconds = struct.unpack("qq", ancillary[0][2][:16])
            packet = _read(data, seconds + nanoseconds / 1e9)
            if packet is not None and not self._is_ours(packet):
                self._packets.append(packet)

    def _is_ours(self, packet: Packet) -> bool:
        """Whether it belongs to the test's own conversations on loopback, or to a prober's self-test."""
        if not packet.to.is_loopback or packet.port is None:
            return False
        ours = packet.port in self._own or packet.source_port in self._own
        return ours or (packet.protocol == _UDP and packet.port in _CANARIES)

    def packets(self) -> list[Packet]:
        """All probes sent so far; fails if any was missed."""
        self._closed = True
        self._thread.join()
        _, dropped = struct.unpack("II", self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
        assert 0 == dropped
        return self._packets

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._closed = True
        self._thread.join()
        self._socket.close()


@contextmanager
def listening(*own_ports: int) -> Iterator[Sink]:
    """A sink that listens; traffic on loopback from or to `own_ports` is the test's own and not counted."""
    sink = Sink(own_ports)
    sink.start()
    try:
        yield sink
    finally:
        sink.stop()
