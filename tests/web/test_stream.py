"""A connection that breaks while a trace is followed: resumed after the last event, nothing missed, nothing twice."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

from netsim import Lab
from web.daemon import Proxy, Scripted, event, trace_document
from web.looking import ended, rows, sent, start, trace

EVENTS = "GET /traces/abc/events"


def hop(
    ttl: int, number: int, outcome: str = "ttl_expired", sent_at: int | None = None, **stats: Any
) -> dict[str, Any]:
    """A hop event: answers number 1 to `number` of 192.0.2.`ttl` are in, or the last was lost."""
    lost = 1 if outcome == "timeout" else 0
    address = None if lost else f"192.0.2.{ttl}"
    received = number - lost
    responder = {"address": f"192.0.2.{ttl}", "hostname": None, "asn": None, "flows": [1], "received": received}
    return {
        "ttl": ttl,
        "responders": [responder] if received else [],
        "stats": {
            "sent": number,
            "received": received,
            "lost": lost,
            "loss_pct": 100.0 * lost / number,
            **dict.fromkeys(("min_ms", "avg_ms", "median_ms", "max_ms"), 5.0 if received else None),
            "stddev_ms": None,
            "jitter_ms": None,
            **stats,
        },
        "rate_limited": False,
        "probe": {
            "flow": 1,
            "sent_at": f"2026-01-02T03:04:05.{sent_at or number:03d}Z",
            "outcome": outcome,
            "address": address,
            "rtt_ms": None if lost else 5.0,
            "mpls": [],
            "error": None,
        },
    }


def shown_probes(page: Any) -> list[int]:
    """How many probes the page knows per hop, by its JSON."""
    page.click("#copy-json")
    page.wait_for_selector("#copy-json.done")
    document = json.loads(page.evaluate("navigator.clipboard.readText()"))
    return [len(hop["probes"]) for hop in document["hops"]]


class Held:
    """A stream that goes on when told to, so that a test can look in between."""

    def __init__(self) -> None:
        self.go = threading.Event()

    def stay(self) -> Iterator[bytes]:
        """Say nothing until told to go on."""
        self.go.wait(30)
        yield b":\n\n"


def test_resumed_where_it_broke(open_page: Any, scripted: Scripted) -> None:
    """A broken stream is asked for again from the last event on; events sent again all the same count once."""
    held = Held()
    connections = []

    def stream() -> Iterator[bytes]:
        connections.append(len(connections))
        if len(connections) == 1:
            yield event(4, "hop", hop(1, 1)) + event(5, "hop", hop(1, 2))
            yield event(6, "hop", hop(1, 3))[:-30]  # the connection breaks inside an event
        elif len(connections) == 2:
            yield event(5, "hop", hop(1, 2)) + event(6, "hop", hop(1, 3))  # one too many
        else:
            yield event(7, "hop", hop(2, 1))
            yield from held.stay()
            yield event(8, "end", trace_document(status="completed", stop_reason="reached", revision=8))

    scripted.answers["POST /traces"] = (202, {}, trace_document())
    scripted.answers[EVENTS] = (200, {}, stream)
    page = open_page(scripted.address, permissions=["clipboard-read", "clipboard-write"])
    start(page, "192.0.2.9")
    page.wait_for_function("() => document.querySelectorAll('.hops tbody tr').length === 2")
    asked = [headers["Last-Event-ID"] for question, headers, _ in scripted.asked if question == EVENTS]
    assert ["3", "5", "6"] == asked
    assert ["3", "1"] == sent(page)
    assert [3, 1] == shown_probes(page)
    assert not page.locator(".link-lost").is_visible()
    held.go.set()
    ended(page)


def test_says_that_it_is_lost(open_page: Any, scripted: Scripted) -> None:
    """While the service cannot be reached the page says so, keeps what it has, and goes on when it is back."""
    back = threading.Event()

    def stream() -> Iterator[bytes]:
        if back.is_set():
            yield event(5, "end", trace_document(status="completed", stop_reason="reached", revision=5))
        else:
            yield event(4, "hop", hop(1, 1))
            scripted.answers[EVENTS] = (503, {"Retry-After": "1"}, {"detail": "busy"})

    scripted.answers["POST /traces"] = (202, {}, trace_document())
    scripted.answers[EVENTS] = (200, {}, stream)
    page = open_page(scripted.address)
    start(page, "192.0.2.9")
    page.wait_for_selector(".link-lost:not([hidden])")
    assert ["1"] == sent(page)
    back.set()
    scripted.answers[EVENTS] = (200, {}, stream)
    assert ended(page)
    assert not page.locator(".link-lost").is_visible()


def test_expires_while_away(open_page: Any, scripted: Scripted) -> None:
    """A trace that is gone when the connection is back is said to be gone."""

    def stream() -> Iterator[bytes]:
        scripted.answers[EVENTS] = (404, {}, {"detail": "no trace has this id"})
        yield event(4, "hop", hop(1, 1))

    scripted.answers["POST /traces"] = (202, {}, trace_document())
    scripted.answers[EVENTS] = (200, {}, stream)
    page = open_page(scripted.address)
    start(page, "192.0.2.9")
    page.wait_for_selector("text=This trace has expired")


def test_nothing_more_to_tell(open_page: Any, scripted: Scripted) -> None:
    """204 to a resumption means that all has been told: the trace is read once and no more is asked."""
    scripted.answers["POST /traces"] = (202, {}, trace_document())
    scripted.answers[EVENTS] = (204, {}, [])
    done = trace_document(status="completed", stop_reason="gap_limit", revision=9)
    scripted.answers["GET /traces/abc"] = (200, {}, done)
    page = open_page(scripted.address)
    start(page, "192.0.2.9")
    assert ended(page).startswith("Silent from the first hop")
    page.wait_for_timeout(1500)  # longer than the first wait before a connection is tried again
    assert 1 == [question for question, _, _ in scripted.asked].count(EVENTS)


def test_cut_again_and_again(open_page: Any, service: str, proxy: Proxy, lab: Lab) -> None:
    """The real stream, cut every few kilobytes: in the end all is there, and no number ever fell or was too high."""
    taken = [0]

    def cut_often(piece: bytes) -> None:
        if b"event: hop" in piece:
            taken[0] += 1
            if taken[0] % 12 == 0 and proxy.cuts < 4:
                proxy.cut()

    page = open_page(proxy.address)
    page.evaluate(
        """() => {
          window.sums = [];
          new MutationObserver(() => {
            const sent = [...document.querySelectorAll('.hops tbody .sent')].map((cell) => Number(cell.textContent));
            window.sums.push(sent.reduce((a, b) => a + b, 0));
          }).observe(document.querySelector('#result'), { childList: true, subtree: true, characterData: true });
        }"""
    )
    proxy.watch = cut_often
    start(page, lab.address("plain", "ipv4"), probes=40, interval_ms=50)
    assert ended(page).startswith("Reached")
    assert proxy.cuts >= 3
    sums = page.evaluate("window.sums")
    assert sorted(sums) == sums
    assert ["40"] * 11 == sent(page)
    hops = trace(page)["hops"]
    assert [f"{h['stats']['loss_pct']:.0f}%" for h in hops] == [row["loss"] for row in rows(page)]


def test_later_word_on_a_probe(open_page: Any, scripted: Scripted) -> None:
    """An answer that came late replaces the loss; two probes of one millisecond are two; a retracted hop goes."""
    held = Held()

    def stream() -> Iterator[bytes]:
        yield event(4, "hop", hop(1, 1, "timeout"))
        yield event(5, "hop", hop(1, 1))  # the same probe, answered after all
        yield event(6, "hop", hop(1, 2, sent_at=1))  # another one that left in the same millisecond
        yield event(7, "hop", hop(2, 1)) + event(8, "hop", hop(3, 1))
        empty = dict.fromkeys(("loss_pct", "min_ms", "avg_ms", "median_ms", "max_ms", "stddev_ms", "jitter_ms"))
        stats = {"sent": 0, "received": 0, "lost": 0, **empty}
        yield event(9, "hop", {**hop(3, 1), "responders": [], "stats": stats, "probe": None})
        yield from held.stay()
        yield event(10, "end", trace_document(status="completed", stop_reason="reached", revision=10))

    scripted.answers["POST /traces"] = (202, {}, trace_document())
    scripted.answers[EVENTS] = (200, {}, stream)
    page = open_page(scripted.address, permissions=["clipboard-read", "clipboard-write"])
    start(page, "192.0.2.9")
    page.wait_for_function("() => document.querySelectorAll('.hops tbody tr').length === 2")
    assert [("2", "0%"), ("1", "0%")] == [(row["sent"], row["loss"]) for row in rows(page)]
    assert [2, 1] == shown_probes(page)
    held.go.set()
    ended(page)
