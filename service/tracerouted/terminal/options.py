"""The options of `tracerouted trace`, made from the fields of a request and their limits in `model`."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, get_args, get_type_hints

import click
from attrs import Attribute, fields

from ..model import Family, InvalidRequest, TraceRequest
from ..naming.hostname import parse_target

#: What each field is for; its default and limits are the model's.
MEANINGS = {
    "family": "Addresses to choose from, where a name has both.",
    "protocol": "What probes are made of.",
    "port": "Destination port; udp 32434, tcp and sctp 80 if not given.",
    "source_port": "Source port of the first flow; udp only.",
    "flows": "Parallel paths to look for; udp only.",
    "first_ttl": "The first hop to probe.",
    "max_ttl": "The last hop to probe.",
    "probes": "Probes per hop and flow.",
    "interval_ms": "Milliseconds between two probes to one hop.",
    "timeout_ms": "Milliseconds to wait for an answer.",
    "deadline_ms": "Milliseconds for the whole trace.",
    "gap_limit": "Silent hops in a row after which to stop.",
    "size": "Bytes of a probe, with all headers.",
    "tos": "Type of service, or traffic class.",
    "resolve_names": "Look up the names of responders.",
    "lookup_asn": "Look up the autonomous systems of responders, where there is a source for them.",
}

#: The letters that traceroute(8) uses.
_LETTERS = {"first_ttl": "-f", "max_ttl": "-m", "probes": "-q", "port": "-p", "protocol": "-P"}

_NO_LETTERS = {"resolve_names": "-n"}

_FAMILY_LETTERS = {"-4": Family.IPV4, "-6": Family.IPV6}

Command = Callable[..., Any]


def request_options(command: Command) -> Command:
    """A decorator giving a command one option per field of `TraceRequest` but `target`, None where not given."""
    hints = get_type_hints(TraceRequest)
    for attribute in reversed(fields(TraceRequest)):
        if attribute.name != "target":
            command = _option(attribute, hints[attribute.name])(command)
    return command


def option(name: str) -> str:
    """The option of a field."""
    return f"--{name.replace('_', '-')}"


def read_request(target: str, options: Mapping[str, Any]) -> tuple[TraceRequest, dict[str, Any]]:
    """The request, and those of its fields that were given. Raises `click.UsageError` naming what is wrong."""
    given = {name: value for name, value in options.items() if name in MEANINGS and value is not None}
    if "family" in given:
        given["family"] = None if given["family"] == "any" else Family(given["family"])
    try:
        return TraceRequest(target=str(parse_target(target)), **given), given
    except InvalidRequest as wrong:
        said = "; ".join(f"{option(problem.field)} {problem.detail}" for problem in wrong.problems)
        raise click.UsageError(said) from None
    except ValueError as wrong:
        raise click.UsageError(f"TARGET {wrong}") from None


def _option(attribute: Attribute[Any], hint: Any) -> Callable[[Command], Command]:
    name = attribute.name
    letters = [_LETTERS[name]] if name in _LETTERS else []
    default = "" if attribute.default is None else f"  [default: {attribute.default}]"
    kinds = get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    words = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, StrEnum)), None)
    if hint is bool:
        flag = f"{option(name)}/{option(f'no_{name}')}"
        default = f"  [default: {'yes' if attribute.default else 'no'}]"
        letters = [f" /{_NO_LETTERS[name]}"] if name in _NO_LETTERS else []
        return click.option(flag, *letters, name, default=None, help=MEANINGS[name] + default)
    if words is None:
        bounds = attribute.metadata["range"]
        return click.option(
            *letters,
            option(name),
            name,
            type=click.IntRange(bounds.least, bounds.most),
            metavar="N",
            help=MEANINGS[name] + default,
        )
    choices = [*(["any"] if type(None) in kinds else []), *(word.value for word in words)]
    choose = click.option(
        *letters,
        option(name),
        name,
        type=click.Choice(choices) if type(None) in kinds else _Words(words),
        metavar="|".join(choices),
        help=MEANINGS[name] + (default or "  [default: any]"),
    )
    if words is not Family:
        return choose

    def both(command: Command) -> Command:
        for letter, family in reversed(_FAMILY_LETTERS.items()):
            command = click.option(
                letter, name, flag_value=family.value, default=None, help=f"The same as {option(name)} {family}."
            )(command)
        return choose(command)

    return both


class _Words(click.Choice[Any]):
    """A choice that gives members of an enumeration."""

    def __init__(self, words: type[StrEnum]) -> None:
        super().__init__([word.value for word in words])
        self._words = words

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Any:
        return self._words(super().convert(value, parameter, context))
