"""The four apps that know who asks, each in a server process of its own: what its framework sees of the principal."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest
import websockets
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from examples import content
from tests.servers.launch import SERVERS, Server

ADA, BOB = "ada-0123456789abcdef", "bob-0123456789abcdef"
IS_ADA = {"authenticated": True, "name": "ada", "scopes": ["chat"]}
IS_BOB = {"authenticated": True, "name": "bob", "scopes": []}
IS_NOBODY = {"authenticated": False, "name": "", "scopes": []}


def bearing(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture(scope="module", params=["starlette", "fastapi", "django", "channels"])
def app(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    return chosen


@pytest.fixture(scope="module")
def server(app: str) -> Iterator[Server]:
    kind = SERVERS["daphne" if app == "channels" else "uvicorn"]
    with Server(kind, f"examples.secured:{app}_secured") as running:
        yield running
        # Django shows the traceback of every 403 that a decorator of its makes.
        assert running.log.count("Traceback") == running.log.count("Forbidden (Permission denied)")
        assert ADA not in running.log
        assert BOB not in running.log


@pytest.fixture
def http(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=20) as client:
        yield client


def test_a_view_sees_who_asks(http: httpx.Client):
    assert http.get("/me", headers=bearing(ADA)).json() == IS_ADA
    assert http.get("/me", headers=bearing(BOB)).json() == IS_BOB


@pytest.mark.parametrize("headers", [{}, bearing("eve-0123456789abcdef"), {"Authorization": "Basic YTpi"}])
def test_nobody_is_refused_before_the_app(http: httpx.Client, headers: dict[str, str]):
    got = http.get("/me", headers=headers)

    assert got.status_code == 401
    assert got.headers["www-authenticate"].startswith("Bearer ")
    assert got.headers["content-type"] == "application/problem+json"


def test_a_path_that_is_open_is_everybodys_and_still_knows_who_asks(http: httpx.Client):
    assert http.get("/open").json() == IS_NOBODY
    assert http.get("/open", headers=bearing(ADA)).json() == IS_ADA
    assert http.get("/open", headers=bearing("eve-0123456789abcdef")).status_code == 401


def test_a_stream_is_for_tokens_with_the_scope_that_its_own_framework_asks_for(http: httpx.Client):
    assert http.get("/events", headers=bearing(BOB)).status_code == 403
    got = http.get("/events", headers=bearing(ADA))
    assert got.headers["content-type"].startswith("text/event-stream")
    assert got.content == content.body(10)


@pytest.mark.parametrize("app", ["starlette", "fastapi", "channels"], indirect=True, scope="module")
async def test_a_websocket_sees_who_asks_and_is_closed_to_tokens_without_the_scope(server: Server):
    url = f"ws://127.0.0.1:{server.port}/talk"
    async with websockets.connect(url, additional_headers=bearing(ADA)) as socket:
        assert json.loads(await socket.recv()) == IS_ADA
        with pytest.raises(ConnectionClosed):
            await socket.recv()
    async with websockets.connect(url, subprotocols=[Subprotocol("bearer"), Subprotocol(ADA)]) as socket:
        assert socket.subprotocol == "bearer"
        assert json.loads(await socket.recv()) == IS_ADA
    with pytest.raises(InvalidStatus) as refused:
        await websockets.connect(url, additional_headers=bearing(BOB))
    assert refused.value.response.status_code == 403
    with pytest.raises(InvalidStatus) as refused:
        await websockets.connect(url)
    # daphne knows no refusal of a WebSocket but this one
    assert refused.value.response.status_code == (403 if server.kind.name == "daphne" else 401)


@pytest.mark.parametrize("app", ["fastapi"], indirect=True, scope="module")
def test_the_documentation_of_the_api_shows_the_locks(http: httpx.Client):
    api = http.get("/openapi.json").json()

    assert api["components"]["securitySchemes"] == {
        "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
    }
    assert api["paths"]["/me"]["get"]["security"] == [{"bearer": []}]
    assert api["paths"]["/events"]["get"]["security"] == [{"bearer": ["chat"]}]
    assert http.get("/docs").status_code == 200
