"""An HTTP/2 client on the ``h2`` library: several requests over one connection, each of which can break off alone.

Flow control is the reader's: a window opens again as a response is read, so a client that stops reading is silent on
the wire too.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Iterable

from h2 import events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError

from tests.servers.wire import Cut, How, Wire

PATIENCE = 15.0


class Http2:
    """One connection. Its pump runs from the first request on until the connection ends."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self._h2 = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self._exchanges: dict[int, Http2Exchange] = {}
        self._pump: asyncio.Task[None] | None = None
        self.gone = False

    async def begin(
        self, method: str, target: str, headers: Iterable[tuple[str, str]] = (), body: bytes = b"", *, end: bool = True
    ) -> Http2Exchange:
        """Send a request, with ``end=False`` one whose body goes on; its response can be waited for."""
        if self._pump is None:
            self._h2.initiate_connection()
        number = self._h2.get_next_available_stream_id()
        exchange = self._exchanges[number] = Http2Exchange(self, number)
        pseudo = [(":method", method), (":scheme", "https"), (":authority", "127.0.0.1"), (":path", target)]
        self._h2.send_headers(number, [*pseudo, *headers], end_stream=not body)
        if body:
            self._h2.send_data(number, body, end_stream=end)  # tests' bodies fit the first window
        await self.flush()
        if self._pump is None:
            self._pump = asyncio.create_task(self._run(), name="http2 client")
        return exchange

    async def flush(self) -> None:
        data = self._h2.data_to_send()
        if data and not self.wire.closed:
            await self.wire.write(data)

    async def reset(self, number: int) -> None:
        """RST_STREAM, CANCEL: the response is not wanted any more, the connection stays."""
        with contextlib.suppress(ProtocolError):
            self._h2.reset_stream(number, ErrorCodes.CANCEL)
        await self.flush()
        self.forget(number)

    async def goaway(self) -> None:
        """GOAWAY, and the socket's end."""
        with contextlib.suppress(ProtocolError):
            self._h2.close_connection()
        await self.flush()
        await self.aclose()

    async def acknowledge(self, number: int, length: int) -> None:
        """Open the windows again by what was read."""
        with contextlib.suppress(ProtocolError, KeyError):
            self._h2.acknowledge_received_data(length, number)
        await self.flush()

    def forget(self, number: int) -> None:
        exchange = self._exchanges.pop(number, None)
        if exchange is not None:
            exchange.fail()

    async def aclose(self) -> None:
        self._gone()
        if self._pump is not None:
            self._pump.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._pump
        await self.wire.aclose()

    async def _run(self) -> None:
        try:
            while data := await self.wire.read():
                for event in self._h2.receive_data(data):
                    self._handle(event)
                await self.flush()
        except (Cut, ProtocolError):
            pass
        finally:
            self._gone()

    def _handle(self, event: events.Event) -> None:
        exchange = self._exchanges.get(getattr(event, "stream_id", 0) or 0)
        if isinstance(event, events.ConnectionTerminated):
            self._gone()
        elif exchange is None:
            if isinstance(event, events.DataReceived):  # of a stream that was reset: the connection's window is shared
                self._h2.increment_flow_control_window(event.flow_controlled_length)
        elif isinstance(event, events.ResponseReceived):
            exchange.begun(dict(event.headers))
        elif isinstance(event, events.DataReceived):
            exchange.feed(event.data, event.flow_controlled_length)
        elif isinstance(event, events.StreamEnded):
            exchange.end()
        elif isinstance(event, events.StreamReset):
            exchange.fail()

    def _gone(self) -> None:
        self.gone = True
        for exchange in self._exchanges.values():
            exchange.fail()


class Http2Exchange:
    """One request of a connection and its response."""

    def __init__(self, connection: Http2, number: int) -> None:
        self.connection = connection
        self.status = 0
        self.headers: dict[str, str] = {}
        self._number = number
        self._parts: deque[tuple[bytes, int]] = deque()
        self._ended = False
        self._failed = connection.gone
        self._news = asyncio.Event()

    @property
    def broken(self) -> bool:
        return self.connection.wire.closed

    async def head(self) -> None:
        while not self.status:
            if self._failed:
                raise Cut("the connection ended before the response began")
            await self._wait()

    async def read(self) -> bytes:
        while True:
            while self._parts:
                data, length = self._parts.popleft()
                await self.connection.acknowledge(self._number, length)
                if data:
                    return data
            if self._ended:
                return b""
            if self._failed:
                raise Cut("the stream ended within the body")
            await self._wait()

    def cut(self, how: How) -> None:
        self.connection.wire.cut(how)
        self.fail()

    async def reset(self) -> None:
        """Break this response off, and leave the connection to the others."""
        await self.connection.reset(self._number)

    async def aclose(self) -> None:
        await self.connection.aclose()

    # -- from the connection's pump

    def begun(self, headers: dict[str, str]) -> None:
        self.status = int(headers.pop(":status"))
        self.headers = headers
        self._news.set()

    def feed(self, data: bytes, length: int) -> None:
        self._parts.append((data, length))
        self._news.set()

    def end(self) -> None:
        self._ended = True
        self._news.set()

    def fail(self) -> None:
        self._failed = True
        self._news.set()

    async def _wait(self) -> None:
        self._news.clear()
        async with asyncio.timeout(PATIENCE):
            await self._news.wait()
