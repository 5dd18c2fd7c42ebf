"""A bad network: a TCP proxy that cuts every connection after a random time, so that reconnecting can be watched.

Half of the cuts are a reset, half an ordinary close, which over chunked HTTP is a body cut short. Either falls into the
middle of an event, where there is one.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from types import TracebackType

LINGER_ZERO = struct.pack("ii", 1, 0)


class FlakyProxy:
    """Passes what arrives at ``front`` on to ``target``, each connection for ``seconds`` give or take a half."""

    def __init__(self, front: socket.socket, target: tuple[str, int], seconds: float, seed: int | None = None) -> None:
        self.cuts = 0
        self._front = front
        self._target = target
        self._seconds = seconds
        self._random = random.Random(seed)
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> FlakyProxy:
        self._server = await asyncio.start_server(self._connected, sock=self._front)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None:  # start_server runs this in a task of its own
            return
        self._connections.add(task)
        try:
            await self._pass(reader, writer)
        finally:
            self._connections.discard(task)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            inner_reader, inner_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.close()
            return
        ends = (writer, inner_writer)
        up = asyncio.create_task(copy(reader, inner_writer))
        try:
            with contextlib.suppress(OSError):
                if await self._pass_back(inner_reader, writer):
                    self.cuts += 1
                    if self._random.random() < 0.5:
                        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO)
        finally:
            up.cancel()
            await asyncio.gather(up, return_exceptions=True)
            for end in ends:
                end.close()
                with contextlib.suppress(OSError):
                    await end.wait_closed()

    async def _pass_back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Until the server is through (False) or the time is up (True): then what comes next is torn in two."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._seconds * self._random.uniform(0.5, 1.5)
        while True:
            try:
                async with asyncio.timeout_at(until + 1.0):
                    data = await reader.read(65536)
            except TimeoutError:
                return True  # silent for a second beyond its time: cut between two events
            if not data:
                return False
            over = loop.time() >= until
            writer.write(data[: len(data) // 2] if over else data)
            await writer.drain()
            if over:
                return True


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Until either side has had enough."""
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
