"""The contract as it is served: `openapi.yaml` as `/openapi.json`, and `/docs`, a page to read it on.

The page is Swagger UI, whose files are in `vendor`, compressed. Nothing is read before it is first asked for: parsing
the contract takes a tenth of a second and unpacking the script a fifth of that, which a start need not wait for.
"""

from __future__ import annotations

import gzip
import json
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import Any, cast

from klein import Klein
from werkzeug.exceptions import NotFound

from ..web.pages import Asset, Representation
from .request import EdgeRequest

_REVALIDATED = b"no-cache"
_KEPT = b"public, max-age=31536000, immutable"

# Swagger UI's style sheet has pictures in it. The page may talk to this origin alone.
_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    b"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

_HERE = files(__package__)
_DOCS = _HERE / "docs"
_SWAGGER_UI = _HERE / "vendor" / "swagger-ui"
_OWN = ("docs.css", "docs.js")
_VENDORED = {"swagger-ui.css": b"text/css; charset=utf-8", "swagger-ui-bundle.js": b"text/javascript; charset=utf-8"}


def read_contract() -> dict[str, Any]:
    """The OpenAPI document."""
    import yaml  # here, because loading it takes 20 ms

    # The loader in C is ten times as fast; PyYAML may have been built without it.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return cast(dict[str, Any], yaml.load((_HERE / "openapi.yaml").read_bytes(), loader))


def add_contract(router: Klein) -> None:
    """Add the contract and its page to a router's routes."""
    router.route("/openapi.json", methods=["GET"])(cast(Any, _contract))
    router.route("/docs", methods=["GET"])(cast(Any, _page))
    router.route("/docs/<version>/<name>", methods=["GET"])(cast(Any, _file))


def _contract(request: EdgeRequest) -> bytes:
    return _contract_asset().answer(request)


def _page(request: EdgeRequest) -> bytes:
    body = _page_asset().answer(request)
    request.put(b"Content-Security-Policy", _POLICY)
    return body


def _file(request: EdgeRequest, version: str, name: str) -> bytes:
    if version != _version() or name not in (*_OWN, *_VENDORED):
        raise NotFound
    return _file_asset(name).answer(request)


@cache
def _contract_asset() -> Asset:
    plain = json.dumps(read_contract(), ensure_ascii=False, separators=(",", ":")).encode()
    packed = gzip.compress(plain, mtime=0)
    return Asset(b"application/json", _REVALIDATED, Representation.of(plain), Representation.of(packed, b"gzip"))


@cache
def _page_asset() -> Asset:
    page = (_DOCS / "index.html").read_bytes().replace(b"@version@", _version().encode("ascii"))
    return Asset.of("index.html", page, _REVALIDATED)


@cache
def _file_asset(name: str) -> Asset:
    if name not in _VENDORED:
        return Asset.of(name, (_DOCS / name).read_bytes(), _KEPT)
    packed = (_SWAGGER_UI / f"{name}.gz").read_bytes()
    plain = Representation.of(gzip.decompress(packed))
    return Asset(_VENDORED[name], _KEPT, plain, Representation.of(packed, b"gzip"))


@cache
def _version() -> str:
    # Of all files below it, so that they may be kept for good.
    own = [(_DOCS / name).read_bytes() for name in _OWN]
    return sha256(b"\0".join([(_SWAGGER_UI / "SHA256SUMS").read_bytes(), *own])).hexdigest()[:16]
