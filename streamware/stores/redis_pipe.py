"""One connection to one Redis server, with many commands under way on it.

redis-py makes the connection: address, TLS, authentication, database, name. From then on the transport is ours, since
its command objects cost five times what the commands do (15 µs of CPU an append against 3).

Rules:

1. Replies come in the order of the commands. A caller that has gone leaves its replies to be thrown away.
2. Every wait has a time-out, and where one passes the connection is dropped with all that waits on it: whether those
   commands were taken is unknown, and nothing is ever sent again from here.
3. What went wrong is ``StoreUnavailable``, in words that hold no password.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol, cast

from ..exceptions import StoreUnavailable
from .redis_replies import NOT_ENOUGH, Reply, reply_reader


class Dialled(Protocol):
    """What is used of a redis-py connection."""

    _reader: asyncio.StreamReader | None
    _writer: asyncio.StreamWriter | None

    async def connect(self) -> None: ...


class Pipe(asyncio.Protocol):
    """A connection in use: asked, or, after ``listen``, listened to."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lost = False
        self.on_lost: Callable[[], None] | None = None
        self._on_message: Callable[[Reply], None] | None = None
        self._reader = reply_reader()
        self._writer: asyncio.StreamWriter | None = None  # kept: one that is collected closes its transport
        self._transport: asyncio.WriteTransport | None = None
        self._waiting: deque[tuple[int, asyncio.Future[list[Reply]]]] = deque()
        self._got: list[Reply] = []

    async def take_over(self, connection: Dialled, timeout: float) -> None:
        """Connect, and make the connection ours.

        :raises StoreUnavailable: it could not be made, or not in time.
        """
        from redis.exceptions import RedisError

        try:
            async with asyncio.timeout(timeout):
                await connection.connect()
        except (RedisError, OSError, TimeoutError) as error:
            _abandon(connection)
            raise StoreUnavailable(f"{self.name}: {str(error) or 'no connection in time'}") from error
        except BaseException:
            _abandon(connection)
            raise
        writer = connection._writer
        if writer is None:  # pragma: no cover -- no redis-py known does this
            raise StoreUnavailable(f"{self.name}: not connected")
        connection._reader = connection._writer = None
        self._writer, self._transport = writer, writer.transport
        writer.transport.set_protocol(self)

    # -- asking

    def send(self, packed: bytes, replies: int) -> asyncio.Future[list[Reply]]:
        """Send commands that will have so many replies."""
        answered: asyncio.Future[list[Reply]] = asyncio.get_running_loop().create_future()
        if self.lost or self._transport is None:
            answered.set_exception(StoreUnavailable(f"{self.name}: the connection is lost"))
        else:
            self._waiting.append((replies, answered))
            self._transport.write(packed)
        return answered

    async def ask(self, packed: bytes, replies: int, timeout: float) -> list[Reply]:
        """Send commands, and wait for their replies.

        :raises StoreUnavailable: the connection is lost, or the server did not answer in time.
        """
        try:
            async with asyncio.timeout(timeout):
                return await self.send(packed, replies)
        except TimeoutError as error:
            self.drop()
            raise StoreUnavailable(f"{self.name}: no answer within {timeout:g} s") from error

    def listen(self, on_message: Callable[[Reply], None] | None) -> None:
        """From now on everything that the server sends is a message: the connection is used to subscribe."""
        self._on_message = on_message

    def tell(self, packed: bytes) -> None:
        """Send a command on a connection that is listened to: what it answers comes as a message."""
        if self._transport is not None and not self.lost:
            self._transport.write(packed)

    def drop(self) -> None:
        """Give the connection up at once. Harmless twice."""
        if self._transport is not None:
            self._transport.abort()
        self._lose(None)

    # -- asyncio.Protocol

    def data_received(self, data: bytes) -> None:
        reader, got = self._reader, self._got
        try:
            reader.feed(data)
            while (reply := reader.gets()) is not NOT_ENOUGH:
                got.append(cast("Reply", reply))
                if self._on_message is None and len(got) == self._waiting[0][0]:
                    self._answer()
                    got = self._got
        except (ConnectionError, ValueError, IndexError):  # what comes is no reply to what was asked
            self.drop()
            return
        if self._on_message is not None:
            self._got = []
            for message in got:
                self._on_message(message)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lose(exc)

    # -- within

    def _answer(self) -> None:
        got, self._got = self._got, []
        _, answered = self._waiting.popleft()
        if not answered.done():
            answered.set_result(got)

    def _lose(self, cause: Exception | None) -> None:
        if self.lost:
            return
        self.lost = True
        waiting, self._waiting = self._waiting, deque()
        for _, answered in waiting:
            if not answered.done():
                error = StoreUnavailable(f"{self.name}: the connection was lost")
                error.__cause__ = cause
                answered.set_exception(error)
        if self.on_lost is not None:
            self.on_lost()


def _abandon(connection: Dialled) -> None:
    """Close what there is of a connection that did not come to be."""
    writer, connection._reader, connection._writer = connection._writer, None, None
    if writer is not None:
        writer.transport.abort()


def pack(*words: bytes) -> bytes:
    """One command as it goes on the wire."""
    parts = [b"*%d\r\n" % len(words)]
    parts += [b"$%d\r\n%b\r\n" % (len(word), word) for word in words]
    return b"".join(parts)
