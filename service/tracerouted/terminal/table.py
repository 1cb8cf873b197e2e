"""The table of hops, as lines no longer than the terminal is wide. Pure text: no colour, no cursor."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from ..model import HopStats, Responder
from .board import Board, ShownHop
from .words import plain

#: Columns of figures are left out before names get less room than this.
LEAST_NAME = 20
#: Where there is no edge, names are padded to this.
WIDE_NAME = 40

_HOP = 4


class Column(NamedTuple):
    """A column of figures: its head, its width with the space before it, and its text for a hop."""

    head: str
    width: int
    text: Callable[[ShownHop], str]


def _ms(us: float | None) -> str:
    if us is None:
        return ""
    ms = us / 1000
    return f"{ms:.2f}" if ms < 99.995 else f"{ms:.1f}" if ms < 999.95 else f"{ms:.0f}"


def _figure(head: str, read: Callable[[HopStats], float | None]) -> Column:
    return Column(head, 7, lambda hop: _ms(read(hop.stats)))


def _loss(hop: ShownHop) -> str:
    return "" if hop.stats.loss_pct is None else f"{hop.stats.loss_pct:.0f}%"


COLUMNS = (
    Column("Loss", 5, _loss),
    Column("Sent", 5, lambda hop: str(hop.stats.sent or "")),
    Column("Last", 7, lambda hop: _ms(hop.last_us)),
    _figure("Avg", lambda stats: stats.avg_us),
    _figure("Best", lambda stats: stats.min_us),
    _figure("Worst", lambda stats: stats.max_us),
    _figure("StDev", lambda stats: stats.stddev_us),
    _figure("Jitter", lambda stats: stats.jitter_us),
)

#: Which columns go first where there is not the room for all.
_DISPENSABLE = ("Jitter", "StDev", "Worst", "Best", "Sent", "Last", "Avg", "Loss")


class Layout(NamedTuple):
    """Which columns there are, and how long names may be (None: as long as they are)."""

    columns: tuple[Column, ...]
    name: int | None

    @classmethod
    def of(cls, width: int | None) -> Layout:
        """The layout for a terminal of `width` columns; None has no edge."""
        if width is None:
            return cls(COLUMNS, None)
        columns: tuple[Column, ...] = COLUMNS
        for head in _DISPENSABLE:
            if width - _HOP - sum(column.width for column in columns) >= LEAST_NAME:
                break
            columns = tuple(column for column in columns if column.head != head)
        return cls(columns, max(1, width - _HOP - sum(column.width for column in columns)))

    def line(self, hop: str, name: str, figures: Sequence[str]) -> str:
        padded = name.ljust(WIDE_NAME if self.name is None else self.name)
        cells = "".join(text.rjust(column.width) for column, text in zip(self.columns, figures, strict=True))
        return f"{hop:>3} {padded}{cells}".rstrip()


def title(board: Board) -> str:
    """What is traced."""
    request, target = board.request, board.target
    if target is None:
        return plain(f"{request.target}: starting")
    where = target.host if target.host == target.address else f"{target.host} ({target.address})"
    source = f" from {board.source_address}" if board.source_address else ""
    port = f" port {request.filled_port}" if request.filled_port else ""
    return plain(f"{where}{source}, {request.protocol}{port}, {request.size} bytes")


def head(layout: Layout) -> str:
    """The heads of the columns; RTTs are in milliseconds."""
    return layout.line("Hop", "Responder", [column.head for column in layout.columns])


def hop_lines(hop: ShownHop, layout: Layout) -> Iterator[str]:
    """A hop's line, and one for each further responder."""
    figures = [column.text(hop) for column in layout.columns]
    blank = [""] * len(figures)
    if not hop.responders:
        yield layout.line(str(hop.ttl), cut(_unanswered(hop), layout.name), figures)
    for number, responder in enumerate(hop.responders):
        text = _fitted(responder, _notes(hop, responder), layout.name)
        yield layout.line("" if number else str(hop.ttl), text, blank if number else figures)


def table(board: Board, width: int | None) -> list[str]:
    """The whole table."""
    layout = Layout.of(width)
    lines = [cut(title(board), width), head(layout)]
    for hop in board.hops:
        lines += hop_lines(hop, layout)
    return lines


def cut(text: str, width: int | None) -> str:
    """`text`, with a final "~" for what does not fit."""
    return text if width is None or len(text) <= width else text[: width - 1] + "~"


def _unanswered(hop: ShownHop) -> str:
    if hop.errors and not hop.stats.sent:
        return "(no probe could be sent)"
    return "*" if hop.stats.sent else ""


def _notes(hop: ShownHop, responder: Responder) -> str:
    notes = []
    if responder.asn is not None:
        notes.append(f"AS{responder.asn.number}")
    if len(hop.responders) > 1:
        notes.append(f"{responder.received} of {hop.stats.received}")
    if responder.address in hop.refusing:
        notes.append("says unreachable")
    if hop.rate_limited:
        notes.append("limits its answers")
    return plain(f" [{', '.join(notes)}]") if notes else ""


def _fitted(responder: Responder, notes: str, width: int | None) -> str:
    """As much as fits of name, address and notes, the address first to go, then the notes."""
    address, name = plain(responder.address), plain(responder.hostname or responder.address)
    forms = [name + notes, name]
    if responder.hostname is not None:
        forms.insert(0, f"{name} ({address}){notes}")
    return next((form for form in forms if width is None or len(form) <= width), cut(name, width))
