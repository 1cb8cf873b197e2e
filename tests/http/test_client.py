"""The service through somebody else's eyes: treq over memory, and sockets over loopback."""

from __future__ import annotations

import json
import socket
import threading
from typing import Any

from treq.client import HTTPClient
from treq.testing import RequestTraversalAgent, _SynchronousProducer
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from fake_engine import FakeEngine, probe_of
from tracerouted.http import HttpLimits, make_site
from tracerouted.model import TraceRequest


class ThroughTreq(SynchronousTestCase):
    """A real HTTP client, no sockets."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.engine = FakeEngine(self.clock)
        self.agent = RequestTraversalAgent(None)
        self.agent._serverFactory = make_site(self.engine, clock=self.clock, wall=self.clock.seconds)
        self.client = HTTPClient(self.agent, data_to_body_producer=_SynchronousProducer)

    def ask(self, method: str, path: str, **more: Any) -> Any:
        return self.client.request(method, f"http://localhost{path}", **more)

    def text(self, response: Any) -> str:
        return self.successResultOf(response.text())

    def test_create_wait_and_read(self) -> None:
        """Create with a wait, then read the trace at its Location, whole and conditionally."""
        created = self.ask("POST", "/traces", json={"target": "example.net"}, headers={"Prefer": "wait=10"})
        self.assertNoResult(created)
        self.engine.start("trace001")
        self.engine.probe("trace001", 1, probe_of("192.0.2.9", 512))
        self.engine.finish("trace001")
        self.agent.flush()
        answer = self.successResultOf(created)
        assert 201 == answer.code
        (location,) = answer.headers.getRawHeaders("Location")
        read = self.successResultOf(self.ask("GET", location))
        assert json.loads(self.text(answer)) == json.loads(self.text(read))
        tag = read.headers.getRawHeaders("ETag")
        again = self.successResultOf(self.ask("GET", location, headers={"If-None-Match": tag}))
        assert 304 == again.code
        assert 204 == self.successResultOf(self.ask("DELETE", location)).code
        assert 404 == self.successResultOf(self.ask("GET", location)).code

    def test_events(self) -> None:
        """A stream is a complete, well-formed answer."""
        self.ask("POST", "/traces", json={"target": "example.net"})
        response = self.successResultOf(self.ask("GET", "/traces/trace001/events"))
        body = response.text()
        self.engine.finish("trace001")
        self.clock.advance(0)
        self.agent.flush()
        assert self.successResultOf(body).startswith("retry: 2000\n\nid: 1\nevent: status\n")

    def test_a_form_is_refused(self) -> None:
        """What a web form can send across sites is 415."""
        answer = self.successResultOf(self.ask("POST", "/traces", data={"target": "example.net"}))
        assert 415 == answer.code
        assert [] == self.engine.submitted


class OverLoopback(TestCase):
    """Real sockets, for what memory cannot show: how the kernel and the transport close connections."""

    def setUp(self) -> None:
        self.engine = FakeEngine(reactor)
        site = make_site(self.engine, clock=reactor, wall=reactor.seconds, limits=HttpLimits(stream_stalled_s=0.5))
        self.port = reactor.listenTCP(0, site, interface="127.0.0.1")
        self.addCleanup(self.port.stopListening)
        self.site = site

    def exchange(self, client: Any) -> Deferred[Any]:
        """Run a blocking client, given a connected socket, in a thread; its result, once the server is rid of it."""

        def run() -> Any:
            with socket.create_connection(("127.0.0.1", self.port.getHost().port), timeout=20) as connection:
                return client(connection)

        return deferToThread(run).addCallback(self._when_gone)

    def _when_gone(self, result: Any) -> Any:
        if not self.site.connections:
            return result
        later: Deferred[Any] = Deferred()
        reactor.callLater(0.01, later.callback, result)
        return later.addCallback(self._when_gone)

    def test_a_refusal_reaches_a_client_that_is_still_sending(self) -> None:
        """A client that reads only after sending 8 MB still gets its 413, not a reset."""

        def client(connection: socket.socket) -> bytes:
            connection.sendall(b"POST /traces HTTP/1.1\r\nHost: localhost\r\nContent-Length: 8388608\r\n\r\n")
            for _ in range(128):
                connection.sendall(bytes(65_536))
            connection.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: connection.recv(65_536), b""))

        def check(got: bytes) -> None:
            assert got.startswith(b"HTTP/1.1 413 ")

        return self.exchange(client).addCallback(check)

    def test_a_reader_that_stops_is_dropped(self) -> None:
        """A stalled reader over a real socket is dropped, with little in the kernel's buffers by then."""
        trace_id = self.engine.submit(TraceRequest(target="example.net")).id
        for n in range(4000):
            self.engine.probe(trace_id, 1, probe_of("192.0.2.1", n + 1), keep=1)

        closed = threading.Event()
        self.engine.on_close = closed.set

        def client(connection: socket.socket) -> int:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.sendall(f"GET /traces/{trace_id}/events HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            closed.wait(10)
            got = 0
            try:
                while data := connection.recv(65_536):
                    got += len(data)
            except ConnectionResetError:
                pass
            return got

        total = sum(len(frame) for _, frame in self.engine.jobs[trace_id].events)
        assert total > 1000000

        def check(got: int) -> None:
            assert got < 600_000

        return self.exchange(client).addCallback(check)
