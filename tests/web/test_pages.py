"""The page's files over HTTP: media types, validators, compression, and what may be kept how long."""

from __future__ import annotations

import gzip
import re

import pytest
from twisted.internet.task import Clock

from fake_engine import FakeEngine
from fake_http import Service
from tracerouted.http import EdgeSite, HttpLimits, Router
from tracerouted.web.pages import add_pages, read_pages

MOST_COMPRESSED_BYTES = 60_000


@pytest.fixture
def web() -> Service:
    """A service that has nothing but the page."""
    clock = Clock()
    router = Router()
    add_pages(router)
    return Service(EdgeSite(router, clock, lambda: 0.0, HttpLimits()), FakeEngine(clock), clock)


def files_of(page: bytes) -> set[str]:
    """The addresses a page refers to in `src` and `href`, of its own files."""
    return set(re.findall(r'(?:src|href)="(static/[^"]+)"', page.decode()))


def test_page_types(web: Service) -> None:
    """The page and each file it names are there, with a media type that says the charset where there is one."""
    page = web.get("/")
    assert (200, "text/html; charset=utf-8") == (page.status, page.headers["content-type"])
    types = {"js": "text/javascript; charset=utf-8", "css": "text/css; charset=utf-8", "svg": "image/svg+xml"}
    for address in files_of(page.body):
        answer = web.get(f"/{address}")
        assert (200, types[address.rpartition(".")[2]]) == (answer.status, answer.headers["content-type"]), address


def test_every_file_is_named_in_the_page(web: Service) -> None:
    """The page names all modules and sheets there are, so that none is fetched only after another was read."""
    named = {address.rpartition("/")[2] for address in files_of(web.get("/").body)}
    assert set(read_pages().assets) == named


def test_small(web: Service) -> None:
    """All of it together is at most 60 kB compressed."""
    addresses = ["/", *(f"/{address}" for address in files_of(web.get("/").body))]
    sizes = [len(web.ask("GET", address, {"Accept-Encoding": "gzip"}).body) for address in addresses]
    assert sum(sizes) <= MOST_COMPRESSED_BYTES


def test_compressed_when_accepted(web: Service) -> None:
    """gzip goes to those who take it, and is the same content; both say that the answer depends on it."""
    plain = web.get("/")
    packed = web.ask("GET", "/", {"Accept-Encoding": "br;q=1.0, gzip;q=0.5"})
    assert "content-encoding" not in plain.headers
    assert "gzip" == packed.headers["content-encoding"]
    assert plain.body == gzip.decompress(packed.body)
    assert ["Accept-Encoding"] * 2 == [plain.headers["vary"], packed.headers["vary"]]
    assert plain.headers["etag"] != packed.headers["etag"], "a strong tag names one sequence of bytes"


@pytest.mark.parametrize("refusal", ["gzip;q=0", "identity", "br", "*;q=0"])
def test_not_compressed_when_refused(web: Service, refusal: str) -> None:
    """Who does not take gzip gets the plain bytes."""
    answer = web.ask("GET", "/", {"Accept-Encoding": refusal})
    assert "content-encoding" not in answer.headers
    assert answer.body.startswith(b"<!doctype html>")


@pytest.mark.parametrize("coding", ["", "gzip"])
def test_revalidated(web: Service, coding: str) -> None:
    """The page is asked about every time and answered 304 while it is the same; a weakened tag and a list match."""
    accepted = {"Accept-Encoding": coding} if coding else {}
    first = web.ask("GET", "/", accepted)
    assert "no-cache" == first.headers["cache-control"]
    tag = first.headers["etag"]
    assert re.fullmatch(r'"[0-9a-f]+"', tag)
    for condition in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        again = web.ask("GET", "/", {**accepted, "If-None-Match": condition})
        assert (304, b"", tag) == (again.status, again.body, again.headers["etag"]), condition
    assert 200 == web.ask("GET", "/", {**accepted, "If-None-Match": '"other"'}).status


def test_files_are_kept(web: Service) -> None:
    """Files are named by their content, so they may be kept for good; another version's address has nothing."""
    address = sorted(files_of(web.get("/").body))[0]
    assert "public, max-age=31536000, immutable" == web.get(f"/{address}").headers["cache-control"]
    version = address.split("/")[1]
    other = web.get(f"/{address.replace(version, '0' * len(version))}")
    assert (404, "not-found", "no-store") == (other.status, other.type, other.headers["cache-control"])
    assert 404 == web.get(f"/static/{version}/nothing.js").status
    assert 404 == web.get(f"/static/{version}/index.html").status


def test_head_and_methods(web: Service) -> None:
    """HEAD is GET without the body; nothing else is taken."""
    whole, head = web.get("/"), web.ask("HEAD", "/")
    same = ("content-type", "etag", "content-length", "cache-control")
    assert b"" == head.body
    assert [whole.headers[name] for name in same] == [head.headers[name] for name in same]
    refused = web.ask("POST", "/", {"Content-Length": "0"})
    assert (405, "GET, HEAD") == (refused.status, refused.headers["allow"])


def test_policy(web: Service) -> None:
    """Scripts, styles and requests are of this origin alone, nobody frames the page, no text becomes markup."""
    policy = {part.strip() for part in web.get("/").headers["content-security-policy"].split(";")}
    assert {
        "default-src 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
        "object-src 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    } <= policy


def test_no_markup_from_text() -> None:
    """No module has a way from text to markup or code, and the page has no inline script or style."""
    pages = read_pages()
    for name, asset in pages.assets.items():
        found = re.findall(rb"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", asset.plain.body)
        assert [] == found, name
    assert [] == re.findall(rb"<style|\sstyle=|<script(?![^>]*\ssrc=)|\son\w+=", pages.page.plain.body)
