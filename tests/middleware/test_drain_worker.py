"""The worker around its connections: signals, readiness, the lifespan that waits for producers, options, counters."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from collections.abc import AsyncIterator, Iterator
from types import FrameType
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket

from streamware import (
    ConfigurationError,
    DrainMiddleware,
    HeartbeatMiddleware,
    MemoryStore,
    Middleware,
    ResumeMiddleware,
    Stack,
    wrap,
)
from streamware.middleware.base import BaseMiddleware, census
from streamware.streams.drain import Phase
from streamware.testing import Connection, FakeClock, settle
from streamware.types import ASGIApp, Message, Receive, Scope, Send
from tests.middleware.drain_site import DEADLINE, GRACE, Place, SharedStore
from tests.middleware.resume_site import EVENTSOURCE, READER, Stage

SIGNAL = signal.SIGUSR1


@pytest.fixture
def handled() -> Iterator[list[int]]:
    """A server's handler of ``SIGNAL``: the signals that it got."""
    got: list[int] = []

    def handler(signum: int, frame: FrameType | None) -> None:
        got.append(signum)

    before = signal.signal(SIGNAL, handler)
    yield got
    signal.signal(SIGNAL, before)


class Lifespan:
    """A server's side of the lifespan of ``app``."""

    def __init__(self, app: ASGIApp) -> None:
        self.asked: asyncio.Queue[Message] = asyncio.Queue()
        self.answers: asyncio.Queue[Message] = asyncio.Queue()
        self.task = asyncio.ensure_future(app({"type": "lifespan", "state": {}}, self.asked.get, self.answers.put))

    async def start(self) -> None:
        self.asked.put_nowait({"type": "lifespan.startup"})
        assert (await asyncio.wait_for(self.answers.get(), 5))["type"] == "lifespan.startup.complete"

    def shut_down(self) -> None:
        self.asked.put_nowait({"type": "lifespan.shutdown"})

    async def ended(self) -> Message:
        answer = await asyncio.wait_for(self.answers.get(), 5)
        await self.task
        return answer


class Pools:
    """An app with a pool that is open from start-up to shutdown; its streams are a ``Stage``'s."""

    def __init__(self) -> None:
        self.stage = Stage()
        self.open = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await self.stage(scope, receive, send)
            return
        while True:
            message = await receive()
            self.open = message["type"] == "lifespan.startup"
            await send({"type": message["type"] + ".complete"})
            if not self.open:
                return


def served(app: ASGIApp, clock: FakeClock, store: MemoryStore, **drain: Any) -> Stack:
    options: dict[str, Any] = {"grace": GRACE, "deadline": DEADLINE, "signals": (), "clock": clock, **drain}
    return Stack(
        app,
        middleware=[
            Middleware(DrainMiddleware, **options),
            Middleware(HeartbeatMiddleware, clock=clock),
            Middleware(ResumeMiddleware, store=store, clock=clock),
        ],
    )


# -- signals


async def test_a_signal_begins_the_drain_and_reaches_the_server(handled: list[int]) -> None:
    async with Place(signals=[SIGNAL]) as place:
        connection, run = await place.started("a", headers=EVENTSOURCE)
        os.kill(os.getpid(), SIGNAL)
        assert handled == [SIGNAL]
        await settle()
        assert place.phase is Phase.DRAINING
        await place.clock.advance(GRACE)
        await connection.finished()
        await run.end()
    assert not isinstance(signal.getsignal(SIGNAL), BaseMiddleware)
    assert signal.getsignal(SIGNAL).__name__ == "handler"  # type: ignore[union-attr]


@pytest.mark.parametrize("way", ["short", "nested"])
async def test_without_a_lifespan_it_listens_from_the_first_request_on(handled: list[int], way: str) -> None:
    place = Place(way=way, signals=[SIGNAL])
    connection = place.connect(headers=READER)
    run = await place.run()
    await run.stream("a")
    await connection.events(1)
    os.kill(os.getpid(), SIGNAL)
    await settle()
    assert place.phase is Phase.DRAINING
    await run.end()
    await connection.finished()
    await place.drain.aclose()
    await place.resume.aclose()
    assert place.clock.timers == 0


async def test_a_drain_by_hand_from_another_thread(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "streamware.drain")
    async with Place() as place:
        for step in (place.drain.leave, place.drain.drain):
            thread = threading.Thread(target=step)
            thread.start()
            await asyncio.to_thread(thread.join)
            await settle()
        assert place.phase is Phase.DRAINING
        await place.clock.advance(DEADLINE)
        assert place.phase is Phase.OVER
        assert [place.counted("drain.phase", phase) for phase in ("leaving", "draining", "parting", "over")] == [1] * 4
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
        *["leaving", "draining", "parting", "over"],
    ]


async def test_a_stack_can_be_told_as_well() -> None:
    stack = wrap(Pools(), readiness="/ready")
    lifespan = Lifespan(stack)
    await lifespan.start()
    stack.leave()
    async with Connection(stack, path="/ready") as connection:
        await connection.finished()
        assert connection.body == b'{"status":"leaving"}'
    stack.drain()
    async with Connection(stack, path="/ready") as connection:
        await connection.finished()
        assert connection.body == b'{"status":"draining"}'
    lifespan.shut_down()
    await lifespan.ended()


def test_a_stack_without_a_drain_says_so() -> None:
    stack = wrap(Pools(), grace=None)
    for step in (stack.leave, stack.drain):
        with pytest.raises(ConfigurationError, match="no DrainMiddleware"):
            step()


def test_a_stack_has_one_drain() -> None:
    with pytest.raises(ConfigurationError, match="one DrainMiddleware"):
        Stack(
            Pools(), middleware=[Middleware(DrainMiddleware, paths=["/a"]), Middleware(DrainMiddleware, paths=["/b"])]
        )


# -- readiness


@pytest.mark.parametrize("way", ["short", "long", "nested"])
async def test_readiness_says_whether_requests_are_welcome(way: str) -> None:
    async with Place(way=way, readiness="/ready") as place:

        async def ask(method: str = "GET", **options: Any) -> Connection:
            connection = place.connect("/ready", headers={}, method=method, **options)
            await connection.finished()
            return connection

        ready = await ask()
        assert (ready.status, ready.body) == (200, b'{"status":"serving"}')
        assert ready.header("cache-control") == "no-store"
        head = await ask("HEAD")
        assert (head.status, head.body, head.header("content-length")) == (200, b"", "20")
        assert (await ask("POST")).status == 405
        place.drain.leave()
        leaving = await ask()
        assert (leaving.status, leaving.body) == (503, b'{"status":"leaving"}')
        place.drain.drain()
        draining = await ask()
        assert (draining.status, draining.header("connection")) == (503, "close")
        assert not place.stage.runs
        mounted = place.connect("/api/ready", headers={}, scope={"root_path": "/api"})
        await mounted.finished()
        assert mounted.status == 503


async def test_in_a_stack_readiness_is_answered_before_any_middleware() -> None:
    def refuse(app: ASGIApp) -> ASGIApp:
        async def refused(scope: Scope, receive: Receive, send: Send) -> None:
            raise AssertionError("the readiness of this worker is nobody else's business")

        return refused

    stage = Stage()
    stack = Stack(stage, middleware=[Middleware(refuse), Middleware(DrainMiddleware, readiness="/ready", paths=["/a"])])
    async with Connection(stack, path="/ready") as connection:
        await connection.finished()
        assert connection.status == 200


# -- the lifespan


async def test_the_apps_shutdown_waits_for_apps_whose_streams_are_read_elsewhere() -> None:
    clock, app = FakeClock(), Pools()
    store = SharedStore(clock=clock)
    stack = served(app, clock, store)
    lifespan = Lifespan(stack)
    await lifespan.start()
    connection = Connection(stack, headers=EVENTSOURCE)
    connection.open()
    run = await app.stage.run()
    await run.stream("a")
    await connection.event()
    connection.drop()
    await connection.finished()

    lifespan.shut_down()
    await clock.advance(DEADLINE - 1)
    assert app.open
    await run.say("b")
    await run.end()
    assert (await lifespan.ended())["type"] == "lifespan.shutdown.complete"

    assert not app.open
    assert not run.cancelled
    assert clock.timers == 0


async def test_the_apps_shutdown_waits_until_the_deadline_and_no_longer() -> None:
    clock, app = FakeClock(), Pools()
    store = SharedStore(clock=clock)
    stack = served(app, clock, store)
    lifespan = Lifespan(stack)
    await lifespan.start()
    connection = Connection(stack, headers=EVENTSOURCE)
    connection.open()
    run = await app.stage.run()
    await run.stream("a")
    stream = (await connection.event()).id.rpartition(".")[0]
    connection.drop()
    await connection.finished()

    lifespan.shut_down()
    await clock.advance(DEADLINE)
    assert (await lifespan.ended())["type"] == "lifespan.shutdown.complete"

    assert run.cancelled
    found = await store.open(stream)
    assert found is None or found.outcome == "interrupted"
    assert clock.timers == 0


async def test_nobody_waits_for_an_app_whose_stream_no_other_worker_can_read() -> None:
    clock, app = FakeClock(), Pools()
    stack = served(app, clock, MemoryStore(clock=clock))
    lifespan = Lifespan(stack)
    await lifespan.start()
    connection = Connection(stack, headers=EVENTSOURCE)
    connection.open()
    run = await app.stage.run()
    await run.stream("a")
    await connection.event()
    connection.drop()
    await connection.finished()

    lifespan.shut_down()
    assert (await lifespan.ended())["type"] == "lifespan.shutdown.complete"

    assert run.cancelled
    assert clock.timers == 0


async def test_a_long_deadline_is_not_cut_short_by_the_hooks_time_out() -> None:
    app = Pools()
    app.stage = Stage(heeds=True)
    clock = FakeClock()
    store = SharedStore()
    stack = Stack(
        app,
        hook_timeout=0.05,
        middleware=[
            Middleware(DrainMiddleware, grace=0.1, deadline=0.3, signals=()),
            Middleware(ResumeMiddleware, store=store),
        ],
    )
    lifespan = Lifespan(stack)
    await lifespan.start()
    connection = Connection(stack, headers=EVENTSOURCE)
    connection.open()
    run = await app.stage.run()
    await run.stream("a")
    await connection.event()
    lifespan.shut_down()
    assert (await lifespan.ended())["type"] == "lifespan.shutdown.complete"
    await connection.finished()
    assert run.cancelled
    assert clock.timers == 0


async def test_after_a_drain_the_shutdown_is_at_once() -> None:
    clock, app = FakeClock(), Pools()
    stack = served(app, clock, SharedStore(clock=clock))
    lifespan = Lifespan(stack)
    await lifespan.start()
    (drain,) = [own for own in stack._own if isinstance(own, DrainMiddleware)]
    drain.drain()
    await clock.advance(DEADLINE)
    lifespan.shut_down()
    assert (await lifespan.ended())["type"] == "lifespan.shutdown.complete"
    assert clock.timers == 0


async def test_alone_it_holds_the_apps_shutdown_back_as_well() -> None:
    clock, app = FakeClock(), Pools()
    resume = ResumeMiddleware(app, store=SharedStore(clock=clock), clock=clock)
    drain = DrainMiddleware(resume, grace=GRACE, deadline=DEADLINE, signals=(), clock=clock)
    lifespan = Lifespan(drain)
    await lifespan.start()
    connection = Connection(drain, headers=EVENTSOURCE)
    connection.open()
    run = await app.stage.run()
    await run.stream("a")
    await connection.event()
    connection.drop()
    await connection.finished()
    lifespan.shut_down()
    await clock.advance(DEADLINE / 2)
    assert app.open
    await run.end()
    assert (await lifespan.ended())["type"] == "lifespan.shutdown.complete"
    assert not app.open
    assert clock.timers == 0


def test_on_trio_everything_passes() -> None:
    async def stream(request: Request) -> StreamingResponse:
        async def events() -> AsyncIterator[str]:
            for number in range(3):
                yield f"data: {number}\n\n"

        return StreamingResponse(events(), media_type="text/event-stream")

    async def echo(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text(await socket.receive_text())
        await socket.close()

    app = Starlette(routes=[Route("/chat", stream), WebSocketRoute("/echo", echo)])
    for wrapped in (wrap(app), DrainMiddleware(app)):
        with TestClient(wrapped, backend="trio") as client:
            assert client.get("/chat", headers=READER).text == "data: 0\n\ndata: 1\n\ndata: 2\n\n"
            with client.websocket_connect("/echo") as socket:
                socket.send_text("here")
                assert socket.receive_text() == "here"


# -- options


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"grace": -1}, "grace must be 0 seconds or more"),
        ({"grace": None}, "grace must be"),
        ({"grace": True}, "grace must be"),
        ({"deadline": 0, "grace": 0}, "deadline must be greater than 0"),
        ({"deadline": 5}, "deadline must be at least grace, which is 15"),
        ({"deadline": float("inf")}, "deadline must be"),
        ({"retry": 0}, "retry must be greater than 0"),
        ({"readiness": "ready"}, "readiness must be a path"),
        ({"readiness": 5}, "readiness must be a path"),
        ({"signals": signal.SIGTERM}, "signals must be a list"),
        ({"signals": ["TERM"]}, "signals must be a list"),
        ({"signals": [signal.SIGKILL]}, "signals must be a list"),
        ({"signals": [True]}, "signals must be a list"),
        ({"signals": "TERM"}, "signals must be a list"),
    ],
)
def test_a_wrong_option_is_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigurationError, match=f"DrainMiddleware: {text}"):
        DrainMiddleware(Stage(), **options)


def test_the_default_signal_is_heard_and_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)

    async def serve() -> None:
        signal.signal(signal.SIGTERM, lambda signum, frame: None)
        handler = signal.getsignal(signal.SIGTERM)
        lifespan = Lifespan(wrap(Pools()))
        await lifespan.start()
        assert signal.getsignal(signal.SIGTERM) is not handler
        lifespan.shut_down()
        await lifespan.ended()
        assert signal.getsignal(signal.SIGTERM) is handler

    try:
        asyncio.run(serve())
    finally:
        signal.signal(signal.SIGTERM, before)


# -- what it costs


async def test_while_serving_a_plain_request_passes_with_the_objects_of_one_look(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """``wrap`` takes its short way again once it has been started, and the long one when it drains."""
    monkeypatch.setattr(census, "made", 0)
    scopes: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append(scope)
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    stack = wrap(app)
    taken = []
    for step in ("first", "second", "draining"):
        if step == "draining":
            (drain,) = [own for own in stack._own if isinstance(own, DrainMiddleware)]
            drain.drain()
        async with Connection(stack) as connection:
            await connection.finished()
            taken.append(scopes[-1] is connection.scope)
    assert taken == [False, True, False]
    for hook in stack._hooks:
        await hook.aclose()
