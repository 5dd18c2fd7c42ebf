"""The test kit itself: the clock, the drivers, the servers that they play, and the order check."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamware.testing import (
    SERVERS,
    UVICORN,
    Connection,
    ConnectionEndedError,
    EventReader,
    FakeClock,
    MessageOrder,
    MessageOrderError,
    ReceivedEvent,
    WebSocketConnection,
    check_order,
    settle,
)
from streamware.types import ASGIApp, Message, Receive, Scope, Send
from streamware.wire.eventsource import Interpreter

START: Message = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]}
END: Message = {"type": "http.response.body", "body": b"", "more_body": False}
ACCEPT: Message = {"type": "websocket.accept"}


def body(data: bytes, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}


def sends(*messages: Message) -> ASGIApp:
    """An app that sends these and returns."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    return app


class TestFakeClock:
    async def test_runs_timers_in_order_at_their_own_times(self) -> None:
        clock = FakeClock(start=100)
        ran: list[tuple[str, float]] = []
        for name, delay in (("late", 5), ("early", 1), ("first of two", 3), ("second of two", 3), ("never", 6)):
            clock.call_later(delay, lambda name=name: ran.append((name, clock.now())))

        await clock.advance(5)

        assert ran == [("early", 101), ("first of two", 103), ("second of two", 103), ("late", 105)]
        assert clock.now() == 105
        assert clock.timers == 1

    async def test_runs_timers_that_a_timer_sets_or_wakes_a_task_to_set(self) -> None:
        clock = FakeClock(start=0)
        ran: list[float] = []
        woken = asyncio.Event()

        async def sleeper() -> None:
            await woken.wait()
            clock.call_later(1, lambda: ran.append(clock.now()))

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(sleeper())
            clock.call_later(1, woken.set)
            await clock.advance(10)

        assert ran == [2]
        assert clock.now() == 10

    async def test_does_not_run_a_cancelled_timer(self) -> None:
        clock = FakeClock()
        ran: list[str] = []
        timer = clock.call_later(1, lambda: ran.append("cancelled"))

        timer.cancel()
        assert clock.timers == 0
        await clock.advance(2)
        timer.cancel()

        assert ran == []

    async def test_does_not_go_back(self) -> None:
        with pytest.raises(ValueError, match="time does not go back"):
            await FakeClock().advance(-1)


class TestConnection:
    async def test_streams_events_to_the_end(self) -> None:
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
            assert conn.pending_events == [ReceivedEvent("message", "b", "1")]
            assert await conn.events(1) == [ReceivedEvent("message", "b", "1")]
            await conn.receive_body()
            assert conn.complete
            await conn.finished()

        assert conn.scope["query_string"] == b"y=1"
        assert conn.scope["headers"] == [(b"host", b"testserver"), (b"accept", b"text/event-stream")]
        assert conn.chunks == [b"id: 1\ndata: a\n\nda", b"ta: b\n\n", b""]

    async def test_sends_the_request_body_in_parts(self) -> None:
        received: list[Message] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            while (message := await receive())["type"] == "http.request":
                received.append(message)
            received.append(message)

        async with Connection(app, method="POST", body=None) as conn:
            await settle()
            assert received == []
            conn.send_body(b"half", more=True)
            await settle()
            assert received == [{"type": "http.request", "body": b"half", "more_body": True}]
            conn.drop()
            await conn.finished()

        assert received[1:] == [{"type": "http.disconnect"}]

    @pytest.mark.parametrize("until", [6, b"data: b", lambda text: text.endswith(b"b\n\n")])
    async def test_waits_for_a_part_of_the_body(self, until: int | bytes | Callable[[bytes], bool]) -> None:
        async with Connection(sends(START, body(b"data: a\n\n"), body(b"data: b\n\n"), END)) as conn:
            assert (await conn.receive_body(until)).startswith(b"data: a")

    async def test_says_that_what_is_waited_for_cannot_come(self) -> None:
        async with Connection(sends(START, body(b"data: a\n\n"), END)) as conn:
            with pytest.raises(ConnectionEndedError):
                await conn.events(2)
        async with Connection(sends(START)) as conn:
            with pytest.raises(ConnectionEndedError):
                await conn.receive_body()
        async with Connection(sends()) as conn:
            with pytest.raises(ConnectionEndedError):
                await conn.start()

    async def test_says_what_it_has_waited_for_too_long(self) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await asyncio.get_running_loop().create_future()

        async with Connection(app, timeout=0.01) as conn:
            with pytest.raises(TimeoutError, match=r"no the start of the response within 0\.01 s"):
                await conn.start()
            with pytest.raises(TimeoutError, match="has not returned"):
                await conn.finished()

    async def test_hands_out_the_apps_exception(self) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            raise KeyError("the app's own")

        async with Connection(app) as conn:
            with pytest.raises(KeyError):
                await conn.start()
            with pytest.raises(KeyError):
                await conn.finished()
            assert isinstance(conn.exception, KeyError)

    async def test_blocks_sends_of_a_stalled_client(self) -> None:
        sent: list[bytes] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await send(START)
            for data in (b"a", b"b"):
                await send(body(data))
                sent.append(data)

        async with Connection(app) as conn:
            conn.stall()
            await settle()
            assert not conn.started
            conn.unstall()
            await conn.finished()
            assert sent == [b"a", b"b"]

    async def test_is_complete_only_when_the_end_has_gone_out(self) -> None:
        started = asyncio.Event()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await send(START)
            await started.wait()
            await send(END)

        async with Connection(app) as conn:
            await conn.start()
            conn.stall()
            started.set()
            await settle()
            assert not conn.complete

            conn.unstall()
            await conn.finished()
            assert conn.complete

    async def test_a_blocked_send_returns_when_the_client_leaves(self) -> None:
        async with Connection(sends(START, body(b"a"))) as conn:
            conn.stall()
            await settle()
            conn.drop()
            await conn.finished()

        assert conn.messages == []

    async def test_sends_after_the_disconnect_are_silent_and_never_yield(self) -> None:
        turns: list[int] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            assert (await receive())["type"] == "http.disconnect"
            asyncio.get_running_loop().call_soon(turns.append, 1)
            for _ in range(3):
                await send(START)
            assert turns == []

        async with Connection(app) as conn:
            conn.drop()
            await conn.finished()

        assert conn.messages == []
        assert conn.sent_after_disconnect == [START] * 3

    async def test_cancels_the_call_as_a_server_does(self) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await send(START)
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                await send(body(b"last words"))
                raise

        async with Connection(app) as conn:
            await conn.start()
            conn.cancel()
            await conn.finished()

            assert conn.body == b"last words"
            assert isinstance(conn.exception, asyncio.CancelledError)
            assert conn.returned

    async def test_leaving_the_block_ends_the_call(self) -> None:
        ended = asyncio.Event()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                ended.set()

        async with Connection(app):
            await settle()

        assert ended.is_set()

    async def test_status_and_headers_need_a_start(self) -> None:
        conn = Connection(sends())
        with pytest.raises(RuntimeError, match="has not started"):
            _ = conn.status
        await conn.aclose()


class TestViolations:
    async def test_a_send_after_the_call_returned_is_one(self) -> None:
        late: list[Send] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            late.append(send)

        conn = Connection(app)
        await conn.finished()
        await late[0](START)

        with pytest.raises(MessageOrderError, match=r"send\(http.response.start\) after the call returned"):
            conn.check()

    async def test_a_receive_after_the_call_returned_is_one(self) -> None:
        late: list[Receive] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            late.append(receive)

        async with Connection(app) as conn:
            await conn.finished()
            with pytest.raises(asyncio.CancelledError):
                await late[0]()
            assert conn.violations == ["receive() after the call returned"]
            conn.violations.clear()

    async def test_a_receive_left_waiting_is_one(self) -> None:
        left: list[asyncio.Future[Message]] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            left.append(asyncio.ensure_future(receive()))
            await asyncio.sleep(0)

        async with Connection(app) as conn:
            with pytest.raises(MessageOrderError, match=r"while a receive\(\) was waiting"):
                await conn.finished()
            conn.violations.clear()
            left[0].cancel()
            await settle()

    async def test_a_receive_cancelled_on_the_way_out_is_none(self) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            listener = asyncio.ensure_future(receive())
            await asyncio.sleep(0)
            listener.cancel()

        async with Connection(app) as conn:
            await conn.finished()

    async def test_one_that_the_app_swallows_is_found_all_the_same(self) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            try:
                await send(END)
            except Exception:
                await send(START)

        with pytest.raises(MessageOrderError, match="body before the start"):
            async with Connection(app) as conn:
                await conn.start()

    async def test_an_error_of_the_test_itself_is_not_hidden_by_one(self) -> None:
        async def test() -> None:
            async with Connection(sends()) as conn:
                conn.violations.append("something")
                raise KeyError

        with pytest.raises(KeyError):
            await test()


class TestServers:
    @pytest.mark.parametrize("server", SERVERS)
    async def test_a_second_receive_after_the_disconnect(self, server: str) -> None:
        kinds: list[str] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            while len(kinds) < 3:
                kinds.append((await receive())["type"])

        async with Connection(app, server=server) as conn:
            await settle()
            conn.drop()
            await settle()

        again = ["http.disconnect"] if server in ("uvicorn", "granian") else []
        assert kinds == ["http.request", "http.disconnect", *again]

    @pytest.mark.parametrize("server", SERVERS)
    async def test_a_first_receive_after_the_disconnect(self, server: str) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await settle(3)
            kinds.append((await receive())["type"])

        kinds: list[str] = []
        async with Connection(app, server=server) as conn:
            conn.drop()
            await conn.finished()

        assert kinds == ["http.disconnect" if server in ("uvicorn", "granian") else "http.request"]

    async def test_granian_returns_awaitables_that_are_no_coroutines(self) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            with pytest.raises(TypeError):
                asyncio.get_running_loop().create_task(receive())  # type: ignore[arg-type]  # that is the point
            assert (await asyncio.ensure_future(receive()))["type"] == "http.request"
            await asyncio.wait_for(send(START), 1)
            await send(END)

        async with Connection(app, server="granian") as conn:
            await conn.receive_body()
            await conn.finished()

    async def test_scopes_differ_as_theirs_do(self) -> None:
        scopes = {name: Connection(sends(), server=name).scope for name in SERVERS}

        assert scopes["uvicorn"]["asgi"] == {"version": "3.0", "spec_version": "2.3"}
        assert scopes["daphne"]["asgi"] == {"version": "3.0"}
        assert "state" not in scopes["daphne"]
        assert "extensions" not in scopes["uvicorn"]
        assert scopes["hypercorn"]["extensions"] == {}
        assert scopes["granian"]["client"] == ("127.0.0.1", "50000")
        assert scopes["daphne"]["client"] == ["127.0.0.1", 50000]

    def test_the_scope_can_be_overridden(self) -> None:
        conn = Connection(sends(), spec_version="2.5", http_version="2", scope={"root_path": "/m", "user": 1})

        assert conn.scope["asgi"]["spec_version"] == "2.5"
        assert (conn.scope["http_version"], conn.scope["root_path"], conn.scope["user"]) == ("2", "/m", 1)

    def test_an_unknown_server_is_refused(self) -> None:
        with pytest.raises(ValueError, match="one of daphne, granian, hypercorn, uvicorn"):
            Connection(sends(), server="waitress")

    async def test_a_profile_can_be_ones_own(self) -> None:
        profile = dataclasses.replace(UVICORN, name="mine", spec_version="2.4", disconnects_again=False)

        assert Connection(sends(), server=profile).scope["asgi"]["spec_version"] == "2.4"


class TestWebSocketConnection:
    @pytest.mark.parametrize("server", SERVERS)
    async def test_talks_both_ways(self, server: str) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            assert (await receive())["type"] == "websocket.connect"
            await send({**ACCEPT, "subprotocol": scope["subprotocols"][0], "headers": [(b"x", b"y")]})
            while (message := await receive())["type"] == "websocket.receive":
                given = {key: message[key] for key in ("text", "bytes") if message.get(key) is not None}
                await send({"type": "websocket.send", **given})
            codes.append(message["code"])

        codes: list[int] = []
        async with WebSocketConnection(app, server=server, subprotocols=["a.v1"]) as conn:
            await conn.start()
            assert (conn.subprotocol, conn.headers) == ("a.v1", [(b"x", b"y")])
            conn.send("text")
            conn.send(b"bytes")
            assert [await conn.receive(), await conn.receive()] == ["text", b"bytes"]
            conn.close(4123)
            await conn.finished()
        assert codes == [4123]

    @pytest.mark.parametrize(("server", "code"), [("uvicorn", 1005), ("hypercorn", 1006)])
    async def test_a_broken_connection_has_the_servers_code(self, server: str, code: int) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            codes.append((await receive())["code"])

        codes: list[int] = []
        async with WebSocketConnection(app, server=server) as conn:
            await conn.start()
            conn.drop()
            await conn.finished()
        assert codes == [code]

    async def test_daphne_refuses_most_close_codes(self) -> None:
        app = sends(ACCEPT, {"type": "websocket.close", "code": 1012})
        async with WebSocketConnection(app, server="daphne") as conn:
            with pytest.raises(ValueError, match="invalid close code 1012"):
                await conn.finished()
            conn.violations.clear()

    @pytest.mark.parametrize("server", SERVERS)
    async def test_a_send_to_a_client_that_has_left(self, server: str) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await send(ACCEPT)
            await receive()
            await receive()
            await send({"type": "websocket.send", "text": "late"})

        async with WebSocketConnection(app, server=server) as conn:
            await conn.start()
            conn.drop()
            if server == "uvicorn":
                with pytest.raises(OSError, match="disconnected"):
                    await conn.finished()
            else:
                await conn.finished()
        assert len(conn.sent_after_disconnect) == 1


HTTP_ORDER: list[tuple[list[Message], str]] = [
    ([{}], "type must be a str"),
    ([END], "body before the start"),
    ([START, START], "start after the start"),
    ([START, END, END], "after the end"),
    ([START, {"type": "http.response.body", "body": "text"}], "body must be bytes, got str"),
    ([START, {"type": "http.response.body", "body": None}], "body must be bytes, got NoneType"),
    ([{"type": "http.response.start"}], "status must be"),
    ([{"type": "http.response.start", "status": "200"}], "status must be"),
    ([{**START, "headers": [("a", "b")]}], "pair of bytes"),
    ([{**START, "headers": [b"a"]}], "must be a pair"),
    ([{**START, "headers": [(b"a", b"b\r\nc: d")]}], "no server can send"),
    ([{**START, "headers": [(b"content-length", b"x")]}], "must be a number"),
    ([{**START, "headers": [(b"content-length", b"1"), (b"content-length", b"2")]}], "several Content-Length"),
    ([{**START, "headers": [(b"content-length", b"1")]}, body(b"ab")], "2 bytes of body"),
    ([{**START, "headers": [(b"content-length", b"3")]}, body(b"ab", False)], "ends at 2 bytes"),
    ([START, {"type": "http.response.trailers", "headers": []}], "trailers after the start"),
    ([START, {"type": "http.response.early_hint", "links": []}], "early_hint after the start"),
    ([START, {"type": "http.response.pathsend", "path": "/a"}, END], "after the end"),
    ([ACCEPT], "on an HTTP connection"),
]


@pytest.mark.parametrize(("messages", "text"), HTTP_ORDER)
async def test_finds_wrong_http_messages(messages: list[Message], text: str) -> None:
    async with Connection(sends(*messages)) as conn:
        with pytest.raises(MessageOrderError, match=text):
            await conn.finished()
        assert len(conn.violations) == 1
        conn.violations.clear()


@pytest.mark.parametrize(
    "messages",
    [
        [START, body(b"a"), END],
        [{"type": "http.response.debug", "info": {}}, {"type": "http.response.early_hint", "links": []}, START, END],
        [{**START, "trailers": True}, END, {"type": "http.response.trailers", "headers": [(b"a", b"b")]}],
        [START, {"type": "http.response.zerocopysend", "file": 3, "more_body": True}, END],
        [START, {"type": "http.response.zerocopysend", "file": 3}],
        [START, {"type": "http.response.pathsend", "path": "/a"}],
        [{"type": "something.new"}, START, {"type": "http.response.something"}, END],
        [{"type": "http.response.start", "status": 304, "headers": [(b"content-length", b"9")]}, END],
    ],
)
async def test_lets_right_http_messages_pass(messages: list[Message]) -> None:
    async with Connection(sends(*messages)) as conn:
        await conn.finished()
        assert conn.complete
        assert conn.messages == messages


WEBSOCKET_ORDER: list[tuple[list[Message], str]] = [
    ([{"type": "websocket.send", "text": "a"}], "send before the start"),
    ([ACCEPT, ACCEPT], "accept after the accept"),
    ([ACCEPT, {"type": "websocket.send"}], "exactly one of"),
    ([ACCEPT, {"type": "websocket.send", "text": "a", "bytes": b"a"}], "exactly one of"),
    ([ACCEPT, {"type": "websocket.send", "text": b"a"}], "text holds a bytes"),
    ([ACCEPT, {"type": "websocket.close"}, {"type": "websocket.close"}], "after the end"),
    ([ACCEPT, {"type": "websocket.http.response.start", "status": 403}], "after the accept"),
    ([{"type": "websocket.http.response.body", "body": b""}], "before the start"),
    ([START], "on a WebSocket connection"),
]


@pytest.mark.parametrize(("messages", "text"), WEBSOCKET_ORDER)
async def test_finds_wrong_websocket_messages(messages: list[Message], text: str) -> None:
    async with WebSocketConnection(sends(*messages)) as conn:
        with pytest.raises(MessageOrderError, match=text):
            await conn.finished()
        conn.violations.clear()


async def test_a_websocket_may_be_refused_by_a_response() -> None:
    start: Message = {"type": "websocket.http.response.start", "status": 403, "headers": []}
    end: Message = {"type": "websocket.http.response.body", "body": b"no"}
    async with WebSocketConnection(sends(start, end)) as conn:
        assert await conn.closing() is None
        assert not conn.accepted


async def test_check_order_goes_around_any_app() -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {}

    await check_order(sends(START, END))({"type": "http"}, receive, send)
    with pytest.raises(MessageOrderError):
        await check_order(sends(END))({"type": "http"}, receive, send)
    await check_order(sends(END))({"type": "lifespan"}, receive, send)

    assert sent == [START, END, END]


def test_order_knows_the_end() -> None:
    order = MessageOrder({"type": "http", "method": "HEAD"})
    order.check({**START, "headers": [(b"content-length", b"5")]})
    assert not order.ended
    order.check(END)
    assert order.ended


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"\xef\xbb\xbfdata: a\n\n", [ReceivedEvent("message", "a", "")]),
        (b"data: a\r\rdata: b\r\n\r\n", [ReceivedEvent("message", "a", ""), ReceivedEvent("message", "b", "")]),
        (b"data\ndata: \n\n", [ReceivedEvent("message", "\n", "")]),
        (b"event: x\nid: 1\n\ndata: a\n\n", [ReceivedEvent("message", "a", "1")]),
        (b"event: x\ndata:  a\nid: 1\0\n\n", [ReceivedEvent("x", " a", "")]),
        (b"data: a\nid\n\n:c\nfoo: b\ndata: torn", [ReceivedEvent("message", "a", "")]),
        (b"data: \xe4\xb8\n\n", [ReceivedEvent("message", "\ufffd", "")]),
    ],
)
def test_reads_events_as_an_event_source_does(stream: bytes, events: list[ReceivedEvent]) -> None:
    assert EventReader().read([stream]) == events
    assert EventReader().read([stream[i : i + 1] for i in range(len(stream))]) == events


@given(
    parts=st.lists(
        st.sampled_from(
            [b"\xef\xbb\xbf", b"data: a", b"data", b"id: 1", b"id", b"event: x", b"retry: 5", b":c", b"\0", b"\xe4"]
        ),
        max_size=20,
    ),
    ends=st.lists(st.sampled_from([b"\n", b"\r\n", b"\r", b"\n\n", b""]), min_size=20, max_size=20),
    cut=st.integers(0, 200),
)
def test_reads_what_the_packages_own_interpreter_reads(parts: list[bytes], ends: list[bytes], cut: int) -> None:
    """The two share no code: where they differ, one of them is wrong."""
    stream = b"".join(part + end for part, end in zip(parts, ends, strict=False))
    chunks = [stream[:cut], stream[cut:]]

    interpreter = Interpreter()
    expected = [event for chunk in chunks for event in interpreter.feed(chunk)]
    reader = EventReader()
    got = reader.read(chunks)

    assert [(event.event, event.data, event.id) for event in got] == [
        (event.event, event.data, event.id) for event in expected
    ]
    assert reader.retry == interpreter.retry


def test_keeps_comments_and_the_reconnection_time() -> None:
    reader = EventReader()
    reader.read([b": ping\nretry: 300\nretry: 3x\n\n"])

    assert (reader.comments, reader.retry) == (["ping"], 300)
