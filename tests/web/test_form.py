"""The form: what it sends, and every kind of refusal in its own words at its own place."""

from __future__ import annotations

import json
from typing import Any

import pytest

from netsim import Lab
from web.daemon import Scripted, event, trace_document
from web.looking import ended, rows, start

WHERE = "10.0.0.1 is private use"


def complaint(page: Any, field: str) -> str:
    """What stands at a field, which must be marked and say so to a screen reader."""
    page.wait_for_selector(f"#{field}[aria-invalid=true]")
    described = page.get_attribute(f"#{field}", "aria-describedby")
    assert f"{field}-error" == described
    return str(page.inner_text(f"#{described}"))


def test_target_not_allowed(open_page: Any, service: str) -> None:
    """A target the policy forbids is refused at the target, with the policy's words; a change takes them away."""
    page = open_page(service)
    start(page, "10.0.0.1")
    assert complaint(page, "target").startswith(WHERE)
    assert "target" == page.evaluate("document.activeElement.id")
    assert not page.locator("#result").is_visible()
    page.press("#target", "2")
    assert "" == page.inner_text("#target-error")
    assert page.get_attribute("#target", "aria-invalid") is None


def test_each_field_has_its_words(open_page: Any, service: str) -> None:
    """Several wrong fields are marked at once, folded ones come to light, and the first gets the focus."""
    page = open_page(service)
    page.select_option("#protocol", "tcp")
    page.locator("#more").evaluate("(details) => { details.open = true }")
    for name, value in {"port": "99999", "probes": "1000", "max_ttl": "99", "size": "small"}.items():
        page.fill(f"#{name}", value)
    page.locator("#more").evaluate("(details) => { details.open = false }")
    page.fill("#target", "44.1.1.100")
    page.press("#target", "Enter")
    assert "must be from 1 to 65535; got 99999" == complaint(page, "port")
    assert "must be from 1 to 100; got 1000" == complaint(page, "probes")
    assert "must be from 1 to 64; got 99" == complaint(page, "max_ttl")
    assert complaint(page, "size")
    assert page.locator("#max_ttl").is_visible()
    assert "port" == page.evaluate("document.activeElement.id")


def test_empty_target(open_page: Any, service: str) -> None:
    """No target at all is the service's to refuse, at the target."""
    page = open_page(service)
    page.press("#target", "Enter")
    assert complaint(page, "target")


def test_unknown_name(open_page: Any, service: str) -> None:
    """A name that does not exist ends the trace; its words stand at the target as well."""
    page = open_page(service)
    start(page, "nowhere.example.net")
    assert "nowhere.example.net" in ended(page)
    assert "there is no name nowhere.example.net" == complaint(page, "target")


def test_only_what_was_asked_is_sent(open_page: Any, scripted: Scripted) -> None:
    """Fields left alone are left to the service; numbers are numbers; what a protocol lacks is not sent."""
    page = open_page(scripted.address)
    start(page, " example.net ", "udp", port=33, flows=4, tos=16)
    page.wait_for_selector("#problem:not([hidden])")
    page.select_option("#protocol", "icmp")
    page.select_option("#family", "ipv6")
    page.uncheck("#resolve_names")
    page.press("#target", "Enter")
    page.wait_for_function("() => !document.querySelector('#start').hasAttribute('aria-busy')")
    posted = [(headers, json.loads(body)) for question, headers, body in scripted.asked if question == "POST /traces"]
    assert [
        {"target": "example.net", "protocol": "udp", "port": 33, "flows": 4, "tos": 16},
        {"target": "example.net", "protocol": "icmp", "family": "ipv6", "tos": 16, "resolve_names": False},
    ] == [body for _, body in posted]
    assert "application/json" == posted[0][0]["Content-Type"]


@pytest.mark.parametrize(("status", "kind"), [(429, "quota-exceeded"), (503, "busy"), (503, "not-ready")])
def test_later(open_page: Any, scripted: Scripted, status: int, kind: str) -> None:
    """A refusal for now says when to come back, counts down, and then lets the same request be sent again."""
    detail = "so many at once are too many"
    problem = {"type": f"/problems/{kind}", "title": "No", "status": status, "detail": detail, "errors": []}
    scripted.answers["POST /traces"] = (status, {"Retry-After": "2"}, problem)
    page = open_page(scripted.address)
    start(page, "example.net")
    page.wait_for_selector("#problem:not([hidden])")
    assert f"{detail} It will take requests again in 2 s." == page.inner_text("#problem-text")
    assert "alert" == page.get_attribute("#problem", "role")
    assert page.is_disabled("#retry")
    page.wait_for_selector("#retry:enabled")
    scripted.answers["POST /traces"] = (202, {}, trace_document(status="completed", stop_reason="reached"))
    page.click("#retry")
    page.wait_for_selector("#result:not([hidden])")
    assert not page.locator("#problem").is_visible()


def test_service_gone(open_page: Any, service: str, proxy: Any, lab: Lab) -> None:
    """When nobody answers the page says so, keeps what was typed, and can try again."""
    page = open_page(proxy.address)
    proxy.down = True
    proxy.cut()
    start(page, lab.address("plain", "ipv4"))
    page.wait_for_selector("#problem:not([hidden])")
    assert "The service does not answer." == page.inner_text("#problem-text")
    assert lab.address("plain", "ipv4") == page.input_value("#target")
    proxy.down = False
    page.click("#retry")
    assert ended(page).startswith("Reached")


def test_lost_answer_starts_no_second_trace(open_page: Any, service: str, proxy: Any, lab: Lab) -> None:
    """When the answer to a request is lost, sending it again leads to the trace it started: a browser may do so by
    itself (RFC 9110 section 9.2.2 warns of that), or the page's reader does."""
    page = open_page(proxy.address)
    target = lab.address("code-0", "ipv4")

    def cut_answer(piece: bytes) -> None:
        if piece.startswith(b"HTTP/1.1 202"):
            proxy.watch = lambda piece: None
            proxy.cut()

    proxy.watch = cut_answer
    start(page, target)
    page.wait_for_selector("#retry:enabled:not([hidden]), #result:not([hidden])")
    assert 1 == proxy.cuts
    if page.locator("#retry").is_visible():
        page.click("#retry")
    assert ended(page).startswith("Blocked")
    listed = page.evaluate("(target) => fetch(`traces?target=${target}`).then((answer) => answer.json())", target)
    assert [page.url.split("=")[1]] == [trace["id"] for trace in listed["traces"]]
    start(page, target)
    page.wait_for_function("(address) => location.href !== address", arg=page.url)
    listed = page.evaluate("(target) => fetch(`traces?target=${target}`).then((answer) => answer.json())", target)
    assert 2 == len(listed["traces"]), "asking anew is another trace"


def test_answer_of_something_in_between(open_page: Any, scripted: Scripted) -> None:
    """An error that is no problem document (a proxy's page) is said by its status."""
    scripted.answers["POST /traces"] = (502, {"Content-Type": "text/html"}, [b"<h1>Bad Gateway</h1>"])
    page = open_page(scripted.address)
    start(page, "example.net")
    page.wait_for_selector("#problem:not([hidden])")
    assert "The service answered 502." == page.inner_text("#problem-text")


def test_api_key(open_page: Any, scripted: Scripted) -> None:
    """When a key is wanted its field appears, and requests carry the key, in a header only."""
    problem = {"type": "/problems/unauthorized", "status": 401, "detail": "an API key is needed", "errors": []}
    scripted.answers["POST /traces"] = (401, {}, problem)
    page = open_page(scripted.address)
    assert not page.locator("#key").is_visible()
    start(page, "example.net")
    assert "an API key is needed" == complaint(page, "key")
    assert "key" == page.evaluate("document.activeElement.id")
    scripted.answers["POST /traces"] = (202, {}, trace_document())
    end = trace_document(status="completed", stop_reason="reached", revision=4)
    scripted.answers["GET /traces/abc/events"] = (200, {}, [event(4, "end", end)])
    page.fill("#key", "sesame")
    page.press("#key", "Enter")
    ended(page)
    keyed = {question: headers.get("Authorization") for question, headers, _ in scripted.asked}
    assert "Bearer sesame" == keyed["POST /traces"] == keyed["GET /traces/abc/events"]
    assert "sesame" not in page.url
    assert "sesame" not in page.evaluate("JSON.stringify(localStorage)")


def test_keyboard_alone(open_page: Any, service: str, lab: Lab) -> None:
    """Without a mouse: type and Enter, Tab to every control in order, choose a protocol, open the folded fields."""
    page = open_page(service)
    assert "target" == page.evaluate("document.activeElement.id"), "the cursor waits in the target"
    page.keyboard.press("Tab")
    page.keyboard.press("t")  # the option that begins with it: TCP
    visited = []
    for _ in range(6):
        page.keyboard.press("Tab")
        visited.append(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
    assert ["family", "port", "probes", "start", "SUMMARY", "INPUT"][:5] == visited[:5]
    outlined = "getComputedStyle(document.activeElement).outlineStyle"
    page.keyboard.press("Shift+Tab")
    assert "SUMMARY" == page.evaluate("document.activeElement.tagName")
    assert "solid" == page.evaluate(outlined), "the focus is seen"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert "first_ttl" == page.evaluate("document.activeElement.id")
    page.keyboard.type("3")
    page.focus("#target")
    page.keyboard.type(lab.address("plain", "ipv4"))
    page.keyboard.press("Enter")
    assert ended(page).startswith("Reached")
    assert "3" == rows(page)[0]["ttl"]
    assert "TCP port 80, 3 probes per hop" in page.inner_text(".facts")


def test_examples(open_page: Any, scripted: Scripted) -> None:
    """The empty page says in a line what to type; its examples fill the form and start."""
    page = open_page(scripted.address)
    assert page.inner_text("#empty").startswith("Type a host name or an address and press Enter")
    page.click("text=example.net over TCP port 443")
    page.wait_for_selector("#problem:not([hidden])")
    (body,) = [json.loads(body) for question, _, body in scripted.asked if question == "POST /traces"]
    assert {"target": "example.net", "protocol": "tcp", "port": 443} == body


def test_unsupported_protocols_are_not_offered(open_page: Any, service: str) -> None:
    """What no family can be traced with is not in the list."""
    page = open_page(service)
    page.wait_for_function("() => document.querySelector('#protocol').options.length === 3")
    assert ["icmp", "udp", "tcp"] == page.evaluate(
        "[...document.querySelector('#protocol').options].map((o) => o.value)"
    )


def test_unknown_readiness(open_page: Any, scripted: Scripted) -> None:
    """A readiness that cannot be learnt takes nothing away."""
    scripted.answers["GET /readyz"] = (502, {}, [b"nothing here"])
    page = open_page(scripted.address)
    page.wait_for_timeout(100)
    assert 4 == page.evaluate("document.querySelector('#protocol').options.length")
