"""Fuzzing: what arbitrary bytes must never do, as one function per door they come in by.

Each module named in `TARGETS` has `run(data)`, which turns bytes into a use of one part of the service and raises
when a promise does not hold. `python -m fuzz` looks for such bytes, guided by coverage (it needs the `fuzz` extra);
the inputs that reach something of their own are kept in `corpus/`, and the tests run them all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from attrs import frozen

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"
CRASHES = HERE / "crashes"


@frozen
class Target:
    """One target: the longest input worth trying, and the packages whose branches guide the search."""

    most_bytes: int
    instrumented: tuple[str, ...]


#: By the name of its module.
TARGETS: Mapping[str, Target] = {
    "replies": Target(2048, ("tracerouted.mtrpacket",)),
    "commands": Target(256, ("tracerouted.mtrpacket",)),
    "requests": Target(1024, ("tracerouted.http", "tracerouted.naming", "tracerouted.model")),
    "edge": Target(2048, ("tracerouted.http", "tracerouted.jobs", "tracerouted.naming", "tracerouted.model")),
}


class Draw:
    """Values taken from the front of some bytes; when those are used up, the least of each kind."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def byte(self) -> int:
        """One byte."""
        (value,) = self.bytes(1) or b"\0"
        return value

    def bytes(self, count: int) -> bytes:
        """Up to `count` bytes."""
        taken = self._data[self._at : self._at + count]
        self._at += len(taken)
        return taken

    def rest(self) -> bytes:
        """All that is left."""
        return self.bytes(len(self._data))

    def chunks(self) -> Iterator[bytes]:
        """All that is left, in pieces whose sizes are drawn first."""
        sizes = [1 + size for size in self.bytes(self.byte() % 8)] or [len(self._data) + 1]
        turn = 0
        while piece := self.bytes(sizes[turn % len(sizes)]):
            yield piece
            turn += 1
