"""Answers of the service are as `openapi.yaml` says, itself and the page that shows it among them."""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable
from hashlib import sha256
from importlib.resources import files
from typing import Any

import pytest
import yaml

from contract_checks import CONTRACT, check, parsed, resolved
from fake_engine import probe_of
from fake_http import Answer, Service, finished_trace, json_body
from tracerouted import model
from tracerouted.http import Policy, contract, problems
from tracerouted.http.formats import FORMATS
from tracerouted.http.quota import Quota
from tracerouted.jobs.engine import Busy, NotReady, TargetNotAllowed, Unsupported


def keep(answer: Answer, path: str, method: str) -> None:
    """Raise unless an answer is one that the contract describes."""
    response = resolved(CONTRACT["paths"][path][method.lower()]["responses"][str(answer.status)])
    for name, header in response["headers"].items():
        value = answer.headers.get(name.lower())
        if value is None:
            assert not resolved(header).get("required"), name
        else:
            schema = resolved(header)["schema"]
            check(schema, int(value) if schema["type"] == "integer" else value)
    if "content" not in response:
        assert b"" == answer.body
        return
    media_type = answer.headers["content-type"].split(";")[0]
    schema = response["content"][media_type]["schema"]
    if media_type == "text/event-stream":
        for frame in answer.body.decode().removeprefix("retry: 2000\n\n").split("\n\n")[:-1]:
            check(schema, parsed(frame))
    else:
        check(schema, answer.json if media_type.endswith("json") else answer.body.decode())


REQUEST = {"target": "example.net"}


@pytest.mark.parametrize(
    ("status", "body", "headers", "refuse"),
    [
        (202, REQUEST, {}, None),
        (400, b"{", {}, None),
        (400, REQUEST, {"Idempotency_Key": "unquoted"}, None),
        (403, REQUEST, {}, TargetNotAllowed("no")),
        (403, REQUEST, {"Origin": "https://elsewhere.example"}, None),
        (406, REQUEST, {"Accept": "image/png"}, None),
        (413, b" " * 20_000, {}, None),
        (415, REQUEST, {"Content_Type": "text/plain"}, None),
        (422, {"target": "127.1", "more": 1}, {}, None),
        (422, REQUEST, {}, Unsupported((model.Problem("protocol", "no"),))),
        (503, REQUEST, {}, Busy("full", 3)),
        (503, REQUEST, {}, NotReady("starting", 3)),
    ],
)
def test_answers_of_create(
    service: Service, status: int, body: Any, headers: dict[str, str], refuse: Exception | None
) -> None:
    """Creating is answered as the contract says, whatever comes of it."""
    service.engine.refuse = refuse
    answer = service.ask("POST", "/traces", *json_body(body, headers))
    assert status == answer.status
    keep(renamed(answer), "/traces", "POST")


def renamed(answer: Answer) -> Answer:
    """The answer with the fake engine's short ids as long as real ones."""
    long = "trace001" + "0" * 14
    return Answer(
        answer.status,
        {name: value.replace("trace001", long) for name, value in answer.headers.items()},
        answer.body.replace(b"trace001", long.encode()),
    )


@pytest.mark.parametrize("media_type", ["text/event-stream", "text/plain"])
def test_answers_that_stream(service: Service, media_type: str) -> None:
    """A trace told while it runs is answered as the contract says."""
    connection = service.connect()
    headers, body = json_body({**REQUEST, "probes": 1}, {"Accept": media_type})
    connection.request("POST", "/traces", headers, body)
    service.engine.start("trace001")
    service.engine.probe("trace001", 1, probe_of("192.0.2.9", 512))
    service.engine.finish("trace001")
    service.clock.advance(1)
    answer = connection.answer("POST")
    assert (200, media_type) == (answer.status, answer.headers["content-type"].split(";")[0])
    assert b"192.0.2.9" in answer.body
    keep(renamed(answer), "/traces", "POST")


def test_answers_with_a_quota(make_service: Callable[..., Service]) -> None:
    """The quota's fields, and the answer when it is spent, are as the contract says."""
    service = make_service(policy=lambda clock: Policy(quota=Quota(1, clock)))
    for status in (202, 429):
        answer = service.post(REQUEST)
        assert (status, True) == (answer.status, "ratelimit" in answer.headers)
        keep(renamed(answer), "/traces", "POST")


def test_answers_of_a_trace(service: Service) -> None:
    """Reading, following, listing and deleting are answered as the contract says."""
    trace_id = finished_trace(service)
    one, stream = "/traces/{trace_id}", "/traces/{trace_id}/events"
    tag = service.get(f"/traces/{trace_id}").headers["etag"]
    last = str(service.engine.revision(trace_id)[0])
    for status, path, target, headers in [
        *((200, one, f"/traces/{trace_id}?format={name}", {}) for name in FORMATS),
        (304, one, f"/traces/{trace_id}", {"If_None_Match": tag}),
        (404, one, "/traces/nope", {}),
        (406, one, f"/traces/{trace_id}?format=pdf", {}),
        (422, one, f"/traces/{trace_id}?more=1", {}),
        (200, stream, f"/traces/{trace_id}/events", {}),
        (204, stream, f"/traces/{trace_id}/events", {"Last_Event_ID": last}),
        (400, stream, f"/traces/{trace_id}/events", {"Last_Event_ID": "999"}),
        (404, stream, "/traces/nope/events", {}),
        (406, stream, f"/traces/{trace_id}/events", {"Accept": "text/html"}),
        (200, "/traces", "/traces", {}),
        (422, "/traces", "/traces?limit=0", {}),
        (406, "/traces", "/traces", {"Accept": "text/html"}),
        (200, "/healthz", "/healthz", {}),
        (200, "/readyz", "/readyz", {}),
        (200, "/docs", "/docs", {}),
        (200, "/openapi.json", "/openapi.json", {}),
    ]:
        answer = service.get(target, **headers)
        assert status == answer.status, target
        keep(renamed(answer), path, "GET")
    answer = service.ask("DELETE", f"/traces/{trace_id}")
    assert 204 == answer.status
    keep(answer, one, "DELETE")


# --- the contract itself, as it is served --------------------------------------------------------------------


SWAGGER_UI = files("tracerouted.http") / "vendor" / "swagger-ui"


def test_served(service: Service) -> None:
    """`/openapi.json` is the document in the YAML file, compressed for who takes that, and not sent twice."""
    plain = service.get("/openapi.json")
    assert CONTRACT == yaml.safe_load((files("tracerouted.http") / "openapi.yaml").read_text()) == plain.json
    packed = service.get("/openapi.json", Accept_Encoding="gzip")
    assert ("application/json", "gzip") == (packed.headers["content-type"], packed.headers["content-encoding"])
    assert plain.body == gzip.decompress(packed.body)
    assert plain.headers["etag"] != packed.headers["etag"]
    for answer, coding in ((plain, "identity"), (packed, "gzip")):
        again = service.get("/openapi.json", If_None_Match=answer.headers["etag"], Accept_Encoding=coding)
        assert (304, b"") == (again.status, again.body)


def test_every_answer_links_to_it(service: Service) -> None:
    """Answers of the API, refusals included, link to the contract; pages do not."""
    finished_trace(service)
    link = '</openapi.json>; rel="service-desc"'
    for path in ("/traces", "/traces/trace001", "/traces/trace001/events", "/traces/nope", "/nope", "/healthz"):
        assert link == service.get(path).headers["link"], path
    assert link == service.post(b"{").headers["link"]
    assert link == service.post(b" " * 20_000).headers["link"]
    assert "link" not in service.get("/docs").headers


def test_the_page_has_what_it_names(service: Service) -> None:
    """`/docs` has no script or style of its own, and every file it names is there to be kept for good."""
    page = service.get("/docs")
    assert "text/html; charset=utf-8" == page.headers["content-type"]
    html = page.body.decode()
    assert not re.search(r"<script(?![^>]* src=)|<style| style=| on\w+=|https?:", html)
    names = re.findall(r'(?:src|href)="(docs/[^"]+)"', html)
    assert ["swagger-ui.css", "docs.css", "swagger-ui-bundle.js", "docs.js"] == [name[22:] for name in names]
    for name in names:
        plain, packed = (service.get(f"/{name}", Accept_Encoding=coding) for coding in ("identity", "gzip"))
        assert (200, 200) == (plain.status, packed.status)
        assert "charset=utf-8" in plain.headers["content-type"]
        assert "immutable" in plain.headers["cache-control"]
        content = gzip.decompress(packed.body) if "content-encoding" in packed.headers else packed.body
        assert plain.body == content
    assert 404 == service.get("/docs/0000000000000000/docs.js").status
    assert 404 == service.get("/" + names[0].replace("swagger-ui.css", "SHA256SUMS")).status


def test_the_page_opens_without_a_key(make_service: Callable[..., Service]) -> None:
    """With API keys the page and its files are open; the contract wants a key, which the page asks for."""

    class Locked:
        def owner(self, authorization: bytes | None) -> str:
            raise problems.ProblemError(problems.UNAUTHORIZED, "no", headers={b"WWW-Authenticate": b"Bearer"})

    service = make_service(policy=lambda clock: Policy(keys=Locked()))  # type: ignore[arg-type]
    page = service.get("/docs")
    assert 200 == page.status
    for name in re.findall(r'(?:src|href)="(docs/[^"]+)"', page.body.decode()):
        assert 200 == service.get(f"/{name}").status
    refused = service.get("/openapi.json")
    assert 401 == refused.status
    keep(refused, "/openapi.json", "GET")


def test_nothing_is_read_before_it_is_asked_for(
    make_service: Callable[..., Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service starts without parsing the contract; once asked, it parses it once."""
    parses = []
    contract._contract_asset.cache_clear()
    monkeypatch.setattr(contract, "read_contract", lambda: parses.append(1) or {})
    service = make_service()
    assert [] == parses
    for _ in range(2):
        assert 200 == service.get("/openapi.json").status
    assert [1] == parses
    contract._contract_asset.cache_clear()


def test_vendored_files() -> None:
    """What is vendored is what the package has, licences included, by their hashes."""
    sums = dict(reversed(line.split()) for line in (SWAGGER_UI / "SHA256SUMS").read_text().splitlines())
    for name, expected in sums.items():
        packed = SWAGGER_UI / f"{name}.gz"
        content = gzip.decompress(packed.read_bytes()) if packed.is_file() else (SWAGGER_UI / name).read_bytes()
        assert expected == sha256(content).hexdigest(), name
    present = {entry.name.removesuffix(".gz") for entry in SWAGGER_UI.iterdir()}
    assert {*sums, "SHA256SUMS", "README"} == present
    assert "Apache License" in (SWAGGER_UI / "LICENSE").read_text()
