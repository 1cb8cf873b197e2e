"""`openapi.yaml` says what the service takes: it is held against the routes, the decoder and the problems."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import attrs
import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openapi_spec_validator import validate
from twisted.internet.testing import MemoryReactorClock
from werkzeug.routing import Rule

from contract_checks import CONTRACT, SCHEMAS, check, component, operations, resolved
from tracerouted import model
from tracerouted.app import make_service as make_daemon
from tracerouted.http import problems
from tracerouted.http.decode import decode_request
from tracerouted.http.formats import FORMATS
from tracerouted.http.traces import _DEFAULT_PAGE, _MOST_PAGE
from tracerouted.model import (
    Family,
    Outcome,
    Protocol,
    Status,
    StopReason,
    TraceRequest,
)
from tracerouted.settings import Settings

PROBLEM = "application/problem+json"

#: Made for a page of ours, which names them by a hash: nobody is promised anything about them.
ASSETS = ("/static/", "/docs/")


def test_it_is_openapi() -> None:
    """The document is valid OpenAPI 3.1, and each of its schemas valid JSON Schema."""
    assert CONTRACT["openapi"].startswith("3.1.")
    validate(CONTRACT)
    for schema in SCHEMAS.values():
        jsonschema.Draft202012Validator.check_schema(schema)


def examples(node: Any) -> Iterator[tuple[dict[str, Any], Any]]:
    if isinstance(node, dict):
        if "schema" in node:
            if "example" in node:
                yield node["schema"], node["example"]
            for example in node.get("examples", {}).values():
                yield node["schema"], example["value"]
        for name, value in node.items():
            if name not in ("example", "examples"):
                yield from examples(value)
    elif isinstance(node, list):
        for value in node:
            yield from examples(value)


def test_examples() -> None:
    """Every example is as its schema says."""
    found = list(examples(CONTRACT))
    assert len(found) > 40
    for schema, example in found:
        check(schema, example)


def test_nothing_is_unused() -> None:
    """Every component is referred to."""
    text = json.dumps(CONTRACT)
    for kind in ("schemas", "responses", "parameters", "headers"):
        for name in CONTRACT["components"][kind]:
            assert f'"#/components/{kind}/{name}"' in text, name


# --- routes --------------------------------------------------------------------------------------------------


def test_routes() -> None:
    """Every route of the daemon is in the contract with its methods, and nothing else is; HEAD goes with GET."""
    daemon: Any = make_daemon(Settings(), MemoryReactorClock())
    rules: list[Rule] = list(daemon._site.router.url_map.iter_rules())
    served = {
        (re.sub(r"<(\w+)>", r"{\1}", rule.rule), method)
        for rule in rules
        if not rule.rule.startswith(ASSETS)
        for method in rule.methods or ()
    }
    described = {(path, method) for path, method, _ in operations()}
    described |= {(path, "HEAD") for path, method in described if method == "GET"}
    assert served == described


def test_path_parameters() -> None:
    """What a path has in braces is described, and nothing else is."""
    for path, item in CONTRACT["paths"].items():
        described = {resolved(parameter)["name"] for parameter in item.get("parameters", [])}
        assert set(re.findall(r"{(\w+)}", path)) == described


# --- requests ------------------------------------------------------------------------------------------------


def test_request_fields() -> None:
    """The fields of a request have the limits and defaults of the model, neither more nor fewer."""
    described = SCHEMAS["TraceRequest"]["properties"]
    assert [attribute.name for attribute in attrs.fields(TraceRequest)] == list(described)
    assert ["target"] == SCHEMAS["TraceRequest"]["required"]
    for attribute in attrs.fields(TraceRequest):
        field = described[attribute.name]
        bounds = attribute.metadata.get("range")
        told = None if bounds is None else (field.get("minimum"), field.get("maximum"))
        assert told == (None if bounds is None else tuple(bounds)), attribute.name
        if attribute.name in ("family", "port", "source_port"):
            assert attribute.default is None
        elif attribute.name == "lookup_asn":  # depends on the service
            assert "default" not in field
        elif attribute.default is not attrs.NOTHING:
            assert (attribute.default, type(attribute.default)) == (field["default"], type(field["default"])) or (
                attribute.default == field["default"]
            )
    assert "any" == described["family"]["default"]
    assert ["null" in described[name]["type"] for name in ("port", "source_port")] == [True, True]
    for protocol, port in model.DEFAULT_PORTS.items():
        assert re.search(rf"{protocol}\b[^.]*\b{port}\b", described["port"]["description"]), protocol


def test_list_parameters() -> None:
    """The page size of the list is the service's."""
    parameters = {each["name"]: each["schema"] for each in CONTRACT["paths"]["/traces"]["get"]["parameters"]}
    limit = parameters["limit"]
    assert (1, _MOST_PAGE, _DEFAULT_PAGE) == (limit["minimum"], limit["maximum"], limit["default"])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Family", Family),
        ("Protocol", Protocol),
        ("Status", Status),
        ("StopReason", StopReason),
        ("Outcome", Outcome),
    ],
)
def test_words(name: str, words: Any) -> None:
    """Every enumeration has the words of the model."""
    assert list(words) == SCHEMAS[name]["enum"]


def test_families() -> None:
    """A request may also ask for any family."""
    for request in ("TraceRequest", "FilledRequest"):
        assert ["any", *Family] == SCHEMAS[request]["properties"]["family"]["enum"]


def test_formats() -> None:
    """The formats of a trace, their names and media types, are the registry's."""
    read = CONTRACT["paths"]["/traces/{trace_id}"]["get"]
    (named,) = [each for each in read["parameters"] if each.get("name") == "format"]
    assert list(FORMATS) == named["schema"]["enum"]
    assert [each.media_type for each in FORMATS.values()] == list(read["responses"]["200"]["content"])


TARGETS = st.sampled_from(
    [
        "example.net",
        "Example.NET.",
        "a",
        "xn--bcher-kva.example",
        "b\u00fccher.example",
        "a" * 63 + ".example",
        "192.0.2.1",
        "255.255.255.255",
        "2001:db8::1",
        "[2001:db8::1]",
        "::ffff:192.0.2.1",
        "[::]",
        # and what is none
        "",
        "a" * 64,
        "127.1",
        "0x7f000001",
        "1",
        "example.0x7",
        "192.0.2.01",
        "192.0.2.256",
        "-a.example",
        "a..example",
        "a_b",
        "http://example.net/",
        "2001:db8::1%eth0",
        "2001:db8:::1",
        "[2001:db8::1",
        "a b",
        None,
        5,
    ]
)


def near(least: int, most: int) -> st.SearchStrategy[Any]:
    edges = st.sampled_from([least - 1, least, least + 1, most - 1, most, most + 1])
    return edges | st.integers(least, most) | st.sampled_from([float(least), least + 0.5, None, True, "1"])


BODIES = st.fixed_dictionaries(
    {"target": TARGETS},
    optional={
        **{
            attribute.name: near(*attribute.metadata["range"])
            for attribute in attrs.fields(TraceRequest)
            if "range" in attribute.metadata
        },
        "port": near(1, 65535) | near(32998, 33000),
        "size": near(28, 1500) | near(47, 49),
        "family": st.sampled_from(["any", *Family, "ipv5", None]),
        "protocol": st.sampled_from([*Protocol, "gre", None]),
        "resolve_names": st.sampled_from([True, False, None, 0]),
        "lookup_asn": st.booleans(),
        "more": st.none(),
    },
)


@settings(max_examples=400)
@given(BODIES)
def test_what_is_a_request(body: dict[str, Any]) -> None:
    """The schema takes what the decoder takes, but for two rules no schema can have, which it tells in words."""
    agree(body)


def edges() -> Iterator[dict[str, Any]]:
    """Requests at the limits of fields that depend on others."""
    for protocol in ({}, *({"protocol": str(each)} for each in Protocol)):
        for port in (None, 1, 32999, 33000, 65535, 65536):
            yield {"target": "example.net", "port": port, **protocol}
        for source_port in (None, 1023, 1024, 32999, 33000):
            yield {"target": "example.net", "source_port": source_port, **protocol}
        for flows in (1, 2, 64, 65):
            yield {"target": "example.net", "flows": flows, **protocol}
            yield {"target": "example.net", "flows": flows, "source_port": 32990, **protocol}
    for target in ("example.net", "192.0.2.1", "2001:db8::1", "[2001:db8::1]"):
        for family in ({}, {"family": "any"}, {"family": "ipv4"}, {"family": "ipv6"}):
            yield {"target": target, **family}
            for size in (27, 28, 47, 48, 1500, 1501):
                yield {"target": target, "size": size, **family}
    for first_ttl in (1, 30, 31, 64):
        yield {"target": "example.net", "first_ttl": first_ttl}
        yield {"target": "example.net", "first_ttl": first_ttl, "max_ttl": 31}


def test_what_is_a_request_at_the_edges() -> None:
    """The schema and the decoder agree at every limit that depends on another field."""
    for body in edges():
        agree(body)


def agree(body: dict[str, Any]) -> None:
    """Raise unless schema and decoder are of one mind about a request."""
    try:
        check(component("TraceRequest"), body)
        valid = True
    except jsonschema.ValidationError:
        valid = False
    refused: set[str] = set()
    try:
        decode_request(json.dumps(body).encode(), {})
    except problems.ProblemError as problem:
        refused = {error.field for error in problem.errors}
    if not valid:
        assert refused
    elif refused:
        first, last = body.get("first_ttl", 1), body.get("max_ttl", 30)
        ports = (body.get("source_port") or 1024) + body.get("flows", 1) - 1
        unsayable = {name for name, wrong in (("first_ttl", first > last), ("source_port", ports > 32999)) if wrong}
        assert unsayable == refused


# --- problems ------------------------------------------------------------------------------------------------


def test_problem_types() -> None:
    """The types of problems are those of the table."""
    assert sorted([*(kind.uri for kind in problems.TYPES), "about:blank"]) == sorted(SCHEMAS["ProblemType"]["enum"])


def test_problems_have_their_status() -> None:
    """Every problem is described where its status is; only a wrong method belongs to no operation."""
    statuses = {kind.uri: str(kind.status) for kind in problems.TYPES}
    described = set()
    for _, _, operation in operations():
        for status, response in operation["responses"].items():
            content = resolved(response).get("content", {}).get(PROBLEM)
            if content is None or resolved(content["schema"]) is SCHEMAS["NotReadyProblem"]:
                continue
            kinds = content["schema"]["properties"]["type"]["enum"]
            assert {status} == {statuses[kind] for kind in kinds}
            described.update(kinds)
    assert set(statuses) - described == {"/problems/method-not-allowed"}
