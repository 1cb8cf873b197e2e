"""What comes from outside stays text, for eyes and for the clipboard."""

from __future__ import annotations

from typing import Any

from web.daemon import Scripted, event, trace_document
from web.looking import OVER, rows

HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "</td><script>alert(2)</script>",
    "&lt;b&gt;not bold&lt;/b&gt;",
    "javascript:alert(3)",
    "' onmouseover='alert(4)",
    "${alert(5)}",
    "a" * 2000,
]


def hostile_trace() -> dict[str, Any]:
    """A finished trace whose names are all hostile."""
    hops = []
    for ttl, name in enumerate(HOSTILE, 1):
        address = f"192.0.2.{ttl}"
        probe = {
            "flow": 1,
            "sent_at": f"2026-01-02T03:04:05.{ttl:03d}Z",
            "outcome": "ttl_expired",
            "address": address,
            "rtt_ms": 5.0,
            "mpls": [],
            "error": None,
        }
        hops.append(
            {
                "ttl": ttl,
                "responders": [
                    {
                        "address": address,
                        "hostname": name,
                        "asn": {"number": 64500 + ttl, "name": name},
                        "flows": [1],
                        "received": 1,
                    }
                ],
                "probes": [probe, {**probe, "flow": 2}],
                "stats": {
                    "sent": 2,
                    "received": 2,
                    "lost": 0,
                    "loss_pct": 0.0,
                    **dict.fromkeys(("min_ms", "avg_ms", "median_ms", "max_ms"), 5.0),
                    "stddev_ms": 0.0,
                    "jitter_ms": 0.0,
                },
                "rate_limited": False,
            }
        )
    return trace_document(
        status="failed",
        stop_reason="error",
        revision=4,
        error="<i>nothing</i> left \x1b[31mthis host",
        request={"target": "<u>target</u>", "protocol": "udp", "port": 1, "flows": 2},
        hops=hops,
    )


def test_hostile_names_stay_text(open_page: Any, scripted: Scripted) -> None:
    """Names, AS names, the target and errors appear letter for letter: no element, no handler, no script is made."""
    scripted.answers["GET /traces/abc"] = (200, {}, hostile_trace())
    page = open_page(f"{scripted.address}?trace=abc", permissions=["clipboard-read", "clipboard-write"])
    page.on("dialog", lambda dialog: dialog.dismiss())
    page.wait_for_selector(".drawing")
    assert HOSTILE == [row["hosts"][0]["name"] for row in rows(page)]
    assert [f"AS{64501 + i} {name}" for i, name in enumerate(HOSTILE)] == [
        row["hosts"][0]["as"] for row in rows(page)
    ]
    assert "<u>target</u>" == page.inner_text("h2.target")
    assert "<i>nothing</i> left" in page.inner_text(".verdict")
    assert "<u>target</u>" == page.inner_text("#recent-list a")
    alien = "[...document.querySelectorAll('img, i, b, u, #result script, [onerror], [onmouseover]')].length"
    assert 0 == page.evaluate(alien)
    titles = page.evaluate("[...document.querySelectorAll('.drawing title')].map((title) => title.textContent)")
    assert all(any(title.startswith(f"{name} (") for title in titles) for name in HOSTILE)
    assert not page.evaluate("document.documentElement.scrollWidth > innerWidth"), "a long name stretches nothing"


def test_hostile_letters(open_page: Any, scripted: Scripted) -> None:
    """Control characters and changes of direction become a sign that something was there, in the copied text too."""
    document = hostile_trace()
    names = ["left\u202eright", "bell\x07\x1b[2Jescape", "zero\u200bwidth", "tag\U000e0041"]
    for hop, name in zip(document["hops"], names, strict=False):
        hop["responders"][0]["hostname"] = name
    scripted.answers["GET /traces/abc"] = (200, {}, document)
    page = open_page(f"{scripted.address}?trace=abc", permissions=["clipboard-read", "clipboard-write"])
    page.wait_for_selector(OVER)
    expected = ["left\ufffdright", "bell\ufffd\ufffd[2Jescape", "zero\ufffdwidth", "tag\ufffd"]
    assert expected == [row["hosts"][0]["name"] for row in rows(page)[:4]]
    page.click("#copy-text")
    page.wait_for_selector("#copy-text.done")
    text = page.evaluate("navigator.clipboard.readText()")
    assert all(f"{name} (192.0.2." in text for name in expected)
    assert "\x1b" not in text


def test_hostile_id(open_page: Any, scripted: Scripted) -> None:
    """Whatever stands in the page's address is one path segment of a question."""
    page = open_page(f"{scripted.address}?trace=../../healthz%3Fx%23<b>")
    page.wait_for_selector("text=This trace has expired")
    questions = {question for question, _, _ in scripted.asked}
    assert {"GET /readyz", "GET /traces/..%2F..%2Fhealthz%3Fx%23%3Cb%3E"} == questions


def test_hostile_storage(open_page: Any, scripted: Scripted) -> None:
    """A recent list that something else wrote into breaks nothing."""
    page = open_page(scripted.address)
    for kept in ["not json", '{"a": 1}', '[1, null, {"id": 5}, {"id": "x", "request": {}}]']:
        page.evaluate("(kept) => localStorage.setItem('tracerouted.recent', kept)", kept)
        page.reload()
        page.wait_for_selector("#empty:not([hidden])")
        assert not page.locator("#recent").is_visible()


def test_nothing_is_asked_twice(open_page: Any, scripted: Scripted) -> None:
    """A permalink of a finished trace costs one question beyond the page, and readiness."""
    scripted.answers["GET /traces/abc"] = (200, {}, trace_document(status="completed", stop_reason="reached"))
    page = open_page(f"{scripted.address}?trace=abc")
    page.wait_for_selector(OVER)
    assert ["GET /readyz", "GET /traces/abc"] == sorted(question for question, _, _ in scripted.asked)


def test_stream_of_garbage(open_page: Any, scripted: Scripted) -> None:
    """Comments, unknown events, CRLF and events in many pieces are read as the standard says."""
    end = event(6, "end", trace_document(status="completed", stop_reason="gap_limit", revision=6))
    pieces = [b": hello\r\n\r\n", b"retry: 2000\n\n", b'id: 5\nevent: novelty\ndata: {"a":\ndata: 1}\n\n']
    pieces += [end.replace(b"\n", b"\r\n")[i : i + 7] for i in range(0, len(end) + end.count(b"\n"), 7)]
    scripted.answers["POST /traces"] = (202, {}, trace_document())
    scripted.answers["GET /traces/abc/events"] = (200, {}, pieces)
    page = open_page(scripted.address)
    page.fill("#target", "192.0.2.9")
    page.press("#target", "Enter")
    page.wait_for_selector("text=Silent from the first hop")
