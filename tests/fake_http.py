"""A Site served without sockets: raw connections to write bytes into, and answers parsed from what came back."""

from __future__ import annotations

import json
from typing import Any

from attrs import define, field
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import implementer

from fake_engine import probe_of

PEER = IPv4Address("TCP", "192.0.2.77", 40000)


@define
class Answer:
    """One HTTP answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def type(self) -> str:
        """The problem type's name."""
        return self.json["type"].removeprefix("/problems/")


@implementer(ITCPTransport)
class EdgeTransport(StringTransport):
    """A transport that pauses its producer as a TCP one does: past `bufferSize` of what the client has not read.

    `reading` False is a client that reads nothing.
    """

    bufferSize = 65_536
    reading = True
    half_closed = False
    aborted = False

    def __init__(self, peer: Any = PEER) -> None:
        super().__init__(peerAddress=peer)
        self.unread = b""
        self.paused = False

    def write(self, data: bytes) -> None:
        assert not self.half_closed, "written after the sending side was closed"
        self.unread += data
        if self.reading:
            self.take()
        elif len(self.unread) > self.bufferSize and self.producer is not None:
            self.paused = True
            self.producer.pauseProducing()

    def writeSequence(self, data: list[bytes]) -> None:
        self.write(b"".join(data))

    def take(self) -> None:
        """The client reads all there is."""
        data, self.unread = self.unread, b""
        super().write(data)
        if self.paused:
            self.paused = False
            self.producer.resumeProducing()

    def unregisterProducer(self) -> None:
        self.producer, self.paused = None, False

    def loseWriteConnection(self) -> None:
        self.half_closed = True

    def abortConnection(self) -> None:
        self.aborted = True
        self.disconnecting = True

    def setTcpNoDelay(self, enabled: bool) -> None:
        pass

    def getTcpNoDelay(self) -> bool:
        return True

    def setTcpKeepAlive(self, enabled: bool) -> None:
        pass

    def getTcpKeepAlive(self) -> bool:
        return False


class Connection:
    """A client's end of one connection."""

    def __init__(self, site: Any, peer: Any = PEER) -> None:
        self.transport = EdgeTransport(peer)
        self.protocol = site.buildProtocol(peer)
        self.refused = self.protocol is None
        if not self.refused:
            self.protocol.makeConnection(self.transport)

    def send(self, data: bytes) -> None:
        """Bytes arrive at the server."""
        self.protocol.dataReceived(data)

    def request(self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes = b"") -> None:
        """A well-formed request arrives."""
        given = {"Host": "localhost", **(headers or {})}
        if body:
            given["Content-Length"] = str(len(body))
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in given.items()), "", ""]
        self.send("\r\n".join(lines).encode("latin-1") + body)

    def leave(self) -> None:
        """The client closes the connection."""
        self.protocol.connectionLost(Failure(ConnectionDone()))

    def settle(self) -> None:
        """What the server did to the connection takes effect, as a reactor's next turn would have it."""
        if self.transport.aborted:
            self.protocol.connectionLost(Failure(ConnectionAborted()))

    @property
    def closed(self) -> bool:
        """Whether the server has closed, or begun to close, the connection."""
        return bool(self.transport.disconnecting or self.transport.half_closed)

    @property
    def received(self) -> bytes:
        """Everything the client has read."""
        return self.transport.value()

    def answers(self, method: str = "GET") -> list[Answer]:
        """All complete answers so far; a HEAD has no bodies."""
        rest = self.received
        found = []
        while rest:
            answer, rest = parse_answer(rest, method)
            found.append(answer)
        return found

    def answer(self, method: str = "GET") -> Answer:
        """The one answer."""
        (answer,) = self.answers(method)
        return answer


def parse_answer(data: bytes, method: str) -> tuple[Answer, bytes]:
    """The first answer in `data` and what follows it; a chunked one may be unfinished."""
    head, _, rest = data.partition(b"\r\n\r\n")
    status_line, *fields = head.decode("latin-1").split("\r\n")
    version, status, _ = status_line.split(" ", 2)
    assert version in ("HTTP/1.1", "HTTP/1.0")
    headers: dict[str, str] = {}
    for line in fields:
        name, _, value = line.partition(": ")
        assert name.lower() not in headers, f"{name} twice"
        headers[name.lower()] = value
    code = int(status)
    if method == "HEAD" or code in (100, 204, 304):
        return Answer(code, headers, b""), rest
    if headers.get("transfer-encoding") == "chunked":
        body, rest = _chunks(rest)
        return Answer(code, headers, body), rest
    if "content-length" in headers:
        length = int(headers["content-length"])
        assert len(rest) >= length, "the body is cut short"
        return Answer(code, headers, rest[:length]), rest[length:]
    return Answer(code, headers, rest), b""


def _chunks(data: bytes) -> tuple[bytes, bytes]:
    body = b""
    while data:
        size_line, _, data = data.partition(b"\r\n")
        size = int(size_line, 16)
        body += data[:size]
        data = data[size + 2 :]
        if size == 0:
            break
    return body, data


@define
class Service:
    """A Site over a fake engine, the clock both run on, and the address clients connect from."""

    site: Any
    engine: Any
    clock: Any
    connections: list[Connection] = field(factory=list)
    peer: Any = PEER

    def connect(self) -> Connection:
        connection = Connection(self.site, self.peer)
        self.connections.append(connection)
        return connection

    def ask(self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes = b"") -> Answer:
        """One request on a connection of its own, answered at once."""
        connection = self.connect()
        connection.request(method, path, headers, body)
        answer = connection.answer(method)
        connection.leave()
        return answer

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, {name.replace("_", "-"): value for name, value in headers.items()})

    def post(self, document: Any, **headers: str) -> Answer:
        return self.ask("POST", "/traces", *json_body(document, headers))


def json_body(document: Any, headers: dict[str, str]) -> tuple[dict[str, str], bytes]:
    """The headers and body of a POST; a str or bytes document is sent as it is."""
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return {"Content-Type": "application/json"} | {n.replace("_", "-"): v for n, v in headers.items()}, body


def finished_trace(service: Service, target: str = "example.net") -> str:
    """A finished trace of one hop; its id."""
    trace_id = service.post({"target": target}).json["id"]
    service.engine.start(trace_id)
    service.engine.probe(trace_id, 1, probe_of("192.0.2.9", 512))
    service.engine.finish(trace_id)
    return trace_id


def warnings_in(log: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The events of a log that an operator would have to look at."""
    return [event for event in log if event["log_level"].name in ("warn", "error", "critical")]
