"""Log lines: one per event, whatever is in it."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from typing import Any

import pytest
from twisted.internet.protocol import Factory
from twisted.logger import Logger, LogLevel, LogPublisher
from twisted.python.failure import Failure

from tracerouted.logs import LineObserver, human_line, json_line


class Sink(io.StringIO):
    """Keeps each write apart."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[str] = []

    def write(self, text: str) -> int:
        self.writes.append(text)
        return len(text)


def logger(sink: Any, level: LogLevel = LogLevel.debug, human: bool = False) -> Logger:
    return Logger(namespace="tracerouted.test", observer=LineObserver(sink, level, human))


def lines(sink: Sink) -> list[dict[str, Any]]:
    return [json.loads(text) for text in sink.writes]


def test_an_event_is_one_object() -> None:
    """Time in UTC with milliseconds, level, logger, message, then the event's own fields."""
    event = {
        "log_time": 1_700_000_000.0004,
        "log_level": LogLevel.warn,
        "log_namespace": "tracerouted.mtrpacket",
        "log_format": "{family} is not ready: {reason}",
        "family": "ipv4",
        "reason": "no capability",
        "attempt": 3,
        "ratio": 0.5,
        "again": True,
        "nobody": None,
    }

    assert list(json.loads(json_line(event)).items()) == [
        ("time", "2023-11-14T22:13:20.000Z"),
        ("level", "warn"),
        ("logger", "tracerouted.mtrpacket"),
        ("message", "ipv4 is not ready: no capability"),
        ("family", "ipv4"),
        ("reason", "no capability"),
        ("attempt", 3),
        ("ratio", 0.5),
        ("again", True),
        ("nobody", None),
    ]


def test_only_simple_fields_are_written() -> None:
    """Objects, numbers JSON cannot hold, and names that are ours do not become fields."""
    sink = Sink()

    logger(sink).info(
        "{thing}", thing=object, nan=float("nan"), huge=10**5000, items=[1], time="x", fine=1, isError=1
    )

    assert set(lines(sink)[0]) == {"time", "level", "logger", "message", "fine"}


@pytest.mark.parametrize("human", [False, True])
@pytest.mark.parametrize(
    "hostile",
    ["a\nb", "\x1b[31m\x07", "\x85\u2028\u2029", "\u202egpj.exe", "\ud800", "\0", '"}\n{"level":"error"', "é 界 🌍"],
)
def test_hostile_text_stays_in_its_line(hostile: str, human: bool) -> None:
    """Whatever a stranger's text holds: one write, one line end, nothing a terminal would obey."""
    sink = Sink()

    logger(sink, human=human).info("name {name}", name=hostile)

    (text,) = sink.writes
    assert text.endswith("\n")
    assert text[:-1].isprintable()
    assert len(text[:-1].splitlines()) == 1
    if not human:
        assert json.loads(text)["name"] == hostile.encode("utf-8", "backslashreplace").decode()


def test_lines_are_bounded() -> None:
    """A megabyte of text, or a thousand fields, give a line of a few kilobytes."""
    sink = Sink()

    logger(sink).info("{text}", text="x" * 1_000_000, **{f"field{n}": "y" * 10_000 for n in range(1000)})

    assert len(sink.writes[0]) < 20_000
    assert lines(sink)[0]["message"].endswith("x…")


def test_a_failure_is_one_field() -> None:
    """A traceback is text inside the line; cut, it keeps the exception at its end."""
    sink = Sink()

    def deep(levels: int) -> None:
        if levels:
            deep(levels - 1)
        raise RuntimeError("the pipe\nis gone")

    try:
        deep(500)
    except RuntimeError:
        logger(sink).failure("reading failed", Failure())

    (line,) = lines(sink)
    assert line["level"] == "error"
    assert line["message"] == "reading failed"
    assert line["failure"].endswith("RuntimeError: the pipe\nis gone")
    assert len(line["failure"]) <= 8000


def test_an_event_that_cannot_be_formatted_is_still_a_line() -> None:
    """A mistake in a log call shows up as a line and harms nothing."""

    class Hostile:
        def __str__(self) -> str:
            raise RuntimeError("no")

        __repr__ = __str__

    sink = Sink()

    logger(sink).info("{missing} {0", hostile=1)
    logger(sink).info("{hostile}", hostile=Hostile())

    assert len(lines(sink)) == 2


@pytest.mark.parametrize(("level", "expected"), [("debug", 5), ("info", 4), ("warn", 3), ("error", 2)])
def test_level(level: str, expected: int) -> None:
    """Only events of at least the level are written; critical is written as error."""
    sink = Sink()
    log = logger(sink, LogLevel.levelWithName(level))

    for write in (log.debug, log.info, log.warn, log.error, log.critical):
        write("x")

    assert len(sink.writes) == expected
    assert lines(sink)[-1]["level"] == "error"


def test_twisted_remarks_are_debug() -> None:
    """Ports, factories and the main loop are not news; an old-style error still is."""
    sink = Sink()
    observer = LineObserver(sink, LogLevel.info)

    for event in (
        {"log_namespace": "log_legacy", "log_format": "{log_text}", "log_text": "Site starting on 8080"},
        {
            "log_namespace": "tracerouted.http.site",
            "log_format": "Starting factory {factory!r}",
            "factory": Factory(),
        },
        {"log_namespace": "twisted.internet.base", "log_format": "Main loop terminated."},
    ):
        observer({"log_time": 0.0, "log_level": LogLevel.info, **event})
    observer(
        {"log_time": 0.0, "log_level": LogLevel.critical, "log_namespace": "log_legacy", "log_format": "Unhandled"}
    )

    assert [line["message"] for line in lines(sink)] == ["Unhandled"]


def test_human_form() -> None:
    """At a terminal: time of day, level, message, and a traceback on the same line."""
    event = {
        "log_time": 1_700_000_000.25,
        "log_level": LogLevel.warn,
        "log_namespace": "n",
        "log_format": "two\nlines",
    }

    assert human_line(event) == "22:13:20.250 warn  two\\nlines"


def test_a_closed_stream_is_survived() -> None:
    """When standard error is gone, logging goes nowhere and raises nothing."""

    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    published: list[Any] = []
    publisher = LogPublisher(LineObserver(Gone(), LogLevel.debug), published.append)

    publisher({"log_time": 0.0, "log_level": LogLevel.info, "log_format": "x"})

    assert len(published) == 1


def test_a_process_logs_nothing_but_objects() -> None:
    """Warnings, old-style messages, unhandled Deferred errors, events before the start: all are single objects."""
    program = """if True:
        import sys, warnings
        from twisted.internet.defer import fail
        from twisted.logger import Logger
        from twisted.python import log
        Logger().info("early")
        from tracerouted.logs import start_logging
        start_logging("debug", sys.stderr)
        warnings.warn("old\\nthing")
        log.msg("two\\nlines")
        log.err(ValueError("bad"), "why")
        fail(RuntimeError("nobody looked"))
        import gc; gc.collect()
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)

    parsed = [json.loads(line) for line in done.stderr.splitlines()]
    messages = " / ".join(line["message"] for line in parsed)
    for expected in ("early", "old", "two", "why", "Unhandled error in Deferred"):
        assert expected in messages
    assert any("nobody looked" in line.get("failure", "") for line in parsed)
