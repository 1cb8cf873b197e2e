"""The service's log: one line on standard error for each event, whatever the event holds.

Lines are JSON objects, or a human form when standard error is a terminal. What an event carries beside its message
becomes fields of the object if it is simple (text, number, boolean, null); every text is bounded and every control
character escaped, since host names, request lines and the words of a child process are other people's input.

What Twisted itself remarks at info level (ports, factories, its main loop) says nothing to an operator: it counts as
debug.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, TextIO

from attrs import frozen
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, globalLogBeginner
from zope.interface import implementer

MESSAGE_CHARACTERS = 2000
FIELD_CHARACTERS = 500
FAILURE_CHARACTERS = 8000
FIELDS = 32

# Ours, and what Twisted's older logging system adds to an event.
_RESERVED = frozenset({"time", "level", "logger", "message", "failure", "format", "isError", "system"})
# Said by Twisted in the name of the factory's own module.
_NOISE = ("Starting factory", "Stopping factory")
_SEVERITY = {level: number for number, level in enumerate(LogLevel.iterconstants())}


def _bounded(text: str, limit: int) -> str:
    text = text if len(text) <= limit else text[: limit - 1] + "…"
    return text.encode("utf-8", "backslashreplace").decode()


def _simple(event: LogEvent) -> Iterator[tuple[str, str | int | float | bool | None]]:
    """The event's own fields that fit into a line as they are."""
    for key, value in event.items():
        if key.startswith("log_") or key in _RESERVED or not key.isidentifier() or not key.isascii():
            continue
        if isinstance(value, str):
            yield key, _bounded(str(value), FIELD_CHARACTERS)
        elif (
            value is None
            or isinstance(value, bool)
            or (isinstance(value, int) and abs(value) < 2**63)
            or (isinstance(value, float) and math.isfinite(value))
        ):
            yield key, value


def effective_level(event: LogEvent) -> Any:
    """The `LogLevel` of an event: its own, except that Twisted's remarks on itself are debug."""
    level = event.get("log_level") or LogLevel.info
    namespace = str(event.get("log_namespace") or "")
    noise = (
        namespace == "log_legacy"
        or namespace.startswith("twisted.")
        or str(event.get("log_format") or "").startswith(_NOISE)
    )
    return LogLevel.debug if noise and level is LogLevel.info else level


def _parts(event: LogEvent) -> tuple[str, str, str, str, str | None]:
    """Time (RFC 3339, UTC, milliseconds), level, logger, message, and the traceback of a failure."""
    moment = datetime.fromtimestamp(event.get("log_time") or 0, UTC).isoformat(timespec="milliseconds")
    failure = event.get("log_failure")
    traceback = None
    if failure is not None:
        # The exception itself stands at the end, so a traceback is cut at its beginning.
        traceback = failure.getTraceback().strip()
        traceback = _bounded(traceback[-FAILURE_CHARACTERS:], FAILURE_CHARACTERS)
    level = effective_level(event)
    return (
        moment.replace("+00:00", "Z"),
        "error" if level is LogLevel.critical else level.name,
        _bounded(str(event.get("log_namespace") or ""), FIELD_CHARACTERS),
        _bounded(formatEvent(event).strip() or (failure.getErrorMessage() if failure else ""), MESSAGE_CHARACTERS),
        traceback,
    )


def json_line(event: LogEvent) -> str:
    """An event as one JSON object in ASCII, without the line end."""
    time, level, logger, message, failure = _parts(event)
    line: dict[str, Any] = {"time": time, "level": level, "logger": logger, "message": message}
    for key, value in _simple(event):
        if len(line) < FIELDS:
            line[key] = value
    if failure is not None:
        line["failure"] = failure
    return json.dumps(line)


def human_line(event: LogEvent) -> str:
    """An event as one line for a person at a terminal, without the line end."""
    time, level, _, message, failure = _parts(event)
    text = f"{time[11:-1]} {level:5} {message}" + (f" | {failure}" if failure else "")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


@implementer(ILogObserver)
@frozen
class LineObserver:
    """Writes events of at least `level` to `stream`, each as one line in one write. It never raises."""

    stream: TextIO
    level: Any
    human: bool = False

    def __call__(self, event: LogEvent) -> None:
        if _SEVERITY[effective_level(event)] < _SEVERITY[self.level]:
            return
        try:
            self.stream.write((human_line if self.human else json_line)(event) + "\n")
            self.stream.flush()
        except (OSError, ValueError):
            return  # standard error is gone or full: there is nowhere left to say so


def start_logging(level: str, stream: TextIO) -> None:
    """From now on write every event of the process to `stream`, Python's warnings included.

    `level` is one of debug, info, warn, error. What was logged before is written first.
    """
    observer = LineObserver(stream, LogLevel.levelWithName(level), human=stream.isatty())
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)
