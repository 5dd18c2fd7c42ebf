"""The test kit itself: the clock, the drivers, and the order check."""

from __future__ import annotations

import asyncio
import inspect

import pytest

from streamware.testing import (
    SERVERS,
    Connection,
    ConnectionEndedError,
    EventReader,
    FakeClock,
    MessageOrderError,
    ReceivedEvent,
    WebSocketConnection,
    check_order,
    settle,
)
from streamware.types import Message, Receive, Scope, Send

START: Message = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]}
END: Message = {"type": "http.response.body", "body": b"", "more_body": False}


def body(data: bytes, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}


async def test_streams_events_to_the_end() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert await receive() == {"type": "http.request", "body": b"", "more_body": False}
        await send(START)
        await send(body(b"id: 1\ndata: a\n\nda"))
        await send(body(b"ta: b\n\n"))
        await send(END)

    async with Connection(app, path="/x?y=1", headers={"Accept": "text/event-stream"}) as conn:
        await conn.start()
        assert (conn.status, conn.header("Content-Type")) == (200, "text/event-stream")
        assert await conn.event() == ReceivedEvent("message", "a", "1")
        assert await conn.events(1) == [ReceivedEvent("message", "b", "1")]
        await conn.receive_body()
        assert conn.complete
        await conn.finished()

    assert conn.scope["query_string"] == b"y=1"
