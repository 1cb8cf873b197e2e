"""The documents of finished traces, kept as bytes while they are asked for: a small LRU bounded in bytes."""

from __future__ import annotations

from collections import OrderedDict

from attrs import define, field, frozen

from .formats import FORMATS


@frozen
class Document:
    """A rendered trace."""

    body: bytes
    content_type: bytes


@define
class Rendered:
    """The documents of finished traces used last, as many as fit into `most` bytes."""

    most: int
    size: int = field(default=0, init=False)
    _documents: OrderedDict[tuple[str, str], Document] = field(factory=OrderedDict, init=False)

    def get(self, trace_id: str, name: str) -> Document | None:
        """The document of a trace in the format `name`."""
        key = trace_id, name
        document = self._documents.get(key)
        if document is not None:
            self._documents.move_to_end(key)
        return document

    def put(self, trace_id: str, name: str, document: Document) -> None:
        """Keep a document, and let go of those used longest ago."""
        self._discard((trace_id, name))
        self._documents[trace_id, name] = document
        self.size += len(document.body)
        while self.size > self.most:
            self._discard(next(iter(self._documents)))

    def forget(self, trace_id: str) -> None:
        """Let go of all documents of a trace."""
        for name in FORMATS:
            self._discard((trace_id, name))

    def _discard(self, key: tuple[str, str]) -> None:
        document = self._documents.pop(key, None)
        if document is not None:
            self.size -= len(document.body)
