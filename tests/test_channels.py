"""Channels' consumers, routers and middleware behave alike bare and wrapped in Heartbeat and Resume.

Every test but the last one runs twice, with the same literal expectations. Django takes one set of settings in a
process, and ``examples/django_app.py`` makes it; what Channels wants beside is put over it for each test.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from channels.auth import AuthMiddlewareStack
from channels.generic.http import AsyncHttpConsumer
from channels.generic.websocket import AsyncWebsocketConsumer, JsonWebsocketConsumer, WebsocketConsumer
from channels.layers import get_channel_layer
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from channels.sessions import CookieMiddleware
from channels.testing import ApplicationCommunicator, HttpCommunicator, WebsocketCommunicator
from django.test.utils import override_settings
from django.urls import path

from examples import django_app
from streamware import HeartbeatMiddleware, Middleware, ResumeMiddleware, Stack
from streamware.testing import Connection, EventReader
from streamware.types import AnyASGIApp

Wrap = Callable[[AnyASGIApp], AnyASGIApp]

JSON = (b"content-type", b"application/json")
SSE = (b"content-type", b"text/event-stream")
WORDS = ["one", "two", "three", "four", "five"]


def stacked(app: AnyASGIApp) -> Stack:
    return Stack(app, middleware=[Middleware(HeartbeatMiddleware), Middleware(ResumeMiddleware)])


@pytest.fixture(params=["bare", "wrapped"])
def wrap(request: pytest.FixtureRequest) -> Wrap:
    return stacked if request.param == "wrapped" else lambda app: app


@pytest.fixture(autouse=True)
def settings() -> Iterator[None]:
    with override_settings(
        ALLOWED_HOSTS=["site.example"],
        CHANNEL_LAYERS={"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}},
        INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"],
        SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
    ):
        yield


class Patient:
    """Channels' communicators give up after a second, which a busy machine can take."""

    async def receive_output(self, timeout: float = 10) -> Any:
        return await super().receive_output(10)

    async def wait(self, timeout: float = 10) -> None:
        await super().wait(10)


class App(Patient, ApplicationCommunicator):
    pass


class Http(Patient, HttpCommunicator):
    async def get_response(self, timeout: float = 10) -> Any:
        """The response, once the call has returned as well."""
        response = await super().get_response(timeout)
        await self.wait()
        assert self.output_queue.empty()
        return response


class Socket(Patient, WebsocketCommunicator):
    pass


def http_scope(url: str = "/", *headers: tuple[bytes, bytes]) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "path": url,
        "query_string": b"",
        "headers": list(headers),
    }


# -- HTTP


class Echoing(AsyncHttpConsumer):
    async def handle(self, body: bytes) -> None:
        answer = json.dumps({"method": self.scope["method"], "said": body.decode()}).encode()
        await self.send_response(201, answer, headers=[JSON, (b"x-own", b"kept")])


class Telling(AsyncHttpConsumer):
    """An event stream of ``WORDS``."""

    async def handle(self, body: bytes) -> None:
        await self.send_headers(headers=[SSE])
        for word in WORDS:
            await self.send_body(f"data: {word}\n\n".encode(), more_body=True)
        await self.send_body(b"")


async def test_a_plain_json_response_is_the_same_to_the_byte(wrap: Wrap) -> None:
    got = await Http(wrap(Echoing.as_asgi()), "PUT", "/things", body=b"words").get_response()

    assert got == {
        "status": 201,
        "headers": [JSON, (b"x-own", b"kept")],
        "body": b'{"method": "PUT", "said": "words"}',
    }


async def test_a_request_body_in_parts_is_joined(wrap: Wrap) -> None:
    call = App(wrap(Echoing.as_asgi()), http_scope())

    for part, more in [(b"in ", True), (b"three ", True), (b"parts", False)]:
        await call.send_input({"type": "http.request", "body": part, "more_body": more})
    await call.wait()

    assert (await call.receive_output())["status"] == 201
    assert json.loads((await call.receive_output())["body"])["said"] == "in three parts"
    assert call.output_queue.empty()


async def test_a_body_in_chunks_keeps_its_messages(wrap: Wrap) -> None:
    class Chunked(AsyncHttpConsumer):
        async def handle(self, body: bytes) -> None:
            await self.send_headers(status=200, headers=[(b"content-type", b"text/plain")])
            await self.send_body(b"a", more_body=True)
            await self.send_body(b"b", more_body=True)
            await self.send_body(b"c")

    call = App(wrap(Chunked.as_asgi()), http_scope())
    await call.send_input({"type": "http.request", "body": b""})
    await call.wait()

    assert [await call.receive_output() for _ in range(call.output_queue.qsize())] == [
        {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]},
        {"type": "http.response.body", "body": b"a", "more_body": True},
        {"type": "http.response.body", "body": b"b", "more_body": True},
        {"type": "http.response.body", "body": b"c", "more_body": False},
    ]


@pytest.mark.parametrize("accept", ["text/event-stream", "*/*"])
async def test_an_event_stream_has_the_same_events(wrap: Wrap, accept: str) -> None:
    got = await Http(wrap(Telling.as_asgi()), "GET", "/", headers=[(b"accept", accept.encode())]).get_response()

    assert got["status"] == 200
    assert SSE in got["headers"]
    assert [(event.event, event.data) for event in EventReader().read([got["body"]])] == [
        ("message", word) for word in WORDS
    ]


async def test_a_client_that_leaves_amid_its_request_is_told_of_once(wrap: Wrap) -> None:
    told = []

    class Uploaded(AsyncHttpConsumer):
        async def handle(self, body: bytes) -> None:
            told.append("handled")

        async def disconnect(self) -> None:
            told.append("disconnected")

    call = App(wrap(Uploaded.as_asgi()), http_scope())
    await call.send_input({"type": "http.request", "body": b"half", "more_body": True})
    await call.send_input({"type": "http.disconnect"})
    await call.wait()

    assert told == ["disconnected"]
    assert call.output_queue.empty()


async def test_what_a_consumer_raises_comes_out(wrap: Wrap) -> None:
    error = LookupError("no such thing")

    class Failing(AsyncHttpConsumer):
        async def handle(self, body: bytes) -> None:
            raise error

    call = App(wrap(Failing.as_asgi()), http_scope())
    await call.send_input({"type": "http.request", "body": b""})
    with pytest.raises(LookupError) as raised:
        await call.wait()

    assert raised.value is error


# -- WebSocket


class Echo(AsyncWebsocketConsumer):
    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.send(text_data=text_data, bytes_data=bytes_data)


async def test_text_and_bytes_are_echoed_in_order(wrap: Wrap) -> None:
    socket = Socket(wrap(Echo.as_asgi()), "/")

    assert await socket.connect() == (True, None)
    await socket.send_to(text_data="grüße")
    await socket.send_to(bytes_data=b"\x00\xff")
    assert await socket.receive_from() == "grüße"
    assert await socket.receive_from() == b"\x00\xff"
    await socket.disconnect()
    assert socket.output_queue.empty()


async def test_the_chosen_subprotocol_and_the_headers_of_accept_arrive(wrap: Wrap) -> None:
    class Choosing(AsyncWebsocketConsumer):
        async def connect(self) -> None:
            await self.accept(self.scope["subprotocols"][1], headers=[(b"x-own", b"kept")])

    socket = Socket(wrap(Choosing.as_asgi()), "/", subprotocols=["chat.v1", "chat.v2"])

    assert await socket.connect() == (True, "chat.v2")
    assert socket.response_headers == [(b"x-own", b"kept")]
    await socket.disconnect()


async def test_a_rejection_before_accept_has_its_code(wrap: Wrap) -> None:
    class Refusing(AsyncWebsocketConsumer):
        async def connect(self) -> None:
            await self.close(code=4401)

    socket = Socket(wrap(Refusing.as_asgi()), "/")

    assert await socket.connect() == (False, 4401)
    await socket.disconnect(1006)
    assert socket.output_queue.empty()


async def test_a_close_by_the_app_has_its_code_and_reason(wrap: Wrap) -> None:
    class Closing(AsyncWebsocketConsumer):
        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            await self.send(text_data="bye")
            await self.close(code=4000, reason="enough")

    socket = Socket(wrap(Closing.as_asgi()), "/")
    await socket.connect()
    await socket.send_to(text_data="go on")

    assert await socket.receive_from() == "bye"
    assert await socket.receive_output() == {"type": "websocket.close", "code": 4000, "reason": "enough"}
    await socket.disconnect(4000)


@pytest.mark.parametrize("base", [AsyncWebsocketConsumer, WebsocketConsumer])
async def test_a_client_that_leaves_is_told_of_once_with_its_code(wrap: Wrap, base: Any) -> None:
    codes = []

    class Left(base):
        if base is AsyncWebsocketConsumer:

            async def disconnect(self, code: int) -> None:
                codes.append(code)
        else:

            def disconnect(self, code: int) -> None:
                codes.append(code)

    socket = Socket(wrap(Left.as_asgi()), "/")
    await socket.connect()
    await socket.disconnect(1001)

    assert codes == [1001]
    assert socket.output_queue.empty()


async def test_a_json_consumer_answers_in_json(wrap: Wrap) -> None:
    class Adding(JsonWebsocketConsumer):
        def receive_json(self, content: Any, **kwargs: Any) -> None:
            self.send_json({"sum": sum(content["of"])})

    socket = Socket(wrap(Adding.as_asgi()), "/")
    await socket.connect()
    await socket.send_json_to({"of": [1, 2, 3]})

    assert await socket.receive_json_from() == {"sum": 6}
    await socket.disconnect()


async def test_a_sync_consumer_sends_from_its_thread_and_closes(wrap: Wrap) -> None:
    class Sync(WebsocketConsumer):
        def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            self.send(text_data="first")
            self.send(bytes_data=b"second", close=4002)

    socket = Socket(wrap(Sync.as_asgi()), "/")
    assert await socket.connect() == (True, None)
    await socket.send_to(text_data="go")

    assert await socket.receive_from() == "first"
    assert await socket.receive_from() == b"second"
    assert await socket.receive_output() == {"type": "websocket.close", "code": 4002}
    await socket.disconnect(4002)


# -- channel layer


async def test_what_is_sent_to_a_group_reaches_each_member_until_it_leaves(wrap: Wrap) -> None:
    class Member(AsyncWebsocketConsumer):
        groups = ("room",)

        async def room_said(self, event: dict[str, Any]) -> None:
            await self.send(text_data=event["words"])

    app = wrap(Member.as_asgi())
    layer = get_channel_layer()
    one, other = Socket(app, "/"), Socket(app, "/")
    await one.connect()
    await other.connect()

    await layer.group_send("room", {"type": "room.said", "words": "to both"})
    assert await one.receive_from() == "to both"
    assert await other.receive_from() == "to both"

    await one.disconnect()
    await layer.group_send("room", {"type": "room.said", "words": "to one"})
    assert await other.receive_from() == "to one"
    assert one.output_queue.empty()

    await other.disconnect()
    assert layer.groups == {}


# -- routers and middleware


class Showing(AsyncWebsocketConsumer):
    """Sends what its scope holds."""

    async def connect(self) -> None:
        await self.accept()
        scope = self.scope
        shown = {"kwargs": scope["url_route"]["kwargs"]} if "url_route" in scope else {}
        if "cookies" in scope:
            shown["cookies"] = scope["cookies"]
        if "session" in scope:
            shown["session"] = dict(scope["session"].items())
        if "user" in scope:
            shown["user"] = [type(scope["user"]._wrapped).__name__, scope["user"].is_authenticated]
        await self.send(text_data=json.dumps(shown))


async def shown(app: AnyASGIApp, url: str = "/", *headers: tuple[bytes, bytes]) -> Any:
    socket = Socket(app, url, headers=list(headers))
    assert await socket.connect() == (True, None)
    got = await socket.receive_json_from()
    await socket.disconnect()
    return got


async def test_a_url_router_gives_its_kwargs_nested_ones_too(wrap: Wrap) -> None:
    inner = URLRouter([path("seat/<slug:seat>/", Showing.as_asgi(), {"extra": True})])
    app = wrap(URLRouter([path("room/<int:room>/", inner)]))

    assert await shown(app, "/room/7/seat/a-1/") == {"kwargs": {"room": 7, "seat": "a-1", "extra": True}}


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize("accept", [b"text/event-stream", b"*/*"])
async def test_the_error_of_an_unmatched_route_comes_out_unchanged(wrap: Wrap, kind: str, accept: bytes) -> None:
    app = wrap(URLRouter([path("here/", Showing.as_asgi())]))
    headers = [(b"accept", accept)]
    if kind == "http":
        call = Http(app, "GET", "/nowhere/", headers=headers)
        await call.send_input({"type": "http.request", "body": b""})
    else:
        call = Socket(app, "/nowhere/", headers=headers)
        await call.send_input({"type": "websocket.connect"})

    with pytest.raises(ValueError, match="No route") as raised:
        await call.wait()

    assert type(raised.value) is ValueError
    assert raised.value.args == ("No route found for path 'nowhere/'.",)
    assert call.output_queue.empty()


async def test_a_protocol_router_sends_each_protocol_to_its_app(wrap: Wrap) -> None:
    app = wrap(ProtocolTypeRouter({"http": Echoing.as_asgi(), "websocket": Showing.as_asgi()}))

    assert (await Http(app, "GET", "/").get_response())["status"] == 201
    assert await shown(app) == {}

    other = App(app, {"type": "telegraph"})
    with pytest.raises(ValueError, match="No application configured for scope type 'telegraph'"):
        await other.wait()


async def test_a_protocol_router_serves_django_beside_consumers(wrap: Wrap) -> None:
    app = wrap(ProtocolTypeRouter({"http": django_app.app, "websocket": Echo.as_asgi()}))

    got = await Http(app, "GET", "/plain", headers=[(b"host", b"site.example")]).get_response()

    assert got["status"] == 200
    assert json.loads(got["body"])["plain"] is True


async def test_cookies_stand_in_the_scope(wrap: Wrap) -> None:
    app = wrap(CookieMiddleware(Showing.as_asgi()))

    assert await shown(app, "/", (b"cookie", b"a=1; b=two")) == {"cookies": {"a": "1", "b": "two"}}
    assert await shown(app) == {"cookies": {}}


async def test_session_and_user_stand_in_the_scope(wrap: Wrap) -> None:
    app = wrap(AuthMiddlewareStack(Showing.as_asgi()))

    assert await shown(app, "/", (b"cookie", b"a=1")) == {
        "cookies": {"a": "1"},
        "session": {},
        "user": ["AnonymousUser", False],
    }


async def test_a_session_that_was_changed_sets_its_cookie_and_comes_back(wrap: Wrap) -> None:
    class Counting(AsyncHttpConsumer):
        async def handle(self, body: bytes) -> None:
            session = self.scope["session"]
            session["count"] = session.get("count", 0) + 1
            await self.send_response(200, str(session["count"]).encode(), headers=[])

    app = wrap(AuthMiddlewareStack(Counting.as_asgi()))

    first = await Http(app, "GET", "/").get_response()
    ((name, cookie),) = first["headers"]
    second = await Http(app, "GET", "/", headers=[(b"cookie", cookie.partition(b";")[0])]).get_response()

    assert name == b"Set-Cookie"
    assert (first["body"], second["body"]) == (b"1", b"2")


@pytest.mark.parametrize(
    ("origin", "answer"),
    [
        (b"https://site.example", (True, None)),
        (b"https://other.example", (False, 1000)),
        (None, (False, 1000)),
    ],
)
async def test_only_allowed_origins_get_in(wrap: Wrap, origin: bytes | None, answer: tuple[bool, int | None]) -> None:
    app = wrap(AllowedHostsOriginValidator(Echo.as_asgi()))
    socket = Socket(app, "/", headers=[] if origin is None else [(b"origin", origin)])

    assert await socket.connect() == answer
    await socket.disconnect()


# -- what wrapping adds


async def test_an_event_stream_of_a_consumer_goes_on_behind_the_last_event() -> None:
    runs = []
    left = asyncio.Event()

    class Waiting(AsyncHttpConsumer):
        async def handle(self, body: bytes) -> None:
            runs.append(self)
            await self.send_headers(headers=[SSE])
            for i, word in enumerate(WORDS):
                if i == 2:
                    await left.wait()
                await self.send_body(f"data: {word}\n\n".encode(), more_body=True)
            await self.send_body(b"")

    app = stacked(Waiting.as_asgi())
    async with Connection(app, headers={"accept": "text/event-stream"}) as first:
        seen = await first.events(2)
        first.drop()
        await first.finished()
    left.set()
    cursor = {"accept": "text/event-stream", "last-event-id": seen[-1].id}
    async with Connection(app, headers=cursor) as second:
        await second.receive_body()

    assert [event.data for event in seen + second.pending_events] == WORDS
    assert len(runs) == 1
