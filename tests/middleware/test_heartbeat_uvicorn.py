"""Heartbeats over sockets, from uvicorn, at an interval of 0.05 s."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
import uvicorn
import websockets.asyncio.client
import websockets.exceptions
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from streamware.middleware.heartbeat import HeartbeatMiddleware
from streamware.observe import CountingObserver
from streamware.types import ASGIApp

INTERVAL = 0.05


@contextlib.asynccontextmanager
async def serving(app: ASGIApp) -> AsyncIterator[int]:
    """A port on which uvicorn serves ``app``."""
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", ws="websockets-sansio")
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # the test runner's own stay in place
    task = asyncio.ensure_future(server._serve())
    try:
        async with asyncio.timeout(10):
            while not server.started:
                await asyncio.sleep(0.01)
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await task


@contextlib.asynccontextmanager
async def request(port: int, path: str) -> AsyncIterator[asyncio.StreamReader]:
    """The response's bytes, past the header."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(10):
            writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n".encode())
            await reader.readuntil(b"\r\n\r\n")
            yield reader
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def chunk(reader: asyncio.StreamReader) -> bytes:
    """One chunk of a chunked body."""
    size = int(await reader.readline(), 16)
    return (await reader.readexactly(size + 2))[:-2]


async def test_a_silent_stream_gets_comments_between_its_events() -> None:
    observer = CountingObserver()
    go, left = asyncio.Event(), asyncio.Event()

    async def events(_: Request) -> StreamingResponse:
        async def body() -> AsyncIterator[bytes]:
            try:
                yield b"data: a\n\n"
                yield b"data: "
                await asyncio.sleep(INTERVAL * 4)  # inside an event: nothing may come in this time
                yield b"b\n\n"
                await go.wait()
                yield b"data: c\n\n"
                await asyncio.get_running_loop().create_future()
            finally:
                left.set()

        return StreamingResponse(body(), media_type="text/event-stream")

    app = HeartbeatMiddleware(Starlette(routes=[Route("/", events)]), interval=INTERVAL, observer=observer)
    async with serving(app) as port, request(port, "/") as reader:
        assert [await chunk(reader) for _ in range(3)] == [b"data: a\n\n", b"data: ", b"b\n\n"]
        assert [await chunk(reader) for _ in range(3)] == [b":\n", b":\n", b":\n"]

        go.set()
        while (received := await chunk(reader)) == b":\n":
            pass
        assert received == b"data: c\n\n"
        assert await chunk(reader) == b":\n"

        reader._transport.close()
        async with asyncio.timeout(5):
            await left.wait()
        await asyncio.sleep(INTERVAL)
        sent = observer.total("heartbeat.sent")
        await asyncio.sleep(INTERVAL * 4)
        assert observer.total("heartbeat.sent") == sent  # none to a client that has left


async def test_other_responses_are_as_they_were() -> None:
    async def slow(_: Request) -> StreamingResponse:
        async def body() -> AsyncIterator[bytes]:
            yield b"a"
            await asyncio.sleep(INTERVAL * 3)
            yield b"b"

        return StreamingResponse(body(), media_type="text/plain")

    async def plain(_: Request) -> PlainTextResponse:
        return PlainTextResponse("hello")

    app = HeartbeatMiddleware(Starlette(routes=[Route("/slow", slow), Route("/plain", plain)]), interval=INTERVAL)
    async with serving(app) as port:
        async with request(port, "/slow") as reader:
            assert [await chunk(reader) for _ in range(3)] == [b"a", b"b", b""]
        async with request(port, "/plain") as reader:
            assert await reader.readexactly(5) == b"hello"


async def test_a_silent_websocket_gets_texts_and_then_a_close() -> None:
    codes: list[int] = []

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        while (message := await websocket.receive())["type"] != "websocket.disconnect":
            await websocket.send_text(message["text"])
        codes.append(message["code"])

    app = HeartbeatMiddleware(
        Starlette(routes=[WebSocketRoute("/", endpoint)]),
        interval=INTERVAL,
        websocket="beat",
        idle_timeout=INTERVAL * 10,
    )
    async with serving(app) as port, websockets.asyncio.client.connect(f"ws://127.0.0.1:{port}/") as client:
        received: list[str | bytes] = []

        async def receive_all() -> None:
            while True:
                received.append(await client.recv())

        await client.send("hello")
        with pytest.raises(websockets.exceptions.ConnectionClosed) as closed:
            await asyncio.wait_for(receive_all(), 10)

        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4408, "idle timeout")
        assert received[0] == "hello"
        assert set(received[1:]) == {"beat"}
    assert codes == [4408]
