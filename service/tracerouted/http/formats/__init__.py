"""The documents a trace can be read as: one registry, in the order of preference.

`?format=` names an entry. An Accept header chooses by media type; of several formats with the same media type the
first one answers to it, the others are reached by name only. A new format is one entry here.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen

from ...model import Trace
from ..wire import encode_trace
from . import atlas, mtr, text

#: Neither program has registered a media type for its document, so these stand for "that document, as made here".
MTR = "application/vnd.tracerouted.mtr+json"
ATLAS = "application/vnd.tracerouted.atlas+json"


@frozen
class Format:
    """A rendering of a trace: its name, its media type, the full Content-Type, and the function that makes it.

    The function raises `problems.ProblemError` (406) for a trace the format has no place for.
    """

    name: str
    media_type: str
    content_type: bytes
    render: Callable[[Trace], bytes]


FORMATS = {
    each.name: each
    for each in (
        Format("json", "application/json", b"application/json", encode_trace),
        Format("text", "text/plain", b"text/plain; charset=utf-8", text.render),
        Format("mtr", MTR, MTR.encode(), mtr.render),
        Format("atlas", ATLAS, ATLAS.encode(), atlas.render),
    )
}

#: Media types on offer, and the format each one gets.
BY_MEDIA_TYPE: dict[str, Format] = {}
for _format in FORMATS.values():
    BY_MEDIA_TYPE.setdefault(_format.media_type, _format)

MEDIA_TYPES = tuple(BY_MEDIA_TYPE)
