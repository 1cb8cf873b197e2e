"""What holds for every resource: HEAD, fields, problems. Methods are in the corpus (test_corpus)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fake_http import Service
from fake_http import finished_trace as run

ROUTES = ["/traces", "/traces/trace001", "/traces/trace001/events", "/healthz", "/readyz"]


@pytest.mark.parametrize("path", [*ROUTES, "/traces/trace001?format=text", "/nope"])
def test_head(service: Service, path: str) -> None:
    """HEAD has GET's status and fields and no body."""
    run(service)
    get, head = service.get(path), service.ask("HEAD", path)
    get.headers.pop("transfer-encoding", None)
    assert (get.status, get.headers, b"") == (head.status, head.headers, head.body)


def test_an_unexpected_exception(service: Service, log: list[dict[str, Any]]) -> None:
    """A bug is 500 without its details, logged once; the service goes on."""
    service.engine.refuse = ZeroDivisionError("a secret")
    answer = service.post({"target": "example.net"})
    assert (500, "about:blank", "application/problem+json") == (
        answer.status,
        answer.json["type"],
        answer.headers["content-type"],
    )
    assert b"secret" not in answer.body
    assert b"Traceback" not in answer.body
    failures = [event["log_failure"] for event in log if "log_failure" in event]
    assert ["a secret"] == [failure.getErrorMessage() for failure in failures]
    service.engine.refuse = None
    assert 202 == service.post({"target": "example.net"}).status


def test_an_unexpected_exception_while_waiting(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug after a wait is a problem document too."""
    trace_id = service.post({"target": "example.net"}).json["id"]
    connection = service.connect()
    connection.request("GET", f"/traces/{trace_id}", {"Prefer": "wait=5"})
    service.engine.jobs[trace_id].trace = None
    service.clock.advance(5)
    assert 500 == connection.answer().status


def test_fields_on_every_answer(service: Service) -> None:
    """Nothing names the server's version, is sniffed, or may load from elsewhere; the date is the injected one's."""
    run(service)
    requests = [("GET", path) for path in ROUTES] + [
        ("GET", "/nope"),
        ("PUT", "/traces"),
        ("DELETE", "/traces/trace001"),
    ]
    for method, path in requests:
        headers = service.ask(method, path).headers
        assert "server" not in headers
        assert "nosniff" == headers["x-content-type-options"]
        assert "default-src 'self'" == headers["content-security-policy"]
        assert "no-referrer" == headers["referrer-policy"]
        assert "Tue, 14 Nov 2023 22:13:20 GMT" == headers["date"]
    service.clock.advance(2)
    assert "Tue, 14 Nov 2023 22:13:22 GMT" == service.get("/healthz").headers["date"]


def test_problems_are_not_cached(service: Service) -> None:
    """A problem is whole JSON of its own media type and isn't stored."""
    answer = service.get("/nope?secret=1")
    assert "application/problem+json" == answer.headers["content-type"]
    assert "no-store" == answer.headers["cache-control"]
    expected = ["type", "title", "status", "detail", "instance", "errors"]
    assert expected == list(json.loads(answer.body))
    assert "/nope" == answer.json["instance"]
