"""Where a trace is shown: a table redrawn in place, lines in a pipe, or one document at the end."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Protocol, TextIO

from attrs import define, field
from twisted.internet.interfaces import IDelayedCall

from ..model import Trace
from .board import Board
from .table import Layout, cut, head, hop_lines, table, title
from .words import ending, without_controls

#: A table is redrawn at most this often.
REDRAW_S = 0.1

_CLEAR_LINE = "\x1b[K"
_CLEAR_BELOW = "\x1b[J"


class View(Protocol):
    """Shows a board."""

    def changed(self, board: Board) -> None:
        """Something is new on the board."""

    def ended(self, board: Board, trace: Trace) -> None:
        """The trace has ended; nothing follows."""

    def left(self, board: Board, why: str) -> None:
        """The trace is left before its end."""


def terminal_size(stream: TextIO) -> tuple[int, int]:
    """Columns and lines of the terminal behind a stream; 80 and 24 where it does not say."""
    try:
        size = os.get_terminal_size(stream.fileno())
    except OSError:
        return 80, 24
    return size.columns or 80, size.lines or 24


@define
class LiveTable:
    """A table on a terminal.

    Each drawing is one write that goes up to its first line, and rewrites every line over the old one before clearing
    what is left of it, so that nothing blinks.

    The last column stays free: writing there makes some terminals wrap. While it runs, a table taller than the
    terminal shows its last lines; at the end all of it is written.
    """

    _stream: TextIO
    _reactor: Any
    _size: Callable[[], tuple[int, int]]
    _drawn: list[str] = field(factory=list, init=False)
    _due: IDelayedCall | None = field(default=None, init=False)

    def changed(self, board: Board) -> None:
        if self._due is None:
            self._due = self._reactor.callLater(0 if not self._drawn else REDRAW_S, self._redraw, board)

    def ended(self, board: Board, trace: Trace) -> None:
        self._finish(board, ending(trace))

    def left(self, board: Board, why: str) -> None:
        self._finish(board, why)

    def _redraw(self, board: Board) -> None:
        self._due = None
        columns, rows = self._size()
        lines = table(board, columns - 1)
        if len(lines) > rows - 1:
            lines = [*lines[:2], *lines[3 - rows :]] if rows > 3 else lines[:1]
        self._draw(lines, columns, rows)

    def _finish(self, board: Board, last: str) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None
        columns, rows = self._size()
        self._draw([*table(board, columns - 1), *_wrapped(last, columns - 1)], columns, rows)

    def _draw(self, lines: list[str], columns: int, rows: int) -> None:
        # A terminal that became narrower has wrapped what was drawn before.
        height = sum(max(1, -(-len(line) // columns)) for line in self._drawn)
        height = min(height, rows - 1)
        up = f"\x1b[{height}A" if height else ""
        text = "".join(f"{line}{_CLEAR_LINE}\n" for line in lines)
        self._stream.write(f"\r{up}{text}{_CLEAR_BELOW}")
        self._stream.flush()
        self._drawn = lines


@define
class Lines:
    """Lines for a pipe: the hops in order, each as soon as it and all before it are settled."""

    _stream: TextIO
    _next_ttl: int = field(default=0, init=False)
    _titled: bool = field(default=False, init=False)

    def changed(self, board: Board) -> None:
        self._write(board, everything=False)

    def ended(self, board: Board, trace: Trace) -> None:
        self._write(board, everything=True)
        self._say(ending(trace))

    def left(self, board: Board, why: str) -> None:
        self._write(board, everything=True)
        self._say(why)

    def _write(self, board: Board, *, everything: bool) -> None:
        layout = Layout.of(None)
        if not self._titled and (board.source_address or board.hops):
            self._titled = True
            self._say(title(board), head(layout))
        for hop in board.hops:
            if hop.ttl < self._next_ttl:
                continue
            if not (everything or board.settled(hop)):
                return
            self._next_ttl = hop.ttl + 1
            self._say(*hop_lines(hop, layout))

    def _say(self, *lines: str) -> None:
        self._stream.write("".join(f"{line}\n" for line in lines))
        self._stream.flush()


@define
class Whole:
    """One document at the end: what `render` makes of the trace. On a terminal it is kept from commanding it."""

    _stream: TextIO
    _render: Callable[[Trace], bytes]

    def changed(self, board: Board) -> None:
        pass

    def ended(self, board: Board, trace: Trace) -> None:
        text = self._render(trace).decode()
        self._stream.write(without_controls(text) if self._stream.isatty() else text)
        if not text.endswith("\n"):
            self._stream.write("\n")
        self._stream.flush()

    def left(self, board: Board, why: str) -> None:
        pass


def _wrapped(text: str, width: int) -> list[str]:
    """A sentence in lines, broken between words."""
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}" if lines[-1] else word
        if len(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(cut(word, width))
    return [line for line in lines if line]
