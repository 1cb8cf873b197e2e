"""The contract, and what holds a value against a schema of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jsonschema

from tracerouted.http import contract

CONTRACT = contract.read_contract()
SCHEMAS = CONTRACT["components"]["schemas"]


def resolved(node: dict[str, Any]) -> dict[str, Any]:
    """What a reference refers to."""
    while "$ref" in node:
        found: Any = CONTRACT
        for part in node["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        node = found
    return node


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """The path, method and description of each operation."""
    for path, item in CONTRACT["paths"].items():
        for method, operation in item.items():
            if method != "parameters":
                yield path, method.upper(), operation


def check(schema: dict[str, Any], value: object) -> None:
    """Raise unless a value is as a schema of the contract says, formats included."""
    jsonschema.Draft202012Validator(
        {**schema, "components": CONTRACT["components"]}, format_checker=jsonschema.FormatChecker()
    ).validate(value)


def component(name: str) -> dict[str, Any]:
    """A schema of the contract by its name."""
    return {"$ref": f"#/components/schemas/{name}"}


def event_schemas() -> dict[str, dict[str, Any]]:
    """The schema of each event's data, by the event's name."""
    each = [branch["properties"] for branch in SCHEMAS["Event"]["then"]["oneOf"]]
    return {properties["event"]["const"]: properties["data"]["contentSchema"] for properties in each}


def parsed(frame: str) -> dict[str, str]:
    """The fields of one server-sent event."""
    return dict(line.split(": ", 1) for line in frame.split("\n"))
