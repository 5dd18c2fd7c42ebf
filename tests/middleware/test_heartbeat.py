"""Heartbeats on HTTP responses, driven over raw ASGI with a clock that the tests move."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamware.exceptions import ConfigurationError
from streamware.middleware.heartbeat import HeartbeatMiddleware
from streamware.observe import CountingObserver
from streamware.testing import SERVERS, Connection, EventReader, FakeClock, FakeTimer, settle
from streamware.types import ASGIApp, Message, Receive, Scope, Send

SSE = [(b"content-type", b"text/event-stream; charset=utf-8")]
COMMENT = b":\n"

Script = Callable[[Receive, Send], Awaitable[None]]


def start(headers: Iterable[tuple[bytes, bytes]] = SSE, status: int = 200) -> Message:
    return {"type": "http.response.start", "status": status, "headers": headers}


def body(data: bytes, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}


def scripted(script: Script) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await script(receive, send)

    return app


def run_without_loop(call: Coroutine[object, object, None]) -> None:
    """Run a call that waits for nothing, in a thread of its own, as if another kind of loop ran there."""
    with pytest.raises(StopIteration):
        call.send(None)


class Feed:
    """An app whose response the test writes: ``await feed.put(message)`` returns once the app has sent it."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[tuple[Message | None, asyncio.Future[None]]] = asyncio.Queue()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        listener = asyncio.ensure_future(self.listen(receive))
        try:
            while True:
                message, sent = await self.queue.get()
                if message is None:
                    sent.set_result(None)
                    return
                try:
                    await send(message)
                finally:
                    if not sent.done():
                        sent.set_result(None)
        finally:
            listener.cancel()
            await asyncio.wait([listener])

    @staticmethod
    async def listen(receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    def begin(self, message: Message | None) -> asyncio.Future[None]:
        """Let the app send; the future is done when it has."""
        sent: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.queue.put_nowait((message, sent))
        return sent

    async def put(self, message: Message | None) -> None:
        async with asyncio.timeout(5):
            await self.begin(message)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def feed() -> Feed:
    return Feed()


@pytest.fixture(autouse=True)
async def leaves_no_task() -> AsyncIterator[None]:
    """No test may leave a heartbeat or a call behind."""
    yield
    assert not {task.get_name() for task in asyncio.all_tasks()} & {"streamware heartbeat", "the server's call"}


class TestSilence:
    async def test_sends_a_comment_with_one_newline_after_each_interval(self, clock: FakeClock, feed: Feed) -> None:
        async with Connection(HeartbeatMiddleware(feed, interval=15, clock=clock)) as conn:
            await feed.put(start())
            await feed.put(body(b"data: a\n\n"))
            await clock.advance(14.9)
            assert conn.body == b"data: a\n\n"

            await clock.advance(0.1)
            assert conn.chunks == [b"data: a\n\n", COMMENT]

            await clock.advance(30)
            assert conn.chunks == [b"data: a\n\n", COMMENT, COMMENT, COMMENT]

    async def test_counts_silence_from_the_last_message(self, clock: FakeClock, feed: Feed) -> None:
        async with Connection(HeartbeatMiddleware(feed, interval=15, clock=clock)) as conn:
            await feed.put(start())
            for _ in range(10):
                await clock.advance(14)
                await feed.put(body(b"data: a\n\n"))
            assert COMMENT not in conn.chunks

            await clock.advance(14.9)
            assert COMMENT not in conn.chunks
            await clock.advance(0.1)
            assert conn.chunks[-1] == COMMENT

    async def test_sets_one_timer_whatever_the_number_of_messages(self, clock: FakeClock, feed: Feed) -> None:
        async with Connection(HeartbeatMiddleware(feed, clock=clock)) as conn:
            await feed.put(start())
            for _ in range(100):
                await feed.put(body(b"data: a\n\n"))

            assert clock.timers == 1
            await feed.put(body(b"", more=False))
            assert clock.timers == 0
            assert conn.complete

    async def test_needs_no_first_byte_of_the_app(self, clock: FakeClock, feed: Feed) -> None:
        async with Connection(HeartbeatMiddleware(feed, interval=15, clock=clock)) as conn:
            await clock.advance(60)
            assert conn.messages == []

            await feed.put(start())
            await clock.advance(15)
            assert conn.chunks == [COMMENT]

    async def test_counts_what_it_sends(self, clock: FakeClock, feed: Feed) -> None:
        observer = CountingObserver()
        async with Connection(HeartbeatMiddleware(feed, interval=15, clock=clock, observer=observer)):
            await feed.put(start())
            await clock.advance(30)

        assert observer.counts == {("heartbeat.sent", "comment"): 2}

    async def test_sends_a_named_event_where_asked_to(self, clock: FakeClock, feed: Feed) -> None:
        observer = CountingObserver()
        app = HeartbeatMiddleware(feed, interval=15, event="heartbeat", clock=clock, observer=observer)
        async with Connection(app) as conn:
            await feed.put(start())
            await clock.advance(15)

            assert conn.body == b"event: heartbeat\ndata: {}\n\n"
            assert (await conn.event()).event == "heartbeat"
        assert observer.counts == {("heartbeat.sent", "event"): 1}

    async def test_sends_empty_lines_on_ndjson_where_asked_to(self, clock: FakeClock, feed: Feed) -> None:
        observer = CountingObserver()
        app = HeartbeatMiddleware(feed, interval=15, ndjson=True, clock=clock, observer=observer)
        async with Connection(app) as conn:
            await feed.put(start([(b"Content-Type", b"application/x-ndjson")]))
            await feed.put(body(b'{"a": 1}\n{"b"'))
            await clock.advance(60)
            assert conn.body == b'{"a": 1}\n{"b"'

            await feed.put(body(b": 2}\n"))
            await clock.advance(15)
            assert conn.body == b'{"a": 1}\n{"b": 2}\n\n'
        assert observer.counts == {("heartbeat.sent", "line"): 1}


class TestBoundaries:
    @pytest.mark.parametrize("tail", [b"data: b", b"data: b\n", b"id: 1\r\n", b"data: b\r\n\r", b": com", b"\r"])
    async def test_sends_nothing_inside_an_event(self, tail: bytes, clock: FakeClock, feed: Feed) -> None:
        async with Connection(HeartbeatMiddleware(feed, interval=15, clock=clock)) as conn:
            await feed.put(start())
            await feed.put(body(b"data: a\n\n" + tail))
            await clock.advance(100)
            assert conn.body == b"data: a\n\n" + tail

            await feed.put(body(b"\n\n"))
            await clock.advance(15)
            assert conn.body == b"data: a\n\n" + tail + b"\n\n" + COMMENT

    async def test_finds_the_boundary_of_an_event_sent_byte_by_byte(self, clock: FakeClock, feed: Feed) -> None:
        async with Connection(HeartbeatMiddleware(feed, interval=1, clock=clock)) as conn:
            await feed.put(start())
            for octet in b"data: a\r\n\r\n":
                await feed.put(body(bytes([octet])))
                await clock.advance(5)

            assert conn.body == b"data: a\r\n\r\n" + COMMENT * 5

    async def test_goes_behind_a_comment_line_of_the_app(self, clock: FakeClock, feed: Feed) -> None:
        """What Resume makes of the app's own pings: a line, and no blank one."""
        async with Connection(HeartbeatMiddleware(feed, interval=15, clock=clock)) as conn:
            await feed.put(start())
            await feed.put(body(b":\n"))
            await clock.advance(15)

            assert conn.chunks == [b":\n", COMMENT]

    async def test_takes_a_memoryview(self, clock: FakeClock, feed: Feed) -> None:
        sent: list[Message] = []

        async def send(message: Message) -> None:
            sent.append(message)

        async def receive() -> Message:
            return await asyncio.get_running_loop().create_future()

        scope: Scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
        call = asyncio.ensure_future(HeartbeatMiddleware(feed, interval=15, clock=clock)(scope, receive, send))
        view = memoryview(b"data: a\n\n")
        await feed.put(start())
        await feed.put({"type": "http.response.body", "body": view, "more_body": True})
        await clock.advance(15)
        await feed.put(None)
        await call

        assert sent[1]["body"] is view
        assert sent[2]["body"] == COMMENT

    @pytest.mark.parametrize("cuts", [(), (1,), (2,), (3,), (1, 2), (1, 2, 3)])
    async def test_a_byte_order_mark_does_not_end_up_behind_a_heartbeat(
        self, cuts: tuple[int, ...], clock: FakeClock, feed: Feed
    ) -> None:
        data = b"\xef\xbb\xbfdata: a\n\n"
        async with Connection(HeartbeatMiddleware(feed, interval=15, clock=clock)) as conn:
            await feed.put(start())
            await clock.advance(15)
            for begin, end in zip((0, *cuts), (*cuts, len(data)), strict=True):
                await feed.put(body(data[begin:end]))
            await feed.put(body(b"data: b\n\n", more=False))

            assert conn.body == COMMENT + b"data: a\n\ndata: b\n\n"

    async def test_keeps_the_byte_order_mark_of_a_stream_without_a_heartbeat(
        self, clock: FakeClock, feed: Feed
    ) -> None:
        async with Connection(HeartbeatMiddleware(feed, clock=clock)) as conn:
            await feed.put(start())
            await feed.put(body(b"\xef"))
            await feed.put(body(b"\xbb\xbfdata: a\n\n", more=False))

            assert conn.body == b"\xef\xbb\xbfdata: a\n\n"

    async def test_what_only_looks_like_a_byte_order_mark_is_not_lost(self, clock: FakeClock, feed: Feed) -> None:
        async with Connection(HeartbeatMiddleware(feed, interval=15, clock=clock)) as conn:
            await feed.put(start())
            await clock.advance(15)
            await feed.put(body(b"\xef\xbb"))
            await feed.put(body(b"\x00", more=False))

            assert conn.body == COMMENT + b"\xef\xbb\x00"
            assert conn.complete


STREAM = st.lists(
    st.sampled_from(
        [
            "data: a",
            "data:",
            "data: \u00e9\u4e2d",
            "id: 7",
            "id",
            "event: x",
            "retry: 5",
            ": c",
            ":",
            "",
            "",
            "other: 1",
        ]
    ),
    max_size=12,
)


@settings(max_examples=150, deadline=None)
@given(
    lines=STREAM,
    ends=st.lists(st.sampled_from(["\n", "\r\n", "\r"]), min_size=12, max_size=12),
    bom=st.booleans(),
    cuts=st.lists(st.integers(0, 80), max_size=12),
    pauses=st.lists(st.sampled_from([0.0, 1.0, 2.0]), min_size=14, max_size=14),
    event=st.sampled_from([None, "beat"]),
)
def test_heartbeats_at_any_moment_change_no_event(
    lines: list[str], ends: list[str], bom: bool, cuts: list[int], pauses: list[float], event: str | None
) -> None:
    """Any stream, split at any bytes, silent between any of the parts: an EventSource sees the events of the app."""
    text = "".join(line + end for line, end in zip(lines, ends, strict=False))
    data = (b"\xef\xbb\xbf" if bom else b"") + text.encode() + b"\n\n"
    places = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})

    async def run() -> bytes:
        clock, feed = FakeClock(), Feed()
        async with Connection(HeartbeatMiddleware(feed, interval=1, event=event, clock=clock)) as conn:
            await feed.put(start())
            for begin, end, pause in zip(places, places[1:], pauses, strict=False):
                await clock.advance(pause)
                await feed.put(body(data[begin:end]))
            await clock.advance(1)
            await feed.put(body(b"", more=False))
            return conn.body

    sent = asyncio.run(run())
    bare, beaten = EventReader(), EventReader()
    expected = bare.read([data])
    got = [received for received in beaten.read([sent]) if received.event != "beat"]

    assert got == expected
    assert beaten.retry == bare.retry
    assert len(sent) > len(data) - 3  # the last pause, at the least, has got its heartbeat


class TestSteppingAside:
    @pytest.mark.parametrize(
        ("method", "status", "headers"),
        [
            ("GET", 200, [(b"content-type", b"application/json")]),
            ("GET", 200, [(b"content-type", b"text/html")]),
            ("GET", 200, [(b"content-type", b"text/event-streams")]),
            ("GET", 200, [(b"content-type", b"application/x-ndjson")]),
            ("GET", 200, []),
            ("GET", 200, [*SSE, (b"content-encoding", b"gzip")]),
            ("GET", 200, [*SSE, (b"Content-Length", b"9")]),
            ("GET", 204, SSE),
            ("GET", 205, SSE),
            ("GET", 304, SSE),
            ("GET", 404, SSE),
            ("GET", 500, SSE),
            ("HEAD", 200, SSE),
        ],
    )
    async def test_leaves_other_responses_alone(
        self, method: str, status: int, headers: list[tuple[bytes, bytes]], clock: FakeClock, feed: Feed
    ) -> None:
        async with Connection(HeartbeatMiddleware(feed, clock=clock), method=method) as conn:
            await feed.put(start(headers, status))
            await clock.advance(100)

            assert clock.timers == 0
            assert len(conn.messages) == 1
            await feed.put(body(b"123456789" if method == "GET" and status == 200 else b"", more=False))

    async def test_gives_other_responses_the_servers_own_send(self) -> None:
        results: list[object] = []
        marker = asyncio.sleep(0)

        def send(message: Message) -> Awaitable[None]:
            return marker if message["type"] == "http.response.body" else asyncio.sleep(0)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await send(start([(b"content-type", b"application/json")]))
            results.append(send(body(b"{}", more=False)))

        async def receive() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        await HeartbeatMiddleware(app)({"type": "http", "method": "GET", "path": "/", "headers": []}, receive, send)
        await marker

        assert results == [marker]

    @pytest.mark.parametrize(
        ("options", "scope"),
        [
            ({}, {"type": "lifespan"}),
            ({}, {"type": "mcp.future"}),
            ({}, {"type": "websocket", "path": "/"}),
            ({"interval": None}, {"type": "http", "path": "/"}),
            ({"interval": None, "websocket": "ping"}, {"type": "websocket", "path": "/"}),
            ({"exclude": ["/x*"]}, {"type": "http", "path": "/xyz"}),
            ({"paths": ["/x*"]}, {"type": "http", "path": "/abc"}),
        ],
    )
    async def test_passes_the_very_objects_on(self, options: dict[str, object], scope: Scope) -> None:
        seen: list[object] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            seen.extend((scope, receive, send))

        async def receive() -> Message:
            return {}

        async def send(message: Message) -> None:
            return None

        await HeartbeatMiddleware(app, **options)(scope, receive, send)

        assert [id(value) for value in seen] == [id(scope), id(receive), id(send)]

    async def test_changes_neither_scope_nor_messages(self, clock: FakeClock, feed: Feed) -> None:
        messages = [start(), body(b"data: a\n\n"), body(b"", more=False)]
        conn = Connection(HeartbeatMiddleware(feed, interval=1, clock=clock))
        scope, before = copy.deepcopy(conn.scope), copy.deepcopy(messages)

        async with conn:
            for message in messages:
                await feed.put(message)
                await clock.advance(2)

        assert conn.scope == scope
        assert messages == before
        assert conn.messages[0]["headers"] is SSE

    async def test_takes_headers_that_can_be_read_only_once(self, clock: FakeClock, feed: Feed) -> None:
        async with Connection(HeartbeatMiddleware(feed, interval=1, clock=clock)) as conn:
            await feed.put(start(header for header in SSE))
            await clock.advance(1)

            assert conn.messages[0]["headers"] == SSE
            assert conn.chunks == [COMMENT]

    async def test_is_silent_where_no_asyncio_loop_runs(self) -> None:
        """A server or a test client on trio: the stream goes through without heartbeats."""
        sent: list[bytes] = []

        async def send(message: Message) -> None:
            sent.append(message.get("body", b""))

        async def receive() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            for message in (start(), body(b"data: a\n\n"), body(b"", more=False)):
                await send(message)

        scope: Scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
        await asyncio.to_thread(run_without_loop, HeartbeatMiddleware(app)(scope, receive, send))

        assert sent == [b"", b"data: a\n\n", b""]


class TestOneAtATime:
    async def test_a_send_that_waits_is_not_silence(self, clock: FakeClock, feed: Feed) -> None:
        async with Connection(HeartbeatMiddleware(feed, interval=15, clock=clock)) as conn:
            await feed.put(start())
            conn.stall()
            sent = feed.begin(body(b"data: a\n\n"))
            await clock.advance(100)
            assert conn.chunks == []

            conn.unstall()
            await sent
            await clock.advance(14.9)
            assert conn.chunks == [b"data: a\n\n"]
            await clock.advance(0.1)
            assert conn.chunks == [b"data: a\n\n", COMMENT]

    @pytest.mark.parametrize("first", [b"", b"data: first\n\n"])
    async def test_the_app_waits_for_a_heartbeat_under_way(self, first: bytes, clock: FakeClock, feed: Feed) -> None:
        order: list[str] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            async def slow_send(message: Message) -> None:
                order.append(f"begin {message.get('body')}")
                await send(message)
                order.append(f"end {message.get('body')}")

            await HeartbeatMiddleware(feed, interval=15, clock=clock)(scope, receive, slow_send)

        async with Connection(app) as conn:
            await feed.put(start())
            await feed.put(body(first))
            conn.stall()
            await clock.advance(15)
            sent = feed.begin(body(b"data: a\n\n"))
            await clock.advance(100)
            assert order[4:] == ["begin b':\\n'"]

            conn.unstall()
            await sent
            assert order[4:] == ["begin b':\\n'", "end b':\\n'", "begin b'data: a\\n\\n'", "end b'data: a\\n\\n'"]

    async def test_a_message_that_may_not_have_been_sent_closes_the_boundary(
        self, clock: FakeClock, feed: Feed
    ) -> None:
        stalled = asyncio.Event()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await send(start())
            await stalled.wait()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0):
                    await send(body(b"data: a\n\n"))
            await feed(scope, receive, send)

        async with Connection(HeartbeatMiddleware(app, interval=15, clock=clock)) as conn:
            await conn.start()
            conn.stall()
            stalled.set()
            await settle()
            conn.unstall()
            await clock.advance(100)
            assert COMMENT not in conn.chunks

            await feed.put(body(b"data: b\n\n"))
            await clock.advance(15)
            assert conn.chunks[-1] == COMMENT


class TestEnds:
    @pytest.mark.parametrize("server", SERVERS)
    async def test_sends_nothing_after_the_end(self, server: str, clock: FakeClock, feed: Feed) -> None:
        async with Connection(HeartbeatMiddleware(feed, clock=clock), server=server) as conn:
            await feed.put(start())
            await feed.put(body(b"data: a\n\n", more=False))
            await clock.advance(100)

            assert conn.complete
            assert len(conn.messages) == 2
            assert clock.timers == 0

    @pytest.mark.parametrize("server", SERVERS)
    async def test_sends_nothing_to_a_client_that_has_left(self, server: str, clock: FakeClock, feed: Feed) -> None:
        async with Connection(HeartbeatMiddleware(feed, clock=clock), server=server) as conn:
            await feed.put(start())
            conn.drop()
            await clock.advance(100)

            assert conn.sent_after_disconnect == []
            assert clock.timers == 0

    async def test_sends_nothing_to_a_client_that_leaves_as_the_timer_fires(self, feed: Feed) -> None:
        class DroppingClock(FakeClock):
            def call_later(self, delay: float, callback: Callable[[], object]) -> FakeTimer:
                return super().call_later(delay, lambda: (conn.drop(), callback()))

        clock = DroppingClock()
        conn = Connection(HeartbeatMiddleware(feed, interval=15, clock=clock))
        async with conn:
            await feed.put(start())
            await clock.advance(15)

            assert conn.dropped
            assert conn.sent_after_disconnect == []
            assert clock.timers == 0

    async def test_sends_nothing_to_a_client_that_leaves_while_the_start_is_sent(
        self, clock: FakeClock, feed: Feed
    ) -> None:
        async with Connection(HeartbeatMiddleware(feed, clock=clock)) as conn:
            await settle()
            conn.stall()
            feed.begin(start())
            await settle()
            conn.drop()
            await clock.advance(100)

            assert conn.sent_after_disconnect == []
            assert clock.timers == 0

    async def test_returns_nothing_after_the_call(self, clock: FakeClock, feed: Feed) -> None:
        """The app returns without a final body: no timer, and no heartbeat after it."""
        async with Connection(HeartbeatMiddleware(feed, clock=clock)) as conn:
            await feed.put(start())
            await feed.put(None)
            await conn.finished()
            await clock.advance(100)

            assert conn.chunks == []
            assert clock.timers == 0

    @pytest.mark.parametrize("messages", [[], [start()], [start(), body(b"data: a\n\n")]])
    async def test_lets_the_apps_exception_through(self, messages: list[Message], clock: FakeClock) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            for message in messages:
                await send(message)
            raise KeyError("the app's own")

        async with Connection(HeartbeatMiddleware(app, clock=clock)) as conn:
            with pytest.raises(KeyError, match="the app's own"):
                await conn.finished()

        assert clock.timers == 0

    async def test_cancellation_leaves_neither_task_nor_timer(self, clock: FakeClock, feed: Feed) -> None:
        async with Connection(HeartbeatMiddleware(feed, clock=clock)) as conn:
            await feed.put(start())
            conn.cancel()
            await conn.finished()

            assert isinstance(conn.exception, asyncio.CancelledError)
            assert clock.timers == 0

    @pytest.mark.parametrize("end", ["cancel", "drop", "return"])
    async def test_a_heartbeat_under_way_does_not_outlive_the_call(
        self, end: str, clock: FakeClock, feed: Feed
    ) -> None:
        left: list[int] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            try:
                await HeartbeatMiddleware(feed, interval=15, clock=clock)(scope, receive, send)
            finally:
                left.append(beats())

        def beats() -> int:
            return sum(task.get_name() == "streamware heartbeat" for task in asyncio.all_tasks())

        async with Connection(app) as conn:
            await feed.put(start())
            conn.stall()
            await clock.advance(15)
            assert beats() == 1

            if end == "cancel":
                conn.cancel()
            elif end == "drop":
                conn.drop()
                await feed.put(None)
            else:
                await feed.put(None)
            await conn.finished()
            conn.unstall()
            await settle()

            assert conn.chunks == []
        assert left == [0]

    async def test_stops_at_a_server_that_raises_for_a_client_that_has_left(self, clock: FakeClock) -> None:
        calls: list[Message] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            async def failing_send(message: Message) -> None:
                calls.append(message)
                if message["type"] == "http.response.body":
                    raise OSError("gone")
                await send(message)

            async def silent(scope: Scope, receive: Receive, send: Send) -> None:
                await send(start())
                await asyncio.get_running_loop().create_future()

            await HeartbeatMiddleware(silent, interval=15, clock=clock)(scope, receive, failing_send)

        async with Connection(app) as conn:
            await conn.start()
            await clock.advance(100)

            assert len(calls) == 2
            assert clock.timers == 0

    async def test_stops_and_says_so_where_the_server_fails(
        self, clock: FakeClock, feed: Feed, caplog: pytest.LogCaptureFixture
    ) -> None:
        observer = CountingObserver()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            async def failing_send(message: Message) -> None:
                if message.get("body") == COMMENT:
                    raise RuntimeError("a server's own reason")
                await send(message)

            await HeartbeatMiddleware(feed, clock=clock, observer=observer)(scope, receive, failing_send)

        async with Connection(app) as conn:
            await feed.put(start())
            await clock.advance(100)
            await feed.put(body(b"data: a\n\n", more=False))

            assert conn.complete
        assert observer.counts == {("heartbeat.failed", ""): 1}
        assert [record.name for record in caplog.records] == ["streamware.heartbeat"]


class TestOtherMessages:
    async def test_passes_what_comes_before_the_start(self, clock: FakeClock, feed: Feed) -> None:
        early = {"type": "http.response.early_hint", "links": [b"</a.css>"]}
        debug = {"type": "http.response.debug", "info": {}}
        async with Connection(HeartbeatMiddleware(feed, clock=clock)) as conn:
            await feed.put(early)
            await feed.put(debug)
            await feed.put(start())

            assert conn.messages == [early, debug, start()]

    async def test_passes_trailers(self, clock: FakeClock, feed: Feed) -> None:
        trailers = {"type": "http.response.trailers", "headers": [(b"x", b"y")], "more_trailers": False}
        async with Connection(HeartbeatMiddleware(feed, clock=clock)) as conn:
            await feed.put({**start(), "trailers": True})
            await feed.put(body(b"data: a\n\n", more=False))
            await clock.advance(100)
            await feed.put(trailers)

            assert [message["type"] for message in conn.messages][2:] == ["http.response.trailers"]
            assert conn.complete

    async def test_a_sent_path_is_the_end(self, clock: FakeClock, feed: Feed) -> None:
        async with Connection(HeartbeatMiddleware(feed, clock=clock), server="granian") as conn:
            await feed.put(start())
            await feed.put({"type": "http.response.pathsend", "path": "/a"})
            await clock.advance(100)

            assert len(conn.messages) == 2
            assert clock.timers == 0

    async def test_an_unknown_message_may_have_opened_an_event(self, clock: FakeClock, feed: Feed) -> None:
        async with Connection(HeartbeatMiddleware(feed, interval=15, clock=clock)) as conn:
            await feed.put(start())
            await feed.put({"type": "http.response.zerocopysend", "file": 3, "more_body": True})
            await clock.advance(100)
            assert len(conn.messages) == 2

            await feed.put(body(b"\n\n"))
            await clock.advance(15)
            assert conn.chunks == [b"\n\n", COMMENT]

    async def test_leaves_a_second_start_to_the_server(self, clock: FakeClock, feed: Feed) -> None:
        async with Connection(HeartbeatMiddleware(feed, clock=clock)) as conn:
            await feed.put(start())
            await feed.put(start())
            with pytest.raises(AssertionError, match=r"http\.response\.start after the start"):
                await conn.finished()
            conn.violations.clear()


async def test_connections_do_not_touch_each_other(clock: FakeClock) -> None:
    feeds: list[Feed] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        feeds.append(Feed())
        await feeds[-1](scope, receive, send)

    heartbeat = HeartbeatMiddleware(app, interval=15, clock=clock)
    async with Connection(heartbeat) as first, Connection(heartbeat) as second:
        await settle()
        await feeds[0].put(start())
        await feeds[0].put(body(b"data: torn"))
        await clock.advance(5)
        await feeds[1].put(start())
        await clock.advance(15)

        assert first.chunks == [b"data: torn"]
        assert second.chunks == [COMMENT]
        first.drop()
        await clock.advance(15)
        assert second.chunks == [COMMENT, COMMENT]


@pytest.mark.parametrize("server", SERVERS)
async def test_works_as_each_server_calls_it(server: str, clock: FakeClock, feed: Feed) -> None:
    async with Connection(HeartbeatMiddleware(feed, interval=15, clock=clock), server=server) as conn:
        await feed.put(start())
        await clock.advance(15)
        await feed.put(body(b"data: a\n\n"))
        await clock.advance(15)
        await feed.put(body(b"", more=False))
        await feed.put(None)
        await conn.finished()

        assert conn.chunks == [COMMENT, b"data: a\n\n", COMMENT, b""]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"interval": 0}, "interval must be > 0 seconds, or None to disable, got 0"),
        ({"interval": -1}, "interval must be > 0 seconds"),
        ({"interval": True}, "interval must be > 0 seconds"),
        ({"interval": "15"}, "interval must be > 0 seconds"),
        ({"interval": float("nan")}, "interval must be > 0 seconds"),
        ({"interval": float("inf")}, "interval must be > 0 seconds"),
        ({"idle_timeout": 0}, "idle_timeout must be > 0 seconds"),
        ({"event": ""}, "event must be the name of an event"),
        ({"event": "a\nb"}, "event must be the name of an event"),
        ({"event": b"beat"}, "event must be the name of an event"),
        ({"event": "\ud800"}, "event must be text that UTF-8 can encode"),
        ({"ndjson": 1}, "ndjson must be True or False"),
        ({"websocket": ""}, "websocket must be the text of a message"),
        ({"websocket": True}, "websocket must be the text of a message"),
        ({"paths": "/a"}, "paths must be a list"),
    ],
)
def test_a_wrong_option_is_refused_when_it_is_built(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match="HeartbeatMiddleware: " + message):
        HeartbeatMiddleware(Feed(), **options)
