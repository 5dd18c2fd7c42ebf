"""Channels' consumers find the principal in ``scope["user"]``, whether ``AuthMiddleware`` stands around Channels' own
stack or within it. Nothing of ours is imported by the app."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from channels.auth import AuthMiddlewareStack
from channels.generic.http import AsyncHttpConsumer
from channels.generic.websocket import AsyncWebsocketConsumer, JsonWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.sessions.backends.signed_cookies import SessionStore
from django.test.utils import override_settings
from django.urls import path, re_path

from examples import django_app  # noqa: F401  # for its settings
from streamware.types import AnyASGIApp
from tests.integrations.known import ADA, BOB, bearing, secured, socket
from tests.integrations.test_django import BACKEND, Backend


@pytest.fixture(autouse=True)
def settings() -> Iterator[None]:
    with override_settings(
        INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"],
        SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
        AUTHENTICATION_BACKENDS=[BACKEND],
    ):
        yield


def who(scope: Any) -> str:
    user = scope["user"]
    name = user.display_name if hasattr(user, "display_name") else user.get_username()
    seen = [user.__class__.__name__, user.is_authenticated, user.is_anonymous, user.pk, name]
    return json.dumps([*seen, sorted(scope["auth"].scopes) if "auth" in scope else None])


class Async(AsyncWebsocketConsumer):
    async def connect(self) -> None:
        await self.accept()
        self.scope["user"].marked = True  # as applications do to what is their request's
        await self.send(who(self.scope))

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.send(who(self.scope))


class Sync(JsonWebsocketConsumer):
    def connect(self) -> None:
        self.accept()
        self.send(who(self.scope))


class Http(AsyncHttpConsumer):
    async def handle(self, body: bytes) -> None:
        await self.send_response(200, who(self.scope).encode(), headers=[(b"content-type", b"application/json")])


def channels(inner: Callable[[AnyASGIApp], AnyASGIApp]) -> AnyASGIApp:
    sockets = URLRouter(
        [
            re_path("^(open/)?async$", Async.as_asgi()),
            re_path("^(open/)?sync$", Sync.as_asgi()),
        ]
    )
    return ProtocolTypeRouter(
        {
            "websocket": inner(sockets),
            "http": inner(URLRouter([path("http", Http.as_asgi()), path("open/http", Http.as_asgi())])),
        }
    )


STACKS: dict[str, Callable[[], AnyASGIApp]] = {
    "around Channels": lambda: secured(channels(lambda app: app)),
    "around AuthMiddlewareStack": lambda: secured(channels(AuthMiddlewareStack)),
    "within AuthMiddlewareStack": lambda: channels(lambda app: AuthMiddlewareStack(secured(app))),
}
IS_ADA = ["Principal", True, False, None, "ada", ["authenticated", "chat", "tools"]]
IS_NOBODY = ["AnonymousPrincipal", False, True, None, "", []]


@pytest.fixture(params=list(STACKS))
def app(request: pytest.FixtureRequest) -> AnyASGIApp:
    return STACKS[request.param]()


def session() -> str:
    """A cookie of somebody who is logged in with Django."""
    store = SessionStore()
    store[SESSION_KEY] = "1"
    store[BACKEND_SESSION_KEY] = BACKEND
    store[HASH_SESSION_KEY] = Backend().get_user(1).get_session_auth_hash()
    store.save()
    return f"sessionid={store.session_key}"


@pytest.mark.parametrize("consumer", ["async", "sync"])
async def test_a_consumer_finds_the_principal(app: AnyASGIApp, consumer: str) -> None:
    async with socket(app, f"/{consumer}", ADA) as connection:
        assert json.loads(await connection.receive()) == IS_ADA
        connection.close()


@pytest.mark.parametrize("consumer", ["async", "sync"])
async def test_on_an_optional_path_it_finds_nobody(app: AnyASGIApp, consumer: str) -> None:
    async with socket(app, f"/open/{consumer}") as connection:
        assert json.loads(await connection.receive()) == IS_NOBODY
        connection.close()


async def test_who_shows_no_token_does_not_reach_it(app: AnyASGIApp) -> None:
    async with socket(app, "/async") as connection:
        await connection.closing()
        assert not connection.accepted


async def test_an_http_consumer_finds_it_too(app: AnyASGIApp) -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://testserver") as http:
        assert (await http.get("/http", headers=bearing(ADA))).json() == IS_ADA
        assert (await http.get("/open/http")).json() == IS_NOBODY
        assert (await http.get("/http")).status_code == 401


async def test_a_token_goes_before_a_session_and_a_session_is_no_token(app: AnyASGIApp) -> None:
    cookie = {"Cookie": session()}
    async with socket(app, "/async", scope={"headers": raw({**bearing(ADA), **cookie})}) as connection:
        assert json.loads(await connection.receive()) == IS_ADA
        connection.close()
    async with socket(app, "/async", scope={"headers": raw(cookie)}) as connection:
        await connection.closing()
        assert not connection.accepted


async def test_where_auth_middleware_leaves_a_path_alone_the_session_is_as_ever() -> None:
    app = secured(channels(AuthMiddlewareStack), exclude=["/async"])

    async with socket(app, "/async", scope={"headers": raw({"Cookie": session()})}) as connection:
        assert json.loads(await connection.receive()) == ["User", True, False, 1, "by session", None]
        connection.close()


async def test_what_one_connection_does_to_its_principal_no_other_sees(app: AnyASGIApp) -> None:
    seen: list[Any] = []

    async def watched(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["user"])
        await Async.as_asgi()(scope, receive, send)

    one = secured(AuthMiddlewareStack(watched))
    async with socket(one, "/async", ADA) as first, socket(one, "/async", ADA) as second:
        await asyncio.gather(first.receive(), second.receive())
        assert seen[0] is not seen[1]
        first.send("and now?")
        assert json.loads(await first.receive()) == IS_ADA
        first.close()
        second.close()
    assert seen[0]._wrapped is not seen[1]._wrapped, "Channels' own mark"
    async with socket(secured(watched), "/async", BOB) as third:
        await third.receive()
        third.close()
    assert not hasattr(seen[2], "_wrapped")


def raw(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode(), value.encode()) for name, value in headers.items()]
