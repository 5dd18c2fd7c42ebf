"""Draining WebSockets: closed between two messages when grace is over, and the app told; handshakes refused."""

from __future__ import annotations

import asyncio

import pytest

from streamware import CountingObserver, DrainMiddleware, HeartbeatMiddleware, Middleware, Stack
from streamware.streams.drain import Phase
from streamware.testing import FakeClock, WebSocketConnection, settle
from streamware.types import ASGIApp, Message, Receive, Scope, Send

GRACE = 10.0


class Chat:
    """Echoes. Keeps what it was told of; ``deaf``: it accepts and then only sends."""

    def __init__(self, *, deaf: bool = False) -> None:
        self.deaf = deaf
        self.got: list[Message] = []
        self.late: BaseException | None = None
        self.go = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        if self.deaf:
            await self.go.wait()
        try:
            while True:
                if self.deaf:
                    await send({"type": "websocket.send", "text": "late"})
                message = await receive()
                self.got.append(message)
                if message["type"] == "websocket.disconnect":
                    break
                await send({"type": "websocket.send", "text": message.get("text")})
        except OSError as error:
            self.late = error
            raise


def build(app: ASGIApp, clock: FakeClock, observer: CountingObserver | None = None) -> tuple[ASGIApp, DrainMiddleware]:
    drain = DrainMiddleware(app, grace=GRACE, deadline=30, signals=(), clock=clock, observer=observer)
    return drain, drain


@pytest.mark.parametrize(
    ("server", "code"), [("uvicorn", 1012), ("hypercorn", 1012), ("granian", 1012), ("daphne", 4503)]
)
async def test_it_is_closed_when_grace_is_over_and_the_app_is_told(server: str, code: int) -> None:
    clock, observer, chat = FakeClock(), CountingObserver(), Chat()
    app, drain = build(chat, clock, observer)
    async with WebSocketConnection(app, server=server) as connection:
        await connection.start()
        drain.drain()
        await clock.advance(GRACE - 1)
        connection.send("still")
        assert await connection.receive() == "still"
        await clock.advance(1)
        assert await connection.closing() == code
        assert connection.close_reason == "service restart"
        await connection.finished()
    assert [message["type"] for message in chat.got] == ["websocket.receive", "websocket.disconnect"]
    assert chat.got[-1]["code"] == code
    assert observer.counts["drain.ended", "websocket"] == 1
    assert not drain.drains.sockets
    await drain.aclose()
    assert clock.timers == 0


@pytest.mark.parametrize("server", ["uvicorn", "granian"])
async def test_an_app_that_does_not_listen_is_told_by_its_next_send(server: str) -> None:
    clock, chat = FakeClock(), Chat(deaf=True)
    app, drain = build(chat, clock)
    async with WebSocketConnection(app, server=server) as connection:
        await connection.start()
        drain.drain()
        await clock.advance(GRACE)
        assert await connection.closing() == 1012
        chat.go.set()
        await connection.finished()
        assert connection.exception is None
        assert connection.pending == 0
    assert chat.late is not None
    await drain.aclose()


@pytest.mark.parametrize(("server", "status"), [("uvicorn", 503), ("daphne", None)])
async def test_a_handshake_is_refused_while_draining(server: str, status: int | None) -> None:
    clock, observer, chat = FakeClock(), CountingObserver(), Chat()
    app, drain = build(chat, clock, observer)
    await drain.startup()
    drain.drain()
    async with WebSocketConnection(app, server=server) as connection:
        await connection.closing()
        await connection.finished()
        assert not connection.accepted
        assert chat.got == []
        kinds = [message["type"] for message in connection.messages]
        if status is None:
            assert kinds == ["websocket.close"]
        else:
            assert kinds == ["websocket.http.response.start", "websocket.http.response.body"]
            assert connection.messages[0]["status"] == status
            assert any(name == b"retry-after" for name, _ in connection.messages[0]["headers"])
    assert observer.counts["drain.refused", "websocket"] == 1
    await drain.aclose()


async def test_one_that_is_not_accepted_yet_is_left_alone() -> None:
    clock = FakeClock()
    go = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await go.wait()
        await send({"type": "websocket.close", "code": 1000})

    wrapped, drain = build(app, clock)
    async with WebSocketConnection(wrapped) as connection:
        await settle()
        drain.drain()
        await clock.advance(GRACE)
        assert not connection.closed
        go.set()
        await connection.finished()
    await drain.aclose()


async def test_the_clients_own_close_passes() -> None:
    clock, chat = FakeClock(), Chat()
    app, drain = build(chat, clock)
    async with WebSocketConnection(app) as connection:
        await connection.start()
        connection.close(1000, "bye")
        await connection.finished()
    assert chat.got == [{"type": "websocket.disconnect", "code": 1000, "reason": "bye"}]
    drain.drain()
    await clock.advance(GRACE)
    await drain.aclose()


async def test_a_cancellation_of_the_servers_is_no_close_of_ours() -> None:
    clock, chat = FakeClock(), Chat()
    app, drain = build(chat, clock)
    async with WebSocketConnection(app) as connection:
        await connection.start()
        drain.drain()
        connection.cancel()
        await connection.finished()
        assert isinstance(connection.exception, asyncio.CancelledError)
        assert not connection.closed
    await clock.advance(GRACE)
    await drain.aclose()
    assert not drain.drains.sockets


async def test_with_heartbeats_inside_the_idle_time_out_still_works() -> None:
    clock, chat = FakeClock(), Chat()
    stack = Stack(
        chat,
        middleware=[
            Middleware(DrainMiddleware, grace=GRACE, deadline=30, signals=(), clock=clock),
            Middleware(HeartbeatMiddleware, websocket="ping", interval=3, idle_timeout=20, clock=clock),
        ],
    )
    (drain,) = [own for own in stack._own if isinstance(own, DrainMiddleware)]
    async with WebSocketConnection(stack) as connection:
        await connection.start()
        await clock.advance(3)
        assert await connection.receive() == "ping"
        drain.drain()
        await clock.advance(GRACE)
        assert await connection.closing() == 1012
        await connection.finished()
    assert chat.got[-1]["code"] == 1012
    assert drain.drains.phase is Phase.PARTING
    await drain.aclose()
    assert clock.timers == 0
