"""The looking-glass page and its files: read once, compressed once, answered from memory.

The page itself is revalidated at every visit. Its files live below `/static/VERSION/`, where VERSION is a hash over
all of them, so they may be kept for a year and a page never meets files of another release. They refer to each other
by relative addresses, which also lets the service live below a path prefix.
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from hashlib import sha256
from importlib.resources import files
from typing import TYPE_CHECKING, Any, cast

from attrs import frozen
from klein import Klein
from werkzeug.exceptions import NotFound
from werkzeug.http import parse_accept_header, parse_etags

if TYPE_CHECKING:
    from ..http.request import EdgeRequest

_MEDIA_TYPES = {
    "html": b"text/html; charset=utf-8",
    "css": b"text/css; charset=utf-8",
    "js": b"text/javascript; charset=utf-8",
    "svg": b"image/svg+xml",
}

#: Stands in the page for the version of its files.
_VERSION_MARK = b"@version@"

_REVALIDATED = b"no-cache"
_KEPT = b"public, max-age=31536000, immutable"

# Nothing but this origin, and no text may ever be taken for markup (Trusted Types, where a browser has them).
_POLICY = (
    b"default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'; "
    b"require-trusted-types-for 'script'; trusted-types 'none'"
)


@frozen
class Representation:
    """A file in one content coding: its bytes, the coding (None: as it is) and a strong entity tag without quotes."""

    body: bytes
    coding: bytes | None
    tag: str

    @classmethod
    def of(cls, body: bytes, coding: bytes | None = None) -> Representation:
        return cls(body, coding, sha256(body).hexdigest()[:24])


@frozen
class Asset:
    """A file as it is answered: plain, and compressed where that is smaller."""

    media_type: bytes
    cache_control: bytes
    plain: Representation
    packed: Representation | None

    @classmethod
    def of(cls, name: str, body: bytes, cache_control: bytes) -> Asset:
        """Raises KeyError for a name whose ending has no media type here."""
        packed = gzip.compress(body, 9, mtime=0)
        return cls(
            _MEDIA_TYPES[name.rpartition(".")[2]],
            cache_control,
            Representation.of(body),
            Representation.of(packed, b"gzip") if len(packed) < len(body) else None,
        )

    def answer(self, request: EdgeRequest) -> bytes:
        """Answer with the coding the client takes, or with 304 (RFC 9110 sections 12.5.3 and 13.1.2)."""
        chosen = self.plain
        if self.packed is not None:
            request.put(b"Vary", b"Accept-Encoding")
            accepted = parse_accept_header((request.header(b"Accept-Encoding") or b"").decode("latin-1"))
            if accepted.quality("gzip") > 0:
                chosen = self.packed
        request.put(b"ETag", b'"%b"' % chosen.tag.encode("ascii"))
        request.put(b"Cache-Control", self.cache_control)
        request.put(b"Content-Security-Policy", _POLICY)
        conditions = request.header(b"If-None-Match")
        if conditions is not None and parse_etags(conditions.decode("latin-1")).contains_weak(chosen.tag):
            request.setResponseCode(304)
            return b""
        if chosen.coding is not None:
            request.put(b"Content-Encoding", chosen.coding)
        return request.reply(chosen.body, self.media_type)


@frozen
class Pages:
    """The page, and its files by name; `version` is part of their paths."""

    page: Asset
    version: str
    assets: Mapping[str, Asset]

    def index(self, request: EdgeRequest) -> bytes:
        """`/`: the looking glass, whatever the query."""
        return self.page.answer(request)

    def static(self, request: EdgeRequest, version: str, name: str) -> bytes:
        """`/static/VERSION/NAME`: a file of this release's page."""
        asset = self.assets.get(name) if version == self.version else None
        if asset is None:
            raise NotFound
        return asset.answer(request)


def read_pages() -> Pages:
    """Read everything in `static`."""
    found = {entry.name: entry.read_bytes() for entry in (files(__package__) / "static").iterdir()}
    page = found.pop("index.html")
    content = sha256()
    for name in sorted(found):
        content.update(b"%b\0%d\0%b" % (name.encode(), len(found[name]), found[name]))
    version = content.hexdigest()[:16]
    return Pages(
        Asset.of("index.html", page.replace(_VERSION_MARK, version.encode("ascii")), _REVALIDATED),
        version,
        {name: Asset.of(name, body, _KEPT) for name, body in found.items()},
    )


def add_pages(router: Klein) -> None:
    """Add the page and its files to a router's routes."""
    pages = read_pages()
    router.route("/", methods=["GET"])(cast(Any, pages.index))
    router.route("/static/<version>/<name>", methods=["GET"])(cast(Any, pages.static))
