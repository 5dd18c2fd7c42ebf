"""How a WebSocket is refused, so that each client sees it."""

from __future__ import annotations

import pytest

from streamware.testing import ConnectionEndedError, WebSocketConnection
from streamware.types import Receive, Scope, Send
from streamware.wire.denial import Denial, WebSocketReject, reject_websocket

UNAUTHORIZED = Denial(401, "Unauthorized", headers=((b"www-authenticate", b'Bearer realm="api"'),))
ORIGIN = [("origin", "https://chat.example")]


def refusing(how: WebSocketReject, subprotocol: str | None = None):
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await reject_websocket(scope, receive, send, UNAUTHORIZED, how=how, code=3000, subprotocol=subprotocol)

    return app


async def outcome(connection: WebSocketConnection) -> str:
    async with connection:
        code = await connection.closing()
        await connection.finished()
    if connection.accepted:
        return f"accepted, closed {code}"
    kinds = [message["type"] for message in connection.messages]
    return f"HTTP {connection.messages[0]['status']}" if "http" in kinds[0] else "closed"


@pytest.mark.parametrize(
    ("how", "headers", "server", "expected"),
    [
        ("auto", (), "uvicorn", "HTTP 401"),
        ("auto", (), "daphne", "closed"),
        ("auto", ORIGIN, "uvicorn", "accepted, closed 3000"),
        ("auto", ORIGIN, "daphne", "accepted, closed 3000"),
        ("http", ORIGIN, "uvicorn", "HTTP 401"),
        ("http", ORIGIN, "daphne", "closed"),
        ("accept-close", (), "hypercorn", "accepted, closed 3000"),
        ("accept-close", (), "granian", "accepted, closed 3000"),
    ],
)
async def test_the_form_of_a_refusal_is_one_that_its_client_can_see(how, headers, server, expected):
    assert await outcome(WebSocketConnection(refusing(how), headers=headers, server=server)) == expected


async def test_it_is_accepted_with_the_subprotocol_given_and_closed_with_the_title():
    connection = WebSocketConnection(refusing("accept-close", "chat"), subprotocols=["chat"])

    assert await outcome(connection) == "accepted, closed 3000"
    assert (connection.subprotocol, connection.close_reason) == ("chat", "Unauthorized")


async def test_a_client_that_has_left_already_is_sent_nothing():
    connection = WebSocketConnection(refusing("accept-close"))
    connection._incoming.clear()
    connection.drop()

    async with connection:
        with pytest.raises(ConnectionEndedError):
            await connection.start()

    assert connection.messages == []
    assert connection.sent_after_disconnect == []
