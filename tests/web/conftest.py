"""A headless Chromium, the daemon it looks at, and what every page must keep to."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from netsim import Lab
from web.daemon import Proxy, Scripted, daemon, name_server

FLAGS = (
    "--no-sandbox",  # Chromium's own does not start as root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--font-render-hinting=none",
)
WAIT_MS = 15_000


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium, one for all tests; every test gets a context of its own from it."""
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no Chromium: install the package chromium")
    sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install playwright")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def service(internet: Lab) -> Iterator[str]:
    """The address of a daemon in the simulated internet, with reverse names."""
    with name_server() as port, daemon(dns_servers=f"127.0.0.1:{port}", traces_per_prefix="50") as address:
        yield address


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., Any]]:
    """Open an address in a fresh browser profile: `open_page(address, **context_options)`.

    Whatever a page does, it asks nobody but its own origin, breaks no rule of its content security policy, and
    throws nothing.
    """
    contexts: list[Any] = []
    faults: list[str] = []

    def open_page(address: str, **options: Any) -> Any:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        contexts.append(context)
        origin = urlsplit(address).netloc
        context.add_init_script(
            "addEventListener('securitypolicyviolation',"
            " (event) => console.error(`CSP ${event.violatedDirective} ${event.blockedURI}`))"
        )

        def on_request(request: Any) -> None:
            if urlsplit(request.url).netloc != origin:
                faults.append(f"asked {request.url}")

        def on_console(message: Any) -> None:
            # Chromium itself notes every answer that is an error, which is for the page to handle.
            if message.type == "error" and not message.text.startswith("Failed to load resource"):
                faults.append(message.text)

        context.on("request", on_request)
        context.on("console", on_console)
        context.on("weberror", lambda error: faults.append(str(error.error)))
        context.set_default_timeout(WAIT_MS)
        page = context.new_page()
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert [] == faults


@pytest.fixture
def proxy(service: str) -> Iterator[Proxy]:
    """A breakable way to the daemon."""
    proxy = Proxy(service)
    yield proxy
    proxy.close()


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    """The page over an API the test scripts."""
    script = Scripted()
    yield script
    script.close()
