"""Starlette's own ways to ask who is there, over ``AuthMiddleware``: nothing of ours is imported by the app."""

from __future__ import annotations

import json

import httpx
import pytest
from starlette.applications import Starlette
from starlette.authentication import SimpleUser, requires
from starlette.endpoints import HTTPEndpoint
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket

from streamware import AuthMiddleware
from tests.integrations.known import ADA, BOB, Counting, Smuggling, bearing, secured, socket


def who(connection: HTTPConnection) -> list[object]:
    user, auth = connection.user, connection.auth
    return [user.is_authenticated, user.display_name, user.identity, sorted(auth.scopes)]


async def me(request: Request) -> JSONResponse:
    return JSONResponse(who(request))


@requires("authenticated")
def known(request: Request) -> JSONResponse:
    return JSONResponse(who(request))


@requires(["authenticated", "chat"], status_code=404)
async def chat(request: Request) -> JSONResponse:
    return JSONResponse(who(request))


@requires("chat", redirect="login")
async def page(request: Request) -> PlainTextResponse:
    return PlainTextResponse("page")


async def login(request: Request) -> PlainTextResponse:
    return PlainTextResponse("login")


class Thing(HTTPEndpoint):
    @requires("tools")
    async def put(self, request: Request) -> PlainTextResponse:
        return PlainTextResponse("put")


async def talk(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_json(who(websocket))
    await websocket.close()


@requires("chat")
async def chatter(websocket: WebSocket) -> None:
    await talk(websocket)


def starlette(**options: object) -> Starlette:
    return Starlette(
        routes=[
            Route("/me", me),
            Route("/known", known),
            Route("/chat", chat),
            Route("/page", page),
            Route("/login", login, name="login"),
            Route("/thing", Thing),
            Mount("/open", routes=[Route("/me", me), Route("/known", known), WebSocketRoute("/talk", talk)]),
            WebSocketRoute("/talk", talk),
            WebSocketRoute("/chatter", chatter),
        ],
        **options,  # type: ignore[arg-type]
    )


async def get(app: object, path: str, token: str | None = None, method: str = "GET") -> httpx.Response:
    transport = httpx.ASGITransport(app)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as http:
        return await http.request(method, path, headers=bearing(token))


async def test_request_user_and_request_auth_are_the_principal_and_its_scopes() -> None:
    got = await get(secured(starlette()), "/me", ADA)

    assert got.json() == [True, "ada", "ada", ["authenticated", "chat", "tools"]]


@pytest.mark.parametrize(
    ("path", "token", "status"),
    [
        ("/known", ADA, 200),
        ("/known", BOB, 200),
        ("/open/known", None, 403),
        ("/open/known", BOB, 200),
        ("/chat", ADA, 200),
        ("/chat", BOB, 404),
    ],
)
async def test_requires_lets_in_who_has_the_scopes(path: str, token: str | None, status: int) -> None:
    assert (await get(secured(starlette()), path, token)).status_code == status


async def test_requires_sends_others_to_the_login_page_where_it_is_told_to() -> None:
    app = secured(starlette())

    assert (await get(app, "/page", ADA)).text == "page"
    sent = await get(app, "/page", BOB)
    assert (sent.status_code, sent.headers["location"]) == (
        303,
        "http://testserver/login?next=http%3A%2F%2Ftestserver%2Fpage",
    )


async def test_requires_works_on_methods_of_endpoints() -> None:
    app = secured(starlette())

    assert (await get(app, "/thing", ADA, "PUT")).text == "put"
    assert (await get(app, "/thing", BOB, "PUT")).status_code == 403


async def test_nobody_is_a_user_that_is_not_authenticated() -> None:
    assert (await get(secured(starlette()), "/open/me")).json() == [False, "", "", []]


async def test_it_is_added_as_any_middleware_of_starlettes() -> None:
    verifier = Counting()
    app = starlette(middleware=[Middleware(AuthMiddleware, verifier=verifier, optional=["/open*"])])  # type: ignore[arg-type]

    assert (await get(app, "/me", ADA)).json()[1] == "ada"
    assert (await get(app, "/me")).status_code == 401
    assert verifier.asked == 1


async def test_a_user_that_somebody_else_left_in_the_scope_is_gone() -> None:
    app = Smuggling(secured(starlette()), user=SimpleUser("root"), auth=None)

    assert (await get(app, "/open/me")).json() == [False, "", "", []]
    assert (await get(app, "/me", BOB)).json()[1] == "bob"
    assert (await get(app, "/me")).status_code == 401


@pytest.mark.parametrize(
    ("path", "token", "seen"),
    [
        ("/talk", ADA, [True, "ada", "ada", ["authenticated", "chat", "tools"]]),
        ("/chatter", ADA, [True, "ada", "ada", ["authenticated", "chat", "tools"]]),
        ("/open/talk", None, [False, "", "", []]),
    ],
)
async def test_a_websocket_has_the_same_user(path: str, token: str | None, seen: list[object]) -> None:
    async with socket(secured(starlette()), path, token) as connection:
        assert json.loads(await connection.receive()) == seen


async def test_a_websocket_whose_token_lacks_the_scope_is_closed_before_it_is_accepted() -> None:
    async with socket(secured(starlette()), "/chatter", BOB) as connection:
        await connection.closing()
        assert not connection.accepted
