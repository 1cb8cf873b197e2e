"""A lean HTTP client: many connections in one loop, so that the service and not the client is what is measured.

Jobs: `ask` (requests, clients, port: each client sends the next request when its answer is in), `ready` and `follow`.
A request is [method, path, fields, body].
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from . import cpu_s, rss

READ = 1 << 18


def encode(method: str, path: str, fields: dict[str, str], body: str) -> bytes:
    """A request as bytes."""
    lines = [f"{method} {path} HTTP/1.1", "Host: bench", *(f"{name}: {value}" for name, value in fields.items())]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


class Connection:
    """One connection and the answer it waits for."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.request = -1
        self.sent_at = 0.0
        self.data = b""
        self.head = b""
        self._whole = 0

    def send(self, number: int, request: bytes) -> None:
        """Send request `number`."""
        self.request, self.sent_at = number, time.perf_counter()
        self.socket.sendall(request)

    def receive(self) -> tuple[int, bytes] | None:
        """Read; the status and body once the answer is whole."""
        chunk = self.socket.recv(READ)
        if not chunk:
            raise ConnectionError("the service closed the connection")
        self.data += chunk
        if not self._whole:
            end = self.data.find(b"\r\n\r\n")
            if end < 0:
                return None
            self.head = self.data[:end]
            at = self.head.lower().find(b"\r\ncontent-length:")
            length = int(self.head[at + 17 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            self._head, self._whole = end + 4, end + 4 + length
        if len(self.data) < self._whole:
            return None
        status, body = int(self.data[9:12]), self.data[self._head :]
        self.data, self._whole = b"", 0
        return status, body


def ask(requests: list[list[Any]], clients: int, port: int, repeat: int = 1, routes: bool = False) -> dict[str, Any]:
    """Send all requests `repeat` times over; the wall clock runs from the first sent to the last answered."""
    encoded = [encode(*request) for request in requests]
    total = len(encoded) * repeat
    connections = [Connection(port) for _ in range(min(clients, total))]
    poll = select.epoll()
    by_number = {connection.socket.fileno(): connection for connection in connections}
    for number in by_number:
        poll.register(number, select.EPOLLIN)
    statuses: dict[int, int] = {}
    bodies: dict[int, bytes] = {}
    latencies: list[float] = []
    began = time.perf_counter()
    following = 0
    for connection in connections:
        connection.send(following, encoded[following % len(encoded)])
        following += 1
    while len(latencies) < total:
        for number, _ in poll.poll():
            connection = by_number[number]
            answer = connection.receive()
            if answer is None:
                continue
            latencies.append(time.perf_counter() - connection.sent_at)
            status, body = answer
            statuses[status] = statuses.get(status, 0) + 1
            bodies[connection.request % len(encoded)] = body
            if following < total:
                connection.send(following, encoded[following % len(encoded)])
                following += 1
    wall = time.perf_counter() - began
    poll.close()
    for connection in connections:
        connection.socket.close()
    found: dict[str, Any] = {"wall_s": wall, "statuses": statuses, "latencies_s": latencies}
    if routes:
        documents = [json.loads(body) for body in bodies.values()]
        found["routes"] = {
            document["request"]["target"]: [
                hop["responders"][0]["address"] if hop["responders"] else None for hop in document["hops"]
            ]
            for document in documents
            if "hops" in document
        }
    else:
        fields = connections[0].head.decode().split("\r\n")[1:]
        named = [field.split(": ", 1) for field in fields]
        found["fields"] = {name.lower(): value for name, value in named}
        found["body"] = bodies[0].decode()
    return found


def follow(path: str, followers: int, port: int, pid: int) -> dict[str, Any]:
    """Follow a running trace until every stream has ended.

    Events are counted on every connection. How late they come, against when the probe was answered, is looked at on
    every fiftieth, from the time all streams have begun. `rss` is the most the service had; `cpu_s` is what it used.
    """
    request = encode("GET", path, {"Accept": "text/event-stream"}, "")
    cpu = cpu_s(pid)
    poll = select.epoll()
    open_ones: dict[int, socket.socket] = {}
    sampled: dict[int, bytes] = {}
    for number in range(followers):
        connected = socket.create_connection(("127.0.0.1", port))
        connected.sendall(request)
        open_ones[connected.fileno()] = connected
        if number % 50 == 0:
            sampled[connected.fileno()] = b""
        poll.register(connected.fileno(), select.EPOLLIN)
    counts = dict.fromkeys(open_ones, 0)
    tails = dict.fromkeys(open_ones, b"")
    delays: list[float] = []
    ended = events = most_rss = 0
    silent = set(open_ones)
    live_from = float("inf")
    began = looked = time.perf_counter()
    while open_ones:
        for number, _ in poll.poll():
            chunk = open_ones[number].recv(READ)
            now = time.time()
            if silent:
                silent.discard(number)
                live_from = now if not silent else live_from
            whole = tails[number] + chunk
            here = whole.count(b"\nevent: hop\n")
            counts[number] += here
            events += here
            tails[number] = whole[-11:]
            if number in sampled:
                *lines, sampled[number] = (sampled[number] + chunk).split(b"\n")
                delays += _delays(lines, now, live_from)
            if not chunk or b"0\r\n\r\n" in whole[-7:]:
                ended += bool(chunk)
                poll.unregister(number)
                open_ones.pop(number).close()
        if time.perf_counter() - looked > 0.2:
            looked = time.perf_counter()
            most_rss = max(most_rss, rss(pid))
    return {
        "wall_s": time.perf_counter() - began,
        "events": events,
        "least": min(counts.values()),
        "most": max(counts.values()),
        "ended": ended,
        "delays_s": delays,
        "rss": max(most_rss, rss(pid)),
        "cpu_s": cpu_s(pid) - cpu,
    }


def _delays(lines: list[bytes], now: float, since: float) -> Iterator[float]:
    """How long ago the probes were answered that these lines tell of, of those answered after `since`."""
    for line in lines:
        if line.startswith(b'data: {"ttl"'):
            try:
                probe = json.loads(line[6:])["probe"]
            except json.JSONDecodeError:
                continue  # two chunks of the transfer meet inside this line
            if probe is not None and probe["rtt_ms"] is not None:
                answered = datetime.fromisoformat(probe["sent_at"]).timestamp() + probe["rtt_ms"] / 1e3
                if answered > since:
                    yield now - answered


def ready(port: int, within_s: float = 20.0) -> dict[str, Any]:
    """Wait until the service is ready to trace IPv4, and its self-tests are over."""
    until = time.monotonic() + within_s
    while True:
        try:
            found = ask([["GET", "/readyz", {}, ""]], 1, port)
            if found["statuses"].get(200):
                return found
        except OSError:
            pass
        if time.monotonic() > until:
            return {"error": f"nothing is ready on port {port}"}
        time.sleep(0.05)


def main() -> None:
    """Take jobs until standard input ends."""
    jobs = {"ask": ask, "follow": follow, "ready": ready}
    print('{"ready": true}', flush=True)
    for text in sys.stdin:
        job = json.loads(text)
        print(json.dumps(jobs[job.pop("do")](**job)), flush=True)


if __name__ == "__main__":
    main()
