"""How tests read and work the page."""

from __future__ import annotations

import json
import re
import urllib.request
from typing import Any

#: The trace shown is over.
OVER = ".verdict:not([data-tone=live])"


def start(page: Any, target: str, protocol: str = "icmp", **fields: int | str) -> None:
    """Fill the form (fields by name, folded ones included) and press Enter."""
    page.select_option("#protocol", protocol)
    page.locator("#more").evaluate("(details) => { details.open = true }")
    for name, value in fields.items():
        page.fill(f"#{name}", str(value))
    page.fill("#target", target)
    page.press("#target", "Enter")


def ended(page: Any) -> str:
    """Wait for the end of the trace shown; what the page says about it."""
    page.wait_for_selector(OVER)
    page.wait_for_function("() => document.querySelector('#cancel').hidden")
    return str(page.inner_text(".verdict"))


def trace_id(page: Any) -> str:
    """The id in the page's address."""
    found = re.search(r"\?trace=([\w-]+)", page.url)
    assert found, page.url
    return found[1]


def trace(page: Any) -> dict[str, Any]:
    """The trace shown, as the service has it."""
    origin = page.url.split("?")[0]
    with urllib.request.urlopen(f"{origin}traces/{trace_id(page)}") as answer:
        document: dict[str, Any] = json.load(answer)
        return document


def rows(page: Any) -> list[dict[str, Any]]:
    """The table: each row's cells by column, with `hosts` a list of {name, address, more, as}."""
    read: list[dict[str, Any]] = page.evaluate(
        """() => [...document.querySelectorAll('.hops tbody tr')].map((row) => {
          const text = (node, selector) => node.querySelector(selector)?.textContent ?? '';
          const column = (cell) => cell.className.split(' ')[0];
          const cells = Object.fromEntries([...row.children].map((cell) => [column(cell), cell.textContent]));
          const systems = [...row.querySelectorAll('.asn .responder')];
          cells.hosts = [...row.querySelectorAll('.host .responder')].map((host, i) => ({
            name: text(host, '.name'), address: text(host, '.below .address'), more: text(host, '.share'),
            chips: [...host.querySelectorAll('.chip')].map((chip) => chip.textContent),
            as: systems[i].textContent, shown: host.getClientRects().length > 0,
          }));
          cells.classes = [...row.classList];
          return cells;
        })"""
    )
    return read


def sent(page: Any) -> list[str]:
    """The Sent column."""
    return [row["sent"] for row in rows(page)]
