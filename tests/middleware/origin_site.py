"""An app behind ``OriginMiddleware``, and requests to it as browsers, programs and attackers make them."""

from __future__ import annotations

from typing import Any

from streamware import CountingObserver, OriginMiddleware
from streamware.testing import Connection, WebSocketConnection
from streamware.types import Receive, Scope, Send

OWN = "https://api.example"
LISTED = "https://chat.example"
FOREIGN = "https://evil.example"

COOKIE = {"cookie": "sid=1"}
BEARER = {"authorization": "Bearer abc"}
EVENTSOURCE = {"accept": "text/event-stream", "cache-control": "no-cache", "sec-fetch-mode": "cors"}


class Site:
    """``reached``: the scopes that came through to the app, which answers with the header lines of ``lines``."""

    def __init__(self, **options: Any) -> None:
        self.observer = CountingObserver()
        self.reached: list[Scope] = []
        self.lines: list[tuple[bytes, bytes]] = [(b"content-type", b"text/plain")]
        self.app = OriginMiddleware(self._answer, **{"allow": [LISTED], "observer": self.observer, **options})

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.reached.append(scope)
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.close"})
            return
        await send({"type": "http.response.start", "status": 200, "headers": self.lines})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else b"app"})

    @property
    def reasons(self) -> dict[str, int]:
        """How many were refused, by reason."""
        return {reason: n for (name, reason), n in self.observer.counts.items() if name == "origin.refused"}

    async def ask(
        self,
        method: str = "GET",
        headers: Any = None,
        *,
        scheme: str = "https",
        host: str | None = "api.example",
        **more: Any,
    ) -> Connection:
        """One request, answered. ``headers``: a mapping, or pairs."""
        pairs = list(headers.items() if isinstance(headers, dict) else headers or ())
        given = ([] if host is None else [("host", host)]) + pairs
        scope = {"scheme": scheme, **more.pop("scope", {})}
        connection = Connection(self.app, method=method, headers=given, scope=scope, **more)
        if host is None and not any(name == "host" for name, _ in pairs):  # the driver adds one
            connection.scope["headers"] = [line for line in connection.scope["headers"] if line[0] != b"host"]
        async with connection:
            await connection.receive_body()
        return connection

    async def connect(
        self, headers: Any = None, *, scheme: str = "wss", host: str = "api.example", **more: Any
    ) -> WebSocketConnection:
        """One WebSocket handshake, answered."""
        pairs = list(headers.items() if isinstance(headers, dict) else headers or ())
        scope = {"scheme": scheme, **more.pop("scope", {})}
        connection = WebSocketConnection(self.app, headers=[("host", host), *pairs], scope=scope, **more)
        async with connection:
            await connection.closing()
        return connection


def refusal(connection: WebSocketConnection) -> int | None:
    """The status by which a handshake was refused; None where the server was told to close."""
    starts = [each for each in connection.messages if each["type"] == "websocket.http.response.start"]
    return int(starts[0]["status"]) if starts else None
