"""How the page looks and sounds: screen readers, contrast, dark and light, widths, what moves, what it costs."""

from __future__ import annotations

from typing import Any

import pytest

from netsim import Lab
from web.daemon import Scripted, event, trace_document
from web.looking import ended, rows, start

WIDTHS = (320, 390, 768, 1024, 1280, 1920)

#: Text colours against what is behind them, as WCAG 2 counts contrast; and names of everything that can be used.
AUDIT = """() => {
  const channel = (v) => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; };
  const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const parse = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const behind = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour[3] > 0.99) return colour;
    }
    return [255, 255, 255, 1];
  };
  const faults = [];
  for (const node of document.querySelectorAll('body *')) {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
    if (!own || !node.getClientRects().length || node.closest('svg, .unseen, .skip, :disabled, noscript')) continue;
    const [a, b] = [light(parse(getComputedStyle(node).color)), light(behind(node))].sort((x, y) => y - x);
    const contrast = (a + 0.05) / (b + 0.05);
    const words = node.textContent.slice(0, 20);
    if (contrast < 4.5) faults.push(`${node.tagName}.${node.className} "${words}" ${contrast.toFixed(2)}`);
  }
  for (const node of document.querySelectorAll('input, select, button, a, [tabindex]')) {
    const label = (node.labels?.[0] ?? node).textContent || node.getAttribute('aria-label');
    if (!label?.trim()) faults.push(`no name: ${node.outerHTML.slice(0, 80)}`);
  }
  for (const node of document.querySelectorAll('[aria-describedby], [aria-labelledby]')) {
    for (const id of (node.getAttribute('aria-describedby') ?? node.getAttribute('aria-labelledby')).split(' ')) {
      if (!document.getElementById(id)) faults.push(`no element ${id}`);
    }
  }
  const ids = [...document.querySelectorAll('[id]')].map((node) => node.id);
  for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) faults.push(`two elements ${id}`);
  return faults;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_and_names(open_page: Any, service: str, lab: Lab, scheme: str) -> None:
    """In both schemes every text has a contrast of 4.5 at least, and everything that can be used has a name."""
    page = open_page(service, color_scheme=scheme)
    assert [] == page.evaluate(AUDIT)
    page.locator("#more").evaluate("(details) => { details.open = true }")
    start(page, "10.0.0.1")
    page.wait_for_selector("#target[aria-invalid]")
    assert [] == page.evaluate(AUDIT)
    start(page, lab.address("ecmp", "ipv4"), "udp", flows=6, probes=2)
    ended(page)
    page.wait_for_selector(".drawing")
    assert [] == page.evaluate(AUDIT)
    start(page, lab.address("silent-end", "ipv4"), timeout_ms=300, probes=1)
    page.wait_for_selector("text=Silent beyond")
    assert [] == page.evaluate(AUDIT)


def test_schemes_differ(open_page: Any, scripted: Scripted) -> None:
    """The page follows the system's scheme: dark is dark, light is light."""
    shades = {}
    for scheme in ("light", "dark"):
        page = open_page(scripted.address, color_scheme=scheme)
        shades[scheme] = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert {"light": "rgb(247, 248, 249)", "dark": "rgb(18, 21, 24)"} == shades


def test_accessible_tree(open_page: Any, service: str, lab: Lab) -> None:
    """A screen reader finds a form, a heading, and a table with row and column headers, at every width."""
    page = open_page(service)
    start(page, lab.address("lossy-path", "ipv4"), probes=5)
    ended(page)
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 800})
        table = page.get_by_role("table", name=f"Hops to {lab.address('lossy-path', 'ipv4')}")
        assert 7 == table.get_by_role("row").count(), width
        assert ["1", "2", "3", "4", "5", "6"] == table.get_by_role("rowheader").all_inner_texts()
        columns = table.locator("[role=columnheader]").all_text_contents()
        assert ["TTL", "Host", "AS", "Loss", "Sent", "Last", "Avg", "Best", "Worst", "StDev", "Jitter"] == columns[
            :11
        ]
        assert columns[11].startswith("Latency picture")
        picture = table.get_by_role("img").first.get_attribute("aria-label")
        assert picture.startswith("median ")
        assert picture.endswith("% lost")
    assert page.get_by_role("form", name="New trace").is_visible()
    assert page.get_by_role("heading", name="Looking glass").is_visible()
    assert page.get_by_role("button", name="Trace again").is_visible()


def test_said_aloud(open_page: Any, service: str, lab: Lab) -> None:
    """A screen reader is told when a trace starts and how it ended, and not of every hop."""
    page = open_page(service)
    page.evaluate(
        """() => {
          window.said = [];
          const live = document.querySelector('#announce');
          new MutationObserver(() => window.said.push(live.textContent)).observe(live, {
            childList: true, characterData: true, subtree: true
          });
        }"""
    )
    assert "status" == page.get_attribute("#announce", "role")
    start(page, lab.address("plain", "ipv4"), probes=20)
    words = ended(page)
    said = page.evaluate("window.said")
    assert f"Tracing {lab.address('plain', 'ipv4')}." == said[0]
    assert said[-1].startswith(words.replace("Reached ", "Reached. "))
    assert len(said) <= 4


def test_widths(open_page: Any, service: str, lab: Lab) -> None:
    """From a phone to a wide screen the page never scrolls sideways and all columns are there."""
    page = open_page(service)

    def overflows() -> list[int]:
        found = []
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 800})
            if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
                found.append(width)
        return found

    assert [] == overflows()
    start(page, lab.address("ecmp", "ipv4"), "udp", flows=8, probes=2)
    ended(page)
    page.wait_for_selector(".drawing")
    assert [] == overflows()
    row = page.locator(".hops tbody tr").nth(2)
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 800})
        for column in ("ttl", "host", "loss", "sent", "last", "avg", "best", "worst", "stdev", "jitter", "shape"):
            box = row.locator(f".{column}").first.bounding_box()
            assert box, (width, column)
            assert 0 <= box["x"] <= box["x"] + box["width"] <= width, (width, column)
            assert box["width"] > 12, (width, column)
    start(page, lab.address("long-path", "ipv6"), probes=1)
    page.wait_for_function("() => document.querySelectorAll('.hops tbody tr').length === 25")
    ended(page)
    assert [] == overflows()


def test_nothing_jumps(open_page: Any, service: str, lab: Lab) -> None:
    """While answers and names come in, what is on the screen stays where it is: rows are only added below."""
    page = open_page(service)
    page.evaluate(
        """() => {
          window.tops = new Map();
          window.moved = [];
          const look = () => {
            for (const row of document.querySelectorAll('.hops tbody tr')) {
              const top = row.getBoundingClientRect().top + scrollY;
              const ttl = row.querySelector('.ttl').textContent;
              if (!window.tops.has(ttl)) window.tops.set(ttl, top);
              else if (Math.abs(window.tops.get(ttl) - top) > 0.6) window.moved.push(ttl);
            }
            requestAnimationFrame(look);
          };
          look();
        }"""
    )
    start(page, lab.address("long-path", "ipv4"), probes=10, interval_ms=50)
    assert ended(page).startswith("Reached")
    assert 25 == page.evaluate("window.tops.size")
    assert [] == page.evaluate("window.moved")


def test_reduced_motion(open_page: Any, scripted: Scripted) -> None:
    """Who wants no motion gets none."""
    scripted.answers["POST /traces"] = (202, {}, trace_document())
    scripted.answers["GET /traces/abc/events"] = (503, {"Retry-After": "60"}, {"detail": "busy"})
    for motion, names in (("no-preference", "pulse"), ("reduce", "none")):
        page = open_page(scripted.address, reduced_motion=motion)
        start(page, "192.0.2.9")
        page.wait_for_selector(".verdict[data-tone=live]")
        assert names == page.evaluate(
            "getComputedStyle(document.querySelector('.verdict'), '::before').animationName"
        )


def test_many_responders(open_page: Any, scripted: Scripted) -> None:
    """A hop with very many responders shows some, says how many more there are, and shows all when asked."""
    address = [f"192.0.2.{n}" for n in range(1, 33)]
    responders = [
        {"address": a, "hostname": None, "asn": {"number": 64500, "name": "EXAMPLE"}, "flows": [n], "received": 1}
        for n, a in enumerate(address, 1)
    ]
    probe = {
        "sent_at": "2026-01-02T03:04:05.006Z",
        "outcome": "ttl_expired",
        "rtt_ms": 5.0,
        "mpls": [],
        "error": None,
    }
    hop = {
        "ttl": 1,
        "responders": responders,
        "probes": [{"flow": n, "address": a, **probe} for n, a in enumerate(address, 1)],
        "stats": {
            "sent": 32,
            "received": 32,
            "lost": 0,
            "loss_pct": 0.0,
            "stddev_ms": 0.0,
            "jitter_ms": 0.0,
            **dict.fromkeys(("min_ms", "avg_ms", "median_ms", "max_ms"), 5.0),
        },
        "rate_limited": False,
    }
    document = trace_document(
        status="completed", stop_reason="max_ttl", hops=[hop], request={"protocol": "udp", "port": 1, "flows": 32}
    )
    scripted.answers["GET /traces/abc"] = (200, {}, document)
    page = open_page(f"{scripted.address}?trace=abc")
    page.wait_for_selector(".more")
    assert 8 == sum(host["shown"] for host in rows(page)[0]["hosts"])
    assert "and 24 more" == page.inner_text(".more")
    page.click(".more")
    assert 32 == sum(host["shown"] for host in rows(page)[0]["hosts"])
    assert "true" == page.get_attribute(".more", "aria-expanded")
    assert "AS64500 EXAMPLE" == rows(page)[0]["hosts"][31]["as"]
    assert 32 == page.locator(".drawing .box").count()


def flood(hops: int, probes: int) -> list[bytes]:
    """The events of a large trace, as the service would send them: one per probe."""
    pieces = []
    revision = 3
    for number in range(1, probes + 1):
        for ttl in range(1, hops + 1):
            revision += 1
            address = f"192.0.2.{ttl}"
            responder = {"address": address, "hostname": f"r{ttl}.example.net", "asn": None, "flows": [1]}
            low, high = 1.0 * ttl, 1.0 * ttl + number / 10
            stats = {"sent": number, "received": number, "lost": 0, "loss_pct": 0.0, "min_ms": low}
            stats |= {"avg_ms": (low + high) / 2, "median_ms": (low + high) / 2, "max_ms": high}
            stats |= {"stddev_ms": 0.5, "jitter_ms": 0.1}
            probe = {
                "flow": 1,
                "outcome": "ttl_expired",
                "address": address,
                "rtt_ms": high,
                "mpls": [],
                "error": None,
            }
            probe["sent_at"] = f"2026-01-02T03:{number // 60:02d}:{number % 60:02d}.{ttl:03d}Z"
            data = {"ttl": ttl, "responders": [{**responder, "received": number}], "stats": stats}
            pieces.append(event(revision, "hop", {**data, "rate_limited": False, "probe": probe}))
    return [b"".join(pieces[i : i + 40]) for i in range(0, len(pieces), 40)]


def busy(session: Any) -> float:
    """Seconds the page's main thread has worked so far, scripts and layout together (Chromium's own count)."""
    metrics = {metric["name"]: metric["value"] for metric in session.send("Performance.getMetrics")["metrics"]}
    return float(metrics["TaskDuration"])


def test_large_trace_is_cheap(open_page: Any, scripted: Scripted) -> None:
    """64 hops x 100 probes arriving at once cost the page a small multiple of what reading their JSON alone costs."""
    pieces = flood(64, 100)
    scripted.answers["POST /traces"] = (202, {}, trace_document(request={"probes": 100}))
    scripted.answers["GET /traces/abc/events"] = (200, {}, pieces)
    page = open_page(scripted.address)
    lines = [line[6:].decode() for piece in pieces for line in piece.splitlines() if line.startswith(b"data: ")]
    read = "(lines) => { for (let i = 0; i < 20; i += 1) for (const line of lines) JSON.parse(line); }"
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")
    before = busy(session)
    page.evaluate(read, lines)
    baseline = (busy(session) - before) / 20
    before = busy(session)
    start(page, "192.0.2.9")
    full = "(cells) => cells.filter((cell) => cell.textContent === '100').length"
    while page.locator(".hops tbody .sent").evaluate_all(full) < 64:
        page.wait_for_timeout(50)
    cost = busy(session) - before
    assert cost < 60 * baseline
