"""Headers that ask for something."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracerouted.http.negotiate import acceptable, event_id, is_json, matches, wait_preferred

OFFERS = ("application/json", "text/plain")


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (b"", "application/json"),
        (b"*/*", "application/json"),
        (b"text/plain", "text/plain"),
        (b"text/*", "text/plain"),
        (b"application/json;q=0.5, text/plain", "text/plain"),
        (b"text/plain;q=0.2, application/json;q=0.9", "application/json"),
        (b"text/html,application/xhtml+xml,*/*;q=0.8", "application/json"),
        (b"application/json;q=0, text/plain", "text/plain"),
        (b"text/plain;q=0", None),
        (b"image/png", None),
    ],
)
def test_accept(accept: bytes, expected: str | None) -> None:
    """Accept chooses by quality, then by our order; nothing on offer is None."""
    assert expected == acceptable(accept, OFFERS)


@given(st.one_of(st.binary(), st.text("*/;,=q0.159\"' text plainjso").map(str.encode)))
def test_any_accept_is_read(accept: bytes) -> None:
    """No bytes in an Accept header raise anything."""
    assert acceptable(accept, OFFERS) in (*OFFERS, None)


@pytest.mark.parametrize(
    ("prefer", "expected"),
    [
        (None, None),
        (b"wait=10", 10),
        (b"Wait = 10", 10),
        (b'wait="10"', 10),
        (b"wait=10; why=because", 10),
        (b"respond-async, wait=7", 7),
        (b'foo="a, wait=3", wait=9', 9),
        (b"wait=5, wait=9", 5),
        (b"wait=0", 0),
        (b"wait=60", 60),
        (b"wait=61", 60),
        (b"wait=999999999", 60),
        (b"wait=" + b"9" * 5000, None),
        (b"wait=-1", None),
        (b"wait=1.5", None),
        (b"wait", None),
        (b"wait=\xb2", None),
        (b"waiting=3", None),
        (b"respond-async", None),
        (b"", None),
    ],
)
def test_prefer_wait(prefer: bytes | None, expected: int | None) -> None:
    """The first `wait` counts, at most 60 s; what RFC 7240 does not know is ignored."""
    assert expected == wait_preferred(prefer)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "prefer", [b'"' + b'\\"' * 300_000, b'"' * 600_000, b'"a' * 300_000, b"wait" + b" " * 600_000 + b"x"]
)
def test_a_prefer_made_to_cost(prefer: bytes) -> None:
    """Reading takes time in proportion, far from the square of it, which would be hours here."""
    assert wait_preferred(prefer) is None


@given(st.one_of(st.binary(), st.text('wait=;,"\\ 0123456789').map(str.encode)))
def test_any_prefer_is_read(prefer: bytes) -> None:
    """No bytes in a Prefer header raise anything, or wait longer than is allowed."""
    assert wait_preferred(prefer) in (None, *range(61))


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (b'"a-1-json"', True),
        (b'W/"a-1-json"', True),
        (b'"x", "a-1-json"', True),
        (b'"x","a-1-json" , "y"', True),
        (b'W/"x", W/"a-1-json"', True),
        (b"*", True),
        (b" * ", True),
        (b'"a,b", "a-1-json"', True),
        (b'"a-2-json"', False),
        (b"a-1-json", False),
        (b'"x", *', False),
        (b"", False),
    ],
)
def test_if_none_match(header: bytes, expected: bool) -> None:
    """Lists, weak tags and * are understood."""
    assert expected is matches(header, b'"a-1-json"')


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        (b"application/json", True),
        (b"Application/JSON; charset=utf-8", True),
        (b"text/plain", False),
        (b"application/x-www-form-urlencoded", False),
        (b"application/jsonp", False),
        (None, False),
    ],
)
def test_json_media_type(content_type: bytes | None, expected: bool) -> None:
    """Only application/json is JSON, whatever its parameters."""
    assert expected is is_json(content_type)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (b"0", 0),
        (b"17", 17),
        (b"", None),
        (b"-1", None),
        (b"1 ", None),
        (b"x", None),
        (b"9" * 16, None),
        (b"1\xb2", None),
    ],
)
def test_last_event_id(header: bytes, expected: int | None) -> None:
    """A Last-Event-ID is plain digits."""
    assert expected == event_id(header)
