"""HTTP clients for tests, written against the wire: they stop reading, send halves, and break off at any byte.

``ask`` is the way in: one request over a connection of its own, HTTP/1.1 or HTTP/2 as the server speaks it. A body's
end is told from a break: ``read`` returns ``b""`` for the first and raises ``Cut`` for the second.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Protocol

from tests.servers.http2 import Http2
from tests.servers.launch import Server
from tests.servers.wire import Cut, How, Wire

Headers = Iterable[tuple[str, str]]
PATIENCE = 15.0

#: As a browser's EventSource asks, and as a script's fetch does.
EVENTSOURCE = (("accept", "text/event-stream"), ("cache-control", "no-cache"))
FETCH = (("accept", "text/event-stream"), ("content-type", "application/json"))


class Exchange(Protocol):
    """One request and its response. ``status`` and ``headers`` (lower-case names) are there after ``head``."""

    status: int
    headers: dict[str, str]

    @property
    def broken(self) -> bool:
        """Whether this side has broken it off."""

    async def head(self) -> None:
        """Wait for the status and the headers.

        :raises Cut: the connection ended before they came.
        """

    async def read(self) -> bytes:
        """Some of the body; ``b""`` at its proper end.

        :raises Cut: the connection ended before the body did.
        """

    def cut(self, how: How) -> None:
        """Break the connection now."""

    async def aclose(self) -> None:
        """Close in good order what is still open."""


class Http1:
    """An exchange over HTTP/1.1."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.status = 0
        self.headers: dict[str, str] = {}
        self._buffer = bytearray()
        self._bodiless = False
        self._chunked = False
        self._left: int | None = None  # bytes of the body, or of the chunk, that are still to come
        self._ended = False

    @property
    def broken(self) -> bool:
        return self.wire.closed

    async def begin(
        self, method: str, target: str, headers: Headers = (), body: bytes = b"", *, part: int | None = None
    ) -> None:
        """Send the request, or its first ``part`` bytes only."""
        lines = [f"{method} {target} HTTP/1.1", "host: 127.0.0.1", *(f"{name}: {value}" for name, value in headers)]
        if body or method in ("POST", "PUT"):
            lines.append(f"content-length: {len(body)}")
        request = "\r\n".join([*lines, "", ""]).encode("latin-1") + body
        self._bodiless = method == "HEAD"
        await self.wire.write(request if part is None else request[:part])

    async def head(self) -> None:
        while True:
            head = await self._until(b"\r\n\r\n")
            first, *lines = head.decode("latin-1").split("\r\n")
            self.status = int(first.split(" ", 2)[1])
            if self.status >= 200:
                break
        pairs = (line.partition(":") for line in lines if line)
        self.headers = {name.lower(): value.strip() for name, _, value in pairs}
        self._chunked = "chunked" in self.headers.get("transfer-encoding", "")
        if self._bodiless or self.status in (204, 304):
            self._ended = True
        elif not self._chunked and "content-length" in self.headers:
            self._left = int(self.headers["content-length"])
            self._ended = self._left == 0

    async def read(self) -> bytes:
        if self._ended:
            return b""
        if self._chunked and not self._left:
            await self._next_chunk()
            if self._ended:
                return b""
        if not self._buffer:
            data = await self._some()
            if not data:
                if self._left is None:  # neither a length nor chunks: the end of the connection is that of the body
                    self._ended = True
                    return b""
                raise Cut("the connection ended within the body")
            self._buffer += data
        taken = bytes(self._buffer if self._left is None else self._buffer[: self._left])
        del self._buffer[: len(taken)]
        if self._left is not None:
            self._left -= len(taken)
            self._ended = not self._chunked and self._left == 0
        return taken

    def cut(self, how: How) -> None:
        self.wire.cut(how)

    async def aclose(self) -> None:
        await self.wire.aclose()

    async def _next_chunk(self) -> None:
        if self._left == 0:
            await self._until(b"\r\n")  # what ends the chunk before
        self._left = int((await self._until(b"\r\n")).split(b";")[0], 16)
        if self._left == 0:
            while await self._until(b"\r\n"):
                pass
            self._ended = True

    async def _until(self, mark: bytes) -> bytes:
        while (found := self._buffer.find(mark)) < 0:
            data = await self._some()
            if not data:
                raise Cut("the connection ended within a head or between two chunks")
            self._buffer += data
        line = bytes(self._buffer[:found])
        del self._buffer[: found + len(mark)]
        return line

    async def _some(self) -> bytes:
        async with asyncio.timeout(PATIENCE):
            return await self.wire.read()


async def begin(
    server: Server,
    method: str,
    target: str,
    *,
    headers: Headers = (),
    body: bytes = b"",
    cut_after: int | None = None,
    how: How = "rst",
) -> Exchange:
    """Connect and send a request; nothing of the response has been waited for. Close it with ``aclose``."""
    wire = await Wire.connect(server, cut_after=cut_after, how=how)
    if server.kind.http2:
        connection = Http2(wire)
        return await connection.begin(method, target, headers, body)
    exchange = Http1(wire)
    await exchange.begin(method, target, headers, body)
    return exchange


@asynccontextmanager
async def ask(
    server: Server,
    method: str,
    target: str,
    *,
    headers: Headers = (),
    body: bytes = b"",
    cut_after: int | None = None,
    how: How = "rst",
) -> AsyncIterator[Exchange]:
    """A request whose status and headers have come. ``cut_after`` and ``how`` as ``Wire`` has them.

    :raises Cut: the connection ended before that.
    """
    exchange = await begin(server, method, target, headers=headers, body=body, cut_after=cut_after, how=how)
    try:
        await exchange.head()
        yield exchange
    finally:
        await exchange.aclose()


async def whole(exchange: Exchange) -> bytes:
    """The rest of the body.

    :raises Cut: it has no proper end.
    """
    parts = []
    while data := await exchange.read():
        parts.append(data)
    return b"".join(parts)


async def fetch(
    server: Server, method: str, target: str, *, headers: Headers = (), body: bytes = b""
) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and whole body of one request."""
    async with ask(server, method, target, headers=headers, body=body) as exchange:
        return exchange.status, exchange.headers, await whole(exchange)


async def until(ask_for: Callable[[], Awaitable[object]], wanted: object) -> None:
    """Ask until the answer is ``wanted``."""
    async with asyncio.timeout(5):
        while await ask_for() != wanted:
            await asyncio.sleep(0.02)
