"""Pages of other origins: what they may read, and what they may not have done."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fake_http import Service, finished_trace
from tracerouted.http import Policy
from tracerouted.http.cors import Origins

HERE = "https://lg.example.net"
BODY = {"target": "example.net"}
PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}


@pytest.fixture
def service(make_service: Callable[..., Service]) -> Service:
    """Pages of two origins are allowed."""
    return make_service(lambda clock: Policy(origins=Origins((HERE, "http://localhost:3000"))))


@pytest.fixture
def anywhere(make_service: Callable[..., Service]) -> Service:
    """Pages of every origin are allowed."""
    return make_service(lambda clock: Policy(origins=Origins(("*",))))


@pytest.fixture
def closed(make_service: Callable[..., Service]) -> Service:
    """The default: none is."""
    return make_service()


def shared(headers: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.startswith("access-control-")}


def test_off_by_default(closed: Service) -> None:
    """Without a list no answer has a CORS field or varies by origin, and a preflight is an OPTIONS like any other."""
    path = f"/traces/{finished_trace(closed)}"
    read = closed.get(path, Origin=HERE)
    assert (200, "Accept", {}) == (read.status, read.headers["vary"], shared(read.headers))
    preflight = closed.ask("OPTIONS", "/traces", {"Origin": HERE, **PREFLIGHT})
    assert (204, {}) == (preflight.status, shared(preflight.headers))
    assert "POST" in preflight.headers["allow"]


@pytest.mark.parametrize("origin", [HERE, "http://localhost:3000"])
def test_listed(service: Service, origin: str) -> None:
    """A page of a listed origin may read every answer, refusals too, and their fields; caches are told."""
    path = f"/traces/{finished_trace(service)}"
    for answer in (
        service.get(path, Origin=origin),
        service.get("/traces", Origin=origin),
        service.get("/readyz", Origin=origin),
        service.get("/traces/nope", Origin=origin),
        service.get(path, Origin=origin, Accept="image/png"),
        service.post(BODY, Origin=origin),
        service.post(b"{", Origin=origin),
        service.ask("PUT", path, {"Origin": origin}),
        service.get(path, Origin=origin, If_None_Match="*"),
    ):
        assert origin == answer.headers["access-control-allow-origin"]
        assert "Origin" in answer.headers["vary"].split(", ")
        exposed = set(answer.headers["access-control-expose-headers"].split(", "))
        assert {"Location", "ETag", "RateLimit", "Retry-After", "Preference-Applied", "Link"} <= exposed
        assert "access-control-allow-credentials" not in answer.headers
    assert "Origin, Accept" == service.get(path, Origin=origin).headers["vary"]


def test_a_stream_is_shared(service: Service) -> None:
    """A stream of events can be read from a listed origin."""
    path = f"/traces/{finished_trace(service)}/events"
    assert HERE == service.get(path, Origin=HERE).headers["access-control-allow-origin"]


@pytest.mark.parametrize(
    "origin", [None, "https://other.example", "http://lg.example.net", HERE + ":444", HERE + ".evil.example", "null"]
)
def test_not_listed(service: Service, origin: str | None) -> None:
    """Anybody else gets no CORS field, but a cache is told that the answer would differ."""
    given = {} if origin is None else {"Origin": origin}
    for path in ("/traces", "/readyz", "/traces/nope"):
        answer = service.get(path, **given)
        assert ({}, True) == (shared(answer.headers), "Origin" in answer.headers["vary"])
    preflight = service.ask("OPTIONS", "/traces", {**given, **PREFLIGHT})
    assert (204, {}) == (preflight.status, shared(preflight.headers))


@pytest.mark.parametrize("path", ["/traces", "/traces/trace001", "/nope"])
def test_preflight(service: Service, path: str) -> None:
    """A preflight of a listed origin is told the methods and fields of the API, whatever the path."""
    answer = service.ask("OPTIONS", path, {"Origin": HERE, **PREFLIGHT})
    assert (204, HERE, "Origin") == (
        answer.status,
        answer.headers["access-control-allow-origin"],
        answer.headers["vary"],
    )
    assert {"GET", "HEAD", "POST", "DELETE"} == set(answer.headers["access-control-allow-methods"].split(", "))
    fields = {"Authorization", "Content-Type", "Idempotency-Key", "Prefer", "Last-Event-ID", "If-None-Match"}
    assert fields <= set(answer.headers["access-control-allow-headers"].split(", "))
    assert int(answer.headers["access-control-max-age"]) > 0
    assert not {"content-length", "transfer-encoding", "content-type"} & answer.headers.keys()


def test_a_connection_goes_on_after_a_preflight(service: Service) -> None:
    """The request a preflight was for comes on the same connection."""
    connection = service.connect()
    connection.request("OPTIONS", "/traces", {"Origin": HERE, **PREFLIGHT})
    connection.request("POST", "/traces", {"Origin": HERE, "Content-Type": "application/json"}, b'{"target": "a"}')
    assert [204, 202] == [answer.status for answer in connection.answers()]


def test_plain_options(service: Service) -> None:
    """OPTIONS that is no preflight still names the methods of its resource."""
    answer = service.ask("OPTIONS", "/traces", {"Origin": HERE})
    assert (204, "GET, HEAD, OPTIONS, POST", HERE) == (
        answer.status,
        answer.headers["allow"],
        answer.headers["access-control-allow-origin"],
    )


def test_only_options_is_a_preflight(service: Service) -> None:
    """A request of another method is what it is, even with a preflight's fields."""
    assert {"traces": [], "next_cursor": None} == service.get("/traces", **{"Origin": HERE, **PREFLIGHT}).json
    assert 202 == service.post(BODY, **{"Origin": HERE, **PREFLIGHT}).status


def test_anywhere(anywhere: Service) -> None:
    """With * every page may read and create, with one answer for all of them."""
    for origin in ("https://other.example", "null"):
        created = anywhere.post(BODY, Origin=origin)
        assert (202, "*") == (created.status, created.headers["access-control-allow-origin"])
        assert "vary" not in created.headers
        assert "*" == anywhere.ask("OPTIONS", "/", {}).headers.get("access-control-allow-origin", "*")
        preflight = anywhere.ask("OPTIONS", "/traces", {"Origin": origin, **PREFLIGHT})
        assert "*" == preflight.headers["access-control-allow-origin"]


# --- what a page may have done ---


@pytest.mark.parametrize(
    "origin",
    [
        "https://other.example",
        "null",
        "",
        "localhost",
        "https://localhost:8443",
        "http://localhost.evil",
        "http://",
        "x",
    ],
)
@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_a_foreign_page_does_nothing(closed: Service, service: Service, origin: str, method: str) -> None:
    """A POST or DELETE sent by a page that is neither this service's nor listed is 403, and changes nothing."""
    for one in (closed, service):
        path = f"/traces/{finished_trace(one)}"
        headers = {"Origin": origin, "Content-Type": "application/json"}
        answer = one.ask(method, "/traces" if method == "POST" else path, headers, b'{"target": "example.net"}')
        assert (403, "origin-not-allowed") == (answer.status, answer.type)
        assert "TRACEROUTED_CORS_ORIGINS" in answer.json["detail"]
        assert (1, 200) == (len(one.engine.submitted), one.get(path).status)


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("lg.example.net", "https://lg.example.net"),
        ("lg.example.net", "http://LG.example.net"),
        ("lg.example.net:443", "https://lg.example.net"),
        ("lg.example.net:80", "http://lg.example.net"),
        ("127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("[::1]:8080", "http://[::1]:8080"),
    ],
)
def test_its_own_page(closed: Service, host: str, origin: str) -> None:
    """The service's own page, known by the host it was asked under, may create."""
    assert 202 == closed.post(BODY, Host=host, Origin=origin).status


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("lg.example.net:80", "https://lg.example.net"),
        ("lg.example.net:8080", "http://lg.example.net"),
        ("lg.example.net", "http://lg.example.net:8080"),
    ],
)
def test_another_port_is_another_origin(closed: Service, host: str, origin: str) -> None:
    """Another service of the same host is foreign."""
    assert 403 == closed.post(BODY, Host=host, Origin=origin).status


def test_its_own_page_behind_a_proxy(closed: Service) -> None:
    """Where a proxy replaced Host, the browser's own word that the page is this service's counts."""
    given = {"Host": "backend:8080", "Origin": HERE}
    assert 202 == closed.post(BODY, Sec_Fetch_Site="same-origin", **given).status
    for foreign in ("same-site", "cross-site", "none"):
        assert 403 == closed.post(BODY, Sec_Fetch_Site=foreign, **given).status


@pytest.mark.parametrize("origin", [b"null", b"http://", b"x", b""])
def test_no_host_is_nobodys(closed: Service, origin: bytes) -> None:
    """A request of HTTP/1.0, which may name no host, is of no page of this service."""
    connection = closed.connect()
    connection.send(
        b"POST /traces HTTP/1.0\r\nOrigin: %b\r\nContent-Type: application/json\r\nContent-Length: 14\r\n\r\n"
        % origin
        + b'{"target":"a"}'
    )
    assert b" 403 " in connection.received.split(b"\r\n")[0]
    assert [] == closed.engine.submitted


def test_no_page_at_all(closed: Service) -> None:
    """A client that is no browser sends no Origin and is not asked."""
    assert 202 == closed.post(BODY).status
    assert 200 == closed.get("/traces", Origin="https://other.example").status
