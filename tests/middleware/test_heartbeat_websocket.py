"""Heartbeats and the idle time-out on WebSocket connections, driven over raw ASGI with a clock that the tests move."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

import pytest

from streamware.middleware.heartbeat import HeartbeatMiddleware
from streamware.observe import CountingObserver
from streamware.testing import SERVERS, ConnectionEndedError, FakeClock, FakeTimer, WebSocketConnection, settle
from streamware.types import Message, Receive, Scope, Send


def run_without_loop(call: Coroutine[object, object, None]) -> None:
    """Run a call that waits for nothing, in a thread of its own, as if another kind of loop ran there."""
    with pytest.raises(StopIteration):
        call.send(None)


class Echo:
    """Accepts, answers each text with itself, and keeps what it received."""

    def __init__(self) -> None:
        self.received: list[Message] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        while True:
            message = await receive()
            self.received.append(message)
            if message["type"] == "websocket.disconnect":
                return
            await send({"type": "websocket.send", "text": message["text"]})


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.mark.parametrize("server", SERVERS)
async def test_sends_the_text_after_silence_of_the_app(server: str, clock: FakeClock) -> None:
    observer = CountingObserver()
    app = HeartbeatMiddleware(Echo(), interval=15, websocket="beat", clock=clock, observer=observer)
    async with WebSocketConnection(app, server=server) as conn:
        await conn.start()
        await clock.advance(14)
        conn.send("hello")
        assert await conn.receive() == "hello"
        await clock.advance(14)
        assert conn.pending == 0

        await clock.advance(1)
        assert await conn.receive() == "beat"
        await clock.advance(15)
        assert await conn.receive() == "beat"
    assert observer.counts == {("heartbeat.sent", "websocket"): 2}
    assert clock.timers == 0


async def test_sends_nothing_before_the_accept(clock: FakeClock) -> None:
    accept = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await accept.wait()
        await send({"type": "websocket.accept"})
        await receive()

    heartbeat = HeartbeatMiddleware(app, interval=15, websocket="beat", idle_timeout=20, clock=clock)
    async with WebSocketConnection(heartbeat) as conn:
        await clock.advance(100)
        assert conn.messages == []

        accept.set()
        await conn.start()
        await clock.advance(15)
        assert await conn.receive() == "beat"
        conn.close()


@pytest.mark.parametrize("end", ["close", "drop"])
async def test_sends_nothing_once_the_client_has_left(end: str, clock: FakeClock) -> None:
    async with WebSocketConnection(HeartbeatMiddleware(Echo(), websocket="beat", clock=clock)) as conn:
        await conn.start()
        conn.close(1000) if end == "close" else conn.drop()
        await clock.advance(100)

        assert conn.sent_after_disconnect == []
        assert clock.timers == 0


async def test_sends_nothing_after_the_apps_close(clock: FakeClock) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": 4000})
        await receive()
        await clock.advance(100)

    async with WebSocketConnection(HeartbeatMiddleware(app, websocket="beat", idle_timeout=1, clock=clock)) as conn:
        assert await conn.closing() == 4000
        await conn.finished()

    assert conn.pending == 0


@pytest.mark.parametrize(
    "refusal",
    [
        [{"type": "websocket.close", "code": 1008}],
        [
            {"type": "websocket.http.response.start", "status": 403, "headers": []},
            {"type": "websocket.http.response.body", "body": b"no"},
        ],
    ],
)
async def test_lets_a_refusal_through(refusal: list[Message], clock: FakeClock) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        for message in refusal:
            await send(message)

    async with WebSocketConnection(HeartbeatMiddleware(app, websocket="beat", idle_timeout=1, clock=clock)) as conn:
        with pytest.raises(ConnectionEndedError):
            await conn.start()
        await conn.finished()

        assert conn.messages == refusal
    assert clock.timers == 0


@pytest.mark.parametrize("server", SERVERS)
async def test_closes_a_silent_client_and_tells_the_app(server: str, clock: FakeClock) -> None:
    observer = CountingObserver()
    echo = Echo()
    app = HeartbeatMiddleware(echo, interval=None, idle_timeout=60, clock=clock, observer=observer)
    async with WebSocketConnection(app, server=server) as conn:
        await conn.start()
        await clock.advance(59)
        conn.send("still here")
        assert await conn.receive() == "still here"
        await clock.advance(59.9)
        assert not conn.closed

        await clock.advance(0.1)
        assert (await conn.closing(), conn.close_reason) == (4408, "idle timeout")
        await conn.finished()

    assert echo.received[-1] == {"type": "websocket.disconnect", "code": 4408, "reason": "idle timeout"}
    assert observer.counts == {("heartbeat.idle_closed", ""): 1}
    assert clock.timers == 0


async def test_heartbeats_do_not_keep_a_silent_client(clock: FakeClock) -> None:
    app = HeartbeatMiddleware(Echo(), interval=15, websocket="beat", idle_timeout=60, clock=clock)
    async with WebSocketConnection(app) as conn:
        await conn.start()
        await clock.advance(60)

        assert await conn.closing() == 4408
        assert [message.get("text") for message in conn.messages] == [None, "beat", "beat", "beat", None]


@pytest.mark.parametrize("server", ["uvicorn", "hypercorn"])
async def test_a_stalled_client_is_closed_while_a_heartbeat_is_blocked(server: str, clock: FakeClock) -> None:
    """And what the app sends meanwhile waits, and then finds the connection closed."""
    echo = Echo()
    outcomes: list[BaseException | None] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def talk() -> None:
            await wanted.wait()
            await send({"type": "websocket.send", "text": "late"})

        talking = asyncio.ensure_future(talk())
        await echo(scope, receive, send)
        await asyncio.wait([talking])
        outcomes.append(talking.exception())

    wanted = asyncio.Event()
    heartbeat = HeartbeatMiddleware(app, interval=15, websocket="beat", idle_timeout=60, clock=clock)
    async with WebSocketConnection(heartbeat, server=server) as conn:
        await conn.start()
        conn.stall()
        await clock.advance(20)
        wanted.set()
        await clock.advance(50)
        assert not conn.closed
        conn.unstall()
        await conn.finished()

    assert conn.close_code == 4408
    assert [message["code"] for message in echo.received] == [4408]
    assert [type(outcome) for outcome in outcomes] == [OSError if server == "uvicorn" else type(None)]


async def test_a_text_that_is_due_waits_for_a_message_of_the_app(clock: FakeClock) -> None:
    app = HeartbeatMiddleware(Echo(), interval=15, websocket="beat", idle_timeout=60, clock=clock)
    async with WebSocketConnection(app) as conn:
        await conn.start()
        conn.stall()
        conn.send("hello")
        await clock.advance(40)
        conn.unstall()
        assert await conn.receive() == "hello"
        await clock.advance(14)
        assert conn.pending == 0
        await clock.advance(1)
        assert await conn.receive() == "beat"


async def test_time_in_which_the_app_does_not_listen_is_not_the_clients_silence(clock: FakeClock) -> None:
    listen = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await listen.wait()
        while (await receive())["type"] != "websocket.disconnect":
            await listen.wait()

    async with WebSocketConnection(HeartbeatMiddleware(app, idle_timeout=60, clock=clock)) as conn:
        await conn.start()
        await clock.advance(50)
        assert not conn.closed

        listen.set()
        await settle()
        listen.clear()
        await clock.advance(10)
        conn.send("hello")
        await settle()
        await clock.advance(1000)
        assert not conn.closed

        listen.set()
        await clock.advance(59)
        assert not conn.closed
        await clock.advance(7)  # it looks again after a tenth of the time-out at the latest
        assert await conn.closing() == 4408


async def test_listening_in_short_waits_does_not_put_the_time_out_off(clock: FakeClock) -> None:
    """An app that polls ``receive`` with a time-out of its own is listening all the same."""
    seen: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while not seen:
            waiting = asyncio.ensure_future(receive())
            woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            clock.call_later(1, lambda woken=woken: woken.done() or woken.set_result(None))
            await asyncio.wait([waiting, woken], return_when=asyncio.FIRST_COMPLETED)
            if waiting.done():
                seen.append(waiting.result())
            else:
                waiting.cancel()
                await asyncio.wait([waiting])

    async with WebSocketConnection(HeartbeatMiddleware(app, idle_timeout=10, clock=clock)) as conn:
        await conn.start()
        await clock.advance(12)
        await conn.finished()

    assert [message["code"] for message in seen] == [4408]


@pytest.mark.parametrize(("server", "raises"), [("uvicorn", True), ("granian", False)])
async def test_sends_of_the_app_after_the_idle_close_go_nowhere(server: str, raises: bool, clock: FakeClock) -> None:
    outcomes: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        assert (await receive())["type"] == "websocket.disconnect"
        assert (await receive())["type"] == "websocket.disconnect"
        try:
            await send({"type": "websocket.send", "text": "late"})
            outcomes.append("silent")
        except OSError:
            outcomes.append("raised")
        await send({"type": "websocket.close"})

    async with WebSocketConnection(HeartbeatMiddleware(app, idle_timeout=10, clock=clock), server=server) as conn:
        await conn.start()
        await clock.advance(10)
        await conn.finished()

    assert outcomes == ["raised" if raises else "silent"]
    assert conn.close_code == 4408


async def test_an_app_that_does_not_listen_costs_few_timers(clock: FakeClock) -> None:
    """Silence stands still just before the end of its time: there is no use in looking all the time."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        listener = asyncio.ensure_future(receive())
        await busy.wait()
        listener.cancel()
        await asyncio.wait([listener])
        await asyncio.get_running_loop().create_future()

    class CountingClock(FakeClock):
        def call_later(self, delay: float, callback: Callable[[], object]) -> FakeTimer:
            delays.append(delay)
            return super().call_later(delay, callback)

    delays: list[float] = []
    busy = asyncio.Event()
    clock = CountingClock()
    async with WebSocketConnection(HeartbeatMiddleware(app, idle_timeout=60, clock=clock)) as conn:
        await conn.start()
        await clock.advance(59.9)
        busy.set()
        await clock.advance(600)

        assert not conn.closed
        assert len(delays) <= 102


async def test_a_websocket_goes_through_where_no_asyncio_loop_runs() -> None:
    """A server or a test client on trio: neither heartbeats nor a time-out."""
    incoming: list[Message] = [
        {"type": "websocket.connect"},
        {"type": "websocket.receive", "text": "hello"},
        {"type": "websocket.disconnect", "code": 1000},
    ]
    sent: list[Message] = []

    async def receive() -> Message:
        return incoming.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    scope: Scope = {"type": "websocket", "path": "/", "headers": []}
    app = HeartbeatMiddleware(Echo(), websocket="beat", idle_timeout=60)
    await asyncio.to_thread(run_without_loop, app(scope, receive, send))

    assert sent == [{"type": "websocket.accept"}, {"type": "websocket.send", "text": "hello"}]


async def test_the_apps_own_time_out_passes_through(clock: FakeClock) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def failing_receive() -> Message:
            if conn.accepted:
                raise TimeoutError("the server's own")
            return await receive()

        await HeartbeatMiddleware(Echo(), idle_timeout=10, clock=clock)(scope, failing_receive, send)

    conn = WebSocketConnection(app)
    async with conn:
        with pytest.raises(TimeoutError, match="the server's own"):
            await conn.finished()


async def test_a_close_that_fails_is_told_to_the_app_all_the_same(clock: FakeClock) -> None:
    echo = Echo()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def failing_send(message: Message) -> None:
            if message["type"] == "websocket.close":
                raise RuntimeError("closed already")
            await send(message)

        await HeartbeatMiddleware(echo, idle_timeout=10, clock=clock)(scope, receive, failing_send)

    async with WebSocketConnection(app) as conn:
        await conn.start()
        await clock.advance(10)
        await conn.finished()

    assert echo.received[-1]["code"] == 4408


@pytest.mark.parametrize("how", ["cancel", "raise"])
async def test_leaves_neither_task_nor_timer(how: str, clock: FakeClock) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        raise KeyError("the app's own")

    async with WebSocketConnection(HeartbeatMiddleware(app, websocket="beat", idle_timeout=99, clock=clock)) as conn:
        await conn.start()
        if how == "cancel":
            conn.cancel()
            await conn.finished()
        else:
            conn.send("x")
            with pytest.raises(KeyError):
                await conn.finished()
        await settle()

    assert clock.timers == 0
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "streamware heartbeat"]
