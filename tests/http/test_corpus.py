"""The corpus of raw requests, in pieces of any size and over real sockets."""

from __future__ import annotations

import socket
from functools import cache
from typing import Any

import pytest

from corpus import LAST, Case, exchange, judge, read_cases
from fake_http import Service, finished_trace, warnings_in
from tracerouted.web import pages

CASES = read_cases()
PIECES = (1_000_000, 7, 1)

read_pages = cache(pages.read_pages)

any_case = pytest.mark.parametrize(
    "case",
    [case for case in CASES if case.only is None],
    ids=lambda case: case.id if isinstance(case, Case) else None,
)


@pytest.fixture
def service(service: Service, monkeypatch: pytest.MonkeyPatch) -> Service:
    """A service with its pages, that has one finished trace and one that waits for its turn."""
    monkeypatch.setattr(pages, "read_pages", read_pages)
    pages.add_pages(service.site.router)
    assert "trace001" == finished_trace(service)
    assert "trace002" == service.post({"target": "example.net"}).json["id"]
    return service


def test_size() -> None:
    """The corpus is one: cases by the hundred, each with a name of its own."""
    assert len(CASES) > 300
    assert len({case.id for case in CASES}) == len(CASES)


@any_case
def test_in_pieces(service: Service, log: list[dict[str, Any]], case: Case) -> None:
    """Bytes mean the same in whatever pieces they come; no answer breaks a promise, nothing is logged."""
    for size in PIECES:
        submitted = len(service.engine.submitted)
        connection = service.connect()
        data = case.data + LAST
        for start in range(0, len(data), size):
            connection.send(data[start : start + size])
        assert connection.closed
        judge(case, connection.received)
        assert case.submitted == len(service.engine.submitted) - submitted
    assert [] == warnings_in(log)


@any_case
def test_over_tcp(service: Service, log: list[dict[str, Any]], reactor: Any, case: Case) -> None:
    """The same over a socket, where what a client still sends must not destroy the answer."""
    submitted = len(service.engine.submitted)
    port = reactor.listenTCP(0, service.site, interface="127.0.0.1")
    try:
        with socket.create_connection(("127.0.0.1", port.getHost().port)) as client:
            client.setblocking(False)
            judge(case, exchange(client, case.data + LAST, lambda: reactor.iterate(0)))
        while service.site.connections:
            reactor.iterate(0)
    finally:
        port.stopListening()
    assert case.submitted == len(service.engine.submitted) - submitted
    assert [] == warnings_in(log)
