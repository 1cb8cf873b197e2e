"""A trace's address: for a running, a finished and an expired trace; the recent ones; copying; cancelling."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

import pytest

from netsim import Lab
from web.daemon import daemon
from web.looking import ended, rows, sent, start, trace, trace_id


def running(page: Any, lab: Lab, probes: int = 60) -> str:
    """Start a trace of some seconds; its permalink once hops are shown."""
    start(page, lab.address("plain", "ipv4"), probes=probes, interval_ms=100)
    page.wait_for_selector(".hops .responder")
    return str(page.url)


def test_running(open_page: Any, service: str, lab: Lab) -> None:
    """The address of a running trace shows it live in another browser: what was so far, then what follows."""
    first = open_page(service)
    address = running(first, lab)
    second = open_page(address)
    second.wait_for_selector(".hops .responder")
    assert "live" == second.get_attribute(".verdict", "data-tone")
    before = sum(map(int, filter(None, sent(second))))
    assert ended(first) == ended(second)
    assert 0 < before < 11 * 60
    assert ["60"] * 11 == sent(first) == sent(second)
    assert rows(first) == rows(second)
    assert "100" == second.input_value("#interval_ms"), "the form has the same request"


def test_finished(open_page: Any, service: str, lab: Lab) -> None:
    """The address of a finished trace shows all of it, without following any events."""
    first = open_page(service)
    start(first, lab.address("per-packet", "ipv4"))
    ended(first)
    second = open_page(first.url)
    asked: list[str] = []
    second.on("request", lambda request: asked.append(request.url))
    second.reload()
    assert ended(first) == ended(second)
    assert rows(first) == rows(second)
    assert not [url for url in asked if url.endswith("/events")]


def test_expired(open_page: Any, lab: Lab) -> None:
    """An address that has expired says so; a browser that knew the trace offers to trace again."""
    with daemon(retention_s="1", dns_servers="127.0.0.1:9") as address:
        page = open_page(address)
        page.locator("#more").evaluate("(details) => { details.open = true }")
        page.uncheck("#resolve_names")
        start(page, lab.address("plain", "ipv4"), probes=1)
        ended(page)
        link = page.url
        while page.evaluate("(id) => fetch(`traces/${id}`).then((answer) => answer.status)", trace_id(page)) != 404:
            page.wait_for_timeout(100)
        page.reload()
        page.wait_for_selector("text=This trace has expired")
        words = page.inner_text(".verdict")
        assert "No trace has this id: it never was, has expired, or was deleted." in words
        assert "expired" == page.inner_text("#recent-list .state")
        assert page.locator("#again").is_visible()
        stranger = open_page(link)
        stranger.wait_for_selector("text=This trace has expired")
        assert not stranger.locator("#again").is_visible()
        assert not stranger.locator(".hops").is_visible()
        page.click("#again")
        page.wait_for_function("(link) => location.href !== link", arg=link)
        assert ended(page).startswith("Reached")


def test_back_and_forth(open_page: Any, service: str, lab: Lab) -> None:
    """The browser's back and forward lead from trace to trace."""
    page = open_page(service)
    for target in ("plain", "loop"):
        start(page, lab.address(target, "ipv4"), probes=1)
        page.wait_for_function(
            "(t) => document.querySelector('h2.target').textContent === t", arg=lab.address(target, "ipv4")
        )
        ended(page)
    page.go_back()
    page.wait_for_function(
        "(t) => document.querySelector('h2.target')?.textContent === t", arg=lab.address("plain", "ipv4")
    )
    assert ended(page).startswith("Reached")
    page.go_back()
    page.wait_for_selector("#empty:not([hidden])")
    assert not page.locator("#result").is_visible()
    page.go_forward()
    page.go_forward()
    page.wait_for_selector("text=Routing loop")


def test_recent(open_page: Any, service: str, lab: Lab) -> None:
    """This browser's traces are listed, newest first, with how they ended; each leads back; it can be cleared."""
    page = open_page(service)
    assert not page.locator("#recent").is_visible()
    for target in ("plain", "loop"):
        start(page, lab.address(target, "ipv4"), probes=1)
        page.wait_for_function(
            "(t) => document.querySelector('h2.target')?.textContent === t", arg=lab.address(target, "ipv4")
        )
        ended(page)
    page.goto(service)
    targets = [lab.address("loop", "ipv4"), lab.address("plain", "ipv4")]
    assert targets == page.locator("#recent-list a").all_inner_texts()
    assert ["loop", "reached"] == page.locator("#recent-list .state").all_inner_texts()
    page.click("#recent-list a >> nth=1")
    assert ended(page).startswith("Reached")
    assert trace(page)["target"]["address"] == lab.address("plain", "ipv4")
    page.click("#forget")
    assert not page.locator("#recent").is_visible()
    page.reload()
    ended(page)
    assert 1 == page.locator("#recent-list li").count(), "the one that is shown"


@pytest.fixture
def finished(open_page: Any, service: str, lab: Lab) -> Any:
    """A page with a finished trace, allowed to use the clipboard."""
    page = open_page(service, permissions=["clipboard-read", "clipboard-write"])
    start(page, lab.address("per-packet", "ipv4"), probes=10)
    ended(page)
    return page


def copied(page: Any, what: str) -> str:
    """Press a copy button; the clipboard's text then."""
    page.click(f"#copy-{what}")
    page.wait_for_selector(f"#copy-{what}.done")
    return str(page.evaluate("navigator.clipboard.readText()"))


def test_copy_text(finished: Any) -> None:
    """Text is a report to paste: the target, how it ended, the link, a line per hop and responder."""
    text, document = copied(finished, "text"), trace(finished)
    assert text.startswith("Traceroute to 44.1.16.100 from 44.0.0.2\nICMP, 10 probes per hop; 20")
    assert finished.url in text
    assert "Reached: 44.1.16.100 answers after 6 hops in " in text
    table = text.split("\n\n")[1].splitlines()
    assert 1 + sum(len(hop["responders"]) for hop in document["hops"]) == len(table)
    for hop in document["hops"]:
        for responder in hop["responders"]:
            assert f"{responder['hostname']} ({responder['address']})" in text


def test_copy_json(finished: Any) -> None:
    """JSON is the service's own document."""
    assert trace(finished) == json.loads(copied(finished, "json"))
    assert "JSON copied." == finished.inner_text("#announce")


def test_copy_link(finished: Any, open_page: Any) -> None:
    """The link leads to the same trace."""
    link = copied(finished, "link")
    assert finished.url == link
    assert rows(finished) == rows_of(open_page(link))


def rows_of(page: Any) -> Any:
    ended(page)
    return rows(page)


def test_copy_without_clipboard_rights(open_page: Any, service: str, lab: Lab) -> None:
    """Where the clipboard has no modern way in (no TLS), the older one is taken."""
    page = open_page(service)
    start(page, lab.address("plain", "ipv4"), probes=1)
    ended(page)
    page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    page.click("#copy-link")
    page.wait_for_selector("#copy-link.done")
    page.fill("#target", "")
    page.press("#target", "Control+v")
    assert page.url == page.input_value("#target")


def test_cancel(open_page: Any, service: str, lab: Lab) -> None:
    """Cancel ends the trace at the service; the page keeps what had come and says that the address is dead."""
    page = open_page(service)
    address = running(page, lab, probes=100)
    page.click("#cancel")
    words = ended(page)
    assert words.startswith("Cancelled")
    assert "forgotten" in words
    assert len(rows(page)) >= 1
    assert not page.locator("#copy-link").is_visible()
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"{service}traces/{trace_id(page)}")
    stranger = open_page(address)
    stranger.wait_for_selector("text=This trace has expired")


def test_copy_json_while_running(open_page: Any, service: str, lab: Lab) -> None:
    """The JSON of a running trace has the probes seen so far and says that it runs."""
    page = open_page(service, permissions=["clipboard-read", "clipboard-write"])
    running(page, lab, probes=100)
    page.wait_for_function("() => Number(document.querySelector('.hops td.sent').textContent) > 2")
    document = json.loads(copied(page, "json"))
    assert "running" == document["status"]
    for hop in document["hops"]:
        judged = [probe for probe in hop["probes"] if probe["outcome"] not in ("pending", "error")]
        assert len(judged) == hop["stats"]["sent"]
    page.click("#cancel")
    ended(page)
