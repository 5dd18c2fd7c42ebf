"""The short way through a ``Stack`` of heartbeats and Resume: taken where no other middleware of ours was ever made,
and never to be told from the long one but by its cost."""

from __future__ import annotations

import asyncio

import pytest

from streamware import CountingObserver, HeartbeatMiddleware, Middleware, ResumeMiddleware, Stack
from streamware.middleware.base import census
from streamware.record import KEY
from streamware.testing import Connection, FakeClock, settle
from streamware.types import AnyASGIApp, Receive, Scope, Send
from tests.middleware.resume_site import EVENTSOURCE, READER, body, start

SSE_START = start()
PLAIN = [start([(b"content-length", b"2"), (b"content-type", b"text/plain")]), body(b"ok", False)]


class App:
    """Sends ``messages``, then waits for ``go`` if there is more to come."""

    def __init__(self, *messages: object, error: Exception | None = None) -> None:
        self.messages = messages
        self.error = error
        self.scopes: list[Scope] = []
        self.go = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        for message in self.messages:
            if message is None:
                await self.go.wait()
            else:
                await send(message)  # type: ignore[arg-type]  # what a test says are messages
        if self.error is not None:
            raise self.error


@pytest.fixture(params=["short", "long"])
def alone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the stacks that the test builds find themselves alone in the process."""
    short: bool = request.param == "short"
    monkeypatch.setattr(census, "made", 0 if short else 1)
    return short


def build(app: AnyASGIApp, clock: FakeClock, observer: CountingObserver | None = None) -> Stack:
    return Stack(
        app,
        middleware=[
            Middleware(HeartbeatMiddleware, interval=10, clock=clock, observer=observer),
            Middleware(ResumeMiddleware, clock=clock, observer=observer),
        ],
    )


async def test_a_plain_request_gets_the_servers_own_scope_where_nobody_could_look_for_a_record(alone: bool) -> None:
    app = App(*PLAIN)
    async with Connection(build(app, FakeClock())) as connection:
        await connection.finished()
        assert connection.body == b"ok"
        assert (app.scopes[0] is connection.scope) is alone
        assert (KEY in app.scopes[0]) is not alone


@pytest.mark.parametrize("headers", [EVENTSOURCE, READER], ids=["eventsource", "other"])
async def test_streams_have_heartbeats_and_survive_their_connections(alone: bool, headers: dict[str, str]) -> None:
    clock = FakeClock()
    app = App(SSE_START, body(b"data: 1\n\n"), None, body(b"data: 2\n\n", False))
    stack = build(app, clock)
    async with Connection(stack, headers=headers) as first:
        event = await first.event()
        await clock.advance(25)
        assert first.body.count(b":\n") == 2
        first.drop()
        await first.finished()
    app.go.set()
    async with Connection(stack, headers={**headers, "last-event-id": event.id}) as again:
        assert (await again.event()).data == "2"
        await again.finished()
        assert again.complete
    assert len(app.scopes) == 1
    for middleware in stack._hooks:
        await middleware.aclose()
    assert clock.timers == 0


async def test_a_stream_that_no_log_could_be_made_of_has_heartbeats_and_is_counted_once(alone: bool) -> None:
    clock, observer = FakeClock(), CountingObserver()
    app = App(SSE_START, body(b"data: 1\n\n"), None, body(b"data: 2\n\n", False))
    async with Connection(build(app, clock, observer), headers={"accept": "*/*"}) as connection:
        await connection.event()
        await clock.advance(11)
        assert connection.body == b"data: 1\n\n:\n"
        app.go.set()
        await connection.finished()
    assert observer.counts == {("resume.unlogged", "accept"): 1, ("heartbeat.sent", "comment"): 1}
    assert clock.timers == 0


async def test_a_stream_that_has_a_log_is_not_counted_as_one_without(alone: bool) -> None:
    observer = CountingObserver()
    app = App(SSE_START, body(b"data: 1\n\n", False))
    async with Connection(build(app, FakeClock(), observer), headers=READER) as connection:
        await connection.finished()
    assert observer.total("resume.unlogged") == 0


async def test_what_the_app_raises_reaches_the_server_and_leaves_nothing(alone: bool) -> None:
    clock = FakeClock()
    broken = RuntimeError("broken")
    stack = build(App(SSE_START, body(b"data: 1\n\n"), error=broken), clock)
    connection = Connection(stack, headers={"accept": "*/*"})
    connection.open()
    with pytest.raises(RuntimeError) as caught:
        await connection.finished()
    assert caught.value is broken
    assert clock.timers == 0


async def test_a_call_that_is_cancelled_sends_no_more_heartbeats(alone: bool) -> None:
    clock = FakeClock()
    sent: list[object] = []
    app = App(SSE_START, body(b"data: 1\n\n"), None)

    async def receive() -> dict[str, object]:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: object) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": []}
    call = asyncio.ensure_future(build(app, clock)(scope, receive, send))
    await settle()
    assert len(sent) == 2
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await clock.advance(100)
    assert len(sent) == 2
    assert clock.timers == 0


@pytest.mark.parametrize("made_before", [True, False], ids=["made before", "made at the first request"])
async def test_another_of_ours_further_in_still_finds_the_order_wrong(
    monkeypatch: pytest.MonkeyPatch, made_before: bool
) -> None:
    monkeypatch.setattr(census, "made", 0)
    inner: list[HeartbeatMiddleware] = [HeartbeatMiddleware(App(*PLAIN))] if made_before else []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if not inner:
            inner.append(HeartbeatMiddleware(App(*PLAIN)))
        await inner[0](scope, receive, send)

    stack = build(app, FakeClock())
    if not made_before:  # by then the request is on its way, and nothing warns of the order; the next is told
        async with Connection(stack) as connection:
            await connection.finished()
    connection = Connection(stack)
    connection.open()
    with pytest.raises(Exception, match="HeartbeatMiddleware must stand outside ResumeMiddleware"):
        await connection.finished()
