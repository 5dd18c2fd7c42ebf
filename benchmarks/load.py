"""The client: raw asyncio protocols that count and parse nothing, so that they are never what is waited for."""

from __future__ import annotations

import asyncio
from typing import cast

HOST = "127.0.0.1"
#: In every event once and nowhere else (see ``servers.PAYLOADS``): one byte is never split over two reads.
MARK = b"{"
#: The last chunk of a chunked body.
END = b"0\r\n\r\n"
#: Longest that anything here is waited for.
PATIENCE = 120.0


class Lost(Exception):
    """Something did not arrive, or came twice."""


def request(path: str, accept: str = "text/event-stream", **headers: str) -> bytes:
    lines = [f"GET {path} HTTP/1.1", f"Host: {HOST}", f"Accept: {accept}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


class StreamClient(asyncio.Protocol):
    """One event stream. ``events`` and ``size`` count what has come; ``begun`` is done at the first event, ``ended`` at
    the end of the body."""

    def __init__(self, head: bytes) -> None:
        loop = asyncio.get_running_loop()
        self.head = head
        self.events = 0
        self.size = 0
        self.opening = b""
        self.begun: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()
        self.transport: asyncio.Transport | None = None
        self._tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by class
        self.transport.write(self.head)

    def data_received(self, data: bytes) -> None:
        self.events += data.count(MARK)
        self.size += len(data)
        if not self.begun.done():
            self.opening += data
            if self.events:
                self.begun.set_result(None)
        if len(data) < 5:
            data = self._tail + data
        if data.endswith(END) and not self.ended.done():
            self.ended.set_result(None)
        self._tail = data[-4:]

    def connection_lost(self, exc: Exception | None) -> None:
        for future in (self.begun, self.ended):
            if not future.done():
                future.set_exception(Lost("the connection was lost"))
                future.exception()  # seen: not everybody waits for both

    def header(self, name: str) -> str:
        for line in self.opening.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n"):
            key, _, value = line.partition(":")
            if key.lower() == name:
                return value.strip()
        raise Lost(f"no {name} in the answer")

    def close(self) -> None:
        if self.transport is not None:
            self.transport.abort()


async def open_stream(port: int, path: str, **headers: str) -> StreamClient:
    """Connect and ask."""
    loop = asyncio.get_running_loop()
    _, client = await loop.create_connection(lambda: StreamClient(request(path, **headers)), HOST, port)
    return client


async def open_streams(port: int, path: str, count: int, *, at_once: int = 100) -> list[StreamClient]:
    """``count`` streams, each of which has had its first event."""
    clients: list[StreamClient] = []
    while len(clients) < count:
        more = min(at_once, count - len(clients))
        batch = await asyncio.gather(*(open_stream(port, path) for _ in range(more)))
        await asyncio.wait_for(asyncio.gather(*(client.begun for client in batch)), PATIENCE)
        clients += batch
    return clients


async def read_stream(port: int, path: str, events: int, **headers: str) -> StreamClient:
    """One whole stream of so many events.

    :raises Lost: others came.
    """
    client = await open_stream(port, path, **headers)
    try:
        await asyncio.wait_for(client.ended, PATIENCE)
    finally:
        client.close()
    if client.events != events:
        raise Lost(f"{client.events} of {events} events came")
    return client


class RequestClient(asyncio.Protocol):
    """One connection that asks again as soon as it was answered, ``count`` times."""

    def __init__(self, head: bytes, count: int) -> None:
        self.head = head
        self.left = count
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.transport: asyncio.Transport | None = None
        self._answer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by class
        self.transport.write(self.head)

    def data_received(self, data: bytes) -> None:
        self._answer += data
        if not self._answer.endswith(b"hello world"):
            return
        self._answer = b""
        self.left -= 1
        assert self.transport is not None
        if self.left:
            self.transport.write(self.head)
        elif not self.ended.done():
            self.ended.set_result(None)
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_exception(Lost("the connection was lost"))
            self.ended.exception()


async def make_requests(port: int, path: str, *, connections: int, each: int, accept: str) -> None:
    """``each`` requests on each of so many kept-alive connections."""
    loop = asyncio.get_running_loop()
    head = request(path, accept)
    pairs = await asyncio.gather(
        *(loop.create_connection(lambda: RequestClient(head, each), HOST, port) for _ in range(connections))
    )
    await asyncio.wait_for(asyncio.gather(*(client.ended for _, client in pairs)), PATIENCE)
