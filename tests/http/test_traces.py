"""The resources under /traces, over a fake engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fake_http import Service, json_body
from fake_http import finished_trace as run
from tracerouted.http import formats
from tracerouted.jobs.engine import Busy, NotReady, TargetNotAllowed, Unsupported
from tracerouted.model import Problem

# --- POST ---


def test_create(service: Service) -> None:
    """A request is accepted with 202, its Location, and the trace as it stands."""
    answer = service.post({"target": "EXAMPLE.net.", "probes": 1})
    assert 202 == answer.status
    assert "/traces/trace001" == answer.headers["location"]
    assert "1" == answer.headers["retry-after"]
    assert "application/json" == answer.headers["content-type"]
    assert ("queued", "example.net", 1) == (
        answer.json["status"],
        answer.json["request"]["target"],
        answer.json["request"]["probes"],
    )
    assert answer.json == service.get("/traces/trace001").json


def test_asn_look_up_is_on_where_set_up(service: Service) -> None:
    """`lookup_asn` defaults to what the service was made with."""
    assert service.post({"target": "example.net"}).json["request"]["lookup_asn"]
    assert not service.post({"target": "example.net", "lookup_asn": False}).json["request"]["lookup_asn"]


def test_create_finished_at_once(service: Service) -> None:
    """A trace that ends within `Prefer: wait` is 201."""
    connection = service.connect()
    connection.request("POST", "/traces", *json_body({"target": "example.net"}, {"Prefer": "wait=5"}))
    assert b"" == connection.received
    service.clock.advance(4)
    service.engine.finish("trace001")
    answer = connection.answer()
    assert (201, "completed", "wait=5") == (
        answer.status,
        answer.json["status"],
        answer.headers["preference-applied"],
    )
    assert "/traces/trace001" == answer.headers["location"]
    assert "retry-after" not in answer.headers
    assert [] == service.engine.jobs["trace001"].waiting


def test_create_not_finished_in_time(service: Service) -> None:
    """A trace still running after `Prefer: wait` is 202, exactly then."""
    connection = service.connect()
    connection.request("POST", "/traces", *json_body({"target": "example.net"}, {"Prefer": "wait=5"}))
    service.engine.start("trace001")
    service.clock.advance(4.999)
    assert b"" == connection.received
    service.clock.advance(0.001)
    answer = connection.answer()
    assert (202, "running") == (answer.status, answer.json["status"])
    assert [] == service.engine.jobs["trace001"].waiting


def test_leaving_while_waiting(service: Service, log: list[dict[str, Any]]) -> None:
    """A client that goes away stops waiting, quietly, and cancels nothing."""
    connection = service.connect()
    connection.request("POST", "/traces", *json_body({"target": "example.net"}, {"Prefer": "wait=5"}))
    connection.leave()
    assert [] == service.engine.jobs["trace001"].waiting
    assert "trace001" in service.engine.jobs
    assert [] == service.clock.getDelayedCalls()
    assert [] == [event for event in log if event["log_level"].name in ("warn", "error", "critical")]


def test_a_wait_too_long_is_cut(service: Service) -> None:
    """No answer is held for more than a minute, and says how long it was held."""
    connection = service.connect()
    connection.request("POST", "/traces", *json_body({"target": "example.net"}, {"Prefer": "wait=3600"}))
    service.clock.advance(60)
    assert "wait=60" == connection.answer().headers["preference-applied"]


@pytest.mark.parametrize(
    "content_type", ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"]
)
def test_only_json(service: Service, content_type: str) -> None:
    """What is not declared as JSON is 415, whatever it holds; nothing is started."""
    headers = {"Content-Type": content_type} if content_type else {}
    answer = service.ask("POST", "/traces", headers, b'{"target": "example.net"}')
    assert (415, "unsupported-media-type") == (answer.status, answer.type)
    assert [] == service.engine.submitted


def test_wrong_fields(service: Service) -> None:
    """All wrong fields come at once, each with its pointer."""
    answer = service.post({"target": "127.1", "probes": 0, "hops": 1})
    assert (422, "invalid-request", "/traces") == (answer.status, answer.type, answer.json["instance"])
    assert ["/hops", "/probes", "/target"] == sorted(error["pointer"] for error in answer.json["errors"])
    assert all(error["detail"] for error in answer.json["errors"])


def test_malformed(service: Service) -> None:
    """What is not JSON is 400."""
    answer = service.post(b"{")
    assert (400, "malformed") == (answer.status, answer.type)


@pytest.mark.parametrize(
    ("error", "expected", "retry_after"),
    [
        (TargetNotAllowed("private; TRACEROUTED_ALLOW_TARGETS opens it"), (403, "target-not-allowed"), None),
        (Unsupported((Problem("protocol", "no sctp here"),)), (422, "unsupported"), None),
        (Busy("the queue is full", 7), (503, "busy"), "7"),
        (NotReady("no prober", 3), (503, "not-ready"), "3"),
    ],
)
def test_refused_by_the_engine(
    service: Service, error: Exception, expected: tuple[int, str], retry_after: str | None
) -> None:
    """Each of the engine's refusals has its problem, its words, and Retry-After where time may help."""
    service.engine.refuse = error
    answer = service.post({"target": "example.net"})
    assert expected == (answer.status, answer.type)
    assert str(error) == answer.json["detail"]
    assert retry_after == answer.headers.get("retry-after")
    assert "location" not in answer.headers


def test_unsupported_names_the_field(service: Service) -> None:
    """What no prober can do points at its field."""
    service.engine.refuse = Unsupported((Problem("protocol", "no sctp here"),))
    expected = [{"pointer": "/protocol", "detail": "no sctp here"}]
    assert expected == service.post({"target": "example.net", "protocol": "sctp"}).json["errors"]


def test_create_as_nothing_we_have(service: Service) -> None:
    """An Accept nothing satisfies is 406, before anything is started."""
    answer = service.post({"target": "example.net"}, Accept="image/png")
    assert (406, "not-acceptable") == (answer.status, answer.type)
    assert [] == service.engine.submitted


# --- GET one ---


def test_read(service: Service) -> None:
    """A finished trace can be read and kept for as long as it is."""
    trace_id = run(service)
    service.clock.advance(100.5)
    answer = service.get(f"/traces/{trace_id}")
    assert (200, "completed", 1) == (answer.status, answer.json["status"], answer.json["hop_count"])
    assert "private, max-age=3499" == answer.headers["cache-control"]
    assert "Accept" == answer.headers["vary"]
    assert "retry-after" not in answer.headers


def test_read_while_running(service: Service) -> None:
    """An unfinished trace is to be asked for again."""
    trace_id = service.post({"target": "example.net"}).json["id"]
    answer = service.get(f"/traces/{trace_id}")
    assert ("no-cache", "1") == (answer.headers["cache-control"], answer.headers["retry-after"])


def test_finished_but_not_final(service: Service) -> None:
    """A trace that is done but still learns names is neither cached nor to be polled, and shows what it learns."""
    trace_id = service.post({"target": "example.net"}).json["id"]
    service.engine.finish(trace_id, seal=False)
    first = service.get(f"/traces/{trace_id}")
    assert ("completed", "no-cache", None) == (
        first.json["status"],
        first.headers["cache-control"],
        first.headers.get("retry-after"),
    )
    service.engine.seal(trace_id)
    second = service.get(f"/traces/{trace_id}")
    assert "private, max-age=3600" == second.headers["cache-control"]
    assert second.json["expires_at"] is not None
    assert first.headers["etag"] != second.headers["etag"]


def test_expired_but_still_there(service: Service) -> None:
    """Past its expiry a document is not cached."""
    trace_id = run(service)
    service.clock.advance(10_000)
    assert "private, max-age=0" == service.get(f"/traces/{trace_id}").headers["cache-control"]


def test_unknown(service: Service) -> None:
    """An id that isn't there is 404 for every method, and its name is escaped."""
    for method, path in [("GET", "/traces/nope"), ("DELETE", "/traces/nope"), ("GET", "/traces/nope/events")]:
        answer = service.ask(method, path)
        assert (404, "not-found", path) == (answer.status, answer.type, answer.json["instance"])
    assert 404 == service.get("/traces/nope", Prefer="wait=5").status
    assert 404 == service.get("/traces/%C3%BC%22").status


def test_formats(service: Service) -> None:
    """?format= and Accept choose; ?format= wins."""
    path = f"/traces/{run(service)}"
    text = service.get(path + "?format=text")
    assert "text/plain; charset=utf-8" == text.headers["content-type"]
    assert text.body.startswith(b"traceroute to example.net (192.0.2.9)")
    assert text.body == service.get(path, Accept="text/plain").body
    assert text.body == service.get(path + "?format=text", Accept="application/json").body
    assert "completed" == service.get(path, Accept="text/plain;q=0.1, application/json").json["status"]
    assert "completed" == service.get(path, Accept="text/html, */*;q=0.8").json["status"]


@pytest.mark.parametrize(
    ("query", "headers", "expected"),
    [
        ("?format=pdf", {}, (406, "not-acceptable")),
        ("?format=", {}, (406, "not-acceptable")),
        ("", {"Accept": "image/png"}, (406, "not-acceptable")),
        ("?format=text&format=json", {}, (422, "invalid-request")),
        ("?formt=text", {}, (422, "invalid-request")),
        ("?format=%ff", {}, (422, "invalid-request")),
    ],
)
def test_no_such_format(service: Service, query: str, headers: dict[str, str], expected: tuple[int, str]) -> None:
    """A format that isn't there is 406; a query that can't be understood 422."""
    answer = service.get(f"/traces/{run(service)}{query}", **headers)
    assert expected == (answer.status, answer.type)


def test_a_format_is_one_entry(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new entry in the registry can be asked for by name, without shadowing the media type's first format."""
    new = formats.Format("count", "application/json", b"application/json", lambda trace: b"%d" % len(trace.hops))
    monkeypatch.setitem(formats.FORMATS, "count", new)
    path = f"/traces/{run(service)}"
    assert 1 == service.get(path + "?format=count").json
    assert "completed" == service.get(path, Accept="application/json").json["status"]


def test_conditional(service: Service) -> None:
    """The tag changes with revision, format and id; a match is 304 with the fields a cache needs, unbuilt."""
    trace_id = service.post({"target": "example.net"}).json["id"]
    path = f"/traces/{trace_id}"
    queued = service.get(path).headers["etag"]
    service.engine.start(trace_id)
    running = service.get(path).headers["etag"]
    text = service.get(path + "?format=text").headers["etag"]
    other = service.get(f"/traces/{run(service)}").headers["etag"]
    assert 4 == len({queued, running, text, other})
    assert all(tag.startswith('"') for tag in (queued, running, text, other))
    assert 200 == service.get(path, If_None_Match=queued).status
    built = service.engine.built
    for header in (running, f"W/{running}", f'"x", {running}', "*"):
        answer = service.get(path, If_None_Match=header)
        assert (304, b"") == (answer.status, answer.body)
        assert (running, "no-cache", "Accept") == tuple(answer.headers[n] for n in ("etag", "cache-control", "vary"))
        assert not {"content-length", "content-type", "transfer-encoding"} & answer.headers.keys()
    assert built == service.engine.built


def test_if_none_match_in_several_fields(service: Service) -> None:
    """Several If-None-Match fields are one list."""
    path = f"/traces/{run(service)}"
    tag = service.get(path).headers["etag"].encode()
    connection = service.connect()
    connection.send(
        b'GET %b HTTP/1.1\r\nHost: a\r\nIf-None-Match: "x"\r\nIf-None-Match: %b\r\n\r\n' % (path.encode(), tag)
    )
    assert 304 == connection.answer().status


def test_long_poll(service: Service) -> None:
    """`Prefer: wait` on GET answers when the trace ends, with the finished trace."""
    trace_id = service.post({"target": "example.net"}).json["id"]
    connection = service.connect()
    connection.request("GET", f"/traces/{trace_id}", {"Prefer": "wait=30"})
    service.clock.advance(29)
    assert b"" == connection.received
    service.engine.finish(trace_id)
    answer = connection.answer()
    assert ("completed", "wait=30") == (answer.json["status"], answer.headers["preference-applied"])
    assert answer.headers["cache-control"].startswith("private")


def test_long_poll_runs_out(service: Service) -> None:
    """After the wait the trace is shown as it stands."""
    trace_id = service.post({"target": "example.net"}).json["id"]
    connection = service.connect()
    connection.request("GET", f"/traces/{trace_id}", {"Prefer": "wait=2"})
    service.clock.advance(2)
    assert "queued" == connection.answer().json["status"]


def test_long_poll_of_a_deleted_trace(service: Service) -> None:
    """Who waits for a trace that is deleted gets 404."""
    trace_id = service.post({"target": "example.net"}).json["id"]
    connection = service.connect()
    connection.request("GET", f"/traces/{trace_id}", {"Prefer": "wait=2"})
    service.ask("DELETE", f"/traces/{trace_id}")
    assert 404 == connection.answer().status


def test_a_finished_document_is_made_once(service: Service) -> None:
    """A finished trace is rendered once per format, an unfinished one each time."""
    path = f"/traces/{run(service)}"
    built = service.engine.built
    bodies = {service.get(path).body for _ in range(3)}
    assert (1, built + 1) == (len(bodies), service.engine.built)
    service.get(path + "?format=text")
    assert built + 2 == service.engine.built
    running = service.post({"target": "example.net"}).json["id"]
    built = service.engine.built
    service.get(f"/traces/{running}")
    service.get(f"/traces/{running}")
    assert built + 2 == service.engine.built


def test_kept_documents_are_bounded(make_service: Callable[..., Service]) -> None:
    """The documents used longest ago leave when there is no room."""
    one = make_service()
    room = 5 * len(one.get(f"/traces/{run(one)}").body) // 2
    service = make_service(render_cache_bytes=room)
    first, second, third = (f"/traces/{run(service)}" for _ in range(3))
    for path in (first, second, first, third):
        service.get(path)
    built = service.engine.built
    service.get(first)
    service.get(third)
    assert built == service.engine.built
    service.get(second)
    assert built + 1 == service.engine.built


def test_a_document_too_large_to_keep(make_service: Callable[..., Service]) -> None:
    """What does not fit is served all the same."""
    service = make_service(render_cache_bytes=10)
    path = f"/traces/{run(service)}"
    assert 200 == service.get(path).status
    assert 200 == service.get(path).status


# --- DELETE ---


def test_delete(service: Service) -> None:
    """A deleted trace is gone: 204, then 404, its rendered documents too."""
    trace_id = run(service)
    path = f"/traces/{trace_id}"
    service.get(path)
    answer = service.ask("DELETE", path)
    assert (204, b"") == (answer.status, answer.body)
    assert 404 == service.get(path).status
    assert 404 == service.get(path, If_None_Match="*").status
    assert 404 == service.ask("DELETE", path).status


def test_nothing_of_a_deleted_trace_is_kept(service: Service) -> None:
    """The rendered documents go with the trace: another one under its id would be shown as it is."""
    trace_id = run(service)
    path = f"/traces/{trace_id}"
    assert "example.net" == service.get(path).json["request"]["target"]
    service.ask("DELETE", path)
    other = service.engine.jobs.pop(run(service, "example.org"))
    service.engine.jobs[trace_id] = other
    assert "example.org" == service.get(path).json["request"]["target"]
