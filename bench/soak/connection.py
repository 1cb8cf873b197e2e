"""One client's connections to the daemon: plain HTTP/1.1, read piece by piece where a client wants to."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Mapping
from typing import Any

from attrs import define, frozen

from ..daemon import PORT

#: Longer than any answer may take: an answer can be asked to wait for 60 s.
PATIENCE_S = 75.0


@frozen
class Answer:
    """One whole answer; `fields` have lower-case names."""

    status: int
    fields: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The document in it."""
        return json.loads(self.body)


@define
class Connection:
    """A connection and the answer under way on it."""

    _reader: asyncio.StreamReader
    _writer: asyncio.StreamWriter
    status: int = 0
    fields: Mapping[str, str] = {}

    @classmethod
    async def open(cls, buffer_bytes: int | None = None) -> Connection:
        """Connect; with `buffer_bytes` the kernel takes no more than that (twice over) ahead of the reader."""
        connected = socket.socket()
        if buffer_bytes is not None:
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
        connected.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connected, ("127.0.0.1", PORT))
        return cls(*await asyncio.open_connection(sock=connected, limit=buffer_bytes or 2**16))

    async def send(self, method: str, path: str, fields: Mapping[str, str], body: bytes = b"") -> int:
        """Send a request and wait for the head of its answer; the status."""
        given = {"Host": "soak", **fields, **({"Content-Length": str(len(body))} if body else {})}
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in given.items()), "", ""]
        self._writer.write("\r\n".join(lines).encode() + body)
        head = await asyncio.wait_for(self._reader.readuntil(b"\r\n\r\n"), PATIENCE_S)
        status, *named = head.decode("latin-1").rstrip().split("\r\n")
        self.status = int(status.split()[1])
        self.fields = {name.lower(): value for name, value in (line.split(": ", 1) for line in named)}
        return self.status

    async def whole(self) -> Answer:
        """The whole answer."""
        parts = [part async for part in self.pieces()]
        return Answer(self.status, self.fields, b"".join(parts))

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body as it comes. Raises `asyncio.IncompleteReadError` when it is cut off."""
        if self.status in (204, 304):
            return
        if self.fields.get("transfer-encoding") != "chunked":
            yield await asyncio.wait_for(self._reader.readexactly(int(self.fields["content-length"])), PATIENCE_S)
            return
        while True:
            size = int(await asyncio.wait_for(self._reader.readuntil(b"\r\n"), PATIENCE_S), 16)
            piece = await asyncio.wait_for(self._reader.readexactly(size + 2), PATIENCE_S)
            if not size:
                return
            yield piece[:-2]

    @property
    def usable(self) -> bool:
        """Whether another request can be sent."""
        return self.fields.get("connection") != "close" and not self._reader.at_eof()

    def close(self) -> None:
        """Leave, whatever is still to come."""
        self._writer.close()
