"""FastAPI's dependency: who asks, which scopes it needs, and what the documentation of the API says of it."""

from __future__ import annotations

import json
import logging
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, Security, WebSocket
from fastapi.security import OAuth2AuthorizationCodeBearer, OpenIdConnect
from starlette.authentication import AuthCredentials, SimpleUser

from streamware import AnonymousPrincipal, Principal
from streamware.integrations import fastapi as integration
from streamware.integrations.fastapi import (
    CurrentPrincipal,
    OptionalPrincipal,
    OptionalPrincipalScheme,
    PrincipalScheme,
    optional_principal,
    principal,
)
from streamware.observe import OnceLog
from tests.integrations.known import ADA, BOB, Smuggling, bearing, secured, socket

Chatter = Annotated[Principal, Security(principal, scopes=["chat"])]

PROVIDER = OAuth2AuthorizationCodeBearer(
    authorizationUrl="https://idp.example/authorize",
    tokenUrl="https://idp.example/token",
    scopes={"chat": "To chat"},
    scheme_name="idp",
)
DISCOVERED = OpenIdConnect(openIdConnectUrl="https://idp.example/.well-known/openid-configuration")


def who(asks: Principal | None) -> str | None:
    return None if asks is None else asks.subject


def toolsmith(asks: Annotated[Principal, Security(principal, scopes=["tools"])]) -> str:
    return asks.subject


def fastapi() -> FastAPI:
    app = FastAPI()

    @app.get("/me")
    @app.get("/open/me")
    async def me(asks: CurrentPrincipal) -> str | None:
        return who(asks)

    @app.get("/sync")
    def sync(asks: CurrentPrincipal) -> str | None:
        return who(asks)

    @app.get("/maybe")
    @app.get("/open/maybe")
    async def maybe(asks: OptionalPrincipal) -> str | None:
        return who(asks)

    @app.get("/open/maybe-chat")
    async def maybe_chat(
        asks: Annotated[Principal | None, Security(optional_principal, scopes=["chat"])],
    ) -> str | None:
        return who(asks)

    @app.get("/chat")
    async def chat(asks: Chatter) -> str | None:
        return who(asks)

    @app.get("/nested")
    async def nested(smith: Annotated[str, Security(toolsmith, scopes=["chat"])]) -> str:
        return smith

    @app.websocket("/talk")
    @app.websocket("/open/talk")
    async def talk(websocket: WebSocket, asks: Chatter) -> None:
        await websocket.accept()
        await websocket.send_json(who(asks))
        await websocket.close()

    inner = APIRouter(dependencies=[Security(principal, scopes=["tools"])])

    @inner.get("/routed")
    async def routed() -> str:
        return "routed"

    @inner.websocket("/routed-talk")
    async def routed_talk(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.close()

    app.include_router(inner)
    return app


async def get(app: object, path: str, token: str | None = None) -> httpx.Response:
    transport = httpx.ASGITransport(app)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as http:
        return await http.get(path, headers=bearing(token))


@pytest.mark.parametrize("path", ["/me", "/sync", "/maybe", "/chat", "/nested", "/open/me", "/open/maybe-chat"])
async def test_an_endpoint_is_given_the_principal(path: str) -> None:
    app = secured(fastapi())

    assert (await get(app, path, ADA)).json() == "ada"


async def test_the_token_is_verified_once_and_not_by_the_dependency() -> None:
    app = secured(fastapi())

    await get(app, "/nested", ADA)

    assert app._gate.verifier.asked == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("path", "scope"),
    [("/chat", "chat"), ("/routed", "tools"), ("/open/maybe-chat", "chat"), ("/nested", "chat tools")],
)
async def test_a_missing_scope_is_refused_and_named(path: str, scope: str) -> None:
    got = await get(secured(fastapi()), path, BOB)

    assert got.status_code == 403
    challenge = got.headers["www-authenticate"]
    assert challenge.startswith('Bearer realm="api", error="insufficient_scope"')
    named = challenge.partition('scope="')[2].partition('"')[0]
    assert sorted(named.split()) == scope.split()
    assert got.json() == {"detail": "The access token does not allow this."}


async def test_where_nobody_has_to_show_a_token_the_dependency_may_want_one_all_the_same() -> None:
    app = secured(fastapi())

    got = await get(app, "/open/me")
    assert (got.status_code, got.headers["www-authenticate"]) == (401, 'Bearer realm="api"')
    assert (await get(app, "/open/maybe")).json() is None
    assert (await get(app, "/open/maybe-chat")).json() is None


LEFT: list[dict[str, Any]] = [
    {},
    {"user": None},
    {"user": "ada"},
    {"user": {"subject": "ada", "scopes": ["chat"]}},
    {"user": SimpleUser("ada"), "auth": AuthCredentials(["authenticated", "chat", "tools"])},
    {"user": AnonymousPrincipal(subject="ada", scopes=["chat", "tools"])},
]


@pytest.mark.parametrize("left", LEFT)
async def test_without_auth_middleware_nobody_is_known_whatever_stands_in_the_scope(left: dict[str, Any]) -> None:
    app = Smuggling(fastapi(), **left)

    for path in ("/me", "/chat", "/nested", "/routed"):
        assert (await get(app, path, ADA)).status_code == 401
    assert (await get(app, "/maybe", ADA)).json() is None
    async with socket(app, "/talk", ADA) as connection:
        await connection.closing()
        assert not connection.accepted


async def test_that_auth_middleware_is_missing_is_said_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(integration, "_once", OnceLog(integration.logger))
    with caplog.at_level(logging.WARNING, "streamware.auth"):
        for _ in range(3):
            await get(fastapi(), "/me", ADA)

    assert [record.getMessage() for record in caplog.records] == [
        "'/me': no AuthMiddleware stands outside the app for this path, so nobody is known there"
    ]


async def test_a_websocket_route_is_given_the_principal() -> None:
    async with socket(secured(fastapi()), "/talk", ADA) as connection:
        assert json.loads(await connection.receive()) == "ada"


@pytest.mark.parametrize(
    ("path", "token", "status", "code"),
    [("/talk", BOB, 403, 3003), ("/open/talk", None, 401, 3000), ("/routed-talk", BOB, 403, 3003)],
)
async def test_a_websocket_is_refused_by_a_response_or_where_there_can_be_none_by_a_close(
    path: str, token: str | None, status: int, code: int
) -> None:
    async with socket(secured(fastapi()), path, token) as connection:
        await connection.closing()
        (start, *_) = [message for message in connection.messages if message["type"] == "websocket.http.response.start"]
        assert start["status"] == status
        assert b"www-authenticate" in dict(start["headers"])
    async with socket(secured(fastapi()), path, token, server="daphne") as connection:
        await connection.closing()
        assert not connection.accepted
        assert connection.close_code == code


async def test_the_dependencies_of_a_router_hold_for_its_websockets() -> None:
    async with socket(secured(fastapi()), "/routed-talk", ADA) as connection:
        await connection.start()


def test_the_documentation_of_the_api_names_the_scheme_and_the_scopes() -> None:
    api = fastapi().openapi()

    assert api["components"]["securitySchemes"] == {
        "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
    }
    wanted = {path: each["get"]["security"] for path, each in api["paths"].items()}
    assert wanted["/me"] == wanted["/maybe"] == [{"bearer": []}]
    assert wanted["/chat"] == wanted["/open/maybe-chat"] == [{"bearer": ["chat"]}]
    assert wanted["/routed"] == [{"bearer": ["tools"]}]
    assert sorted(wanted["/nested"][0]["bearer"]) == ["chat", "tools"]


async def test_any_scheme_of_fastapis_may_stand_in_the_documentation() -> None:
    app = FastAPI()

    @app.get("/me")
    async def me(asks: Annotated[Principal, Security(PrincipalScheme(PROVIDER), scopes=["chat"])]) -> str | None:
        return who(asks)

    @app.get("/open/maybe")
    async def maybe(asks: Annotated[Principal | None, Depends(OptionalPrincipalScheme(DISCOVERED))]) -> str | None:
        return who(asks)

    schemes = app.openapi()["components"]["securitySchemes"]
    assert schemes["idp"]["flows"]["authorizationCode"]["scopes"] == {"chat": "To chat"}
    assert schemes["OpenIdConnect"]["type"] == "openIdConnect"
    assert (await get(secured(app), "/me", ADA)).json() == "ada"
    assert (await get(secured(app), "/me", BOB)).status_code == 403
    assert (await get(secured(app), "/open/maybe")).json() is None
