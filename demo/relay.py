"""A relay of TCP connections out of one network namespace into another.

A socket belongs to the network namespace it was made in, also when the process that holds it has moved to another.
So a process that listens, moves, and then connects has one foot in each, and hands bytes on in between. What arrives
is passed on at once (event streams work); a side that does not read holds the other up, not the relay's memory.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress

MOST_READ = 65536

Address = tuple[str, int]


async def relay(listener: socket.socket, to: Address) -> asyncio.Server:
    """Accept connections on `listener` and connect each to `to`, until the server is closed."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(*to)
        except OSError:
            writer.transport.abort()
            return
        try:
            await asyncio.gather(_pass_on(reader, far_writer), _pass_on(far_reader, writer))
        except OSError:
            # One side is gone without a farewell: so the other cannot take a part for the whole.
            writer.transport.abort()
            far_writer.transport.abort()
        finally:
            writer.close()
            far_writer.close()

    return await asyncio.start_server(connected, sock=listener)


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Everything from `reader` to `writer`, and then its end. Raises OSError where a connection breaks."""
    while data := await reader.read(MOST_READ):
        writer.write(data)
        await writer.drain()
    with suppress(OSError):  # it may have ended meanwhile
        writer.write_eof()
