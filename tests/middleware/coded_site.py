"""What the tests of compression stand on: an app whose responses the test writes, and clients that decode as it comes.

``Coded`` is a connection whose ``decoded`` is what a client can read of what has arrived so far, by any coding, and
nothing that a decoder would still wait with.
"""

from __future__ import annotations

import zlib
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import brotli
from backports import zstd

from streamware.testing import Connection
from streamware.types import ASGIApp, Message, Receive, Scope, Send

SSE = (b"content-type", b"text/event-stream")
HTML = (b"content-type", b"text/html; charset=utf-8")
PAGE = b"<p>The keeper of the light wrote down everything.</p>\n" * 40

Play = Callable[[Receive, Send], Awaitable[None]]


def event(number: int) -> bytes:
    return b'data: {"choices":[{"index":0,"delta":{"content":" word %d"},"finish_reason":null}]}\n\n' % number


def start(*headers: tuple[bytes, bytes], status: int = 200, **more: Any) -> Message:
    return {"type": "http.response.start", "status": status, "headers": list(headers), **more}


def body(data: bytes, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}


def sends(*messages: Message) -> ASGIApp:
    """An app that sends these."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    return app


def plays(play: Play) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await play(receive, send)

    return app


def whole(data: bytes, *headers: tuple[bytes, bytes], length: bool = True, **more: Any) -> ASGIApp:
    """An app that sends a whole body, as most frameworks do."""
    stated = [(b"content-length", b"%d" % len(data))] if length else []
    return sends(start(*headers, *stated, **more), body(data, False))


class Coded(Connection):
    def __init__(self, app: ASGIApp, *, accepts: str | None = "gzip", headers: Iterable[Any] = (), **more: Any) -> None:
        given = [] if accepts is None else [("accept-encoding", accepts)]
        super().__init__(app, headers=[*given, *headers], **more)

    @property
    def coding(self) -> str | None:
        return self.header("content-encoding")

    @property
    def vary(self) -> str | None:
        return self.header("vary")

    @property
    def decoded(self) -> bytes:
        return decode(self.coding, self.body)[0]

    @property
    def ended(self) -> bool:
        """The coded body is whole, not only the response."""
        return self.complete and decode(self.coding, self.body)[1]

    async def read(self, until: bytes) -> bytes:
        """Wait until this can be read."""
        await self.start()
        await self.receive_body(lambda coded: until in decode(self.coding, coded)[0])
        return self.decoded


def decode(coding: str | None, data: bytes) -> tuple[bytes, bool]:
    """What can be read of ``data``, and whether it is whole."""
    if coding is None:
        return data, True
    if coding == "gzip":
        inflate = zlib.decompressobj(31)
        read = inflate.decompress(data)
        assert not inflate.unused_data
        return read, inflate.eof
    if coding == "br":
        decoder: Any = brotli.Decompressor()
        return bytes(decoder.process(data)), bool(decoder.is_finished())
    assert coding == "zstd"
    frame = zstd.ZstdDecompressor()
    return (frame.decompress(data) if data else b""), frame.eof


async def fetched(app: ASGIApp, **options: Any) -> Coded:
    """One whole request."""
    connection = Coded(app, **options)
    await connection.finished()
    return connection
