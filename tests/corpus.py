"""The corpus of raw requests in `http/corpus/*.toml`, and what holds for every answer to any of them.

A file is a list of cases:

    [[case]]
    name = "..."
    why = "..."                 what promises it: a section of an RFC, or what would go wrong
    send = "..."                the bytes sent: a character up to U+00FF is the byte of that number
    answers = ["400 malformed"] each answer's status and problem type; "HEAD" where it has no content for being to a
                                HEAD; "200 * 3" is three of them
    each = ["...", "..."]       a case for each of these, which stands in `send` for <each>
    size = true                 the number of bytes of <each> stands for <size>
    submitted = 1               how many traces were begun (default: none)
    fields = { allow = "GET" }  fields each answer has
    absent = ["set-cookie"]     fields no answer has
    page = true                 the answers may be pages, of HTML
    only = "daemon"             a resource that only the whole daemon has

`<xyz*1000>` stands for a thousand times xyz, and `<name>` for a text of the file's table `fragments`.

Each case is followed by a request that asks to close: it is answered unless the last answer said that it is the last.
So whatever of a case was taken for a request, or left lying in a buffer, shows.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from socket import socket
from typing import Any

from attrs import frozen

from fake_http import Answer, parse_answer

FILES = sorted((Path(__file__).parent / "http" / "corpus").glob("*.toml"))
LAST = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"

_REPEATED = re.compile(r"<(.+?)\*([0-9]+)>", re.DOTALL)
_KEYS = {"name", "why", "send", "answers", "each", "size", "submitted", "fields", "absent", "page", "only"}


@frozen
class Expected:
    """One answer: its status, its problem type ("" for none named), whether it is one to a HEAD."""

    status: int
    type: str
    head: bool


@frozen
class Case:
    """One case; see the module."""

    id: str
    data: bytes
    expected: tuple[Expected, ...]
    submitted: int
    fields: dict[str, str]
    absent: tuple[str, ...]
    page: bool
    only: str | None

    @property
    def stands_alone(self) -> bool:
        """Whether it neither asks for a trace that is there only where a test has made it, nor begins one."""
        return not self.submitted and b"/trace00" not in self.data


def read_cases() -> list[Case]:
    """All cases."""
    return [case for file in FILES for case in _read(file)]


def _read(file: Path) -> Iterator[Case]:
    document = tomllib.loads(file.read_text())
    fragments = document.get("fragments", {})
    for entry in document["case"]:
        assert set(entry) <= _KEYS, entry
        assert entry["why"], entry
        for number, each in enumerate(entry.get("each", [None])):
            values = fragments if each is None else {**fragments, "each": each}
            if entry.get("size"):
                values["size"] = str(len(_repeated(each)))
            text = entry["send"]
            for _ in range(2):  # a value may hold fragments
                for name, value in values.items():
                    text = text.replace(f"<{name}>", value)
            yield Case(
                id=f"{file.stem}: {entry['name']}" + ("" if each is None else f" {number}: {each[:30]!a}"),
                data=_repeated(text).encode("latin-1"),
                expected=tuple(one for words in entry["answers"] for one in _expected(words)),
                submitted=entry.get("submitted", 0),
                fields=entry.get("fields", {}),
                absent=tuple(entry.get("absent", ())),
                page=entry.get("page", False),
                only=entry.get("only"),
            )


def _repeated(text: str) -> str:
    return _REPEATED.sub(lambda match: match[1] * int(match[2]), text)


def _expected(words: str) -> list[Expected]:
    one, _, times = words.partition(" * ")
    status, _, kind = one.partition(" ")
    expected = Expected(int(status), "" if kind == "HEAD" else kind, kind == "HEAD")
    return [expected] * int(times or 1)


def exchange(client: socket, data: bytes, turn: Callable[[], None]) -> bytes:
    """What a server sends back until it closes its side. `client` does not block; `turn` lets the server go on."""
    received = []
    while True:
        try:
            if data:
                data = data[client.send(data) :]
        except BlockingIOError:
            pass
        except OSError:  # it has gone for good
            data = b""
        turn()
        try:
            piece = client.recv(65_536)
        except BlockingIOError:
            continue
        if not piece:
            return b"".join(received)
        received.append(piece)


def judge(case: Case, received: bytes) -> None:
    """Whether what a connection received, to its end, is what the case and the service promise."""
    answers: list[Answer] = []
    expected = [*case.expected]
    while received:
        head = bool(expected) and expected[0].head
        answer, received = parse_answer(received, "HEAD" if head else "GET")
        if expected:
            _compare(case, expected.pop(0), answer, head)
            answers.append(answer)
        else:  # the request that follows every case
            assert "close" != answers[-1].headers.get("connection")
            assert (200, {"status": "ok"}, b"") == (answer.status, answer.json, received)
            return
    assert [] == expected
    assert "close" == answers[-1].headers.get("connection")


def _compare(case: Case, expected: Expected, answer: Answer, head: bool) -> None:
    assert expected.status == answer.status, answer
    if answer.status == 100:
        assert {} == answer.headers
        return
    assert case.fields.items() <= answer.headers.items()
    assert not answer.headers.keys() & {"server", "x-powered-by", *case.absent}
    assert "nosniff" == answer.headers["x-content-type-options"]
    assert "no-referrer" == answer.headers["referrer-policy"]
    assert re.match("default-src '(self|none)'", answer.headers["content-security-policy"])
    assert re.fullmatch("[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9:]{8} GMT", answer.headers["date"])
    kind = answer.headers.get("content-type", "")
    if not case.page:
        assert "html" not in kind
        assert b"<html" not in answer.body.lower()
    assert b"Traceback" not in answer.body
    if answer.status >= 400:
        assert ("application/problem+json", "no-store") == (kind, answer.headers["cache-control"])
    if answer.status >= 400 and not head:
        document: dict[str, Any] = json.loads(answer.body)
        assert {"type", "title", "status", "detail", "errors"} == document.keys() - {"instance"}
        assert answer.status == document["status"]
        assert answer.body.isascii()
    if expected.type:
        assert expected.type == answer.type
