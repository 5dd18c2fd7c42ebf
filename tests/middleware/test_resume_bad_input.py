"""Bad input, from clients and from apps: a clear answer, nothing lost, nothing hung, and no exception to the server
once the response has begun."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamware.testing import settle
from streamware.types import Receive, Scope, Send
from streamware.wire.cursor import new_stream_id
from streamware.wire.eventsource import Interpreter
from tests.middleware.resume_site import EVENTSOURCE, READER, SSE, Site, body, plain, start, until

LIKE_OR_NOT = pytest.mark.parametrize("headers", [EVENTSOURCE, READER], ids=["eventsource", "other"])
MEGABYTE = 1024 * 1024
STREAM = "swAAAAAA" + "x" * 22


# -- cursors


def cursors(stream: str) -> dict[str, str]:
    """Things that a client may send back for a cursor of ``stream``, and that are none."""
    return {
        "a megabyte": "x" * MEGABYTE,
        "a megabyte of digits": f"{stream}." + "9" * MEGABYTE,
        "a NUL": f"{stream}\0.1",
        "a NUL at the end": f"{stream}.1\0",
        "a newline": f"{stream}.1\n",
        "a newline within": f"{stream}\n.1",
        "negative": f"{stream}.-1",
        "minus one": "-1",
        "plus": f"{stream}.+1",
        "leading zero": f"{stream}.01",
        "a fraction": f"{stream}.1.5",
        "no number": f"{stream}.",
        "no place": stream,
        "not ASCII": f"{stream}.١".encode().decode("latin-1"),
        "latin-1": f"{stream}.²",
        "spaces": f" {stream}.1",
        "percent": f"{stream}%2E1",
        "another case": f"{stream.upper()}.1" if stream != stream.upper() else "",
        "empty": "",
        "beyond every number": f"{stream}.{10**15}",
    }


@LIKE_OR_NOT
@pytest.mark.parametrize("kind", list(cursors(STREAM)))
async def test_a_cursor_that_is_none_goes_to_the_app_as_it_came(headers: dict[str, str], kind: str) -> None:
    async with Site() as site:
        first, _ = await site.started("1", headers=headers)
        given = cursors(first.stream)[kind]
        again = site.connect(headers=headers, cursor=given)
        if kind == "another case":
            await settle()
            if again.returned:
                assert again.status == 410
                return
        run = await site.run(2)
        if kind != "another case":
            assert (b"last-event-id", given.encode("latin-1")) in run.scope["headers"]
        await run.stream("new")
        await again.receive_body(b"new")
        assert again.data == ["new"]
        assert again.stream != first.stream


@LIKE_OR_NOT
async def test_another_streams_cursor_on_a_streams_url_is_not_followed(headers: dict[str, str]) -> None:
    async with Site() as site:
        one = site.connect("/chat", headers=headers)
        await (await site.run(1)).stream("1.1", "1.2")
        await one.events(2)
        two = site.connect("/chat", headers=headers)
        await (await site.run(2)).stream("2.1", "2.2")
        await two.events(2)
        reader = site.connect(two.own_url, headers=headers, cursor=one.at(1))
        assert [event.data for event in await reader.events(2)] == ["2.1", "2.2"]


@LIKE_OR_NOT
@pytest.mark.parametrize("second", ["same", "other", "none"])
async def test_two_cursors_are_no_cursor(headers: dict[str, str], second: str) -> None:
    async with Site() as site:
        first, _ = await site.started("1", "2", headers=headers)
        other = {"same": first.at(1), "other": first.at(2), "none": "7"}[second]
        given = [*headers.items(), ("last-event-id", first.at(1)), ("last-event-id", other)]
        again = site.connect(headers=given)
        run = await site.run(2)
        await run.stream("new")
        await again.receive_body(b"new")
        assert again.data == ["new"]


async def test_far_future_and_far_past_are_answered() -> None:
    async with Site() as site:
        first, run = await site.started("1")
        future = site.connect(cursor=first.at(999_999_999_999_999))
        await site.clock.advance(1.1)
        await future.finished()
        assert future.status == 410
        past = site.connect(cursor=first.at(0))
        assert (await past.event()).data == "1"
        await run.end()


# -- other headers


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("prefer", "unknown-preference"),
        ("prefer", 'wait=; respond-asynchronously, ,,;="\x80'),
        ("prefer", "x" * MEGABYTE),
        ("prefer", "respond-async" * 10_000),
        ("accept", "text/event-stream" + ";q=1" * 10_000),
        ("accept", "text/event-stream;q=banana"),
        ("accept", ", , text/event-stream ,;"),
        ("accept", 'text/event-stream;x="a,b\\"'),
        ("idempotency-key", ""),
        ("idempotency-key", "\x80\xff" * 20),
        ("idempotency-key", "x" * MEGABYTE),
        ("cookie", "; =; session; session=; ===" * 100),
        ("cookie", "session=" + "a." * 50_000),
        ("authorization", "\xff" * 1000),
        ("cache-control", "no-cache" * 1000),
        ("content-length", "-5"),
        ("content-length", "many"),
    ],
)
async def test_a_strange_header_changes_nothing(name: str, value: str) -> None:
    async with Site() as site:
        connection = site.connect(headers=READER | {name: value})
        run = await site.run()
        await run.stream("1")
        assert (await connection.event()).data == "1"
        await run.end()
        await connection.finished()


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.dictionaries(
        st.sampled_from(
            ["accept", "last-event-id", "idempotency-key", "prefer", "cookie", "authorization", "cache-control",
             "content-length", "transfer-encoding", "sec-fetch-mode", "mcp-session-id"]
        ),
        st.one_of(
            st.text(st.characters(max_codepoint=255), max_size=40),
            st.sampled_from(["text/event-stream", "respond-async, wait=1", "k" * 22, "no-cache", f"{STREAM}.3"]),
        ),
    ),
    st.sampled_from(["GET", "POST", "HEAD", "DELETE", "OPTIONS", "X"]),
    st.sampled_from(["", "_stream=", f"_stream={STREAM}", "_stream=a&_stream=b", "after=1", "%ff=%00&_stream"]),
)  # fmt: skip
async def test_no_request_makes_it_hang_or_raise(headers: dict[str, str], method: str, query: str) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        await send(body(b"data: 1\n\n" if method != "HEAD" else b"", False))

    async with Site(app) as site:
        connection = site.connect("/chat", query=query, method=method, headers=headers)
        await site.clock.advance(0)
        await connection.finished()
        assert connection.complete


@pytest.mark.parametrize(
    "scope",
    [
        {"client": None},
        {"client": ["/run/socket", None]},
        {"http_version": "3"},
        {"asgi": {}},
        {"extensions": None},
        {"root_path": "/deep"},
        {"root_path": "/chat"},
        {"query_string": b"\xff\xfe"},
        {"path": "/ch\N{SNOWMAN}t\udcff"},
        {"path": ""},
    ],
)
async def test_an_unusual_scope_is_served(scope: dict[str, Any]) -> None:
    async with Site() as site:
        connection = site.connect(scope=scope, headers=EVENTSOURCE | {"idempotency-key": "k" * 22})
        run = await site.run()
        await run.stream("1")
        assert (await connection.event()).data == "1"
        await run.end()
        await connection.finished()
        again = site.connect(scope=scope, headers=EVENTSOURCE, cursor=connection.at(0))
        assert (await again.event()).data == "1"


# -- apps: large, broken and unfinished events


async def test_a_first_event_of_10_mb_passes_through_whole() -> None:
    large = b"data: " + b"x" * (10 * MEGABYTE) + b"\n\n"
    async with Site() as site:
        connection = site.connect()
        run = await site.run()
        await run.start()
        for i in range(0, len(large), 256 * 1024):
            await run.put(body(large[i : i + 256 * 1024]))
        await run.end()
        await connection.finished()
        assert connection.body == large


@pytest.mark.parametrize("size", [64 * 1024, 11 * MEGABYTE])
async def test_a_later_event_of_10_mb_arrives_whole_and_the_stream_goes_on(size: int) -> None:
    large = b"data: " + b"x" * (10 * MEGABYTE) + b"\n\n"
    async with Site() as site:
        connection, run = await site.started("1")
        for i in range(0, len(large), size):
            await run.put(body(large[i : i + size]))
        await run.say("3")
        await run.end()
        await connection.finished()
        assert plain(connection.body) == b"data: 1\n\n" + large + b"data: 3\n\n"
        assert site.store.size < 2 * MEGABYTE
        again = site.eventsource(cursor=connection.at(1))
        await again.finished()
        assert (again.controls, again.data) == (["reset"], ["3"])


async def test_an_event_of_10_mb_that_nobody_reads_is_lost_loudly() -> None:
    async with Site() as site:
        connection, run = await site.started("1", headers=EVENTSOURCE)
        connection.drop()
        await connection.finished()
        for part in [b"data: ", *[b"x" * MEGABYTE] * 10, b"\n\n"]:
            await run.put(body(part))
        await run.say("3")
        again = site.eventsource(cursor=connection.at(1))
        assert [(await again.event()).event, (await again.event()).data] == ["streamware.reset", "3"]


UNFINISHED = pytest.mark.parametrize(
    "rest", [b"data: half", b"data: half\n", b"event: x\ndata: half\r\n", b"da", b": ha"]
)


@UNFINISHED
async def test_an_unfinished_last_event_arrives_as_it_is_and_moves_no_cursor(rest: bytes) -> None:
    async with Site() as site:
        first, run = await site.started("1", "2")
        await run.put(body(rest, False), None)
        await first.finished()
        assert first.complete
        assert first.body.endswith(first.at(2).encode() + b"\n\n" + rest)
        browser = Interpreter()
        browser.feed(first.body)
        assert browser.last_event_id == first.at(2)
        again = site.connect(cursor=first.at(1))
        await again.finished()
        assert plain(again.body) == b"data: 2\n\n" + (b"" if rest.startswith(b":") else rest), "comments are in no log"


@UNFINISHED
async def test_an_eventsource_that_has_all_events_of_a_stream_with_an_unfinished_end_is_told_to_stop(
    rest: bytes,
) -> None:
    """It can never have more than the finished ones: without a 204 it would come back for ever."""
    async with Site() as site:
        first, run = await site.started("1", "2", headers=EVENTSOURCE)
        await run.put(body(rest, False), None)
        await first.finished()
        browser = Interpreter()
        assert [event.data for event in browser.feed(first.body)] == ["1", "2"]
        for _ in range(3):
            again = site.eventsource(cursor=browser.last_event_id)
            await again.finished()
            if again.status == 204:
                break
            browser.reconnect()
            assert browser.feed(again.body) == []
        assert again.status == 204
        assert site.runs == 1


async def test_broken_utf_8_crosses_byte_for_byte() -> None:
    sent = b"data: \xff\xfe\xc3\n\nevent: \xe2\x82\ndata: \xf0\x9f\n\ndata: \xed\xa0\x80\n\n"
    async with Site() as site:
        first = site.connect()
        run = await site.run()
        await run.start()
        for i in range(0, len(sent), 3):
            await run.put(body(sent[i : i + 3]))
        await run.end()
        await first.finished()
        assert plain(first.body) == sent
        again = site.connect(cursor=first.at(0))
        await again.finished()
        assert again.body == first.body
        polled = site.connect(first.own_url, headers={"accept": "application/json"})
        await polled.finished()
        assert len(msgspec.json.decode(polled.body)["events"]) == 3


@pytest.mark.parametrize(
    "sent",
    [
        b"\n\n\n\ndata: 1\n\n\n\n\ndata: 2\n\n",
        b"\r\r\rdata: 1\r\r\r\rdata: 2\r\r",
        b"data: 1\r\n\ndata: 2\n\r\n",
        b"data: 1\n\r\ndata: 2\r\n\r",
        b"id\ndata: 1\n\ndata: 2\n\n",
        b"data: 1\nid: \n\ndata: 2\n\n",
        b"data: 1\nid: a\0b\n\ndata: 2\n\n",
        b"data: 1\nretry: -5\nretry: 99999999999999999999\n\ndata: 2\n\n",
        b"data: 1\nid:\n:c\n\ndata: 2\n\n",
        b"data: 1\n\ndata: 2\n\nid\n\n",
        b"data: 1\n\x00\n\ndata: 2\n\n",
        b"data: 1\xe2\x80\xa8\n\ndata: 2\x85\x0b\x0c\n\n",
    ],
)
async def test_odd_but_legal_bytes_give_the_events_that_a_browser_would_see(sent: bytes) -> None:
    bare = [event.data for event in Interpreter().feed(sent)]
    async with Site() as site:
        for size in (1, 2, 3, 1000):
            first = site.eventsource(f"/{size}")
            run = await site.run(site.runs + 1)
            await run.start()
            for i in range(0, len(sent), size):
                await run.put(body(sent[i : i + size]))
            await run.end()
            await first.finished()
            seen = [event.data for event in Interpreter().feed(first.body)]
            assert seen == bare, size


# -- apps: messages that ASGI does not allow


async def raises_in_the_app(site: Site, *orders: object) -> BaseException | None:
    """What the app's last order raised."""
    run = await site.run()
    error = None
    for order in orders:
        error = await run.begin(order)
    await until(run.over.is_set)
    return error


async def test_a_body_after_the_end_raises_in_the_app_and_nowhere_else() -> None:
    async with Site() as site:
        first, _ = await site.started("1")
        error = await raises_in_the_app(site, body(b"data: 2\n\n", False), body(b"data: late\n\n"))
        assert isinstance(error, RuntimeError)
        await first.finished()
        assert first.complete
        assert first.data == ["1", "2"]
        caught_up = site.connect(cursor=first.at(2))
        await caught_up.finished()
        assert caught_up.status == 204


async def test_a_second_start_raises_in_the_app_and_cuts_its_readers() -> None:
    async with Site() as site:
        first, _ = await site.started("1")
        error = await raises_in_the_app(site, start())
        assert isinstance(error, RuntimeError)
        await first.finished()
        assert first.data == ["1"]
        assert not first.complete


async def test_a_second_start_while_the_first_is_held_back_raises_in_the_app() -> None:
    async with Site() as site:
        connection = site.connect()
        run = await site.run()
        await run.start()
        error = await raises_in_the_app(site, start())
        assert error is not None
        await settle()
        await until(lambda: connection.returned)
        connection.violations.clear()  # the app's own, passed on as it came
        connection._cancelled = True


async def test_a_body_before_the_start_is_the_servers_to_refuse() -> None:
    async with Site() as site:
        connection = site.connect()
        error = await raises_in_the_app(site, body(b"x"))
        assert error is not None
        await until(lambda: connection.returned)
        assert not connection.started
        connection.violations.clear()


async def test_a_missing_start_is_the_servers_to_refuse() -> None:
    async with Site() as site:
        connection = site.connect()
        run = await site.run()
        await run.put(None)
        await connection.finished()
        assert not connection.started


@pytest.mark.parametrize("data", [bytearray(b"data: 1\n\n"), memoryview(b"data: 1\n\n")])
async def test_bytes_of_another_kind_are_bytes(data: Any) -> None:
    async with Site() as site:
        first = site.connect()
        run = await site.run()
        await run.start()
        await run.put(body(data), body(data), body(data, False), None)
        await first.finished()
        assert first.data == ["1", "1", "1"]


@pytest.mark.parametrize("data", ["data: 1\n\n", None, 5, ["data"]])
@pytest.mark.parametrize("number", [1, 2])
async def test_a_body_that_is_no_bytes_fails_the_app_and_hangs_nobody(data: Any, number: int) -> None:
    async with Site() as site:
        first = site.connect()
        run = await site.run()
        await run.start()
        if number == 2:
            await run.say("1")
            await first.event()
        error = await raises_in_the_app(site, {"type": "http.response.body", "body": data, "more_body": True})
        assert error is not None
        await until(lambda: first.returned)
        if number == 2:
            assert first.exception is None
            assert not first.complete
        first.violations.clear()
        first._cancelled = True


@pytest.mark.parametrize(
    "headers",
    [
        None,
        (),
        tuple(SSE),
        [list(pair) for pair in SSE],
        [(b"Content-Type", b"TEXT/Event-Stream;charset=UTF-8")],
        [(b"content-type", b"text/event-stream"), (b"content-type", b"text/html")],
    ],
)
async def test_heads_of_every_shape_are_read(headers: Any) -> None:
    async with Site() as site:
        first = site.connect()
        run = await site.run()
        message: dict[str, Any] = {"type": "http.response.start", "status": 200}
        if headers is not None:
            message["headers"] = headers
        await run.put(message, body(b"data: 1\n\n"))
        assert (await first.event()).data == "1"
        await run.end()
        await first.finished()


@LIKE_OR_NOT
@pytest.mark.parametrize("line", [(b"x-a", "text"), ("x-a", b"text"), (b"x-a",), None])
async def test_a_head_that_is_none_fails_the_app_and_leaves_nothing_running(headers: dict[str, str], line: Any) -> None:
    async with Site(linger=None) as site:
        first = site.connect(headers=headers)
        run = await site.run()
        begun = run.begin({"type": "http.response.start", "status": 200, "headers": [*SSE, line]})
        run.begin(body(b"data: 1\n\n"))
        await until(lambda: first.returned)
        assert isinstance(first.exception, TypeError | ValueError)
        assert not first.started
        await until(run.over.is_set)
        assert begun.done()


def particular(site: Site, refuses: Callable[[Any], bool], error: Exception) -> None:
    """Have the server raise ``error`` at each message that it ``refuses``."""

    def around(scope: Scope, receive: Receive, send: Send) -> Any:
        async def strict(message: Any) -> None:
            if refuses(message):
                raise error
            await send(message)

        return site.resume(scope, receive, strict)

    site.app = around


def is_broken(message: Any) -> bool:
    return message["type"] == "http.response.start" and (b"x-a", b"refused") in message["headers"]


BROKEN: dict[str, Any] = {"type": "http.response.start", "status": 200, "headers": [*SSE, (b"x-a", b"refused")]}


@LIKE_OR_NOT
async def test_a_head_that_the_server_refuses_fails_the_app_and_is_told_to_the_server(headers: dict[str, str]) -> None:
    async with Site(linger=None) as site:
        particular(site, is_broken, RuntimeError("Invalid HTTP header value."))
        first = site.connect(headers=headers)
        run = await site.run()
        run.begin(BROKEN)
        run.begin(body(b"data: 1\n\n"))
        await until(lambda: first.returned)
        assert isinstance(first.exception, RuntimeError)
        assert not first.started
        await until(run.over.is_set)
        assert site.counted("resume.ended", "head") == 1


async def test_a_head_that_the_server_refuses_a_later_reader_is_that_readers_loss_alone() -> None:
    async with Site(replay_headers=["x-a"]) as site:
        first = site.connect()
        run = await site.run()
        await run.put(BROKEN, body(b"data: 1\n\n"))
        await first.event()
        particular(site, is_broken, RuntimeError("Invalid HTTP header value."))
        again = site.connect(cursor=first.at(1))
        await until(lambda: again.returned)
        assert isinstance(again.exception, RuntimeError)
        await run.say("2")
        assert (await first.event()).data == "2"


async def test_a_server_that_says_at_the_head_that_the_client_has_left_takes_nothing_from_the_stream() -> None:
    async with Site() as site:
        particular(site, is_broken, ConnectionResetError())
        first = site.connect()
        run = await site.run()
        await run.put(BROKEN, body(b"data: 1\n\n"))
        await until(lambda: first.returned)
        assert first.exception is None
        await run.say("2")
        assert not run.over.is_set()


@LIKE_OR_NOT
@pytest.mark.parametrize("accept", ["text/event-stream", "*/*"])
async def test_headers_that_can_be_read_only_once_are_not_used_up(headers: dict[str, str], accept: str) -> None:
    """ASGI calls them an iterable."""
    async with Site() as site:
        first = site.connect(headers=headers | {"accept": accept})
        run = await site.run()
        await run.put({"type": "http.response.start", "status": 200, "headers": (pair for pair in SSE)})
        await run.put(body(b"data: 1\n\n"))
        await first.event()
        assert first.header("content-type") == "text/event-stream"


async def test_a_message_of_unknown_type_in_mid_stream_goes_to_the_server() -> None:
    async with Site() as site:
        first, run = await site.started("1")
        await run.put({"type": "x.unknown"})
        await run.say("2")
        await first.event()
        assert {"type": "x.unknown"} in first.messages
        first.drop()
        await settle()
        await run.put({"type": "x.unknown"})
        await run.say("3")
        assert first.sent_after_disconnect == []


async def test_a_message_that_the_server_refuses_in_mid_stream_fails_the_app_alone() -> None:
    async with Site() as site:
        particular(site, lambda message: message["type"].startswith("x."), RuntimeError("unexpected ASGI message"))
        first, _ = await site.started("1")
        error = await raises_in_the_app(site, {"type": "x.unknown"})
        assert isinstance(error, RuntimeError)
        await first.finished()
        assert first.exception is None
        assert not first.complete


@pytest.mark.parametrize("broken", [{"body": b"x"}, {"type": 7}, {}])
async def test_a_message_without_a_type_fails_the_app_alone(broken: dict[str, Any]) -> None:
    async with Site() as site:
        first, _ = await site.started("1")
        assert await raises_in_the_app(site, broken) is not None
        await until(lambda: first.returned)
        assert first.exception is None
        assert not first.complete
        first.violations.clear()


# -- middleware between


def shouting(app: Any) -> Callable[..., Any]:
    """A foreign middleware whose ``send`` and ``receive`` are callables that are no functions, returning futures."""

    class Sender:
        def __init__(self, send: Send) -> None:
            self.inner = send

        def __call__(self, message: Any) -> Any:
            import asyncio

            return asyncio.ensure_future(self.inner(message))

    async def called(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope, receive, Sender(send))

    return called


async def test_a_send_that_returns_a_future_is_awaited() -> None:
    async with Site(around=shouting) as site:
        first, run = await site.started("1")
        await run.say("2", "3")
        await run.end()
        await first.finished()
        assert first.data == ["1", "2", "3"]


async def test_other_scopes_pass_through_untouched() -> None:
    seen: list[object] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.extend([scope, receive, send])

    async def receive() -> dict[str, Any]:
        return {}

    async def send(message: Any) -> None:
        return None

    async with Site(app) as site:
        for kind in ("websocket", "mqtt"):
            scope: Scope = {"type": kind}
            await site.resume(scope, receive, send)
            assert seen[-3:] == [scope, receive, send]
            assert seen[-3] is scope


async def test_a_store_of_this_size_does_not_grow_by_unknown_cursors() -> None:
    async with Site() as site:
        for _ in range(200):
            connection = site.connect(cursor=new_stream_id(site.store.tag) + ".1")
            await connection.finished()
        assert len(site.store) == 0
        assert not site.resume._worker.inner_tags
        assert not site.resume._worker._readers
