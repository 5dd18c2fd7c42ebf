"""What the tests of ``AuthMiddleware`` share: an app that tells what it sees, and ways to ask it."""

from __future__ import annotations

import json
from typing import Any

from streamware import AuthMiddleware
from streamware.testing import Connection, WebSocketConnection
from streamware.types import Receive, Scope, Send
from tests.auth.verifying import SecretVerifier

ORIGIN = "https://chat.example"
EVENTSOURCE = [("accept", "text/event-stream"), ("cache-control", "no-cache")]


class Site:
    """An app that answers with what it was called with. ``calls``: the scopes of its calls."""

    def __init__(self, subprotocol: str | None = None) -> None:
        self.calls: list[Scope] = []
        self.subprotocol = subprotocol

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return
        self.calls.append(scope)
        user = scope["user"]
        seen = {"subject": user.subject, "known": user.is_authenticated, "scopes": scope["auth"].scopes}
        if scope["type"] == "websocket":
            assert (await receive())["type"] == "websocket.connect"
            await send({"type": "websocket.accept", "subprotocol": self.subprotocol})
            await send({"type": "websocket.send", "text": json.dumps(seen)})
            await send({"type": "websocket.close"})
            return
        body = json.dumps(seen).encode()
        headers = [(b"content-type", b"application/json"), (b"cache-control", b"max-age=60")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def guarded(site: Site | None = None, **options: Any) -> AuthMiddleware:
    if not options.keys() & {"verifier", "verifiers"}:
        options["verifier"] = SecretVerifier()
    return AuthMiddleware(Site() if site is None else site, **options)


def bearer(token: str) -> tuple[str, str]:
    return ("authorization", f"Bearer {token}")


async def ask(app: Any, *headers: tuple[str, str], **request: Any) -> Connection:
    """One request, to its end."""
    connection = Connection(app, headers=headers, **request)
    async with connection:
        await connection.finished()
    return connection


async def shake(app: Any, *subprotocols: str, **request: Any) -> WebSocketConnection:
    """One handshake, and whatever comes of it."""
    connection = WebSocketConnection(app, subprotocols=subprotocols, **request)
    if subprotocols:
        line = (b"sec-websocket-protocol", ", ".join(subprotocols).encode("latin-1", "replace"))
        connection.scope["headers"] = [*connection.scope["headers"], line]
    async with connection:
        await connection.finished()
    return connection


def seen(connection: Connection | WebSocketConnection) -> dict[str, Any]:
    """What the app has told."""
    if isinstance(connection, Connection):
        assert connection.status == 200, connection.body
        return json.loads(connection.body)
    (message,) = [message for message in connection.messages if message["type"] == "websocket.send"]
    return json.loads(message["text"])


def refused(connection: Connection | WebSocketConnection) -> tuple[int, str]:
    """The status and the error of a refusal by HTTP, which is checked to be one."""
    start = connection.messages[0]
    assert start["type"].endswith("http.response.start"), connection.messages
    headers = dict(start["headers"])
    assert headers[b"content-type"] == b"application/problem+json"
    assert headers[b"cache-control"] == b"no-store"
    problem = json.loads(b"".join(message["body"] for message in connection.messages[1:]))
    assert problem["status"] == start["status"]
    challenge = headers.get(b"www-authenticate", b"").decode()
    error = problem.get("error", "")
    if start["status"] == 401 or error:
        assert challenge.startswith("Bearer realm=")
        assert (f'error="{error}"' in challenge) is bool(error)
    return start["status"], error
