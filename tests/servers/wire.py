"""A client's end of a socket that breaks when it is told to: at a given byte, by FIN or by RST."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import Literal

from tests.servers.launch import Server

How = Literal["fin", "rst", "close"]


class Cut(Exception):
    """The connection ended before the response did; for a client, the sign that something is missing."""


class Wire:
    """One connection. ``cut_after``: received bytes after which it breaks, as if no more had ever arrived; None: never.

    ``how``: ``"fin"`` shuts down the sending half and then closes, ``"rst"`` resets, ``"close"`` leaves it to the
    kernel, which resets where something is unread.
    """

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, cut_after: int | None, how: How
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._left = cut_after
        self._how: How = how
        self.received = 0
        self.closed = False

    @classmethod
    async def connect(cls, server: Server, *, cut_after: int | None = None, how: How = "rst") -> Wire:
        name = "127.0.0.1" if server.tls is not None else None
        opening = asyncio.open_connection("127.0.0.1", server.port, ssl=server.tls, server_hostname=name)
        reader, writer = await asyncio.wait_for(opening, 10.0)
        return cls(reader, writer, cut_after, how)

    async def write(self, data: bytes) -> None:
        self._writer.write(data)
        with contextlib.suppress(ConnectionError):
            await self._writer.drain()

    async def read(self) -> bytes:
        """Some bytes; ``b""`` once the server has closed.

        :raises Cut: the byte has come at which the connection was to break, or the server has reset it.
        """
        if self.closed:
            raise Cut
        if self._left == 0:
            self.cut(self._how)
            raise Cut
        try:
            data = await self._reader.read(65536 if self._left is None else min(65536, self._left))
        except (ConnectionError, TimeoutError) as error:
            raise Cut from error
        if self._left is not None:
            self._left -= len(data)
        self.received += len(data)
        return data

    def cut(self, how: How) -> None:
        """Break it now."""
        if self.closed:
            return
        self.closed = True
        plain = self._writer.get_extra_info("socket")
        if how == "rst" and plain is not None:
            with contextlib.suppress(OSError):
                plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._writer.transport.abort()
            return
        if how == "fin" and plain is not None:
            with contextlib.suppress(OSError):
                plain.shutdown(socket.SHUT_WR)
            self._writer.transport.abort()
            return
        self._writer.close()

    async def aclose(self) -> None:
        """Close in good order, if it is still open, and let the loop forget it."""
        if not self.closed:
            self.closed = True
            self._writer.close()
        with contextlib.suppress(Exception):
            await asyncio.wait_for(self._writer.wait_closed(), 2.0)
