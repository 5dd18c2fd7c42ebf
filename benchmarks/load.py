"""The clients: they count and parse nothing, so that they are never what is waited for.

Many streams and many requests are read by raw asyncio protocols. One stream alone is read by a plain socket, in one of
two ways, for over loopback it is the *server* that pays for waking its client, and that can be more than all the rest:

``awake``: asks again and again, never sleeps. No server ever has to wake it; what is left is the server's own work.
``waiting``: sleeps until there is something, as real clients do. Every write that finds it asleep has to wake it. A
server may also be so fast that the client never gets to sleep, so that costs jump by the price of a wake-up.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterable, Iterator, Sequence
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


def events_of(clients: Iterable[StreamClient]) -> int:
    """How many events all of them have had."""
    return sum(client.events for client in clients)


async def all_ended(clients: Sequence[StreamClient], count: int | None = None) -> None:
    """Wait for the end of streams, and close their connections.

    :raises Lost: one did not have ``count`` events.
    """
    await asyncio.wait_for(asyncio.gather(*(client.ended for client in clients)), PATIENCE)
    for client in clients:
        client.close()
    if count is not None and any(client.events != count for client in clients):
        raise Lost("a stream is not whole")


#: One whole stream is read into this, and looked at afterwards.
_BUFFER = bytearray(32 * 1024 * 1024)


def read_alone(port: int, path: str, events: int, *, awake: bool) -> None:
    """One whole stream of so many events, with nothing else going on.

    :raises Lost: others came, or it did not end.
    """
    view, size = memoryview(_BUFFER), 0
    with socket.create_connection((HOST, port), timeout=PATIENCE) as connection, ahead_of_others():
        connection.sendall(request(path))
        if awake:
            connection.setblocking(False)
        receive = connection.recv_into
        while _BUFFER[size - 5 : size] != END:
            try:
                received = receive(view[size:])
            except BlockingIOError:
                continue
            if not received:
                raise Lost("the connection was lost")
            size += received
    if (found := _BUFFER.count(MARK, 0, size)) != events:
        raise Lost(f"{found} of {events} events came")


@contextlib.contextmanager
def ahead_of_others() -> Iterator[None]:
    """Run as soon as there is anything to do, whoever else uses this processor, where the system lets us."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    except (AttributeError, PermissionError):
        yield
        return
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


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
