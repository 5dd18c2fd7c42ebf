"""Compression: what gets which coding, that nothing waits, and that nothing is left behind."""

from __future__ import annotations

import asyncio
import gc
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from streamware import CompressionMiddleware, ConfigurationError, CountingObserver, Middleware, Stack
from streamware.streams.coded import CodedResponse
from streamware.streams.coding import OffLoop
from streamware.testing import FakeClock, settle
from streamware.types import ASGIApp, Message, Receive, Scope, Send
from streamware.wire import codecs
from tests.middleware.coded_site import HTML, PAGE, SSE, Coded, body, event, fetched, plays, sends, start, whole

WAYS = ("alone", "stack")
CHROME = "gzip, deflate, br, zstd"


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def made(way: str, app: ASGIApp, **options: Any) -> ASGIApp:
    if way == "alone":
        return CompressionMiddleware(app, **options)
    return Stack(app, middleware=[Middleware(CompressionMiddleware, **options)])


class Stage:
    """A streaming app that sends what the test says, and the middleware around it."""

    def __init__(self, *headers: tuple[bytes, bytes], **options: Any) -> None:
        self.clock = FakeClock()
        self.wanted: asyncio.Queue[Message | None] = asyncio.Queue()
        self.sent = 0
        self.left = False
        self.headers = headers or (SSE,)
        self.middleware = CompressionMiddleware(self._app, clock=self.clock, **options)

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        listening = asyncio.ensure_future(self._listen(receive))
        try:
            await send(start(*self.headers))
            while (message := await self.wanted.get()) is not None:
                await send(message)
                self.sent += 1
        finally:
            listening.cancel()
            await asyncio.wait([listening])

    async def _listen(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.left = True

    def say(self, data: bytes, more: bool = True) -> None:
        self.wanted.put_nowait(body(data, more))

    def leave(self) -> None:
        self.wanted.put_nowait(None)


def encoders() -> int:
    """How many encoders of streams there are in this process."""
    gc.collect()
    # Not isinstance(): lazy objects of frameworks, of which some may be about, set themselves up when they are asked.
    return sum(type(one) is codecs.GzipStream for one in gc.get_objects())


# -- streams


async def test_the_start_of_a_stream_goes_out_before_there_is_an_event(way: str) -> None:
    go = asyncio.Event()

    async def play(receive: Receive, send: Send) -> None:
        await send(start(SSE))
        await go.wait()
        await send(body(event(1), False))

    async with Coded(made(way, plays(play))) as connection:
        await connection.start()
        assert (connection.coding, connection.vary) == ("gzip", "Accept-Encoding")
        assert connection.body == b""
        go.set()
        await connection.finished()
        assert connection.decoded == event(1)


@pytest.mark.parametrize(
    "media",
    [b"text/event-stream", b"application/x-ndjson", b"application/jsonl", b"Text/Event-Stream; charset=utf-8"],
)
@pytest.mark.parametrize("live", ["gzip", "zstd"])
async def test_each_event_can_be_read_when_its_send_returns(media: bytes, live: str) -> None:
    stage = Stage((b"content-type", media), live_codings=[live])
    async with Coded(stage.middleware, accepts=live) as connection:
        for number in range(20):
            stage.say(event(number))
            await settle()
            assert stage.sent == number + 1
            assert connection.decoded == b"".join(map(event, range(number + 1)))
            assert len(connection.chunks) == number + 1
        stage.say(b"", False)
        stage.leave()
        await connection.finished()
        assert connection.ended
        assert len(connection.body) * 3 < 20 * len(event(1))


async def test_text_that_comes_in_parts_of_no_known_length_is_a_stream_too() -> None:
    stage = Stage(HTML)
    async with Coded(stage.middleware, accepts=CHROME) as connection:
        await settle()
        assert not connection.started  # what it is, shows with its first part
        stage.say(b"<p>1")
        await connection.read(b"<p>1")
        assert connection.coding == "gzip"  # not zstd: its encoder lives as long as the stream
        stage.say(b"<p>2")
        await connection.read(b"<p>2")
        stage.say(b"<p>3", False)
        stage.leave()
        await connection.finished()
        assert (connection.decoded, connection.ended) == (b"<p>1<p>2<p>3", True)


async def test_an_empty_message_passes_as_it_is() -> None:
    stage = Stage()
    async with Coded(stage.middleware) as connection:
        stage.say(b"")  # opens the response on some servers
        stage.say(event(1))
        stage.say(b"")
        await connection.read(event(1))
        await settle()
        assert [bool(chunk) for chunk in connection.chunks] == [False, True, False]


async def test_a_stream_without_a_byte_is_a_whole_coded_body() -> None:
    connection = await fetched(CompressionMiddleware(sends(start(SSE), body(b"", False))))

    assert (connection.decoded, connection.ended) == (b"", True)


async def test_any_buffer_will_do_for_a_body() -> None:
    app = sends(
        start(SSE),
        {"type": "http.response.body", "body": bytearray(event(1)), "more_body": True},
        {"type": "http.response.body", "body": memoryview(event(2)), "more_body": True},
        {"type": "http.response.body", "body": memoryview(event(3))},
    )

    connection = await fetched(CompressionMiddleware(app))

    assert connection.decoded == event(1) + event(2) + event(3)
    assert all(type(chunk) is bytes for chunk in connection.chunks)


async def test_a_stream_that_ends_before_it_is_whole_is_not_made_to_look_whole() -> None:
    connection = await fetched(CompressionMiddleware(sends(start(SSE), body(event(1)))))

    assert connection.decoded == event(1)
    assert not connection.complete


async def test_connections_do_not_share_an_encoder() -> None:
    stages = [Stage() for _ in range(3)]
    middleware = stages[0].middleware
    for stage in stages[1:]:
        stage.middleware = middleware
    turn = iter(stages)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await next(turn)._app(scope, receive, send)

    middleware.app = app
    connections = [Coded(middleware) for _ in stages]
    for connection in connections:
        connection.open()
    for number in range(5):
        for place, stage in enumerate(stages):
            stage.say(event(100 * place + number))
    for place, (stage, connection) in enumerate(zip(stages, connections, strict=True)):
        stage.say(b"", False)
        stage.leave()
        await connection.finished()
        assert connection.decoded == b"".join(event(100 * place + number) for number in range(5))


# -- streams that are not coded


async def test_a_stream_that_sets_a_cookie_is_left_as_it_is(way: str) -> None:
    observer = CountingObserver()
    app = made(way, sends(start(SSE, (b"Set-Cookie", b"session=1")), body(event(1), False)), observer=observer)

    connection = await fetched(app)

    assert (connection.coding, connection.vary, connection.body) == (None, None, event(1))
    assert observer.counts == {("compression.left", "cookie"): 1}


@pytest.mark.parametrize(
    ("live", "path", "coding"),
    [
        (True, "/a", "gzip"),
        (False, "/a", None),
        ({"/secret/*": False}, "/secret/a", None),
        ({"/secret/*": False}, "/a", "gzip"),
        ({"/secret/open": True, "/secret/*": False}, "/secret/open", "gzip"),
        ({"*": False}, "/a", None),
    ],
)
async def test_live_says_which_streams_are_coded(live: Any, path: str, coding: str | None) -> None:
    app = CompressionMiddleware(sends(start(SSE), body(event(1), False)), live=live)

    assert (await fetched(app, path=path)).coding == coding
    page = CompressionMiddleware(whole(PAGE, HTML), live=live)
    assert (await fetched(page, path=path)).coding == "gzip"


async def test_a_path_is_the_one_within_the_mount() -> None:
    app = CompressionMiddleware(sends(start(SSE), body(event(1), False)), live={"/secret": False})

    connection = await fetched(app, path="/mounted/secret", scope={"root_path": "/mounted"})

    assert connection.coding is None


@pytest.mark.parametrize(
    ("header", "reason"),
    [((b"cache-control", b"no-cache, no-transform"), "no-transform"), ((b"content-encoding", b"identity"), "encoded")],
)
async def test_an_app_that_asks_to_be_left_alone_is(header: tuple[bytes, bytes], reason: str) -> None:
    observer = CountingObserver()
    app = CompressionMiddleware(sends(start(SSE, header), body(event(1), False)), observer=observer)

    connection = await fetched(app)

    assert connection.body == event(1)
    assert connection.vary is None
    assert observer.counts == {("compression.left", reason): 1}


@pytest.mark.parametrize("accepts", [None, "", "identity", "gzip;q=0", "deflate"])
async def test_who_accepts_no_coding_gets_none_and_caches_are_told(way: str, accepts: str | None) -> None:
    for app in (sends(start(SSE), body(event(1), False)), whole(PAGE, HTML)):
        connection = await fetched(made(way, app), accepts=accepts)

        assert (connection.coding, connection.vary) == (None, "Accept-Encoding")
        assert connection.body in (event(1), PAGE)


# -- bodies


@pytest.mark.parametrize(
    ("accepts", "coding"),
    [("gzip", "gzip"), ("gzip, br", "br"), (CHROME, "zstd"), ("zstd;q=0.5, gzip", "gzip"), ("*", "gzip")],
)
@pytest.mark.parametrize("length", [True, False])
async def test_a_page_is_coded_as_its_client_likes_best(way: str, accepts: str, coding: str, length: bool) -> None:
    connection = await fetched(made(way, whole(PAGE, HTML, length=length)), accepts=accepts)

    assert (connection.coding, connection.decoded, connection.ended) == (coding, PAGE, True)
    assert connection.header("content-length") == str(len(connection.body))
    assert len(connection.body) * 5 < len(PAGE)


async def test_accept_encoding_may_come_in_several_lines() -> None:
    headers = [("accept-encoding", "gzip;q=0.5"), ("accept-encoding", "br")]

    assert (await fetched(CompressionMiddleware(whole(PAGE, HTML)), accepts=None, headers=headers)).coding == "br"


@pytest.mark.parametrize("length", [True, False])
async def test_what_is_small_is_left_as_it_is(length: bool) -> None:
    for size, coding in ((499, None), (500, "gzip")):
        connection = await fetched(CompressionMiddleware(whole(b"x" * size, HTML, length=length)))
        assert connection.coding == coding
        assert connection.vary == (None if coding is None else "Accept-Encoding")
    assert (await fetched(CompressionMiddleware(whole(b"x", HTML), minimum_size=0))).coding == "gzip"


async def test_what_does_not_shrink_is_left_as_it_is() -> None:
    assert (await fetched(CompressionMiddleware(whole(PAGE, (b"content-type", b"image/png"))))).body == PAGE
    ours = CompressionMiddleware(
        whole(PAGE, (b"content-type", b"application/x-ours")), media_types=["Application/X-Ours"]
    )
    assert (await fetched(ours)).coding == "gzip"


async def test_a_page_in_parts_whose_length_is_known_is_one_body() -> None:
    parts = [PAGE[i : i + 100] for i in range(0, len(PAGE), 100)]
    length = (b"content-length", b"%d" % len(PAGE))
    app = sends(start(HTML, length), *map(body, parts), body(b"", False))

    connection = await fetched(CompressionMiddleware(app), accepts=CHROME)

    assert (connection.coding, connection.decoded, connection.ended) == ("zstd", PAGE, True)
    assert connection.header("content-length") is None
    assert connection.body.count(b"\0") < 100  # not flushed part by part: a few blocks


async def test_entity_tags_and_digests_are_those_of_the_coded_body() -> None:
    given = [(b"etag", b'"a"'), (b"content-digest", b"x"), (b"accept-ranges", b"bytes")]

    connection = await fetched(CompressionMiddleware(whole(PAGE, HTML, *given)))

    assert connection.header("etag") == 'W/"a"'
    assert connection.header("content-digest") is None
    assert connection.header("accept-ranges") is None


@pytest.mark.parametrize("status", [204, 205, 206, 416])
async def test_what_has_no_whole_body_is_left_as_it_is(status: int) -> None:
    more = [(b"content-range", b"bytes 0-9/100")] if status in (206, 416) else []
    connection = await fetched(CompressionMiddleware(sends(start(HTML, *more, status=status), body(b"", False))))

    assert (connection.coding, connection.vary, connection.body) == (None, None, b"")


async def test_a_304_says_what_its_200_would() -> None:
    app = CompressionMiddleware(sends(start((b"etag", b'"a"'), status=304), body(b"", False)))

    connection = await fetched(app, headers=[("if-none-match", 'W/"a"')])
    assert (connection.header("etag"), connection.vary, connection.coding) == ('W/"a"', "Accept-Encoding", None)

    connection = await fetched(app, accepts=None, headers=[("if-none-match", '"a"')])
    assert (connection.header("etag"), connection.vary) == ('"a"', "Accept-Encoding")


async def test_a_head_has_the_headers_of_its_get_and_no_body() -> None:
    for app in (whole(PAGE, HTML), sends(start(SSE), body(b"", False))):
        connection = await fetched(CompressionMiddleware(app), method="HEAD")
        assert (connection.coding, connection.vary) == ("gzip", "Accept-Encoding")
        assert connection.header("content-length") is None
    unknown = await fetched(CompressionMiddleware(sends(start(HTML), body(b"", False))), method="HEAD")
    assert (unknown.coding, unknown.vary) == (None, "Accept-Encoding")
    small = await fetched(CompressionMiddleware(whole(b"x", HTML)), method="HEAD")
    assert (small.coding, small.header("content-length")) == (None, "1")


# -- messages of other kinds


async def test_early_hints_and_debug_messages_pass_while_a_start_is_held_back() -> None:
    hint = {"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload"]}
    debug = {"type": "http.response.debug", "info": {"template": "a"}}
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    messages = [debug, hint, start(HTML), hint, debug, body(PAGE, False), debug]
    await CompressionMiddleware(sends(*messages))(scope(), nobody, send)

    kinds = [message["type"].rpartition(".")[2] for message in sent]
    assert kinds == ["debug", "early_hint", "early_hint", "debug", "start", "body", "debug"]
    assert all(any(message is given for given in messages) for message in sent if message["type"] == hint["type"])


@pytest.mark.parametrize("kind", ["http.response.pathsend", "http.response.zerocopysend", "http.response.novel"])
async def test_a_body_that_is_not_seen_has_its_response_left_as_it_is(kind: str) -> None:
    begin = start(HTML, (b"content-length", b"5000"), (b"etag", b'"a"'))
    other = {"type": kind, "path": "/a/file", "more": 1}
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await CompressionMiddleware(sends(begin, other))(scope(), nobody, send)

    assert sent[0] is begin
    assert sent[1] is other


async def test_a_path_in_place_of_a_streams_body_is_read_and_coded(tmp_path: Path) -> None:
    recorded = tmp_path / "recorded.sse"
    recorded.write_bytes(event(1) * 9000)
    app = sends(start(SSE), {"type": "http.response.pathsend", "path": str(recorded)})

    connection = await fetched(CompressionMiddleware(app), server="granian")

    assert (connection.decoded, connection.ended) == (event(1) * 9000, True)


async def test_trailers_pass_without_digests_of_other_bytes() -> None:
    trailers = {
        "type": "http.response.trailers",
        "headers": [(b"server-timing", b"x"), (b"content-digest", b"y")],
        "more_trailers": False,
    }
    app = sends(start(SSE, trailers=True), body(event(1)), body(b"", False), trailers)

    connection = await fetched(CompressionMiddleware(app))
    assert connection.messages[-1] == {**trailers, "headers": [(b"server-timing", b"x")]}
    assert connection.ended

    page = sends(start(HTML, trailers=True), body(PAGE, False), trailers)
    connection = await fetched(CompressionMiddleware(page))
    assert connection.header("content-length") is None  # else there is no place for trailers
    assert connection.messages[-1]["headers"] == [(b"server-timing", b"x")]

    connection = await fetched(CompressionMiddleware(page), accepts=None)
    assert connection.messages[-1] == trailers


async def test_a_file_cannot_be_handed_to_the_server_behind_our_back() -> None:
    seen: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)
        await whole(PAGE, HTML)(scope, receive, send)

    extensions = {"http.response.zerocopysend": {}, "http.response.pathsend": {}}
    connection = await fetched(CompressionMiddleware(app), scope={"extensions": extensions})

    assert seen[0]["extensions"] == {"http.response.pathsend": {}}
    assert connection.scope["extensions"] == extensions


async def test_websockets_and_lifespans_get_the_very_objects_that_came_in() -> None:
    seen: list[object] = []

    async def app(*given: object) -> None:
        seen.append(given)

    middleware = CompressionMiddleware(app)
    for kind in ("websocket", "novel"):
        given = ({"type": kind, "path": "/"}, nobody, nowhere)
        await middleware(*given)
        assert all(one is other for one, other in zip(seen[-1], given, strict=True))  # type: ignore[call-overload]


async def test_unselected_paths_pass_untouched() -> None:
    middleware = CompressionMiddleware(whole(PAGE, HTML), exclude=["/raw/*"])

    assert (await fetched(middleware, path="/raw/a")).body == PAGE
    assert (await fetched(middleware, path="/a")).coding == "gzip"


async def test_nothing_that_came_in_is_changed() -> None:
    messages = [start(SSE, (b"etag", b'"a"')), body(event(1)), body(event(2), False)]
    before = [{**message, "headers": list(message.get("headers", []))} for message in messages]
    request = scope()
    keys = set(request)

    await CompressionMiddleware(sends(*messages))(request, nobody, nowhere)

    assert [{**message, "headers": list(message.get("headers", []))} for message in messages] == before
    assert set(request) == keys


async def test_headers_may_come_as_any_iterable() -> None:
    begin = {"type": "http.response.start", "status": 200, "headers": (line for line in [HTML])}

    connection = await fetched(CompressionMiddleware(sends(begin, body(PAGE, False))))

    assert connection.decoded == PAGE
    begin = {"type": "http.response.start", "status": 200, "headers": (line for line in [(b"x", b"y")])}
    assert (await fetched(CompressionMiddleware(sends(begin, body(PAGE, False))))).header("x") == "y"
    bare = {"type": "http.response.start", "status": 200}
    assert (await fetched(CompressionMiddleware(sends(bare, body(PAGE, False))))).body == PAGE


# -- ends


async def test_a_start_that_was_held_back_goes_out_when_the_app_returns() -> None:
    connection = await fetched(CompressionMiddleware(sends(start(HTML))))

    assert connection.started
    assert not connection.complete


async def test_an_app_that_fails_before_its_body_can_still_get_a_500() -> None:
    async def play(receive: Receive, send: Send) -> None:
        await send(start(HTML))
        raise LookupError("on purpose")

    connection = Coded(CompressionMiddleware(plays(play)))
    with pytest.raises(LookupError):
        await connection.finished()
    assert not connection.started


@pytest.mark.parametrize("how", ["end", "error", "return", "disconnect", "cancel", "stall, then cancel"])
async def test_the_encoder_is_free_however_a_stream_ends(how: str) -> None:
    before = encoders()
    stage = Stage()
    connection = Coded(stage.middleware)
    connection.open()
    stage.say(event(1))
    await connection.read(event(1))
    assert encoders() == before + 1

    if how == "end":
        stage.say(b"", False)
        await connection.receive_body()
    elif how == "error":
        stage.wanted.put_nowait({"type": 5})  # the app fails here
    elif how == "return":
        stage.leave()
    elif how == "disconnect":
        connection.drop()
        await settle()
        assert stage.left
    elif how == "cancel":
        connection.cancel()
    else:
        connection.stall()
        stage.say(event(2))
        await settle()
        assert stage.sent == 1
        connection.cancel()
    await settle()

    if how in ("end", "disconnect"):
        assert not connection.returned  # the app is still at it
    assert encoders() == before
    assert not stage.middleware.options.rest or not stage.middleware.options.rest.awake
    await connection.aclose()


async def test_what_an_app_sends_to_a_client_that_has_left_is_not_encoded_but_still_sent() -> None:
    stage = Stage()
    connection = Coded(stage.middleware)
    connection.open()
    stage.say(event(1))
    await connection.read(event(1))
    connection.drop()
    await settle()
    stage.say(event(2))
    stage.say(event(3), False)
    stage.leave()
    await connection.finished()

    assert [message["body"] for message in connection.sent_after_disconnect] == [b"", b""]
    assert [message["more_body"] for message in connection.sent_after_disconnect] == [True, False]


async def test_what_the_server_raises_reaches_the_app() -> None:
    async def send(message: Message) -> None:
        if message.get("body"):
            raise OSError("the client has left")

    with pytest.raises(OSError, match="the client has left"):
        await CompressionMiddleware(sends(start(SSE), body(event(1))))(scope(), nobody, send)


async def test_a_stream_can_be_read_on_after_a_send_that_was_given_up() -> None:
    """An app, or an outer middleware, may give up a send: nobody knows whether its bytes went out."""
    arrived: list[Message] = []
    blocked = asyncio.Event()

    async def send(message: Message) -> None:
        if blocked.is_set():
            await asyncio.Event().wait()
        arrived.append(message)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(SSE))
        for number in range(3):
            await send(body(event(number)))
        blocked.set()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(send(body(event(3))), 0.01)
        blocked.clear()
        for number in range(4, 7):
            await send(body(event(number)))

    await CompressionMiddleware(app)(scope(), nobody, send)

    read = Coded(sends())
    read._start = arrived[0]  # what a client has: everything but the lost one
    read.chunks = [message["body"] for message in arrived[1:]]
    assert read.decoded == b"".join(event(number) for number in (0, 1, 2, 4, 5, 6))


async def test_memory_of_streams_is_given_back() -> None:
    stages = [Stage() for _ in range(20)]
    connections = [Coded(stage.middleware) for stage in stages]
    tracemalloc.start()
    try:
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        for stage, connection in zip(stages, connections, strict=True):
            connection.open()
            for number in range(50):
                stage.say(event(number))
        await settle(200)
        gc.collect()
        held = tracemalloc.get_traced_memory()[0] - before
        for connection in connections:
            connection.drop()
        await settle()
        gc.collect()
        left = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    for connection in connections:
        await connection.aclose()

    assert 20 * 25_000 < held < 20 * 60_000  # with what the test itself keeps of each
    assert left < held - 20 * 25_000


async def test_what_is_sent_behind_the_end_of_the_call_is_not_put_into_the_coded_body() -> None:
    sends_late: list[Send] = []
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        sends_late.append(send)
        await send(start(SSE))
        await send(body(event(1)))

    await CompressionMiddleware(app)(scope(), nobody, send)
    await sends_late[0](body(event(2)))

    assert len(sent) == 2


@pytest.mark.parametrize("app", [whole(PAGE, HTML), sends(start(SSE), body(event(1))), whole(b"x", HTML)])
async def test_nothing_is_left_for_the_garbage_collector(app: ASGIApp) -> None:
    middleware = CompressionMiddleware(app)
    gc.collect()
    gc.disable()
    try:
        await middleware(scope(), nobody, nowhere)
        assert not any(type(one) is CodedResponse for one in gc.get_objects())
    finally:
        gc.enable()


# -- rest


async def test_a_silent_stream_gives_its_memory_back_and_goes_on() -> None:
    stage = Stage(rest_after=5)
    rest = stage.middleware.options.rest
    assert rest is not None
    async with Coded(stage.middleware) as connection:
        for number in range(5):
            stage.say(event(number))
        await connection.read(event(4))
        assert len(rest.awake) == 1

        for number in range(5, 8):  # not while it speaks
            await stage.clock.advance(4.9)
            stage.say(event(number))
            await connection.read(event(number))
            assert len(rest.awake) == 1

        await stage.clock.advance(10)
        assert len(rest.awake) == 0
        assert stage.clock.timers == 0
        size = len(connection.body)
        stage.say(b":\n")
        await settle()
        assert (len(rest.awake), stage.clock.timers) == (0, 0)  # a heartbeat wakes nobody

        stage.say(event(8))
        await connection.read(event(8))
        assert (len(rest.awake), stage.clock.timers) == (1, 1)
        assert len(connection.body) - size < 60  # it refers to what was sent before its rest
        stage.say(b"", False)
        stage.leave()
        await connection.finished()
        assert connection.ended
        assert connection.decoded == b"".join(map(event, range(8))) + b":\n" + event(8)
        assert len(rest.awake) == 0
    await stage.middleware.aclose()
    assert stage.clock.timers == 0


async def test_rest_may_be_switched_off() -> None:
    stage = Stage(rest_after=None)
    async with Coded(stage.middleware) as connection:
        stage.say(event(1))
        await connection.read(event(1))
        assert stage.clock.timers == 0


def test_a_middleware_that_is_served_on_another_loop_still_puts_streams_to_rest() -> None:
    stage = Stage(rest_after=5)

    async def once() -> None:
        stage.wanted = asyncio.Queue()
        async with Coded(stage.middleware) as connection:
            stage.say(event(1))
            await connection.read(event(1))
            rest = stage.middleware.options.rest
            assert rest is not None
            assert rest.awake
            await stage.clock.advance(10)
            assert not rest.awake

    for _ in range(2):
        asyncio.run(once())


# -- what is large


async def test_a_large_body_is_encoded_off_the_loop() -> None:
    large = PAGE * 1000
    ran_in: list[str] = []
    real = codecs.GzipBody.finish

    def finish(self: codecs.GzipBody, data: bytes) -> bytes:
        ran_in.append(threading.current_thread().name)
        return real(self, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codecs.GzipBody, "finish", finish)
        for data in (PAGE, large):
            connection = await fetched(CompressionMiddleware(whole(data, HTML)))
            assert connection.decoded == data
        never = CompressionMiddleware(whole(large, HTML), thread_size=None)
        assert (await fetched(never)).decoded == large

    assert [name.startswith("streamware encoder") for name in ran_in] == [False, True, False]


async def test_no_more_threads_than_a_few() -> None:
    middleware = CompressionMiddleware(whole(PAGE * 100, HTML))
    connections = [Coded(middleware) for _ in range(12)]
    for connection in connections:
        connection.open()
    for connection in connections:
        await connection.finished()
        assert connection.decoded == PAGE * 100
    assert sum(thread.name.startswith("streamware encoder") for thread in threading.enumerate()) <= 2
    await middleware.aclose()


@pytest.mark.parametrize("kind", [SSE, HTML])
async def test_messages_sent_at_once_keep_their_order_however_large(kind: tuple[bytes, bytes]) -> None:
    parts = [PAGE * 100, b"small 1 ", PAGE * 120, b"small 2 ", b"small 3 ", PAGE * 70]

    async def play(receive: Receive, send: Send) -> None:
        await send(start(kind))
        await send(body(b"first "))
        await asyncio.gather(*(send(body(part)) for part in parts))
        await send(body(b"last", False))

    connection = await fetched(CompressionMiddleware(plays(play)))

    assert connection.decoded == b"first " + b"".join(parts) + b"last"
    assert connection.ended


async def test_behind_a_large_message_small_ones_are_encoded_where_they_are_again() -> None:
    ran: list[int] = []
    real = OffLoop.run

    async def run(self: OffLoop, call: Any, data: bytes) -> bytes:
        ran.append(len(data))
        return await real(self, call, data)

    stage = Stage()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OffLoop, "run", run)
        async with Coded(stage.middleware) as connection:
            for data in (event(1), PAGE * 100, event(2), event(3)):
                stage.say(data)
            await connection.read(event(3))
            assert connection.decoded == event(1) + PAGE * 100 + event(2) + event(3)
            rest = stage.middleware.options.rest
            assert rest is not None
            assert len(rest.awake) == 1  # it is looked after again
    assert ran == [len(PAGE) * 100]


async def test_a_client_that_leaves_while_bytes_are_encoded_gets_none_of_them() -> None:
    stage = Stage()
    connection = Coded(stage.middleware)
    connection.open()
    stage.say(event(1))
    await connection.read(event(1))
    stage.say(PAGE * 2000)
    stage.say(event(2))
    await settle(3)
    assert stage.sent == 1  # a thread is at it
    connection.drop()
    stage.leave()
    await connection.finished()

    assert [message["body"] for message in connection.sent_after_disconnect] == [b"", b""]
    assert encoders() == 0


async def test_a_send_cancelled_while_its_bytes_are_encoded_ends_what_could_not_be_decoded() -> None:
    caught: list[type[BaseException]] = []

    async def play(receive: Receive, send: Send) -> None:
        await send(start(SSE))
        await send(body(event(1)))
        sending = asyncio.ensure_future(send(body(PAGE * 2000)))
        await asyncio.sleep(0)
        sending.cancel()
        await asyncio.wait([sending])
        try:
            await send(body(event(2)))
        except OSError as error:
            caught.append(type(error))

    connection = await fetched(CompressionMiddleware(plays(play)))

    assert caught == [OSError]
    assert (connection.decoded, connection.complete) == (event(1), False)


# -- padding


async def test_padding_changes_lengths_and_nothing_else() -> None:
    same = [event(1)] * 60
    for coding in ("gzip", "zstd"):
        app = sends(start(SSE), *map(body, same), body(b"", False))
        padded = await fetched(CompressionMiddleware(app, padding=100, live_codings=[coding]), accepts=coding)
        plain = await fetched(CompressionMiddleware(app, live_codings=[coding]), accepts=coding)

        assert padded.decoded == plain.decoded == b"".join(same)
        assert padded.ended
        assert len({len(chunk) for chunk in plain.chunks[2:-1]}) <= 2
        lengths = [len(chunk) for chunk in padded.chunks[2:-1]]
        assert len(set(lengths)) > 8
        assert max(lengths) <= 100 + max(len(chunk) for chunk in plain.chunks[2:-1])


# -- options


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("codings", "gzip"),
        ("codings", ["deflate"]),
        ("codings", ["gzip", "gzip"]),
        ("codings", [5]),
        ("codings", 5),
        ("live_codings", ["br"]),
        ("live_codings", None),
        ("minimum_size", -1),
        ("minimum_size", True),
        ("minimum_size", 1.5),
        ("window", 9),
        ("window", 16),
        ("window", True),
        ("window", "12"),
        ("rest_after", 0),
        ("rest_after", -1),
        ("rest_after", float("inf")),
        ("rest_after", float("nan")),
        ("rest_after", True),
        ("padding", 0),
        ("padding", 2000),
        ("padding", True),
        ("media_types", "text/html"),
        ("media_types", ["html"]),
        ("media_types", ["text/html; charset=utf-8"]),
        ("media_types", [b"text/html"]),
        ("thread_size", 0),
        ("thread_size", 100),
        ("live", "yes"),
        ("live", {"/a": "no"}),
        ("live", {"a": True}),
        ("paths", "/a"),
    ],
)
def test_a_wrong_option_is_refused_when_the_middleware_is_built(option: str, value: object) -> None:
    given: dict[str, Any] = {option: value}
    with pytest.raises(ConfigurationError, match=rf"CompressionMiddleware: {option}"):
        CompressionMiddleware(sends(), **given)


def test_a_coding_that_is_not_installed_is_not_offered_and_naming_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(codecs, "installed", lambda coding: coding == "gzip")

    assert CompressionMiddleware(sends()).options.body_codings == ("gzip",)
    for coding, extra in (("br", "brotli"), ("zstd", "zstd")):
        with pytest.raises(ConfigurationError, match=rf"pip install 'asgi-streamware\[{extra}\]'"):
            CompressionMiddleware(sends(), codings=[coding])


async def test_no_coding_at_all_is_a_way_to_say_no() -> None:
    middleware = CompressionMiddleware(whole(PAGE, HTML), codings=[], live_codings=[])

    assert (await fetched(middleware, accepts=CHROME)).body == PAGE


async def test_only_so_many_accept_encodings_are_remembered() -> None:
    middleware = CompressionMiddleware(whole(PAGE, HTML))
    for number in range(400):
        await fetched(middleware, accepts=f"gzip;q=0.{number:03d}")
    assert (await fetched(middleware, accepts="gzip, " + "x" * 5000)).coding == "gzip"

    assert len(middleware.options.known) == 256
    assert max(len(key or b"") for key in middleware.options.known) <= 256


async def test_what_was_coded_is_counted() -> None:
    observer = CountingObserver()
    for app, accepts in (
        (whole(PAGE, HTML), CHROME),
        (sends(start(SSE), body(event(1), False)), CHROME),
        (whole(b"x", HTML), CHROME),
        (whole(PAGE, HTML), None),
    ):
        await fetched(CompressionMiddleware(app, observer=observer), accepts=accepts)

    assert observer.counts == {("compression.coded", "zstd"): 1, ("compression.coded", "gzip"): 1}


async def nobody() -> Message:
    await asyncio.get_running_loop().create_future()
    raise AssertionError


async def nowhere(message: Message) -> None:
    pass


def scope() -> Scope:
    return {"type": "http", "method": "GET", "path": "/", "headers": [(b"accept-encoding", b"gzip")]}
