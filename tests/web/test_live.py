"""A trace in the browser, from Enter to its end."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from netsim import Lab
from web.looking import ended, rows, sent, start, trace

# What the page shows is compared with what the service says and with what the simulated internet is made of.


def watch_rows(page: Any) -> None:
    """Note every state the table passes through: how many rows, how many of them answered, how many probes in all."""
    page.evaluate(
        """() => {
          window.seen = [];
          new MutationObserver(() => {
            const rows = [...document.querySelectorAll('.hops tbody tr')];
            const sent = rows.map((row) => Number(row.querySelector('.sent').textContent)).reduce((a, b) => a + b, 0);
            const live = document.querySelector('.verdict').dataset.tone === 'live';
            const named = rows.filter((row) => row.querySelector('.responder')).length;
            window.seen.push({ rows: rows.length, named, sent, live });
          }).observe(document.querySelector('#result'), {
            childList: true, subtree: true, characterData: true
          });
        }"""
    )


def test_hops_appear_live(open_page: Any, service: str, lab: Lab) -> None:
    """Hops and their numbers appear while the trace runs, growing, not all at its end."""
    page = open_page(service)
    watch_rows(page)
    start(page, lab.address("plain", "ipv4"), probes=20)
    assert "Reached" in ended(page)
    live = [state for state in page.evaluate("window.seen") if state["live"]]
    assert any(0 < state["named"] and state["sent"] < 11 * 20 for state in live)
    counts = [state["sent"] for state in live]
    assert sorted(counts) == counts, "numbers of probes only grow"
    assert len({*counts}) > 3


def test_table_is_the_trace(open_page: Any, service: str, lab: Lab) -> None:
    """Every column shows what the service measured: TTL, name over address, loss, counts and times."""
    page = open_page(service)
    start(page, lab.address("lossy-path", "ipv4"), probes=10)
    ended(page)
    document, shown = trace(page), rows(page)
    decimals = 2 if "." in shown[0]["avg"] and len(shown[0]["avg"].split(".")[1]) == 2 else 1
    assert [str(hop["ttl"]) for hop in document["hops"]] == [row["ttl"] for row in shown]
    for hop, row in zip(document["hops"], shown, strict=True):
        stats = hop["stats"]
        expected = {
            "avg": stats["avg_ms"],
            "best": stats["min_ms"],
            "worst": stats["max_ms"],
            "stdev": stats["stddev_ms"],
            "jitter": stats["jitter_ms"],
            "last": [probe["rtt_ms"] for probe in hop["probes"] if probe["rtt_ms"] is not None][-1],
        }
        for name, value in expected.items():
            assert abs(value - float(row[name])) <= 0.51 * 10**-decimals, (hop["ttl"], name)
        assert (str(stats["sent"]), f"{stats['loss_pct']:.0f}%") == (row["sent"], row["loss"])
        (responder,) = hop["responders"]
        (host,) = row["hosts"]
        assert (responder["hostname"], responder["address"]) == (host["name"], host["address"])
    assert ["0%", "0%"] == [row["loss"] for row in shown[:2]]
    assert "0%" not in [row["loss"] for row in shown[2:]], "router 3 drops every fifth packet"


def test_picture_shows_spread_and_loss(open_page: Any, service: str, lab: Lab) -> None:
    """A hop's picture has a bar for each round-trip time within its band, and loss as long as its share."""
    page = open_page(service)
    start(page, lab.address("lossy-path", "ipv4"), probes=10)
    ended(page)
    pictures = page.evaluate(
        """() => [...document.querySelectorAll('.hops tbody .picture')].map((picture) => {
          const d = (name) => picture.querySelector(name).getAttribute('d');
          const box = (name) => {
            const { x, width } = picture.querySelector(name).getBBox();
            return [x, x + width];
          };
          return {
            bars: d('.bars.c0').split('M').length - 1, bar: box('.bars.c0'), band: box('.band'),
            loss: box('.loss'), place: box('.share'), label: picture.getAttribute('aria-label'),
          };
        })"""
    )
    assert 6 == len(pictures)
    for hop, picture in zip(trace(page)["hops"], pictures, strict=True):
        assert 1 <= picture["bars"] <= hop["stats"]["received"]
        assert picture["band"][0] - 5 <= picture["bar"][0] <= picture["bar"][1] <= picture["band"][1] + 5
        (left, right), (start_of_place, end_of_place) = picture["loss"], picture["place"]
        assert abs((right - left) * 100 - hop["stats"]["loss_pct"] * (end_of_place - start_of_place)) < 20
        assert f"{hop['stats']['loss_pct']:.0f}% lost" in picture["label"]
    best = [hop["stats"]["min_ms"] for hop in trace(page)["hops"]]
    starts = [picture["band"][0] for picture in pictures]
    assert sorted(range(6), key=best.__getitem__) == sorted(range(6), key=starts.__getitem__), "one axis for all"


def test_several_responders(open_page: Any, service: str, lab: Lab) -> None:
    """Where packets go by turns, every responder of a hop is named, with its share and a lane of its own."""
    page = open_page(service)
    start(page, lab.address("per-packet", "ipv4"), probes=10, interval_ms=37)
    ended(page)
    document = trace(page)
    several = [hop for hop in document["hops"] if len(hop["responders"]) > 1]
    assert several, "the scenario balances packet by packet"
    for hop in several:
        hosts = rows(page)[hop["ttl"] - 1]["hosts"]
        assert [(r["hostname"], r["address"]) for r in hop["responders"]] == [
            (h["name"], h["address"]) for h in hosts
        ]
        for responder, host in zip(hop["responders"], hosts, strict=True):
            assert f"{responder['received']} of {hop['stats']['received']}" == host["more"]
            assert host["shown"]
        medians = page.locator(".hops tbody tr").nth(hop["ttl"] - 1).locator(".median").get_attribute("d")
        assert len(hop["responders"]) == medians.count("M")


def test_flows_are_drawn(open_page: Any, service: str, lab: Lab) -> None:
    """With several flows the parallel paths are drawn: a box per TTL and responder that says which flows share it."""
    page = open_page(service)
    start(page, lab.address("ecmp", "ipv4"), "udp", flows=12, probes=1)
    ended(page)
    page.wait_for_selector(".drawing")
    expected: dict[tuple[int, str], list[int]] = {}
    for path in trace(page)["paths"]:
        for ttl, address in enumerate(path["addresses"], 1):
            expected.setdefault((ttl, address), []).append(path["flow"])
    drawn = sorted(box_title(title) for title in page.locator(".drawing .box title").all_text_contents())
    assert sorted((address, flows) for (_, address), flows in expected.items()) == drawn
    edges = {pair for path in trace(page)["paths"] for pair in pairwise(enumerate(path["addresses"]))}
    assert len(edges) == page.locator(".drawing .edge").count()


def box_title(title: str) -> tuple[str, list[int]]:
    """A box's "name (address): flows 1-3, 7" as its address and flows."""
    who, _, flows = title.rpartition(": ")
    numbers: list[int] = []
    for part in flows.split(" ", 1)[1].split(", "):
        first, _, last = part.partition("\u2013")
        numbers += range(int(first), int(last or first) + 1)
    return who.rpartition("(")[2].rstrip(")"), numbers


def test_paths_in_words(open_page: Any, service: str, lab: Lab) -> None:
    """How many paths there are and where they part is said; choosing one lights its boxes and no others."""
    page = open_page(service)
    start(page, lab.address("ecmp", "ipv4"), "udp", flows=12, probes=1)
    ended(page)
    ways = {tuple(path["addresses"]) for path in trace(page)["paths"]}
    assert len(ways) > 1, "the scenario has four"
    assert f"{len(ways)} paths seen with 12 flows. They part after hop 2" in page.inner_text(".graph .summary")
    buttons = page.locator(".paths button")
    assert len(ways) == buttons.count()
    for i in range(len(ways)):
        buttons.nth(i).click()
        page.mouse.move(0, 0)
        assert "true" == buttons.nth(i).get_attribute("aria-pressed")
        lit = [box_title(title)[0] for title in page.locator(".drawing .box.lit title").all_text_contents()]
        assert tuple(lit) in ways
        assert page.locator(".drawing .box:not(.lit):not(.dim)").count() == 0
    buttons.nth(len(ways) - 1).click()
    page.mouse.move(0, 0)
    assert 0 == page.locator(".drawing .dim").count(), "chosen once more, none is"


def test_one_flow_is_not_drawn(open_page: Any, service: str, lab: Lab) -> None:
    """A trace with one flow has no drawing of paths."""
    page = open_page(service)
    start(page, lab.address("plain", "ipv4"), "udp", probes=1)
    ended(page)
    assert not page.locator(".graph").is_visible()


def test_words_for_reached(open_page: Any, service: str, lab: Lab) -> None:
    """Reached: who answers, after how many hops, how fast, and what was lost."""
    page = open_page(service)
    start(page, lab.address("plain", "ipv4"))
    words = ended(page)
    assert words.startswith(f"Reached {lab.address('plain', 'ipv4')} answers after 11 hops in ")
    assert words.endswith("no loss.")
    assert "target" in rows(page)[-1]["hosts"][0]["chips"]


def test_words_for_blocked(open_page: Any, service: str, lab: Lab) -> None:
    """Blocked: at which hop, and by whom."""
    page = open_page(service)
    start(page, lab.address("host-unreachable", "ipv4"))
    words = ended(page)
    document = trace(page)
    blocker = document["hops"][-1]["responders"][0]
    assert words.startswith(f"Blocked at hop {document['hop_count']}")
    assert f"{blocker['hostname']} ({blocker['address']}) says the target cannot be reached" in words
    assert ["says unreachable"] == rows(page)[-1]["hosts"][0]["chips"]


def test_words_for_silence(open_page: Any, service: str, lab: Lab) -> None:
    """Silent beyond: after which hop, and who was the last to answer; the silent hops are there, as no answer."""
    page = open_page(service)
    start(page, lab.address("silent-end", "ipv4"), timeout_ms=300, probes=1)
    words = ended(page)
    assert words.startswith("Silent beyond hop 5 The last to answer was r5.metro4.example.net (44.1.4.5). ")
    assert ["no answer"] * 8 == [row["host"] for row in rows(page)[5:]]
    assert ["100%"] * 8 == [row["loss"] for row in rows(page)[5:]]


def test_words_for_a_loop(open_page: Any, service: str, lab: Lab) -> None:
    """A loop: between whom."""
    page = open_page(service)
    start(page, lab.address("loop", "ipv4"))
    words = ended(page)
    assert words.startswith("Routing loop From hop 4 on, packets go round between ")
    assert "r4.metro11.example.net (44.1.11.4)" in words
    assert "r5.metro11.example.net (44.1.11.5)" in words


def test_rate_limits_are_no_loss(open_page: Any, service: str, lab: Lab) -> None:
    """A router that limits its answers is marked in words and muted; the words say that it is no loss on the path."""
    page = open_page(service)
    start(page, lab.address("rate-limited", "ipv4"), probes=15)
    assert ended(page).endswith("no loss.")
    flagged = [hop["ttl"] for hop in trace(page)["hops"] if hop["rate_limited"]]
    assert flagged, "the scenario has two such routers"
    for row in rows(page):
        limits = int(row["ttl"]) in flagged
        assert limits is ("limits answers" in row["hosts"][0]["chips"]), row["ttl"]
        assert limits is ("innocent" in row["classes"])
    assert "no loss on the path" in page.inner_text(".note")
    colour = "(node) => getComputedStyle(node).color"
    row = page.locator(".hops tbody tr").nth(flagged[0] - 1)
    assert row.locator(".loss").first.evaluate(colour) == row.locator(".sent").evaluate(colour)


def test_silence_in_the_middle_is_muted(open_page: Any, service: str, lab: Lab) -> None:
    """A silent hop with answers behind it is shown as such, and not in the colour of loss."""
    page = open_page(service)
    start(page, lab.address("silent-middle", "ipv4"), timeout_ms=500, probes=2)
    assert ended(page).startswith("Reached")
    silent = [row for row in rows(page) if row["host"] == "no answer"]
    assert silent
    assert all("innocent" in row["classes"] for row in silent)


def test_labels_are_shown(open_page: Any, service: str, lab: Lab) -> None:
    """A router's MPLS labels stand with it."""
    page = open_page(service)
    start(page, lab.address("mpls", "ipv4"), probes=1)
    ended(page)
    assert ["MPLS 24017/3/1 1048575/7/254"] == rows(page)[3]["hosts"][0]["chips"]


def test_ipv6(open_page: Any, service: str, lab: Lab) -> None:
    """Long addresses are shown whole."""
    page = open_page(service)
    start(page, lab.address("long-path", "ipv6"), probes=1)
    ended(page)
    hops = trace(page)["hops"]
    assert [hop["responders"][0]["address"] for hop in hops] == [row["hosts"][0]["name"] for row in rows(page)]
    clipped = "(names) => names.filter((name) => name.scrollWidth > name.parentElement.clientWidth + 1).length"
    assert 0 == page.locator(".hops .name").evaluate_all(clipped)
    assert ["1"] * len(hops) == sent(page)
