"""What the page's tests run it against: the real daemon with a name server, a proxy that breaks connections, and a
service that says whatever a test wants.
"""

from __future__ import annotations

import json
import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from twisted.names import dns

import daemon_process
from naming import scripted_dns
from naming.scripted_dns import reply
from tracerouted.web.pages import read_pages

# --- names ---------------------------------------------------------------------------------------------------


def reverse_name(address: bytes) -> str | None:
    """What the simulated routers 44.1.N.R are called: rR.metroN.example.net, but those with R = 9 have no name."""
    parts = address.split(b".")[3::-1]
    if parts[:2] != [b"44", b"1"] or parts[3] == b"9":
        return None
    return f"r{parts[3].decode()}.metro{parts[2].decode()}.example.net"


def _names(query: dns.Message) -> dns.Message:
    name, kind = query.queries[0].name.name, query.queries[0].type
    payload: Any = None
    if kind == dns.PTR and name.endswith(b".in-addr.arpa"):
        host = reverse_name(name)
        payload = host and dns.Record_PTR(host.encode(), 300)
    elif kind == dns.A and name == b"plain.example.net":
        payload = dns.Record_A("44.1.10.100", 300)
    return reply(
        query,
        [dns.RRHeader(name, kind, ttl=300, payload=payload)] if payload else (),
        dns.OK if payload else dns.ENAME,
    )


def name_server() -> AbstractContextManager[int]:
    """A DNS server on loopback that knows `reverse_name`; its port."""
    return scripted_dns.name_server(_names)


# --- the daemon ----------------------------------------------------------------------------------------------


@contextmanager
def daemon(**settings: str) -> Iterator[str]:
    """`tracerouted serve` as a process of its own, ready to trace; the address of its page."""
    with daemon_process.daemon(**settings) as service:
        yield service.page


# --- a way there that breaks ---------------------------------------------------------------------------------


class Proxy:
    """Forwards TCP connections to a daemon; `cut` resets all there are, and refuses new ones while `down`."""

    def __init__(self, address: str) -> None:
        self._to = ("127.0.0.1", int(address.rstrip("/").rsplit(":", 1)[1]))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}/"
        self.down = False
        self.cuts = 0
        #: called with each piece that came from the daemon; may cut
        self.watch: Callable[[bytes], None] = lambda piece: None
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Reset every connection."""
        self.cuts += 1
        for pair in list(self._pairs):
            for end in pair:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.down:
                client.close()
                continue
            threading.Thread(target=self._forward, args=(client,), daemon=True).start()

    def _forward(self, client: socket.socket) -> None:
        with client, socket.create_connection(self._to) as server:
            pair = (client, server)
            self._pairs.add(pair)
            try:
                while True:
                    for end in select.select(pair, (), ())[0]:
                        piece = end.recv(65_536)
                        if not piece:
                            return
                        if end is server:
                            self.watch(piece)
                            client.sendall(piece)
                        else:
                            server.sendall(piece)
            except OSError:
                return
            finally:
                self._pairs.discard(pair)


# --- a service that says what a test wants -------------------------------------------------------------------


class Scripted:
    """The real page over an API of the test's own.

    `answers` maps "METHOD /path" to (status, headers, body), where body is a JSON document, or an iterator of bytes
    that is streamed as server-sent events. `asked` lists what was asked for, with request headers and body.
    """

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.asked: list[tuple[str, dict[str, str], bytes]] = []
        self.pages = read_pages()
        script = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                script._answer(self)

            do_POST = do_DELETE = do_GET

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}/"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length", 0)))
        path = request.path.split("?")[0]
        asset = self.pages.page if path == "/" else self.pages.assets.get(Path(path).name)
        question = f"{request.command} {path}"
        if question not in self.answers and asset is not None:
            self._send(request, 200, {"Content-Type": asset.media_type.decode()}, asset.plain.body)
            return
        self.asked.append((question, dict(request.headers), body))
        status, headers, content = self.answers.get(question, (404, {}, {"type": "/problems/not-found"}))
        if isinstance(content, dict):
            kind = "application/json" if status < 400 else "application/problem+json"
            self._send(request, status, {"Content-Type": kind, **headers}, json.dumps(content).encode())
            return
        request.send_response(status)
        for name, value in {"Content-Type": "text/event-stream", "Connection": "close", **headers}.items():
            request.send_header(name, value)
        request.end_headers()
        request.close_connection = True
        with suppress(OSError):
            for piece in content() if callable(content) else content:
                request.wfile.write(piece)
                request.wfile.flush()

    @staticmethod
    def _send(request: BaseHTTPRequestHandler, status: int, headers: dict[str, str], body: bytes) -> None:
        request.send_response(status)
        policy = "default-src 'self'; require-trusted-types-for 'script'; trusted-types 'none'"
        for name, value in {
            **headers,
            "Content-Security-Policy": policy,
            "Content-Length": str(len(body)),
            "Cache-Control": "no-store",
        }.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(body)


def trace_document(**fields: Any) -> dict[str, Any]:
    """A running trace without hops, as `POST /traces` answers it."""
    request = {
        "target": "192.0.2.9",
        "family": "any",
        "protocol": "icmp",
        "port": None,
        "source_port": None,
        "flows": 1,
        "first_ttl": 1,
        "max_ttl": 30,
        "probes": 3,
        "interval_ms": 50,
        "timeout_ms": 2000,
        "deadline_ms": 60000,
        "gap_limit": 8,
        "size": 64,
        "tos": 0,
        "resolve_names": True,
        "lookup_asn": True,
    }
    request.update(fields.pop("request", {}))
    return {
        "id": "abc",
        "status": "running",
        "stop_reason": None,
        "reached": False,
        "revision": 3,
        "created_at": "2026-01-02T03:04:05.000Z",
        "started_at": "2026-01-02T03:04:05.000Z",
        "finished_at": None,
        "expires_at": None,
        "request": request,
        "target": {"host": "192.0.2.9", "address": "192.0.2.9", "family": "ipv4", "addresses": ["192.0.2.9"]},
        "source_address": "192.0.2.1",
        "hop_count": 0,
        "path_id": None,
        "hops": [],
        "paths": [],
        "error": None,
        "links": {"self": "/traces/abc", "events": "/traces/abc/events"},
        **fields,
    }


def event(revision: int, name: str, data: dict[str, Any]) -> bytes:
    """One server-sent event."""
    return f"id: {revision}\nevent: {name}\ndata: {json.dumps(data)}\n\n".encode()
