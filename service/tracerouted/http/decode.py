"""The body of a POST as a `TraceRequest`, with everything that is wrong with it said at once.

The JSON is read strictly: UTF-8, no NaN or Infinity, no lone surrogates, no member twice (RFC 8259 leaves the meaning
of that open, and readers that disagree about it can be played against each other). Numbers follow JSON Schema: an
integer is any number without a fraction, so `57.0` is 57.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address
from typing import Any, NoReturn, TypeVar

from attrs import fields

from ..model import LEAST_SIZE, Family, InvalidRequest, Problem, Protocol, Range, TraceRequest
from ..naming.hostname import parse_target
from .problems import MALFORMED, ProblemError, invalid

#: Beyond this a JSON number is not an integer every reader agrees on (RFC 8259 section 6).
_MOST_INTEGER = 2**53

_RANGES: dict[str, Range | None] = {a.name: a.metadata.get("range") for a in fields(TraceRequest)}
FIELDS = tuple(_RANGES)

# Fields whose limits depend on others; while one of those cannot be read, only a field's own range is judged.
_DEPENDS = {
    "first_ttl": {"max_ttl"},
    "port": {"protocol"},
    "source_port": {"protocol", "flows"},
    "flows": {"protocol"},
    "size": {"family", "target"},
}


def decode_request(body: bytes, defaults: Mapping[str, Any]) -> TraceRequest:
    """The request in `body`; `defaults` are used where the body is silent, before those of `TraceRequest`.

    Raises `ProblemError`: `malformed` when the body is no JSON, `invalid-request` naming every wrong field.
    """
    document = _json(body)
    if not isinstance(document, dict):
        raise invalid([Problem("", f"must be a JSON object with a target; got {_kind(document)}")])
    values: dict[str, Any] = {}
    problems: list[Problem] = []
    unreadable: set[str] = set()
    for name, value in document.items():
        reader = _READERS.get(name)
        if reader is None:
            problems.append(Problem(name, f"unknown field; the fields are {', '.join(FIELDS)}"))
            continue
        try:
            values[name] = reader(name, value)
        except ValueError as error:
            problems.append(Problem(name, str(error)))
            unreadable.add(name)
    if "target" not in document:
        problems.append(Problem("target", "is required; give a host name or an IP address"))
        unreadable.add("target")
    target = values.pop("target", "")
    problems += _against_address(target, values)
    try:
        request = TraceRequest(target=str(target), **{**defaults, **values})
    except InvalidRequest as error:
        problems += [
            p
            for p in error.problems
            if not (_DEPENDS.get(p.field, set()) & unreadable and _in_range(p.field, values.get(p.field)))
        ]
    if problems:
        raise invalid(problems)
    return request


def _json(body: bytes) -> Any:
    if not body:
        raise ProblemError(MALFORMED, 'the request has no body; send JSON such as {"target": "example.net"}')
    try:
        return json.loads(body.decode("utf-8"), object_pairs_hook=_members, parse_constant=_no_constant)
    except UnicodeError:
        raise ProblemError(MALFORMED, "the body is not UTF-8, or has half of a surrogate pair") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise ProblemError(MALFORMED, f"the body is not JSON: {error.msg} at {where}") from None
    except RecursionError:
        raise ProblemError(MALFORMED, "the body is nested too deeply; a request is one flat object") from None
    except ValueError:  # sys.set_int_max_str_digits
        raise ProblemError(MALFORMED, "the body has a number of thousands of digits") from None


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for name, value in pairs:
        name.encode()  # UnicodeError for lone surrogates, which could not be quoted back
        if isinstance(value, str):
            value.encode()
        if name in members:
            raise ProblemError(MALFORMED, f"the body has {name!r} twice; give every field once")
        members[name] = value
    return members


def _no_constant(name: str) -> NoReturn:
    raise ProblemError(MALFORMED, f"the body is not JSON: {name} is no JSON number")


def _kind(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "an array"
    return "an object"


def _in_range(name: str, value: Any) -> bool:
    bounds = _RANGES[name]
    return bounds is None or value is None or bounds.least <= value <= bounds.most


def _against_address(target: object, values: dict[str, Any]) -> Iterator[Problem]:
    # An address has a family of its own, which the request must not contradict.
    if not isinstance(target, IPv4Address | IPv6Address):
        return
    own = Family.IPV4 if target.version == 4 else Family.IPV6
    asked = values.get("family")
    if asked is not None and asked is not own:
        yield Problem("family", f"the target is an {own} address; leave family out or say {own}")
    size = values.get("size")
    if asked is None and size is not None and _in_range("size", size) and size < LEAST_SIZE[own]:
        yield Problem("size", f"must be at least {LEAST_SIZE[own]} with {own}; got {size}")


def _read_target(name: str, value: Any) -> IPv4Address | IPv6Address | str:
    if not isinstance(value, str):
        raise ValueError(f"must be a string: a host name or an IP address; got {_kind(value)}")
    return parse_target(value)


def _read_integer(name: str, value: Any) -> int:
    bounds = _RANGES[name]
    assert bounds is not None
    wanted = f"must be a whole number from {bounds.least} to {bounds.most}"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{wanted}; got {'a fraction' if isinstance(value, float) else _kind(value)}")
    if abs(value) > _MOST_INTEGER:
        raise ValueError(wanted)
    return value


def _read_port(name: str, value: Any) -> int | None:
    # null as in the request a trace shows, which can be sent again as it is
    return None if value is None else _read_integer(name, value)


def _read_boolean(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"must be true or false; got {_kind(value)}")
    return value


_Word = TypeVar("_Word", bound=StrEnum)


def _word(words: type[_Word], value: Any, others: tuple[str, ...] = ()) -> _Word:
    try:
        return words(value)
    except ValueError:
        choices = ", ".join([*others, *words])
        raise ValueError(f"must be one of {choices}; got {_kind(value)}") from None


def _read_family(name: str, value: Any) -> Family | None:
    return None if value == "any" else _word(Family, value, ("any",))


def _read_protocol(name: str, value: Any) -> Protocol:
    return _word(Protocol, value)


_READERS: dict[str, Callable[[str, Any], Any]] = {
    **dict.fromkeys(FIELDS, _read_integer),
    "target": _read_target,
    "family": _read_family,
    "protocol": _read_protocol,
    "port": _read_port,
    "source_port": _read_port,
    "resolve_names": _read_boolean,
    "lookup_asn": _read_boolean,
}
