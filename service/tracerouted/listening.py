"""The addresses the daemon serves on.

Every address is its own socket of its own family. An IPv6 one takes IPv6 only: left to itself, Linux lets `[::]` take
IPv4 as well, which then collides with `0.0.0.0` on the same port and shows IPv4 clients under IPv6 addresses.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
from typing import Any

from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from twisted.logger import Logger

from .settings import Address

BACKLOG = 512

_NO_IPV6 = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)

_log = Logger()


def listen(reactor: Any, addresses: Sequence[Address], factory: IProtocolFactory) -> list[IListeningPort]:
    """Serve `factory` on every address; the ports, in the order given.

    `[::]` is left out, with a warning, on a host without IPv6, if another address remains. Raises
    `CannotListenError` when an address cannot be had; none is then open.
    """
    ports: list[IListeningPort] = []
    for address in addresses:
        try:
            port = _listen(reactor, address, factory)
        except CannotListenError as wrong:
            if address.host == "::" and len(addresses) > 1 and getattr(wrong.socketError, "errno", None) in _NO_IPV6:
                _log.warn("no IPv6 on this host: not listening on {address}", address=str(address))
                continue
            for open_port in ports:
                open_port.stopListening()
            raise
        ports.append(port)
        _log.info("listening on http://{address}", address=str(address._replace(port=port.getHost().port)))  # type: ignore[attr-defined]
    return ports


def _listen(reactor: Any, address: Address, factory: IProtocolFactory) -> IListeningPort:
    if ":" not in address.host:
        port: IListeningPort = reactor.listenTCP(address.port, factory, backlog=BACKLOG, interface=address.host)
        return port
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.setblocking(False)
            listener.bind(address)
            listener.listen(BACKLOG)
            # The reactor takes a copy of the descriptor.
            port = reactor.adoptStreamPort(listener.fileno(), socket.AF_INET6, factory)
            return port
    except OSError as wrong:
        raise CannotListenError(address.host, address.port, wrong) from None  # type: ignore[no-untyped-call]
