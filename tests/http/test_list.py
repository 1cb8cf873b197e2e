"""The list of traces."""

from __future__ import annotations

import pytest

from fake_http import Service
from fake_http import finished_trace as run


def test_list(service: Service) -> None:
    """Traces come newest first, without hops, with the link to the next page and its cursor in the body."""
    ids = [run(service) for _ in range(5)]
    first = service.get("/traces?limit=2")
    assert ids[:2:-1] == [trace["id"] for trace in first.json["traces"]]
    assert not {"hops", "paths"} & first.json["traces"][0].keys()
    following = f'</traces?limit=2&cursor={first.json["next_cursor"]}>; rel="next"'
    assert f'{following}, </openapi.json>; rel="service-desc"' == first.headers["link"]
    assert "no-cache" == first.headers["cache-control"]
    seen = [trace["id"] for trace in first.json["traces"]]
    page = first
    while page.json["next_cursor"]:
        page = service.get(page.headers["link"].split(">")[0][1:])
        seen += [trace["id"] for trace in page.json["traces"]]
    assert ids[::-1] == seen
    assert '</openapi.json>; rel="service-desc"' == page.headers["link"]


def test_list_filters(service: Service) -> None:
    """`status` and `target` choose; a target is read as in a request; filters stay in the link."""
    done = run(service, "example.net")
    other = service.post({"target": "example.org"}).json["id"]
    assert [done] == [trace["id"] for trace in service.get("/traces?status=completed").json["traces"]]
    assert [other] == [trace["id"] for trace in service.get("/traces?target=EXAMPLE.org.").json["traces"]]
    assert [done] == [trace["id"] for trace in service.get("/traces?target=192.0.2.9").json["traces"]]
    run(service, "example.net")
    link = service.get("/traces?target=example.net&limit=1").headers["link"]
    assert "target=example.net" in link


@pytest.mark.parametrize(
    ("query", "pointers"),
    [
        ("limit=0", ["/limit"]),
        ("limit=101", ["/limit"]),
        ("limit=1.0", ["/limit"]),
        ("limit=", ["/limit"]),
        ("limit=%C2%B2", ["/limit"]),
        ("limit=" + "9" * 5000, ["/limit"]),
        ("status=done", ["/status"]),
        ("target=127.1", ["/target"]),
        ("target=%ff", ["/target"]),
        ("cursor=x", ["/cursor"]),
        ("limit=1&limit=2", ["/limit"]),
        ("owner=me", ["/owner"]),
        ("limit=x&status=x&target=&a/b=1", ["/a~1b", "/limit", "/status", "/target"]),
    ],
)
def test_list_parameters(service: Service, query: str, pointers: list[str]) -> None:
    """Every wrong parameter is named, all at once."""
    answer = service.get(f"/traces?{query}")
    assert (422, "invalid-request") == (answer.status, answer.type)
    assert pointers == sorted(error["pointer"] for error in answer.json["errors"])
    assert "/traces" == answer.json["instance"]
