"""`/docs` in Chromium. `open_page` holds it to its content security policy and to its own origin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def test_the_contract_can_be_read_and_tried(open_page: Callable[..., Any], service: str) -> None:
    """Every operation is listed, opens to its description, and can be tried against the service."""
    page = open_page(f"{service}docs")
    page.wait_for_selector(".opblock")
    contract = page.evaluate("() => fetch('openapi.json').then((answer) => answer.json())")
    operations = [
        operation["operationId"]
        for item in contract["paths"].values()
        for method, operation in item.items()
        if method != "parameters"
    ]
    shown = page.eval_on_selector_all(".opblock", "(blocks) => blocks.map((block) => block.id.split('-').at(-1))")
    assert sorted(operations) == sorted(shown)

    page.click("#operations-service-getHealth .opblock-summary-control")
    page.click(".try-out__btn")
    page.click("button.execute")
    page.wait_for_selector(".live-responses-table .response")
    assert '"status": "ok"' in page.inner_text(".live-responses-table")

    page.click("#operations-traces-createTrace .opblock-summary-control")
    page.wait_for_selector("#operations-traces-createTrace .responses-wrapper")
    assert "target-not-allowed" in page.inner_text("#operations-traces-createTrace")


def test_a_key_is_asked_for(open_page: Callable[..., Any], service: str) -> None:
    """Where the contract wants an API key the page asks for one, says when it is wrong, and shows the contract."""
    page = open_page(service)
    asked: list[str | None] = []

    def locked(route: Any) -> None:
        key = route.request.headers.get("authorization")
        asked.append(key)
        if key == "Bearer right":
            route.continue_()
        else:
            route.fulfill(status=401, content_type="application/problem+json", body="{}")

    page.route("**/openapi.json", locked)
    page.goto(f"{service}docs")
    page.fill("input[name=key]", "wrong")
    page.click("form button")
    page.wait_for_function("document.querySelector('form output').textContent !== ''")
    page.fill("input[name=key]", "right")
    page.click("form button")
    page.wait_for_selector(".opblock")
    assert not page.is_visible("form")
    assert [None, "Bearer wrong", "Bearer right"] == asked


def test_a_contract_that_does_not_come(open_page: Callable[..., Any], service: str) -> None:
    """When the contract cannot be had the page says so."""
    page = open_page(service)
    page.route("**/openapi.json", lambda route: route.fulfill(status=503, body="{}"))
    page.goto(f"{service}docs")
    page.wait_for_function("document.querySelector('#contract').textContent.includes('could not be loaded')")
