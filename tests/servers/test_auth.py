"""``AuthMiddleware`` on real servers: what clients get to see, and what access logs do not."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.auth.verifying import token_for
from tests.servers.client import EVENTSOURCE, fetch
from tests.servers.launch import SERVERS, Kind, Server

LOGGING = tuple("info" if part == "warning" else part for part in SERVERS["uvicorn"].arguments)
KINDS = {
    "uvicorn-websockets": replace(SERVERS["uvicorn"], arguments=(*LOGGING, "--ws", "websockets")),
    "uvicorn-websockets-sansio": replace(SERVERS["uvicorn"], arguments=(*LOGGING, "--ws", "websockets-sansio")),
    "uvicorn-wsproto": replace(SERVERS["uvicorn"], arguments=(*LOGGING, "--ws", "wsproto")),
    "hypercorn": replace(SERVERS["hypercorn"], arguments=(*SERVERS["hypercorn"].arguments, "--access-logfile", "-")),
    "daphne": replace(SERVERS["daphne"], arguments=(*SERVERS["daphne"].arguments, "--access-log", "-")),
    "granian": replace(SERVERS["granian"], arguments=(*SERVERS["granian"].arguments[:-1], "--access-log", "{app}")),
}
#: What stands in the log once all four requests do, where the query is logged at all.
LOGGED = {
    "uvicorn": ["GET /who?mark=1 ", "GET /who?mark=2 ", "/socket?mark=3", "/socket?mark=4"],
    "daphne": ["/who?mark=1", "/who?mark=2", "WSREJECT /socket"],
}
TOKEN = token_for("ada")
FORGED = TOKEN[:-6] + "AAAAAA"


@pytest.fixture(scope="module", params=KINDS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    kind: Kind = KINDS[request.param]
    with Server(kind, "tests.servers.auth_app:auto") as running:
        yield running
        assert not running.complaints


def url(server: Server, query: str = "") -> str:
    return f"ws://127.0.0.1:{server.port}/socket{query}"


def origin(server: Server) -> str:
    return f"http://127.0.0.1:{server.port}"


async def test_a_script_is_refused_by_http_where_the_server_can(server: Server):
    expected = 403 if server.kind.name == "daphne" else 401
    for subprotocols in (None, ["bearer", FORGED]):
        with pytest.raises(InvalidStatus) as caught:
            await connect(url(server), subprotocols=subprotocols)
        response = caught.value.response
        assert response.status_code == expected
        if expected == 401:
            assert response.headers["www-authenticate"].startswith('Bearer realm="api"')
            assert json.loads(response.body)["title"] == "Unauthorized"


async def test_a_page_is_accepted_and_closed_with_the_code(server: Server):
    async with connect(url(server), origin=origin(server), subprotocols=["bearer", FORGED]) as socket:
        assert socket.subprotocol == "bearer"
        with pytest.raises(ConnectionClosed) as caught:
            await socket.recv()

    assert caught.value.rcvd.code == 3000
    assert caught.value.rcvd.reason in ("Unauthorized", "")


async def test_a_token_in_a_subprotocol_lets_a_page_in(server: Server):
    async with connect(url(server), origin=origin(server), subprotocols=["bearer", TOKEN]) as socket:
        assert socket.subprotocol == "bearer"
        assert await socket.recv() == "ada"


async def test_an_eventsource_and_a_fetch_get_a_401(server: Server):
    for headers in (EVENTSOURCE, ()):
        status, answered, body = await fetch(server, "GET", "/events", headers=headers)
        assert status == 401
        assert answered["www-authenticate"] == 'Bearer realm="api"'
        assert json.loads(body)["status"] == 401


async def test_a_ticket_is_good_once(server: Server):
    headers = (("authorization", f"Bearer {TOKEN}"), ("content-type", "application/json"))
    status, _, body = await fetch(server, "POST", "/_auth/ticket", headers=headers, body=b'{"path": "/events"}')
    assert status == 200
    target = f"/events?ticket={json.loads(body)['ticket']}"

    first = await fetch(server, "GET", target, headers=EVENTSOURCE)
    again = await fetch(server, "GET", target, headers=EVENTSOURCE)

    assert (first[0], first[2]) == (200, b"data: ada\n\n")
    assert again[0] == 401


async def test_a_token_in_the_query_is_in_no_access_log(server: Server):
    status, _, body = await fetch(server, "GET", f"/who?mark=1&access_token={TOKEN}")
    refused, _, _ = await fetch(server, "GET", f"/who?mark=2&access_token={FORGED}")
    async with connect(url(server, f"?mark=3&access_token={TOKEN}")) as socket:
        assert await socket.recv() == "ada"
    with pytest.raises(InvalidStatus):
        await connect(url(server, f"?mark=4&access_token={FORGED}"))

    assert (status, json.loads(body), refused) == (200, ["ada", "mark=1"], 401)
    await written(server, *(LOGGED.get(server.kind.name, ["/who", "/socket"])))
    # Daphne writes its log from the request that it has read, which no app can change; docs/middleware/auth.md says so.
    assert (TOKEN in server.log) is (FORGED in server.log) is (server.kind.name == "daphne")


async def written(server: Server, *marks: str) -> None:
    """Wait until all of this stands in the server's log."""
    deadline = time.monotonic() + 10
    while not all(mark in server.log for mark in marks):
        assert time.monotonic() < deadline, server.log
        await asyncio.sleep(0.02)
