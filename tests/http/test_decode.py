"""Bodies of POST: what is taken, and how what is wrong is said."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracerouted.http.decode import FIELDS, decode_request
from tracerouted.http.problems import ProblemError
from tracerouted.http.wire import _request
from tracerouted.model import Family, Protocol, TraceRequest


def decode(document: Any, **defaults: Any) -> TraceRequest:
    return decode_request(document if isinstance(document, bytes) else json.dumps(document).encode(), defaults)


def refusal(document: Any) -> tuple[str | None, list[str]]:
    """The problem type and the pointers of the wrong fields."""
    with pytest.raises(ProblemError) as caught:
        decode(document)
    return caught.value.kind.name, [e["pointer"] for e in json.loads(caught.value.document("/traces"))["errors"]]


def test_the_least_request() -> None:
    """A target is enough."""
    assert TraceRequest(target="example.net") == decode({"target": "example.net"})


def test_every_field() -> None:
    """Every field is read."""
    asked = {
        "target": "[2001:db8::1]",
        "family": "ipv6",
        "protocol": "udp",
        "port": 53,
        "source_port": 2000,
        "flows": 6,
        "first_ttl": 2,
        "max_ttl": 40,
        "probes": 1,
        "interval_ms": 100,
        "timeout_ms": 1000,
        "deadline_ms": 5000,
        "gap_limit": 5,
        "size": 100,
        "tos": 8,
        "resolve_names": False,
        "lookup_asn": True,
    }
    assert set(FIELDS) == set(asked)
    expected = {**asked, "target": "2001:db8::1", "family": Family.IPV6, "protocol": Protocol.UDP}
    assert TraceRequest(**expected) == decode(asked)


def test_defaults_yield_to_the_body() -> None:
    """What the service sets up as a default counts only where the body is silent."""
    assert decode({"target": "a.example"}, lookup_asn=True).lookup_asn
    assert not decode({"target": "a.example", "lookup_asn": False}, lookup_asn=True).lookup_asn


@pytest.mark.parametrize("protocol", ["icmp", "udp", "tcp", "sctp"])
def test_a_request_as_shown_can_be_sent_again(protocol: str) -> None:
    """The request a trace shows, with its nulls and filled-in defaults, is a request and shows the same again."""
    shown = _request(decode({"target": "example.net", "protocol": protocol}))
    assert shown == _request(decode(shown))


@pytest.mark.parametrize("number", ["57", "57.0", "5.7e1", "570e-1"])
def test_a_number_without_a_fraction_is_an_integer(number: str) -> None:
    """`57.0` is 57, as in JSON Schema."""
    size = decode(b'{"target": "a.example", "size": %b}' % number.encode()).size
    assert 57 == size
    assert type(size) is int


@pytest.mark.parametrize("value", [57.5, "57", True, None, [57], {"a": 57}, 1e300, -(2**60), 10**400])
def test_what_is_not_an_integer(value: Any) -> None:
    """Fractions, texts, booleans, null, arrays, objects and absurd numbers are no integers."""
    assert ("invalid-request", ["/size"]) == refusal({"target": "a.example", "size": value})


@pytest.mark.parametrize(
    ("fields", "pointers"),
    [
        ({"probes": True}, ["/probes"]),
        ({"target": 1}, ["/target"]),
        ({"target": None}, ["/target"]),
        ({"target": "127.1"}, ["/target"]),
        ({"target": ""}, ["/target"]),
        ({"target": "a\x00b"}, ["/target"]),
        ({"family": "ipv5"}, ["/family"]),
        ({"family": None}, ["/family"]),
        ({"family": ["any"]}, ["/family"]),
        ({"protocol": "ICMP"}, ["/protocol"]),
        ({"protocol": {}}, ["/protocol"]),
        ({"resolve_names": 1}, ["/resolve_names"]),
        ({"lookup_asn": "yes"}, ["/lookup_asn"]),
        ({"port": 80}, ["/port"]),
        ({"protocol": "udp", "port": 33000}, ["/port"]),
        ({"protocol": "tcp", "source_port": 2000}, ["/source_port"]),
        ({"protocol": "udp", "source_port": 32999, "flows": 2}, ["/source_port"]),
        ({"flows": 2}, ["/flows"]),
        ({"first_ttl": 31}, ["/first_ttl"]),
        ({"probes": 0}, ["/probes"]),
        ({"probes": 101}, ["/probes"]),
        ({"family": "ipv6", "size": 47}, ["/size"]),
        ({"target": "2001:db8::1", "size": 47}, ["/size"]),
        ({"target": "2001:db8::1", "family": "ipv4"}, ["/family"]),
        ({"target": "192.0.2.1", "family": "ipv6", "size": 60}, ["/family"]),
        ({"Target": "x"}, ["/Target"]),
        ({"a/b~c": 1}, ["/a~1b~0c"]),
        ({"": 1}, [""]),
    ],
)
def test_a_wrong_field(fields: dict[str, Any], pointers: list[str]) -> None:
    """A wrong type, value, combination or name is 422 and points at the field, and at no other."""
    assert ("invalid-request", pointers) == refusal({"target": "example.net", **fields})


def test_everything_wrong_is_said_at_once() -> None:
    """Types, ranges, combinations, unknown fields and a missing target come in one answer."""
    wrong = {"probes": "3", "max_ttl": 65, "first_ttl": 0, "port": 80, "hops": 1, "family": 4}
    kind, pointers = refusal(wrong)
    assert "invalid-request" == kind
    assert ["/family", "/first_ttl", "/hops", "/max_ttl", "/port", "/probes", "/target"] == sorted(pointers)


@pytest.mark.parametrize(
    "fields",
    [
        {"protocol": 6, "port": 443},
        {"protocol": "tpc", "flows": 4, "source_port": 5000},
        {"max_ttl": "40", "first_ttl": 35},
        {"flows": "x", "protocol": "udp", "source_port": 32999},
    ],
)
def test_no_complaint_follows_from_an_unreadable_field(fields: dict[str, Any]) -> None:
    """A field that is right by itself isn't blamed for one that can't be read."""
    unreadable = [f"/{name}" for name in ("protocol", "max_ttl", "flows") if name in fields][:1]
    if fields.get("protocol") == "udp":
        unreadable = ["/flows"]
    assert ("invalid-request", unreadable) == refusal({"target": "example.net", **fields})


@pytest.mark.parametrize("document", [[], "x", 1, None, True, [{"target": "a.example"}]])
def test_what_is_not_an_object(document: Any) -> None:
    """A body that is JSON but no object is 422, pointing at the whole."""
    assert ("invalid-request", [""]) == refusal(document)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b"target=example.net",
        b"{'target': 'a.example'}",
        b'{"target": "a.example",}',
        b'{"target": "a.example"} {}',
        b'{"target": "a.example", "size": NaN}',
        b'{"target": "a.example", "size": Infinity}',
        b'{"target": "a.example", "size": -Infinity}',
        b'{"target": "a.example", "size": 0x40}',
        b'{"target": "a.example", "size": 064}',
        b'{"target": "a.example", "size": ' + b"1" * 5000 + b"}",
        b'{"target": "a.example", "target": "b.example"}',
        b'{"target": "a.example", "x": {"y": 1, "y": 2}}',
        b'{"target": "\xff"}',
        b'{"target": "\xed\xa0\x80"}',
        b'{"target": "\\ud800"}',
        b'{"\\udfff": 1}',
        b'{"target": "a\x00b"}',
        b'{"target": "a\nb"}',
        b"\xef\xbb\xbf{}",
        '{"target": "a.example"}'.encode("utf-16"),
        b"[" * 16000,
        b'{"a":' * 3000,
    ],
    ids=range(25),
)
def test_what_is_not_json(body: bytes) -> None:
    """Anything but one JSON value in UTF-8, members given once, is 400."""
    assert ("malformed", []) == refusal(body)


def test_a_flood_of_wrong_fields_gets_a_short_answer() -> None:
    """However many fields are wrong, the answer stays small."""
    with pytest.raises(ProblemError) as caught:
        decode({f"f{n}": 0 for n in range(1500)})
    assert len(caught.value.document("/traces")) < 16_384


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["any", "udp", "ipv6"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
documents = values | st.dictionaries(st.sampled_from(FIELDS) | st.text(), values, max_size=6)


@given(documents)
def test_any_json_is_a_request_or_a_problem(document: Any) -> None:
    """No JSON value raises anything but `ProblemError`, whose document can always be encoded."""
    try:
        decode(document)
    except ProblemError as error:
        problem = error
    else:
        return
    assert problem.kind.status in (400, 422)
    assert problem.kind.status == json.loads(problem.document("/traces"))["status"]


@given(st.binary(max_size=200))
def test_any_bytes_are_a_request_or_a_problem(body: bytes) -> None:
    """No bytes raise anything but `ProblemError`."""
    with pytest.raises(ProblemError):
        decode(body)
