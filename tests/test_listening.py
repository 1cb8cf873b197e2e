"""Serving on addresses of both families, on the same port."""

from __future__ import annotations

import errno
import socket
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactor
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tracerouted import listening
from tracerouted.listening import listen
from tracerouted.settings import Address


class Both(TestCase):
    """Real sockets on the wildcard addresses."""

    async def test_both_wildcards_share_a_port(self) -> None:
        """0.0.0.0 and [::] can be served together, and a client keeps the address of its own family."""
        clients: list[str] = []

        class Noting(Protocol):
            def connectionMade(self) -> None:
                clients.append(self.transport.getPeer().host)
                self.transport.loseConnection()

        class Waiting(Protocol):
            def __init__(self) -> None:
                self.gone: Deferred[None] = Deferred()

            def connectionLost(self, reason: Any = None) -> None:
                self.gone.callback(None)

        with socket.create_server(("0.0.0.0", 0)) as free:
            number = free.getsockname()[1]
        ports = listen(reactor, (Address("0.0.0.0", number), Address("::", number)), Factory.forProtocol(Noting))
        try:
            for host in ("127.0.0.1", "::1"):
                waiting = await connectProtocol(HostnameEndpoint(reactor, host, number), Waiting())
                await waiting.gone
        finally:
            await gatherResults([maybeDeferred(port.stopListening) for port in ports])

        assert clients == ["127.0.0.1", "::1"]

    async def test_a_taken_port_leaves_nothing_open(self) -> None:
        """When one address cannot be had the error names it, and those already open are closed again."""
        with socket.create_server(("::1", 0), family=socket.AF_INET6) as taken:
            number = taken.getsockname()[1]
            with pytest.raises(CannotListenError) as wrong:
                listen(reactor, (Address("127.0.0.1", number), Address("::1", number)), Factory())

        assert (wrong.value.interface, wrong.value.port) == ("::1", number)
        assert wrong.value.socketError.errno == errno.EADDRINUSE


class Without(SynchronousTestCase):
    """A host whose kernel has no IPv6."""

    def setUp(self) -> None:
        def refuse(*_: object) -> None:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")

        self.patch(listening.socket, "socket", refuse)

    def test_the_ipv6_wildcard_is_left_out(self) -> None:
        """A container serving on both wildcards starts there too."""
        memory = MemoryReactor()

        ports = listen(memory, (Address("0.0.0.0", 80), Address("::", 80)), Factory())

        assert len(ports) == 1
        assert [server[3] for server in memory.tcpServers] == ["0.0.0.0"]

    def test_what_was_asked_for_alone_is_an_error(self) -> None:
        """An address given by itself, or one that is no wildcard, is not left out silently."""
        for addresses in ((Address("::", 80),), (Address("0.0.0.0", 80), Address("::1", 80))):
            with pytest.raises(CannotListenError):
                listen(MemoryReactor(), addresses, Factory())
